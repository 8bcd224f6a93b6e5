use super::*;
use crate::defs::{cluster, control_plane, http};

fn values(registry: &Registry) -> BTreeMap<String, i64> {
    let mut values = BTreeMap::new();
    registry.visit(|sample| {
        if let Value::Counter(value) = sample.value {
            values.insert(format!("{}{}", sample.prefix, sample.name), value as i64);
        } else if let Value::Gauge(value) = sample.value {
            values.insert(format!("{}{}", sample.prefix, sample.name), value);
        }
    });
    values
}

#[test]
fn a_scrape_sums_over_the_threads() {
    let registry = Registry::new(2);
    let group = registry.group::<cluster::Traffic>("cluster.a.");
    group.local(0).add(cluster::UPSTREAM_RQ_TOTAL, 3);
    group.local(1).inc(cluster::UPSTREAM_RQ_TOTAL);
    group.shared().inc(cluster::UPSTREAM_RQ_TOTAL);
    group.local(0).gauge_inc(cluster::UPSTREAM_CX_ACTIVE);
    group.local(1).gauge_add(cluster::UPSTREAM_CX_ACTIVE, -3);
    let values = values(&registry);
    assert_eq!(values["cluster.a.upstream_rq_total"], 5);
    assert_eq!(values["cluster.a.upstream_cx_active"], -2);
    assert_eq!(registry.value("cluster.a.upstream_rq_total"), Some(5));
}

#[test]
fn groups_are_found_again_and_leave_with_their_last_handle() {
    let registry = Registry::new(1);
    let group = registry.group::<cluster::Traffic>("cluster.a.");
    group.local(0).inc(cluster::UPSTREAM_RQ_TOTAL);
    let again = registry.group::<cluster::Traffic>("cluster.a.");
    drop(group);
    assert_eq!(registry.value("cluster.a.upstream_rq_total"), Some(1));
    drop(again);
    assert_eq!(registry.value("cluster.a.upstream_rq_total"), None);
    assert!(values(&registry).is_empty());
}

#[test]
fn two_kinds_share_a_prefix() {
    let registry = Registry::new(1);
    let _traffic = registry.group::<cluster::Traffic>("cluster.a.");
    let _membership = registry.group::<cluster::Membership>("cluster.a.");
    let values = values(&registry);
    assert!(
        values.contains_key("cluster.a.upstream_rq_total")
            && values.contains_key("cluster.a.membership_total")
    );
}

#[test]
fn status_codes_appear_once_seen() {
    let registry = Registry::new(1);
    let group = registry.group::<cluster::Traffic>("cluster.a.");
    let local = group.local(0);
    for status in [200, 200, 204, 503, 7, 600] {
        local.code(cluster::UPSTREAM_RQ, status);
    }
    let values = values(&registry);
    let codes: Vec<_> = values
        .iter()
        .filter(|(name, _)| {
            name.starts_with("cluster.a.upstream_rq_2")
                || name.starts_with("cluster.a.upstream_rq_5")
        })
        .collect();
    assert_eq!(
        codes
            .iter()
            .map(|(name, value)| (name.as_str(), **value))
            .collect::<Vec<_>>(),
        [
            ("cluster.a.upstream_rq_200", 2),
            ("cluster.a.upstream_rq_204", 1),
            ("cluster.a.upstream_rq_2xx", 3),
            ("cluster.a.upstream_rq_503", 1),
            ("cluster.a.upstream_rq_5xx", 1)
        ]
    );
}

#[test]
fn a_gauge_back_at_zero_was_used() {
    let registry = Registry::new(1);
    let group = registry.group::<http::ConnectionManager>("http.a.");
    let local = group.local(0);
    local.gauge_inc(http::DOWNSTREAM_CX_ACTIVE);
    local.gauge_dec(http::DOWNSTREAM_CX_ACTIVE);
    let mut used = Vec::new();
    registry.visit(|sample| {
        if sample.used {
            used.push(sample.name.into_owned());
        }
    });
    assert_eq!(used, ["downstream_cx_active"]);
}

#[test]
fn counters_restart_at_zero_after_a_reset() {
    let registry = Registry::new(1);
    let group = registry.group::<cluster::Traffic>("cluster.a.");
    let local = group.local(0);
    local.add(cluster::UPSTREAM_RQ_TOTAL, 5);
    local.code(cluster::UPSTREAM_RQ, 200);
    registry.reset_counters();
    local.inc(cluster::UPSTREAM_RQ_TOTAL);
    let values = values(&registry);
    assert_eq!(values["cluster.a.upstream_rq_total"], 1);
    assert_eq!(values["cluster.a.upstream_rq_200"], 0);
}

#[test]
fn histograms_have_an_interval_and_a_total() {
    let registry = Registry::new(2);
    let group = registry.group::<cluster::Traffic>("cluster.a.");
    group.local(0).record(cluster::UPSTREAM_RQ_TIME, 5);
    group.local(1).record(cluster::UPSTREAM_RQ_TIME, 7);
    registry.merge_histograms();
    group.local(1).record(cluster::UPSTREAM_RQ_TIME, 9);
    registry.merge_histograms();
    let mut seen = None;
    registry.visit(|sample| {
        if let (
            true,
            Value::Histogram {
                interval,
                cumulative,
            },
        ) = (&*sample.name == "upstream_rq_time", sample.value)
        {
            seen = Some((interval.count(), cumulative.count()));
        }
    });
    assert_eq!(seen, Some((1, 3)));
}

#[test]
fn texts_are_read_out() {
    let registry = Registry::new(1);
    let group = registry.group::<control_plane::ControlPlane>("control_plane.");
    group
        .shared()
        .text_set(control_plane::IDENTIFIER, "istiod-1");
    let mut text = String::new();
    registry.visit(|sample| {
        if let Value::Text(value) = sample.value {
            text = value.to_owned();
        }
    });
    assert_eq!(text, "istiod-1");
}
