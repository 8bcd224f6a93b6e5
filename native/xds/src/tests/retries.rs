//! Retry policies, of routes and virtual hosts, retry budgets and the limits on what is kept of a body.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tidegate_model::cluster::RetryBudget;
use tidegate_model::matcher::HeaderMatchSpecifier;
use tidegate_model::retry::{
    BackOff, BodyBufferLimit, HostPredicate, ResetHeaderFormat, RetryOn, RetryPolicy,
};
use tidegate_model::route::{Forward, RouteAction, RouteConfiguration};

use super::{CLUSTER, PREFIX, ROUTES, cluster, encode, route_configuration, with};
use crate::{decode_cluster, decode_route_configuration};

const PREVIOUS_PRIORITIES: &str =
    "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";

fn routes(changes: &[(&str, Json)]) -> RouteConfiguration {
    decode_route_configuration(&encode(ROUTES, &with(route_configuration(), changes))).unwrap()
}

fn forward(routes: &RouteConfiguration) -> &Forward {
    match &routes.virtual_hosts[0].routes[0].action {
        RouteAction::Route(forward) => forward,
        other => panic!("{other:?}"),
    }
}

fn policy(policy: Json) -> RetryPolicy {
    let routes = routes(&[(
        "/virtual_hosts/0/routes/0/route",
        json!({ "cluster": "a", "retry_policy": policy }),
    )]);
    let policy = forward(&routes).retry_policy.as_ref();
    RetryPolicy::clone(policy.unwrap())
}

fn refused(policy: Json) -> String {
    let changed = with(
        route_configuration(),
        &[(
            "/virtual_hosts/0/routes/0/route",
            json!({ "cluster": "a", "retry_policy": policy }),
        )],
    );
    let fault = decode_route_configuration(&encode(ROUTES, &changed)).unwrap_err();
    fault.to_string()
}

#[test]
fn defaults() {
    let policy = policy(json!({ "retry_on": "5xx" }));
    assert_eq!(
        policy,
        RetryPolicy {
            retry_on: RetryOn::FIVE_XX,
            ..RetryPolicy::default()
        }
    );
    assert!(forward(&routes(&[])).retry_policy.is_none());
}

#[test]
fn every_field() {
    let policy = policy(json!({
        "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
        "num_retries": 0,
        "per_try_timeout": "2s",
        "per_try_idle_timeout": "0.5s",
        "retry_back_off": { "base_interval": "0.0001s" },
        "rate_limited_retry_back_off": {
            "reset_headers": [{ "name": "X-Reset", "format": "UNIX_TIMESTAMP" }, { "name": "retry-after" }]
        },
        "retriable_status_codes": [503, 504],
        "retriable_headers": [{ "name": "X-Again", "present_match": true }],
        "retriable_request_headers": [{ "name": "x-idempotent", "present_match": true }],
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": { "@type": format!("{PREFIX}envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate") }
        }],
        "host_selection_retry_max_attempts": "5"
    }));
    assert!(policy.retry_on.has(RetryOn::CONNECT_FAILURE));
    assert!(policy.retry_on.has(RetryOn::GRPC_UNAVAILABLE));
    assert!(!policy.retry_on.has(RetryOn::FIVE_XX));
    assert_eq!(policy.num_retries, 0);
    assert_eq!(policy.per_try_timeout, Some(Duration::from_secs(2)));
    assert_eq!(
        policy.per_try_idle_timeout,
        Some(Duration::from_millis(500))
    );
    assert_eq!(policy.back_off, BackOff { base: 1, max: 10 });
    let limited = policy.rate_limited_back_off.unwrap();
    assert_eq!(limited.max_interval, Duration::from_mins(5));
    assert_eq!(&*limited.reset_headers[0].name, "x-reset");
    assert_eq!(
        limited.reset_headers[0].format,
        ResetHeaderFormat::UnixTimestamp
    );
    assert_eq!(limited.reset_headers[1].format, ResetHeaderFormat::Seconds);
    assert_eq!(policy.retriable_status_codes, [503, 504]);
    assert_eq!(&*policy.retriable_headers[0].name, "x-again");
    assert_eq!(
        policy.retriable_request_headers[0].specifier,
        HeaderMatchSpecifier::Present(true)
    );
    assert_eq!(policy.host_predicates, [HostPredicate::PreviousHosts]);
    assert_eq!(policy.host_selection_attempts, 5);
    assert_eq!(policy.previous_priorities, None);
}

