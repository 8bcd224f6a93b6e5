//! `/config_dump` and `/init_dump`: resources decoded again from their bytes, only when someone asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use hyper::StatusCode;
use regex::Regex;
use serde_json::{Map, Value, json};
use tidegate_model::Name;
use tidegate_snapshot::Snapshot;
use tidegate_xds::{Decoder, type_url};

use super::field_mask::FieldMask;
use super::hosts;
use super::redact::redact;
use super::{Asked, Page, regex};
use crate::config::{Failure, Manager, Resource};
use crate::engine::Core;
use crate::time::timestamp;

const ADMIN: &str = "type.googleapis.com/envoy.admin.v3.";

pub(super) fn page(core: &Core, asked: &Asked) -> Page {
    let name_regex = match asked
        .param("name_regex")
        .map(|pattern| (pattern, regex(pattern)))
    {
        None => None,
        Some((_, Ok(regex))) => Some(regex),
        Some((pattern, Err(reason))) => {
            return Page::bad_request(format!(
                "INVALID_ARGUMENT: Error while parsing name_regex from {pattern}: {reason}"
            ));
        }
    };
    // Copied under the lock, decoded without it: a dump of thousands of resources must not hold up an update.
    let parts = Parts::copy(core, &core.lock());
    let dumper = Dumper {
        decoder: Decoder::new(),
        name_regex,
    };
    let dumps = dumper.all(&parts, asked.has("include_eds"));
    let mask = asked
        .param("mask")
        .filter(|mask| !mask.is_empty())
        .map(FieldMask::parse);
    match asked
        .param("resource")
        .filter(|resource| !resource.is_empty())
    {
        Some(resource) => one(&dumps, resource, mask.as_ref()),
        None => {
            let configs: Vec<Value> = match &mask {
                None => dumps,
                Some(mask) => dumps
                    .iter()
                    .map(|dump| mask.apply(dump))
                    .filter(|dump| !is_bare(dump))
                    .collect(),
            };
            Page::json(&json!({ "configs": configs }))
        }
    }
}

/// Nothing but its type is left.
fn is_bare(dump: &Value) -> bool {
    dump.as_object()
        .is_none_or(|fields| fields.keys().all(|key| key == "@type"))
}

/// One repeated field of all dumps, its elements one by one.
fn one(dumps: &[Value], resource: &str, mask: Option<&FieldMask>) -> Page {
    let Some((dump_name, repeated)) = FIELDS.iter().find_map(|(dump, fields)| {
        let (_, element) = fields.iter().find(|(field, _)| *field == resource)?;
        Some((*dump, *element))
    }) else {
        return Page::error(
            StatusCode::NOT_FOUND,
            format!("{resource} not found in config dump"),
        );
    };
    let Some(element) = repeated else {
        return Page::bad_request(format!(
            "{resource} is not a repeated field. Use ?mask={resource} to get only this field"
        ));
    };
    let type_url = format!("{ADMIN}{dump_name}");
    let found = dumps
        .iter()
        .find(|dump| dump.get("@type").and_then(Value::as_str) == Some(type_url.as_str()));
    let items = found
        .and_then(|dump| dump.get(resource))
        .and_then(Value::as_array);
    let configs: Vec<Value> = items
        .into_iter()
        .flatten()
        .map(|item| {
            let item = mask.map_or_else(|| item.clone(), |mask| mask.apply(item));
            let mut fields = Map::new();
            fields.insert("@type".to_owned(), json!(format!("{type_url}.{element}")));
            if let Value::Object(item) = item {
                fields.extend(item);
            }
            Value::Object(fields)
        })
        .collect();
    if configs.is_empty() {
        return Page::json(&json!({}));
    }
    Page::json(&json!({ "configs": configs }))
}

/// The fields of each dump; a repeated one with the name of its elements' type.
type DumpFields = (
    &'static str,
    &'static [(&'static str, Option<&'static str>)],
);

