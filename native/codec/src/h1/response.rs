//! Response heads.

use super::error::{ErrorKind, ParseError};
use super::fields;
use super::framing::ResponseFraming;
use super::hop::ConnectionOptions;
use super::known::KnownHeader;
use super::limits::Limits;
use super::method::Method;
use super::request::Version;
use super::scan;
use super::scratch::HeadScratch;
use super::span::Span;

/// A whole response head. 1xx heads are delivered like any other: the caller goes on to the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHead {
    pub status: u16,
    /// As received, possibly empty.
    pub reason: Span,
    pub version: Version,
    pub framing: ResponseFraming,
    pub connection: ConnectionOptions,
    /// The upstream keeps the connection open and the body's end is known without closing.
    pub keep_alive: bool,
    /// 101 that switches protocols: what follows is a tunnel.
    pub upgrade: bool,
    /// Bytes of the buffer that the head takes, its empty line included.
    pub len: u32,
}

/// Reads the head at the start of `buf`, the answer to a request with `method`. `Ok(None)`: more bytes are needed.
pub fn parse_response(
    buf: &[u8],
    method: Method,
    scratch: &mut HeadScratch,
    limits: &Limits,
) -> Result<Option<ResponseHead>, ParseError> {
    let parsed = parse(buf, method, scratch, limits);
    let taken = match &parsed {
        Ok(Some(head)) => head.len as usize,
        Ok(None) => buf.len(),
        Err(_) => 0,
    };
    if taken > limits.max_head_bytes as usize {
        return Err(ErrorKind::HeadersTooLarge.into());
    }
    parsed
}

#[inline]
fn parse(
    buf: &[u8],
    method: Method,
    scratch: &mut HeadScratch,
    limits: &Limits,
) -> Result<Option<ResponseHead>, ParseError> {
    let version = match buf.get(..9) {
        Some(b"HTTP/1.1 ") => Version::Http11,
        Some(b"HTTP/1.0 ") => Version::Http10,
        Some(_) => return Err(ErrorKind::StartLine.into()),
        None if b"HTTP/1.1 ".starts_with(buf) || b"HTTP/1.0 ".starts_with(buf) => return Ok(None),
        None => return Err(ErrorKind::StartLine.into()),
    };
    let status = match buf.get(9..12) {
        Some([a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']) => {
            u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
        }
        Some(_) => return Err(ErrorKind::StartLine.into()),
        None => return Ok(None),
    };
    let reason_start = match buf.get(12) {
        Some(b' ') => 13,
        Some(b'\r') => 12,
        None => return Ok(None),
        Some(_) => return Err(ErrorKind::StartLine.into()),
    };
    let reason_end = scan::value_end(buf, reason_start);
    match buf.get(reason_end..reason_end + 2) {
        Some(b"\r\n") => {}
        None if matches!(buf.get(reason_end), None | Some(b'\r')) => return Ok(None),
        _ => return Err(bad_reason(buf.get(reason_end))),
    }

    let Some((fields, end)) = fields::parse::<false>(buf, reason_end + 2, scratch, limits)? else {
        return Ok(None);
    };

    if matches!(status, 100..=199 | 204) {
        if fields.chunked {
            return Err(ErrorKind::TransferEncodingNotAllowed.into());
        }
        match fields.content_length {
            None => {}
            // Envoy takes it away.
            Some(0) => {
                for header in scratch.headers_mut() {
                    header.hop_by_hop |= header.known == KnownHeader::ContentLength;
                }
            }
            Some(_) => return Err(ErrorKind::ContentLengthNotAllowed.into()),
        }
    }
    let framing = ResponseFraming::decide(method, status, fields.content_length, fields.chunked);
    let persistent = match version {
        Version::Http11 => !fields.connection.close,
        // RFC 9112 section 6.1: the framing of such a response is not to be trusted beyond it.
        Version::Http10 if fields.chunked => false,
        Version::Http10 => fields.connection.keep_alive && !fields.connection.close,
    };
    Ok(Some(ResponseHead {
        status,
        reason: Span::new(reason_start, reason_end),
        version,
        framing,
        connection: fields.connection,
        keep_alive: persistent && framing != ResponseFraming::UntilClose,
        upgrade: status == 101,
        len: end as u32,
    }))
}

#[cold]
fn bad_reason(byte: Option<&u8>) -> ParseError {
    match byte {
        Some(b'\r' | b'\n') => ErrorKind::LineEnding.into(),
        _ => ErrorKind::InvalidCharacter.into(),
    }
}
