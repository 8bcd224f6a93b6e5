//! Immutable match tables: what the model says, compiled for workers to read without locks or allocation.
//!
//! `SnapshotBuilder` turns validated `tidegate_model` types into the next `Snapshot`, sharing what did not change. All
//! matching and evaluation here is a pure function of tables, metadata and random numbers given in; traffic, benches,
//! fuzzing and `explain` call the same code. This crate must not know protobuf, sockets, threads or clocks.

pub mod access_log;
pub mod cluster;
pub mod compressor;
pub mod cors;
mod error;
pub mod explain;
pub mod ext_authz;
pub mod fault;
pub mod filter_chain;
pub mod format;
pub mod grpc_stats;
pub mod grpc_status;
pub mod hash_policy;
pub mod header_mutation;
pub mod header_name;
pub mod headers;
mod ids;
pub mod jwt;
pub mod istio_stats;
pub mod listener;
pub mod local_ratelimit;
pub mod log_context;
pub mod lua;
pub mod matcher;
pub mod metadata;
mod paged;
pub mod per_filter;
mod process;
pub mod rbac;
pub mod regex;
pub mod request;
pub mod response_flags;
pub mod retry;
pub mod routes;
pub mod runtime;
mod snapshot;
pub mod transport;
pub mod token_bucket;
pub mod tracing;

pub use self::access_log::{AccessLogs, CompiledAccessLog};
pub use self::cluster::{CompiledCluster, Endpoints, Host, HostAddress, HostId};
pub use self::error::CompileError;
pub use self::explain::{Explanation, explain};
pub use self::filter_chain::{ApplicationProtocols, ConnMeta, FilterChains};
pub use self::format::{FormatError, Formatter};
pub use self::header_name::{HeaderName, WellKnown};
pub use self::headers::{HeaderEdit, HeaderLevels, HeaderMutator, HeaderScratch};
pub use self::ids::{ClusterId, ClusterRef, ListenerId, RouteConfigId, RouteConfigRef};
pub use self::listener::{
    Chain, ChainFilter, CompiledHcm, CompiledListener, CompiledReadFilter, CompiledTcpProxy,
    HcmRoutes, ListenerTable,
};
pub use self::log_context::LogContext;
pub use self::request::{PlainRequest, RequestView};
pub use self::response_flags::ResponseFlags;
pub use self::routes::{CompiledRoutes, CompiledVirtualHost, Routed};
pub use self::runtime::Runtime;
pub use self::snapshot::{Snapshot, SnapshotBuilder};
pub use self::transport::{TransportIndex, UpstreamTransports};
