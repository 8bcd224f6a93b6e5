//! Refusals: each has the whole path and a reason, in Envoy's words where Envoy has them.

use serde_json::{Value as Json, json};

use super::{
    ASSIGNMENT, CLUSTER, LISTENER, PREFIX, ROUTES, assignment, cluster, listener, outcome,
    route_configuration, router, tcp_listener, with,
};
use crate::{Decoder, decode_cluster, decode_listener};

const CHAIN: &str = "filter_chains[0]";
const MANAGER: &str = "filter_chains[0].filters[0].typed_config";
const IN_MANAGER: &str = "/filter_chains/0/filters/0/typed_config";
const ROUTE: &str = "virtual_hosts[0].routes[0]";
const IN_ROUTE: &str = "/virtual_hosts/0/routes/0";

#[track_caller]
fn refused(message_name: &str, base: Json, changes: &[(&str, Json)], path: &str, reason: &str) {
    let rejected = outcome(message_name, &with(base, changes)).expect_err("accepted");
    assert_eq!(rejected.field_path, path, "{rejected}");
    assert!(
        rejected.reason.contains(reason),
        "{:?} does not say {reason:?}",
        rejected.reason
    );
}

#[track_caller]
fn listener_refused(changes: &[(&str, Json)], path: &str, reason: &str) {
    refused(LISTENER, listener(), changes, path, reason);
}

#[track_caller]
fn manager_refused(field: &str, value: Json, path: &str, reason: &str) {
    listener_refused(
        &[(&format!("{IN_MANAGER}/{field}"), value)],
        &format!("{MANAGER}.{path}"),
        reason,
    );
}

#[track_caller]
fn cluster_refused(changes: &[(&str, Json)], path: &str, reason: &str) {
    refused(CLUSTER, cluster(), changes, path, reason);
}

#[track_caller]
fn route_refused(field: &str, value: Json, path: &str, reason: &str) {
    refused(
        ROUTES,
        route_configuration(),
        &[(&format!("{IN_ROUTE}/{field}"), value)],
        &format!("{ROUTE}.{path}"),
        reason,
    );
}

#[test]
fn bytes_that_are_no_message() {
    let rejected = decode_listener(b"\xff\xff\xff").unwrap_err();
    assert_eq!(
        (rejected.name.as_str(), rejected.field_path.as_str()),
        ("", "")
    );
    assert!(
        rejected
            .reason
            .starts_with("Unable to parse as envoy.config.listener.v3.Listener"),
        "{rejected}"
    );
}

#[test]
fn a_field_that_the_descriptors_lack() {
    let mut bytes = super::encode(CLUSTER, &cluster());
    // Field 4000, a varint: not in any version of the API that we know.
    bytes.extend_from_slice(&[0x80, 0xfa, 0x01, 0x01]);
    let rejected = decode_cluster(&bytes).unwrap_err();
    assert_eq!(rejected.name, "backend");
    assert_eq!(
        rejected.reason,
        "unknown field 4000 of envoy.config.cluster.v3.Cluster"
    );
}

#[test]
fn a_resource_of_another_type() {
    let decoder = Decoder::new();
    let bytes = super::encode(CLUSTER, &cluster());
    let rejected = decoder
        .unwrap_any(crate::type_url::LISTENER, crate::type_url::CLUSTER, &bytes)
        .unwrap_err();
    assert!(
        rejected.reason.contains(crate::type_url::CLUSTER),
        "{rejected}"
    );
    assert!(
        decoder
            .unwrap_any(crate::type_url::CLUSTER, crate::type_url::CLUSTER, &bytes)
            .is_ok()
    );
}

#[test]
fn a_rejection_names_its_resource_and_reads_as_a_line() {
    let bytes = super::encode(
        CLUSTER,
        &with(cluster(), &[("/outlier_detection", json!({}))]),
    );
    let rejected = decode_cluster(&bytes).unwrap_err();
    assert_eq!(
        rejected.to_string(),
        "backend: outlier_detection: is not supported"
    );
}

