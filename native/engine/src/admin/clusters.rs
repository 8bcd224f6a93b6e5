//! `/clusters`: clusters with their hosts, thresholds and counters.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tidegate_dataplane::DataplaneHandle;
use tidegate_dataplane::cluster::HostShared;
use tidegate_model::cluster::{Discovery, HealthStatus, Thresholds};
use tidegate_snapshot::{CompiledCluster, Host, HostAddress};

use super::listeners::socket_address;
use super::{Asked, Page, regex};
use crate::engine::Core;

/// Name, whether it is a gauge, and value.
type Counters = [(&'static str, bool, u64); 9];

pub(super) fn page(core: &Core, asked: &Asked) -> Page {
    let wanted = asked.param("filter").filter(|pattern| !pattern.is_empty());
    let Ok(filter) = wanted.map(regex).transpose() else {
        return Page::bad_request("Invalid re2 regex");
    };
    let manager = core.lock();
    let snapshot = Arc::clone(manager.snapshot());
    let clusters = snapshot
        .clusters()
        .filter(|cluster| {
            filter
                .as_ref()
                .is_none_or(|regex| regex.is_match(cluster.name()))
        })
        .map(|cluster| {
            let added_via_api = manager
                .clusters
                .active
                .get(cluster.name())
                .is_some_and(|entry| !entry.is_static);
            (cluster, added_via_api)
        });
    if asked.param("format") == Some("json") {
        let statuses: Vec<Value> = clusters
            .map(|(cluster, added_via_api)| status(manager.dataplane(), cluster, added_via_api))
            .collect();
        let body = if statuses.is_empty() {
            json!({})
        } else {
            json!({ "cluster_statuses": statuses })
        };
        return Page::json(&body);
    }
    let mut text = String::new();
    for (cluster, added_via_api) in clusters {
        write_text(&mut text, manager.dataplane(), cluster, added_via_api);
    }
    Page::text(text)
}

fn counters(host: Option<&HostShared>) -> Counters {
    let sum =
        |cell: fn(&tidegate_dataplane::cluster::HostCells) -> &std::sync::atomic::AtomicU64| {
            host.map_or(0, |host| host.sum(cell))
        };
    [
        ("cx_active", true, sum(|cells| &cells.cx_active)),
        (
            "cx_connect_fail",
            false,
            sum(|cells| &cells.cx_connect_fail),
        ),
        ("cx_total", false, sum(|cells| &cells.cx_total)),
        ("rq_active", true, sum(|cells| &cells.rq_active)),
        ("rq_error", false, sum(|cells| &cells.rq_error)),
        // Requests that wait for a connection belong to the pool, not to a host.
        ("rq_pending_active", true, 0),
        ("rq_success", false, sum(|cells| &cells.rq_success)),
        ("rq_timeout", false, sum(|cells| &cells.rq_timeout)),
        ("rq_total", false, sum(|cells| &cells.rq_total)),
    ]
}

/// What outlier detection says of a host.
struct Watched {
    ejected: bool,
    /// Percent; -1: unknown.
    success_rate: f64,
    local_origin_success_rate: f64,
}

impl Watched {
    fn new(dataplane: Option<&DataplaneHandle>, cluster: &str, host: &Host) -> Self {
        let monitor = dataplane.and_then(|dataplane| dataplane.host_monitor(cluster, host.id));
        let (success_rate, local_origin_success_rate) = monitor
            .as_ref()
            .map_or((-1.0, -1.0), |monitor| monitor.success_rates());
        Self {
            ejected: monitor.is_some_and(|monitor| monitor.is_ejected()),
            success_rate,
            local_origin_success_rate,
        }
    }
}

fn health_flags(health: HealthStatus, ejected: bool) -> &'static str {
    match (health, ejected) {
        (HealthStatus::Unknown | HealthStatus::Healthy, true) => "/failed_outlier_check",
        (HealthStatus::Unhealthy | HealthStatus::Timeout, true) => {
            "/failed_outlier_check/failed_eds_health"
        }
        (HealthStatus::Draining, true) => "/failed_outlier_check/eds_status_draining",
        (HealthStatus::Degraded, true) => "/failed_outlier_check/degraded_eds_health",
        (health, false) => configured_health_flags(health),
    }
}

fn configured_health_flags(health: HealthStatus) -> &'static str {
    match health {
        HealthStatus::Unknown | HealthStatus::Healthy => "healthy",
        HealthStatus::Unhealthy => "/failed_eds_health",
        HealthStatus::Draining => "/eds_status_draining",
        HealthStatus::Timeout => "/failed_eds_health",
        HealthStatus::Degraded => "/degraded_eds_health",
    }
}

