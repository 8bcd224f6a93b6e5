//! The bootstrap: what the process starts from (`config.bootstrap.v3.Bootstrap`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::Name;
use crate::cluster::{BindConfig, Cluster, ClusterLoadAssignment, ConfigSource};
use crate::istio::NodeMetadata;
use crate::listener::Listener;
use crate::tls::Secret;
use crate::tracing::Provider;

#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    pub node: Node,
    pub admin: Option<Admin>,
    pub listeners: Vec<Arc<Listener>>,
    pub clusters: Vec<Arc<Cluster>>,
    /// `static_resources.secrets`, for those who name a secret without a source.
    pub secrets: Vec<Arc<Secret>>,
    /// `cluster_manager.upstream_bind_config`, for clusters that have none.
    pub upstream_bind: Option<BindConfig>,
    pub dynamic: DynamicResources,
    pub stats: StatsConfig,
    pub stats_sinks: Vec<StatsSink>,
    /// Default 5 s.
    pub stats_flush_interval: Duration,
    /// Static layers flattened, last wins; the admin layer is on when `admin_layer`.
    pub runtime: Vec<(Name, Name)>,
    pub admin_layer: bool,
    /// Layers that RTDS delivers, over the static ones, under the admin page's.
    pub rtds: Vec<RtdsLayer>,
    pub header_prefix: Name,
    /// `tracing.http`, for connection managers that name no provider.
    pub tracing: Option<Provider>,
    /// `overload_manager`: the resource monitor `global_downstream_max_connections`.
    pub max_active_downstream_connections: Option<u64>,
    /// `application_log_config`: the line format of the process's own log, in spdlog's syntax.
    pub log_format: Option<Name>,
    /// Fields Envoy honours and we do not, which are safe to leave out: warned about once and counted.
    pub warnings: Vec<String>,
}

/// `RuntimeLayer.rtds_layer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtdsLayer {
    /// Of the resource.
    pub name: Name,
    pub source: ConfigSource,
    /// How long initialisation waits for it; `None`: for ever. Default 15 s.
    pub initial_fetch_timeout: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: Name,
    pub cluster: Name,
    pub zone: Name,
    pub metadata: Arc<NodeMetadata>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    pub address: AdminAddress,
    pub access_log_paths: Vec<Name>,
    pub profile_path: Option<Name>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    Socket(SocketAddr),
    Pipe(Name),
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct DynamicResources {
    pub lds: Option<ConfigSource>,
    pub cds: Option<ConfigSource>,
    /// How long initialisation waits for the first answer; `None`: for ever. Default 15 s.
    pub lds_initial_fetch_timeout: Option<Duration>,
    pub cds_initial_fetch_timeout: Option<Duration>,
    pub ads: Option<Ads>,
}

/// The aggregated discovery service.
#[derive(Debug, Clone, PartialEq)]
pub struct Ads {
    /// The static cluster that serves it.
    pub cluster_name: Name,
    /// `DELTA_GRPC`: incremental; else state of the world.
    pub delta: bool,
    pub targets: Arc<ClusterLoadAssignment>,
    pub connect_timeout: Duration,
    pub keepalive: Option<Duration>,
    pub initial_metadata: Vec<(Name, Name)>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct StatsConfig {
    pub use_all_default_tags: bool,
    pub tags: Vec<StatsTag>,
    pub matcher: StatsMatcher,
    /// The bounds of the buckets of the histograms with such names, in order; the first that matches counts.
    pub buckets: Vec<(crate::matcher::StringMatcher, Vec<f64>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsTag {
    pub name: Name,
    pub value: StatsTagValue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatsTagValue {
    /// First group: what leaves the name; second (or first): the value.
    Regex(Name),
    Fixed(Name),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StatsMatcher {
    #[default]
    All,
    RejectAll,
    Inclusion(Vec<crate::matcher::StringMatcher>),
    Exclusion(Vec<crate::matcher::StringMatcher>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatsSink {
    /// UDP.
    Statsd { address: SocketAddr, prefix: Name },
    /// A TCP connection through a cluster.
    TcpStatsd { cluster: Name, prefix: Name },
    /// The same with tags.
    DogStatsd {
        address: SocketAddr,
        prefix: Name,
        /// Lines share a datagram up to this size; 0: never.
        max_bytes_per_datagram: u64,
    },
}
