//! The way of a connection, in file order: accept, listener_filters, original_dst, listener, filter_chain, network (or hcm), route, cluster,
//! balance, pool, splice, drain; and the worker that drives it.
//!
//! No protobuf, no Python, no configuration decoding: the tables come from `tidegate_snapshot`, published through
//! [`DataplaneHandle`].

pub mod accept;
mod listener_filters;
mod original_dst;
pub mod listener;
mod filter_chain;
pub mod network;
pub mod hcm;
pub mod cluster;
pub mod balance;
pub mod pool;
mod rbac;
mod splice;
pub mod drain;
mod statsd;

pub mod conn;
mod handle;
mod http2;
mod istio;
pub mod shared;
pub(crate) mod transport;
pub mod worker;

pub use handle::{BindError, DataplaneHandle, spawn_workers};
pub use shared::{DataplaneConfig, DrainScope, Shared};
pub use worker::{Core, LogSink, ScriptLevel, Worker};
