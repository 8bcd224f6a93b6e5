//! A cursor over the bytes that were read.

/// The rest of a read buffer.
#[derive(Debug, Clone, Copy)]
pub struct Input<'i> {
    rest: &'i [u8],
}

impl<'i> Input<'i> {
    #[inline]
    pub const fn new(bytes: &'i [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Without bytes: for the events that do not depend on any.
    #[inline]
    pub const fn empty() -> Self {
        Self { rest: &[] }
    }

    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What has not been consumed. Empty when [`super::Connection::next`] has returned `None`.
    #[inline]
    pub const fn rest(&self) -> &'i [u8] {
        self.rest
    }

    /// Takes up to `count` bytes.
    #[inline]
    pub(super) fn take(&mut self, count: usize) -> &'i [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Takes exactly `count` bytes if they are there.
    #[inline]
    pub(super) fn take_whole(&mut self, count: usize) -> Option<&'i [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    #[inline]
    pub(super) fn take_chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }
}
