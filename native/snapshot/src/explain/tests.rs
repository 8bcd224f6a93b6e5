use tidegate_model::listener::Listener;

use super::*;
use crate::SnapshotBuilder;

/// A little Istio: a virtual listener, an outbound one for port 9080, and a service with two versions.
fn snapshot() -> Arc<Snapshot> {
    let decoder = tidegate_xds::Decoder::new();
    let tcp = |cluster: &str| {
        serde_json::json!([{"name": "tcp", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": cluster, "cluster": cluster}}])
    };
    let http = serde_json::json!([{"name": "http", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "h", "rds": {"route_config_name": "9080", "config_source": {"ads": {}, "resource_api_version": "V3"}},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]);
    let address = |ip: &str, port: u16| serde_json::json!({"socket_address": {"address": ip, "port_value": port}});
    let listeners = [
        serde_json::json!({"name": "virtual", "address": address("0.0.0.0", 15001), "use_original_dst": true,
            "filter_chains": [{"name": "BlackHole", "filters": tcp("BlackHoleCluster")}]}),
        serde_json::json!({"name": "0.0.0.0_9080", "address": address("0.0.0.0", 9080), "bind_to_port": false,
            "filter_chains": [
                {"name": "db", "filter_chain_match": {"prefix_ranges": [{"address_prefix": "10.9.0.0", "prefix_len": 16}]},
                 "filters": tcp("db")},
                {"name": "http", "filters": http}]}),
    ];
    let routes = serde_json::json!({"name": "9080", "virtual_hosts": [{"name": "reviews", "domains": ["reviews", "*.local"],
        "routes": [
            {"name": "jason", "match": {"prefix": "/", "headers": [{"name": "end-user", "string_match": {"exact": "jason"}}]},
             "route": {"cluster": "v2"}},
            {"name": "old", "match": {"prefix": "/old"}, "redirect": {"path_redirect": "/new"}},
            {"name": "rest", "match": {"prefix": "/"}, "route": {"prefix_rewrite": "/api/", "weighted_clusters":
                {"clusters": [{"name": "v1", "weight": 50}, {"name": "v3", "weight": 50}]}}}]}]});
    let cluster = serde_json::json!({"name": "v1", "type": "STATIC", "load_assignment": {"cluster_name": "v1", "endpoints":
        [{"lb_endpoints": [{"endpoint": {"address": address("10.1.0.1", 9080)}}]}]}});
    let mut builder = SnapshotBuilder::default();
    for listener in &listeners {
        let bytes = decoder
            .from_json("envoy.config.listener.v3.Listener", listener)
            .unwrap();
        let decoded: Listener = decoder.listener(&bytes).unwrap();
        builder.set_listener(Arc::new(decoded)).unwrap();
    }
    let bytes = decoder
        .from_json("envoy.config.route.v3.RouteConfiguration", &routes)
        .unwrap();
    let decoded = decoder.route_configuration(&bytes).unwrap();
    builder.set_route_configuration(Arc::new(decoded)).unwrap();
    let bytes = decoder
        .from_json("envoy.config.cluster.v3.Cluster", &cluster)
        .unwrap();
    builder
        .set_cluster(Arc::new(decoder.cluster(&bytes).unwrap()))
        .unwrap();
    builder.build()
}

fn told(destination: &str, request: Option<&PlainRequest>, random: u64) -> String {
    let call = Call {
        listener: "virtual",
        destination: destination.parse().unwrap(),
        source: "10.0.0.5:4000".parse().unwrap(),
        request,
        random,
    };
    explain(&snapshot(), &call).to_string()
}

#[test]
fn the_way_of_a_request_is_told_with_the_reasons() {
    let request = PlainRequest::get("reviews", "/reviews/0");
    assert_eq!(
        told("10.2.0.1:9080", Some(&request), 3),
        "listener 0.0.0.0_9080 has the port of the original destination\n\
         filter chain 1 \"http\"\n    not chain 0 \"db\": 10.2.0.1 is not in its prefix_ranges\n\
         virtual host reviews of 9080 by domain reviews\n\
         route 2 \"rest\"\n    not route 0 \"jason\": header end-user does not match\n    \
         not route 1 \"old\": the path is not prefix /old\n\
         one of the weighted clusters v1, v3\npath becomes /api/reviews/0\n\
         cluster v1\n    endpoint 10.1.0.1:9080 Unknown weight 1 priority 0\n"
    );
}

#[test]
fn ends_are_told() {
    let jason = PlainRequest::get("reviews.local", "/").with_header("end-user", "jason");
    assert!(
        told("10.2.0.1:9080", Some(&jason), 0).ends_with(
            "by domain *.local\nroute 0 \"jason\"\nend: there is no cluster v2: 503 NC\n"
        )
    );
    let old = PlainRequest::get("reviews", "/old?a=b");
    assert!(
        told("10.2.0.1:9080", Some(&old), 0).ends_with("redirect 301 to http://reviews/new?a=b\n")
    );
    let unknown = PlainRequest::get("nobody", "/");
    assert!(
        told("10.2.0.1:9080", Some(&unknown), 0)
            .ends_with("end: no virtual host has this domain: 404 NR\n")
    );
    assert_eq!(
        told("10.2.0.1:81", None, 0),
        "listener virtual keeps it: no listener has the original destination\nfilter chain 0 \"BlackHole\"\n\
         end: there is no cluster BlackHoleCluster: the connection is closed, NC\n"
    );
    assert!(told("10.9.0.1:9080", None, 0).contains(
        "filter chain 0 \"db\"\n    not chain 1 \"http\": another chain is more specific\n"
    ));
}
