//! Contiguous bytes that decoded fields are put into; the capacity stays, so nothing is allocated in the steady state.

use crate::h1::Span;

/// Room to begin with.
const INITIAL: usize = 8 * 1024;

/// Always initialised to its whole length, so that a decoder may write anywhere within; `end` is what counts as used.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    bytes: Vec<u8>,
    end: usize,
}

impl Arena {
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.end = 0;
    }

    #[inline]
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// Gives up what was put at or after `end`.
    #[inline]
    pub(crate) fn cut(&mut self, end: usize) {
        self.end = self.end.min(end);
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.end).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn of(&self, span: Span) -> &[u8] {
        span.of(&self.bytes)
    }

    /// The next `room` bytes, whose content is left over from before; [`Arena::keep`] says how many were filled.
    #[inline]
    pub(crate) fn space(&mut self, room: usize) -> &mut [u8] {
        let wanted = self.end + room;
        if wanted > self.bytes.len() {
            self.grow(wanted);
        }
        self.bytes.get_mut(self.end..wanted).unwrap_or_default()
    }

    #[cold]
    fn grow(&mut self, wanted: usize) {
        self.bytes
            .resize(wanted.next_power_of_two().max(INITIAL), 0);
    }

    #[inline]
    pub(crate) fn keep(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Appends a copy of what lies at `span`.
    pub(crate) fn repeat(&mut self, span: Span) {
        let end = self.end;
        self.space(span.len());
        let (from, to) = (span.start as usize, span.end as usize);
        if to <= end {
            self.bytes.copy_within(from..to, end);
            self.end += to - from;
        }
    }
}
