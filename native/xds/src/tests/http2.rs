//! What says which HTTP is spoken, and the options of HTTP/2, arrives in the model.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tidegate_model::Fraction;
use tidegate_model::access_log::AccessLogFilter;
use tidegate_model::cluster::{UpstreamHttpOptions, UpstreamProtocol};
use tidegate_model::hcm::{CodecType, GrpcStats, GrpcStatsMethods, HttpFilterKind};
use tidegate_model::http2::{Http2Options, KeepaliveSettings};
use tidegate_model::listener::NetworkFilter;

use super::{CLUSTER, LISTENER, PREFIX, cluster, encode, listener, router, with};
use crate::{decode_cluster, decode_listener};

/// The upstream options of a cluster with `changes`.
fn upstream(changes: &[(&str, Json)]) -> UpstreamHttpOptions {
    let cluster = with(cluster(), changes);
    decode_cluster(&encode(CLUSTER, &cluster)).unwrap().http
}

/// The same with `HttpProtocolOptions`.
fn typed_upstream(mut options: Json) -> UpstreamHttpOptions {
    const NAME: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    options["@type"] = json!(format!("{PREFIX}{NAME}"));
    let mut extensions = json!({});
    extensions[NAME] = options;
    upstream(&[("/typed_extension_protocol_options", extensions)])
}

#[test]
fn the_protocol_of_an_upstream() {
    assert_eq!(upstream(&[]).protocol, UpstreamProtocol::Http1);
    let legacy = upstream(&[(
        "/http2_protocol_options",
        json!({ "max_concurrent_streams": 7 }),
    )]);
    assert_eq!(
        (legacy.protocol, legacy.http2.max_concurrent_streams),
        (UpstreamProtocol::Http2, 7)
    );
    let legacy = upstream(&[
        ("/protocol_selection", json!("USE_DOWNSTREAM_PROTOCOL")),
        ("/http_protocol_options", json!({})),
        ("/http2_protocol_options", json!({})),
    ]);
    assert_eq!(legacy.protocol, UpstreamProtocol::Downstream);
    let explicit = |http: Json| typed_upstream(json!({ "explicit_http_config": http })).protocol;
    assert_eq!(
        explicit(json!({ "http_protocol_options": {} })),
        UpstreamProtocol::Http1
    );
    assert_eq!(
        explicit(json!({ "http2_protocol_options": {} })),
        UpstreamProtocol::Http2
    );
    let downstream = typed_upstream(json!({
        "common_http_protocol_options": { "max_response_headers_kb": 100 },
        "use_downstream_protocol_config": { "http2_protocol_options": { "allow_connect": true, "max_header_field_size_kb": 100 } }
    }));
    assert_eq!(downstream.protocol, UpstreamProtocol::Downstream);
    assert!(downstream.http2.allow_connect);
    assert_eq!(
        (
            downstream.max_response_headers_bytes,
            downstream.max_response_headers_bytes_http2
        ),
        (100 << 10, 100 << 10)
    );
    // The extension alone counts.
    let both = with(
        cluster(),
        &[
            ("/http_protocol_options", json!({})),
            ("/http2_protocol_options", json!({})),
            (
                "/typed_extension_protocol_options",
                json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": format!("{PREFIX}envoy.extensions.upstreams.http.v3.HttpProtocolOptions"),
                    "explicit_http_config": { "http_protocol_options": {} }
                } }),
            ),
        ],
    );
    let http = decode_cluster(&encode(CLUSTER, &both)).unwrap().http;
    assert_eq!(http.protocol, UpstreamProtocol::Http1);
}

/// The options of a connection manager with `changes`.
fn http2(changes: &[(&str, Json)]) -> Http2Options {
    let changes: Vec<(String, Json)> = changes
        .iter()
        .map(|(field, value)| {
            (
                format!("/filter_chains/0/filters/0/typed_config/{field}"),
                value.clone(),
            )
        })
        .collect();
    let changes: Vec<(&str, Json)> = changes
        .iter()
        .map(|(field, value)| (field.as_str(), value.clone()))
        .collect();
    let listener = decode_listener(&encode(LISTENER, &with(listener(), &changes))).unwrap();
    match &listener.filter_chains[0].filter {
        NetworkFilter::HttpConnectionManager(manager) => manager.http2.clone(),
        NetworkFilter::TcpProxy(_) => panic!("no HTTP"),
    }
}

