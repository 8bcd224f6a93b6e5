//! What is accepted arrives in the model: defaults, "0 is off", and every kind of thing once.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tidegate_model::cluster::{
    Address, ConfigSource, Discovery, DnsLookupFamily, LbPolicy, LeastRequest,
};
use tidegate_model::hcm::{FaultAbortKind, HttpConnectionManager, HttpFilterKind, RouteSource};
use tidegate_model::listener::{Listener, NetworkFilter, SourceType, TcpCluster};
use tidegate_model::matcher::{HeaderMatchSpecifier, QueryParameterMatchSpecifier, StringPattern};
use tidegate_model::route::{
    ClusterSpecifier, HostRewrite, PathRedirect, PathSpecifier, RouteAction, RouteConfiguration,
    SchemeRedirect,
};
use tidegate_model::{AppendAction, Fraction};

use super::{
    ASSIGNMENT, CLUSTER, LISTENER, PREFIX, ROUTES, assignment, cluster, encode, listener,
    route_configuration, router, tcp_listener, with,
};
use crate::{
    Decoder, decode_cluster, decode_cluster_load_assignment, decode_listener,
    decode_route_configuration,
};

fn decoded_listener(changes: &[(&str, Json)]) -> Listener {
    decode_listener(&encode(LISTENER, &with(listener(), changes))).unwrap()
}

fn manager(listener: &Listener) -> Arc<HttpConnectionManager> {
    match &listener.filter_chains[0].filter {
        NetworkFilter::HttpConnectionManager(manager) => Arc::clone(manager),
        NetworkFilter::TcpProxy(_) => panic!("a TCP proxy"),
    }
}

fn routes(changes: &[(&str, Json)]) -> RouteConfiguration {
    decode_route_configuration(&encode(ROUTES, &with(route_configuration(), changes))).unwrap()
}

#[test]
fn a_plain_listener_has_envoys_defaults() {
    let listener = decoded_listener(&[]);
    assert_eq!(&*listener.stat_prefix, "127.0.0.1_10000");
    assert!(listener.bind_to_port && listener.reuse_port && !listener.use_original_dst);
    assert_eq!(listener.per_connection_buffer_limit_bytes, 1 << 20);
    assert_eq!(
        listener.listener_filters_timeout,
        Some(Duration::from_secs(15))
    );
    let manager = manager(&listener);
    assert_eq!(&*manager.server_name, "envoy");
    assert_eq!(manager.max_request_headers_bytes, 60 * 1024);
    assert_eq!(manager.idle_timeout, Some(Duration::from_hours(1)));
    assert_eq!(manager.stream_idle_timeout, Some(Duration::from_mins(5)));
    assert_eq!(manager.delayed_close_timeout, Some(Duration::from_secs(1)));
    assert!(manager.generate_request_id && manager.http1.allow_absolute_url);
    let RouteSource::Inline(routes) = &manager.routes else {
        panic!("no routes")
    };
    assert!(
        routes.validate_clusters,
        "inline routes are checked by default"
    );
}

#[test]
fn zero_is_off() {
    let base = "/filter_chains/0/filters/0/typed_config";
    let listener = decoded_listener(&[
        ("/listener_filters_timeout", json!("0s")),
        (&format!("{base}/stream_idle_timeout"), json!("0s")),
        (&format!("{base}/delayed_close_timeout"), json!("0s")),
        (
            &format!("{base}/common_http_protocol_options"),
            json!({ "idle_timeout": "0s" }),
        ),
    ]);
    let manager = manager(&listener);
    assert_eq!(listener.listener_filters_timeout, None);
    assert_eq!(
        (
            manager.stream_idle_timeout,
            manager.delayed_close_timeout,
            manager.idle_timeout
        ),
        (None, None, None)
    );
}

