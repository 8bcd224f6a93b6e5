//! An HTTP/1 proxy out of the data plane alone, for measuring: `h1 LISTEN UPSTREAM [WORKERS [LOG]]`, until standard
//! input ends. Everything is routed to one upstream; `LOG` is where Envoy's default access log goes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_dataplane::{DataplaneConfig, LogSink, spawn_workers};
use tidegate_model::access_log::{AccessLog, LogFormat};
use tidegate_model::cluster::{
    Address, CircuitBreakers, Cluster, ClusterLoadAssignment, Discovery, HealthStatus, LbEndpoint,
    LbPolicy, Locality, LocalityLbEndpoints, Thresholds, UpstreamHttpOptions,
};
use tidegate_model::hcm::{
    CodecType, ForwardClientCertDetails, HeadersWithUnderscoresAction, Http1Options,
    HttpConnectionManager, HttpFilter, HttpFilterKind, InternalAddressConfig,
    PathWithEscapedSlashesAction, RouteSource, Router, ServerHeaderTransformation,
};
use tidegate_model::http2::Http2Options;
use tidegate_model::listener::{
    FilterChain, FilterChainMatch, Listener, NetworkFilter, TrafficDirection,
};
use tidegate_model::route::{
    ClusterSpecifier, Forward, ForwardPolicy, HostRewrite, PathSpecifier, PerFilterConfig,
    RequireTls, Route, RouteAction, RouteConfiguration, RouteMatch, RoutingPriority, VirtualHost,
};
use tidegate_model::tls::DownstreamTransport;
use tidegate_model::{HeaderMutations, Name};
use tidegate_snapshot::SnapshotBuilder;
use tidegate_stats::Registry;

/// Writes in the thread of the worker: good enough to see lines, not to measure them.
struct Files(Mutex<BTreeMap<Name, File>>);

impl LogSink for Files {
    fn write(&self, path: &Name, lines: Vec<u8>) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !files.contains_key(path)
            && let Ok(file) = File::options().append(true).create(true).open(&**path)
        {
            files.insert(Name::clone(path), file);
        }
        if let Some(file) = files.get_mut(path) {
            let _ = file.write_all(&lines);
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || {
        arguments
            .next()
            .ok_or("usage: h1 LISTEN UPSTREAM [WORKERS [LOG]]")
    };
    let (listen, upstream): (SocketAddr, SocketAddr) = (next()?.parse()?, next()?.parse()?);
    let workers = next().map_or(Ok(1), |workers| workers.parse())?;
    let log = next().ok();
    let config = DataplaneConfig {
        workers,
        ..DataplaneConfig::default()
    };
    let sink = Arc::new(Files(Mutex::new(BTreeMap::new())));
    let mut handle = spawn_workers(config, Registry::new(workers), sink)?;
    let mut builder = SnapshotBuilder::default();
    builder.set_cluster(Arc::new(cluster(upstream)))?;
    builder.set_listener(Arc::new(listener(listen, log.as_deref())))?;
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
            default: Thresholds::default(),
            high: Thresholds::default(),
        },
        http: UpstreamHttpOptions::default(),
        ..Cluster::default()
    }
}

