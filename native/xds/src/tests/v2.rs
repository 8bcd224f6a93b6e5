//! The v2 shapes of Istio 1.0's bootstrap, listeners, clusters and routes.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tidegate_model::bootstrap::StatsSink;
use tidegate_model::cluster::{Address, Discovery, UpstreamProtocol};
use tidegate_model::hcm::{HttpFilterKind, RouteSource};
use tidegate_model::listener::{NetworkFilter, TcpCluster};
use tidegate_model::route::{RouteAction, RouteConfiguration};

use crate::{Decoder, Format, Loaded, Overrides, Rejected};

fn document() -> Json {
    json!({
        "node": { "id": "sidecar~10.0.0.1~a.default~default.svc.cluster.local", "cluster": "productpage" },
        "admin": { "access_log_path": "/dev/stdout", "address": { "socket_address": { "address": "127.0.0.1", "port_value": 15000 } } },
        "dynamic_resources": {
            "lds_config": { "ads": {} },
            "cds_config": { "ads": {} },
            "ads_config": {
                "api_type": "GRPC",
                "refresh_delay": { "seconds": 1, "nanos": 0 },
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds-grpc" } }]
            }
        },
        "static_resources": {
            "clusters": [{
                "name": "xds-grpc",
                "type": "STRICT_DNS",
                "connect_timeout": { "seconds": 10, "nanos": 0 },
                "lb_policy": "ROUND_ROBIN",
                "hosts": [{ "socket_address": { "address": "istio-pilot", "port_value": 15010 } }],
                "circuit_breakers": { "thresholds": [
                    { "priority": "default", "max_connections": "100000", "max_pending_requests": "100000" },
                    { "priority": "high", "max_requests": "100000" }
                ] },
                "upstream_connection_options": { "tcp_keepalive": { "keepalive_time": 300 } },
                "http2_protocol_options": {}
            }],
            "listeners": [virtual_listener(), http_listener()]
        },
        "tracing": { "http": { "name": "envoy.zipkin", "config": { "collector_cluster": "zipkin", "collector_endpoint": "/api/v1/spans" } } },
        "stats_sinks": [{ "name": "envoy.statsd", "config": { "address": { "socket_address": { "address": "10.254.238.237", "port_value": 9125 } } } }]
    })
}

fn virtual_listener() -> Json {
    json!({
        "name": "virtual",
        "address": { "socket_address": { "address": "0.0.0.0", "port_value": 15001 } },
        "filter_chains": [{ "filters": [{
            "name": "envoy.tcp_proxy",
            "config": { "stat_prefix": "BlackHoleCluster", "cluster": "BlackHoleCluster" }
        }] }],
        "use_original_dst": true
    })
}

fn http_listener() -> Json {
    json!({
        "name": "0.0.0.0_9080",
        "address": { "socket_address": { "address": "0.0.0.0", "port_value": 9080 } },
        "filter_chains": [{ "filters": [{
            "name": "envoy.http_connection_manager",
            "config": {
                "access_log": [{ "name": "envoy.file_access_log", "config": { "path": "/dev/stdout" } }],
                "http_filters": [{ "name": "envoy.cors" }, { "name": "envoy.fault" }, { "name": "envoy.router" }],
                "tracing": { "operation_name": "EGRESS", "client_sampling": { "value": 100 } },
                "use_remote_address": false,
                "stat_prefix": "0.0.0.0_9080",
                "route_config": {
                    "name": "9080",
                    "validate_clusters": false,
                    "virtual_hosts": [{
                        "name": "details:9080",
                        "domains": ["details", "details:9080"],
                        "cors": { "allow_origin": ["*", "http://a"] },
                        "routes": [{
                            "match": { "regex": "/.*", "headers": [{ "name": "end-user", "regex_match": "j.*" }] },
                            "route": { "cluster": "outbound|9080||details", "timeout": "0s", "max_grpc_timeout": "0s", "host_rewrite": "details", "retry_policy": { "retry_on": "5xx,connect-failure", "num_retries": 2, "per_try_timeout": { "seconds": 2 }, "retry_host_predicate": [{ "name": "envoy.retry_host_predicates.previous_hosts" }], "host_selection_retry_max_attempts": "3" } },
                            "decorator": { "operation": "details:9080/*" },
                            "per_filter_config": { "envoy.fault": { "abort": { "percent": 10, "http_status": 503 } } }
                        }]
                    }]
                },
                "stream_idle_timeout": "0.000s",
                "generate_request_id": true,
                "upgrade_configs": [{ "upgrade_type": "websocket" }]
            }
        }] }],
        "deprecated_v1": { "bind_to_port": false }
    })
}

fn load(document: &Json) -> Result<Loaded, Rejected> {
    Decoder::new().bootstrap(
        document.to_string().as_bytes(),
        Format::Json,
        &Overrides::default(),
    )
}

fn routes(loaded: &Loaded) -> (usize, RouteConfiguration) {
    let NetworkFilter::HttpConnectionManager(manager) =
        &loaded.bootstrap.listeners[1].filter_chains[0].filter
    else {
        panic!("no connection manager")
    };
    let RouteSource::Inline(routes) = &manager.routes else {
        panic!("no routes")
    };
    assert!(matches!(
        manager.http_filters[0].kind,
        HttpFilterKind::Cors(_)
    ));
    assert_eq!(manager.stream_idle_timeout, None);
    (manager.http_filters.len(), (**routes).clone())
}

