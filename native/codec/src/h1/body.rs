//! Following a body to its end, whatever its framing.

use super::chunked::{ChunkedBody, TrailerPolicy};
use super::error::BodyError;
use super::framing::{RequestFraming, ResponseFraming};
use super::limits::Limits;

/// What became of the bytes offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// Bytes that belong to this body and are done with.
    pub consumed: usize,
    /// Payload bytes among them: what `%BYTES_RECEIVED%` and `%BYTES_SENT%` count.
    pub payload: u64,
    /// The body is complete.
    pub finished: bool,
}

/// A body of announced length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthBody {
    pub remaining: u64,
}

impl LengthBody {
    pub const fn new(length: u64) -> Self {
        Self { remaining: length }
    }

    /// Takes what belongs to the body of `available` bytes.
    #[inline]
    pub fn feed(&mut self, available: usize) -> Fed {
        let taken = (available as u64).min(self.remaining);
        self.remaining -= taken;
        Fed {
            consumed: taken as usize,
            payload: taken,
            finished: self.remaining == 0,
        }
    }
}

/// A body in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyTracker {
    /// There is none; finished from the start.
    None,
    Length(LengthBody),
    Chunked(ChunkedBody),
    /// Finished by the upstream's FIN, which the caller sees.
    UntilClose,
}

impl BodyTracker {
    pub fn request(framing: RequestFraming, trailers: TrailerPolicy, limits: &Limits) -> Self {
        match framing {
            RequestFraming::None | RequestFraming::Length(0) => Self::None,
            RequestFraming::Length(length) => Self::Length(LengthBody::new(length)),
            RequestFraming::Chunked => Self::Chunked(ChunkedBody::new(trailers, limits)),
        }
    }

    pub fn response(framing: ResponseFraming, trailers: TrailerPolicy, limits: &Limits) -> Self {
        match framing {
            ResponseFraming::None | ResponseFraming::Length(0) => Self::None,
            ResponseFraming::Length(length) => Self::Length(LengthBody::new(length)),
            ResponseFraming::Chunked => Self::Chunked(ChunkedBody::new(trailers, limits)),
            ResponseFraming::UntilClose => Self::UntilClose,
        }
    }

    /// Nothing more is to come. Always false for [`BodyTracker::UntilClose`].
    #[inline]
    pub fn is_finished(&self) -> bool {
        match self {
            Self::None => true,
            Self::Length(body) => body.remaining == 0,
            Self::Chunked(body) => body.is_finished(),
            Self::UntilClose => false,
        }
    }

    /// Whether an end of stream now would leave the body whole.
    #[inline]
    pub fn may_end_here(&self) -> bool {
        matches!(self, Self::UntilClose) || self.is_finished()
    }

    /// Follows `buf`; `forward` gets the extents to pass on under the same framing. See [`ChunkedBody::feed_raw`].
    #[inline]
    pub fn feed_raw<'b>(
        &mut self,
        buf: &'b [u8],
        mut forward: impl FnMut(&'b [u8]),
    ) -> Result<Fed, BodyError> {
        if let Self::Chunked(body) = self {
            return body.feed_raw(buf, forward);
        }
        let fed = self.feed_plain(buf.len());
        if fed.consumed > 0 {
            forward(buf.get(..fed.consumed).unwrap_or_default());
        }
        Ok(fed)
    }

    /// Follows `buf`; `data` gets the payload. See [`ChunkedBody::feed_payload`].
    #[inline]
    pub fn feed_payload<'b>(
        &mut self,
        buf: &'b [u8],
        mut data: impl FnMut(&'b [u8]),
        trailer: impl FnMut(&'b [u8], &'b [u8]),
    ) -> Result<Fed, BodyError> {
        if let Self::Chunked(body) = self {
            return body.feed_payload(buf, data, trailer);
        }
        let fed = self.feed_plain(buf.len());
        if fed.consumed > 0 {
            data(buf.get(..fed.consumed).unwrap_or_default());
        }
        Ok(fed)
    }

    #[inline]
    fn feed_plain(&mut self, available: usize) -> Fed {
        match self {
            Self::Length(body) => body.feed(available),
            Self::UntilClose => Fed {
                consumed: available,
                payload: available as u64,
                finished: false,
            },
            Self::None | Self::Chunked(_) => Fed {
                consumed: 0,
                payload: 0,
                finished: self.is_finished(),
            },
        }
    }
}
