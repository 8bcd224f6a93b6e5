//! Refused listeners, filters and access logs.

use serde_json::{Value as Json, json};

use super::{CHAIN, IN_MANAGER, MANAGER, listener_refused, manager_refused, refused};
use crate::tests::{LISTENER, PREFIX, router, tcp_listener, with};

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
}

#[test]
fn listener_filters() {
    let filter_refused = |config: Json, path: &str, reason: &str| {
        let filter = json!([{ "name": "f", "typed_config": config }]);
        listener_refused(
            &[("/listener_filters", filter)],
            &format!("listener_filters[0].typed_config{path}"),
            reason,
        );
    };
    let of = |kind: &str, field: &str, value: Json| {
        let kind = format!("{PREFIX}envoy.extensions.filters.listener.{kind}");
        json!({ "@type": kind, field: value })
    };
    let tls = |field: &str, value: Json| of("tls_inspector.v3.TlsInspector", field, value);
    filter_refused(
        tls("enable_ja3_fingerprinting", json!(true)),
        ".enable_ja3_fingerprinting",
        "true is not supported",
    );
    filter_refused(
        tls("max_client_hello_size", json!(16385)),
        ".max_client_hello_size",
        "",
    );
    filter_refused(
        of(
            "proxy_protocol.v3.ProxyProtocol",
            "allow_requests_without_proxy_protocol",
            json!(true),
        ),
        "",
        "is not supported here",
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
    let sni_cluster = json!({
        "name": "s",
        "typed_config": { "@type": format!("{PREFIX}envoy.extensions.filters.network.sni_cluster.v3.SniCluster") }
    });
    listener_refused(
        &[("/filter_chains/0/filters/1", sni_cluster.clone())],
        &format!("{CHAIN}.filters[0]"),
        "must be the last filter in a network filter chain",
    );
    listener_refused(
        &[("/filter_chains/0/filters/0", sni_cluster)],
        &format!("{CHAIN}.filters[0]"),
        "Error: non-terminal filter named s of type envoy.filters.network.sni_cluster is the last filter in a network filter chain.",
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
                "typed_config": { "@type": format!("{PREFIX}envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext") }
            }),
        )],
        &format!("{CHAIN}.transport_socket.typed_config"),
        "UpstreamTlsContext is not supported here",
    );
    listener_refused(
        &[(
            "/filter_chains/0/filter_chain_match",
            json!({ "server_names": ["*.a", "a*"] }),
        )],
        &format!("{CHAIN}.filter_chain_match.server_names[1]"),
        "partial wildcards are not supported in \"server_names\"",
    );
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
        &[(
            &field("hash_policy"),
            json!([{ "filter_state": { "key": "k" } }]),
        )],
        "hash_policy[0].filter_state",
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
        json!("HTTP3"),
        "codec_type",
        "HTTP3 is not supported",
    );
    manager_refused(
        "common_http_protocol_options",
        json!({ "max_response_headers_kb": 100 }),
        "common_http_protocol_options.max_response_headers_kb",
        "cannot be set on http_connection_manager",
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
        json!([{ "upgrade_type": "CONNECT-UDP" }]),
        "upgrade_configs[0].upgrade_type",
        "CONNECT-UDP is not supported",
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

/// `http2_protocol_options` of a connection manager, refused at `path` below it.
#[track_caller]
fn http2_refused(options: Json, path: &str, reason: &str) {
    manager_refused(
        "http2_protocol_options",
        options,
        &format!("http2_protocol_options.{path}"),
        reason,
    );
}

#[test]
fn http2_numbers() {
    for (field, bad, range) in [
        ("max_concurrent_streams", 0, "inside range [1, 2147483647]"),
        (
            "initial_stream_window_size",
            65534,
            "inside range [65535, 2147483647]",
        ),
        (
            "initial_connection_window_size",
            1_u32 << 31,
            "inside range [65535, 2147483647]",
        ),
        ("max_outbound_frames", 0, "greater than or equal to 1"),
        (
            "max_outbound_control_frames",
            0,
            "greater than or equal to 1",
        ),
        (
            "max_inbound_window_update_frames_per_data_frame_sent",
            0,
            "greater than or equal to 1",
        ),
        ("max_header_field_size_kb", 63, "inside range [64, 256]"),
    ] {
        let mut options = json!({});
        options[field] = json!(bad);
        http2_refused(options, field, range);
    }
    http2_refused(
        json!({ "max_header_field_size_kb": 64 }),
        "max_header_field_size_kb",
        "must not exceed max_request_headers_kb",
    );
    http2_refused(
        json!({ "allow_metadata": true }),
        "allow_metadata",
        "true is not supported",
    );
    http2_refused(
        json!({ "disallow_obs_text": true }),
        "disallow_obs_text",
        "true is not supported",
    );
    http2_refused(
        json!({ "connection_keepalive": { "interval": "1s" } }),
        "connection_keepalive.timeout",
        "value is required",
    );
    http2_refused(
        json!({ "connection_keepalive": { "timeout": "0.0001s" } }),
        "connection_keepalive.timeout",
        "greater than or equal to 1ms",
    );
    http2_refused(
        json!({ "connection_keepalive": { "timeout": "1s", "interval_jitter": { "value": 101 } } }),
        "connection_keepalive.interval_jitter.value",
        "inside range [0, 100]",
    );
}

#[test]
fn http2_settings_by_number() {
    let parameters = |list: &[(u32, u32)]| -> Json {
        list.iter()
            .map(|(identifier, value)| json!({ "identifier": identifier, "value": value }))
            .collect()
    };
    for (list, path, reason) in [
        (
            &[(2, 1)][..],
            "custom_settings_parameters[0]",
            "server push is not supported by Envoy",
        ),
        (
            &[(9, 9), (8, 1)],
            "custom_settings_parameters[1]",
            "the \"allow_connect\" SETTINGS parameter must only be configured through the named field",
        ),
        (
            &[(9, 1), (9, 2), (1000, 2), (1000, 3)],
            "custom_settings_parameters",
            "identifiers = {0x09,0x3e8}",
        ),
        (
            &[(3, 1), (6, 1)],
            "custom_settings_parameters[1]",
            "setting 0x06 is not supported",
        ),
        (
            &[(65536, 1)],
            "custom_settings_parameters[0].identifier",
            "inside range [0, 65535]",
        ),
    ] {
        http2_refused(
            json!({ "custom_settings_parameters": parameters(list) }),
            path,
            reason,
        );
    }
    http2_refused(
        json!({
            "hpack_table_size": 1, "max_concurrent_streams": 4,
            "custom_settings_parameters": parameters(&[(1, 1), (3, 2)])
        }),
        "custom_settings_parameters",
        "the {hpack_table_size,max_concurrent_streams} HTTP/2 SETTINGS parameter(s)",
    );
}

#[test]
fn grpc_statistics_and_log_filters() {
    let stats = |list: Json| {
        json!([
            { "name": "s", "typed_config": {
                "@type": format!("{PREFIX}envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"),
                "individual_method_stats_allowlist": { "services": [list] }
            } },
            router()
        ])
    };
    manager_refused(
        "http_filters",
        stats(json!({ "name": "", "method_names": ["m"] })),
        "http_filters[0].typed_config.individual_method_stats_allowlist.services[0].name",
        "at least 1 characters",
    );
    manager_refused(
        "http_filters",
        stats(json!({ "name": "s" })),
        "http_filters[0].typed_config.individual_method_stats_allowlist.services[0].method_names",
        "at least 1 item(s)",
    );
    let log = |filter: Json| {
        json!([{ "name": "l", "filter": filter, "typed_config": {
            "@type": format!("{PREFIX}envoy.extensions.access_loggers.file.v3.FileAccessLog"), "path": "/dev/null"
        } }])
    };
    manager_refused(
        "access_log",
        log(json!({ "grpc_status_filter": { "statuses": ["OK", 17] } })),
        "access_log[0].filter.grpc_status_filter.statuses[1]",
        "value must be one of the defined enum values",
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
        json!([{ "name": "buffer", "typed_config": { "@type": format!("{PREFIX}envoy.extensions.filters.http.buffer.v3.Buffer") } }, router()]),
        "http_filters[0].typed_config",
        "envoy.extensions.filters.http.buffer.v3.Buffer is not supported here",
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
            &[("/0/filter", json!({ "metadata_filter": {} }))],
        ),
        "access_log[0].filter.metadata_filter",
        "is not supported",
    );
}