#[test]
fn istio_1_0s_bootstrap() {
    let loaded = load(&document()).unwrap();
    let bootstrap = &loaded.bootstrap;
    assert_eq!(
        &*bootstrap.admin.as_ref().unwrap().access_log_paths[0],
        "/dev/stdout"
    );
    let ads = bootstrap.dynamic.ads.as_ref().unwrap();
    assert_eq!(
        (&*ads.cluster_name, ads.connect_timeout),
        ("xds-grpc", Duration::from_secs(10))
    );
    assert_eq!(
        ads.targets.localities[0].endpoints[0].address,
        Address::Dns {
            host: "istio-pilot".into(),
            port: 15010
        }
    );
    let cluster = &bootstrap.clusters[0];
    assert!(
        cluster.http.protocol == UpstreamProtocol::Http2
            && matches!(cluster.discovery, Discovery::StrictDns(_))
    );
    assert_eq!(
        (
            cluster.circuit_breakers.default.max_connections,
            cluster.circuit_breakers.high.max_requests
        ),
        (100_000, 100_000)
    );
    assert!(matches!(
        &bootstrap.stats_sinks[0],
        StatsSink::Statsd { .. }
    ));
    let virtual_listener = &bootstrap.listeners[0];
    assert!(virtual_listener.use_original_dst);
    assert!(
        matches!(&virtual_listener.filter_chains[0].filter, NetworkFilter::TcpProxy(proxy) if proxy.cluster == TcpCluster::Single("BlackHoleCluster".into()))
    );
    assert!(!bootstrap.listeners[1].bind_to_port);
    let (filters, routes) = routes(&loaded);
    assert_eq!(filters, 3);
    assert!(!routes.validate_clusters);
    let host = &routes.virtual_hosts[0];
    assert_eq!(host.per_filter.cors.as_ref().unwrap().allow_origin.len(), 2);
    assert_eq!(
        host.routes[0]
            .per_filter
            .fault
            .as_ref()
            .unwrap()
            .abort
            .as_ref()
            .unwrap()
            .percentage
            .per_million,
        100_000
    );
    let RouteAction::Route(forward) = &host.routes[0].action else {
        panic!("no route")
    };
    assert_eq!(
        (forward.policy.timeout, forward.policy.max_grpc_timeout),
        (None, Some(None))
    );
}

#[test]
fn the_dump_shows_the_v3_form() {
    let loaded = load(&document()).unwrap();
    let dump = Decoder::new()
        .to_json("envoy.config.bootstrap.v3.Bootstrap", &loaded.proto)
        .unwrap();
    let filter = dump
        .pointer("/static_resources/listeners/0/filter_chains/0/filters/0")
        .unwrap();
    assert_eq!(filter["name"], "envoy.filters.network.tcp_proxy");
    assert_eq!(
        filter["typed_config"]["@type"],
        "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    );
    assert_eq!(
        dump.pointer("/static_resources/clusters/0/connect_timeout")
            .unwrap(),
        "10s"
    );
    assert_eq!(
        dump.pointer("/tracing/http/typed_config/collector_cluster")
            .unwrap(),
        "zipkin"
    );
}

#[test]
fn mixer_is_refused_by_name() {
    let mut document = document();
    let filters = document
        .pointer_mut("/static_resources/listeners/1/filter_chains/0/filters/0/config/http_filters")
        .unwrap();
    filters
        .as_array_mut()
        .unwrap()
        .insert(0, json!({ "name": "mixer", "config": {} }));
    let rejected = load(&document).unwrap_err();
    assert_eq!(
        rejected.field_path,
        "static_resources.listeners[1].filter_chains[0].filters[0].config.http_filters[0]"
    );
    assert_eq!(
        rejected.reason,
        "Didn't find a registered implementation for name: 'mixer'"
    );

    let mut document = self::document();
    let route = "/static_resources/listeners/1/filter_chains/0/filters/0/config/route_config/virtual_hosts/0/routes/0";
    document.pointer_mut(route).unwrap()["per_filter_config"]["mixer"] = json!({});
    let rejected = load(&document).unwrap_err();
    assert!(
        rejected
            .field_path
            .ends_with("routes[0].per_filter_config[\"mixer\"]"),
        "{rejected}"
    );
}

#[test]
fn tls_contexts_are_refused_by_what_they_become() {
    let mut document = document();
    document["static_resources"]["clusters"][0]["tls_context"] =
        json!({ "common_tls_context": {}, "allow_renegotiation": true });
    let rejected = load(&document).unwrap_err();
    assert_eq!(
        rejected.field_path,
        "static_resources.clusters[0].transport_socket.typed_config.allow_renegotiation"
    );
}

#[test]
fn v3_is_left_alone() {
    // Looks like v2 to a careless reader: a TLS match, metadata with a duration's shape, an extension with its type.
    let document = json!({
        "node": { "metadata": { "config": { "name": "envoy.router" }, "since": { "seconds": 1 } } },
        "static_resources": { "listeners": [{
            "metadata": { "filter_metadata": { "a": { "seconds": 1 } } },
            "filter_chains": [{ "filters": [{
                "name": "envoy.tcp_proxy",
                "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" }
            }] }],
            "routes": [{ "match": { "prefix": "/", "tls_context": { "presented": true } } }]
        }] }
    });
    assert_eq!(crate::v2::bootstrap(document.clone()).unwrap(), document);
}
