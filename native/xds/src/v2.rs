//! The v2 API's JSON shapes, turned into v3's. This module does nothing else, and works on JSON values only.
//!
//! A document is converted when it has a shape that v3 does not have: an extension with `config`, a cluster with `hosts`, a
//! duration as `{"seconds": 1}`, one of the old extension names without a typed configuration. A v3 document is left alone to
//! the last byte. What is v2 and has no meaning here (`mixer`) is a fault that names it.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value as Json, json};

use crate::context::{Fault, Result};

type Object = Map<String, Json>;

/// Old extension names, today's, and the type of the configuration.
const EXTENSIONS: &[(&str, &str, &str)] = &[
    (
        "envoy.tcp_proxy",
        "envoy.filters.network.tcp_proxy",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    ),
    (
        "envoy.http_connection_manager",
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    ),
    (
        "envoy.router",
        "envoy.filters.http.router",
        "envoy.extensions.filters.http.router.v3.Router",
    ),
    (
        "envoy.cors",
        "envoy.filters.http.cors",
        "envoy.extensions.filters.http.cors.v3.Cors",
    ),
    (
        "envoy.fault",
        "envoy.filters.http.fault",
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
    ),
    (
        "envoy.file_access_log",
        "envoy.access_loggers.file",
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    ),
    (
        "envoy.statsd",
        "envoy.stat_sinks.statsd",
        "envoy.config.metrics.v3.StatsdSink",
    ),
    (
        "envoy.zipkin",
        "envoy.tracers.zipkin",
        "envoy.config.trace.v3.ZipkinConfig",
    ),
    (
        "envoy.listener.original_dst",
        "envoy.filters.listener.original_dst",
        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
    ),
    (
        "envoy.listener.tls_inspector",
        "envoy.filters.listener.tls_inspector",
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    ),
];

/// Per route the CORS filter has a type of its own.
const PER_ROUTE: &[(&str, &str, &str)] = &[
    (
        "envoy.cors",
        "envoy.filters.http.cors",
        "envoy.extensions.filters.http.cors.v3.CorsPolicy",
    ),
    (
        "envoy.fault",
        "envoy.filters.http.fault",
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
    ),
];

/// Of a retry policy, where v2 is content with the name.
const RETRY_HOST_PREDICATES: &[(&str, &str, &str)] = &[
    (
        "envoy.retry_host_predicates.previous_hosts",
        "envoy.retry_host_predicates.previous_hosts",
        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    ),
    (
        "envoy.retry_host_predicates.omit_canary_hosts",
        "envoy.retry_host_predicates.omit_canary_hosts",
        "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate",
    ),
];

/// Fields whose contents are anybody's and must not be looked into.
const OPAQUE: &[&str] = &[
    "metadata",
    "filter_metadata",
    "json_format",
    "typed_json_format",
    "static_layer",
];

fn extension(
    table: &'static [(&'static str, &'static str, &'static str)],
    name: &str,
) -> Option<(&'static str, &'static str)> {
    table
        .iter()
        .find(|(old, new, _)| *old == name || *new == name)
        .map(|(_, new, kind)| (*new, *kind))
}

/// A bootstrap, or any part of one, in v3 form.
pub(crate) fn bootstrap(document: Json) -> Result<Json> {
    if is_v2(&document) {
        convert("", document)
    } else {
        Ok(document)
    }
}

/// Whether JSON text may have a v2 shape: one of the words is in it that every such shape has. What has none need not be looked
/// through value by value.
pub(crate) fn is_suspect(text: &str) -> bool {
    /// With escaped letters any word may be anywhere.
    const OTHERS: &str = r"config|hosts|per_filter_config|tls_context|seconds|nanos";
    static WORDS: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let names: Vec<String> = EXTENSIONS
            .iter()
            .map(|(old, _, _)| regex::escape(old))
            .collect();
        Regex::new(&format!(r#""(?:{OTHERS}|{})"|\\u"#, names.join("|"))).ok()
    });
    WORDS.as_ref().is_none_or(|words| words.is_match(text))
}