const FIELDS: &[DumpFields] = &[
    ("BootstrapConfigDump", &[("bootstrap", None)]),
    (
        "ClustersConfigDump",
        &[
            ("static_clusters", Some("StaticCluster")),
            ("dynamic_active_clusters", Some("DynamicCluster")),
            ("dynamic_warming_clusters", Some("DynamicCluster")),
        ],
    ),
    (
        "EcdsConfigDump",
        &[("ecds_filters", Some("EcdsFilterConfig"))],
    ),
    (
        "EndpointsConfigDump",
        &[
            ("static_endpoint_configs", Some("StaticEndpointConfig")),
            ("dynamic_endpoint_configs", Some("DynamicEndpointConfig")),
        ],
    ),
    (
        "ListenersConfigDump",
        &[
            ("static_listeners", Some("StaticListener")),
            ("dynamic_listeners", Some("DynamicListener")),
        ],
    ),
    (
        "RoutesConfigDump",
        &[
            ("static_route_configs", Some("StaticRouteConfig")),
            ("dynamic_route_configs", Some("DynamicRouteConfig")),
        ],
    ),
    (
        "SecretsConfigDump",
        &[
            ("static_secrets", Some("StaticSecret")),
            ("dynamic_active_secrets", Some("DynamicSecret")),
            ("dynamic_warming_secrets", Some("DynamicSecret")),
        ],
    ),
];

/// A resource with where it stands.
struct Part {
    name: Name,
    is_static: bool,
    resource: Resource,
}

/// What the dump is made of, out of the lock.
struct Parts {
    bootstrap: Bytes,
    snapshot: Arc<Snapshot>,
    started_at: SystemTime,
    cluster_version: String,
    clusters: Vec<Part>,
    warming_clusters: Vec<Part>,
    cluster_failures: BTreeMap<Name, Failure>,
    /// `None`: no filter has ever referred to one.
    extensions: Option<Vec<Part>>,
    endpoints: Vec<Part>,
    listener_version: String,
    listeners: Vec<Part>,
    warming_listeners: Vec<Part>,
    listener_failures: BTreeMap<Name, Failure>,
    routes: Vec<Part>,
    route_failures: BTreeMap<Name, Failure>,
    static_secrets: Vec<Part>,
    secrets: Vec<SecretPart>,
}

/// A secret that came or is waited for.
struct SecretPart {
    name: Name,
    /// `None`: it is waited for.
    known: Option<Resource>,
    asked: SystemTime,
    failure: Option<Failure>,
}

impl Parts {
    fn copy(core: &Core, manager: &Manager) -> Self {
        fn part(name: &Name, is_static: bool, resource: &Resource) -> Part {
            Part {
                name: Arc::clone(name),
                is_static,
                resource: resource.clone(),
            }
        }
        let clusters = |map: &BTreeMap<Name, crate::config::ClusterEntry>| -> Vec<Part> {
            map.iter()
                .map(|(name, entry)| part(name, entry.is_static, &entry.resource))
                .collect()
        };
        let listeners = |map: &BTreeMap<Name, crate::config::ListenerEntry>| -> Vec<Part> {
            map.iter()
                .map(|(name, entry)| part(name, entry.is_static, &entry.resource))
                .collect()
        };
        Self {
            bootstrap: core.loaded.proto.clone(),
            snapshot: Arc::clone(manager.snapshot()),
            started_at: core.started_at,
            cluster_version: manager.clusters.version.clone(),
            clusters: clusters(&manager.clusters.active),
            warming_clusters: clusters(&manager.clusters.warming),
            cluster_failures: manager.clusters.failures.clone(),
            extensions: manager.extensions.used.then(|| {
                let all = manager.extensions.wanted.iter();
                all.filter_map(|(name, entry)| {
                    let (resource, _) = entry.known.as_ref()?;
                    Some(part(name, false, resource))
                })
                .collect()
            }),
            endpoints: manager
                .endpoints
                .known
                .iter()
                .map(|(name, entry)| part(name, false, &entry.resource))
                .collect(),
            listener_version: manager.listeners.version.clone(),
            listeners: listeners(&manager.listeners.active),
            warming_listeners: listeners(&manager.listeners.warming),
            listener_failures: manager.listeners.failures.clone(),
            routes: manager
                .routes
                .known
                .iter()
                .map(|(name, entry)| part(name, false, &entry.resource))
                .collect(),
            route_failures: manager.routes.failures.clone(),
            static_secrets: sorted(
                manager.secrets.statics.iter(),
                |(name, (resource, _))| part(name, true, resource),
                |part| Name::clone(&part.name),
            ),
            secrets: sorted(
                manager.secrets.dynamic.values(),
                |entry| SecretPart {
                    name: Name::clone(&entry.reference.name),
                    known: entry.known.as_ref().map(|(resource, _)| resource.clone()),
                    asked: entry.asked,
                    failure: entry.failure.clone(),
                },
                |part| Name::clone(&part.name),
            ),
        }
    }
}

