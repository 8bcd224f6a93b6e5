//! Bootstraps in YAML and JSON: what is read, overridden and refused.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tidegate_model::bootstrap::{AdminAddress, StatsMatcher, StatsSink};
use tidegate_model::cluster::ConfigSource;

use super::{PREFIX, cluster, listener, with};
use crate::{Decoder, Format, Loaded, Overrides, Rejected};

fn document() -> Json {
    json!({
        "node": { "id": "sidecar~10.0.0.1~a.default~default.svc.cluster.local", "cluster": "a" },
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 15000 } } },
        "static_resources": { "listeners": [listener()], "clusters": [cluster(), xds_cluster()] }
    })
}

fn xds_cluster() -> Json {
    json!({
        "name": "xds-grpc",
        "type": "STRICT_DNS",
        "connect_timeout": "10s",
        "load_assignment": { "cluster_name": "xds-grpc", "endpoints": [{ "lb_endpoints": [{
            "endpoint": { "address": { "socket_address": { "address": "istiod", "port_value": 15010 } } }
        }] }] },
        "upstream_connection_options": { "tcp_keepalive": { "keepalive_time": 300 } },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": format!("{PREFIX}envoy.extensions.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": { "http2_protocol_options": {
                    "connection_keepalive": { "interval": "30s", "timeout": "5s" }
                } }
            }
        }
    })
}

fn dynamic() -> Json {
    json!({
        "lds_config": { "ads": {}, "resource_api_version": "V3" },
        "cds_config": { "path_config_source": { "path": "/etc/cds.yaml" } },
        "ads_config": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{
                "envoy_grpc": { "cluster_name": "xds-grpc", "authority": "istiod" },
                "initial_metadata": [{ "key": "a", "value": "b" }]
            }]
        }
    })
}

fn load(document: &Json) -> Result<Loaded, Rejected> {
    Decoder::new().bootstrap(
        document.to_string().as_bytes(),
        Format::Json,
        &Overrides::default(),
    )
}

#[track_caller]
fn refused(changes: &[(&str, Json)], path: &str, reason: &str) {
    let rejected = load(&with(document(), changes)).expect_err("accepted");
    assert_eq!(rejected.field_path, path, "{rejected}");
    assert!(
        rejected.reason.contains(reason),
        "{:?} does not say {reason:?}",
        rejected.reason
    );
}

