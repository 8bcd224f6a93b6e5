//! Where in a list of headers each known name comes first.

use super::known::KnownHeader;

/// The places, one-based; 0: there is none.
#[derive(Debug)]
pub(crate) struct Firsts([u16; 128]);

impl Firsts {
    pub(crate) const fn new() -> Self {
        Self([0; 128])
    }

    /// The index of the first header of that name.
    #[inline]
    pub(crate) fn get(&self, known: KnownHeader) -> Option<usize> {
        let place = self.0.get(known as usize & 127).copied().unwrap_or(0);
        usize::from(place).checked_sub(1)
    }

    /// A header of that name is at `index`; only the first counts.
    #[inline]
    pub(crate) fn note(&mut self, known: KnownHeader, index: usize) {
        if let Some(slot) = self.0.get_mut(known as usize & 127)
            && *slot == 0
        {
            *slot = index as u16 + 1;
        }
    }

    #[inline]
    pub(crate) fn forget(&mut self, known: KnownHeader) {
        if let Some(slot) = self.0.get_mut(known as usize & 127) {
            *slot = 0;
        }
    }
}
