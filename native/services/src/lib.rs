//! The messages of the gRPC services that the data path calls, as plain structs to bytes and back.
//!
//! The data plane reads no configuration in protobuf, but some of those it asks speak it; this crate is where that ends. It
//! must not know sockets, clusters or filters.

pub mod auth;
pub mod trace;
