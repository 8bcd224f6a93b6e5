//! Refused clusters and endpoints.

use serde_json::{Value as Json, json};

use super::{cluster_refused, refused};
use crate::tests::{ASSIGNMENT, PREFIX, assignment};

#[test]
fn clusters() {
    cluster_refused(
        &[("/name", json!(""))],
        "name",
        "value length must be at least 1 characters",
    );
    cluster_refused(
        &[("/connect_timeout", json!("0s"))],
        "connect_timeout",
        "value must be greater than 0s",
    );
    cluster_refused(
        &[
            ("/lb_policy", json!("RING_HASH")),
            (
                "/ring_hash_lb_config",
                json!({ "minimum_ring_size": 10, "maximum_ring_size": 9 }),
            ),
        ],
        "ring_hash_lb_config.minimum_ring_size",
        "ring hash: minimum_ring_size (10) > maximum_ring_size (9)",
    );
    cluster_refused(
        &[
            ("/lb_policy", json!("MAGLEV")),
            ("/maglev_lb_config", json!({ "table_size": 65536 })),
        ],
        "maglev_lb_config.table_size",
        "The table size of maglev must be prime number",
    );
    cluster_refused(
        &[
            ("/lb_policy", json!("MAGLEV")),
            (
                "/common_lb_config",
                json!({ "consistent_hashing_lb_config": { "use_hostname_for_hashing": true } }),
            ),
        ],
        "common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing",
        "Cannot use hostname for consistent hashing loadbalancing for cluster of type: 'envoy.cluster.static'",
    );
    cluster_refused(
        &[(
            "/load_balancing_policy",
            json!({ "policies": [{ "typed_extension_config": {
                "name": "s",
                "typed_config": { "@type": format!("{PREFIX}envoy.extensions.load_balancing_policies.subset.v3.Subset") }
            } }] }),
        )],
        "load_balancing_policy.policies[0].typed_extension_config.typed_config",
        "Subset is not supported here",
    );
    cluster_refused(
        &[(
            "/outlier_detection",
            json!({ "base_ejection_time": "30s", "max_ejection_time": "20s" }),
        )],
        "outlier_detection.max_ejection_time",
        "outlier detector's max_ejection_time cannot be smaller than base_ejection_time",
    );
    cluster_refused(
        &[(
            "/outlier_detection",
            json!({ "monitors": [{ "name": "m" }] }),
        )],
        "outlier_detection.monitors[0].typed_config",
        "value is required",
    );
    cluster_refused(
        &[("/lb_policy", json!("CLUSTER_PROVIDED"))],
        "lb_policy",
        "cluster provided LB specified but cluster 'backend'",
    );
    cluster_refused(
        &[
            ("/type", json!("ORIGINAL_DST")),
            ("/load_assignment", Json::Null),
        ],
        "lb_policy",
        "LB policy ROUND_ROBIN is not valid for Cluster type ORIGINAL_DST",
    );
    cluster_refused(
        &[
            ("/type", json!("ORIGINAL_DST")),
            ("/lb_policy", json!("CLUSTER_PROVIDED")),
        ],
        "load_assignment",
        "ORIGINAL_DST clusters must have no load assignment configured",
    );
    cluster_refused(
        &[
            ("/type", json!("ORIGINAL_DST")),
            ("/lb_policy", json!("CLUSTER_PROVIDED")),
            ("/load_assignment", Json::Null),
            (
                "/original_dst_lb_config",
                json!({ "metadata_key": {
                    "key": "envoy.filters.network.rbac",
                    "path": [{ "key": "shadow_effective_policy_id" }]
                } }),
            ),
        ],
        "original_dst_lb_config.metadata_key.key",
        "metadata of connections is not supported",
    );
    cluster_refused(
        &[("/type", json!("EDS")), ("/load_assignment", Json::Null)],
        "eds_cluster_config",
        "without an EDS config",
    );
    cluster_refused(
        &[
            ("/type", json!("LOGICAL_DNS")),
            ("/load_assignment", Json::Null),
        ],
        "load_assignment",
        "LOGICAL_DNS clusters must have a single host",
    );
    cluster_refused(
        &[
            ("/http_protocol_options", json!({})),
            ("/http2_protocol_options", json!({})),
        ],
        "http2_protocol_options",
        "Both HTTP1 and HTTP2 options may only be configured",
    );
    cluster_refused(
        &[("/dns_refresh_rate", json!("0.0005s"))],
        "dns_refresh_rate",
        "value must be greater than 1ms",
    );
    for (field, value) in [
        (
            "health_checks",
            json!([{
                "timeout": "1s", "interval": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1, "tcp_health_check": {}
            }]),
        ),
        ("lb_subset_config", json!({})),
    ] {
        cluster_refused(&[(&format!("/{field}"), value)], field, "is not supported");
    }
    cluster_refused(
        &[(
            "/transport_socket",
            json!({
                "name": "tls",
                "typed_config": { "@type": format!("{PREFIX}envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext") }
            }),
        )],
        "transport_socket.typed_config",
        "DownstreamTlsContext is not supported here",
    );
    cluster_refused(
        &[(
            "/circuit_breakers",
            json!({ "thresholds": [{ "retry_budget": { "budget_percent": { "value": 101 } } }] }),
        )],
        "circuit_breakers.thresholds[0].retry_budget.budget_percent.value",
        "[0, 100]",
    );
}

