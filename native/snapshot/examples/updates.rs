//! Prints what the next snapshot costs when one thing of many has changed, and what an access-log line costs.
//!
//! `cargo run --release -p tidegate-snapshot --example updates`

#![expect(clippy::expect_used, reason = "a measuring tool")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tidegate_model::access_log::{AccessLog, LogFormat};
use tidegate_model::cluster::{
    Address, CircuitBreakers, Cluster, ClusterLoadAssignment, ConfigSource, Discovery,
    HealthStatus, LbEndpoint, LbPolicy, Locality, LocalityLbEndpoints, UpstreamHttpOptions,
};
use tidegate_snapshot::log_context::{AddressField, HeaderMap, NumberField, TextField, TimePoint};
use tidegate_snapshot::{
    CompiledAccessLog, HeaderName, LogContext, ResponseFlags, Runtime, SnapshotBuilder, WellKnown,
};

fn cluster(name: &str) -> Arc<Cluster> {
    Arc::new(Cluster {
        name: name.into(),
        alt_stat_name: name.into(),
        discovery: Discovery::Eds {
            service_name: name.into(),
            source: ConfigSource::Ads,
            initial_fetch_timeout: None,
        },
        connect_timeout: Duration::from_secs(5),
        per_connection_buffer_limit_bytes: 1 << 20,
        lb_policy: LbPolicy::RoundRobin,
        circuit_breakers: CircuitBreakers::default(),
        http: UpstreamHttpOptions::default(),
        ..Cluster::default()
    })
}

fn endpoints(name: &str, count: u16) -> Arc<ClusterLoadAssignment> {
    let endpoint = |port| LbEndpoint {
        address: Address::Socket(SocketAddr::from(([10, 0, 0, 1], port))),
        hostname: "".into(),
        health: HealthStatus::Unknown,
        load_balancing_weight: 1,
        transport_socket_match: Vec::new(),
        workload: None,
        lb_metadata: None,
    };
    Arc::new(ClusterLoadAssignment {
        cluster_name: name.into(),
        localities: vec![LocalityLbEndpoints {
            locality: Locality::default(),
            endpoints: (1..=count).map(endpoint).collect(),
            load_balancing_weight: None,
            priority: 0,
        }],
        overprovisioning_factor: 140,
        weighted_priority_health: false,
        drop_overloads: Vec::new(),
    })
}

fn updates(count: usize) {
    let name = |i: usize| format!("outbound|80||svc-{i}.ns.svc.cluster.local");
    let start = Instant::now();
    let mut builder = SnapshotBuilder::default();
    for i in 0..count {
        builder.set_cluster(cluster(&name(i))).expect("no TLS");
        builder.set_endpoints(&name(i), endpoints(&name(i), 3));
    }
    let mut snapshot = builder.build();
    println!(
        "{count:>6} clusters from nothing   {:>9.1} us",
        micros(start, 1)
    );

    let rounds = 200;
    let start = Instant::now();
    for round in 0..rounds {
        let mut builder = SnapshotBuilder::from(&snapshot);
        builder.set_endpoints(&name(count / 2), endpoints("x", 3 + (round % 2) as u16));
        snapshot = builder.build();
    }
    println!(
        "{count:>6}, endpoints of one      {:>9.1} us",
        micros(start, rounds)
    );

    let start = Instant::now();
    for round in 0..rounds {
        let mut builder = SnapshotBuilder::from(&snapshot);
        if round % 2 == 0 {
            builder.set_cluster(cluster("another")).expect("no TLS");
        } else {
            builder.remove_cluster("another");
        }
        snapshot = builder.build();
    }
    println!(
        "{count:>6}, a cluster comes or goes {:>7.1} us",
        micros(start, rounds)
    );
}

fn micros(start: Instant, rounds: usize) -> f64 {
    start.elapsed().as_secs_f64() * 1e6 / rounds as f64
}

struct Sample;

impl LogContext for Sample {
    fn header(&self, _: HeaderMap, name: &HeaderName) -> Option<&[u8]> {
        Some(match name.known()? {
            WellKnown::Method => b"GET",
            WellKnown::Path => b"/productpage?u=normal",
            WellKnown::Authority => b"productpage:9080",
            WellKnown::UserAgent => b"Mozilla/5.0",
            WellKnown::RequestId => b"d9ef9d92-ed72-46ee-b512-05ef9c1a9484",
            WellKnown::EnvoyUpstreamServiceTime => b"12",
            _ => return None,
        })
    }

    fn text(&self, field: TextField) -> Option<&[u8]> {
        (field == TextField::Protocol).then_some(b"HTTP/1.1")
    }

    fn number(&self, _: NumberField) -> Option<u64> {
        Some(200)
    }

    fn address(&self, _: AddressField) -> Option<SocketAddr> {
        Some(SocketAddr::from(([10, 0, 0, 1], 9080)))
    }

    fn start_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_494_947_224)
    }

    fn now(&self) -> SystemTime {
        self.start_time()
    }

    fn time_point(&self, _: TimePoint) -> Option<Duration> {
        Some(Duration::from_millis(13))
    }

    fn response_flags(&self) -> ResponseFlags {
        ResponseFlags::NONE
    }
}

fn log_line() {
    let log = CompiledAccessLog::compile(&Arc::new(AccessLog {
        path: "/dev/null".into(),
        format: LogFormat::Default,
        filter: None,
    }))
    .expect("Envoy's own format");
    let runtime = Runtime::default();
    let mut out = Vec::with_capacity(1 << 16);
    let rounds = 200_000;
    let start = Instant::now();
    for _ in 0..rounds {
        if out.len() > 60_000 {
            out.clear();
        }
        black_box(log.write(black_box(&Sample), &runtime, 0, &mut out));
    }
    println!(
        "a line in the default format {:>9.1} ns",
        micros(start, rounds) * 1e3
    );
}

fn main() {
    for count in [100, 1_000, 10_000] {
        updates(count);
    }
    log_line();
}
