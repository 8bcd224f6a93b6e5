//! The compressor filter: notes on the way in what the client accepts, and compresses responses on the way out.
//!
//! ```text
//! request   compressor (in run_filters): remembers `accept-encoding`
//! response  compress_head (in encode_head) decides ─▶ write_encoded … ─▶ the end
//! ```

mod encoder;

use std::rc::Rc;

use tidegate_codec::h1::{KnownHeader, Span};
use tidegate_model::compressor::{Compressor, CompressorPerRoute};
use tidegate_model::hcm::HttpFilterKind;
use tidegate_snapshot::compressor::{EncodingChoice, EncodingReason, has_token, takes_type};
use tidegate_snapshot::per_filter::CompiledPolicy;
use tidegate_stats::defs::compressor as stat;
use tidegate_stats::{Group, Local, Registry};

use self::encoder::Encoder;
use super::ServerConnection;
use super::filters::Verdict;
use super::headers::HeaderList;
use super::runtime::{FilterRuntime, HcmRuntime};
use super::stream::{Stream, StreamRoute};
use crate::worker::{Core, Worker};

/// The part of the compressor filters in one stream.
#[derive(Default)]
pub(crate) struct Compression {
    /// `accept-encoding` as it came, in the store of the request's headers.
    accepts: Option<Span>,
    /// The filters, by place in the chain, that have seen it.
    seen: u64,
    choice: Option<EncodingChoice>,
    body: Option<Box<Body>>,
}

/// A body being compressed.
struct Body {
    encoder: Encoder,
    /// The place of the filter in the chain.
    index: usize,
}

impl Compression {
    /// The response's body goes through here.
    #[inline]
    pub(crate) const fn is_active(&self) -> bool {
        self.body.is_some()
    }
}

/// The counters of one filter.
pub(crate) struct CompressorGroups {
    common: Group<stat::Compressor>,
    request: Group<stat::CompressorDirection>,
    response: Group<stat::CompressorDirection>,
}

/// The same in one worker.
pub(crate) struct CompressorStats {
    common: Local<stat::Compressor>,
    request: Local<stat::CompressorDirection>,
    response: Local<stat::CompressorDirection>,
}

impl CompressorGroups {
    /// `prefix`: the connection manager's, `http.NAME.`.
    pub(crate) fn new(registry: &Registry, prefix: &str, config: &Compressor) -> Self {
        let (name, library) = (&config.library_name, config.library.stat_name());
        let prefix = format!("{prefix}compressor.{name}.{library}.");
        let response = if config.response.own_stats {
            format!("{prefix}response.")
        } else {
            prefix.clone()
        };
        Self {
            common: registry.group(&prefix),
            request: registry.group(&format!("{prefix}request.")),
            response: registry.group(&response),
        }
    }

    pub(crate) fn local(&self, worker: usize) -> CompressorStats {
        CompressorStats {
            common: self.common.local(worker),
            request: self.request.local(worker),
            response: self.response.local(worker),
        }
    }
}

/// A compressor filter of the chain, with what the route says to it.
struct Filter<'a> {
    config: &'a Compressor,
    stats: &'a CompressorStats,
    per_route: CompressorPerRoute,
    index: usize,
}

impl<'a> Filter<'a> {
    fn at(hcm: &'a HcmRuntime, stream: &Stream, index: usize) -> Option<Self> {
        let filter = hcm.config.http_filters.get(index)?;
        let HttpFilterKind::Compressor(config) = &filter.kind else {
            return None;
        };
        let Some(FilterRuntime::Compressor(stats)) = hcm.filter_runtimes.get(index) else {
            return None;
        };
        let levels = stream.route.as_ref().map(StreamRoute::per_filter);
        let per_route = match levels.and_then(|levels| levels.policy(&filter.name)) {
            Some(CompiledPolicy::Compressor(policy)) => *policy,
            _ => CompressorPerRoute::default(),
        };
        Some(Self {
            config,
            stats,
            per_route,
            index,
        })
    }

