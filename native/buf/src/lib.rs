//! Bytes that wait for a full socket: pooled segments in a queue, and the watermarks that make the other side pause.
//!
//! A connection whose peer reads holds no memory here: bytes are written through at once and only the remainder that
//! the kernel would not take is queued. This crate knows no sockets and no protocol.

mod out_buf;
mod watermark;

pub use out_buf::{OutBuf, SEGMENT_SIZE, SegmentPool};
pub use watermark::{Crossing, Watermark};