#[test]
fn the_virtual_listener_of_a_sidecar() {
    let listener = tcp_listener();
    let listener = with(
        listener,
        &[
            ("/name", json!("virtual")),
            (
                "/address/socket_address",
                json!({ "address": "0.0.0.0", "port_value": 15001 }),
            ),
            ("/use_original_dst", json!(true)),
            ("/traffic_direction", json!("OUTBOUND")),
            (
                "/listener_filters",
                json!([{
                    "name": "original_dst",
                    "typed_config": { "@type": format!("{PREFIX}envoy.extensions.filters.listener.original_dst.v3.OriginalDst") }
                }]),
            ),
            (
                "/filter_chains/0/transport_socket",
                json!({
                    "name": "envoy.transport_sockets.raw_buffer",
                    "typed_config": { "@type": format!("{PREFIX}envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer") }
                }),
            ),
            (
                "/filter_chains/0/filter_chain_match",
                json!({
                    "destination_port": 80,
                    "transport_protocol": "raw_buffer",
                    "source_type": "SAME_IP_OR_LOOPBACK",
                    "prefix_ranges": [{ "address_prefix": "10.1.2.3", "prefix_len": 8 }, { "address_prefix": "::", "prefix_len": 0 }],
                    "source_ports": [1, 2]
                }),
            ),
        ],
    );
    let listener = decode_listener(&encode(LISTENER, &listener)).unwrap();
    assert!(listener.use_original_dst && listener.listener_filters.len() == 1);
    assert_eq!(&*listener.stat_prefix, "0.0.0.0_15001");
    let matches = &listener.filter_chains[0].matches;
    assert_eq!(matches.destination_port, Some(80));
    assert_eq!(matches.prefix_ranges[0].to_string(), "10.0.0.0/8");
    assert_eq!(matches.prefix_ranges[1].to_string(), "::/0");
    assert_eq!(
        (matches.source_type, matches.source_ports.as_slice()),
        (SourceType::SameIpOrLoopback, &[1, 2][..])
    );
    let NetworkFilter::TcpProxy(proxy) = &listener.filter_chains[0].filter else {
        panic!("no TCP proxy")
    };
    assert_eq!(proxy.cluster, TcpCluster::Single("backend".into()));
    assert_eq!(proxy.idle_timeout, Some(Duration::from_hours(1)));
}

#[test]
fn listeners_that_do_not_bind() {
    assert!(!decoded_listener(&[("/bind_to_port", json!(false))]).bind_to_port);
    assert!(
        !decoded_listener(&[("/deprecated_v1", json!({ "bind_to_port": false }))]).bind_to_port
    );
}

#[test]
fn filters_and_what_is_optional_among_them() {
    let fault = json!({
        "name": "envoy.filters.http.fault",
        "typed_config": {
            "@type": format!("{PREFIX}envoy.extensions.filters.http.fault.v3.HTTPFault"),
            "abort": { "http_status": 503, "percentage": { "numerator": 5, "denominator": "TEN_THOUSAND" } },
            "delay": { "fixed_delay": "2s", "percentage": { "numerator": 50 } }
        }
    });
    let buffer = json!({
        "name": "buffer",
        "is_optional": true,
        "typed_config": { "@type": format!("{PREFIX}envoy.extensions.filters.http.buffer.v3.Buffer") }
    });
    let listener = with(
        listener(),
        &[(
            "/filter_chains/0/filters/0/typed_config/http_filters",
            json!([buffer, fault, router()]),
        )],
    );
    let decoder = Decoder::new();
    let listener = decoder.listener(&encode(LISTENER, &listener)).unwrap();
    let manager = manager(&listener);
    assert_eq!(manager.http_filters.len(), 2);
    let HttpFilterKind::Fault(fault) = &manager.http_filters[0].kind else {
        panic!("no fault")
    };
    let abort = fault.abort.as_ref().unwrap();
    assert_eq!(
        (&abort.kind, abort.percentage.per_million),
        (&FaultAbortKind::HttpStatus(503), 500)
    );
    assert_eq!(
        fault.delay.as_ref().unwrap().percentage,
        Fraction {
            per_million: 500_000
        }
    );
    let warnings = decoder.take_warnings();
    assert_eq!(warnings.len(), 1);
    assert_eq!(
        warnings[0].field_path,
        "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config"
    );
    assert!(decoder.take_warnings().is_empty());
}

#[test]
fn typed_structs_stand_for_the_message_they_name() {
    for wrapper in ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"] {
        let config = json!({
            "@type": format!("{PREFIX}{wrapper}"),
            "type_url": format!("{PREFIX}envoy.extensions.filters.http.router.v3.Router"),
            "value": { "suppress_envoy_headers": true }
        });
        let listener = decoded_listener(&[(
            "/filter_chains/0/filters/0/typed_config/http_filters",
            json!([{ "name": "router", "typed_config": config }]),
        )]);
        assert!(manager(&listener).suppress_envoy_headers, "{wrapper}");
    }
}

