//! `/listeners`: names and bound addresses.

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Asked, Page};
use crate::engine::Core;

pub(super) fn page(core: &Core, asked: &Asked) -> Page {
    let manager = core.lock();
    let listeners: Vec<(String, Vec<SocketAddr>)> = manager
        .listeners
        .active
        .values()
        .map(|entry| {
            let name = &entry.config.name;
            let bound = manager
                .dataplane()
                .map(|dataplane| dataplane.local_addresses(name))
                .unwrap_or_default();
            let addresses = if bound.is_empty() {
                // Not bound to a port: reached by hand-off only.
                std::iter::once(entry.config.address)
                    .chain(entry.config.additional_addresses.iter().copied())
                    .collect()
            } else {
                bound
            };
            (name.to_string(), addresses)
        })
        .collect();
    drop(manager);
    if asked.param("format") == Some("json") {
        let statuses: Vec<Value> = listeners
            .iter()
            .map(|(name, addresses)| status(name, addresses))
            .collect();
        let body = if statuses.is_empty() {
            json!({})
        } else {
            json!({ "listener_statuses": statuses })
        };
        return Page::json(&body);
    }
    let mut text = String::new();
    for (name, addresses) in &listeners {
        for address in addresses {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}::{address}");
        }
    }
    Page::text(text)
}

fn status(name: &str, addresses: &[SocketAddr]) -> Value {
    let mut addresses = addresses.iter().map(socket_address);
    let mut status = json!({ "name": name });
    if let Value::Object(fields) = &mut status {
        if let Some(first) = addresses.next() {
            fields.insert("local_address".to_owned(), first);
        }
        let more: Vec<Value> = addresses.collect();
        if !more.is_empty() {
            fields.insert("additional_local_addresses".to_owned(), Value::Array(more));
        }
    }
    status
}

/// As protobuf prints an `Address`.
pub(super) fn socket_address(address: &SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}
