//! gRPC-Web: gRPC for clients that see no trailers and perhaps no binary bodies.
//!
//! The request's body is gRPC's own, or that in base64. The response's body is gRPC's with the trailers as a last message
//! (flag 0x80), and in base64 message by message where the client asked for that.

use super::base64::{Decoder, Encoder};
use super::frames::Frames;

/// Which of its forms a message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    Binary,
    /// Base64.
    Text,
}

impl ContentType {
    /// What a `content-type` or `accept` header asks for; `None`: no gRPC-Web (formats other than `proto` are not, either).
    pub fn of(value: &[u8]) -> Option<Self> {
        match value {
            b"application/grpc-web" | b"application/grpc-web+proto" => Some(Self::Binary),
            b"application/grpc-web-text" | b"application/grpc-web-text+proto" => Some(Self::Text),
            _ => None,
        }
    }

    /// What a response says.
    pub const fn name(self) -> &'static [u8] {
        match self {
            Self::Binary => b"application/grpc-web+proto",
            Self::Text => b"application/grpc-web-text+proto",
        }
    }
}

/// A request's body that is not what it says. `bad_size`: it ended within a group of four characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadBase64 {
    pub bad_size: bool,
}

impl BadBase64 {
    /// `%RESPONSE_CODE_DETAILS%`
    pub const fn details(self) -> &'static str {
        if self.bad_size {
            "grpc_base_64_decode_failed_bad_size"
        } else {
            "grpc_base_64_decode_failed"
        }
    }

    /// The body of the answer, whose status is 400.
    pub const MESSAGE: &'static [u8] = b"Bad gRPC-web request, invalid base64 data.";
}

/// The body of a request on its way to the upstream.
#[derive(Debug, Clone, Copy)]
pub struct RequestBody {
    decoder: Option<Decoder>,
}

impl RequestBody {
    pub fn new(content_type: ContentType) -> Self {
        Self {
            decoder: (content_type == ContentType::Text).then(Decoder::default),
        }
    }

    /// The bytes that go on: the given ones, or what `scratch` then holds. `last`: the body ends with this piece.
    pub fn feed<'b>(
        &mut self,
        data: &'b [u8],
        last: bool,
        scratch: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], BadBase64> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(data);
        };
        scratch.clear();
        if last && !(decoder.have() + data.len()).is_multiple_of(4) {
            return Err(BadBase64 { bad_size: true });
        }
        match decoder.decode(data, scratch) {
            Ok(()) => Ok(scratch),
            Err(_) => Err(BadBase64 { bad_size: false }),
        }
    }
}

/// The body of a response on its way to the client.
#[derive(Debug, Clone, Copy)]
pub struct ResponseBody {
    text: Option<(Frames, Encoder)>,
}

const TRAILERS: u8 = 0x80;

impl ResponseBody {
    pub fn new(content_type: ContentType) -> Self {
        Self {
            text: (content_type == ContentType::Text).then(Default::default),
        }
    }

    /// The bytes that go on: the given ones, or what `scratch` then holds.
    pub fn feed<'b>(&mut self, mut data: &'b [u8], scratch: &'b mut Vec<u8>) -> &'b [u8] {
        let Some((frames, encoder)) = &mut self.text else {
            return data;
        };
        scratch.clear();
        while !data.is_empty() {
            let (used, ended) = frames.feed_one(data);
            let (now, rest) = data.split_at_checked(used).unwrap_or((data, &[]));
            encoder.encode(now, scratch);
            if ended {
                encoder.finish(scratch);
            }
            data = rest;
        }
        scratch
    }

