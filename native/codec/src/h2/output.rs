//! The bytes that wait to be written, and how many frames they are.

use super::error::ConnectionError;
use super::frame::{self, HEADER_LEN, Head, flag, kind};
use super::options::Options;

/// A batch of frames; see [`Output::written`].
#[derive(Debug, Clone, Copy, Default)]
struct Frames {
    all: u32,
    control: u32,
}

/// A frame of DATA at the very end, which more of the same stream may be put into.
#[derive(Debug, Clone, Copy, Default)]
struct Tail {
    stream: u32,
    start: usize,
    end: usize,
}

#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) bytes: Vec<u8>,
    /// Bytes at the front that have been written.
    written: usize,
    /// Frames that end at or before `mark`, and those that came later. What is partly written counts as waiting.
    older: Frames,
    newer: Frames,
    mark: usize,
    tail: Tail,
}

impl Output {
    #[inline]
    pub(super) fn pending(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    #[inline]
    pub(super) fn frame(&mut self) {
        self.newer.all += 1;
    }

    #[inline]
    pub(super) fn control_frame(&mut self) {
        self.newer.all += 1;
        self.newer.control += 1;
    }

    pub(super) const fn control_frames(&self) -> u32 {
        self.older.control + self.newer.control
    }

    pub(super) const fn frames(&self) -> u32 {
        self.older.all + self.newer.all
    }

    /// Appends DATA, in one frame with what precedes it if that is DATA of the same stream and not on its way; whether
    /// that is so.
    #[inline]
    pub(super) fn data(&mut self, stream: u32, piece: &[u8], end: bool, max_frame: usize) -> bool {
        let Tail {
            stream: last,
            start,
            end: at,
        } = self.tail;
        let flags = if end { flag::END_STREAM } else { 0 };
        if last == stream && at == self.bytes.len() {
            let length = at - start - HEADER_LEN + piece.len();
            if length <= max_frame {
                let head = Head {
                    length: length as u32,
                    kind: kind::DATA,
                    flags,
                    stream,
                };
                if let Some(place) = self.bytes.get_mut(start..start + HEADER_LEN) {
                    place.copy_from_slice(&head.bytes());
                }
                self.bytes.extend_from_slice(piece);
                self.tail.end = self.bytes.len();
                return true;
            }
        }
        let start = self.bytes.len();
        frame::head(&mut self.bytes, piece.len(), kind::DATA, flags, stream);
        self.bytes.extend_from_slice(piece);
        self.tail = Tail {
            stream,
            start,
            end: self.bytes.len(),
        };
        self.frame();
        false
    }

    #[inline]
    pub(super) fn check(&self, options: &Options) -> Result<(), ConnectionError> {
        if self.frames() > options.max_outbound_frames {
            return Err(ConnectionError::OutboundFlood);
        }
        if self.control_frames() > options.max_outbound_control_frames {
            return Err(ConnectionError::OutboundControlFlood);
        }
        Ok(())
    }

    /// The caller has written the first `count` bytes.
    #[inline]
    pub(super) fn written(&mut self, count: usize) {
        self.written += count.min(self.len());
        self.tail = Tail::default();
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
            self.mark = 0;
            self.older = Frames::default();
            self.newer = Frames::default();
        } else {
            self.partly_written();
        }
    }

    #[cold]
    fn partly_written(&mut self) {
        if self.written >= self.mark {
            self.older = std::mem::take(&mut self.newer);
            self.mark = self.bytes.len();
        }
        if self.written >= 64 * 1024 && self.written * 2 >= self.bytes.len() {
            self.bytes.drain(..self.written);
            self.mark -= self.written;
            self.written = 0;
        }
    }

    /// The memory, if nothing waits in it.
    pub(super) fn reclaim(&mut self) -> Vec<u8> {
        if self.bytes.is_empty() {
            std::mem::take(&mut self.bytes)
        } else {
            Vec::new()
        }
    }
}
