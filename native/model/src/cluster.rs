//! Clusters and their endpoints (`config.cluster.v3`, `config.endpoint.v3`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::Name;
use crate::http2::Http2Options;
use crate::istio::{IstioCluster, MetadataExchange};
use crate::route::HashPolicy;
use crate::tls::{TransportSocketMatch, UpstreamTransport};

/// `config.cluster.v3.Cluster`.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    pub name: Name,
    /// The name in stats; the name itself where the config is silent, `:` turned into `_`.
    pub alt_stat_name: Name,
    pub discovery: Discovery,
    /// Default 5 s.
    pub connect_timeout: Duration,
    /// Default 1 MiB.
    pub per_connection_buffer_limit_bytes: u32,
    pub lb_policy: LbPolicy,
    pub lb: LbConfig,
    pub outlier_detection: Option<Box<OutlierDetection>>,
    pub circuit_breakers: CircuitBreakers,
    pub http: UpstreamHttpOptions,
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `None`: that of the cluster manager, if it has one.
    pub upstream_bind: Option<BindConfig>,
    pub ignore_health_on_host_removal: bool,
    pub close_connections_on_host_health_failure: bool,
    pub transport_socket: UpstreamTransport,
    /// The first that a host's metadata meet takes the place of `transport_socket`.
    pub transport_socket_matches: Vec<TransportSocketMatch>,
    pub istio: Option<Arc<IstioCluster>>,
    /// Metadata exchange with the hosts' proxies, on connections that carry no HTTP (of `filters`).
    pub metadata_exchange: Option<Arc<MetadataExchange>>,
}

