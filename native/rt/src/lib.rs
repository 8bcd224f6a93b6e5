//! The event loop's building blocks: a clock read once per pass, an edge-triggered poller, non-blocking sockets, a
//! timer wheel, pipes for splice(2), a wake-up descriptor and a random number generator.
//!
//! This crate knows the operating system and nothing else: no protocol, no configuration, no statistics. With `buf`
//! it is the only place where `unsafe` may appear, and the only one that may read the monotonic clock.

mod clock;
mod memory;
mod pipe;
mod poller;
mod rng;
mod socket;
mod timer;
mod waker;

pub use clock::{Clock, Moment};
pub use memory::release_unused;
pub use pipe::{Pipe, PipePool, PipeRead, PipeWrite};
pub use poller::{Poller, Readiness, Token};
pub use rng::Rng;
pub use rustix::io::Errno;
pub use socket::{
    Accepted, ConnectError, ConnectOptions, Keepalive, ListenOptions, Listening, Received, Sent,
    ShutdownSide, Socket,
};
pub use timer::{LazyTimer, TimerId, TimerWheel};
pub use waker::Waker;
