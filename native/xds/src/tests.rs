//! What is accepted, what is refused and with which path, through the crate's own door.

mod accepted;
mod bootstrap;
mod discovery;
mod http2;
mod json;
mod rejected;
mod retries;
mod tls;
mod v2;

use serde_json::{Value as Json, json};

use crate::{Decoder, Rejected};

pub(crate) const PREFIX: &str = "type.googleapis.com/";

/// An encoded message from proto-JSON.
pub(crate) fn encode(message_name: &str, value: &Json) -> Vec<u8> {
    Decoder::new().from_json(message_name, value).unwrap()
}

/// `value` with `changes`, each a JSON pointer and the value to put there (`null` removes).
pub(crate) fn with(mut value: Json, changes: &[(&str, Json)]) -> Json {
    for (pointer, new) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = value
            .pointer_mut(parent)
            .unwrap_or_else(|| panic!("nothing at {parent}"));
        match parent {
            Json::Object(fields) if new.is_null() => drop(fields.remove(key)),
            Json::Object(fields) => drop(fields.insert(key.to_owned(), new.clone())),
            Json::Array(items) => match key.parse::<usize>().unwrap() {
                at if at == items.len() => items.push(new.clone()),
                at => items[at] = new.clone(),
            },
            _ => panic!("{pointer} leads nowhere"),
        }
    }
    value
}

/// A listener with a connection manager and inline routes.
pub(crate) fn listener() -> Json {
    json!({
        "name": "main",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 10000 } },
        "filter_chains": [{
            "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": connection_manager()
            }]
        }]
    })
}

pub(crate) fn connection_manager() -> Json {
    json!({
        "@type": format!("{PREFIX}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "ingress",
        "route_config": route_configuration(),
        "http_filters": [router()]
    })
}

pub(crate) fn router() -> Json {
    json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": format!("{PREFIX}envoy.extensions.filters.http.router.v3.Router") }
    })
}

pub(crate) fn route_configuration() -> Json {
    json!({
        "name": "local",
        "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "backend" } }]
        }]
    })
}

pub(crate) fn tcp_listener() -> Json {
    with(
        listener(),
        &[(
            "/filter_chains/0/filters/0",
            json!({
                "name": "envoy.filters.network.tcp_proxy",
                "typed_config": {
                    "@type": format!("{PREFIX}envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"),
                    "stat_prefix": "tcp",
                    "cluster": "backend"
                }
            }),
        )],
    )
}

pub(crate) fn cluster() -> Json {
    json!({
        "name": "backend",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": assignment()
    })
}

pub(crate) fn assignment() -> Json {
    json!({
        "cluster_name": "backend",
        "endpoints": [{
            "lb_endpoints": [{
                "endpoint": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 9080 } } }
            }]
        }]
    })
}

pub(crate) const LISTENER: &str = "envoy.config.listener.v3.Listener";
pub(crate) const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
pub(crate) const ASSIGNMENT: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";
pub(crate) const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";

/// Decodes a resource of any type, for its outcome.
pub(crate) fn outcome(message_name: &str, value: &Json) -> Result<(), Rejected> {
    let decoder = Decoder::new();
    let bytes = decoder.from_json(message_name, value)?;
    match message_name {
        LISTENER => decoder.listener(&bytes).map(drop),
        CLUSTER => decoder.cluster(&bytes).map(drop),
        ASSIGNMENT => decoder.cluster_load_assignment(&bytes).map(drop),
        ROUTES => decoder.route_configuration(&bytes).map(drop),
        other => panic!("{other}"),
    }
}
