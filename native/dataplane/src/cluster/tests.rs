use std::net::SocketAddr;
use std::time::Duration;

use tidegate_model::cluster::{
    Address, CircuitBreakers, ClusterLoadAssignment, ConfigSource, HealthStatus, LbEndpoint,
    LbPolicy, Locality, LocalityLbEndpoints, OriginalDst, Thresholds, UpstreamHttpOptions,
};
use tidegate_model::route::RoutingPriority;
use tidegate_rt::Clock;
use tidegate_snapshot::SnapshotBuilder;
use tidegate_stats::Registry;

use super::*;

fn config(discovery: Discovery) -> Cluster {
    Cluster {
        name: "c".into(),
        alt_stat_name: "c".into(),
        lb_policy: match discovery {
            Discovery::OriginalDst(_) => LbPolicy::ClusterProvided,
            _ => LbPolicy::RoundRobin,
        },
        discovery,
        connect_timeout: Duration::from_secs(5),
        per_connection_buffer_limit_bytes: 1 << 20,
        circuit_breakers: CircuitBreakers {
            default: Thresholds {
                max_connections: 2,
                track_remaining: true,
                ..Thresholds::default()
            },
            high: Thresholds::default(),
        },
        http: UpstreamHttpOptions::default(),
        ..Cluster::default()
    }
}

fn eds() -> Cluster {
    config(Discovery::Eds {
        service_name: "c".into(),
        source: ConfigSource::Ads,
        initial_fetch_timeout: None,
    })
}

fn assignment(ports: &[u16], weight: u32) -> Arc<ClusterLoadAssignment> {
    Arc::new(ClusterLoadAssignment {
        cluster_name: "c".into(),
        localities: vec![LocalityLbEndpoints {
            locality: Locality::default(),
            endpoints: ports
                .iter()
                .map(|&port| LbEndpoint {
                    workload: None,
                    lb_metadata: None,
                    address: Address::Socket(SocketAddr::from(([127, 0, 0, 1], port))),
                    hostname: "".into(),
                    health: HealthStatus::Unknown,
                    load_balancing_weight: weight,
                    transport_socket_match: Vec::new(),
                })
                .collect(),
            load_balancing_weight: None,
            priority: 0,
        }],
        overprovisioning_factor: 140,
        weighted_priority_health: false,
        drop_overloads: Vec::new(),
    })
}

/// A worker's clusters without the worker.
struct Bench {
    registry: Registry,
    snapshot: Arc<Snapshot>,
    shared: Vec<Option<Arc<ClusterShared>>>,
    clusters: Clusters,
    rng: Rng,
}

impl Bench {
    fn new(config: Cluster) -> Self {
        let mut bench = Self {
            registry: Registry::new(1),
            snapshot: Arc::default(),
            shared: Vec::new(),
            clusters: Clusters::new(),
            rng: Rng::with_seed(1),
        };
        bench.update(|builder| {
            builder.set_cluster(Arc::new(config)).unwrap();
        });
        bench
    }

    fn update(&mut self, change: impl FnOnce(&mut SnapshotBuilder)) -> Vec<GoneHost> {
        let mut builder = SnapshotBuilder::from(&self.snapshot);
        change(&mut builder);
        self.snapshot = builder.build();
        let mut shared = vec![None; self.snapshot.cluster_slots()];
        for compiled in self.snapshot.clusters() {
            let membership = self.registry.group("cluster.c.");
            let hosts = Arc::new(HostTable::new(1));
            shared[compiled.id().index()] = Some(Arc::new(ClusterShared {
                on_demand: Some(Arc::new(OnDemandHosts::new(
                    compiled.transports().choose(&[]),
                    Arc::clone(&hosts),
                    None,
                    membership.clone(),
                ))),
                ssl: None,
                bind: None,
                detector: None,
                tables: Arc::default(),
                compiled: Arc::clone(compiled),
                traffic: self.registry.group("cluster.c."),
                membership,
                breakers: Arc::new(Breakers::new(&compiled.config.circuit_breakers)),
                hosts,
            }));
        }
        // Only now may the old handles go: the statistics live as long as one of them.
        self.shared = shared;
        self.clusters.update(&self.snapshot, &mut self.rng)
    }

    fn cluster(&mut self) -> Rc<ClusterRuntime> {
        let id = self.snapshot.cluster_by_name("c").unwrap().id();
        match self.clusters.get(id) {
            Some(cluster) => Rc::clone(cluster),
            None => self
                .clusters
                .make(id, &self.shared, 0, &mut self.rng)
                .unwrap(),
        }
    }

    fn choose(&mut self, context: &LbContext, now: Moment) -> Option<Rc<HostRuntime>> {
        let cluster = self.cluster();
        cluster.choose_host(&mut self.rng, now, context)
    }
}

fn uids(hosts: &[Rc<HostRuntime>]) -> Vec<u64> {
    hosts.iter().map(|host| host.state.uid()).collect()
}

#[test]
fn hosts_keep_their_state_over_endpoint_updates() {
    let mut bench = Bench::new(eds());
    bench.update(|builder| {
        builder.set_endpoints("c", assignment(&[1, 2], 1));
    });
    let before = bench.cluster().hosts();
    let request = ActiveRequest::new(
        bench.cluster(),
        Rc::clone(&before[0]),
        RoutingPriority::Default,
    );
    // A weight changes, a host goes, another comes.
    let gone = bench.update(|builder| {
        builder.set_endpoints("c", assignment(&[1, 3], 7));
    });
    assert_eq!(gone.len(), 1);
    assert_eq!(gone[0].host.state.uid(), before[1].state.uid());
    assert!(before[1].state.is_gone() && !before[0].state.is_gone());
    let after = bench.cluster().hosts();
    assert_eq!(after[0].state.uid(), before[0].state.uid());
    assert_eq!((after[0].host.weight, before[0].host.weight), (7, 1));
    assert_eq!(after[0].state.rq_active(), 1);
    assert!(!uids(&before).contains(&after[1].state.uid()));
    drop(request);
    assert_eq!(after[0].state.rq_active(), 0);
    assert_eq!(bench.registry.value("cluster.c.upstream_rq_total"), Some(1));
    assert_eq!(
        bench.registry.value("cluster.c.upstream_rq_active"),
        Some(0)
    );
}