#[test]
fn route_matches_of_every_kind() {
    let path = |value: Json| {
        let routes = routes(&[("/virtual_hosts/0/routes/0/match", value)]);
        routes.virtual_hosts[0].routes[0].matches.clone()
    };
    assert_eq!(
        path(json!({ "path": "/a" })).path,
        PathSpecifier::Path("/a".into())
    );
    assert_eq!(
        path(json!({ "safe_regex": { "regex": "/a.*" } })).path,
        PathSpecifier::SafeRegex("/a.*".into())
    );
    assert_eq!(
        path(json!({ "path_separated_prefix": "/a" })).path,
        PathSpecifier::PathSeparatedPrefix("/a".into())
    );
    assert_eq!(
        path(json!({ "connect_matcher": {} })).path,
        PathSpecifier::ConnectMatcher
    );
    let matches = path(json!({
        "prefix": "/",
        "case_sensitive": false,
        "grpc": {},
        "runtime_fraction": { "default_value": { "numerator": 1, "denominator": "MILLION" }, "runtime_key": "k" },
        "headers": [
            { "name": "End-User", "exact_match": "jason" },
            { "name": "a" },
            { "name": "b", "present_match": false, "invert_match": true },
            { "name": "c", "range_match": { "start": -5, "end": 10 } },
            { "name": "d", "string_match": { "contains": "x", "ignore_case": true } }
        ],
        "query_parameters": [{ "name": "q" }, { "name": "r", "string_match": { "exact": "1" } }]
    }));
    assert!(!matches.case_sensitive && matches.grpc);
    assert_eq!(matches.runtime_fraction.unwrap().default.per_million, 1);
    let [end_user, any, absent, range, contains] = matches.headers.as_slice() else {
        panic!("five headers")
    };
    assert_eq!(&*end_user.name, "end-user");
    assert!(
        matches!(&end_user.specifier, HeaderMatchSpecifier::String(m) if m.pattern == StringPattern::Exact("jason".into()))
    );
    assert_eq!(any.specifier, HeaderMatchSpecifier::Present(true));
    assert_eq!(
        (&absent.specifier, absent.invert_match),
        (&HeaderMatchSpecifier::Present(false), true)
    );
    assert_eq!(
        range.specifier,
        HeaderMatchSpecifier::Range { start: -5, end: 10 }
    );
    assert!(matches!(&contains.specifier, HeaderMatchSpecifier::String(m) if m.ignore_case));
    assert_eq!(
        matches.query_parameters[0].specifier,
        QueryParameterMatchSpecifier::Present(true)
    );
    assert!(matches!(
        matches.query_parameters[1].specifier,
        QueryParameterMatchSpecifier::String(_)
    ));
}

#[test]
fn route_actions_of_every_kind() {
    let action = |name: &str, value: Json| {
        let routes = routes(&[
            ("/virtual_hosts/0/routes/0/route", Json::Null),
            (&format!("/virtual_hosts/0/routes/0/{name}"), value),
        ]);
        routes.virtual_hosts[0].routes[0].action.clone()
    };
    let RouteAction::Route(forward) = action(
        "route",
        json!({
            "weighted_clusters": { "clusters": [{ "name": "v1", "weight": 50 }, { "name": "v2", "weight": 30 }, { "cluster_header": "X-C", "weight": 20 }] },
            "timeout": "0s",
            "max_grpc_timeout": "0s",
            "host_rewrite_literal": "other",
            "cluster_not_found_response_code": "NOT_FOUND",
            "regex_rewrite": { "pattern": { "regex": "^/a/(.*)$" }, "substitution": "/b/\\1" }
        }),
    ) else {
        panic!("no route")
    };
    let ClusterSpecifier::Weighted(weighted) = &forward.cluster else {
        panic!("no weights")
    };
    assert_eq!((weighted.total_weight, weighted.clusters.len()), (100, 3));
    assert_eq!(
        (forward.policy.timeout, forward.policy.max_grpc_timeout),
        (None, Some(None))
    );
    assert_eq!(forward.host_rewrite, HostRewrite::Literal("other".into()));
    assert_eq!(forward.policy.cluster_not_found_status, 404);
    let RouteAction::Route(plain) = action("route", json!({ "cluster": "a" })) else {
        panic!("no route")
    };
    assert_eq!(
        (plain.policy.timeout, plain.policy.cluster_not_found_status),
        (Some(Duration::from_secs(15)), 503)
    );
    let RouteAction::Redirect(redirect) = action(
        "redirect",
        json!({ "https_redirect": true, "prefix_rewrite": "/b", "response_code": "PERMANENT_REDIRECT", "port_redirect": 8443 }),
    ) else {
        panic!("no redirect")
    };
    assert_eq!(
        (&redirect.scheme, &redirect.path),
        (
            &SchemeRedirect::Https,
            &PathRedirect::PrefixRewrite("/b".into())
        )
    );
    assert_eq!((redirect.response_code, redirect.port), (308, Some(8443)));
    let RouteAction::DirectResponse(response) = action(
        "direct_response",
        json!({ "status": 418, "body": { "inline_string": "teapot" } }),
    ) else {
        panic!("no response")
    };
    assert_eq!(
        (response.status, &*response.body.unwrap().bytes),
        (418, &b"teapot"[..])
    );
    assert_eq!(
        action("non_forwarding_action", json!({})),
        RouteAction::NonForwarding
    );
}