/// In order of their names.
fn sorted<T, P>(
    all: impl Iterator<Item = T>,
    make: impl Fn(T) -> P,
    name: impl Fn(&P) -> Name,
) -> Vec<P> {
    let mut parts: Vec<P> = all.map(make).collect();
    parts.sort_by_key(name);
    parts
}

struct Dumper {
    decoder: Decoder,
    name_regex: Option<Regex>,
}

impl Dumper {
    fn all(&self, parts: &Parts, include_eds: bool) -> Vec<Value> {
        let mut dumps = vec![self.bootstrap(parts), self.clusters(parts)];
        dumps.extend(self.extensions(parts));
        if include_eds {
            dumps.push(self.endpoints(parts));
        }
        dumps.push(self.listeners(parts));
        dumps.push(json!({ "@type": format!("{ADMIN}ScopedRoutesConfigDump") }));
        dumps.push(self.routes(parts));
        dumps.push(self.secrets(parts));
        dumps
    }

    fn wanted(&self, name: &str) -> bool {
        self.name_regex
            .as_ref()
            .is_none_or(|regex| regex.is_match(name))
    }

    /// A message as an `Any`.
    fn any(&self, type_url: &str, raw: &[u8]) -> Value {
        let mut fields = Map::new();
        fields.insert("@type".to_owned(), json!(type_url));
        let name = type_url.strip_prefix(type_url::PREFIX).unwrap_or(type_url);
        // What was accepted decodes; what was refused for not even being a message has nothing to show.
        if let Ok(Value::Object(message)) = self.decoder.to_json(name, raw) {
            fields.extend(message);
        }
        let mut any = Value::Object(fields);
        redact(&mut any);
        any
    }

    fn bootstrap(&self, parts: &Parts) -> Value {
        let mut bootstrap = self
            .decoder
            .to_json("envoy.config.bootstrap.v3.Bootstrap", &parts.bootstrap)
            .unwrap_or_default();
        redact(&mut bootstrap);
        json!({
            "@type": format!("{ADMIN}BootstrapConfigDump"),
            "bootstrap": bootstrap,
            "last_updated": timestamp(parts.started_at),
        })
    }

    /// `{field: any, last_updated}` of a static resource.
    fn fixed(&self, field: &str, type_url: &str, part: &Part) -> Value {
        json!({ field: self.any(type_url, &part.resource.raw), "last_updated": timestamp(part.resource.updated) })
    }

    /// `{version_info, field: any, last_updated}` of a discovered one.
    fn discovered(&self, field: &str, type_url: &str, resource: &Resource) -> Value {
        let mut fields = Map::new();
        if !resource.version.is_empty() {
            fields.insert("version_info".to_owned(), json!(&*resource.version));
        }
        fields.insert(field.to_owned(), self.any(type_url, &resource.raw));
        fields.insert(
            "last_updated".to_owned(),
            json!(timestamp(resource.updated)),
        );
        Value::Object(fields)
    }

    fn failure(&self, type_url: &str, failure: &Failure) -> Value {
        let mut fields = Map::new();
        if let Some(raw) = &failure.raw {
            fields.insert("failed_configuration".to_owned(), self.any(type_url, raw));
        }
        fields.insert(
            "last_update_attempt".to_owned(),
            json!(timestamp(failure.at)),
        );
        fields.insert("details".to_owned(), json!(failure.details));
        if !failure.version.is_empty() {
            fields.insert("version_info".to_owned(), json!(&*failure.version));
        }
        Value::Object(fields)
    }

    /// Discovered resources with the failures among them; a failure without a resource stands alone.
    fn with_failures(
        &self,
        field: &str,
        type_url: &str,
        parts: &[Part],
        failures: Option<&BTreeMap<Name, Failure>>,
    ) -> Vec<Value> {
        let dynamic = parts
            .iter()
            .filter(|part| !part.is_static && self.wanted(&part.name));
        let mut items: Vec<Value> = dynamic
            .clone()
            .map(|part| {
                let mut item = self.discovered(field, type_url, &part.resource);
                if let Some(failure) = failures.and_then(|failures| failures.get(&part.name)) {
                    insert(&mut item, "error_state", self.failure(type_url, failure));
                }
                item
            })
            .collect();
        for (name, failure) in failures.into_iter().flatten() {
            if !parts.iter().any(|part| part.name == *name) && self.wanted(name) {
                items.push(json!({ "error_state": self.failure(type_url, failure) }));
            }
        }
        items
    }

