//! The hosts of a cluster as `/config_dump?include_eds` shows them: what Envoy makes of them, not what was configured.
//!
//! Works on the JSON of an assignment, which has what the data plane does not keep (metadata, health check ports). Must not
//! know where the assignment came from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Map, Value, json};
use tidegate_model::cluster::Discovery;
use tidegate_snapshot::CompiledCluster;
use tidegate_xds::type_url;

/// In Envoy's order: by priority, the local locality first of the others in theirs.
type Place = (u64, bool, [String; 3]);

/// An assignment with what hosts are by default. Names are resolved, localities of one name are one, and those without a
/// host are left out. `local`: the node's locality.
pub(super) fn endpoint_config(
    name: &str,
    mut assignment: Value,
    cluster: Option<&CompiledCluster>,
    local: Option<&Value>,
) -> Value {
    let local = local.map(names);
    let dns = cluster.filter(|cluster| cluster.is_resolved());
    let mut places: BTreeMap<Place, (Value, Vec<Value>)> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for group in assignment
        .get_mut("endpoints")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let priority = number(group, "priority").unwrap_or_default();
        let mut hosts = Vec::new();
        for host in taken(group, "lb_endpoints") {
            match dns {
                None => hosts.push(with_defaults(host)),
                Some(cluster) => {
                    let found = resolved(&host, cluster).into_iter();
                    // Of two hosts of one address Envoy keeps the first.
                    let new = found.filter(|(at, _)| seen.insert((priority, at.clone())));
                    hosts.extend(new.map(|(_, host)| with_defaults(host)));
                }
            }
        }
        if hosts.is_empty() {
            continue;
        }
        let locality = group
            .get_mut("locality")
            .map_or_else(|| json!({}), Value::take);
        let weight = number(group, "load_balancing_weight").unwrap_or_default();
        let place = names(&locality);
        let is_local = local.as_ref() == Some(&place);
        let entry = places
            .entry((priority, !is_local, place))
            .or_insert_with(|| (json!({ "locality": locality }), Vec::new()));
        insert(&mut entry.0, "load_balancing_weight", json!(weight));
        if priority > 0 {
            insert(&mut entry.0, "priority", json!(priority));
        }
        entry.1.append(&mut hosts);
    }
    let localities: Vec<Value> = places
        .into_values()
        .map(|(mut group, hosts)| {
            insert(&mut group, "lb_endpoints", Value::Array(hosts));
            group
        })
        .collect();
    let mut fields = Map::new();
    fields.insert("@type".to_owned(), json!(type_url::CLUSTER_LOAD_ASSIGNMENT));
    fields.insert("cluster_name".to_owned(), json!(name));
    if !localities.is_empty() {
        fields.insert("endpoints".to_owned(), Value::Array(localities));
    }
    let factor = assignment.pointer("/policy/overprovisioning_factor");
    let factor = factor.cloned().unwrap_or_else(|| json!(140));
    fields.insert(
        "policy".to_owned(),
        json!({ "overprovisioning_factor": factor }),
    );
    Value::Object(fields)
}

/// A host of a name once for each address of the name, with the addresses' text.
fn resolved(host: &Value, cluster: &CompiledCluster) -> Vec<((String, u64), Value)> {
    let Some(socket) = host.pointer("/endpoint/address/socket_address") else {
        return Vec::new();
    };
    let name = socket.get("address").and_then(Value::as_str);
    let name = name.unwrap_or_default();
    let port = number(socket, "port_value").unwrap_or_default();
    let addresses = match name.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => cluster.resolved(name, port.try_into().unwrap_or_default()),
    };
    let take = match cluster.config.discovery {
        Discovery::LogicalDns(_) => 1,
        _ => addresses.len(),
    };
    let one = |address: IpAddr| {
        let mut host = host.clone();
        let address = address.to_string();
        if let Some(socket) = host.pointer_mut("/endpoint/address/socket_address") {
            insert(socket, "address", json!(address));
        }
        if let Some(endpoint) = host.get_mut("endpoint").and_then(Value::as_object_mut) {
            endpoint.entry("hostname").or_insert_with(|| json!(name));
        }
        if let Some(host) = host.as_object_mut() {
            host.entry("metadata").or_insert_with(|| json!({}));
        }
        ((address, port), host)
    };
    addresses.into_iter().take(take).map(one).collect()
}

fn with_defaults(mut host: Value) -> Value {
    if let Some(endpoint) = host.get_mut("endpoint").and_then(Value::as_object_mut) {
        endpoint
            .entry("health_check_config")
            .or_insert_with(|| json!({}));
    }
    if let Some(host) = host.as_object_mut() {
        let health = match host.get("health_status").and_then(Value::as_str) {
            None | Some("UNKNOWN" | "HEALTHY") => "HEALTHY",
            Some("DEGRADED") => "DEGRADED",
            Some(_) => "UNHEALTHY",
        };
        host.insert("health_status".to_owned(), json!(health));
        host.entry("load_balancing_weight")
            .or_insert_with(|| json!(1));
    }
    host
}

/// Region, zone and sub-zone.
fn names(locality: &Value) -> [String; 3] {
    ["region", "zone", "sub_zone"].map(|name| {
        let text = locality.get(name).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    })
}

fn number(object: &Value, key: &str) -> Option<u64> {
    object.get(key).and_then(Value::as_u64)
}

fn taken(object: &mut Value, key: &str) -> Vec<Value> {
    match object.get_mut(key).map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn insert(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(key.to_owned(), value);
    }
}