#[test]
fn listeners() {
    listener_refused(
        &[("/address", Json::Null)],
        "address",
        "address is necessary",
    );
    listener_refused(
        &[("/address/socket_address/address", json!("example.com"))],
        "address.socket_address.address",
        "malformed IP address: example.com",
    );
    listener_refused(
        &[("/address/socket_address/port_value", json!(70000))],
        "address.socket_address.port_value",
        "value must be less than or equal to 65535",
    );
    listener_refused(
        &[("/address/socket_address/port_value", Json::Null)],
        "address.socket_address.port_specifier",
        "value is required",
    );
    listener_refused(
        &[("/address/socket_address/protocol", json!("UDP"))],
        "address.socket_address.protocol",
        "UDP is not supported",
    );
    listener_refused(
        &[("/address", json!({ "pipe": { "path": "/x" } }))],
        "address.socket_address",
        "value is required",
    );
    listener_refused(
        &[("/filter_chains", json!([]))],
        "filter_chains",
        "no filter chains specified",
    );
    listener_refused(
        &[("/api_listener", json!({}))],
        "api_listener",
        "is not supported",
    );
    listener_refused(
        &[("/udp_listener_config", json!({}))],
        "udp_listener_config",
        "is not supported",
    );
    listener_refused(
        &[(
            "/socket_options",
            json!([{ "level": 1, "name": 2, "int_value": 3 }]),
        )],
        "socket_options",
        "is not supported",
    );
    listener_refused(
        &[("/enable_mptcp", json!(true))],
        "enable_mptcp",
        "true is not supported",
    );
    listener_refused(
        &[(
            "/listener_filters",
            json!([{
                "name": "envoy.filters.listener.tls_inspector",
                "typed_config": { "@type": format!("{PREFIX}envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector") }
            }]),
        )],
        "listener_filters[0].typed_config",
        "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector is not supported here",
    );
}

#[test]
fn filter_chains() {
    listener_refused(
        &[("/filter_chains/0/filters", json!([]))],
        &format!("{CHAIN}.filters"),
        "terminal filter",
    );
    let tcp = tcp_listener()
        .pointer("/filter_chains/0/filters/0")
        .unwrap()
        .clone();
    listener_refused(
        &[("/filter_chains/0/filters/1", tcp.clone())],
        &format!("{CHAIN}.filters[0]"),
        "must be the last filter in a network filter chain",
    );
    listener_refused(
        &[("/filter_chains/1", json!({ "filters": [tcp.clone()] }))],
        "filter_chains[1].filter_chain_match",
        "has the same matching rules defined as",
    );
    listener_refused(
        &[("/filter_chains/0/filters/0/typed_config", Json::Null)],
        &format!("{CHAIN}.filters[0].typed_config"),
        "Didn't find a registered implementation for 'envoy.filters.network.http_connection_manager' with type URL: ''",
    );
    listener_refused(
        &[(
            "/filter_chains/0/transport_socket",
            json!({
                "name": "tls",
                "typed_config": { "@type": format!("{PREFIX}envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext") }
            }),
        )],
        &format!("{CHAIN}.transport_socket.typed_config"),
        "DownstreamTlsContext is not supported here",
    );
    for (field, value) in [
        ("server_names", json!(["a"])),
        ("application_protocols", json!(["h2"])),
    ] {
        listener_refused(
            &[(
                "/filter_chains/0/filter_chain_match",
                json!({ field: value }),
            )],
            &format!("{CHAIN}.filter_chain_match.{field}"),
            "inspector",
        );
    }
    listener_refused(
        &[(
            "/filter_chains/0/filter_chain_match",
            json!({ "prefix_ranges": [{ "address_prefix": "10.0" }] }),
        )],
        &format!("{CHAIN}.filter_chain_match.prefix_ranges[0].address_prefix"),
        "malformed IP address: 10.0",
    );
    listener_refused(
        &[(
            "/filter_chains/0/filter_chain_match",
            json!({ "destination_port": 0 }),
        )],
        &format!("{CHAIN}.filter_chain_match.destination_port"),
        "value must be inside range [1, 65535]",
    );
}

