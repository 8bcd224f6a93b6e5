//! State of the world, warming and rejection, on a running engine with real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in its helpers"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_engine::{Engine, Event, Options, UpdateFailure};
use tidegate_xds::{Decoder, Format, type_url};

const ADS: &str = r"
node: {id: node, cluster: nodes}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
dynamic_resources:
  ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}
  cds_config: {ads: {}, resource_api_version: V3}
  lds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]}
";

struct Proxy {
    engine: Engine,
    decoder: Decoder,
    seen: Vec<Event>,
}

impl Proxy {
    fn start() -> Self {
        let options = Options {
            concurrency: 1,
            log_level: "off".to_owned(),
            ..Options::default()
        };
        let mut engine = Engine::new(ADS.as_bytes(), Format::Yaml, options).unwrap();
        engine.start().unwrap();
        Self {
            engine,
            decoder: Decoder::new(),
            seen: Vec::new(),
        }
    }

    fn encode(&self, type_url: &str, resources: &[Value]) -> Vec<(String, Vec<u8>)> {
        resources
            .iter()
            .map(|resource| {
                let name = resource
                    .get("name")
                    .or_else(|| resource.get("cluster_name"))
                    .unwrap();
                let message = type_url.strip_prefix(type_url::PREFIX).unwrap();
                (
                    name.as_str().unwrap().to_owned(),
                    self.decoder.from_json(message, resource).unwrap(),
                )
            })
            .collect()
    }

    fn apply(
        &self,
        type_url: &str,
        version: &str,
        resources: &[Value],
    ) -> tidegate_engine::ApplyResult {
        self.engine
            .apply(type_url, version, &self.encode(type_url, resources), "")
    }

    /// What is asked for, as `TYPE name name`.
    fn wanted(&self) -> Vec<String> {
        self.engine
            .subscriptions()
            .iter()
            .map(|wanted| {
                let kind = wanted.type_url.rsplit('.').next().unwrap();
                format!("{kind} {}", wanted.names.join(" "))
                    .trim_end()
                    .to_owned()
            })
            .collect()
    }

    fn saw(&mut self, event: Event) -> bool {
        self.seen.extend(self.engine.take_events());
        self.seen.contains(&event)
    }

    fn admin(&self, path: &str) -> (u16, String) {
        let address = self.engine.bootstrap_info().admin_address;
        http(&address, path)
    }

    fn dump(&self, pointer: &str) -> Value {
        let (_, body) = self.admin("/config_dump?include_eds");
        let document: Value = serde_json::from_str(&body).unwrap();
        document.pointer(pointer).cloned().unwrap_or_default()
    }

    fn get(&self, listener: &str, path: &str) -> (u16, String) {
        let address = self
            .engine
            .listener_addresses(listener)
            .first()
            .copied()
            .unwrap();
        http(&address.to_string(), path)
    }
}

fn http(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let body = if head.contains("chunked") {
        let mut rest = body;
        let mut whole = String::new();
        while let Some((size, after)) = rest.split_once("\r\n") {
            let size = usize::from_str_radix(size, 16).unwrap();
            if size == 0 {
                break;
            }
            whole.push_str(&after[..size]);
            rest = &after[size + 2..];
        }
        whole
    } else {
        body.to_owned()
    };
    (status, body)
}

fn eds_cluster(name: &str) -> Value {
    json!({
        "name": name,
        "type": "EDS",
        "eds_cluster_config": { "eds_config": { "ads": {}, "resource_api_version": "V3" } },
    })
}

fn endpoints(name: &str, port: u16) -> Value {
    json!({
        "cluster_name": name,
        "endpoints": [{ "lb_endpoints": [
            { "endpoint": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } } } },
        ] }],
    })
}

fn listener(name: &str, port: u16, routes: &Value) -> Value {
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
    });
    let fields = manager.as_object_mut().unwrap();
    match routes {
        Value::String(rds) => fields.insert(
            "rds".to_owned(),
            json!({ "route_config_name": rds, "config_source": { "ads": {}, "resource_api_version": "V3" } }),
        ),
        inline => fields.insert("route_config".to_owned(), inline.clone()),
    };
    json!({
        "name": name,
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
        "filter_chains": [{ "filters": [
            { "name": "envoy.filters.network.http_connection_manager", "typed_config": manager },
        ] }],
    })
}

