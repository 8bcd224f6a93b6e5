//! What proxies tell each other and collectors about traffic, in the form it has on the wire: bytes in and out, no I/O.
//!
//! [`peer`] is what Istio's proxies say of themselves (headers, baggage, the first bytes of a TCP connection). This crate
//! must not know connections, requests or configuration; whoever uses it never sees protobuf.

pub mod exchange;
pub mod peer;

pub use peer::{Peer, WorkloadKind};
