//! Request heads.

use super::authority;
use super::chars;
use super::error::{ErrorKind, ParseError, Refusal};
use super::fields;
use super::framing::RequestFraming;
use super::hop::ConnectionOptions;
use super::known::KnownHeader;
use super::limits::Limits;
use super::method::Method;
use super::scan;
use super::scratch::HeadScratch;
use super::span::Span;
use super::target::{Target, TargetForm};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
}

impl Version {
    /// As `%PROTOCOL%` prints it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }
}

/// A whole request head. Its spans refer to the buffer it was parsed from; its headers are in the scratch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead {
    pub method: Method,
    pub method_span: Span,
    pub target: Target,
    pub version: Version,
    pub framing: RequestFraming,
    pub connection: ConnectionOptions,
    /// The client will send another request on this connection: the HTTP version and `Connection` say so.
    pub keep_alive: bool,
    /// `Expect: 100-continue`.
    pub expect_continue: bool,
    /// `Connection: upgrade` with an `Upgrade` header other than h2c. Several `Upgrade` headers are one list:
    /// no configured type equals it.
    pub upgrade: bool,
    /// Envoy's authority: that of an absolute target, else the value of `Host`. Empty if there is none.
    pub authority: Span,
    /// To be refused by the connection manager, which has a reply and a log line for it.
    pub refusal: Option<Refusal>,
    /// Bytes of the buffer that the head takes, its empty line included: the body begins here.
    pub len: u32,
}

/// Empty lines that may precede a request line (RFC 9112 section 2.2).
const MAX_LEADING_LINES: usize = 4;
/// Longer than any method that Envoy knows.
const MAX_METHOD: usize = 16;

/// Reads the head at the start of `buf`. `Ok(None)`: more bytes are needed.
///
/// Heads that arrive in pieces are asked for through [`super::HeadResume::worth_parsing`] first.
pub fn parse_request(
    buf: &[u8],
    scratch: &mut HeadScratch,
    limits: &Limits,
) -> Result<Option<RequestHead>, ParseError> {
    let parsed = parse(buf, scratch, limits);
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
    scratch: &mut HeadScratch,
    limits: &Limits,
) -> Result<Option<RequestHead>, ParseError> {
    let Some(start) = skip_empty_lines(buf)? else {
        return Ok(None);
    };

    // What is no letter is no method: a TLS hello is answered at once.
    if !buf.get(start).is_some_and(u8::is_ascii_uppercase) {
        return Err(ErrorKind::StartLine.into());
    }
    let method_end = scan::target_end(buf, start);
    let method_span = Span::new(start, method_end);
    let method = match buf.get(method_end) {
        Some(b' ') => Method::from_token(method_span.of(buf)).ok_or(ErrorKind::Method)?,
        None if method_end - start <= MAX_METHOD => return Ok(None),
        byte => return Err(bad_byte(byte, ErrorKind::StartLine)),
    };

    let target_start = method_end + 1;
    let target_end = scan::target_end(buf, target_start);
    match buf.get(target_end) {
        Some(b' ') if target_end > target_start => {}
        Some(b'\r') => return end_without_version(buf, target_start, target_end),
        byte @ Some(_) => return Err(bad_byte(byte, ErrorKind::StartLine)),
        None => return Ok(None),
    }

    let version = match buf.get(target_end + 1..target_end + 11) {
        Some(b"HTTP/1.1\r\n") => Version::Http11,
        Some(b"HTTP/1.0\r\n") if limits.accept_http_10 => Version::Http10,
        _ => return other_version(buf.get(target_end + 1..).unwrap_or_default(), limits),
    };
    let target = split_target(buf, target_start, target_end, method, limits)?;

    let Some((fields, end)) = fields::parse::<true>(buf, target_end + 11, scratch, limits)? else {
        return Ok(None);
    };

    let framing = if fields.chunked {
        if version == Version::Http10 {
            return Err(ErrorKind::TransferEncodingNotAllowed.into());
        }
        if method == Method::Connect {
            return Err(ErrorKind::TransferEncoding.into());
        }
        RequestFraming::Chunked
    } else if let Some(length) = fields.content_length {
        if method == Method::Connect && length > 0 {
            return Err(ErrorKind::BodyDisallowed.into());
        }
        RequestFraming::Length(length)
    } else {
        RequestFraming::None
    };
    let keep_alive = match version {
        Version::Http11 => !fields.connection.close,
        Version::Http10 => fields.connection.keep_alive && !fields.connection.close,
    };
    let upgrade = fields.connection.upgrade
        && scratch
            .value(KnownHeader::Upgrade, buf)
            .is_some_and(|value| !value.eq_ignore_ascii_case(b"h2c"));
    let host = scratch
        .first(KnownHeader::Host)
        .filter(|header| !header.hop_by_hop);
    let host_span = host.map_or(Span::EMPTY, |header| header.value);
    if !authority::is_valid(host_span.of(buf)) {
        return Err(ErrorKind::InvalidAuthority.into());
    }
    let authority = match target.form {
        TargetForm::Absolute | TargetForm::Authority => target.authority,
        TargetForm::Origin | TargetForm::Asterisk => host_span,
    };
    let refusal = if host.is_none() {
        Some(Refusal::MissingHost)
    } else if method == Method::Other
        && method_span.of(buf) == b"QUERY"
        && !scratch.contains(KnownHeader::ContentType)
    {
        Some(Refusal::QueryWithoutContentType)
    } else {
        None
    };
    Ok(Some(RequestHead {
        method,
        method_span,
        target,
        version,
        framing,
        connection: fields.connection,
        keep_alive,
        expect_continue: fields.expect_continue,
        upgrade,
        authority,
        refusal,
        len: end as u32,
    }))
}

