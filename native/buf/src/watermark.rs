//! High and low watermarks, as Envoy's connection buffers have them.

/// What a change of the buffered amount crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crossing {
    /// Above the limit: whoever fills the buffer must pause.
    High,
    /// At half the limit or below, after having been above it: go on.
    Low,
}

/// Watches a buffered amount. A limit of zero watches nothing, as Envoy's does.
#[derive(Debug, Clone, Copy)]
pub struct Watermark {
    high: u32,
    above: bool,
}

impl Watermark {
    /// `limit`: `per_connection_buffer_limit_bytes`.
    pub const fn new(limit: u32) -> Self {
        Self {
            high: limit,
            above: false,
        }
    }

    /// The high watermark was crossed and the low one has not been reached again.
    #[inline]
    pub const fn is_above(&self) -> bool {
        self.above
    }

    /// Tells the new amount; says whether that crossed a mark.
    #[inline]
    pub const fn update(&mut self, buffered: usize) -> Option<Crossing> {
        if self.above {
            if buffered <= (self.high / 2) as usize {
                self.above = false;
                return Some(Crossing::Low);
            }
        } else if self.high > 0 && buffered > self.high as usize {
            self.above = true;
            return Some(Crossing::High);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crosses_high_once_and_low_at_half() {
        let mut mark = Watermark::new(100);
        assert_eq!(mark.update(100), None);
        assert_eq!(mark.update(101), Some(Crossing::High));
        assert_eq!(mark.update(500), None);
        assert_eq!(mark.update(51), None);
        assert!(mark.is_above());
        assert_eq!(mark.update(50), Some(Crossing::Low));
        assert_eq!(mark.update(0), None);
    }

    #[test]
    fn no_limit_crosses_nothing() {
        let mut mark = Watermark::new(0);
        assert_eq!(mark.update(usize::MAX), None);
    }
}
