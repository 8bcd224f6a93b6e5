//! The header block shared by requests and responses: one pass that validates, classifies and gathers what framing needs.

use super::chars::{self, TOKEN};
use super::error::{ErrorKind, ParseError};
use super::header::Header;
use super::hop::{self, ConnectionOptions};
use super::known::KnownHeader;
use super::limits::{Limits, UnderscoreAction};
use super::scan;
use super::scratch::HeadScratch;
use super::span::Span;

/// What the header block says about framing and the connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fields {
    pub(super) content_length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) hosts: u32,
    pub(super) connection: ConnectionOptions,
    pub(super) expect_continue: bool,
}

/// A limit of the scratch's index, far above any sensible `max_headers_count`.
const MAX_HEADERS: usize = 16_384;

/// Reads header lines from `at` to the empty line. `Ok(None)`: the buffer ends first.
#[inline]
pub(super) fn parse(
    buf: &[u8],
    mut at: usize,
    scratch: &mut HeadScratch,
    limits: &Limits,
) -> Result<Option<(Fields, usize)>, ParseError> {
    let mut fields = Fields::default();
    let max_headers = (limits.max_headers as usize).min(MAX_HEADERS);
    scratch.clear();
    loop {
        let name_end = scan::name_end(buf, at);
        match buf.get(name_end) {
            Some(b':') => {}
            Some(_) if name_end == at => {
                // The empty line, or a fault.
                return match buf.get(at..at + 2) {
                    Some(b"\r\n") => {
                        finish(buf, scratch, fields).map(|fields| Some((fields, at + 2)))
                    }
                    None if buf.get(at) == Some(&b'\r') => Ok(None),
                    _ => Err(bad_line_start(buf, at)),
                };
            }
            Some(_) => return Err(ErrorKind::HeaderName.into()),
            None => return Ok(None),
        }
        let name = buf.get(at..name_end).unwrap_or_default();
        let known = KnownHeader::classify(name);
        let mut value_start = name_end + 1;
        while let Some(b' ' | b'\t') = buf.get(value_start) {
            value_start += 1;
        }
        let line_break = scan::value_end(buf, value_start);
        match buf.get(line_break..line_break + 2) {
            Some(b"\r\n") => {}
            None if matches!(buf.get(line_break), None | Some(b'\r')) => return Ok(None),
            _ => return Err(bad_value_end(buf, line_break)),
        }
        let mut value_end = line_break;
        while value_end > value_start && matches!(buf.get(value_end - 1), Some(b' ' | b'\t')) {
            value_end -= 1;
        }
        let mut header = Header {
            name: Span::new(at, name_end),
            value: Span::new(value_start, value_end),
            line_end: (line_break + 2) as u32,
            known,
            hop_by_hop: false,
        };
        at = line_break + 2;
        if known == KnownHeader::Other {
            if !chars::all(&TOKEN, name) || name.is_empty() {
                return Err(ErrorKind::HeaderName.into());
            }
            if limits.underscores != UnderscoreAction::Allow && memchr::memchr(b'_', name).is_some()
            {
                if limits.underscores == UnderscoreAction::Reject {
                    return Err(ErrorKind::UnderscoreInName.into());
                }
                scratch.dropped += 1;
                continue;
            }
        } else if known.is_framing()
            && !note(
                header.value.of(buf),
                known,
                &mut fields,
                &mut header,
                limits,
            )?
        {
            continue;
        }
        scratch.push(header);
        if scratch.headers().len() > max_headers {
            return Err(ErrorKind::TooManyHeaders.into());
        }
    }
}

/// Looks at a header that framing or the connection depends on. `false`: it says nothing new and is left out.
fn note(
    value: &[u8],
    known: KnownHeader,
    fields: &mut Fields,
    header: &mut Header,
    limits: &Limits,
) -> Result<bool, ParseError> {
    header.hop_by_hop = hop::is_hop_by_hop(known);
    match known {
        KnownHeader::Host => {
            fields.hosts += 1;
            if fields.hosts > 1 {
                return Err(ErrorKind::DuplicateHost.into());
            }
        }
        KnownHeader::ContentLength => {
            let length = parse_length(value).ok_or(ErrorKind::ContentLength)?;
            match fields.content_length {
                Some(before) if before != length => {
                    return Err(ErrorKind::ContentLengthConflict.into());
                }
                Some(_) => return Ok(false),
                None => fields.content_length = Some(length),
            }
        }
        KnownHeader::TransferEncoding => {
            if fields.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(ErrorKind::TransferEncoding.into());
            }
            fields.chunked = true;
        }
        KnownHeader::Connection => fields.connection.add(value),
        KnownHeader::Expect => fields.expect_continue = value.eq_ignore_ascii_case(b"100-continue"),
        _ => {}
    }
    let _ = limits;
    Ok(true)
}

/// Digits only, below 2^63.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    let mut length: u64 = 0;
    for byte in value {
        if !byte.is_ascii_digit() {
            return None;
        }
        length = length * 10 + u64::from(byte - b'0');
    }
    i64::try_from(length).ok().map(|_| length)
}

#[inline]
fn finish(buf: &[u8], scratch: &mut HeadScratch, fields: Fields) -> Result<Fields, ParseError> {
    if fields.connection.nominates {
        hop::mark_nominated(buf, scratch)?;
    }
    Ok(fields)
}

#[cold]
fn bad_line_start(buf: &[u8], at: usize) -> ParseError {
    match buf.get(at) {
        Some(b' ' | b'\t') => ErrorKind::ObsoleteFold,
        Some(b'\r' | b'\n') => ErrorKind::LineEnding,
        _ => ErrorKind::HeaderName,
    }
    .into()
}

#[cold]
fn bad_value_end(buf: &[u8], at: usize) -> ParseError {
    match buf.get(at) {
        Some(b'\r' | b'\n') => ErrorKind::LineEnding,
        _ => ErrorKind::HeaderValue,
    }
    .into()
}