#[inline]
fn skip_empty_lines(buf: &[u8]) -> Result<Option<usize>, ParseError> {
    let mut at = 0;
    for _ in 0..=MAX_LEADING_LINES {
        match buf.get(at..) {
            Some([b'\r', b'\n', ..]) => at += 2,
            Some([] | [b'\r']) | None => return Ok(None),
            Some([b'\r' | b'\n', ..]) => return Err(ErrorKind::LineEnding.into()),
            Some(_) => return Ok(Some(at)),
        }
    }
    Err(ErrorKind::StartLine.into())
}

#[cold]
fn bad_byte(byte: Option<&u8>, otherwise: ErrorKind) -> ParseError {
    match byte {
        Some(byte) if chars::is_control(*byte) => ErrorKind::InvalidCharacter.into(),
        Some(b'\r' | b'\n') => ErrorKind::LineEnding.into(),
        _ => otherwise.into(),
    }
}

/// `GET /path` and nothing more: HTTP/0.9.
#[cold]
fn end_without_version(
    buf: &[u8],
    start: usize,
    end: usize,
) -> Result<Option<RequestHead>, ParseError> {
    match buf.get(end + 1) {
        None => Ok(None),
        Some(b'\n') if buf.get(start) == Some(&b'/') => Err(ErrorKind::LowVersion.into()),
        Some(b'\n') => Err(ErrorKind::StartLine.into()),
        Some(_) => Err(ErrorKind::LineEnding.into()),
    }
}

/// A version that is not accepted, or not there as a whole.
#[cold]
fn other_version(rest: &[u8], limits: &Limits) -> Result<Option<RequestHead>, ParseError> {
    for (byte, pattern) in rest.iter().zip(b"HTTP/0.0\r\n") {
        if *pattern == b'0' {
            if !byte.is_ascii_digit() {
                return Err(bad_byte(Some(byte), ErrorKind::StartLine));
            }
        } else if byte != pattern {
            let line_ends = matches!(pattern, b'\r' | b'\n');
            let kind = if line_ends {
                ErrorKind::LineEnding
            } else {
                ErrorKind::StartLine
            };
            return Err(bad_byte(Some(byte), kind));
        }
    }
    let could_pass = b"HTTP/1.1\r\n".starts_with(rest)
        || (limits.accept_http_10 && b"HTTP/1.0\r\n".starts_with(rest));
    if could_pass || rest.len() < 8 {
        Ok(None)
    } else {
        Err(ErrorKind::LowVersion.into())
    }
}

