use std::net::SocketAddr;

use tidegate_model::cluster::{
    Address, CircuitBreakers, ConfigSource, Discovery, DnsCluster, DnsLookupFamily, HealthStatus,
    LbEndpoint, LbPolicy, Locality, LocalityLbEndpoints, UpstreamHttpOptions,
};
use tidegate_model::listener::{
    FilterChain, FilterChainMatch, NetworkFilter, TcpCluster, TcpProxy, TrafficDirection,
};
use tidegate_model::tls::DownstreamTransport;

use super::*;
use crate::cluster::HostAddress;

fn cluster(name: &str, discovery: Discovery) -> Arc<Cluster> {
    Arc::new(Cluster {
        name: name.into(),
        alt_stat_name: name.into(),
        discovery,
        connect_timeout: std::time::Duration::from_secs(5),
        per_connection_buffer_limit_bytes: 1 << 20,
        lb_policy: LbPolicy::RoundRobin,
        circuit_breakers: CircuitBreakers::default(),
        http: UpstreamHttpOptions::default(),
        ..Cluster::default()
    })
}

fn eds(name: &str) -> Arc<Cluster> {
    cluster(
        name,
        Discovery::Eds {
            service_name: name.into(),
            source: ConfigSource::Ads,
            initial_fetch_timeout: None,
        },
    )
}

