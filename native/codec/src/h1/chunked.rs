//! `Transfer-Encoding: chunked` followed through the bytes of a connection.
//!
//! ```text
//!   Size --digit--> Size --;--> Extension --CR--> SizeLf --LF--> Data --> DataCr --> DataLf --> Size
//!                     |                              ^  |
//!                     +-------------CR---------------+  +--size 0--> Trailers --empty line--> Done
//! ```
//!
//! Two views of the same bytes: *raw*, the extents that may go to the other side as they are (extensions and unwanted
//! trailers left out, so that nobody downstream of us can read them differently), and *payload*, what the chunks carry.
//! Payload is skipped, not scanned.

use super::body::Fed;
use super::chars::{self, TOKEN};
use super::error::{BodyError, ErrorKind};
use super::extension::Extension;
use super::known::KnownHeader;
use super::limits::Limits;
use super::scan;
use super::scratch::has_bare_line_feed;

/// What becomes of trailers in the raw view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrailerPolicy {
    /// Checked and left out: Envoy without `enable_trailers`.
    #[default]
    Drop,
    /// Passed on, but for names that would change framing or routing.
    Forward,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Extension(Extension),
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    Done,
}

/// A chunked body in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkedBody {
    /// Payload bytes of the current chunk that are still to come; while its size is read, the size so far.
    remaining: u64,
    /// Bytes of extensions and superfluous zeros seen so far.
    overhead: u32,
    max_trailer_bytes: u32,
    max_trailers: u32,
    /// Bytes of an incomplete trailer section already searched for its end.
    scanned: u32,
    state: State,
    /// Digits of the size read so far, leading zeros left out.
    digits: u8,
    /// The last byte read is a leading zero.
    zeros: bool,
    trailers: TrailerPolicy,
}

/// Sizes stay below 2^60: fifteen digits.
const MAX_DIGITS: u8 = 15;
/// All extensions of a body together. Nobody uses them but to waste a proxy's time.
const MAX_OVERHEAD: u32 = 16 * 1024;

/// Receives the raw view, the payload, or both.
trait Sink<'b> {
    fn raw(&mut self, extent: &'b [u8]);
    fn payload(&mut self, data: &'b [u8]);
    fn trailer(&mut self, name: &'b [u8], value: &'b [u8]);
}

struct RawSink<F>(F);
struct PayloadSink<F, T>(F, T);

impl<'b, F: FnMut(&'b [u8])> Sink<'b> for RawSink<F> {
    #[inline]
    fn raw(&mut self, extent: &'b [u8]) {
        if !extent.is_empty() {
            (self.0)(extent);
        }
    }
    #[inline]
    fn payload(&mut self, _: &'b [u8]) {}
    #[inline]
    fn trailer(&mut self, _: &'b [u8], _: &'b [u8]) {}
}

impl<'b, F: FnMut(&'b [u8]), T: FnMut(&'b [u8], &'b [u8])> Sink<'b> for PayloadSink<F, T> {
    #[inline]
    fn raw(&mut self, _: &'b [u8]) {}
    #[inline]
    fn payload(&mut self, data: &'b [u8]) {
        if !data.is_empty() {
            (self.0)(data);
        }
    }
    #[inline]
    fn trailer(&mut self, name: &'b [u8], value: &'b [u8]) {
        (self.1)(name, value);
    }
}

impl ChunkedBody {
    pub fn new(trailers: TrailerPolicy, limits: &Limits) -> Self {
        Self {
            remaining: 0,
            overhead: 0,
            max_trailer_bytes: limits.max_head_bytes,
            max_trailers: limits.max_headers,
            scanned: 0,
            state: State::Size,
            digits: 0,
            zeros: false,
            trailers,
        }
    }

    pub fn is_finished(&self) -> bool {
        self.state == State::Done
    }

    /// Follows `buf` and hands out what may be passed on as it is: usually all of it in one piece.
    ///
    /// Bytes beyond [`Fed::consumed`] are the next message's, or an incomplete trailer section to be offered again
    /// with more behind it. On an error nothing of `buf` may be passed on.
    #[inline]
    pub fn feed_raw<'b>(
        &mut self,
        buf: &'b [u8],
        forward: impl FnMut(&'b [u8]),
    ) -> Result<Fed, BodyError> {
        self.run(buf, &mut RawSink(forward))
    }