#[test]
fn everything_a_process_starts_from() {
    let loaded = load(&with(
        document(),
        &[
            ("/dynamic_resources", dynamic()),
            ("/stats_flush_interval", json!("1s")),
            ("/stats_sinks", json!([{ "name": "statsd", "typed_config": {
                "@type": format!("{PREFIX}envoy.config.metrics.v3.StatsdSink"),
                "address": { "socket_address": { "address": "127.0.0.1", "port_value": 9125 } }
            } }])),
            ("/stats_config", json!({
                "use_all_default_tags": false,
                "stats_tags": [{ "tag_name": "a", "regex": "^(a)" }, { "tag_name": "b", "fixed_value": "c" }],
                "stats_matcher": { "inclusion_list": { "patterns": [{ "prefix": "cluster" }] } }
            })),
            ("/layered_runtime", json!({ "layers": [
                { "name": "static", "static_layer": { "a": { "b": 1, "c": "x" }, "f": { "numerator": 1, "denominator": "HUNDRED" } } },
                { "name": "later", "static_layer": { "a.b": true } },
                { "name": "admin", "admin_layer": {} }
            ] })),
        ],
    ))
    .unwrap();
    let bootstrap = &loaded.bootstrap;
    assert_eq!(&*bootstrap.node.cluster, "a");
    assert_eq!(
        bootstrap.admin.as_ref().unwrap().address,
        AdminAddress::Socket("127.0.0.1:15000".parse().unwrap())
    );
    assert_eq!(
        (bootstrap.listeners.len(), bootstrap.clusters.len()),
        (1, 2)
    );
    assert_eq!(bootstrap.dynamic.lds, Some(ConfigSource::Ads));
    assert_eq!(
        bootstrap.dynamic.cds,
        Some(ConfigSource::Path("/etc/cds.yaml".into()))
    );
    let ads = bootstrap.dynamic.ads.as_ref().unwrap();
    assert_eq!(
        (&*ads.cluster_name, ads.connect_timeout),
        ("xds-grpc", Duration::from_secs(10))
    );
    assert_eq!(ads.initial_metadata, [("a".into(), "b".into())]);
    assert_eq!(
        (loaded.ads_authority.as_str(), loaded.ads_http2_keepalive),
        (
            "istiod",
            Some((Duration::from_secs(30), Duration::from_secs(5)))
        )
    );
    assert_eq!(
        loaded.ads_tcp_keepalive.unwrap().time,
        Some(Duration::from_mins(5))
    );
    assert_eq!(bootstrap.stats_flush_interval, Duration::from_secs(1));
    assert_eq!(
        bootstrap.stats_sinks,
        [StatsSink::Statsd {
            address: "127.0.0.1:9125".parse().unwrap(),
            prefix: "envoy".into()
        }]
    );
    assert!(
        matches!(&bootstrap.stats.matcher, StatsMatcher::Inclusion(patterns) if patterns.len() == 1)
    );
    assert!(!bootstrap.stats.use_all_default_tags && bootstrap.admin_layer);
    let runtime: Vec<(&str, &str)> = bootstrap
        .runtime
        .iter()
        .map(|(key, value)| (&**key, &**value))
        .collect();
    assert_eq!(
        runtime,
        [
            ("a.c", "x"),
            ("f", r#"{"denominator":"HUNDRED","numerator":1}"#),
            ("a.b", "true")
        ]
    );
    let names: Vec<&str> = loaded
        .static_clusters
        .iter()
        .map(|(name, _)| &**name)
        .collect();
    assert_eq!(names, ["backend", "xds-grpc"]);
}

#[test]
fn the_command_line_has_the_last_word() {
    let overrides = Overrides {
        config_yaml: "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}\nstats_flush_interval: 2s",
        node_id: "other",
        node_zone: "z",
        user_agent_name: "tidegate",
        ..Overrides::default()
    };
    let decoder = Decoder::new();
    let loaded = decoder
        .bootstrap(document().to_string().as_bytes(), Format::Json, &overrides)
        .unwrap();
    assert_eq!(
        (&*loaded.bootstrap.node.id, &*loaded.bootstrap.node.cluster),
        ("other", "a")
    );
    assert_eq!(
        loaded.bootstrap.stats_flush_interval,
        Duration::from_secs(2)
    );
    let node = decoder
        .to_json("envoy.config.core.v3.Node", &loaded.node)
        .unwrap();
    assert_eq!(
        node,
        json!({ "id": "other", "cluster": "a", "locality": { "zone": "z" }, "user_agent_name": "tidegate" })
    );
    // The merged bootstrap is itself a bootstrap.
    let again = decoder
        .bootstrap(&loaded.proto, Format::Pb, &Overrides::default())
        .unwrap();
    assert_eq!(again.bootstrap, loaded.bootstrap);
}

#[test]
fn an_empty_bootstrap_is_a_bootstrap() {
    for text in ["", "{}", "# nothing\n"] {
        let loaded = Decoder::new()
            .bootstrap(text.as_bytes(), Format::Yaml, &Overrides::default())
            .unwrap();
        assert!(loaded.bootstrap.admin.is_none() && loaded.bootstrap.clusters.is_empty());
        assert!(loaded.bootstrap.stats.use_all_default_tags);
    }
}

/// As Envoy has it: its exporter knows no timeout, and `envoy_grpc.retry_policy` is the control plane's.
#[test]
fn what_reports_of_spans_do_not_honour_is_warned_about() {
    let provider = json!({
        "name": "envoy.tracers.opentelemetry",
        "typed_config": {
            "@type": format!("{PREFIX}envoy.config.trace.v3.OpenTelemetryConfig"),
            "grpc_service": {
                "timeout": "5s",
                "retry_policy": { "retry_on": "unavailable" },
                "envoy_grpc": { "cluster_name": "backend", "retry_policy": {} }
            }
        }
    });
    let document = with(document(), &[("/tracing", json!({ "http": provider }))]);
    let loaded = Decoder::new()
        .bootstrap(
            document.to_string().as_bytes(),
            Format::Json,
            &Overrides::default(),
        )
        .unwrap();
    let service = "tracing.http.typed_config.grpc_service";
    assert_eq!(
        loaded.bootstrap.warnings,
        [
            format!("{service}.timeout: ignored: a report waits as long as it takes, as in Envoy"),
            format!(
                "{service}.envoy_grpc.retry_policy: ignored: it is for streams of the control plane, as in Envoy"
            ),
        ]
    );
}

#[test]
fn refusals_have_the_path_from_the_root() {
    refused(&[("/bogus", json!(1))], "bogus", "no such field");
    refused(
        &[("/static_resources/clusters/0/lb_policy", json!("BEST"))],
        "static_resources.clusters[0].lb_policy",
        "BEST",
    );
    refused(
        &[(
            "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/bogus",
            json!(1),
        )],
        "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.bogus",
        "no such field",
    );
    refused(
        &[(
            "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/@type",
            json!("type.googleapis.com/no.Such"),
        )],
        "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.@type",
        "type.googleapis.com/no.Such is unknown",
    );
    refused(
        &[(
            "/static_resources/clusters/0/connect_timeout",
            json!("soon"),
        )],
        "static_resources.clusters[0].connect_timeout",
        "",
    );
    let sink = json!([{ "name": "statsd", "typed_config": {
        "@type": format!("{PREFIX}envoy.config.metrics.v3.StatsdSink"),
        "tcp_cluster_name": "nope"
    } }]);
    refused(
        &[("/stats_sinks", sink.clone())],
        "stats_sinks[0].typed_config.tcp_cluster_name",
        "tcp statsd: unknown cluster 'nope'",
    );
    refused(
        &[("/stats_sinks", sink), ("/node", Json::Null)],
        "stats_sinks[0].typed_config.tcp_cluster_name",
        "tcp statsd: node 'id' and 'cluster' are required",
    );
    refused(
        &[("/static_resources/clusters/1/name", json!("backend"))],
        "static_resources.clusters[1].name",
        "duplicate cluster 'backend'",
    );
    refused(
        &[(
            "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes/0/route/cluster",
            json!("nope"),
        )],
        "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route.cluster",
        "route: unknown cluster 'nope'",
    );
    refused(
        &[("/static_resources/secrets", json!([{ "name": "a" }]))],
        "static_resources.secrets[0].type",
        "value is required",
    );
    refused(
        &[("/default_socket_interface", json!("x"))],
        "default_socket_interface",
        "is not supported",
    );
    refused(
        &[("/dynamic_resources", dynamic()), ("/node", Json::Null)],
        "node",
        "node 'id' and 'cluster' are required",
    );
    refused(
        &[(
            "/dynamic_resources",
            with(dynamic(), &[("/ads_config/api_type", json!("REST"))]),
        )],
        "dynamic_resources.ads_config.api_type",
        "REST is not supported",
    );
    refused(
        &[(
            "/dynamic_resources",
            with(
                dynamic(),
                &[(
                    "/ads_config/grpc_services/0/envoy_grpc/cluster_name",
                    json!("nope"),
                )],
            ),
        )],
        "dynamic_resources.ads_config.grpc_services[0].envoy_grpc.cluster_name",
        "'nope' is not among the clusters",
    );
    refused(
        &[(
            "/layered_runtime",
            json!({ "layers": [{ "name": "a", "static_layer": {} }, { "name": "a", "admin_layer": {} }] }),
        )],
        "layered_runtime.layers[1].name",
        "Duplicate layer name: a",
    );
    refused(
        &[(
            "/layered_runtime",
            json!({ "layers": [{ "name": "a", "disk_layer": {} }] }),
        )],
        "layered_runtime.layers[0].disk_layer",
        "is not supported",
    );
    refused(
        &[("/stats_flush_interval", json!("0s"))],
        "stats_flush_interval",
        "value must be inside range [1ms, 300s)",
    );
}

#[test]
fn yaml_is_resolved_as_envoy_does() {
    let text = "
x: &host {socket_address: {address: 127.0.0.1, port_value: 0x1F90}}
";
    let value = crate::yaml::parse(text).unwrap();
    assert_eq!(
        value,
        json!({ "x": { "socket_address": { "address": "127.0.0.1", "port_value": 8080 } } })
    );
    let scalars = crate::yaml::parse("[yes, 'yes', No, off, TRUE, 017, 08, 1.5, -3, ~, null, '', 9007199254740993, !!str 1, 1e3, tRue]").unwrap();
    assert_eq!(
        scalars,
        json!([
            true,
            "yes",
            false,
            false,
            true,
            15,
            "08",
            "1.5",
            -3,
            null,
            null,
            "",
            "9007199254740993",
            "1",
            "1e3",
            "tRue"
        ])
    );
    let merged =
        crate::yaml::parse("base: &b {a: 1, b: 2}\nuse: {<<: *b, b: 3}\nboth: [*b, *b]\n").unwrap();
    assert_eq!(merged["use"], json!({ "b": 3, "a": 1 }));
    assert_eq!(merged["both"][1], json!({ "a": 1, "b": 2 }));
}

#[test]
fn broken_text_has_a_line() {
    let yaml = |text: &str| crate::yaml::parse(text).unwrap_err().reason;
    assert!(yaml("a: [").contains("line"), "{}", yaml("a: ["));
    assert_eq!(
        yaml("a: 1\na: 2\n"),
        "Unable to parse YAML at line 2, column 1: duplicate key 'a'"
    );
    assert_eq!(
        yaml("a: 1\n---\nb: 2\n"),
        "Unable to parse YAML at line 2, column 1: only one document is expected"
    );
    assert!(yaml("a: *nobody").contains("line 1"));
    assert!(yaml("\ta: 1").contains("line 1"));
    let json = |text: &str| crate::yaml::parse_json(text).unwrap_err().reason;
    assert!(
        json("{\"a\": }").contains("line 1 column 7"),
        "{}",
        json("{\"a\": }")
    );
    assert!(json("{\"a\": 1,\n\"a\": 2}").contains("duplicate key 'a'"));
    let bomb = format!(
        "a: &a [{}]\nb: &b [{}]\nc: &c [{}]\nd: [{}]\n",
        "x,".repeat(100),
        "*a,".repeat(100),
        "*b,".repeat(100),
        "*c,".repeat(100)
    );
    assert!(yaml(&bomb).contains("too large"));
    assert!(yaml(&"[".repeat(1000)).contains("deep") || yaml(&"[".repeat(1000)).contains("line"));
}