impl Default for Cluster {
    /// A nameless static cluster without hosts, everything else as where the configuration is silent.
    fn default() -> Self {
        Self {
            name: Name::from(""),
            alt_stat_name: Name::from(""),
            discovery: Discovery::Static(Arc::new(ClusterLoadAssignment::empty(Name::from("")))),
            connect_timeout: Duration::from_secs(5),
            per_connection_buffer_limit_bytes: 1 << 20,
            lb_policy: LbPolicy::default(),
            lb: LbConfig::default(),
            outlier_detection: None,
            circuit_breakers: CircuitBreakers::default(),
            http: UpstreamHttpOptions::default(),
            tcp_keepalive: None,
            upstream_bind: None,
            ignore_health_on_host_removal: false,
            close_connections_on_host_health_failure: false,
            transport_socket: UpstreamTransport::default(),
            transport_socket_matches: Vec::new(),
            istio: None,
            metadata_exchange: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    Static(Arc<ClusterLoadAssignment>),
    StrictDns(DnsCluster),
    LogicalDns(DnsCluster),
    Eds {
        service_name: Name,
        source: ConfigSource,
        /// `None`: warm until it arrives.
        initial_fetch_timeout: Option<Duration>,
    },
    OriginalDst(OriginalDst),
}

/// `config.core.v3.BindConfig`: where connections to hosts come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BindConfig {
    /// The first of the host's family counts; port 0 lets the kernel choose. May be empty.
    pub sources: Vec<SocketAddr>,
    pub freebind: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DnsCluster {
    /// Endpoints with `Address::Dns`.
    pub load_assignment: Arc<ClusterLoadAssignment>,
    /// Default 5 s.
    pub refresh_rate: Duration,
    pub respect_dns_ttl: bool,
    /// Up to so much is added to each pause between lookups.
    pub jitter: Duration,
    pub lookup_family: DnsLookupFamily,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DnsLookupFamily {
    #[default]
    Auto,
    V4Only,
    V6Only,
    V4Preferred,
    All,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigSource {
    Ads,
    /// `path_config_source.path`.
    Path(Name),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OriginalDst {
    /// With `use_http_header`; lower case; default `x-envoy-original-dst-host`.
    pub http_header_name: Option<Name>,
    /// Dynamic metadata of the request; goes before the header.
    pub metadata_key: Option<MetadataKey>,
    pub upstream_port_override: Option<u16>,
    /// Default 5 s.
    pub cleanup_interval: Duration,
}

/// `type.metadata.v3.MetadataKey`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataKey {
    pub key: Name,
    /// Below it; at least one.
    pub path: Vec<Name>,
}

/// Which host of those that are left takes a request: `lb_policy`, or the extension in `load_balancing_policy`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum LbPolicy {
    #[default]
    RoundRobin,
    LeastRequest(LeastRequest),
    Random,
    RingHash(RingHash),
    Maglev {
        /// A prime number up to 5,000,011; default 65,537.
        table_size: u64,
    },
    /// ORIGINAL_DST clusters.
    ClusterProvided,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeastRequest {
    /// Default 2.
    pub choice_count: u32,
    /// Of the requests in flight, where weights differ; default 1.
    pub active_request_bias: f64,
    /// All hosts are compared (`selection_method: FULL_SCAN`).
    pub full_scan: bool,
}

impl Default for LeastRequest {
    fn default() -> Self {
        Self {
            choice_count: 2,
            active_request_bias: 1.0,
            full_scan: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingHash {
    pub hash_function: RingHashFunction,
    /// Default 1,024; at most 8 Mi.
    pub minimum_ring_size: u64,
    /// Default and limit 8 Mi.
    pub maximum_ring_size: u64,
}

impl Default for RingHash {
    fn default() -> Self {
        Self {
            hash_function: RingHashFunction::XxHash,
            minimum_ring_size: 1024,
            maximum_ring_size: 8 << 20,
        }
    }
}

/// What places the hosts on the ring; requests are always hashed with xxHash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RingHashFunction {
    #[default]
    XxHash,
    /// libstdc++'s `std::hash` for strings.
    MurmurHash2,
}

/// What all policies have in common (`common_lb_config`, and the like in the extensions).
#[derive(Debug, Clone, PartialEq)]
pub struct LbConfig {
    /// Percent; default 50.
    pub healthy_panic_threshold: u32,
    pub locality_weighted: bool,
    /// In panic no host is chosen, instead of any.
    pub fail_traffic_on_panic: bool,
    pub use_hostname_for_hashing: bool,
    /// Percent of the average load that a host may have, by consistent hashing; 0: any.
    pub hash_balance_factor: u32,
    /// In place of the route's, from the extension's configuration.
    pub hash_policy: Vec<HashPolicy>,
    pub slow_start: Option<SlowStart>,
    pub close_connections_on_host_set_change: bool,
}

impl Default for LbConfig {
    fn default() -> Self {
        Self {
            healthy_panic_threshold: 50,
            locality_weighted: false,
            fail_traffic_on_panic: false,
            use_hostname_for_hashing: false,
            hash_balance_factor: 0,
            hash_policy: Vec::new(),
            slow_start: None,
            close_connections_on_host_set_change: false,
        }
    }
}

/// `slow_start_config`: how the weight of a host that has just come grows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    pub window: Duration,
    /// More than 0; default 1.
    pub aggression: f64,
    /// Percent; default 10.
    pub min_weight_percent: f64,
}

/// `config.cluster.v3.OutlierDetection`, Envoy's defaults where the configuration is silent. Percentages are whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetection {
    pub interval: Duration,
    pub base_ejection_time: Duration,
    pub max_ejection_time: Duration,
    pub max_ejection_time_jitter: Duration,
    pub max_ejection_percent: u32,
    pub always_eject_one_host: bool,
    pub split_external_local_origin_errors: bool,
    pub consecutive_5xx: u32,
    pub consecutive_gateway_failure: u32,
    pub consecutive_local_origin_failure: u32,
    pub success_rate_minimum_hosts: u32,
    pub success_rate_request_volume: u32,
    /// In thousandths.
    pub success_rate_stdev_factor: u32,
    pub failure_percentage_threshold: u32,
    pub failure_percentage_minimum_hosts: u32,
    pub failure_percentage_request_volume: u32,
    pub enforcing_consecutive_5xx: u32,
    pub enforcing_consecutive_gateway_failure: u32,
    pub enforcing_consecutive_local_origin_failure: u32,
    pub enforcing_success_rate: u32,
    pub enforcing_local_origin_success_rate: u32,
    pub enforcing_failure_percentage: u32,
    pub enforcing_failure_percentage_local_origin: u32,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_mins(5),
            max_ejection_time_jitter: Duration::ZERO,
            max_ejection_percent: 10,
            always_eject_one_host: false,
            split_external_local_origin_errors: false,
            consecutive_5xx: 5,
            consecutive_gateway_failure: 5,
            consecutive_local_origin_failure: 5,
            success_rate_minimum_hosts: 5,
            success_rate_request_volume: 100,
            success_rate_stdev_factor: 1900,
            failure_percentage_threshold: 85,
            failure_percentage_minimum_hosts: 5,
            failure_percentage_request_volume: 50,
            enforcing_consecutive_5xx: 100,
            enforcing_consecutive_gateway_failure: 0,
            enforcing_consecutive_local_origin_failure: 100,
            enforcing_success_rate: 100,
            enforcing_local_origin_success_rate: 100,
            enforcing_failure_percentage: 0,
            enforcing_failure_percentage_local_origin: 0,
        }
    }
}

/// Limits for the two priorities; Envoy's defaults are 1024, 1024, 1024 and 3.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CircuitBreakers {
    pub default: Thresholds,
    pub high: Thresholds,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    pub max_connections: u32,
    pub max_pending_requests: u32,
    pub max_requests: u32,
    pub max_retries: u32,
    /// Takes the place of `max_retries`.
    pub retry_budget: Option<RetryBudget>,
    pub max_connection_pools: Option<u32>,
    pub track_remaining: bool,
}

/// `retry_budget`: as many retries at a time as a share of the requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// Of the requests that are active or wait; default 20.
    pub budget_percent: f64,
    /// Whatever the share comes to; default 3.
    pub min_retry_concurrency: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            budget_percent: 20.0,
            min_retry_concurrency: 3,
        }
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            retry_budget: None,
            max_connection_pools: None,
            track_remaining: false,
        }
    }
}

