//! Refused virtual hosts, matches, actions and header changes.

use serde_json::{Value as Json, json};

use super::{IN_ROUTE, ROUTE, refused, route_refused};
use crate::tests::{PREFIX, ROUTES, route_configuration};

#[test]
fn virtual_hosts() {
    let refused = |changes: &[(&str, Json)], path: &str, reason: &str| {
        refused(ROUTES, route_configuration(), changes, path, reason);
    };
    refused(
        &[("/virtual_hosts/0/name", json!(""))],
        "virtual_hosts[0].name",
        "at least 1 characters",
    );
    refused(
        &[("/virtual_hosts/0/domains", json!([]))],
        "virtual_hosts[0].domains",
        "at least 1 item(s)",
    );
    refused(
        &[(
            "/virtual_hosts/1",
            json!({ "name": "b", "domains": ["x", "*"] }),
        )],
        "virtual_hosts[1].domains[1]",
        "Only a single wildcard domain is permitted in route local",
    );
    refused(
        &[("/virtual_hosts/0/domains", json!(["a", "A"]))],
        "virtual_hosts[0].domains[1]",
        "Duplicate entry of domain a in route local",
    );
    refused(
        &[(
            "/virtual_hosts/0/retry_policy",
            json!({ "retry_priority": { "name": "x" } }),
        )],
        "virtual_hosts[0].retry_policy.retry_priority.typed_config",
        "",
    );
    refused(
        &[("/vhds", json!({ "config_source": { "ads": {} } }))],
        "vhds",
        "is not supported",
    );
    refused(
        &[(
            "/virtual_hosts/0/typed_per_filter_config",
            json!({
                "buffer": { "@type": format!("{PREFIX}envoy.extensions.filters.http.buffer.v3.BufferPerRoute"), "disabled": true }
            }),
        )],
        "virtual_hosts[0].typed_per_filter_config[\"buffer\"]",
        "BufferPerRoute is not supported here",
    );
    refused(
        &[(
            "/typed_per_filter_config",
            json!({ "a": { "@type": format!("{PREFIX}envoy.config.route.v3.FilterConfig") } }),
        )],
        "typed_per_filter_config[\"a\"].config",
        "Empty route/virtual host per filter configuration",
    );
}

#[test]
fn matches() {
    route_refused("match", Json::Null, "match", "value is required");
    route_refused(
        "match",
        json!({}),
        "match.path_specifier",
        "value is required",
    );
    route_refused(
        "match",
        json!({ "safe_regex": { "regex": "(a" } }),
        "match.safe_regex.regex",
        "Invalid regex '(a': unclosed group",
    );
    route_refused(
        "match",
        json!({ "path_separated_prefix": "/a/" }),
        "match.path_separated_prefix",
        "does not match regex pattern",
    );
    route_refused(
        "match",
        json!({ "prefix": "/", "headers": [{ "name": "" }] }),
        "match.headers[0].name",
        "at least 1 characters",
    );
    route_refused(
        "match",
        json!({ "prefix": "/", "headers": [{ "name": "a", "string_match": { "prefix": "" } }] }),
        "match.headers[0].string_match.prefix",
        "at least 1 characters",
    );
    route_refused(
        "match",
        json!({ "prefix": "/", "runtime_fraction": { "runtime_key": "a" } }),
        "match.runtime_fraction.default_value",
        "value is required",
    );
    route_refused(
        "match",
        json!({ "prefix": "/", "tls_context": {} }),
        "match.tls_context",
        "is not supported",
    );
    route_refused(
        "match",
        json!({ "prefix": "/", "dynamic_metadata": [] , "filter_state": [{ "key": "a", "string_match": { "exact": "b" } }] }),
        "match.filter_state",
        "is not supported",
    );
}