#[test]
fn domains_and_header_names_are_lower_case() {
    let routes = routes(&[
        (
            "/virtual_hosts/0/domains",
            json!(["Example.COM", "*.Example.com"]),
        ),
        (
            "/request_headers_to_add",
            json!([
                { "header": { "key": "X-A", "value": "%DOWNSTREAM_REMOTE_ADDRESS%" }, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" },
                { "header": { "key": "X-B", "value": "b" }, "append": false }
            ]),
        ),
        ("/response_headers_to_remove", json!(["Server"])),
    ]);
    assert_eq!(&*routes.virtual_hosts[0].domains[0], "example.com");
    assert_eq!(&*routes.headers.request_add[0].name, "x-a");
    assert_eq!(
        routes.headers.request_add[1].append_action,
        AppendAction::OverwriteIfExistsOrAdd
    );
    assert_eq!(&*routes.headers.response_remove[0], "server");
    assert!(
        !routes.validate_clusters,
        "RDS routes are not checked by default"
    );
}

#[test]
fn configuration_per_route() {
    let routes = routes(&[(
        "/virtual_hosts/0/routes/0/typed_per_filter_config",
        json!({
            "envoy.filters.http.cors": {
                "@type": format!("{PREFIX}envoy.extensions.filters.http.cors.v3.CorsPolicy"),
                "allow_origin_string_match": [{ "exact": "https://a" }],
                "allow_credentials": true
            },
            "envoy.filters.http.fault": { "@type": format!("{PREFIX}envoy.config.route.v3.FilterConfig"), "disabled": true }
        }),
    )]);
    let config = &routes.virtual_hosts[0].routes[0].per_filter;
    assert_eq!(config.cors.as_ref().unwrap().allow_credentials, Some(true));
    assert_eq!(
        config.disabled,
        [
            ("envoy.filters.http.cors".into(), false),
            ("envoy.filters.http.fault".into(), true)
        ]
    );
}

#[test]
fn what_changes_nothing_is_warned_about() {
    let decoder = Decoder::new();
    let routes = with(
        route_configuration(),
        &[
            ("/virtual_hosts/0/routes/0/stat_prefix", json!("a")),
            (
                "/virtual_hosts/0/routes/0/metadata",
                json!({ "filter_metadata": { "lua": { "a": 1 }, "istio": { "b": "c" } } }),
            ),
        ],
    );
    decoder
        .route_configuration(&encode(ROUTES, &routes))
        .unwrap();
    let warnings: Vec<String> = decoder
        .take_warnings()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        warnings,
        ["virtual_hosts[0].routes[0].stat_prefix: ignored: it only adds statistics",]
    );
}