fn write_text(
    text: &mut String,
    dataplane: Option<&DataplaneHandle>,
    cluster: &CompiledCluster,
    added_via_api: bool,
) {
    let name = cluster.name();
    let mut line = |what: &str, value: &dyn std::fmt::Display| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}::{what}::{value}");
    };
    line("observability_name", &observability_name(cluster));
    let breakers = &cluster.config.circuit_breakers;
    for (priority, limits) in [("default", &breakers.default), ("high", &breakers.high)] {
        for (limit, value) in thresholds(limits) {
            line(&format!("{priority}_priority::{limit}"), &value);
        }
    }
    if let Some(detector) = dataplane.and_then(|dataplane| dataplane.detector(name)) {
        for (what, value) in detector.texts() {
            line(what, &value);
        }
    }
    line("added_via_api", &added_via_api);
    if let Some(service) = eds_service_name(cluster) {
        line("eds_service_name", &service);
    }
    let on_demand = on_demand(dataplane, cluster);
    for host in cluster.endpoints.hosts.iter().chain(&on_demand) {
        let at = &host.address_text;
        let shared = dataplane.and_then(|dataplane| dataplane.host_counters(name, host.id));
        for (counter, _, value) in counters(shared.as_deref()) {
            line(&format!("{at}::{counter}"), &value);
        }
        line(&format!("{at}::hostname"), &host.hostname);
        let watched = Watched::new(dataplane, name, host);
        line(
            &format!("{at}::health_flags"),
            &health_flags(host.health, watched.ejected),
        );
        line(&format!("{at}::weight"), &host.weight);
        line(&format!("{at}::region"), &host.locality.region.0);
        line(&format!("{at}::zone"), &host.locality.zone.0);
        line(&format!("{at}::sub_zone"), &host.locality.sub_zone.0);
        line(&format!("{at}::canary"), &host.is_canary());
        line(&format!("{at}::priority"), &host.priority);
        line(&format!("{at}::success_rate"), &watched.success_rate);
        line(
            &format!("{at}::local_origin_success_rate"),
            &watched.local_origin_success_rate,
        );
    }
}

/// Hosts that no configuration names.
fn on_demand(dataplane: Option<&DataplaneHandle>, cluster: &CompiledCluster) -> Vec<Arc<Host>> {
    match (&cluster.config.discovery, dataplane) {
        (Discovery::OriginalDst(_), Some(dataplane)) => dataplane.hosts_on_demand(cluster.name()),
        _ => Vec::new(),
    }
}

fn observability_name(cluster: &CompiledCluster) -> String {
    cluster.config.alt_stat_name.to_string()
}

fn eds_service_name(cluster: &CompiledCluster) -> Option<&str> {
    match &cluster.config.discovery {
        Discovery::Eds { service_name, .. } if service_name != cluster.name() => Some(service_name),
        _ => None,
    }
}