/// Upstream HTTP options (`HttpProtocolOptions` and the cluster's own fields).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamHttpOptions {
    /// Default 1 h.
    pub idle_timeout: Option<Duration>,
    pub max_requests_per_connection: Option<u32>,
    pub max_connection_duration: Option<Duration>,
    pub max_stream_duration: Option<Duration>,
    /// Default 100.
    pub max_headers_count: u32,
    /// Over HTTP/1; default 80 KiB, in bytes.
    pub max_response_headers_bytes: u32,
    /// The same over HTTP/2; default 60 KiB.
    pub max_response_headers_bytes_http2: u32,
    pub enable_trailers: bool,
    pub protocol: UpstreamProtocol,
    /// For whenever HTTP/2 is spoken.
    pub http2: Http2Options,
    /// `upstream_http_protocol_options.auto_sni`: the server name is what this header of the request says.
    pub auto_sni: Option<Name>,
    /// `auto_san_validation`: the certificate must be for that name.
    pub auto_san_validation: bool,
}

/// Which HTTP goes to the hosts of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpstreamProtocol {
    #[default]
    Http1,
    /// With prior knowledge.
    Http2,
    /// That of the request: `use_downstream_protocol_config`, `USE_DOWNSTREAM_PROTOCOL`.
    Downstream,
    /// What is agreed on by ALPN: `auto_config`.
    Negotiated,
}

impl Default for UpstreamHttpOptions {
    fn default() -> Self {
        Self {
            idle_timeout: Some(Duration::from_hours(1)),
            max_requests_per_connection: None,
            max_connection_duration: None,
            max_stream_duration: None,
            max_headers_count: 100,
            max_response_headers_bytes: 80 * 1024,
            max_response_headers_bytes_http2: 60 * 1024,
            enable_trailers: false,
            protocol: UpstreamProtocol::default(),
            http2: Http2Options::default(),
            auto_sni: None,
            auto_san_validation: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TcpKeepalive {
    pub probes: Option<u32>,
    pub time: Option<Duration>,
    pub interval: Option<Duration>,
}

/// `config.endpoint.v3.ClusterLoadAssignment`.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterLoadAssignment {
    pub cluster_name: Name,
    pub localities: Vec<LocalityLbEndpoints>,
    /// Default 140.
    pub overprovisioning_factor: u32,
    pub weighted_priority_health: bool,
    /// `policy.drop_overloads`, per category.
    pub drop_overloads: Vec<(Name, crate::Fraction)>,
}

impl ClusterLoadAssignment {
    pub const fn empty(cluster_name: Name) -> Self {
        Self {
            cluster_name,
            localities: Vec::new(),
            overprovisioning_factor: 140,
            weighted_priority_health: false,
            drop_overloads: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct LocalityLbEndpoints {
    pub locality: Locality,
    pub endpoints: Vec<LbEndpoint>,
    pub load_balancing_weight: Option<u32>,
    pub priority: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Locality {
    pub region: Name0,
    pub zone: Name0,
    pub sub_zone: Name0,
}

/// A name that may be empty, with a default.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name0(pub Name);

impl Default for Name0 {
    fn default() -> Self {
        Self(Name::from(""))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LbEndpoint {
    pub address: Address,
    /// For `auto_host_rewrite` and DNS: the configured hostname, may be empty.
    pub hostname: Name,
    pub health: HealthStatus,
    /// 1 and up.
    pub load_balancing_weight: u32,
    /// `envoy.transport_socket_match` of its metadata, sorted by key; values as compact JSON.
    pub transport_socket_match: Vec<(Name, Name)>,
    /// `istio.workload` of its metadata.
    pub workload: Option<Name>,
    /// `envoy.lb` of its metadata.
    pub lb_metadata: Option<Arc<LbMetadata>>,
}

/// `envoy.lb` of a host's metadata: what retries may pass hosts over for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LbMetadata {
    pub canary: bool,
    /// Sorted by key.
    pub entries: Vec<(Name, LbValue)>,
}

/// As compact JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LbValue {
    One(Name),
    /// A list: it has each of its elements for value.
    Any(Vec<Name>),
}

impl LbMetadata {
    /// Whether it has all of these. Of none: no.
    pub fn has_all(&self, labels: &[(Name, Name)]) -> bool {
        let has = |(key, wanted): &(Name, Name)| {
            self.entries.iter().any(|(known, value)| {
                known == key
                    && match value {
                        LbValue::One(value) => value == wanted,
                        LbValue::Any(values) => values.contains(wanted),
                    }
            })
        };
        !labels.is_empty() && labels.iter().all(has)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    Socket(SocketAddr),
    /// To be resolved (STRICT_DNS, LOGICAL_DNS only).
    Dns {
        host: Name,
        port: u16,
    },
    Pipe(Name),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum HealthStatus {
    #[default]
    Unknown,
    Healthy,
    Unhealthy,
    Draining,
    Timeout,
    Degraded,
}