#[test]
fn tcp_proxies() {
    let refused = |changes: &[(&str, Json)], path: &str, reason: &str| {
        refused(
            LISTENER,
            tcp_listener(),
            changes,
            &format!("{MANAGER}.{path}"),
            reason,
        );
    };
    let field = |name: &str| format!("{IN_MANAGER}/{name}");
    refused(
        &[(&field("cluster"), Json::Null)],
        "cluster_specifier",
        "value is required",
    );
    refused(
        &[(&field("stat_prefix"), json!(""))],
        "stat_prefix",
        "value length must be at least 1 characters",
    );
    refused(
        &[(&field("max_connect_attempts"), json!(0))],
        "max_connect_attempts",
        "greater than or equal to 1",
    );
    refused(
        &[(&field("hash_policy"), json!([{ "source_ip": {} }]))],
        "hash_policy",
        "is not supported",
    );
    refused(
        &[(&field("idle_timeout"), json!("-1s"))],
        "idle_timeout",
        "Expected positive duration",
    );
    refused(
        &[
            (&field("cluster"), Json::Null),
            (
                &field("weighted_clusters"),
                json!({ "clusters": [{ "name": "a", "weight": 0 }] }),
            ),
        ],
        "weighted_clusters.clusters[0].weight",
        "value must be greater than or equal to 1",
    );
    refused(
        &[(&field("tunneling_config"), json!({ "hostname": "a" }))],
        "tunneling_config",
        "is not supported",
    );
}

#[test]
fn connection_managers() {
    manager_refused(
        "stat_prefix",
        json!(""),
        "stat_prefix",
        "value length must be at least 1 characters",
    );
    manager_refused(
        "route_config",
        Json::Null,
        "route_specifier",
        "value is required",
    );
    manager_refused(
        "codec_type",
        json!("HTTP2"),
        "codec_type",
        "HTTP2 is not supported",
    );
    manager_refused(
        "http2_protocol_options",
        json!({}),
        "http2_protocol_options",
        "is not supported",
    );
    manager_refused(
        "local_reply_config",
        json!({}),
        "local_reply_config",
        "is not supported",
    );
    manager_refused(
        "max_request_headers_kb",
        json!(0),
        "max_request_headers_kb",
        "value must be inside range (0, 8192]",
    );
    manager_refused(
        "upgrade_configs",
        json!([{ "upgrade_type": "websocket" }, { "upgrade_type": "WebSocket" }]),
        "upgrade_configs[1]",
        "multiple upgrade configs with the same name",
    );
    manager_refused(
        "upgrade_configs",
        json!([{ "upgrade_type": "CONNECT" }]),
        "upgrade_configs[0].upgrade_type",
        "CONNECT is not supported",
    );
    manager_refused(
        "scheme_header_transformation",
        json!({ "scheme_to_overwrite": "ftp" }),
        "scheme_header_transformation.scheme_to_overwrite",
        "value must be in list [http, https]",
    );
    manager_refused(
        "request_id_extension",
        json!({ "typed_config": {
            "@type": format!("{PREFIX}envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"), "pack_trace_reason": false
        } }),
        "request_id_extension.typed_config.pack_trace_reason",
        "false is not supported",
    );
    listener_refused(
        &[
            (&format!("{IN_MANAGER}/route_config"), Json::Null),
            (
                &format!("{IN_MANAGER}/rds"),
                json!({
                    "route_config_name": "a", "config_source": { "path_config_source": { "path": "/x" } }
                }),
            ),
        ],
        &format!("{MANAGER}.rds.config_source"),
        "only ads is supported for routes",
    );
    listener_refused(
        &[
            (&format!("{IN_MANAGER}/strip_any_host_port"), json!(true)),
            (
                &format!("{IN_MANAGER}/strip_matching_host_port"),
                json!(true),
            ),
        ],
        &format!("{MANAGER}.strip_matching_host_port"),
        "Only one of",
    );
}