    fn is_enabled(&self, core: &Core) -> bool {
        let flag = &self.config.response.enabled;
        let of_route = self.per_route.response_enabled;
        of_route.unwrap_or_else(|| core.snapshot.runtime().flag(flag))
    }

    fn is_long_enough(&self, headers: &HeaderList) -> bool {
        let Some(length) = headers.known(KnownHeader::ContentLength) else {
            return true;
        };
        let length = std::str::from_utf8(length)
            .ok()
            .and_then(|text| text.parse::<u64>().ok());
        let enough = length.is_some_and(|length| length >= self.config.response.min_content_length);
        if !enough {
            self.stats.response.inc(stat::CONTENT_LENGTH_TOO_SMALL);
        }
        enough
    }

    /// Whether the response may be compressed, whatever the client accepts.
    fn is_compressible(&self, status: u16, headers: &HeaderList) -> bool {
        let config = &self.config.response;
        if headers.known(KnownHeader::Upgrade).is_some()
            || config.uncompressible_response_codes.contains(&status)
            || !takes_type(self.config, headers.known(KnownHeader::ContentType))
            || headers
                .known(KnownHeader::CacheControl)
                .is_some_and(|list| has_token(list, b"no-transform"))
        {
            return false;
        }
        if config.disable_on_etag_header && headers.has(KnownHeader::Etag) {
            self.stats.common.inc(stat::NOT_COMPRESSED_ETAG);
            return false;
        }
        !headers.has(KnownHeader::ContentEncoding)
    }

    /// Whether the client wants what this filter makes.
    fn is_accepted(&self, stream: &mut Stream, hcm: &HcmRuntime) -> bool {
        let stats = &self.stats.common;
        let seen = stream.compression.seen & bit(self.index) != 0;
        let Some(accepts) = stream.compression.accepts.filter(|_| seen) else {
            stats.inc(stat::NO_ACCEPT_HEADER);
            return false;
        };
        let choice = stream.compression.choice.unwrap_or_else(|| {
            let compressors =
                hcm.config
                    .http_filters
                    .iter()
                    .filter_map(|filter| match &filter.kind {
                        HttpFilterKind::Compressor(config) => Some(&**config),
                        _ => None,
                    });
            EncodingChoice::of(
                stream.request.headers.text(accepts),
                stream.response.headers.known(KnownHeader::ContentType),
                compressors,
            )
        });
        stream.compression.choice = Some(choice);
        let ours = choice.encoding == Some(self.config.library.encoding());
        stats.inc(match choice.reason {
            EncodingReason::Compressor if ours => stat::HEADER_COMPRESSOR_USED,
            EncodingReason::Compressor => stat::HEADER_COMPRESSOR_OVERSHADOWED,
            EncodingReason::Identity => stat::HEADER_IDENTITY,
            EncodingReason::Wildcard => stat::HEADER_WILDCARD,
            EncodingReason::NotValid => stat::HEADER_NOT_VALID,
        });
        ours
    }
}

const fn bit(index: usize) -> u64 {
    1 << (index & 63)
}

impl ServerConnection {
    /// The filter's request side.
    pub(super) fn compressor(&self, stream: &mut Stream, core: &Core, index: usize) -> Verdict {
        let hcm = Rc::clone(self.manager_of(stream));
        let Some(filter) = Filter::at(&hcm, stream, index) else {
            return Verdict::Continue;
        };
        if let Some(accepts) = stream
            .request
            .headers
            .known_span(KnownHeader::AcceptEncoding)
        {
            stream.compression.accepts = Some(accepts);
            stream.compression.seen |= bit(index);
            let of_route = filter.per_route.remove_accept_encoding_header;
            if of_route.unwrap_or(filter.config.response.remove_accept_encoding_header)
                && filter.is_enabled(core)
            {
                stream
                    .request
                    .headers
                    .remove_known(KnownHeader::AcceptEncoding);
            }
        }
        filter.stats.request.inc(stat::NOT_COMPRESSED);
        Verdict::Continue
    }

