//! A TCP proxy out of the data plane alone, for measuring: `tcp LISTEN UPSTREAM [WORKERS]`, until standard input ends.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_dataplane::{DataplaneConfig, LogSink, spawn_workers};
use tidegate_model::Name;
use tidegate_model::cluster::{
    Address, CircuitBreakers, Cluster, ClusterLoadAssignment, Discovery, HealthStatus, LbEndpoint,
    LbPolicy, Locality, LocalityLbEndpoints, Thresholds, UpstreamHttpOptions,
};
use tidegate_model::listener::{
    FilterChain, FilterChainMatch, Listener, NetworkFilter, TcpCluster, TcpProxy, TrafficDirection,
};
use tidegate_model::tls::DownstreamTransport;
use tidegate_snapshot::SnapshotBuilder;
use tidegate_stats::Registry;

struct NoLog;

impl LogSink for NoLog {
    fn write(&self, _: &Name, _: Vec<u8>) {}
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || {
        arguments
            .next()
            .ok_or("usage: tcp LISTEN UPSTREAM [WORKERS]")
    };
    let (listen, upstream): (SocketAddr, SocketAddr) = (next()?.parse()?, next()?.parse()?);
    let workers = next().map_or(Ok(1), |workers| workers.parse())?;
    let config = DataplaneConfig {
        workers,
        ..DataplaneConfig::default()
    };
    let mut handle = spawn_workers(config, Registry::new(workers), Arc::new(NoLog))?;
    let mut builder = SnapshotBuilder::default();
    builder.set_cluster(Arc::new(cluster(upstream)))?;
    builder.set_listener(Arc::new(listener(listen)))?;
    if let Some(error) = handle.publish(builder.build()).into_iter().next() {
        return Err(error.into());
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    handle.shutdown();
    Ok(())
}

fn cluster(upstream: SocketAddr) -> Cluster {
    Cluster {
        name: "upstream".into(),
        alt_stat_name: "upstream".into(),
        discovery: Discovery::Static(Arc::new(ClusterLoadAssignment {
            cluster_name: "upstream".into(),
            localities: vec![LocalityLbEndpoints {
                locality: Locality::default(),
                endpoints: vec![LbEndpoint {
                    address: Address::Socket(upstream),
                    hostname: "".into(),
                    health: HealthStatus::Unknown,
                    load_balancing_weight: 1,
                    transport_socket_match: Vec::new(),
                    workload: None,
                    lb_metadata: None,
                }],
                load_balancing_weight: None,
                priority: 0,
            }],
            overprovisioning_factor: 140,
            weighted_priority_health: false,
            drop_overloads: Vec::new(),
        })),
        connect_timeout: Duration::from_secs(5),
        per_connection_buffer_limit_bytes: 1 << 20,
        lb_policy: LbPolicy::RoundRobin,
        circuit_breakers: CircuitBreakers {
            default: Thresholds {
                max_connections: u32::MAX,
                max_pending_requests: u32::MAX,
                max_requests: u32::MAX,
                ..Thresholds::default()
            },
            high: Thresholds::default(),
        },
        http: UpstreamHttpOptions::default(),
        ..Cluster::default()
    }
}

fn listener(address: SocketAddr) -> Listener {
    Listener {
        name: "tcp".into(),
        address,
        additional_addresses: Vec::new(),
        stat_prefix: "tcp".into(),
        bind_to_port: true,
        use_original_dst: false,
        listener_filters: Vec::new(),
        filter_chains: vec![FilterChain {
            name: "".into(),
            matches: FilterChainMatch::default(),
            read_filters: Vec::new(),
            filter: NetworkFilter::TcpProxy(Arc::new(TcpProxy {
                stat_prefix: "tcp".into(),
                cluster: TcpCluster::Single("upstream".into()),
                idle_timeout: Some(Duration::from_hours(1)),
                max_downstream_connection_duration: None,
                access_log: Vec::new(),
                max_connect_attempts: 1,
                hash_source_ip: false,
            })),
            transport_socket: DownstreamTransport::default(),
            transport_socket_connect_timeout: None,
        }],
        default_filter_chain: None,
        per_connection_buffer_limit_bytes: 1 << 20,
        listener_filters_timeout: None,
        continue_on_listener_filters_timeout: false,
        traffic_direction: TrafficDirection::Unspecified,
        reuse_port: true,
        exact_balance: false,
        tcp_backlog_size: 1024,
        max_accepts_per_event: None,
        freebind: false,
        transparent: false,
        access_log: Vec::new(),
        drain_type_modify_only: false,
        max_connections: None,
        ignore_global_conn_limit: false,
    }
}