#[test]
fn http_filters() {
    let cors = json!({
        "name": "envoy.filters.http.cors",
        "typed_config": { "@type": format!("{PREFIX}envoy.extensions.filters.http.cors.v3.Cors") }
    });
    manager_refused(
        "http_filters",
        json!([]),
        "http_filters",
        "router is missing",
    );
    manager_refused(
        "http_filters",
        json!([cors]),
        "http_filters[0]",
        "is the last filter in a http filter chain",
    );
    manager_refused(
        "http_filters",
        json!([router(), cors]),
        "http_filters[0]",
        "must be the last filter in a http filter chain",
    );
    manager_refused(
        "http_filters",
        json!([{ "name": "lua", "typed_config": { "@type": format!("{PREFIX}envoy.extensions.filters.http.lua.v3.Lua") } }, router()]),
        "http_filters[0].typed_config",
        "envoy.extensions.filters.http.lua.v3.Lua is not supported here",
    );
    manager_refused(
        "http_filters",
        json!([with(router(), &[("/disabled", json!(true))])]),
        "http_filters[0].disabled",
        "cannot be disabled by default",
    );
    manager_refused(
        "http_filters",
        json!([with(
            router(),
            &[(
                "/typed_config/strict_check_headers",
                json!(["x-envoy-retry-on"])
            )]
        )]),
        "http_filters[0].typed_config.strict_check_headers",
        "is not supported",
    );
    let fault = |config: Json| {
        let mut typed =
            json!({ "@type": format!("{PREFIX}envoy.extensions.filters.http.fault.v3.HTTPFault") });
        typed
            .as_object_mut()
            .unwrap()
            .extend(config.as_object().unwrap().clone());
        json!([{ "name": "envoy.filters.http.fault", "typed_config": typed }, router()])
    };
    manager_refused(
        "http_filters",
        fault(json!({ "abort": { "http_status": 99 } })),
        "http_filters[0].typed_config.abort.http_status",
        "value must be inside range [200, 600)",
    );
    manager_refused(
        "http_filters",
        fault(json!({ "delay": {} })),
        "http_filters[0].typed_config.delay.fault_delay_secifier",
        "value is required",
    );
}

#[test]
fn access_logs() {
    let file = |config: Json| {
        let mut typed = json!({ "@type": format!("{PREFIX}envoy.extensions.access_loggers.file.v3.FileAccessLog"), "path": "/x" });
        typed
            .as_object_mut()
            .unwrap()
            .extend(config.as_object().unwrap().clone());
        json!([{ "name": "file", "typed_config": typed }])
    };
    manager_refused(
        "access_log",
        file(json!({ "path": "" })),
        "access_log[0].typed_config.path",
        "at least 1 characters",
    );
    manager_refused(
        "access_log",
        file(json!({ "log_format": { "text_format_source": { "inline_string": "%NOPE%" } } })),
        "access_log[0].typed_config.log_format.text_format_source",
        "NOPE",
    );
    manager_refused(
        "access_log",
        file(json!({ "log_format": { "json_format": { "a": { "b": "%NOPE%" } } } })),
        "access_log[0].typed_config.log_format.json_format",
        "NOPE",
    );
    manager_refused(
        "access_log",
        file(json!({ "log_format": { "text_format": "x", "omit_empty_values": true } })),
        "access_log[0].typed_config.log_format.omit_empty_values",
        "is not supported for text formats",
    );
    manager_refused(
        "access_log",
        with(
            file(json!({})),
            &[(
                "/0/filter",
                json!({ "response_flag_filter": { "flags": ["XX"] } }),
            )],
        ),
        "access_log[0].filter.response_flag_filter.flags[0]",
        "value must be in list",
    );
    manager_refused(
        "access_log",
        with(
            file(json!({})),
            &[("/0/filter", json!({ "grpc_status_filter": {} }))],
        ),
        "access_log[0].filter.grpc_status_filter",
        "is not supported",
    );
}

