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
    /// Some `Transfer-Encoding` other than a single `chunked`. Judged at the end, for Envoy minds `Content-Length` first.
    unknown_coding: bool,
    pub(super) connection: ConnectionOptions,
    pub(super) expect_continue: bool,
}

/// A limit of the scratch's index, far above any sensible `max_headers_count`.
const MAX_HEADERS: usize = 16_384;

/// Reads header lines from `at` to the empty line. `Ok(None)`: the buffer ends first.
///
/// What `Connection` nominates is marked in requests only: Envoy leaves a response's headers alone.
#[inline]
pub(super) fn parse<const REQUEST: bool>(
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
            Some(b'\r') if name_end == at => {
                return match buf.get(at + 1) {
                    Some(b'\n') => {
                        finish::<REQUEST>(buf, scratch, fields, limits).map(|f| Some((f, at + 2)))
                    }
                    Some(_) => Err(ErrorKind::LineEnding.into()),
                    None => Ok(None),
                };
            }
            Some(_) => return Err(bad_name(buf, at, name_end)),
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
        if known == KnownHeader::Other {
            if name.is_empty() || !chars::all(&TOKEN, name) {
                return Err(bad_name(buf, at, name_end));
            }
            if limits.underscores != UnderscoreAction::Allow && memchr::memchr(b'_', name).is_some()
            {
                if limits.underscores == UnderscoreAction::Reject {
                    return Err(ErrorKind::UnderscoreInName.into());
                }
                scratch.dropped += 1;
                at = line_break + 2;
                continue;
            }
        } else if known.is_framing() {
            let repeated = scratch.contains(known);
            note::<REQUEST>(header.value.of(buf), repeated, &mut fields, &mut header)?;
        }
        at = line_break + 2;
        scratch.push(header);
        if scratch.headers().len() > max_headers {
            return Err(ErrorKind::TooManyHeaders.into());
        }
    }
}

/// Looks at a header that framing or the connection depends on. `repeated`: one of its name came before.
fn note<const REQUEST: bool>(
    value: &[u8],
    repeated: bool,
    fields: &mut Fields,
    header: &mut Header,
) -> Result<(), ParseError> {
    header.hop_by_hop = hop::is_hop_by_hop(header.known);
    match header.known {
        KnownHeader::Host if REQUEST && repeated => return Err(ErrorKind::DuplicateHost.into()),
        KnownHeader::ContentLength if repeated => {
            return Err(ErrorKind::DuplicateContentLength.into());
        }
        KnownHeader::ContentLength => {
            fields.content_length = Some(parse_length(value).ok_or(ErrorKind::ContentLength)?);
        }
        KnownHeader::TransferEncoding => {
            fields.chunked = value.eq_ignore_ascii_case(b"chunked");
            fields.unknown_coding |= repeated || !fields.chunked;
        }
        KnownHeader::Connection => fields.connection.add(value),
        KnownHeader::Te if REQUEST => {
            header.hop_by_hop = !hop::tokens(value).any(|t| t.eq_ignore_ascii_case(b"trailers"));
        }
        KnownHeader::Te => header.hop_by_hop = false,
        KnownHeader::Expect if REQUEST && value.eq_ignore_ascii_case(b"100-continue") => {
            // Answered here.
            header.hop_by_hop = true;
            fields.expect_continue = true;
        }
        _ => {}
    }
    Ok(())
}

/// Digits only, below 2^63: a length that some server would take for negative is no length.
pub(crate) fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut length: u64 = 0;
    for digit in value {
        length = length
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))?;
    }
    i64::try_from(length).ok().map(|_| length)
}

#[inline]
fn finish<const REQUEST: bool>(
    buf: &[u8],
    scratch: &mut HeadScratch,
    fields: Fields,
    limits: &Limits,
) -> Result<Fields, ParseError> {
    if fields.chunked || fields.unknown_coding {
        if fields.content_length.is_some() {
            if !limits.allow_chunked_length {
                return Err(ErrorKind::ContentLengthAndTransferEncoding.into());
            }
            // Never passed on beside `chunked`.
            for header in scratch.headers_mut() {
                header.hop_by_hop |= header.known == KnownHeader::ContentLength;
            }
        }
        if fields.unknown_coding {
            return Err(ErrorKind::TransferEncoding.into());
        }
    }
    if REQUEST && fields.connection.nominates {
        hop::mark_nominated(buf, scratch)?;
    }
    Ok(fields)
}

#[cold]
fn bad_name(buf: &[u8], start: usize, end: usize) -> ParseError {
    let line = buf.get(start..=end).unwrap_or_default();
    if line.iter().any(|byte| chars::is_control(*byte)) {
        return ErrorKind::InvalidCharacter.into();
    }
    match line.first() {
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
        _ => ErrorKind::InvalidCharacter,
    }
    .into()
}
