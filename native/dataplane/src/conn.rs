//! What a worker's slots hold, and how handlers reach each other without borrowing trouble.
//!
//! # The pattern
//!
//! A worker owns all its connections in [`Conns`], a generational slab. To handle an event the worker **takes the
//! connection out** of its slot, calls it with `&mut Worker`, and puts it back (or drops it, on [`After::Close`]). So
//! a handler owns `self` and may at the same time do anything to the rest of the worker: arm timers, choose hosts,
//! take *another* connection out of its slot and work on that.
//!
//! * To work on another connection: `worker.conns.take(key)` and `put` it back. `None` means that it is gone or that
//!   a caller further up the stack has it; then [`Core::nudge`](crate::worker::Core::nudge) it: it gets an
//!   [`Event::Nudge`] with your reason after the current event, still in this pass.
//! * A connection that owns several descriptors (a TCP proxy pair; an HTTP exchange that has an upstream connection
//!   lent to it) registers them under its own key with different `side`s, see [`Key::token`]. `Poller::retarget`
//!   moves a descriptor to a new owner.
//! * Nothing is ever closed twice: dropping the connection closes its sockets; events that are still queued for its
//!   key are recognised as stale by the generation.
//! * A panic while handling an event drops that one connection and is counted (`server.panics_total`). What must be
//!   undone in any case (gauges, circuit breakers) is therefore undone in `Drop`.
//!
//! This module must not know any protocol.

mod slab;

use tidegate_rt::{Readiness, Token};

pub use self::slab::Slab;
use crate::accept::Acceptor;
use crate::hcm::ServerConnection;
use crate::hcm::async_client::Call;
use crate::listener_filters::Waiting;
use crate::network::tcp_proxy::TcpProxySession;
use crate::pool::ClientConnection;
use crate::statsd::StatsdConnection;

/// The identity of a slot's present occupant. Never valid again once the occupant is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// The token under which one of the occupant's descriptors is polled.
    #[inline]
    pub const fn token(self, side: u8) -> Token {
        Token {
            index: self.index,
            generation: self.generation,
            side,
        }
    }

    #[inline]
    pub(crate) const fn of(token: Token) -> Self {
        Self {
            index: token.index,
            generation: token.generation,
        }
    }

    /// A key that no slot has.
    pub const NONE: Self = Self {
        index: u32::MAX,
        generation: 0,
    };
}

/// What happened to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// One of its descriptors is ready; edge-triggered: read and write until the socket would block.
    Ready { side: u8, ready: Readiness },
    /// A timer that it armed with [`TimerKey`] is up. Lazy timers ask `LazyTimer::fired`.
    Timer(u8),
    /// Another connection asks for attention, see [`Core::nudge`](crate::worker::Core::nudge); `stream` is the one of the
    /// connection's streams that it is about, if it has several.
    Nudge { why: u8, stream: u32 },
    /// The pass is over: what was put together for the socket is written, see
    /// [`Core::flush_later`](crate::worker::Core::flush_later).
    Flush,
    /// The listener is being drained or removed: finish what is under way, close when idle.
    Drain,
    /// The drain time is over: close now.
    DrainDeadline,
}

/// What becomes of a connection after an event.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    Keep,
    /// Drop it, which closes its descriptors.
    Close,
}

/// The payload of the worker's timer wheel: whose timer, and which of its timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerKey {
    pub key: Key,
    pub kind: u8,
}

/// The occupant of a slot. Boxed, so that a slot stays small.
pub enum Conn {
    /// A listening socket.
    Acceptor(Box<Acceptor>),
    /// An accepted connection that waits for a listener filter.
    Waiting(Box<Waiting>),
    /// A downstream and an upstream socket joined by the TCP proxy.
    TcpProxy(Box<TcpProxySession>),
    /// A downstream connection of the HTTP connection manager.
    Http(Box<ServerConnection>),
    /// An upstream HTTP connection that its pool owns (idle or connecting), or that serves a request.
    Upstream(Box<ClientConnection>),
    /// A request of our own.
    Call(Box<Call>),
    /// Statistics on their way to a server.
    Statsd(Box<StatsdConnection>),
}

/// All connections of a worker.
pub type Conns = Slab<Conn>;