/// The resources of a discovery response in a file. v2 resources have v2 type URLs, which are unknown here; so this only covers
/// v3 types with v2 shapes inside, and leaves what it cannot convert for the decoder to refuse.
pub(crate) fn resources(document: Json) -> Json {
    bootstrap(document.clone()).unwrap_or(document)
}

fn is_v2(value: &Json) -> bool {
    match value {
        Json::Array(items) => items.iter().any(is_v2),
        Json::Object(object) => {
            has_v2_shape(object)
                || object
                    .iter()
                    .any(|(key, value)| !OPAQUE.contains(&key.as_str()) && is_v2(value))
        }
        _ => false,
    }
}

fn has_v2_shape(object: &Object) -> bool {
    let name = object.get("name").and_then(Json::as_str);
    let untyped = !object.contains_key("typed_config") && !object.contains_key("config_discovery");
    let old_name = name.is_some_and(|name| EXTENSIONS.iter().any(|(old, _, _)| *old == name));
    untyped && old_name
        || untyped && name.is_some() && object.get("config").is_some_and(Json::is_object)
        || object.get("hosts").is_some_and(Json::is_array) && object.contains_key("connect_timeout")
        || object.contains_key("per_filter_config")
        || object
            .get("tls_context")
            .is_some_and(|tls| tls.get("common_tls_context").is_some())
        || object
            .values()
            .any(|value| value.as_object().is_some_and(is_duration))
}

/// `{"seconds": 1, "nanos": 0}`.
fn is_duration(object: &Object) -> bool {
    !object.is_empty()
        && object.iter().all(|(key, value)| {
            matches!(key.as_str(), "seconds" | "nanos")
                && (value.is_i64() || value.is_u64() || value.is_string())
        })
}

/// Converts what stands under `key`, innermost first.
fn convert(key: &str, value: Json) -> Result<Json> {
    match value {
        Json::Array(items) => {
            let items = items.into_iter().enumerate().map(|(index, item)| {
                convert(key, item).map_err(|fault| fault.under(&format!("[{index}]")))
            });
            Ok(Json::Array(items.collect::<Result<_>>()?))
        }
        Json::Object(object) if is_duration(&object) => Ok(duration(&object)),
        Json::Object(object) => {
            let mut converted = Object::new();
            for (name, value) in object {
                let value = if OPAQUE.contains(&name.as_str()) {
                    value
                } else {
                    convert(&name, value).map_err(|fault| fault.under(&name))?
                };
                converted.insert(name, value);
            }
            message(key, converted)
        }
        other => Ok(other),
    }
}

fn duration(object: &Object) -> Json {
    let part = |name| {
        object
            .get(name)
            .and_then(|value| value.as_i64().or_else(|| value.as_str()?.parse().ok()))
            .unwrap_or_default()
    };
    let (seconds, nanos) = (part("seconds"), part("nanos"));
    if nanos == 0 {
        json!(format!("{seconds}s"))
    } else {
        json!(format!("{seconds}.{nanos:09}s"))
    }
}

