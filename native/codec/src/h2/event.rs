//! What the peer did, one thing at a time.

use super::error::{ErrorCode, Overflow, StreamFault};

/// A stream of a connection: cheap to copy, found without a search, never mistaken for a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamRef {
    pub(super) id: u32,
    pub(super) slot: u32,
}

impl StreamRef {
    /// The identifier on the wire.
    #[inline]
    pub const fn id(self) -> u32 {
        self.id
    }
}

/// Where the token of a stream has not been set yet.
pub const NO_TOKEN: u32 = u32::MAX;

/// Who ended a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetBy {
    /// RST_STREAM came.
    Peer,
    /// The peer broke a rule and RST_STREAM is on its way.
    Fault(StreamFault),
    /// GOAWAY left the stream out: it was not processed and may be tried again elsewhere.
    GoAway,
}

/// One event. `token` is what the caller gave the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'i> {
    /// A request (server): [`super::Scratch::request`]. `end`: without body and trailers.
    Request { stream: StreamRef, end: bool },
    /// A request (server) with too large a head, the stream open for an answer with 431 or a reset.
    TooLarge {
        stream: StreamRef,
        end: bool,
        overflow: Overflow,
    },
    /// A request (server) that broke a rule and never became a stream; RST_STREAM is on its way.
    Refused { why: StreamFault },
    /// A response (client); below 200 an interim one, which another will follow.
    Response {
        stream: StreamRef,
        token: u32,
        status: u16,
        end: bool,
    },
    /// Payload, as soon as it is there. All of it is to be given back by [`super::Connection::release`].
    Data {
        stream: StreamRef,
        token: u32,
        bytes: &'i [u8],
        end: bool,
    },
    /// Trailers, which end the message: the fields are in the scratch.
    Trailers { stream: StreamRef, token: u32 },
    /// The stream is gone.
    Reset {
        stream: StreamRef,
        token: u32,
        code: ErrorCode,
        by: ResetBy,
    },
    /// [`super::Connection::send_data`] would take bytes again. Comes once for each time it did not.
    Writable { stream: StreamRef, token: u32 },
    /// The peer opens no more streams, or takes none (client). Streams left out are reset right after this.
    GoAway { last: u32, code: ErrorCode },
    /// The peer's settings arrived, and with them perhaps room for more streams.
    Settings,
    /// The answer to [`super::Connection::ping`].
    Pong { payload: [u8; 8] },
}