#[test]
fn endpoints() {
    let refused = |changes: &[(&str, Json)], path: &str, reason: &str| {
        refused(ASSIGNMENT, assignment(), changes, path, reason);
    };
    let endpoint = "/endpoints/0/lb_endpoints/0";
    refused(
        &[("/cluster_name", json!(""))],
        "cluster_name",
        "at least 1 characters",
    );
    refused(
        &[(
            &format!("{endpoint}/endpoint/address/socket_address/address"),
            json!("backend"),
        )],
        "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address",
        "malformed IP address: backend. Consider setting resolver_name",
    );
    refused(
        &[(&format!("{endpoint}/load_balancing_weight"), json!(0))],
        "endpoints[0].lb_endpoints[0].load_balancing_weight",
        "value must be greater than or equal to 1",
    );
    refused(
        &[("/endpoints/0/priority", json!(200))],
        "endpoints[0].priority",
        "value must be less than or equal to 128",
    );
    refused(
        &[(&format!("{endpoint}/endpoint"), Json::Null)],
        "endpoints[0].lb_endpoints[0].endpoint",
        "value is required",
    );
    refused(
        &[("/named_endpoints", json!({ "a": {} }))],
        "named_endpoints",
        "is not supported",
    );
}

/// `HttpProtocolOptions`, refused at `path` below it.
#[track_caller]
fn protocol_refused(options: Json, path: &str, reason: &str) {
    const NAME: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let mut typed = options;
    typed["@type"] = json!(format!("{PREFIX}{NAME}"));
    let mut extensions = json!({});
    extensions[NAME] = typed;
    let dot = if path.is_empty() { "" } else { "." };
    cluster_refused(
        &[("/typed_extension_protocol_options", extensions)],
        &format!("typed_extension_protocol_options[\"{NAME}\"]{dot}{path}"),
        reason,
    );
}

#[test]
fn upstream_protocols() {
    protocol_refused(json!({}), "upstream_protocol_options", "value is required");
    protocol_refused(
        json!({ "explicit_http_config": {} }),
        "explicit_http_config.protocol_config",
        "value is required",
    );
    protocol_refused(
        json!({ "auto_config": {} }),
        "auto_config",
        "ALPN configured for cluster which has a non-ALPN transport socket",
    );
    for config in ["explicit_http_config", "use_downstream_protocol_config"] {
        let mut options = json!({});
        options[config] = json!({ "http3_protocol_options": {} });
        protocol_refused(
            options,
            &format!("{config}.http3_protocol_options"),
            "HTTP3 requires a QuicUpstreamTransport",
        );
    }
    protocol_refused(
        json!({ "explicit_http_config": { "http2_protocol_options": { "initial_stream_window_size": 65534 } } }),
        "explicit_http_config.http2_protocol_options.initial_stream_window_size",
        "value must be inside range [65535, 2147483647]",
    );
    protocol_refused(
        json!({
            "common_http_protocol_options": { "max_response_headers_kb": 100 },
            "explicit_http_config": { "http2_protocol_options": { "max_header_field_size_kb": 101 } }
        }),
        "explicit_http_config.http2_protocol_options.max_header_field_size_kb",
        "must not exceed max_response_headers_kb",
    );
}
