//! One header line of a parsed head.

use super::known::KnownHeader;
use super::span::Span;

/// Where a header line lies: its name, its value without surrounding white space, and the line with its CRLF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub name: Span,
    pub value: Span,
    /// One past the line's LF, which is where the next line begins.
    pub line_end: u32,
    pub known: KnownHeader,
    /// Not to be passed on as it is: `Connection` and what belongs to it, what a request's `Connection` nominates,
    /// `Expect: 100-continue`, and always `Transfer-Encoding`, which is written anew with the framing of the other side.
    /// A `TE` that asks for trailers is passed on as `te: trailers`; the upgrade handshake is the caller's.
    pub hop_by_hop: bool,
}

impl Header {
    /// The whole line including CRLF: consecutive headers are contiguous, so runs may be copied at once.
    #[inline]
    pub const fn line(&self) -> Span {
        Span {
            start: self.name.start,
            end: self.line_end,
        }
    }

    /// Whether the line reads `name: value` or `name:value`, without more or other white space around the value. What
    /// is not tidy is legal, but better written anew than passed on: not everybody strips a tab.
    #[inline]
    pub fn is_tidy(&self, buf: &[u8]) -> bool {
        self.line_end == self.value.end + 2
            && match self.value.start - self.name.end {
                1 => true,
                2 => buf.get(self.name.end as usize + 1) == Some(&b' '),
                _ => false,
            }
    }
}