    /// Appends the trailers as the body's last message.
    pub fn trailers<'t>(
        &self,
        trailers: impl Iterator<Item = (&'t [u8], &'t [u8])>,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        out.extend_from_slice(&[TRAILERS, 0, 0, 0, 0]);
        for (name, value) in trailers {
            out.extend_from_slice(name);
            out.push(b':');
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        let length = (out.len() - start).saturating_sub(5) as u32;
        if let Some(place) = out.get_mut(start + 1..start + 5) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        if self.text.is_some() {
            let plain = out.split_off(start);
            let mut encoder = Encoder::default();
            encoder.encode(&plain, out);
            encoder.finish(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAILER_LINES: [(&[u8], &[u8]); 3] = [
        (b"grpc-status", b"0"),
        (b"grpc-message", b""),
        (b"x-t", b"v"),
    ];

    fn response(content_type: ContentType, pieces: &[&[u8]]) -> Vec<u8> {
        let mut body = ResponseBody::new(content_type);
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(body.feed(piece, &mut Vec::new()));
        }
        body.trailers(TRAILER_LINES.into_iter(), &mut out);
        out
    }

    /// Byte for byte what Envoy 1.40 answered.
    #[test]
    fn responses() {
        assert_eq!(
            response(ContentType::Binary, &[b"\0\0\0\0\x03abc"]),
            b"\0\0\0\0\x03abc\x80\0\0\0%grpc-status:0\r\ngrpc-message:\r\nx-t:v\r\n"
        );
        let text: &[u8] = b"AAAAAANhYmM=gAAAACVncnBjLXN0YXR1czowDQpncnBjLW1lc3NhZ2U6DQp4LXQ6dg0K";
        assert_eq!(response(ContentType::Text, &[b"\0\0\0\0\x03abc"]), text);
        assert_eq!(
            response(ContentType::Text, &[b"\0", b"\0\0\0\x03a", b"b", b"c"]),
            text
        );
        let mut body = ResponseBody::new(ContentType::Text);
        let two = b"\0\0\0\0\x011\0\0\0\0\x0222";
        assert_eq!(body.feed(two, &mut Vec::new()), b"AAAAAAExAAAAAAIyMg==");
    }

    fn request(pieces: &[&[u8]]) -> Result<Vec<u8>, BadBase64> {
        let mut body = RequestBody::new(ContentType::Text);
        let mut out = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            let mut scratch = Vec::new();
            out.extend_from_slice(body.feed(piece, at + 1 == pieces.len(), &mut scratch)?);
        }
        Ok(out)
    }

    /// As Envoy 1.40 took them.
    #[test]
    fn requests() {
        let whole: &[u8] = b"AAAAAANhYmM=";
        assert_eq!(request(&[whole]).unwrap(), b"\0\0\0\0\x03abc");
        assert_eq!(
            request(&[b"AAA", b"AA", b"ANhYmM="]).unwrap(),
            b"\0\0\0\0\x03abc"
        );
        assert_eq!(request(&[b""]).unwrap(), b"");
        let bad = |pieces: &[&[u8]]| request(pieces).unwrap_err().details();
        assert_eq!(
            bad(&[b"AAAAAANhYmM=AAAA"]),
            "grpc_base_64_decode_failed",
            "padding ends a piece"
        );
        assert_eq!(
            bad(&[b"AAAAAANhYmM=A"]),
            "grpc_base_64_decode_failed_bad_size"
        );
        assert_eq!(
            bad(&[b"AAAAAANhYmMA", b"A"]),
            "grpc_base_64_decode_failed_bad_size"
        );
        assert_eq!(bad(&[b"!!!!AAAAAANhYmM="]), "grpc_base_64_decode_failed");
        assert_eq!(bad(&[whole, b"!!!!"]), "grpc_base_64_decode_failed");
        let mut binary = RequestBody::new(ContentType::Binary);
        assert_eq!(binary.feed(b"\0!", true, &mut Vec::new()).unwrap(), b"\0!");
    }

    #[test]
    fn content_types() {
        let of = |value: &str| ContentType::of(value.as_bytes());
        assert_eq!(of("application/grpc-web"), Some(ContentType::Binary));
        assert_eq!(
            of("application/grpc-web-text+proto"),
            Some(ContentType::Text)
        );
        assert_eq!(of("application/grpc-web+json"), None);
        assert_eq!(of("application/grpc"), None);
        assert_eq!(of("application/grpc-web-text, */*"), None);
    }
}