#[test]
fn hosts_and_priorities_to_leave_out() {
    let host = |kind: &str, more: Json| {
        let mut config = json!({ "@type": format!("{PREFIX}envoy.extensions.retry.host.{kind}") });
        let fields = config.as_object_mut().unwrap();
        fields.extend(more.as_object().cloned().unwrap());
        json!({ "name": "x", "typed_config": config })
    };
    let metadata = |filter: &str| {
        let lb = json!({ "filter_metadata": { filter: { "stage": "old", "n": 1 } } });
        host(
            "omit_host_metadata.v3.OmitHostMetadataConfig",
            json!({ "metadata_match": lb }),
        )
    };
    let policy = policy(json!({
        "retry_host_predicate": [
            host("omit_canary_hosts.v3.OmitCanaryHostsPredicate", json!({})),
            metadata("envoy.lb"),
            metadata("other"),
        ],
        "retry_priority": {
            "name": "x",
            "typed_config": { "@type": format!("{PREFIX}{PREVIOUS_PRIORITIES}"), "update_frequency": 2 }
        }
    }));
    let labels = vec![("n".into(), "1".into()), ("stage".into(), "\"old\"".into())];
    assert_eq!(
        policy.host_predicates,
        [
            HostPredicate::OmitCanaryHosts,
            HostPredicate::OmitHostMetadata(labels),
            HostPredicate::OmitHostMetadata(Vec::new()),
        ]
    );
    assert_eq!(policy.previous_priorities, Some(2));
}

#[test]
fn back_off() {
    let of = |back_off| policy(json!({ "retry_back_off": back_off })).back_off;
    assert_eq!(
        of(json!({ "base_interval": "0.05s" })),
        BackOff { base: 50, max: 500 }
    );
    assert_eq!(
        of(json!({ "base_interval": "0.05s", "max_interval": "0.06s" })),
        BackOff { base: 50, max: 60 }
    );
    let wrong = refused(json!({
        "retry_back_off": { "base_interval": "0.05s", "max_interval": "0.04s" }
    }));
    assert!(
        wrong.contains("route.retry_policy.retry_back_off.max_interval"),
        "{wrong}"
    );
    assert!(wrong.contains("must greater than or equal to"), "{wrong}");
}

#[test]
fn what_is_not_supported_is_refused_by_its_path() {
    for (field, value, path) in [
        (
            "retry_priority",
            json!({ "name": "x" }),
            "retry_priority.typed_config",
        ),
        (
            "retry_priority",
            json!({
                "name": "x",
                "typed_config": { "@type": format!("{PREFIX}{PREVIOUS_PRIORITIES}") }
            }),
            "retry_priority.typed_config.update_frequency",
        ),
        (
            "retry_options_predicates",
            json!([{ "name": "x" }]),
            "retry_options_predicates",
        ),
        (
            "retry_host_predicate",
            json!([{
                "name": "priority",
                "typed_config": { "@type": format!("{PREFIX}{PREVIOUS_PRIORITIES}"), "update_frequency": 1 }
            }]),
            "retry_host_predicate[0].typed_config",
        ),
        (
            "retry_host_predicate",
            json!([{ "name": "envoy.retry_host_predicates.previous_hosts" }]),
            "retry_host_predicate[0].typed_config",
        ),
        ("retry_back_off", json!({}), "retry_back_off.base_interval"),
    ] {
        let wrong = refused(json!({ field: value }));
        assert!(
            wrong.contains(&format!("routes[0].route.retry_policy.{path}")),
            "{wrong}"
        );
    }
}

#[test]
fn virtual_hosts_have_the_same() {
    let routes = routes(&[
        (
            "/virtual_hosts/0/retry_policy",
            json!({ "retry_on": "reset", "num_retries": 4 }),
        ),
        (
            "/virtual_hosts/0/per_request_buffer_limit_bytes",
            json!(1000),
        ),
        (
            "/virtual_hosts/0/include_is_timeout_retry_header",
            json!(true),
        ),
        (
            "/virtual_hosts/0/routes/0/per_request_buffer_limit_bytes",
            json!(1000),
        ),
        (
            "/virtual_hosts/0/routes/0/request_body_buffer_limit",
            json!(2000),
        ),
    ]);
    let host = &routes.virtual_hosts[0];
    let policy = host.retry_policy.as_ref().unwrap();
    assert_eq!(policy.num_retries, 4);
    assert!(host.include_is_timeout_retry_header);
    assert_eq!(host.body_buffer_limit, Some(BodyBufferLimit::AtMost(1000)));
    assert_eq!(
        host.routes[0].body_buffer_limit,
        Some(BodyBufferLimit::Exactly(2000))
    );
}

#[test]
fn budgets() {
    let budget = |budget: Json| {
        let breakers = json!({ "thresholds": [{ "retry_budget": budget }] });
        let encoded = encode(
            CLUSTER,
            &with(cluster(), &[("/circuit_breakers", breakers)]),
        );
        let cluster = decode_cluster(&encoded).unwrap();
        cluster.circuit_breakers.default.retry_budget.unwrap()
    };
    assert_eq!(budget(json!({})), RetryBudget::default());
    assert_eq!(
        budget(json!({ "budget_percent": { "value": 12.5 }, "min_retry_concurrency": 1 })),
        RetryBudget {
            budget_percent: 12.5,
            min_retry_concurrency: 1
        }
    );
}