/// One message, its contents converted already. What it is shows in the field it stands in.
fn message(key: &str, mut object: Object) -> Result<Json> {
    match key {
        "filters" | "http_filters" | "listener_filters" | "access_log" | "upstream_log"
        | "stats_sinks" | "http" => {
            typed(&mut object, EXTENSIONS)?;
        }
        "retry_host_predicate" => typed(&mut object, RETRY_HOST_PREDICATES)?,
        "clusters" if object.contains_key("name") && !object.contains_key("weight") => {
            cluster(&mut object);
        }
        "filter_chains" | "default_filter_chain" => tls(&mut object, "Downstream"),
        "thresholds" => upper(&mut object, "priority"),
        "ads_config" | "api_config_source" => {
            object
                .entry("transport_api_version")
                .or_insert_with(|| json!("V3"));
        }
        "node" => rename(&mut object, "build_version", "user_agent_version"),
        "virtual_hosts" => {
            per_filter(&mut object)?;
            nested(&mut object, "cors", cors);
        }
        "routes" => per_filter(&mut object)?,
        "route" => {
            rename(&mut object, "host_rewrite", "host_rewrite_literal");
            rename(
                &mut object,
                "auto_host_rewrite_header",
                "host_rewrite_header",
            );
            upper(&mut object, "priority");
            nested(&mut object, "cors", cors);
        }
        "match" => {
            regex(&mut object, "regex", "safe_regex");
            if let Some(runtime) = object.remove("runtime") {
                object.insert("runtime_fraction".to_owned(), runtime_fraction(&runtime));
            }
        }
        "headers" => {
            regex(&mut object, "regex_match", "safe_regex_match");
        }
        "query_parameters" => query_parameter(&mut object),
        "delay" | "abort" => fault(&mut object),
        _ => {}
    }
    Ok(Json::Object(object))
}

/// `config` into `typed_config`, the name into today's.
fn typed(
    object: &mut Object,
    table: &'static [(&'static str, &'static str, &'static str)],
) -> Result<()> {
    let Some(name) = object.get("name").and_then(Json::as_str).map(str::to_owned) else {
        return Ok(());
    };
    if object.contains_key("typed_config") || object.contains_key("config_discovery") {
        return Ok(());
    }
    let config = object.remove("config");
    let Some((new_name, kind)) = extension(table, &name) else {
        // With nothing but a name there is nothing to convert; the decoder says what is missing.
        return match config {
            None => Ok(()),
            Some(_) => Err(Fault::whole(format!(
                "Didn't find a registered implementation for name: '{name}'"
            ))),
        };
    };
    let mut typed = json!({ "@type": format!("type.googleapis.com/{kind}") });
    if let (Json::Object(typed), Some(Json::Object(config))) = (&mut typed, config) {
        typed.extend(config);
        match new_name {
            "envoy.filters.network.http_connection_manager" => connection_manager(typed),
            "envoy.tracers.zipkin" => zipkin(typed),
            _ => {}
        }
    }
    object.insert("name".to_owned(), json!(new_name));
    object.insert("typed_config".to_owned(), typed);
    Ok(())
}

fn connection_manager(config: &mut Object) {
    if let Some(timeout) = config.remove("idle_timeout") {
        let common = config
            .entry("common_http_protocol_options")
            .or_insert_with(|| json!({}));
        if let Json::Object(common) = common {
            common.entry("idle_timeout").or_insert(timeout);
        }
    }
    // Whether a span is for what comes in or goes out now follows from the listener's direction.
    nested(config, "tracing", |tracing| {
        tracing.remove("operation_name");
        tracing.remove("request_headers_for_tags");
    });
}

fn zipkin(config: &mut Object) {
    config
        .entry("collector_endpoint")
        .or_insert_with(|| json!("/api/v2/spans"));
    config.insert("collector_endpoint_version".to_owned(), json!("HTTP_JSON"));
}

fn cluster(object: &mut Object) {
    if let Some(Json::Array(hosts)) = object.remove("hosts") {
        let endpoints: Vec<Json> = hosts
            .into_iter()
            .map(|address| json!({ "endpoint": { "address": address } }))
            .collect();
        let name = object.get("name").cloned().unwrap_or_default();
        object.insert(
            "load_assignment".to_owned(),
            json!({ "cluster_name": name, "endpoints": [{ "lb_endpoints": endpoints }] }),
        );
    }
    if object.get("lb_policy").and_then(Json::as_str) == Some("ORIGINAL_DST_LB") {
        object.insert("lb_policy".to_owned(), json!("CLUSTER_PROVIDED"));
    }
    upper(object, "type");
    upper(object, "lb_policy");
    tls(object, "Upstream");
}