fn routes(name: &str, body: &str) -> Value {
    json!({
        "name": name,
        "virtual_hosts": [{
            "name": "v",
            "domains": ["*"],
            "routes": [{
                "match": { "prefix": "/" },
                "direct_response": { "status": 200, "body": { "inline_string": body } },
            }],
        }],
    })
}

#[test]
fn warming_goes_from_clusters_to_endpoints_to_listeners_to_routes() {
    let mut proxy = Proxy::start();
    assert_eq!(proxy.wanted(), ["Cluster"]);
    assert_eq!(
        proxy.admin("/ready"),
        (503, "PRE_INITIALIZING\n".to_owned())
    );

    let result = proxy.apply(type_url::CLUSTER, "1", &[eds_cluster("a")]);
    assert_eq!(
        (result.accepted, result.changed),
        (vec!["a".to_owned()], vec!["a".to_owned()])
    );
    assert_eq!(proxy.wanted(), ["Cluster", "ClusterLoadAssignment a"]);
    assert_eq!(
        proxy.dump("/configs/1/dynamic_warming_clusters/0/cluster/name"),
        "a"
    );

    proxy.apply(type_url::CLUSTER_LOAD_ASSIGNMENT, "1", &[endpoints("a", 9)]);
    assert_eq!(
        proxy.wanted(),
        ["Cluster", "ClusterLoadAssignment a", "Listener"]
    );
    assert_eq!(proxy.admin("/ready"), (503, "INITIALIZING\n".to_owned()));

    proxy.apply(type_url::LISTENER, "1", &[listener("l", 0, &json!("r"))]);
    assert_eq!(
        proxy.wanted(),
        [
            "Cluster",
            "ClusterLoadAssignment a",
            "Listener",
            "RouteConfiguration r"
        ]
    );
    assert!(!proxy.saw(Event::Initialized));
    assert_eq!(
        proxy.dump("/configs/3/dynamic_listeners/0/warming_state/version_info"),
        "1"
    );

    proxy.apply(type_url::ROUTE_CONFIGURATION, "1", &[routes("r", "one")]);
    assert!(proxy.saw(Event::Initialized));
    assert_eq!(proxy.admin("/ready"), (200, "LIVE\n".to_owned()));
    assert_eq!(proxy.get("l", "/"), (200, "one".to_owned()));
    assert_eq!(
        proxy.dump("/configs/3/dynamic_listeners/0/active_state/listener/name"),
        "l"
    );
    assert_eq!(
        proxy.dump("/configs/2/dynamic_endpoint_configs/0/endpoint_config/cluster_name"),
        "a"
    );

    // A new route is in force when the call returns.
    let result = proxy.apply(type_url::ROUTE_CONFIGURATION, "2", &[routes("r", "two")]);
    assert_eq!(result.changed, ["r"]);
    assert_eq!(proxy.get("l", "/"), (200, "two".to_owned()));
    assert_eq!(proxy.engine.stat("http.l.rds.r.update_success"), Some(2));
}

#[test]
fn a_rejected_resource_keeps_its_last_good_version() {
    let proxy = Proxy::start();
    proxy.apply(type_url::CLUSTER, "1", &[]);
    proxy.apply(
        type_url::LISTENER,
        "1",
        &[listener("l", 0, &routes("r", "good"))],
    );
    assert_eq!(proxy.get("l", "/"), (200, "good".to_owned()));

    let mut broken = routes("r", "bad");
    broken["virtual_hosts"][0]["routes"][0]["match"] = json!({ "safe_regex": { "regex": "(" } });
    let result = proxy.apply(
        type_url::LISTENER,
        "2",
        &[
            listener("l", 0, &broken),
            listener("m", 0, &routes("r", "new")),
        ],
    );
    assert_eq!(result.accepted, ["m"]);
    let rejection = &result.rejected[0];
    assert_eq!(rejection.name, "l");
    assert!(
        rejection
            .path
            .ends_with("virtual_hosts[0].routes[0].match.safe_regex.regex"),
        "{rejection:?}"
    );
    assert!(
        result
            .detail
            .starts_with("Error adding/updating listener(s) l: "),
        "{}",
        result.detail
    );
    assert_eq!(proxy.get("l", "/"), (200, "good".to_owned()));
    assert_eq!(proxy.get("m", "/"), (200, "new".to_owned()));
    assert_eq!(
        proxy.engine.stat("listener_manager.lds.update_rejected"),
        Some(1)
    );
    let listeners = proxy.dump("/configs/3/dynamic_listeners");
    assert_eq!(listeners[0]["error_state"]["version_info"], "2");
    assert_eq!(listeners[0]["active_state"]["version_info"], "1");

    // Bytes that are no message are refused too.
    let garbage = proxy.engine.apply(
        type_url::CLUSTER,
        "2",
        &[("x".to_owned(), vec![0xff; 7])],
        "",
    );
    assert_eq!(garbage.rejected[0].name, "");
    assert_eq!(
        proxy.engine.stat("cluster_manager.cds.update_rejected"),
        Some(1)
    );
}

