//! The L4 data plane on real sockets: proxying, half-closes, resets, back-pressure, splice, limits, drains, reloads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::naive_bytecount,
    reason = "helpers of tests fail as tests do"
)]

mod balancing;
mod lifecycle;
mod proxying;
mod redirection;
mod soak;
mod support;