/// `tls_context` into a transport socket; whether that is supported is the decoder's business.
fn tls(object: &mut Object, side: &str) {
    if let Some(Json::Object(context)) = object.remove("tls_context") {
        let mut typed = Object::new();
        let kind = format!(
            "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{side}TlsContext"
        );
        typed.insert("@type".to_owned(), json!(kind));
        typed.extend(context);
        object.insert(
            "transport_socket".to_owned(),
            json!({ "name": "envoy.transport_sockets.tls", "typed_config": typed }),
        );
    }
}

fn per_filter(object: &mut Object) -> Result<()> {
    let Some(Json::Object(old)) = object.remove("per_filter_config") else {
        return Ok(());
    };
    let mut new = Object::new();
    for (name, config) in old {
        let Some((new_name, kind)) = extension(PER_ROUTE, &name) else {
            return Err(Fault {
                path: format!("per_filter_config[\"{name}\"]"),
                reason: format!("Didn't find a registered implementation for name: '{name}'"),
            });
        };
        let mut typed = Object::new();
        typed.insert(
            "@type".to_owned(),
            json!(format!("type.googleapis.com/{kind}")),
        );
        if let Json::Object(config) = config {
            typed.extend(config);
        }
        new.insert(new_name.to_owned(), Json::Object(typed));
    }
    object.insert("typed_per_filter_config".to_owned(), Json::Object(new));
    Ok(())
}

fn cors(policy: &mut Object) {
    let mut matchers = Vec::new();
    for (name, kind) in [("allow_origin", "exact"), ("allow_origin_regex", "")] {
        if let Some(Json::Array(origins)) = policy.remove(name) {
            matchers.extend(
                origins
                    .into_iter()
                    .map(|origin| match (kind, origin.as_str()) {
                        ("exact", Some("*")) => json!({ "safe_regex": { "regex": ".*" } }),
                        ("exact", _) => json!({ "exact": origin }),
                        _ => json!({ "safe_regex": { "regex": origin } }),
                    }),
            );
        }
    }
    if !matchers.is_empty() {
        policy.insert(
            "allow_origin_string_match".to_owned(),
            Json::Array(matchers),
        );
    }
    if policy.remove("enabled") == Some(Json::Bool(false)) {
        policy.insert(
            "filter_enabled".to_owned(),
            json!({ "default_value": { "numerator": 0 } }),
        );
    }
}

fn fault(object: &mut Object) {
    object.remove("type");
    if let Some(percent) = object.remove("percent") {
        object
            .entry("percentage")
            .or_insert_with(|| json!({ "numerator": percent, "denominator": "HUNDRED" }));
    }
}

fn query_parameter(object: &mut Object) {
    if object.contains_key("string_match") || object.contains_key("present_match") {
        return;
    }
    let is_regex = object.remove("regex") == Some(Json::Bool(true));
    if let Some(value) = object.remove("value") {
        let matcher = if is_regex {
            json!({ "safe_regex": { "regex": value } })
        } else {
            json!({ "exact": value })
        };
        object.insert("string_match".to_owned(), matcher);
    }
}

fn runtime_fraction(runtime: &Json) -> Json {
    json!({
        "default_value": { "numerator": runtime.get("default_value").cloned().unwrap_or_else(|| json!(0)) },
        "runtime_key": runtime.get("runtime_key").cloned().unwrap_or_else(|| json!("")),
    })
}

fn regex(object: &mut Object, old: &str, new: &str) {
    if let Some(Json::String(regex)) = object.remove(old) {
        object.insert(new.to_owned(), json!({ "regex": regex }));
    }
}

fn rename(object: &mut Object, old: &str, new: &str) {
    if let Some(value) = object.remove(old) {
        object.entry(new).or_insert(value);
    }
}

/// v2's reader took enum values in any case.
fn upper(object: &mut Object, name: &str) {
    if let Some(Json::String(value)) = object.get_mut(name) {
        *value = value.to_ascii_uppercase();
    }
}

fn nested(object: &mut Object, name: &str, convert: impl FnOnce(&mut Object)) {
    if let Some(Json::Object(inner)) = object.get_mut(name) {
        convert(inner);
    }
}
