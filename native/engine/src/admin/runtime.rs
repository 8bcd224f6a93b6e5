//! `/runtime` and `/runtime_modify`.

use hyper::StatusCode;
use serde_json::{Map, Value, json};
use tidegate_xds::Decoder;

use super::{Asked, Page};
use crate::engine::Core;

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

pub(super) fn page(core: &Core, _: &Asked) -> Page {
    // Layers are kept flattened; their names and order are in the bootstrap, which nobody asks for often.
    let bootstrap = Decoder::new()
        .to_json(BOOTSTRAP, &core.loaded.proto)
        .unwrap_or_default();
    let overrides: Vec<(String, String)> = {
        let manager = core.lock();
        let pairs = manager.runtime.overrides();
        pairs
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect()
    };
    let mut names: Vec<Value> = Vec::new();
    let mut layers: Vec<Vec<(String, String)>> = Vec::new();
    for layer in bootstrap
        .pointer("/layered_runtime/layers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        names.push(layer.get("name").cloned().unwrap_or_default());
        layers.push(match (layer.get("static_layer"), layer.get("rtds_layer")) {
            (Some(entries), _) => flatten("", entries),
            (None, Some(rtds)) => {
                let name = rtds.get("name").and_then(Value::as_str);
                delivered(core, name.unwrap_or_default())
            }
            (None, None) => overrides.clone(),
        });
    }
    let mut keys: Vec<&String> = layers.iter().flatten().map(|(key, _)| key).collect();
    keys.sort();
    keys.dedup();
    let mut entries = Map::new();
    for key in keys {
        let values: Vec<&str> = layers
            .iter()
            .map(|layer| {
                layer
                    .iter()
                    .find(|(other, _)| other == key)
                    .map(|(_, value)| value.as_str())
                    .unwrap_or_default()
            })
            .collect();
        let last = values
            .iter()
            .rev()
            .find(|value| !value.is_empty())
            .copied()
            .unwrap_or_default();
        entries.insert(
            key.clone(),
            json!({ "final_value": last, "layer_values": values }),
        );
    }
    Page::json(&json!({ "entries": entries, "layers": names }))
}

fn delivered(core: &Core, layer: &str) -> Vec<(String, String)> {
    let manager = core.lock();
    let pairs = manager.runtime.delivered(layer);
    pairs
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

fn flatten(prefix: &str, value: &Value) -> Vec<(String, String)> {
    match value {
        Value::Object(entries)
            if !entries.contains_key("numerator") && !entries.contains_key("denominator") =>
        {
            entries
                .iter()
                .flat_map(|(key, value)| {
                    let name = if prefix.is_empty() {
                        key.clone()
                    } else {
                        format!("{prefix}.{key}")
                    };
                    flatten(&name, value)
                })
                .collect()
        }
        Value::String(text) => vec![(prefix.to_owned(), text.clone())],
        other => vec![(prefix.to_owned(), other.to_string())],
    }
}

pub(super) fn modify(core: &Core, asked: &Asked) -> Page {
    if asked.params.is_empty() {
        return Page::bad_request(
            "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n       or send the parameters as form values\n\
             use an empty value to remove a previously added override",
        );
    }
    core.with_manager(|manager| {
        if !manager.runtime.is_modifiable() {
            return Page::error(StatusCode::SERVICE_UNAVAILABLE, "No admin layer specified");
        }
        manager.modify_runtime(&asked.params);
        Page::text("OK\n")
    })
}