    fn clusters(&self, parts: &Parts) -> Value {
        let fixed: Vec<Value> = parts
            .clusters
            .iter()
            .filter(|part| part.is_static && self.wanted(&part.name))
            .map(|part| self.fixed("cluster", type_url::CLUSTER, part))
            .collect();
        let failures = Some(&parts.cluster_failures);
        let (active, warming) = (&parts.clusters, &parts.warming_clusters);
        let active = self.with_failures("cluster", type_url::CLUSTER, active, failures);
        let warming = self.with_failures("cluster", type_url::CLUSTER, warming, None);
        dump(
            "ClustersConfigDump",
            &parts.cluster_version,
            [
                ("static_clusters", fixed),
                ("dynamic_active_clusters", active),
                ("dynamic_warming_clusters", warming),
            ],
        )
    }

    /// The hosts of every cluster, whatever they come from.
    fn endpoints(&self, parts: &Parts) -> Value {
        let bootstrap = self.bootstrap(parts);
        let local = bootstrap.pointer("/bootstrap/node/locality");
        let (mut fixed, mut discovered) = (Vec::new(), Vec::new());
        let known: BTreeMap<&str, &Part> = parts
            .endpoints
            .iter()
            .map(|part| (&*part.name, part))
            .collect();
        for part in parts.clusters.iter().filter(|part| self.wanted(&part.name)) {
            let list = if part.is_static {
                &mut fixed
            } else {
                &mut discovered
            };
            let mut cluster = self.any(type_url::CLUSTER, &part.resource.raw);
            let named = cluster.pointer("/eds_cluster_config/service_name");
            let service = named.and_then(Value::as_str).unwrap_or(&part.name);
            let eds = named.and_then(Value::as_str);
            let shown = Name::from(eds.unwrap_or(&part.name));
            let assignment = match known.get(service) {
                Some(known) => self.any(type_url::CLUSTER_LOAD_ASSIGNMENT, &known.resource.raw),
                None => cluster
                    .get_mut("load_assignment")
                    .map(Value::take)
                    .unwrap_or_default(),
            };
            let compiled = parts.snapshot.cluster_by_name(&part.name);
            let config = hosts::endpoint_config(
                &shown,
                assignment,
                compiled.map(|cluster| &**cluster),
                local,
            );
            list.push(json!({ "endpoint_config": config }));
        }
        dump(
            "EndpointsConfigDump",
            "",
            [
                ("static_endpoint_configs", fixed),
                ("dynamic_endpoint_configs", discovered),
            ],
        )
    }

    fn listeners(&self, parts: &Parts) -> Value {
        let fixed: Vec<Value> = parts
            .listeners
            .iter()
            .filter(|part| part.is_static && self.wanted(&part.name))
            .map(|part| self.fixed("listener", type_url::LISTENER, part))
            .collect();
        let mut dynamic: BTreeMap<&Name, Map<String, Value>> = BTreeMap::new();
        for (state, all) in [
            ("active_state", &parts.listeners),
            ("warming_state", &parts.warming_listeners),
        ] {
            for part in all.iter().filter(|part| !part.is_static) {
                let item = self.discovered("listener", type_url::LISTENER, &part.resource);
                dynamic
                    .entry(&part.name)
                    .or_default()
                    .insert(state.to_owned(), item);
            }
        }
        for (name, failure) in &parts.listener_failures {
            let item = self.failure(type_url::LISTENER, failure);
            dynamic
                .entry(name)
                .or_default()
                .insert("error_state".to_owned(), item);
        }
        let dynamic: Vec<Value> = dynamic
            .into_iter()
            .filter(|(name, _)| self.wanted(name))
            .map(|(name, states)| {
                let mut fields = Map::new();
                if !name.is_empty() {
                    fields.insert("name".to_owned(), json!(&**name));
                }
                fields.extend(states);
                Value::Object(fields)
            })
            .collect();
        dump(
            "ListenersConfigDump",
            &parts.listener_version,
            [("static_listeners", fixed), ("dynamic_listeners", dynamic)],
        )
    }

    /// Inline route configurations are taken out of their listeners.
    fn routes(&self, parts: &Parts) -> Value {
        let mut fixed = Vec::new();
        for part in &parts.listeners {
            let listener = self.any(type_url::LISTENER, &part.resource.raw);
            let mut found = Vec::new();
            collect_route_configs(&listener, &mut found);
            for config in found {
                let name = config
                    .get("name")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                if self.wanted(name) {
                    let mut any = Map::new();
                    any.insert("@type".to_owned(), json!(type_url::ROUTE_CONFIGURATION));
                    any.extend(config.clone());
                    fixed.push(json!({ "route_config": any, "last_updated": timestamp(part.resource.updated) }));
                }
            }
        }
        let url = type_url::ROUTE_CONFIGURATION;
        let discovered = self.with_failures(
            "route_config",
            url,
            &parts.routes,
            Some(&parts.route_failures),
        );
        dump(
            "RoutesConfigDump",
            "",
            [
                ("static_route_configs", fixed),
                ("dynamic_route_configs", discovered),
            ],
        )
    }
}

