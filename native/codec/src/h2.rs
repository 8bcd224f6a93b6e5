//! HTTP/2 after RFC 9113 and HPACK after RFC 7541, with Envoy's limits, verdicts and counters.
//!
//! A [`Connection`] is fed what was read and gives one [`Event`] at a time; what it has to say collects in one output
//! that the caller writes once per pass of its loop:
//!
//! ```text
//! let mut input = Input::new(read);
//! while let Some(event) = connection.next(&mut input, &mut scratch, now)? { … }
//! let written = socket.write(connection.output());
//! connection.written(written);
//! ```
//!
//! * All input is consumed: of a frame that has not wholly arrived the connection keeps the part that is there, and
//!   gives the memory back once the frame is complete. DATA is never kept; it is handed out as it comes.
//! * Heads and trailers are decoded into a [`Scratch`], one per worker, valid until the next call.
//! * A stream carries the caller's token. When both sides have ended it, or a [`Event::Reset`] says so, it is gone.
//! * Every payload byte is given back by [`Connection::release`] sooner or later; that is the back-pressure.
//! * An error of the connection leaves a GOAWAY in the output, to be written before the end.

mod arena;
mod connection;
mod error;
mod event;
mod frame;
mod guard;
mod hpack;
mod input;
mod options;
mod output;
mod scratch;
mod stats;
mod store;
mod stream;
mod validate;

pub use connection::{Connection, OutField, RequestLine, Role};
pub use error::{ConnectionError, ErrorCode, Malformed, Overflow, SendError, StreamFault};
pub use event::{Event, NO_TOKEN, ResetBy, StreamRef};
pub use frame::is_preface;
pub use input::Input;
pub use options::{Keepalive, Options};
pub use scratch::{Field, RequestHead, Scratch};
pub use stats::{Counts, Stat};

#[cfg(test)]
mod tests;
