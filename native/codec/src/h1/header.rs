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
    /// Meant for this hop alone: `Connection` and what belongs to it, and every header that `Connection` nominates.
    /// Not passed on, but for the upgrade handshake.
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