    /// The filter's response side: the head is about to leave. `ends`: nothing follows.
    pub(super) fn compress_head(&self, stream: &mut Stream, core: &Core, index: usize, ends: bool) {
        let hcm = Rc::clone(self.manager_of(stream));
        let Some(filter) = Filter::at(&hcm, stream, index) else {
            return;
        };
        let candidate = filter.is_enabled(core) && filter.is_long_enough(&stream.response.headers);
        let compressible =
            candidate && filter.is_compressible(stream.response.status, &stream.response.headers);
        let mut compresses = !ends && candidate && filter.is_accepted(stream, &hcm) && compressible;
        let headers = &mut stream.response.headers;
        if compresses {
            match Encoder::new(filter.config.library) {
                Ok(encoder) => {
                    // A strong tag is not that of another representation.
                    let strong = headers.known(KnownHeader::Etag).is_some_and(|tag| {
                        let weak = tag.get(..2).is_some_and(|w| w.eq_ignore_ascii_case(b"w/"));
                        !(weak && tag.len() > 2)
                    });
                    if strong {
                        headers.remove_known(KnownHeader::Etag);
                    }
                    headers.remove_known(KnownHeader::ContentLength);
                    let encoding = filter.config.library.encoding();
                    headers.set_known(KnownHeader::ContentEncoding, encoding.as_bytes());
                    stream.compression.body = Some(Box::new(Body { encoder, index }));
                }
                Err(_) => compresses = false,
            }
        }
        filter.stats.response.inc(if compresses {
            stat::COMPRESSED
        } else {
            stat::NOT_COMPRESSED
        });
        if compressible {
            vary(headers);
        }
    }

    /// A piece of the response, compressed if that has been decided, on its way out.
    pub(super) fn write_encoded(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        body: &[u8],
        with_head: bool,
        last: bool,
    ) {
        if !stream.compression.is_active() || (body.is_empty() && !last) {
            return self.write_on(stream, worker, body, with_head, last);
        }
        let out = self.compress(stream, body, last);
        stream.response.bytes =
            (stream.response.bytes + out.len() as u64).saturating_sub(body.len() as u64);
        self.write_on(stream, worker, &out, with_head, last);
    }

    /// What is left of a compressed body that trailers end.
    pub(super) fn end_encoded(&mut self, stream: &mut Stream, worker: &mut Worker) {
        if stream.compression.is_active() {
            let out = self.compress(stream, &[], true);
            stream.response.bytes += out.len() as u64;
            self.write_on(stream, worker, &out, false, false);
        }
    }

    fn compress(&self, stream: &mut Stream, body: &[u8], last: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let hcm = stream.hcm.as_ref().unwrap_or(&self.hcm);
        let Some(compressing) = &mut stream.compression.body else {
            return out;
        };
        // Memory is all that the libraries can lack: the body is cut short then, which its reader notices.
        let _failed = compressing.encoder.feed(body, last, &mut out);
        if let Some(FilterRuntime::Compressor(stats)) = hcm.filter_runtimes.get(compressing.index) {
            stats
                .response
                .add(stat::TOTAL_UNCOMPRESSED_BYTES, body.len() as u64);
            stats
                .response
                .add(stat::TOTAL_COMPRESSED_BYTES, out.len() as u64);
        }
        out
    }
}

/// Caches must know that the body depends on `accept-encoding`.
fn vary(headers: &mut HeaderList) {
    match headers.known(KnownHeader::Vary) {
        None => headers.add_known(KnownHeader::Vary, b"Accept-Encoding"),
        // Envoy compares case here, too.
        Some(list)
            if list
                .split(|byte| *byte == b',')
                .any(|token| token.trim_ascii() == b"Accept-Encoding") => {}
        Some(list) => {
            let mut list = list.to_vec();
            list.extend_from_slice(b", Accept-Encoding");
            headers.set_known(KnownHeader::Vary, &list);
        }
    }
}
