use super::*;
use crate::defs::{cluster, server};
use crate::tags::TagRules;

fn everything() -> Selection<'static> {
    Selection {
        used_only: true,
        matches: &|_| true,
        kind: Kind::All,
        buckets: Buckets::Summary,
        text_readouts: false,
    }
}

fn counted() -> (Registry, impl Sized) {
    let registry = Registry::new(1);
    let traffic = registry.group::<cluster::Traffic>("cluster.a.");
    let server = registry.group::<server::Server>("server.");
    let local = traffic.local(0);
    local.add(cluster::UPSTREAM_RQ_TOTAL, 7);
    local.code(cluster::UPSTREAM_RQ, 200);
    for value in [1, 1, 1, 1, 1, 5] {
        local.record(cluster::UPSTREAM_RQ_TIME, value);
    }
    server.shared().gauge_set(server::LIVE, 1);
    registry.merge_histograms();
    registry.merge_histograms();
    (registry, (traffic, server))
}

#[test]
fn text_is_envoys() {
    let (registry, _keep) = counted();
    assert_eq!(
        text(&registry, everything()),
        "cluster.a.upstream_rq_200: 1\n\
         cluster.a.upstream_rq_2xx: 1\n\
         cluster.a.upstream_rq_total: 7\n\
         server.live: 1\n\
         cluster.a.upstream_rq_time: P0(nan,1.0166666666666666) P25(nan,1.0333333333333334) P50(nan,1.05) \
         P75(nan,1.0833333333333333) P90(nan,5.05) P95(nan,5.05) P99(nan,5.05) P99.5(nan,5.05) P99.9(nan,5.05) P100(nan,5.05)\n"
    );
}

#[test]
fn buckets_are_envoys() {
    let (registry, _keep) = counted();
    let histogram = Selection {
        kind: Kind::Histograms,
        ..everything()
    };
    let cumulative = text(
        &registry,
        Selection {
            buckets: Buckets::Cumulative,
            ..histogram
        },
    );
    assert!(
        cumulative.starts_with("cluster.a.upstream_rq_time: B0.5(0,0) B1(0,5) B5(0,6) B10(0,6)"),
        "{cumulative}"
    );
    assert!(
        cumulative.ends_with("B600000(0,6) B1.8e+06(0,6) B3.6e+06(0,6)\n"),
        "{cumulative}"
    );
    let disjoint = text(
        &registry,
        Selection {
            buckets: Buckets::Disjoint,
            ..histogram
        },
    );
    assert!(disjoint.contains("B1(0,5) B5(0,1) B10(0,0)"), "{disjoint}");
    let detailed = text(
        &registry,
        Selection {
            buckets: Buckets::Detailed,
            ..histogram
        },
    );
    assert!(
        detailed.starts_with(
            "cluster.a.upstream_rq_time:\n  totals=1,0.1:5, 5,0.1:1\n  intervals=\n  summary=P0("
        ),
        "{detailed}"
    );
}

#[test]
fn json_is_envoys() {
    let (registry, _keep) = counted();
    let rendered = json(
        &registry,
        Selection {
            matches: &|name| name.ends_with("live") || name.ends_with("_time"),
            ..everything()
        },
    );
    assert!(
        rendered.starts_with(
            r#"{"stats":[{"name":"server.live","value":1},{"histograms":{"supported_quantiles":[0,25,50,75,90,95,99,99.5,99.9,100],"computed_quantiles":[{"name":"cluster.a.upstream_rq_time","values":[{"cumulative":1.0166666666666666,"interval":null},"#
        ),
        "{rendered}"
    );
}

#[test]
fn prometheus_is_envoys() {
    let (registry, _keep) = counted();
    let rendered = prometheus(&registry, &TagRules::default(), everything());
    for line in [
        "# TYPE envoy_cluster_upstream_rq counter\nenvoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"a\"} 1\n",
        "# TYPE envoy_cluster_upstream_rq_total counter\nenvoy_cluster_upstream_rq_total{envoy_cluster_name=\"a\"} 7\n",
        "# TYPE envoy_server_live gauge\nenvoy_server_live{} 1\n",
        "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"a\",le=\"0.5\"} 0\n",
        "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"a\",le=\"3600000\"} 6\n",
        "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"a\",le=\"+Inf\"} 6\n",
        "envoy_cluster_upstream_rq_time_count{envoy_cluster_name=\"a\"} 6\n",
        "envoy_cluster_upstream_rq_time_sum{envoy_cluster_name=\"a\"} 10.2876001885902876",
    ] {
        assert!(rendered.contains(line), "{line}\n---\n{rendered}");
    }
}

#[test]
fn statsd_sends_growth() {
    let (registry, _keep) = counted();
    let mut sink = Statsd::new("envoy");
    let collect = |sink: &mut Statsd| {
        let mut lines = Vec::new();
        sink.flush(&registry, |line| lines.push(line.to_owned()));
        lines
    };
    assert!(collect(&mut sink).contains(&"envoy.cluster.a.upstream_rq_total:7|c".to_owned()));
    let second = collect(&mut sink);
    assert!(
        second.contains(&"envoy.cluster.a.upstream_rq_total:0|c".to_owned())
            && second.contains(&"envoy.server.live:1|g".to_owned())
    );
}

#[test]
fn numbers_are_printed_as_c_does() {
    for (value, digits, expected) in [
        (0.5, 6, "0.5"),
        (1_800_000.0, 6, "1.8e+06"),
        (99.5, 6, "99.5"),
        (3_600_000.0, 32, "3600000"),
        (0.0, 6, "0"),
    ] {
        assert_eq!(general(value, digits), expected);
    }
    for (value, expected) in [
        (300_000.0, "3e+05"),
        (60_000.0, "60000"),
        (1_800_000.0, "1800000"),
        (0.1, "0.1"),
    ] {
        assert_eq!(shortest(value), expected);
    }
}
