//! Envoy's metrics, by owner: a marker type per group and a constant per metric.
//!
//! The names are the contract with dashboards; each table was taken from what Envoy 1.40 prints.

pub mod cluster;
pub mod cluster_manager;
pub mod compressor;
pub mod control_plane;
pub mod cors;
pub mod discovery;
pub mod dns;
pub mod ext_authz;
pub mod fault;
pub mod fault_downstream;
pub mod filesystem;
pub mod grpc;
pub mod http;
pub mod http1;
pub mod http2;
pub mod http_inspector;
pub mod jwt_authn;
pub mod listener;
pub mod listener_http;
pub mod listener_manager;
pub mod listener_worker;
pub mod metadata_exchange;
pub mod opentelemetry;
pub mod outlier;
pub mod extension_config;
pub mod local_ratelimit;
pub mod lua;
pub mod rbac;
pub mod rds;
pub mod runtime;
pub mod sds;
pub mod server;
pub mod ssl;
pub mod statsd;
pub mod tcp;
pub mod tls_inspector;
pub mod tracing;
pub mod vcluster;