#[test]
fn clusters_of_every_type() {
    let decoded = |changes: &[(&str, Json)]| {
        decode_cluster(&encode(CLUSTER, &with(cluster(), changes))).unwrap()
    };
    let fixed = decoded(&[("/connect_timeout", Json::Null)]);
    assert_eq!(fixed.connect_timeout, Duration::from_secs(5));
    assert_eq!(
        (
            fixed.lb.healthy_panic_threshold,
            fixed.circuit_breakers.default.max_connections
        ),
        (50, 1024)
    );
    assert_eq!(fixed.http.idle_timeout, Some(Duration::from_hours(1)));
    assert!(matches!(fixed.discovery, Discovery::Static(_)));

    let name =
        "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/address";
    let dns = decoded(&[
        ("/type", json!("STRICT_DNS")),
        (name, json!("details")),
        ("/dns_lookup_family", json!("V4_ONLY")),
    ]);
    let Discovery::StrictDns(dns) = dns.discovery else {
        panic!("no DNS")
    };
    assert_eq!(
        dns.load_assignment.localities[0].endpoints[0].address,
        Address::Dns {
            host: "details".into(),
            port: 9080
        }
    );
    assert_eq!(
        (dns.refresh_rate, dns.lookup_family),
        (Duration::from_secs(5), DnsLookupFamily::V4Only)
    );

    let eds = decoded(&[
        ("/type", json!("EDS")),
        ("/load_assignment", Json::Null),
        (
            "/eds_cluster_config",
            json!({ "eds_config": { "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" } }),
        ),
        ("/lb_policy", json!("LEAST_REQUEST")),
    ]);
    assert_eq!(
        eds.lb_policy,
        LbPolicy::LeastRequest(LeastRequest::default())
    );
    let Discovery::Eds {
        service_name,
        source,
        initial_fetch_timeout,
    } = eds.discovery
    else {
        panic!("no EDS")
    };
    assert_eq!(
        (&*service_name, source, initial_fetch_timeout),
        ("backend", ConfigSource::Ads, None)
    );

    let original = decoded(&[
        ("/type", json!("ORIGINAL_DST")),
        ("/load_assignment", Json::Null),
        ("/lb_policy", json!("CLUSTER_PROVIDED")),
        (
            "/original_dst_lb_config",
            json!({ "use_http_header": true, "upstream_port_override": 15006 }),
        ),
    ]);
    let Discovery::OriginalDst(original) = original.discovery else {
        panic!("no original destination")
    };
    assert_eq!(
        (
            original.http_header_name.as_deref(),
            original.upstream_port_override
        ),
        (Some("x-envoy-original-dst-host"), Some(15006))
    );
}

#[test]
fn the_first_threshold_of_a_priority_counts() {
    let cluster = with(
        cluster(),
        &[(
            "/circuit_breakers",
            json!({ "thresholds": [
            { "max_connections": 1 },
            { "max_connections": 2 },
            { "priority": "HIGH", "max_requests": 3, "track_remaining": true }
        ] }),
        )],
    );
    let breakers = decode_cluster(&encode(CLUSTER, &cluster))
        .unwrap()
        .circuit_breakers;
    assert_eq!(
        (breakers.default.max_connections, breakers.high.max_requests),
        (1, 3)
    );
    assert!(breakers.high.track_remaining);
}

#[test]
fn upstream_http_options() {
    let options = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": format!("{PREFIX}envoy.extensions.upstreams.http.v3.HttpProtocolOptions"),
            "common_http_protocol_options": { "idle_timeout": "0s", "max_requests_per_connection": 1 },
            "use_downstream_protocol_config": { "http_protocol_options": {}, "http2_protocol_options": {} }
        }
    });
    let cluster = with(cluster(), &[("/typed_extension_protocol_options", options)]);
    let http = decode_cluster(&encode(CLUSTER, &cluster)).unwrap().http;
    assert_eq!(
        (http.idle_timeout, http.max_requests_per_connection),
        (None, Some(1))
    );
}

#[test]
fn endpoints_with_locality_weights_and_health() {
    let assignment = with(
        assignment(),
        &[
            (
                "/endpoints/0/locality",
                json!({ "region": "r", "zone": "z" }),
            ),
            ("/endpoints/0/load_balancing_weight", json!(7)),
            (
                "/endpoints/0/lb_endpoints/0/health_status",
                json!("DRAINING"),
            ),
            (
                "/policy",
                json!({ "overprovisioning_factor": 200, "drop_overloads": [{ "category": "c", "drop_percentage": { "numerator": 1 } }] }),
            ),
        ],
    );
    let assignment = decode_cluster_load_assignment(&encode(ASSIGNMENT, &assignment)).unwrap();
    let locality = &assignment.localities[0];
    assert_eq!(
        (&*locality.locality.region.0, locality.load_balancing_weight),
        ("r", Some(7))
    );
    assert_eq!(locality.endpoints[0].load_balancing_weight, 1);
    assert_eq!(
        (
            assignment.overprovisioning_factor,
            assignment.drop_overloads.len()
        ),
        (200, 1)
    );
}