#[test]
fn a_changed_cluster_starts_anew_and_a_removed_one_is_gone() {
    let mut bench = Bench::new(eds());
    bench.update(|builder| {
        builder.set_endpoints("c", assignment(&[1], 1));
    });
    let old = bench.cluster();
    let mut changed = eds();
    changed.connect_timeout = Duration::from_secs(1);
    let gone = bench.update(|builder| {
        builder.set_cluster(Arc::new(changed)).unwrap();
    });
    assert_eq!(gone.len(), 1);
    let new = bench.cluster();
    assert!(!Rc::ptr_eq(&old, &new));
    assert_eq!(new.config.connect_timeout, Duration::from_secs(1));
    assert_eq!(new.hosts().len(), 1);
    let gone = bench.update(|builder| {
        builder.remove_cluster("c");
    });
    assert_eq!(gone.len(), 1);
    assert!(bench.clusters.get(new.id).is_none());
}

#[test]
fn limits_open_and_close_and_may_be_forced() {
    let mut bench = Bench::new(eds());
    let cluster = bench.cluster();
    let take = || {
        Permit::try_take(
            &cluster,
            RoutingPriority::Default,
            ResourceKind::Connections,
        )
    };
    let value = |name: &str| {
        bench
            .registry
            .value(&format!("cluster.c.circuit_breakers.default.{name}"))
    };
    let first = take().unwrap();
    assert_eq!(value("cx_open"), Some(0));
    let second = take().unwrap();
    assert!(take().is_none());
    assert_eq!(value("cx_open"), Some(1));
    let third = Permit::force(
        &cluster,
        RoutingPriority::Default,
        ResourceKind::Connections,
    );
    let resource = cluster
        .breakers
        .resource(RoutingPriority::Default, ResourceKind::Connections);
    assert_eq!((resource.used(), resource.max()), (3, 2));
    // The other priority and the other limits have counts of their own.
    assert!(Permit::try_take(&cluster, RoutingPriority::High, ResourceKind::Connections).is_some());
    assert!(Permit::try_take(&cluster, RoutingPriority::Default, ResourceKind::Requests).is_some());
    drop(third);
    assert_eq!(value("cx_open"), Some(1));
    drop(second);
    assert_eq!(value("cx_open"), Some(0));
    drop(first);
    assert_eq!(resource.used(), 0);
    // Started from nothing here; the publisher sets it to the limit.
    assert_eq!(value("remaining_cx"), Some(0));
}

#[test]
fn original_dst_hosts_are_made_on_demand_and_cleaned_when_unused() {
    let mut bench = Bench::new(config(Discovery::OriginalDst(OriginalDst {
        cleanup_interval: Duration::from_secs(5),
        upstream_port_override: Some(9),
        ..OriginalDst::default()
    })));
    let start = Clock::precise();
    let at = |seconds| start + Duration::from_secs(seconds);
    let to = |address: &str| LbContext {
        key: HashKey::default(),
        original_dst: Some(address.parse().unwrap()),
        named_dst: None,
    };
    assert!(bench.choose(&LbContext::default(), at(0)).is_none());
    let first = bench.choose(&to("10.0.0.1:80"), at(0)).unwrap();
    assert_eq!(&*first.host.address_text, "10.0.0.1:9");
    let again = bench.choose(&to("10.0.0.1:81"), at(1)).unwrap();
    assert!(Rc::ptr_eq(&first, &again));
    drop(bench.choose(&to("10.0.0.2:80"), at(1)).unwrap());
    assert_eq!(bench.cluster().hosts().len(), 2);
    let shared = Arc::clone(bench.shared[0].as_ref().unwrap());
    let on_demand = shared.on_demand.as_ref().unwrap();
    assert_eq!(on_demand.hosts().len(), 2);
    // Another worker has the same host; it stays until both have dropped it.
    let id = bench.cluster().id;
    let mut others = Clusters::new();
    let other = others
        .make(id, &bench.shared, 0, &mut bench.rng)
        .unwrap()
        .choose_host(&mut bench.rng, at(1), &to("10.0.0.1:80"))
        .unwrap();
    assert_eq!(other.host.id, first.host.id);
    drop(other);
    assert_eq!(
        bench.clusters.cleanup_interval(),
        Some(Duration::from_secs(5))
    );
    // Used since the last time: both stay. Then the one that nobody holds goes.
    assert!(bench.clusters.clean_original_dst(at(6)).is_empty());
    let gone = bench.clusters.clean_original_dst(at(12));
    assert_eq!(gone.len(), 1);
    assert_eq!(&*gone[0].host.host.address_text, "10.0.0.2:9");
    drop((first, again));
    assert_eq!(bench.clusters.clean_original_dst(at(18)).len(), 1);
    assert!(bench.cluster().hosts().is_empty());
    assert_eq!(on_demand.hosts().len(), 1);
    assert!(others.clean_original_dst(at(6)).is_empty());
    assert_eq!(others.clean_original_dst(at(12)).len(), 1);
    assert!(on_demand.hosts().is_empty());
}