fn listener(address: SocketAddr, log: Option<&str>) -> Listener {
    Listener {
        name: "listener".into(),
        address,
        additional_addresses: Vec::new(),
        stat_prefix: address.to_string().replace(':', "_").into(),
        bind_to_port: true,
        use_original_dst: false,
        listener_filters: Vec::new(),
        filter_chains: vec![FilterChain {
            name: "".into(),
            matches: FilterChainMatch::default(),
            read_filters: Vec::new(),
            filter: NetworkFilter::HttpConnectionManager(Arc::new(manager(log))),
            transport_socket: DownstreamTransport::default(),
            transport_socket_connect_timeout: None,
        }],
        default_filter_chain: None,
        per_connection_buffer_limit_bytes: 1 << 20,
        listener_filters_timeout: Some(Duration::from_secs(15)),
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

fn manager(log: Option<&str>) -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: "ingress".into(),
        codec_type: CodecType::Auto,
        routes: RouteSource::Inline(Arc::new(routes())),
        http_filters: vec![HttpFilter {
            name: "envoy.filters.http.router".into(),
            disabled: false,
            discovery: None,
            kind: HttpFilterKind::Router(Router {
                dynamic_stats: true,
                suppress_envoy_headers: false,
                respect_expected_rq_timeout: false,
                upstream_log: Vec::new(),
            }),
        }],
        server_name: "envoy".into(),
        server_header_transformation: ServerHeaderTransformation::Overwrite,
        scheme_to_overwrite: None,
        max_request_headers_bytes: 60 * 1024,
        max_headers_count: 100,
        idle_timeout: Some(Duration::from_hours(1)),
        max_connection_duration: None,
        tracing: None,
        max_stream_duration: None,
        max_requests_per_connection: None,
        headers_with_underscores_action: HeadersWithUnderscoresAction::Allow,
        stream_idle_timeout: Some(Duration::from_mins(5)),
        request_timeout: None,
        request_headers_timeout: None,
        drain_timeout: Duration::from_secs(5),
        delayed_close_timeout: Some(Duration::from_secs(1)),
        access_log: log
            .map(|path| {
                Arc::new(AccessLog {
                    path: path.into(),
                    format: LogFormat::Default,
                    filter: None,
                })
            })
            .into_iter()
            .collect(),
        use_remote_address: false,
        xff_num_trusted_hops: 0,
        skip_xff_append: false,
        internal_address_config: InternalAddressConfig::default(),
        via: None,
        generate_request_id: true,
        preserve_external_request_id: false,
        always_set_request_id_in_response: false,
        forward_client_cert_details: ForwardClientCertDetails::Sanitize,
        set_current_client_cert_details: tidegate_model::hcm::ClientCertDetails::default(),
        proxy_100_continue: false,
        upgrade_configs: Vec::new(),
        normalize_path: false,
        merge_slashes: false,
        path_with_escaped_slashes_action: PathWithEscapedSlashesAction::KeepUnchanged,
        strip_any_host_port: false,
        strip_matching_host_port: false,
        strip_trailing_host_dot: false,
        suppress_envoy_headers: false,
        stream_error_on_invalid_http_message: false,
        append_x_forwarded_port: false,
        http1: Http1Options {
            allow_absolute_url: true,
            ..Http1Options::default()
        },
        http2: Http2Options::default(),
    }
}

fn routes() -> RouteConfiguration {
    let forward = Forward {
        cluster: ClusterSpecifier::Cluster("upstream".into()),
        prefix_rewrite: None,
        regex_rewrite: None,
        host_rewrite: HostRewrite::None,
        policy: ForwardPolicy {
            cluster_not_found_status: 503,
            append_x_forwarded_host: false,
            timeout: Some(Duration::from_secs(15)),
            idle_timeout: None,
            max_stream_duration: None,
            max_grpc_timeout: None,
            priority: RoutingPriority::Default,
            upgrade_configs: Vec::new(),
        },
        retry_policy: None,
        hash_policy: Vec::new(),
        mirrors: Arc::default(),
    };
    RouteConfiguration {
        name: "routes".into(),
        virtual_hosts: vec![Arc::new(VirtualHost {
            name: "all".into(),
            domains: vec!["*".into()],
            routes: vec![Arc::new(Route {
                name: "".into(),
                matches: RouteMatch {
                    path: PathSpecifier::Prefix("/".into()),
                    case_sensitive: true,
                    headers: Vec::new(),
                    query_parameters: Vec::new(),
                    runtime_fraction: None,
                    grpc: false,
                },
                action: RouteAction::Route(Box::new(forward)),
                headers: HeaderMutations::default(),
                per_filter: PerFilterConfig::default(),
                body_buffer_limit: None,
                decorator: None,
                tracing: None,
            })],
            require_tls: RequireTls::None,
            headers: HeaderMutations::default(),
            include_request_attempt_count: false,
            include_attempt_count_in_response: false,
            include_is_timeout_retry_header: false,
            retry_policy: None,
            body_buffer_limit: None,
            per_filter: PerFilterConfig::default(),
        })],
        headers: HeaderMutations::default(),
        validate_clusters: true,
        most_specific_header_mutations_wins: false,
        ignore_port_in_host_matching: false,
        ignore_path_parameters_in_path_matching: false,
        max_direct_response_body_size_bytes: 4096,
        internal_only_headers: Vec::new(),
        per_filter: PerFilterConfig::default(),
    }
}
