//! What a parsed head leaves behind: reused from message to message, one per worker rather than one per connection.

use super::encode;
use super::firsts::Firsts;
use super::header::Header;
use super::known::KnownHeader;
use super::span::Span;

/// The headers of the last head parsed into it, with the first occurrence of each known name at hand.
#[derive(Debug)]
pub struct HeadScratch {
    headers: Vec<Header>,
    firsts: Firsts,
    /// Headers left out because of [`super::UnderscoreAction::Drop`].
    pub(super) dropped: u32,
}

impl Default for HeadScratch {
    fn default() -> Self {
        Self::new()
    }
}

impl HeadScratch {
    pub fn new() -> Self {
        Self {
            headers: Vec::with_capacity(128),
            firsts: Firsts::new(),
            dropped: 0,
        }
    }

    /// In the order received.
    #[inline]
    pub fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// How many headers were dropped for an underscore in their name: `dropped_headers_with_underscores`.
    #[inline]
    pub fn dropped(&self) -> u32 {
        self.dropped
    }

    #[inline]
    pub fn contains(&self, known: KnownHeader) -> bool {
        self.index_of(known).is_some()
    }

    /// Index of the first header of that name.
    #[inline]
    pub fn index_of(&self, known: KnownHeader) -> Option<usize> {
        self.firsts.get(known)
    }

    /// The first header of that name.
    #[inline]
    pub fn first(&self, known: KnownHeader) -> Option<&Header> {
        self.headers.get(self.index_of(known)?)
    }

    /// The value of the first header of that name.
    #[inline]
    pub fn value<'b>(&self, known: KnownHeader, buf: &'b [u8]) -> Option<&'b [u8]> {
        Some(self.first(known)?.value.of(buf))
    }

    /// All headers of that name; stops early when there is none.
    pub fn all(&self, known: KnownHeader) -> impl Iterator<Item = &Header> {
        let from = self.index_of(known).unwrap_or(self.headers.len());
        self.headers
            .get(from..)
            .unwrap_or_default()
            .iter()
            .filter(move |h| h.known == known)
    }

    /// All headers of a name that is not a known one (or is), compared without regard to case.
    pub fn by_name<'s>(
        &'s self,
        name: &'s [u8],
        buf: &'s [u8],
    ) -> impl Iterator<Item = &'s Header> {
        self.headers.iter().filter(move |h| {
            h.name.len() == name.len() && h.name.of(buf).eq_ignore_ascii_case(name)
        })
    }

    /// Appends the lines of the headers that `keep` wants, as received, but for superfluous white space. Neighbours
    /// are copied in one go.
    pub fn copy_lines(&self, buf: &[u8], out: &mut Vec<u8>, mut keep: impl FnMut(&Header) -> bool) {
        let mut run = Span::EMPTY;
        for header in &self.headers {
            if !keep(header) {
                continue;
            }
            if !header.is_tidy(buf) {
                out.extend_from_slice(run.of(buf));
                run = Span::EMPTY;
                encode::header(out, header.name.of(buf), header.value.of(buf));
                continue;
            }
            if header.name.start != run.end {
                out.extend_from_slice(run.of(buf));
                run.start = header.name.start;
            }
            run.end = header.line_end;
        }
        out.extend_from_slice(run.of(buf));
    }

    #[inline]
    pub(super) fn headers_mut(&mut self) -> &mut [Header] {
        &mut self.headers
    }

    #[inline]
    pub(super) fn clear(&mut self) {
        for header in &self.headers {
            self.firsts.forget(header.known);
        }
        self.headers.clear();
        self.dropped = 0;
    }

    #[inline]
    pub(super) fn push(&mut self, header: Header) {
        self.firsts.note(header.known, self.headers.len());
        self.headers.push(header);
    }
}

/// What a connection remembers of a head that has not wholly arrived, so that dribbled bytes cost linear time.
///
/// Reset it ([`HeadResume::default`]) when a head has been parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeadResume {
    /// Bytes already searched for the end of the head.
    scanned: u32,
    /// Length at the last full attempt.
    attempted: u32,
}

impl HeadResume {
    /// Whether parsing `buf` can bring anything new: the end of a head has arrived, or twice the bytes of the last
    /// attempt have (so that junk is refused without waiting for its end).
    #[inline]
    pub fn worth_parsing(&mut self, buf: &[u8]) -> bool {
        if self.attempted == 0 {
            self.attempted = buf.len() as u32;
            self.scanned = buf.len() as u32;
            return true;
        }
        self.look_again(buf)
    }

    #[cold]
    fn look_again(&mut self, buf: &[u8]) -> bool {
        let from = (self.scanned as usize).saturating_sub(3);
        self.scanned = buf.len() as u32;
        let fresh = buf.get(from..).unwrap_or_default();
        let ended = memchr::memmem::find(fresh, b"\r\n\r\n").is_some();
        if ended || has_bare_line_feed(fresh) || buf.len() >= 2 * self.attempted as usize {
            self.attempted = buf.len() as u32;
            return true;
        }
        false
    }
}

/// Whether a line ends by LF alone, which no parser here accepts. A leading LF is not judged: what precedes it is not
/// known.
pub(super) fn has_bare_line_feed(bytes: &[u8]) -> bool {
    let mut feeds = memchr::memchr_iter(b'\n', bytes);
    feeds.any(|at| at > 0 && bytes.get(at - 1) != Some(&b'\r'))
}
