//! The queue of pending output and the segments it is made of.

use std::collections::VecDeque;
use std::io::IoSlice;

/// Bytes in one segment.
pub const SEGMENT_SIZE: usize = 16 * 1024;

/// Segments a pool keeps for reuse: 1 MiB.
const KEPT: usize = 64;

/// A worker's free segments.
#[derive(Debug, Default)]
pub struct SegmentPool {
    free: Vec<Box<[u8]>>,
}

impl SegmentPool {
    pub const fn new() -> Self {
        Self { free: Vec::new() }
    }

    fn take(&mut self) -> Box<[u8]> {
        self.free
            .pop()
            .unwrap_or_else(|| vec![0; SEGMENT_SIZE].into_boxed_slice())
    }

    fn give(&mut self, bytes: Box<[u8]>) {
        if self.free.len() < KEPT {
            self.free.push(bytes);
        }
    }
}

#[derive(Debug)]
struct Segment {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Segment {
    fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }
}

/// Bytes that a socket would not take yet, in order. Empty, it owns no heap memory.
#[derive(Debug, Default)]
pub struct OutBuf {
    segments: VecDeque<Segment>,
    len: usize,
}

impl OutBuf {
    pub const fn new() -> Self {
        Self {
            segments: VecDeque::new(),
            len: 0,
        }
    }

    /// Bytes that wait.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a copy of `bytes`.
    pub fn push(&mut self, pool: &mut SegmentPool, mut bytes: &[u8]) {
        self.len += bytes.len();
        while !bytes.is_empty() {
            let room = match self.segments.back_mut() {
                Some(last) if last.end < last.bytes.len() => last,
                _ => {
                    self.segments.push_back(Segment {
                        bytes: pool.take(),
                        start: 0,
                        end: 0,
                    });
                    continue;
                }
            };
            let end = room.end;
            let Some(space) = room.bytes.get_mut(end..) else {
                continue;
            };
            let taken = space.len().min(bytes.len());
            let (now, later) = bytes.split_at(taken);
            if let Some(space) = space.get_mut(..taken) {
                space.copy_from_slice(now);
            }
            room.end += taken;
            bytes = later;
        }
    }

    /// Appends what a vectored write of `pieces` left over after `written` bytes.
    pub fn push_rest(&mut self, pool: &mut SegmentPool, pieces: &[&[u8]], written: usize) {
        let mut skip = written;
        for piece in pieces {
            let (_, rest) = piece.split_at(skip.min(piece.len()));
            skip = skip.saturating_sub(piece.len());
            self.push(pool, rest);
        }
    }

    /// The first bytes, as many as `into` has places for; returns how many places were filled.
    pub fn slices<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (place, segment) in into.iter_mut().zip(&self.segments) {
            *place = IoSlice::new(segment.filled());
            filled += 1;
        }
        filled
    }

    /// Drops the first `count` bytes, which have been written.
    pub fn consume(&mut self, pool: &mut SegmentPool, count: usize) {
        let mut left = count.min(self.len);
        self.len -= left;
        while left > 0 {
            let Some(first) = self.segments.front_mut() else {
                break;
            };
            let here = first.end - first.start;
            if here > left {
                first.start += left;
                break;
            }
            left -= here;
            if let Some(done) = self.segments.pop_front() {
                pool.give(done.bytes);
            }
        }
        if self.len == 0 {
            self.clear(pool);
        }
    }

    /// Drops everything, and the queue's own memory.
    pub fn clear(&mut self, pool: &mut SegmentPool) {
        self.len = 0;
        for segment in std::mem::take(&mut self.segments) {
            pool.give(segment.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn content(buf: &OutBuf) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = buf.slices(&mut slices);
        slices[..filled]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect()
    }

    #[test]
    fn an_empty_buffer_owns_nothing() {
        let mut pool = SegmentPool::new();
        let mut buf = OutBuf::new();
        buf.push(&mut pool, &vec![1; 40_000]);
        assert_eq!(buf.segments.len(), 3);
        buf.consume(&mut pool, 40_000);
        assert!(buf.is_empty());
        assert_eq!(buf.segments.capacity(), 0);
        assert_eq!(pool.free.len(), 3);
    }

    #[test]
    fn keeps_the_rest_of_a_vectored_write() {
        let mut pool = SegmentPool::new();
        for written in 0..=9 {
            let mut buf = OutBuf::new();
            buf.push_rest(&mut pool, &[b"head ", b"body"], written);
            assert_eq!(content(&buf), b"head body"[written..]);
        }
    }

    proptest! {
        #[test]
        fn is_a_queue_of_bytes(steps in prop::collection::vec((0usize..50_000, 0usize..60_000), 1..30)) {
            let mut pool = SegmentPool::new();
            let mut buf = OutBuf::new();
            let mut model: VecDeque<u8> = VecDeque::new();
            let mut next = 0u8;
            for (push, consume) in steps {
                let bytes: Vec<u8> = (0..push).map(|_| { next = next.wrapping_add(1); next }).collect();
                buf.push(&mut pool, &bytes);
                model.extend(&bytes);
                buf.consume(&mut pool, consume);
                model.drain(..consume.min(model.len()));
                prop_assert_eq!(buf.len(), model.len());
                let held = content(&buf);
                prop_assert_eq!(&held[..], &model.make_contiguous()[..held.len()]);
            }
        }
    }
}