#[test]
fn virtual_hosts() {
    let refused = |changes: &[(&str, Json)], path: &str, reason: &str| {
        refused(ROUTES, route_configuration(), changes, path, reason);
    };
    refused(
        &[("/virtual_hosts/0/name", json!(""))],
        "virtual_hosts[0].name",
        "at least 1 characters",
    );
    refused(
        &[("/virtual_hosts/0/domains", json!([]))],
        "virtual_hosts[0].domains",
        "at least 1 item(s)",
    );
    refused(
        &[(
            "/virtual_hosts/1",
            json!({ "name": "b", "domains": ["x", "*"] }),
        )],
        "virtual_hosts[1].domains[1]",
        "Only a single wildcard domain is permitted in route local",
    );
    refused(
        &[("/virtual_hosts/0/domains", json!(["a", "A"]))],
        "virtual_hosts[0].domains[1]",
        "Duplicate entry of domain a in route local",
    );
    refused(
        &[(
            "/virtual_hosts/0/retry_policy",
            json!({ "retry_on": "5xx" }),
        )],
        "virtual_hosts[0].retry_policy",
        "is not supported",
    );
    refused(
        &[("/vhds", json!({ "config_source": { "ads": {} } }))],
        "vhds",
        "is not supported",
    );
    refused(
        &[(
            "/virtual_hosts/0/typed_per_filter_config",
            json!({
                "lua": { "@type": format!("{PREFIX}envoy.extensions.filters.http.lua.v3.LuaPerRoute"), "disabled": true }
            }),
        )],
        "virtual_hosts[0].typed_per_filter_config[\"lua\"]",
        "LuaPerRoute is not supported here",
    );
    refused(
        &[(
            "/typed_per_filter_config",
            json!({ "a": { "@type": format!("{PREFIX}envoy.config.route.v3.FilterConfig") } }),
        )],
        "typed_per_filter_config[\"a\"].config",
        "Empty route/virtual host per filter configuration",
    );
}

#[test]
fn matches() {
    route_refused("match", Json::Null, "match", "value is required");
    route_refused(
        "match",
        json!({}),
        "match.path_specifier",
        "value is required",
    );
    route_refused(
        "match",
        json!({ "safe_regex": { "regex": "(a" } }),
        "match.safe_regex.regex",
        "Invalid regex '(a': unclosed group",
    );
    route_refused(
        "match",
        json!({ "path_separated_prefix": "/a/" }),
        "match.path_separated_prefix",
        "does not match regex pattern",
    );
    route_refused(
        "match",
        json!({ "prefix": "/", "headers": [{ "name": "" }] }),
        "match.headers[0].name",
        "at least 1 characters",
    );
    route_refused(
        "match",
        json!({ "prefix": "/", "headers": [{ "name": "a", "string_match": { "prefix": "" } }] }),
        "match.headers[0].string_match.prefix",
        "at least 1 characters",
    );
    route_refused(
        "match",
        json!({ "prefix": "/", "runtime_fraction": { "runtime_key": "a" } }),
        "match.runtime_fraction.default_value",
        "value is required",
    );
    route_refused(
        "match",
        json!({ "prefix": "/", "tls_context": {} }),
        "match.tls_context",
        "is not supported",
    );
    route_refused(
        "match",
        json!({ "prefix": "/", "dynamic_metadata": [] , "filter_state": [{ "key": "a", "string_match": { "exact": "b" } }] }),
        "match.filter_state",
        "is not supported",
    );
}