#[test]
fn unchanged_content_touches_nothing_and_absent_names_go() {
    let proxy = Proxy::start();
    proxy.apply(type_url::CLUSTER, "1", &[]);
    let listeners = [
        listener("l", 0, &routes("r", "x")),
        listener("m", 0, &routes("r", "y")),
    ];
    proxy.apply(type_url::LISTENER, "1", &listeners);
    let before = proxy.engine.listener_addresses("l");
    let mut held = TcpStream::connect(before[0]).unwrap();

    let again = proxy.apply(type_url::LISTENER, "2", &listeners);
    assert_eq!((again.accepted.len(), again.changed.len()), (2, 0));
    assert_eq!(proxy.engine.listener_addresses("l"), before);
    assert_eq!(
        proxy.engine.stat("listener_manager.listener_modified"),
        Some(0)
    );
    assert_eq!(
        proxy.dump("/configs/3/dynamic_listeners/0/active_state/version_info"),
        "1"
    );

    let fewer = proxy.apply(type_url::LISTENER, "3", &listeners[..1]);
    assert_eq!(fewer.removed, ["m"]);
    assert!(proxy.engine.listener_addresses("m").is_empty());
    // The connection opened before is still served.
    held.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    write!(
        held,
        "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    held.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with('x'), "{answer}");
}

#[test]
fn endpoints_go_to_the_clusters_that_name_them_now() {
    let proxy = Proxy::start();
    let from = |service: &str| {
        let mut cluster = eds_cluster("a");
        cluster["eds_cluster_config"]["service_name"] = json!(service);
        cluster
    };
    proxy.apply(type_url::CLUSTER, "1", &[from("old")]);
    let both = |port| [endpoints("old", port), endpoints("new", port + 1)];
    proxy.apply(type_url::CLUSTER_LOAD_ASSIGNMENT, "1", &both(1000));
    let updates = proxy.engine.stat("cluster.a.update_success");
    // While the new version warms both names are listened to, and then only the new one.
    proxy.apply(type_url::CLUSTER, "2", &[from("new")]);
    let warm = proxy.apply(type_url::CLUSTER_LOAD_ASSIGNMENT, "2", &both(2000));
    assert_eq!(warm.changed, ["old", "new"]);
    let late = proxy.apply(type_url::CLUSTER_LOAD_ASSIGNMENT, "3", &both(3000));
    assert_eq!(late.changed, ["new"]);
    let (_, clusters) = proxy.admin("/clusters");
    assert!(clusters.contains("127.0.0.1:3001"), "{clusters}");
    assert!(!clusters.contains("127.0.0.1:3000"), "{clusters}");
    assert!(proxy.engine.stat("cluster.a.update_success") > updates);
}

#[test]
fn what_timed_out_is_no_longer_waited_for() {
    let mut proxy = Proxy::start();
    proxy
        .engine
        .update_failed(type_url::CLUSTER, &[], UpdateFailure::Connection, "");
    assert_eq!(proxy.wanted(), ["Cluster"]);
    proxy.apply(type_url::CLUSTER, "1", &[eds_cluster("a")]);
    proxy.engine.update_failed(
        type_url::CLUSTER_LOAD_ASSIGNMENT,
        &["a".to_owned()],
        UpdateFailure::FetchTimeout,
        "",
    );
    assert!(proxy.wanted().contains(&"Listener".to_owned()));
    proxy.apply(type_url::LISTENER, "1", &[listener("l", 0, &json!("r"))]);
    proxy.engine.update_failed(
        type_url::ROUTE_CONFIGURATION,
        &["r".to_owned()],
        UpdateFailure::FetchTimeout,
        "",
    );
    assert!(proxy.saw(Event::Initialized));
    assert_eq!(proxy.get("l", "/").0, 404);
    assert_eq!(proxy.engine.stat("cluster.a.init_fetch_timeout"), Some(1));
    // It may still come.
    proxy.apply(type_url::ROUTE_CONFIGURATION, "1", &[routes("r", "late")]);
    assert_eq!(proxy.get("l", "/"), (200, "late".to_owned()));
}

#[test]
fn addresses_and_names_belong_to_one_listener() {
    let proxy = Proxy::start();
    proxy.apply(type_url::CLUSTER, "1", &[]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let result = proxy.apply(
        type_url::LISTENER,
        "1",
        &[listener("l", port, &routes("r", "x"))],
    );
    assert!(
        result.rejected[0].reason.contains("cannot bind"),
        "{result:?}"
    );
    drop(taken);
    let twins = [
        listener("l", port, &routes("r", "x")),
        listener("m", port, &routes("r", "x")),
    ];
    let result = proxy.apply(type_url::LISTENER, "2", &twins);
    assert_eq!(result.accepted, ["l"]);
    assert!(
        result.rejected[0].reason.contains("has duplicate address"),
        "{result:?}"
    );
    let same = [
        listener("n", 0, &routes("r", "x")),
        listener("n", 0, &routes("r", "y")),
    ];
    let result = proxy.apply(type_url::LISTENER, "3", &same);
    assert_eq!(
        (result.rejected.len(), result.removed),
        (2, vec!["l".to_owned()])
    );
}

#[test]
fn routes_to_unknown_clusters_are_refused_where_that_is_asked_for() {
    let proxy = Proxy::start();
    proxy.apply(type_url::CLUSTER, "1", &[]);
    let mut unknown = routes("r", "");
    unknown["virtual_hosts"][0]["routes"][0] =
        json!({ "match": { "prefix": "/" }, "route": { "cluster": "nowhere" } });
    let result = proxy.apply(type_url::LISTENER, "1", &[listener("l", 0, &unknown)]);
    assert_eq!(
        result.rejected[0].reason,
        "route: unknown cluster 'nowhere'"
    );
    assert_eq!(
        result.rejected[0].path,
        "filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route.cluster"
    );
    unknown["validate_clusters"] = json!(false);
    assert!(
        proxy
            .apply(type_url::LISTENER, "2", &[listener("l", 0, &unknown)])
            .rejected
            .is_empty()
    );
    assert_eq!(proxy.get("l", "/").0, 503);
}

#[test]
fn names_are_resolved_before_a_cluster_serves() {
    let proxy = Proxy::start();
    let cluster = json!({
        "name": "d",
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_ONLY",
        "load_assignment": { "cluster_name": "d", "endpoints": [{ "lb_endpoints": [
            { "endpoint": { "address": { "socket_address": { "address": "localhost", "port_value": 9 } } } },
        ] }] },
    });
    proxy.apply(type_url::CLUSTER, "1", &[cluster]);
    let limit = Instant::now() + Duration::from_secs(10);
    while !proxy.wanted().contains(&"Listener".to_owned()) && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(10));
    }
    let (_, clusters) = proxy.admin("/clusters?filter=^d$");
    assert!(
        clusters.contains("d::127.0.0.1:9::hostname::localhost"),
        "{clusters}"
    );
}

#[test]
fn a_drain_ends_when_the_last_connection_does() {
    let mut proxy = Proxy::start();
    proxy.apply(type_url::CLUSTER, "1", &[]);
    proxy.apply(
        type_url::LISTENER,
        "1",
        &[listener("l", 0, &routes("r", "x"))],
    );
    assert_eq!(proxy.get("l", "/").0, 200);
    proxy.engine.drain(Duration::from_secs(5));
    let limit = Instant::now() + Duration::from_secs(3);
    while !proxy.saw(Event::Drained) && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(proxy.saw(Event::Drained));
    proxy.engine.shutdown();
}