    /// Follows `buf` and hands out the payload, and each trailer once the whole section has arrived.
    #[inline]
    pub fn feed_payload<'b>(
        &mut self,
        buf: &'b [u8],
        data: impl FnMut(&'b [u8]),
        trailer: impl FnMut(&'b [u8], &'b [u8]),
    ) -> Result<Fed, BodyError> {
        self.run(buf, &mut PayloadSink(data, trailer))
    }

    #[inline]
    fn run<'b>(&mut self, buf: &'b [u8], sink: &mut impl Sink<'b>) -> Result<Fed, BodyError> {
        let mut at = 0;
        let mut payload = 0;
        // Start of the raw extent in progress.
        let mut raw_from = 0;
        loop {
            match self.state {
                State::Size => {
                    let Some(byte) = buf.get(at) else { break };
                    if let Some(digit) = hex(*byte) {
                        // A zero in front of other digits is not passed on, so that nobody need count them. The first
                        // digit therefore waits for its successor.
                        if self.zeros {
                            sink.raw(buf.get(raw_from..at - 1).unwrap_or_default());
                            raw_from = at;
                            self.spend(1)?;
                        }
                        self.zeros = self.remaining == 0 && digit == 0;
                        if !self.zeros {
                            self.digits += 1;
                        }
                        if self.digits > MAX_DIGITS {
                            return Err(ErrorKind::ChunkSize.into());
                        }
                        self.remaining = self.remaining << 4 | u64::from(digit);
                        at += 1;
                        if self.zeros && at == buf.len() {
                            // To be offered again.
                            self.zeros = false;
                            at -= 1;
                            break;
                        }
                        continue;
                    }
                    if self.digits == 0 && !self.zeros {
                        return Err(ErrorKind::ChunkSize.into());
                    }
                    self.zeros = false;
                    match byte {
                        b'\r' => {
                            at += 1;
                            self.state = State::SizeLf;
                        }
                        b';' | b' ' | b'\t' => {
                            sink.raw(buf.get(raw_from..at).unwrap_or_default());
                            raw_from = at;
                            self.state = State::Extension(Extension::Between { spaces: false });
                        }
                        _ => return Err(ErrorKind::ChunkSize.into()),
                    }
                }
                State::Extension(extension) => {
                    let Some(byte) = buf.get(at) else { break };
                    if *byte == b'\r' && extension.may_end() {
                        raw_from = at;
                        at += 1;
                        self.state = State::SizeLf;
                        continue;
                    }
                    let next = extension.step(*byte).ok_or(ErrorKind::ChunkExtension)?;
                    self.spend(1)?;
                    self.state = State::Extension(next);
                    at += 1;
                    raw_from = at;
                }
                State::SizeLf => match buf.get(at) {
                    Some(b'\n') => {
                        at += 1;
                        self.digits = 0;
                        self.state = if self.remaining == 0 {
                            State::Trailers
                        } else {
                            State::Data
                        };
                    }
                    Some(_) => return Err(ErrorKind::ChunkSize.into()),
                    None => break,
                },
                State::Data => {
                    let here =
                        (buf.len() - at).min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
                    if here == 0 {
                        break;
                    }
                    sink.payload(buf.get(at..at + here).unwrap_or_default());
                    at += here;
                    payload += here as u64;
                    self.remaining -= here as u64;
                    if self.remaining == 0 {
                        self.state = State::DataCr;
                    }
                }
                State::DataCr | State::DataLf => {
                    let (expected, next) = if self.state == State::DataCr {
                        (b'\r', State::DataLf)
                    } else {
                        (b'\n', State::Size)
                    };
                    match buf.get(at) {
                        Some(byte) if *byte == expected => self.state = next,
                        Some(_) => return Err(ErrorKind::ChunkEnd.into()),
                        None => break,
                    }
                    at += 1;
                }
                State::Trailers => {
                    let rest = buf.get(at..).unwrap_or_default();
                    match rest {
                        [b'\r', b'\n', ..] => {
                            at += 2;
                            self.state = State::Done;
                        }
                        [] | [b'\r'] => break,
                        [b'\r' | b'\n', ..] => return Err(ErrorKind::Trailer.into()),
                        _ => {
                            // All that is pending before the section goes out now: the section may have to wait.
                            sink.raw(buf.get(raw_from..at).unwrap_or_default());
                            raw_from = at;
                            let Some(length) = self.trailer_section(rest, sink)? else {
                                break;
                            };
                            at += length;
                            // The section's own empty line.
                            raw_from = at - 2;
                            self.state = State::Done;
                        }
                    }
                }
                State::Done => break,
            }
        }
        sink.raw(buf.get(raw_from..at).unwrap_or_default());
        Ok(Fed {
            consumed: at,
            payload,
            finished: self.state == State::Done,
        })
    }

    #[inline]
    fn spend(&mut self, bytes: u32) -> Result<(), BodyError> {
        self.overhead += bytes;
        if self.overhead > MAX_OVERHEAD {
            Err(ErrorKind::ChunkExtension.into())
        } else {
            Ok(())
        }
    }

    /// The trailer section at the start of `rest`, which does not begin with its empty line: its length, or `None`
    /// while it is incomplete.
    #[cold]
    fn trailer_section<'b>(
        &mut self,
        rest: &'b [u8],
        sink: &mut impl Sink<'b>,
    ) -> Result<Option<usize>, BodyError> {
        let from = (self.scanned as usize).saturating_sub(3);
        let Some(end) = memchr::memmem::find(rest.get(from..).unwrap_or_default(), b"\r\n\r\n")
        else {
            if rest.len() > self.max_trailer_bytes as usize {
                return Err(ErrorKind::TrailersTooLarge.into());
            }
            // Its end would never be found.
            if has_bare_line_feed(rest.get(from..).unwrap_or_default()) {
                return Err(ErrorKind::Trailer.into());
            }
            self.scanned = rest.len() as u32;
            return Ok(None);
        };
        let length = from + end + 4;
        if length > self.max_trailer_bytes as usize {
            return Err(ErrorKind::TrailersTooLarge.into());
        }
        let section = rest.get(..length).unwrap_or_default();
        // Twice over, for nothing may be handed out before all of it is known to be good.
        self.trailer_lines(section, &mut RawSink(|_| {}))?;
        self.trailer_lines(section, sink)?;
        Ok(Some(length))
    }

    fn trailer_lines<'b>(
        &self,
        section: &'b [u8],
        sink: &mut impl Sink<'b>,
    ) -> Result<(), BodyError> {
        let mut at = 0;
        let mut count = 0;
        while at + 2 < section.len() {
            let name_end = scan::name_end(section, at);
            let name = section.get(at..name_end).unwrap_or_default();
            if section.get(name_end) != Some(&b':') || name.is_empty() || !chars::all(&TOKEN, name)
            {
                return Err(bad_trailer(section.get(at..=name_end)));
            }
            let line_end = scan::value_end(section, name_end + 1);
            if section.get(line_end..line_end + 2) != Some(b"\r\n") {
                return Err(bad_trailer(section.get(line_end..=line_end)));
            }
            count += 1;
            // Those that are left out cost nobody anything beyond their bytes.
            if count > self.max_trailers && self.trailers == TrailerPolicy::Forward {
                return Err(ErrorKind::TooManyTrailers.into());
            }
            if may_trail(KnownHeader::classify(name)) {
                sink.trailer(
                    name,
                    chars::trim(section.get(name_end + 1..line_end).unwrap_or_default()),
                );
                if self.trailers == TrailerPolicy::Forward {
                    sink.raw(section.get(at..line_end + 2).unwrap_or_default());
                }
            }
            at = line_end + 2;
        }
        Ok(())
    }
}

/// Fields that must not come as trailers (RFC 9110 section 6.5.1) are read past and never handed on.
const fn may_trail(known: KnownHeader) -> bool {
    !matches!(
        known,
        KnownHeader::Host
            | KnownHeader::ContentLength
            | KnownHeader::TransferEncoding
            | KnownHeader::Connection
            | KnownHeader::Upgrade
            | KnownHeader::Expect
            | KnownHeader::Te
            | KnownHeader::Trailer
            | KnownHeader::KeepAlive
            | KnownHeader::ProxyConnection
            | KnownHeader::Http2Settings
            | KnownHeader::Authorization
            | KnownHeader::ProxyAuthorization
            | KnownHeader::Cookie
            | KnownHeader::SetCookie
    )
}

#[cold]
fn bad_trailer(bytes: Option<&[u8]>) -> BodyError {
    let control = bytes
        .unwrap_or_default()
        .iter()
        .any(|byte| chars::is_control(*byte));
    if control {
        ErrorKind::InvalidCharacter
    } else {
        ErrorKind::Trailer
    }
    .into()
}

#[inline]
const fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}