#[test]
fn actions() {
    route_refused("route", Json::Null, "action", "value is required");
    route_refused(
        "route",
        json!({ "cluster": "" }),
        "route.cluster",
        "at least 1 characters",
    );
    route_refused(
        "route",
        json!({ "timeout": "1s" }),
        "route.cluster_specifier",
        "value is required",
    );
    for (field, value) in [
        (
            "retry_policy_typed_config",
            json!({ "@type": format!("{PREFIX}envoy.config.route.v3.RetryPolicy") }),
        ),
        ("hedge_policy", json!({ "hedge_on_per_try_timeout": true })),
        (
            "rate_limits",
            json!([{ "actions": [{ "remote_address": {} }] }]),
        ),
        ("metadata_match", json!({})),
        ("internal_redirect_policy", json!({})),
    ] {
        route_refused(
            "route",
            json!({ "cluster": "a", field: value }),
            &format!("route.{field}"),
            "is not supported",
        );
    }
    let weighted = |clusters: Json| json!({ "weighted_clusters": { "clusters": clusters } });
    route_refused(
        "route",
        weighted(json!([])),
        "route.weighted_clusters.clusters",
        "at least 1 item(s)",
    );
    route_refused(
        "route",
        weighted(json!([{ "name": "a", "weight": 0 }])),
        "route.weighted_clusters.clusters",
        "Sum of weights in the weighted_cluster must be greater than 0.",
    );
    route_refused(
        "route",
        weighted(json!([{ "weight": 1 }])),
        "route.weighted_clusters.clusters[0]",
        "At least one of name or cluster_header",
    );
    route_refused(
        "route",
        json!({ "cluster": "a", "prefix_rewrite": "/b", "regex_rewrite": { "pattern": { "regex": "a" }, "substitution": "b" } }),
        "route.regex_rewrite",
        "Specify only one of prefix_rewrite, regex_rewrite",
    );
    route_refused(
        "route",
        json!({ "cluster": "a", "regex_rewrite": { "pattern": { "regex": "a" }, "substitution": "\\1" } }),
        "route.regex_rewrite.substitution",
        "requests 1 matches, but the regexp only has 0",
    );
    let replaced = |action: &str, value: Json, path: &str, reason: &str| {
        refused(
            ROUTES,
            route_configuration(),
            &[
                (&format!("{IN_ROUTE}/route"), Json::Null),
                (&format!("{IN_ROUTE}/{action}"), value),
            ],
            &format!("{ROUTE}.{path}"),
            reason,
        );
    };
    replaced(
        "direct_response",
        json!({ "status": 99 }),
        "direct_response.status",
        "value must be inside range [200, 600)",
    );
    replaced(
        "direct_response",
        json!({ "status": 200, "body": { "inline_string": "x".repeat(5000) } }),
        "direct_response.body",
        "response body size is 5000 bytes; maximum is 4096",
    );
    replaced(
        "direct_response",
        json!({ "status": 200, "body": { "filename": "/nope" } }),
        "direct_response.body.filename",
        "Invalid path: /nope",
    );
    replaced(
        "redirect",
        json!({ "port_redirect": 70000 }),
        "redirect.port_redirect",
        "70000 is not a port",
    );
    replaced(
        "filter_action",
        json!({}),
        "filter_action",
        "is not supported",
    );
}

#[test]
fn header_changes() {
    let add = |value: Json, path: &str, reason: &str| {
        route_refused(
            "request_headers_to_add",
            json!([value]),
            &format!("request_headers_to_add[0].{path}"),
            reason,
        );
    };
    add(
        json!({ "header": { "key": ":path", "value": "x" } }),
        "header.key",
        ":-prefixed or host headers may not be modified",
    );
    add(
        json!({ "header": { "key": "Host", "value": "x" } }),
        "header.key",
        ":-prefixed or host headers may not be modified",
    );
    add(
        json!({ "header": { "key": "a", "value": "50%" } }),
        "header.value",
        "50%",
    );
    add(
        json!({ "header": { "key": "a" }, "append": true, "append_action": "ADD_IF_ABSENT" }),
        "append",
        "Both append and append_action are set",
    );
    add(json!({}), "header", "value is required");
    route_refused(
        "response_headers_to_remove",
        json!([":status"]),
        "response_headers_to_remove[0]",
        "may not be removed",
    );
}
