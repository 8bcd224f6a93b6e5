//! One stream: its state and what it may send and receive. Knows nothing of frames or of its connection.

/// The states of RFC 9113 section 5.1 that a stream in the store can be in. `idle` streams are those with a higher
/// identifier than any used, `closed` ones are not in the store any more; `reserved` needs push, which is refused.
///
/// ```text
///            HEADERS, either way
///   (idle) ───────────────────────▶ Open ──────────────────────────────┐
///      │                           │    │                              │
///      │ HEADERS + END_STREAM      │    │                              │
///      │ received          receive │    │ send                         │ RST_STREAM
///      │                END_STREAM │    │ END_STREAM                   │ either way
///      │                           ▼    ▼                              │
///      ├──────────▶ HalfClosedRemote    HalfClosedLocal ◀──┐           │
///      │                           │    │                  │           │
///      │ HEADERS + END_STREAM sent │    │                  │           │
///      └───────────────────────────┼────┼──────────────────┘           │
///                  send END_STREAM │    │ receive END_STREAM           │
///                    or RST_STREAM ▼    ▼ or RST_STREAM                ▼
///                                (closed) ◀────────────────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Open,
    HalfClosedLocal,
    HalfClosedRemote,
}

impl State {
    /// After END_STREAM was received; `None`: closed.
    #[inline]
    pub(super) const fn remote_ended(self) -> Option<Self> {
        match self {
            Self::Open => Some(Self::HalfClosedRemote),
            Self::HalfClosedLocal | Self::HalfClosedRemote => None,
        }
    }

    /// After END_STREAM was sent; `None`: closed.
    #[inline]
    pub(super) const fn local_ended(self) -> Option<Self> {
        match self {
            Self::Open => Some(Self::HalfClosedLocal),
            Self::HalfClosedLocal | Self::HalfClosedRemote => None,
        }
    }

    #[inline]
    pub(super) const fn can_receive(self) -> bool {
        matches!(self, Self::Open | Self::HalfClosedLocal)
    }

    #[inline]
    pub(super) const fn can_send(self) -> bool {
        matches!(self, Self::Open | Self::HalfClosedRemote)
    }
}

/// What a request asked for, as far as the length of the response's body depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// A length may be declared, but there is no body.
    Head,
    /// Of a tunnel no length is declared.
    Connect,
    Other,
}

/// Where a list of streams ends.
pub(super) const NONE: u32 = u32::MAX;
/// The length of a body that was not declared.
pub(super) const UNKNOWN_LENGTH: u64 = u64::MAX;

#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) token: u32,
    pub(super) state: State,
    /// The final head has been received.
    pub(super) head_received: bool,
    /// The final head has been sent.
    pub(super) head_sent: bool,
    /// The caller waits for [`super::Event::Writable`].
    pub(super) waiting: bool,
    /// In the queue of those to be told.
    pub(super) queued: bool,
    pub(super) asked: Asked,
    /// May be negative after the peer lowers its initial window (RFC 9113 section 6.9.2).
    pub(super) send_window: i32,
    /// What the peer may still send.
    pub(super) recv_window: i32,
    /// Given back by the caller but not yet announced.
    pub(super) released: u32,
    /// When it was opened, in milliseconds of the caller's clock.
    pub(super) opened: u32,
    /// What is still to come of the declared length.
    pub(super) to_come: u64,
    /// The next in the queue, or the next free place.
    pub(super) next: u32,
}

impl Stream {
    pub(super) const fn new(id: u32, send_window: i32, recv_window: i32, opened: u32) -> Self {
        Self {
            id,
            token: super::event::NO_TOKEN,
            state: State::Open,
            head_received: false,
            head_sent: false,
            waiting: false,
            queued: false,
            asked: Asked::Other,
            send_window,
            recv_window,
            released: 0,
            opened,
            to_come: UNKNOWN_LENGTH,
            next: NONE,
        }
    }

    /// Whether DATA has added up to the declared length, if one was declared.
    #[inline]
    pub(super) const fn is_body_complete(&self) -> bool {
        self.to_come == 0 || self.to_come == UNKNOWN_LENGTH
    }
}

const _: () = assert!(size_of::<Stream>() <= 64);
