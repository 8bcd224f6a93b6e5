//! HTTP/1.1 after RFC 9110 and 9112, with Envoy's verdicts and limits.
//!
//! * [`parse_request`] and [`parse_response`] read a head once and leave spans in a reusable [`HeadScratch`];
//!   whatever decides where the message ends (framing, keep-alive, hop-by-hop names) is decided on that same pass.
//! * [`BodyTracker`] follows a body through the bytes of a connection and tells which of them may be passed on as they
//!   are, and which are payload.
//! * [`encode`] writes heads and chunks.
//!
//! Where Envoy reads something leniently that another server might read in a second way (bare LF, a `Content-Length`
//! with a sign, a fold), this module refuses it: what is passed on can be read in one way only. Raw header lines may
//! therefore be copied to the other side untouched.

pub(crate) mod authority;
mod body;
pub(crate) mod chars;
mod chunked;
pub mod encode;
mod error;
mod extension;
pub(crate) mod fields;
mod first_line;
pub(crate) mod firsts;
mod framing;
mod header;
mod hop;
mod known;
mod limits;
mod method;
mod request;
mod response;
pub(crate) mod scan;
mod scratch;
mod span;
mod status;
mod target;

pub use body::{BodyTracker, Fed, LengthBody};
pub use chunked::{ChunkedBody, TrailerPolicy};
pub use error::{BodyError, ErrorKind, ParseError, Refusal};
pub use first_line::{FirstLine, first_line};
pub use framing::{RequestFraming, ResponseFraming};
pub use header::Header;
pub use hop::{ConnectionOptions, is_hop_by_hop, tokens};
pub use known::KnownHeader;
pub use limits::{Limits, UnderscoreAction};
pub use method::Method;
pub use request::{RequestHead, Version, parse_request};
pub use response::{ResponseHead, parse_response};
pub use scratch::{HeadResume, HeadScratch};
pub use span::Span;
pub use status::reason_phrase;
pub use target::{Target, TargetForm};

#[cfg(test)]
mod tests;