#[test]
fn actions() {
    route_refused("route", Json::Null, "action", "value is required");
    route_refused(
        "route",
        json!({ "cluster": "" }),
        "route.cluster",
        "at least 1 characters",
    );
    route_refused(
        "route",
        json!({ "timeout": "1s" }),
        "route.cluster_specifier",
        "value is required",
    );
    for (field, value) in [
        ("retry_policy", json!({ "retry_on": "5xx" })),
        ("hash_policy", json!([{ "header": { "header_name": "x" } }])),
        ("request_mirror_policies", json!([{ "cluster": "a" }])),
        (
            "rate_limits",
            json!([{ "actions": [{ "remote_address": {} }] }]),
        ),
        ("metadata_match", json!({})),
        ("internal_redirect_policy", json!({})),
    ] {
        route_refused(
            "route",
            json!({ "cluster": "a", field: value }),
            &format!("route.{field}"),
            "is not supported",
        );
    }
    let weighted = |clusters: Json| json!({ "weighted_clusters": { "clusters": clusters } });
    route_refused(
        "route",
        weighted(json!([])),
        "route.weighted_clusters.clusters",
        "at least 1 item(s)",
    );
    route_refused(
        "route",
        weighted(json!([{ "name": "a", "weight": 0 }])),
        "route.weighted_clusters.clusters",
        "Sum of weights in the weighted_cluster must be greater than 0.",
    );
    route_refused(
        "route",
        weighted(json!([{ "weight": 1 }])),
        "route.weighted_clusters.clusters[0]",
        "At least one of name or cluster_header",
    );
    route_refused(
        "route",
        json!({ "cluster": "a", "prefix_rewrite": "/b", "regex_rewrite": { "pattern": { "regex": "a" }, "substitution": "b" } }),
        "route.regex_rewrite",
        "Specify only one of prefix_rewrite, regex_rewrite",
    );
    route_refused(
        "route",
        json!({ "cluster": "a", "regex_rewrite": { "pattern": { "regex": "a" }, "substitution": "\\1" } }),
        "route.regex_rewrite.substitution",
        "requests 1 matches, but the regexp only has 0",
    );
    let replaced = |action: &str, value: Json, path: &str, reason: &str| {
        refused(
            ROUTES,
            route_configuration(),
            &[
                (&format!("{IN_ROUTE}/route"), Json::Null),
                (&format!("{IN_ROUTE}/{action}"), value),
            ],
            &format!("{ROUTE}.{path}"),
            reason,
        );
    };
    replaced(
        "direct_response",
        json!({ "status": 99 }),
        "direct_response.status",
        "value must be inside range [200, 600)",
    );
    replaced(
        "direct_response",
        json!({ "status": 200, "body": { "inline_string": "x".repeat(5000) } }),
        "direct_response.body",
        "response body size is 5000 bytes; maximum is 4096",
    );
    replaced(
        "direct_response",
        json!({ "status": 200, "body": { "filename": "/nope" } }),
        "direct_response.body.filename",
        "Invalid path: /nope",
    );
    replaced(
        "redirect",
        json!({ "port_redirect": 70000 }),
        "redirect.port_redirect",
        "70000 is not a port",
    );
    replaced(
        "filter_action",
        json!({}),
        "filter_action",
        "is not supported",
    );
}

#[test]
fn header_changes() {
    let add = |value: Json, path: &str, reason: &str| {
        route_refused(
            "request_headers_to_add",
            json!([value]),
            &format!("request_headers_to_add[0].{path}"),
            reason,
        );
    };
    add(
        json!({ "header": { "key": ":path", "value": "x" } }),
        "header.key",
        ":-prefixed or host headers may not be modified",
    );
    add(
        json!({ "header": { "key": "Host", "value": "x" } }),
        "header.key",
        ":-prefixed or host headers may not be modified",
    );
    add(
        json!({ "header": { "key": "a", "value": "50%" } }),
        "header.value",
        "50%",
    );
    add(
        json!({ "header": { "key": "a" }, "append": true, "append_action": "ADD_IF_ABSENT" }),
        "append",
        "Both append and append_action are set",
    );
    add(json!({}), "header", "value is required");
    route_refused(
        "response_headers_to_remove",
        json!([":status"]),
        "response_headers_to_remove[0]",
        "may not be removed",
    );
}

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
        &[("/lb_policy", json!("RING_HASH"))],
        "lb_policy",
        "RING_HASH is not supported",
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
        &[("/http2_protocol_options", json!({}))],
        "http2_protocol_options",
        "HTTP/2 upstreams are not supported",
    );
    cluster_refused(
        &[("/dns_refresh_rate", json!("0.0005s"))],
        "dns_refresh_rate",
        "value must be greater than 1ms",
    );
    for (field, value) in [
        ("outlier_detection", json!({})),
        (
            "health_checks",
            json!([{
                "timeout": "1s", "interval": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1, "tcp_health_check": {}
            }]),
        ),
        ("lb_subset_config", json!({})),
        ("load_balancing_policy", json!({})),
    ] {
        cluster_refused(&[(&format!("/{field}"), value)], field, "is not supported");
    }
    cluster_refused(
        &[(
            "/transport_socket",
            json!({
                "name": "tls",
                "typed_config": { "@type": format!("{PREFIX}envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext") }
            }),
        )],
        "transport_socket.typed_config",
        "UpstreamTlsContext is not supported here",
    );
    cluster_refused(
        &[(
            "/circuit_breakers",
            json!({ "thresholds": [{ "retry_budget": {} }] }),
        )],
        "circuit_breakers.thresholds[0].retry_budget",
        "is not supported",
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
