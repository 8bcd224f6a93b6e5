//! Listeners, filter chains and network filters.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::Name;
use crate::access_log::AccessLog;
use crate::hcm::{HttpConnectionManager, HttpFilterKind};
use crate::istio::{IstioStats, MetadataExchange};
use crate::local_ratelimit::NetworkLocalRateLimit;
use crate::rbac::NetworkRbac;
use crate::tls::DownstreamTransport;

/// `config.listener.v3.Listener`.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    pub name: Name,
    pub address: SocketAddr,
    pub additional_addresses: Vec<SocketAddr>,
    /// The address in stat names; the textual address where the config is silent (`0.0.0.0_15001`).
    pub stat_prefix: Name,
    pub bind_to_port: bool,
    /// Hand an accepted connection to the listener of its original destination.
    pub use_original_dst: bool,
    /// In order, with those that `use_original_dst` implies.
    pub listener_filters: Vec<ListenerFilter>,
    pub filter_chains: Vec<FilterChain>,
    pub default_filter_chain: Option<FilterChain>,
    /// Default 1 MiB.
    pub per_connection_buffer_limit_bytes: u32,
    /// `None`: wait for ever (`0s`). Default 15 s.
    pub listener_filters_timeout: Option<Duration>,
    pub continue_on_listener_filters_timeout: bool,
    pub traffic_direction: TrafficDirection,
    /// One socket per worker (`enable_reuse_port`, default true).
    pub reuse_port: bool,
    /// `connection_balance_config.exact_balance`.
    pub exact_balance: bool,
    pub tcp_backlog_size: u32,
    /// At most so many connections are accepted when the socket is ready.
    pub max_accepts_per_event: Option<u32>,
    pub freebind: bool,
    pub transparent: bool,
    /// Written for connections that no filter chain took.
    pub access_log: Vec<Arc<AccessLog>>,
    pub drain_type_modify_only: bool,
    /// Per listener cap; `None`: unlimited.
    pub max_connections: Option<u64>,
    /// Its connections neither count nor fail where the process has a limit of its own.
    pub ignore_global_conn_limit: bool,
}

/// What looks at a connection before its filter chain is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerFilter {
    pub kind: ListenerFilterKind,
    /// `filter_disabled`: it is passed over where this holds.
    pub disabled: Option<ConnectionPredicate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerFilterKind {
    /// The original destination becomes the connection's local address.
    OriginalDst,
    TlsInspector {
        /// `max_client_hello_size` in bytes, at most 16 KiB.
        max_client_hello_size: usize,
        /// Bytes that are not a ClientHello end the connection.
        close_on_parse_errors: bool,
    },
    HttpInspector,
}

/// `ListenerFilterChainMatchPredicate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionPredicate {
    Any,
    /// From `start` up to but without `end`.
    DestinationPort {
        start: u32,
        end: u32,
    },
    Not(Box<Self>),
    And(Vec<Self>),
    Or(Vec<Self>),
}

impl ConnectionPredicate {
    /// Whether it holds for a connection to this port.
    pub fn holds(&self, destination_port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::DestinationPort { start, end } => {
                (*start..*end).contains(&u32::from(destination_port))
            }
            Self::Not(rule) => !rule.holds(destination_port),
            Self::And(rules) => rules.iter().all(|rule| rule.holds(destination_port)),
            Self::Or(rules) => rules.iter().any(|rule| rule.holds(destination_port)),
        }
    }
}

impl Listener {
    /// Whether an update to `new` may leave the connections of unchanged filter chains alone: nothing else has changed
    /// (Envoy's `supportUpdateFilterChain`).
    pub fn may_become_in_place(&self, new: &Self) -> bool {
        let without_chains = |listener: &Self| Self {
            filter_chains: Vec::new(),
            default_filter_chain: None,
            ..listener.clone()
        };
        !new.filter_chains.is_empty() && without_chains(self) == without_chains(new)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrafficDirection {
    #[default]
    Unspecified,
    Inbound,
    Outbound,
}

/// `config.listener.v3.FilterChain`.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterChain {
    pub name: Name,
    pub matches: FilterChainMatch,
    /// The network filters before the terminal one, in order.
    pub read_filters: Vec<ReadFilter>,
    /// The terminal network filter.
    pub filter: NetworkFilter,
    pub transport_socket: DownstreamTransport,
    pub transport_socket_connect_timeout: Option<Duration>,
}

impl FilterChain {
    /// Whether nothing but what ECDS delivered tells it from `new`.
    pub fn differs_by_discovery(&self, new: &Self) -> bool {
        let undiscovered = |chain: &Self| {
            let NetworkFilter::HttpConnectionManager(manager) = &chain.filter else {
                return None;
            };
            let mut manager = HttpConnectionManager::clone(manager);
            let mut found = false;
            for filter in &mut manager.http_filters {
                if filter.discovery.is_some() {
                    filter.kind = HttpFilterKind::Missing;
                    found = true;
                }
            }
            found.then(|| Self {
                filter: NetworkFilter::HttpConnectionManager(Arc::new(manager)),
                ..chain.clone()
            })
        };
        undiscovered(self).is_some_and(|before| undiscovered(new).as_ref() == Some(&before))
    }
}

/// `config.listener.v3.FilterChainMatch`; an empty list or `None` matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FilterChainMatch {
    pub destination_port: Option<u16>,
    pub prefix_ranges: Vec<IpNet>,
    pub server_names: Vec<Name>,
    /// `raw_buffer` or `tls`.
    pub transport_protocol: Option<Name>,
    pub application_protocols: Vec<Name>,
    pub direct_source_prefix_ranges: Vec<IpNet>,
    pub source_type: SourceType,
    pub source_prefix_ranges: Vec<IpNet>,
    pub source_ports: Vec<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum SourceType {
    #[default]
    Any,
    SameIpOrLoopback,
    External,
}

/// A network filter that sees a connection before the terminal one does.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadFilter {
    pub name: Name,
    pub kind: ReadFilterKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ReadFilterKind {
    Rbac(Arc<NetworkRbac>),
    LocalRateLimit(Arc<NetworkLocalRateLimit>),
    /// `envoy.filters.network.sni_cluster`: the requested server name is the cluster of the TCP proxy.
    SniCluster,
    MetadataExchange(Arc<MetadataExchange>),
    IstioStats(Arc<IstioStats>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum NetworkFilter {
    TcpProxy(Arc<TcpProxy>),
    HttpConnectionManager(Arc<HttpConnectionManager>),
}

/// `extensions.filters.network.tcp_proxy.v3.TcpProxy`.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpProxy {
    pub stat_prefix: Name,
    pub cluster: TcpCluster,
    /// Default 1 h; `None`: off.
    pub idle_timeout: Option<Duration>,
    pub max_downstream_connection_duration: Option<Duration>,
    pub access_log: Vec<Arc<AccessLog>>,
    /// Default 1.
    pub max_connect_attempts: u32,
    /// Consistent hashing goes by the client's address (`hash_policy`).
    pub hash_source_ip: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcpCluster {
    Single(Name),
    /// Weights sum to more than zero.
    Weighted(Vec<(Name, u32)>),
}