#[test]
fn http2_options_in_full() {
    assert_eq!(http2(&[]), Http2Options::default());
    assert_eq!(
        http2(&[("http2_protocol_options", json!({}))]),
        Http2Options::default()
    );
    let all = http2(&[
        ("max_request_headers_kb", json!(96)),
        (
            "http2_protocol_options",
            json!({
                "hpack_table_size": 0,
                "max_concurrent_streams": 2,
                "initial_stream_window_size": 65535,
                "initial_connection_window_size": 65536,
                "allow_connect": true,
                "max_outbound_frames": 5,
                "max_outbound_control_frames": 6,
                "max_consecutive_inbound_frames_with_empty_payload": 0,
                "max_inbound_priority_frames_per_stream": 8,
                "max_inbound_window_update_frames_per_data_frame_sent": 9,
                "override_stream_error_on_invalid_http_message": true,
                "custom_settings_parameters": [{ "identifier": 2, "value": 0 }, { "identifier": 2, "value": 0 }],
                "connection_keepalive": {
                    "interval": "10s", "timeout": "20s", "interval_jitter": { "value": 50 }, "connection_idle_interval": "30s"
                },
                "use_oghttp2_codec": true,
                "max_metadata_size": 1,
                "enable_huffman_encoding": false,
                "max_header_field_size_kb": 96,
                "disallow_obs_text": false,
                "stream_reset_burst": 10,
                "stream_reset_rate": 11
            }),
        ),
    ]);
    assert_eq!(
        all,
        Http2Options {
            hpack_table_size: 0,
            max_concurrent_streams: 2,
            initial_stream_window_size: 65535,
            initial_connection_window_size: 65536,
            allow_connect: true,
            max_outbound_frames: 5,
            max_outbound_control_frames: 6,
            max_consecutive_inbound_frames_with_empty_payload: 0,
            max_inbound_priority_frames_per_stream: 8,
            max_inbound_window_update_frames_per_data_frame_sent: 9,
            stream_error_on_invalid_http_message: true,
            connection_keepalive: Some(KeepaliveSettings {
                interval: Some(Duration::from_secs(10)),
                timeout: Duration::from_secs(20),
                interval_jitter: Fraction {
                    per_million: 500_000
                },
                connection_idle_interval: Some(Duration::from_secs(30)),
            }),
            max_header_field_size_bytes: Some(96 << 10),
            stream_reset_burst: 10,
            stream_reset_rate: 11,
        }
    );
    // A setting that has a name may come by number.
    let custom = json!({ "custom_settings_parameters": [{ "identifier": 3, "value": 5 }] });
    let by_number = http2(&[("http2_protocol_options", custom)]);
    assert_eq!(by_number.max_concurrent_streams, 5);
}

#[test]
fn who_says_what_an_invalid_message_ends() {
    let ends = |manager: Json, options: Json| {
        http2(&[
            ("stream_error_on_invalid_http_message", manager),
            ("http2_protocol_options", options),
        ])
        .stream_error_on_invalid_http_message
    };
    let old = json!({ "stream_error_on_invalid_http_messaging": true });
    let new = |value: bool| json!({ "override_stream_error_on_invalid_http_message": value });
    assert!(!ends(Json::Null, json!({})));
    assert!(ends(json!(true), json!({})));
    assert!(ends(Json::Null, old.clone()));
    assert!(!ends(json!(false), old));
    assert!(!ends(json!(true), new(false)));
    assert!(ends(json!(false), new(true)));
}

#[test]
fn an_http2_listener_and_connect() {
    let path = |field: &str| format!("/filter_chains/0/filters/0/typed_config/{field}");
    let listener = with(
        listener(),
        &[
            (&path("codec_type"), json!("HTTP2")),
            (
                &path("upgrade_configs"),
                json!([{ "upgrade_type": "CONNECT" }]),
            ),
        ],
    );
    let listener = decode_listener(&encode(LISTENER, &listener)).unwrap();
    let NetworkFilter::HttpConnectionManager(manager) = &listener.filter_chains[0].filter else {
        panic!("no HTTP");
    };
    assert_eq!(manager.codec_type, CodecType::Http2);
    assert_eq!(&*manager.upgrade_configs[0].upgrade_type, "connect");
}

#[test]
fn grpc_filters_and_the_log_filter() {
    let path = |field: &str| format!("/filter_chains/0/filters/0/typed_config/{field}");
    let stats = |more: Json| {
        let mut config = more;
        config["@type"] = json!(format!(
            "{PREFIX}envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"
        ));
        json!({ "name": "envoy.filters.http.grpc_stats", "typed_config": config })
    };
    let filters = json!([
        { "name": "envoy.filters.http.grpc_web", "typed_config": {
            "@type": format!("{PREFIX}envoy.extensions.filters.http.grpc_web.v3.GrpcWeb")
        } },
        stats(json!({})),
        stats(json!({ "stats_for_all_methods": false, "emit_filter_state": true })),
        stats(json!({
            "stats_for_all_methods": true, "enable_upstream_stats": true, "replace_dots_in_grpc_service_name": true
        })),
        stats(json!({ "individual_method_stats_allowlist": { "services": [{ "name": "a.B", "method_names": ["C", "D"] }] } })),
        router()
    ]);
    let log = json!([{
        "name": "l",
        "filter": { "grpc_status_filter": { "statuses": ["CANCELED", "UNAUTHENTICATED"], "exclude": true } },
        "typed_config": {
            "@type": format!("{PREFIX}envoy.extensions.access_loggers.file.v3.FileAccessLog"), "path": "/dev/null"
        }
    }]);
    let listener = with(
        listener(),
        &[(&path("http_filters"), filters), (&path("access_log"), log)],
    );
    let listener = decode_listener(&encode(LISTENER, &listener)).unwrap();
    let NetworkFilter::HttpConnectionManager(manager) = &listener.filter_chains[0].filter else {
        panic!("no HTTP");
    };
    assert_eq!(manager.http_filters[0].kind, HttpFilterKind::GrpcWeb);
    let decoded: Vec<GrpcStats> = manager
        .http_filters
        .iter()
        .filter_map(|filter| match &filter.kind {
            HttpFilterKind::GrpcStats(stats) => Some(GrpcStats::clone(stats)),
            _ => None,
        })
        .collect();
    let listed = GrpcStatsMethods::Listed(vec![("a.B".into(), vec!["C".into(), "D".into()])]);
    assert_eq!(
        decoded,
        [
            GrpcStats::default(),
            GrpcStats {
                emit_filter_state: true,
                ..GrpcStats::default()
            },
            GrpcStats {
                methods: GrpcStatsMethods::All,
                enable_upstream_stats: true,
                replace_dots_in_grpc_service_name: true,
                ..GrpcStats::default()
            },
            GrpcStats {
                methods: listed,
                ..GrpcStats::default()
            },
        ]
    );
    assert_eq!(
        manager.access_log[0].filter,
        Some(AccessLogFilter::GrpcStatus {
            statuses: vec![1, 16],
            exclude: true
        })
    );
}
