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
}
