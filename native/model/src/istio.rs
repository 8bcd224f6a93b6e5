//! Istio's own filters, and what they read: node metadata, `istio` metadata of clusters and endpoints.

use std::time::Duration;

use crate::Name;

/// What telemetry knows of the node, out of the bootstrap's `node.metadata`. Empty: not told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeMetadata {
    pub name: Name,
    pub namespace: Name,
    pub owner: Name,
    pub workload_name: Name,
    pub cluster_id: Name,
    pub identity: Name,
    pub network: Name,
    pub istio_version: Name,
    pub labels: Vec<(Name, Name)>,
    /// `node.locality`.
    pub region: Name,
    pub zone: Name,
    /// `TIDEGATE_ISTIO_METRICS: "1.0"`: the standard metrics go by the names of Istio 1.0.
    pub old_metric_names: bool,
}

/// The `istio` metadata of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IstioCluster {
    /// The first of `services`.
    pub service: Option<IstioService>,
    /// Not part of the mesh.
    pub external: bool,
    pub disable_mx: bool,
    /// `alpn_override: "false"`: `istio.alpn` leaves its connections alone.
    pub keeps_alpn: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IstioService {
    pub host: Option<Name>,
    pub name: Option<Name>,
    pub namespace: Name,
}

/// `io.istio.http.peer_metadata.Config`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerMetadata {
    /// The first that finds something wins.
    pub downstream_discovery: Vec<PeerDiscovery>,
    pub upstream_discovery: Vec<PeerDiscovery>,
    pub downstream_propagation: Vec<PeerPropagation>,
    pub upstream_propagation: Vec<PeerPropagation>,
    pub additional_labels: Vec<Name>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerDiscovery {
    Baggage,
    /// Finds nothing: workloads are not subscribed to.
    WorkloadDiscovery,
    IstioHeaders,
}

/// By headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerPropagation {
    pub skip_external_clusters: bool,
}

/// `istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig`: the ALPN protocols that an upstream connection offers, by the
/// HTTP version it will speak. Empty: those of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Alpn {
    pub http10: std::sync::Arc<[Name]>,
    pub http11: std::sync::Arc<[Name]>,
    pub http2: std::sync::Arc<[Name]>,
}

/// `stats.PluginConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IstioStats {
    pub disable_host_header_fallback: bool,
    /// How often long streams and connections report what there is so far; default 5 s. `None`: only at their end.
    pub reporting_interval: Option<Duration>,
    /// `SERVER_GATEWAY`, a waypoint.
    pub gateway: bool,
    pub metrics: Vec<MetricConfig>,
    pub definitions: Vec<MetricDefinition>,
}

/// Changes of a metric, or of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricConfig {
    /// Without `istio_`; `None`: all metrics.
    pub name: Option<Name>,
    pub drop: bool,
    pub tags_to_remove: Vec<Name>,
    /// By name of the label.
    pub dimensions: Vec<(Name, Expression)>,
}

/// A metric of the configuration's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricDefinition {
    /// Without `istio_`.
    pub name: Name,
    pub value: Expression,
    pub kind: MetricKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetricKind {
    #[default]
    Counter,
    Gauge,
    Histogram,
}

/// A CEL expression, as far as it is supported: a literal or an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    Text(Name),
    /// As a log format.
    Format(Name),
    Peer {
        downstream: bool,
        field: PeerField,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerField {
    Named(Name),
    Label(Name),
}

/// `envoy.tcp.metadataexchange.config.MetadataExchange`, of a filter chain or of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetadataExchange {
    /// The ALPN protocol that announces it.
    pub protocol: Name,
    pub additional_labels: Vec<Name>,
}

/// The standard metrics.
pub const METRICS: [&str; 10] = [
    "requests_total",
    "request_duration_milliseconds",
    "request_bytes",
    "response_bytes",
    "request_messages_total",
    "response_messages_total",
    "tcp_connections_opened_total",
    "tcp_connections_closed_total",
    "tcp_sent_bytes_total",
    "tcp_received_bytes_total",
];