fn assignment(name: &str, addresses: &[Address]) -> Arc<ClusterLoadAssignment> {
    Arc::new(ClusterLoadAssignment {
        cluster_name: name.into(),
        localities: vec![LocalityLbEndpoints {
            locality: Locality::default(),
            endpoints: addresses
                .iter()
                .map(|address| LbEndpoint {
                    address: address.clone(),
                    hostname: "".into(),
                    health: HealthStatus::Unknown,
                    load_balancing_weight: 1,
                    transport_socket_match: Vec::new(),
                    workload: None,
                    lb_metadata: None,
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

fn socket(text: &str) -> Address {
    Address::Socket(text.parse().unwrap())
}

fn tcp_chain(name: &str, to: &str) -> FilterChain {
    FilterChain {
        name: name.into(),
        matches: FilterChainMatch {
            destination_port: None,
            prefix_ranges: vec![format!("10.0.0.{}/32", name.len()).parse().unwrap()],
            ..FilterChainMatch::default()
        },
        read_filters: Vec::new(),
        filter: NetworkFilter::TcpProxy(Arc::new(TcpProxy {
            stat_prefix: to.into(),
            cluster: TcpCluster::Single(to.into()),
            idle_timeout: None,
            max_downstream_connection_duration: None,
            access_log: Vec::new(),
            max_connect_attempts: 1,
            hash_source_ip: false,
        })),
        transport_socket: DownstreamTransport::default(),
        transport_socket_connect_timeout: None,
    }
}

fn listener(name: &str, address: &str, chains: Vec<FilterChain>) -> Arc<Listener> {
    Arc::new(Listener {
        name: name.into(),
        address: address.parse().unwrap(),
        additional_addresses: Vec::new(),
        stat_prefix: name.into(),
        bind_to_port: false,
        use_original_dst: false,
        listener_filters: Vec::new(),
        filter_chains: chains,
        default_filter_chain: None,
        per_connection_buffer_limit_bytes: 1 << 20,
        listener_filters_timeout: None,
        continue_on_listener_filters_timeout: false,
        traffic_direction: TrafficDirection::Outbound,
        reuse_port: true,
        exact_balance: false,
        tcp_backlog_size: 128,
        max_accepts_per_event: None,
        freebind: false,
        transparent: false,
        access_log: Vec::new(),
        drain_type_modify_only: false,
        max_connections: None,
        ignore_global_conn_limit: false,
    })
}

fn found(snapshot: &Snapshot, destination: &str) -> Option<String> {
    let destination: SocketAddr = destination.parse().unwrap();
    snapshot
        .listener_table()
        .find(destination)
        .map(|l| l.name().to_string())
}

#[test]
fn endpoint_updates_touch_their_cluster_only_and_keep_hosts() {
    let mut builder = SnapshotBuilder::default();
    builder.set_cluster(eds("a")).unwrap();
    builder.set_cluster(eds("b")).unwrap();
    assert!(!builder.peek().cluster_by_name("a").unwrap().endpoints.ready);
    builder.set_endpoints(
        "a",
        assignment("a", &[socket("10.0.0.1:80"), socket("10.0.0.2:80")]),
    );
    let first = builder.build();

    let mut builder = SnapshotBuilder::from(&first);
    assert!(builder.set_endpoints(
        "a",
        assignment("a", &[socket("10.0.0.2:80"), socket("10.0.0.3:80")])
    ));
    let second = builder.build();

    let (before, after) = (
        first.cluster_by_name("a").unwrap(),
        second.cluster_by_name("a").unwrap(),
    );
    assert_eq!(before.id(), after.id());
    assert_eq!(before.incarnation, after.incarnation);
    assert!(Arc::ptr_eq(
        &before.endpoints.hosts[1],
        &after.endpoints.hosts[0]
    ));
    assert_eq!(after.endpoints.hosts[1].id.0, 3);
    assert_eq!(after.endpoints.priorities[0].hosts, [0, 1]);
    assert!(Arc::ptr_eq(
        first.cluster_by_name("b").unwrap(),
        second.cluster_by_name("b").unwrap()
    ));
    assert_eq!(second.generation(), first.generation() + 1);

    let mut builder = SnapshotBuilder::from(&second);
    assert!(!builder.set_endpoints(
        "a",
        assignment("a", &[socket("10.0.0.2:80"), socket("10.0.0.3:80")])
    ));
    assert!(!builder.set_cluster(eds("a")).unwrap());
    assert!(!builder.is_changed());
}

#[test]
fn a_changed_cluster_keeps_its_endpoints_and_gets_a_new_incarnation() {
    let mut builder = SnapshotBuilder::default();
    builder.set_cluster(eds("a")).unwrap();
    builder.set_endpoints("a", assignment("a", &[socket("10.0.0.1:80")]));
    let first = builder.build();
    let mut changed = (*eds("a")).clone();
    changed.connect_timeout = std::time::Duration::from_secs(1);
    let mut builder = SnapshotBuilder::from(&first);
    assert!(builder.set_cluster(Arc::new(changed)).unwrap());
    let second = builder.build();
    let (before, after) = (
        first.cluster_by_name("a").unwrap(),
        second.cluster_by_name("a").unwrap(),
    );
    assert_ne!(before.incarnation, after.incarnation);
    assert!(after.endpoints.ready);
    assert_eq!(after.endpoints.hosts[0].id, before.endpoints.hosts[0].id);
}

#[test]
fn dns_results_become_hosts() {
    let dns = DnsCluster {
        jitter: std::time::Duration::ZERO,
        load_assignment: assignment(
            "d",
            &[Address::Dns {
                host: "svc.local".into(),
                port: 80,
            }],
        ),
        refresh_rate: std::time::Duration::from_secs(5),
        respect_dns_ttl: false,
        lookup_family: DnsLookupFamily::Auto,
    };
    let mut builder = SnapshotBuilder::default();
    builder
        .set_cluster(cluster("strict", Discovery::StrictDns(dns.clone())))
        .unwrap();
    builder
        .set_cluster(cluster("logical", Discovery::LogicalDns(dns)))
        .unwrap();
    let ips: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
    for name in ["strict", "logical"] {
        assert!(builder.set_resolved(name, &"svc.local".into(), 80, ips.clone()));
        assert!(!builder.set_resolved(name, &"svc.local".into(), 80, ips.clone()));
    }
    let snapshot = builder.build();
    let strict = &snapshot.cluster_by_name("strict").unwrap().endpoints;
    assert_eq!(strict.hosts.len(), 2);
    assert_eq!(&*strict.hosts[0].hostname, "svc.local");
    assert_eq!(
        strict.hosts[1].address,
        HostAddress::Socket("10.0.0.2:80".parse().unwrap())
    );
    let logical = &snapshot.cluster_by_name("logical").unwrap().endpoints;
    assert_eq!(logical.hosts.len(), 1);
}

#[test]
fn redirected_connections_find_exact_then_wildcard_listeners() {
    let mut builder = SnapshotBuilder::default();
    for (name, address) in [
        ("exact", "10.1.1.1:80"),
        ("wild", "0.0.0.0:80"),
        ("wild6", "[::]:80"),
        ("virtual", "0.0.0.0:15001"),
    ] {
        builder
            .set_listener(listener(name, address, vec![]))
            .unwrap();
    }
    let snapshot = builder.build();
    assert_eq!(found(&snapshot, "10.1.1.1:80").as_deref(), Some("exact"));
    assert_eq!(
        found(&snapshot, "[::ffff:10.1.1.1]:80").as_deref(),
        Some("exact")
    );
    assert_eq!(found(&snapshot, "10.1.1.2:80").as_deref(), Some("wild"));
    assert_eq!(found(&snapshot, "[fd00::1]:80").as_deref(), Some("wild6"));
    assert_eq!(found(&snapshot, "10.1.1.1:81"), None);
}

#[test]
fn filter_chains_that_stay_the_same_stay_the_same() {
    let mut builder = SnapshotBuilder::default();
    let chains = vec![tcp_chain("a", "one"), tcp_chain("bb", "two")];
    builder
        .set_listener(listener("l", "0.0.0.0:1", chains))
        .unwrap();
    let first = builder.build();
    let mut builder = SnapshotBuilder::from(&first);
    let chains = vec![tcp_chain("bb", "two"), tcp_chain("a", "other")];
    builder
        .set_listener(listener("l", "0.0.0.0:1", chains))
        .unwrap();
    let second = builder.build();
    let before = first.listener_by_name("l").unwrap().filter_chains.chains();
    let after = second.listener_by_name("l").unwrap().filter_chains.chains();
    assert!(Arc::ptr_eq(&before[1], &after[0]));
    assert!(!Arc::ptr_eq(&before[0], &after[1]));
}

#[test]
fn cluster_ids_are_not_reused_while_something_names_the_cluster() {
    let mut builder = SnapshotBuilder::default();
    builder
        .set_listener(listener("l", "0.0.0.0:1", vec![tcp_chain("a", "one")]))
        .unwrap();
    builder.set_cluster(eds("one")).unwrap();
    let first = builder.build();
    let id = first.cluster_by_name("one").unwrap().id();

    let mut builder = SnapshotBuilder::from(&first);
    assert!(builder.remove_cluster("one"));
    builder.set_cluster(eds("two")).unwrap();
    let second = builder.build();
    assert!(second.cluster(id).is_none());
    assert_ne!(
        second.cluster_by_name("two").unwrap().id().index(),
        id.index()
    );

    // The listener still names it, so it comes back under its id.
    let mut builder = SnapshotBuilder::from(&second);
    builder.set_cluster(eds("one")).unwrap();
    let third = builder.build();
    assert_eq!(third.cluster_by_name("one").unwrap().id(), id);

    // Once nothing names it any more, the slot is free for another, told apart by generation.
    let mut builder = SnapshotBuilder::from(&third);
    builder.remove_cluster("one");
    builder.remove_listener("l");
    drop((first, second, third));
    let fourth = builder.build();
    let mut builder = SnapshotBuilder::from(&fourth);
    builder.remove_cluster("two");
    builder.set_cluster(eds("three")).unwrap();
    let fifth = builder.build();
    let three = fifth.cluster_by_name("three").unwrap().id();
    assert_eq!(three.index(), id.index());
    assert_ne!(three, id);
    assert!(fifth.cluster(id).is_none());
}

#[test]
fn a_listener_with_ambiguous_chains_changes_nothing() {
    let mut builder = SnapshotBuilder::default();
    let twice = vec![tcp_chain("a", "one"), tcp_chain("b", "two")];
    let error = builder
        .set_listener(listener("l", "0.0.0.0:1", twice))
        .unwrap_err();
    assert_eq!(error.path, "filter_chains[1].filter_chain_match");
    assert!(!builder.is_changed());
    assert!(builder.build().listener_by_name("l").is_none());
}
