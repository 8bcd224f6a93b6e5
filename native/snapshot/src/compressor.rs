//! The compressor filter's decisions: what the client accepts, and whether a response is worth compressing.
//!
//! Functions of configuration and headers; compressing is the filter's job.

use std::cmp::Ordering;

use tidegate_model::compressor::Compressor;

/// What the client's `accept-encoding` came to, among the compressors of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodingChoice {
    /// `None`: as it is.
    pub encoding: Option<&'static str>,
    pub reason: EncodingReason,
}

/// Why, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodingReason {
    NotValid,
    Identity,
    Wildcard,
    Compressor,
}

impl EncodingChoice {
    const NOT_VALID: Self = Self {
        encoding: None,
        reason: EncodingReason::NotValid,
    };

    /// Chooses for a response of this type. `compressors`: all of the chain, in order.
    pub fn of<'c>(
        accept_encoding: &[u8],
        content_type: Option<&[u8]>,
        compressors: impl Iterator<Item = &'c Compressor>,
    ) -> Self {
        // Encoding and `choose_first`; one of each encoding, in order.
        let mut allowed: Vec<(&'static str, bool)> = Vec::new();
        for compressor in compressors {
            let encoding = compressor.library.encoding();
            let known = allowed.iter().any(|(other, _)| *other == encoding);
            if !known && takes_type(compressor, content_type.filter(|text| !text.is_empty())) {
                allowed.push((encoding, compressor.choose_first));
            }
        }
        let mut accepted: Vec<(&[u8], f32)> = Vec::new();
        for token in accept_encoding.split(|byte| *byte == b',') {
            if token.is_empty() {
                continue;
            }
            let mut parts = token.splitn(2, |byte| *byte == b';');
            let name = parts.next().unwrap_or_default().trim_ascii();
            let weight = match parts.next() {
                None => Some(1.0),
                Some(parameters) => weight(parameters),
            };
            let Some(weight) = weight else {
                continue;
            };
            accepted.push((name, weight));
            if weight == 0.0 {
                allowed.retain(|(encoding, _)| encoding.as_bytes() != name);
            }
        }
        if accepted.is_empty() || allowed.is_empty() {
            return Self::NOT_VALID;
        }
        let mut choice: (&[u8], f32) = (b"identity", 0.0);
        for (name, weight) in accepted {
            let ours = allowed
                .iter()
                .find(|(encoding, _)| encoding.as_bytes() == name);
            if ours.is_none() && name != b"identity" && name != b"*" {
                continue;
            }
            let first = ours.is_some_and(|(_, choose_first)| *choose_first);
            match weight.total_cmp(&choice.1) {
                Ordering::Greater => choice = (name, weight),
                Ordering::Equal if first => choice = (name, weight),
                Ordering::Equal | Ordering::Less => {}
            }
        }
        if choice.1 == 0.0 {
            return Self::NOT_VALID;
        }
        match choice.0 {
            b"identity" => Self {
                encoding: None,
                reason: EncodingReason::Identity,
            },
            b"*" => Self {
                encoding: allowed.first().map(|(encoding, _)| *encoding),
                reason: EncodingReason::Wildcard,
            },
            name => Self {
                encoding: allowed
                    .iter()
                    .map(|(encoding, _)| *encoding)
                    .find(|encoding| encoding.as_bytes() == name),
                reason: EncodingReason::Compressor,
            },
        }
    }
}

/// The weight in the parameters of an encoding; `None`: it cannot be read.
fn weight(parameters: &[u8]) -> Option<f32> {
    let Some(equals) = memchr::memchr(b'=', parameters) else {
        return Some(1.0);
    };
    let (name, value) = parameters.split_at(equals);
    if !name.trim_ascii().eq_ignore_ascii_case(b"q") {
        return Some(1.0);
    }
    let value = std::str::from_utf8(value.get(1..)?).ok()?;
    value.trim().parse().ok()
}

/// Whether the compressor is for responses of this type; all are for those without one.
pub fn takes_type(compressor: &Compressor, content_type: Option<&[u8]>) -> bool {
    let Some(content_type) = content_type else {
        return true;
    };
    let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
    let content_type = content_type.get(..end).unwrap_or_default().trim_ascii();
    let mut types = compressor.response.content_types.iter();
    types.any(|known| known.as_bytes().eq_ignore_ascii_case(content_type))
}

/// Whether a list of tokens has this one, in any case.
pub fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|byte| *byte == b',')
        .any(|found| found.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_model::compressor::{CompressionLibrary, ResponseDirection};
    use tidegate_model::{Name, RuntimeFlag};

    fn compressor(library: CompressionLibrary, choose_first: bool) -> Compressor {
        Compressor {
            library,
            library_name: Name::from("x"),
            response: ResponseDirection {
                enabled: RuntimeFlag {
                    default: true,
                    runtime_key: None,
                },
                min_content_length: 30,
                content_types: vec![Name::from("text/plain")],
                disable_on_etag_header: false,
                remove_accept_encoding_header: false,
                uncompressible_response_codes: Vec::new(),
                own_stats: true,
            },
            choose_first,
        }
    }

    fn choose(accept: &str, first: bool) -> (Option<&'static str>, EncodingReason) {
        let gzip = CompressionLibrary::Gzip {
            level: None,
            window_bits: 12,
        };
        let zstd = CompressionLibrary::Zstd {
            level: 3,
            checksum: false,
        };
        let chain = [compressor(gzip, false), compressor(zstd, first)];
        let choice = EncodingChoice::of(accept.as_bytes(), Some(b"text/plain; x=y"), chain.iter());
        (choice.encoding, choice.reason)
    }

    #[test]
    fn weights_decide() {
        use EncodingReason::{Compressor, Identity, NotValid, Wildcard};
        assert_eq!(choose("gzip, zstd", false), (Some("gzip"), Compressor));
        assert_eq!(choose("gzip, zstd", true), (Some("zstd"), Compressor));
        assert_eq!(
            choose("gzip;q=.5, zstd;q=0.9", false),
            (Some("zstd"), Compressor)
        );
        assert_eq!(choose("gzip;q=0, *", false), (Some("zstd"), Wildcard));
        assert_eq!(choose("identity", false), (None, Identity));
        assert_eq!(choose("br", false), (None, NotValid));
        assert_eq!(choose("gzip;q=x", false), (None, NotValid));
        assert_eq!(choose("gzip;q=0", false), (None, NotValid));
        assert_eq!(choose("", false), (None, NotValid));
    }
}
