//! Request heads.

use super::chars::{self, AUTHORITY, TARGET};
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
    /// `Connection: upgrade` with an `Upgrade` header other than h2c.
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

    let method_end = scan::target_end(buf, start);
    let method_span = Span::new(start, method_end);
    let method = match buf.get(method_end) {
        Some(b' ') => Method::from_token(method_span.of(buf)).ok_or(ErrorKind::Method)?,
        // The longest method Envoy knows has eleven bytes.
        None if method_end - start <= 16 => return Ok(None),
        _ => return Err(ErrorKind::StartLine.into()),
    };

    let target_start = method_end + 1;
    let target_end = scan::target_end(buf, target_start);
    match buf.get(target_end) {
        Some(b' ') if target_end > target_start => {}
        None => return Ok(None),
        Some(byte) if *byte >= 0x7f => return Err(ErrorKind::Target.into()),
        _ => return Err(ErrorKind::StartLine.into()),
    }

    let version = match buf.get(target_end + 1..target_end + 11) {
        Some(b"HTTP/1.1\r\n") => Version::Http11,
        Some(b"HTTP/1.0\r\n") => Version::Http10,
        Some(line) => return Err(bad_version(line)),
        None => return partial_version(buf.get(target_end + 1..).unwrap_or_default()),
    };
    let target = split_target(buf, target_start, target_end, method, limits)?;

    let Some((fields, end)) = fields::parse(buf, target_end + 11, scratch, limits)? else {
        return Ok(None);
    };

    let framing = match (fields.chunked, fields.content_length) {
        (true, Some(_)) if !limits.allow_chunked_length => {
            return Err(ErrorKind::ContentLengthAndTransferEncoding.into());
        }
        (true, _) if version == Version::Http10 => {
            return Err(ErrorKind::TransferEncodingNotAllowed.into());
        }
        (true, _) => RequestFraming::Chunked,
        (false, Some(length)) => RequestFraming::Length(length),
        (false, None) => RequestFraming::None,
    };
    let keep_alive = match version {
        Version::Http11 => !fields.connection.close,
        Version::Http10 => fields.connection.keep_alive && !fields.connection.close,
    };
    let upgrade = fields.connection.upgrade
        && scratch
            .value(KnownHeader::Upgrade, buf)
            .is_some_and(|v| !v.eq_ignore_ascii_case(b"h2c"));
    let authority = match target.form {
        TargetForm::Absolute | TargetForm::Authority => target.authority,
        _ => scratch
            .first(KnownHeader::Host)
            .map_or(Span::EMPTY, |h| h.value),
    };
    let refusal = if version == Version::Http10 && !limits.accept_http_10 {
        Some(Refusal::LowVersion)
    } else if authority.is_empty() && version == Version::Http11 {
        Some(Refusal::MissingHost)
    } else if !chars::all(&AUTHORITY, authority.of(buf)) {
        Some(Refusal::InvalidAuthority)
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
            Some([] | [b'\r']) => return Ok(None),
            Some([b'\r' | b'\n', ..]) => return Err(ErrorKind::LineEnding.into()),
            _ => return Ok(Some(at)),
        }
    }
    Err(ErrorKind::StartLine.into())
}

#[cold]
fn bad_version(line: &[u8]) -> ParseError {
    match line {
        [b'H', b'T', b'T', b'P', b'/', a, b'.', b, b'\r', b'\n']
            if a.is_ascii_digit() && b.is_ascii_digit() =>
        {
            ErrorKind::Version.into()
        }
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', ..] => ErrorKind::LineEnding.into(),
        _ => ErrorKind::StartLine.into(),
    }
}

#[cold]
fn partial_version(rest: &[u8]) -> Result<Option<RequestHead>, ParseError> {
    if b"HTTP/1.1\r\n".starts_with(rest) || b"HTTP/1.0\r\n".starts_with(rest) {
        Ok(None)
    } else {
        Err(ErrorKind::StartLine.into())
    }
}

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
    if !chars::all(&TARGET, bytes) {
        return Err(ErrorKind::Target.into());
    }
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
        target.form = TargetForm::Authority;
        target.authority = raw;
        target.path_query = Span::EMPTY;
        target.path = Span::EMPTY;
        return Ok(target);
    }
    match bytes.first() {
        Some(b'/') => {}
        Some(b'*') if bytes.len() == 1 && method == Method::Options => {
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
    let scheme_len = bytes
        .windows(3)
        .position(|w| w == b"://")
        .ok_or(ErrorKind::Target)?;
    let scheme = bytes.get(..scheme_len).unwrap_or_default();
    if scheme.eq_ignore_ascii_case(b"https") {
        if !limits.over_tls {
            return Err(ErrorKind::HttpsOnPlaintext.into());
        }
    } else if !scheme.eq_ignore_ascii_case(b"http") {
        return Err(ErrorKind::Scheme.into());
    }
    let rest = bytes.get(scheme_len + 3..).unwrap_or_default();
    let authority_len = rest
        .iter()
        .position(|b| matches!(b, b'/' | b'?' | b'#'))
        .unwrap_or(rest.len());
    if authority_len == 0 {
        return Err(ErrorKind::Target.into());
    }
    let authority_start = start + scheme_len + 3;
    target.form = TargetForm::Absolute;
    target.scheme = Span::new(start, start + scheme_len);
    target.authority = Span::new(authority_start, authority_start + authority_len);
    target.path_query = Span::new(authority_start + authority_len, start + bytes.len());
    Ok(())
}