/// The `route_config`s of a listener's connection managers.
fn collect_route_configs<'a>(value: &'a Value, found: &mut Vec<&'a Map<String, Value>>) {
    match value {
        Value::Object(fields) => {
            for (key, below) in fields {
                match below {
                    Value::Object(config) if key == "route_config" => found.push(config),
                    other => collect_route_configs(other, found),
                }
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| collect_route_configs(item, found)),
        _ => {}
    }
}

fn insert(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(key.to_owned(), value);
    }
}

impl Dumper {
    fn extensions(&self, parts: &Parts) -> Option<Value> {
        let all = parts.extensions.as_ref()?.iter();
        let all = all.filter(|part| self.wanted(&part.name)).map(|part| {
            let mut item = Map::new();
            if !part.resource.version.is_empty() {
                item.insert("version_info".to_owned(), json!(&*part.resource.version));
            }
            let filter = self.any(type_url::TYPED_EXTENSION_CONFIG, &part.resource.raw);
            item.insert("ecds_filter".to_owned(), filter);
            let updated = json!(timestamp(part.resource.updated));
            item.insert("last_updated".to_owned(), updated);
            Value::Object(item)
        });
        Some(dump(
            "EcdsConfigDump",
            "",
            [("ecds_filters", all.collect())],
        ))
    }

    fn secrets(&self, parts: &Parts) -> Value {
        let fixed = parts.static_secrets.iter();
        let fixed = fixed.filter(|part| self.wanted(&part.name)).map(|part| {
            json!({
                "name": &*part.name,
                "last_updated": timestamp(part.resource.updated),
                "secret": self.any(type_url::SECRET, &part.resource.raw),
            })
        });
        let (mut active, mut warming) = (Vec::new(), Vec::new());
        for part in parts.secrets.iter().filter(|part| self.wanted(&part.name)) {
            let (list, version, updated, secret) = match &part.known {
                Some(resource) => {
                    let secret = self.any(type_url::SECRET, &resource.raw);
                    (&mut active, &*resource.version, resource.updated, secret)
                }
                None => {
                    let secret = json!({ "@type": type_url::SECRET, "name": &*part.name });
                    (&mut warming, "uninitialized", part.asked, secret)
                }
            };
            let mut item = Map::new();
            item.insert("name".to_owned(), json!(&*part.name));
            if !version.is_empty() {
                item.insert("version_info".to_owned(), json!(version));
            }
            item.insert("last_updated".to_owned(), json!(timestamp(updated)));
            item.insert("secret".to_owned(), secret);
            if let Some(failure) = &part.failure {
                let failure = self.failure(type_url::SECRET, failure);
                item.insert("error_state".to_owned(), failure);
            }
            list.push(Value::Object(item));
        }
        dump(
            "SecretsConfigDump",
            "",
            [
                ("static_secrets", fixed.collect()),
                ("dynamic_active_secrets", active),
                ("dynamic_warming_secrets", warming),
            ],
        )
    }
}

/// A dump without its empty lists.
fn dump<const N: usize>(name: &str, version: &str, lists: [(&str, Vec<Value>); N]) -> Value {
    let mut fields = Map::new();
    fields.insert("@type".to_owned(), json!(format!("{ADMIN}{name}")));
    if !version.is_empty() {
        fields.insert("version_info".to_owned(), json!(version));
    }
    for (key, list) in lists {
        if !list.is_empty() {
            fields.insert(key.to_owned(), Value::Array(list));
        }
    }
    Value::Object(fields)
}

/// What listeners that are not active yet wait for.
pub(super) fn init_dump(core: &Core, asked: &Asked) -> Page {
    let wanted = asked
        .param("mask")
        .is_none_or(|mask| mask.is_empty() || mask == "listener");
    let targets = if wanted {
        core.lock().unready_targets()
    } else {
        Vec::new()
    };
    let dumps: Vec<Value> = targets
        .into_iter()
        .map(|(name, names)| json!({ "name": name, "target_names": names }))
        .collect();
    if dumps.is_empty() {
        return Page::json(&json!({}));
    }
    Page::json(&json!({ "unready_targets_dumps": dumps }))
}
