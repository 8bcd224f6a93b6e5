//! tidegate-codec: sans-IO protocol engines. Bytes in; spans, events and verdicts out; bytes back into a caller's vector.
//!
//! Knows nothing of sockets, clocks, threads, configuration types or statistics: the connection manager owns those and
//! hands in slices. Nothing here allocates in the steady state.

pub mod client_hello;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod grpc;
pub mod h1;
pub mod h2;