fn thresholds(limits: &Thresholds) -> [(&'static str, u32); 4] {
    [
        ("max_connections", limits.max_connections),
        ("max_pending_requests", limits.max_pending_requests),
        ("max_requests", limits.max_requests),
        ("max_retries", limits.max_retries),
    ]
}

fn status(
    dataplane: Option<&DataplaneHandle>,
    cluster: &CompiledCluster,
    added_via_api: bool,
) -> Value {
    let mut fields = Map::new();
    fields.insert("name".to_owned(), json!(&**cluster.name()));
    if added_via_api {
        fields.insert("added_via_api".to_owned(), json!(true));
    }
    let hosts: Vec<Value> = cluster
        .endpoints
        .hosts
        .iter()
        .chain(&on_demand(dataplane, cluster))
        .map(|host| {
            let shared =
                dataplane.and_then(|dataplane| dataplane.host_counters(cluster.name(), host.id));
            let watched = Watched::new(dataplane, cluster.name(), host);
            host_status(host, shared.as_deref(), &watched)
        })
        .collect();
    if !hosts.is_empty() {
        fields.insert("host_statuses".to_owned(), Value::Array(hosts));
    }
    if let Some(detector) = dataplane.and_then(|dataplane| dataplane.detector(cluster.name())) {
        for (name, rate) in [
            ("success_rate_ejection_threshold", detector.thresholds().0),
            (
                "local_origin_success_rate_ejection_threshold",
                detector.thresholds().1,
            ),
        ] {
            if rate >= 0.0 {
                fields.insert(name.to_owned(), json!({ "value": rate }));
            }
        }
    }
    let breakers = &cluster.config.circuit_breakers;
    let limits = |limits: &Thresholds, high: bool| {
        let mut object = Map::new();
        if high {
            object.insert("priority".to_owned(), json!("HIGH"));
        }
        object.extend(thresholds(limits).map(|(name, value)| (name.to_owned(), json!(value))));
        Value::Object(object)
    };
    fields.insert(
        "circuit_breakers".to_owned(),
        json!({ "thresholds": [limits(&breakers.default, false), limits(&breakers.high, true)] }),
    );
    fields.insert(
        "observability_name".to_owned(),
        json!(observability_name(cluster)),
    );
    if let Some(service) = eds_service_name(cluster) {
        fields.insert("eds_service_name".to_owned(), json!(service));
    }
    Value::Object(fields)
}

fn host_status(host: &Host, shared: Option<&HostShared>, watched: &Watched) -> Value {
    let address = match &host.address {
        HostAddress::Socket(address) => socket_address(address),
        HostAddress::Pipe(path) => json!({ "pipe": { "path": &**path } }),
    };
    let metric = |name: &str, gauge: bool, value: u64| {
        let mut object = Map::new();
        if gauge {
            object.insert("type".to_owned(), json!("GAUGE"));
        }
        if value > 0 {
            object.insert("value".to_owned(), json!(value.to_string()));
        }
        object.insert("name".to_owned(), json!(name));
        Value::Object(object)
    };
    let all = counters(shared);
    let of_kind = |wanted: bool| {
        all.iter()
            .filter(move |(_, gauge, _)| *gauge == wanted)
            .map(move |(name, gauge, value)| metric(name, *gauge, *value))
    };
    let stats: Vec<Value> = of_kind(false).chain(of_kind(true)).collect();
    let mut health = match host.health {
        HealthStatus::Unknown | HealthStatus::Healthy => json!({ "eds_health_status": "HEALTHY" }),
        HealthStatus::Unhealthy | HealthStatus::Timeout => {
            json!({ "eds_health_status": "UNHEALTHY" })
        }
        HealthStatus::Draining => json!({ "eds_health_status": "DRAINING" }),
        HealthStatus::Degraded => json!({ "eds_health_status": "DEGRADED" }),
    };
    if watched.ejected
        && let Some(health) = health.as_object_mut()
    {
        health.insert("failed_outlier_check".to_owned(), json!(true));
    }
    let mut fields = Map::new();
    for (name, rate) in [
        ("success_rate", watched.success_rate),
        (
            "local_origin_success_rate",
            watched.local_origin_success_rate,
        ),
    ] {
        if rate >= 0.0 {
            fields.insert(name.to_owned(), json!({ "value": rate }));
        }
    }
    fields.insert("address".to_owned(), address);
    fields.insert("stats".to_owned(), Value::Array(stats));
    fields.insert("health_status".to_owned(), health);
    fields.insert("weight".to_owned(), json!(host.weight));
    if !host.hostname.is_empty() {
        fields.insert("hostname".to_owned(), json!(&*host.hostname));
    }
    if host.priority > 0 {
        fields.insert("priority".to_owned(), json!(host.priority));
    }
    let mut locality = Map::new();
    for (name, value) in [
        ("region", &host.locality.region),
        ("zone", &host.locality.zone),
        ("sub_zone", &host.locality.sub_zone),
    ] {
        if !value.0.is_empty() {
            locality.insert(name.to_owned(), json!(&*value.0));
        }
    }
    fields.insert("locality".to_owned(), Value::Object(locality));
    Value::Object(fields)
}