/// The bytes are known to be printable ASCII, which is all that Envoy asks of a path.
#[inline]
fn split_target(
    buf: &[u8],
    start: usize,
    end: usize,
    method: Method,
    limits: &Limits,
) -> Result<Target, ParseError> {
    let raw = Span::new(start, end);
    let bytes = raw.of(buf);
    let mut target = Target {
        form: TargetForm::Origin,
        raw,
        scheme: Span::EMPTY,
        authority: Span::EMPTY,
        path_query: raw,
        path: raw,
        query: Span::EMPTY,
    };
    if method == Method::Connect {
        if !authority::is_host_and_port(bytes) {
            return Err(ErrorKind::Target.into());
        }
        target.form = TargetForm::Authority;
        target.authority = raw;
        target.path_query = Span::EMPTY;
        target.path = Span::EMPTY;
        return Ok(target);
    }
    match bytes.first() {
        Some(b'/') => {}
        Some(b'*') => {
            if method != Method::Options {
                return Err(ErrorKind::Target.into());
            }
            // Anything longer is a path that begins badly, for the connection manager to turn away.
            if bytes.len() > 1 {
                return Ok(target);
            }
            target.form = TargetForm::Asterisk;
            return Ok(target);
        }
        _ if limits.allow_absolute_url => split_absolute(bytes, start, &mut target, limits)?,
        _ => return Err(ErrorKind::Target.into()),
    }
    if let Some(at) = memchr::memchr(b'?', target.path_query.of(buf)) {
        let question = target.path_query.start + at as u32;
        target.path = Span {
            start: target.path_query.start,
            end: question,
        };
        target.query = Span {
            start: question + 1,
            end: target.path_query.end,
        };
    } else {
        target.path = target.path_query;
    }
    Ok(target)
}

#[cold]
fn split_absolute(
    bytes: &[u8],
    start: usize,
    target: &mut Target,
    limits: &Limits,
) -> Result<(), ParseError> {
    // Without a scheme this is no target at all.
    let scheme_len = memchr::memmem::find(bytes, b"://").ok_or(ErrorKind::StartLine)?;
    let scheme = bytes.get(..scheme_len).unwrap_or_default();
    if scheme.eq_ignore_ascii_case(b"https") {
        if !limits.over_tls {
            return Err(ErrorKind::HttpsOnPlaintext.into());
        }
    } else if !scheme.eq_ignore_ascii_case(b"http") {
        let named = scheme.first().is_some_and(u8::is_ascii_alphabetic)
            && scheme
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        return Err(if named {
            ErrorKind::Scheme
        } else {
            ErrorKind::StartLine
        }
        .into());
    }
    let rest = bytes.get(scheme_len + 3..).unwrap_or_default();
    let authority_len = rest
        .iter()
        .position(|b| matches!(b, b'/' | b'?' | b'#'))
        .unwrap_or(rest.len());
    let authority = rest.get(..authority_len).unwrap_or_default();
    if matches!(authority.first(), None | Some(b':')) || !authority::is_valid(authority) {
        return Err(ErrorKind::Target.into());
    }
    let authority_start = start + scheme_len + 3;
    target.form = TargetForm::Absolute;
    target.scheme = Span::new(start, start + scheme_len);
    target.authority = Span::new(authority_start, authority_start + authority_len);
    target.path_query = Span::new(authority_start + authority_len, start + bytes.len());
    Ok(())
}
