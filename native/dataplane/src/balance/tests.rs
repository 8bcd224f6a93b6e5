use std::sync::Arc;

use tidegate_model::cluster::Locality;
use tidegate_snapshot::cluster::{LocalityHosts, Priority};
use tidegate_snapshot::{Endpoints, Host, HostAddress, HostId};

use tidegate_model::cluster::LeastRequest as LeastRequestConfig;

use super::*;

pub(super) struct NoLoad;

impl HostLoad for NoLoad {
    fn active(&self, _: u32) -> u32 {
        0
    }

    fn active_everywhere(&self, _: u32) -> u32 {
        0
    }

    fn total_active(&self) -> u32 {
        0
    }

    fn age(&self, _: u32) -> Duration {
        Duration::MAX
    }
}

struct Loads(Vec<u32>);

impl HostLoad for Loads {
    fn active(&self, host: u32) -> u32 {
        self.0[host as usize]
    }

    fn active_everywhere(&self, host: u32) -> u32 {
        self.active(host)
    }

    fn total_active(&self) -> u32 {
        self.0.iter().sum()
    }

    fn age(&self, host: u32) -> Duration {
        Duration::from_secs(u64::from(self.active(host)))
    }
}

use HealthStatus::{Degraded, Healthy, Unhealthy};

/// Priorities of localities of (health, weight), with the locality's weight.
pub(super) type Shape<'a> = &'a [&'a [(u32, &'a [(HealthStatus, u32)])]];

pub(super) fn endpoints(shape: Shape<'_>) -> Endpoints {
    let mut endpoints = Endpoints {
        overprovisioning_factor: 140,
        ready: true,
        ..Endpoints::default()
    };
    for (number, localities) in shape.iter().enumerate() {
        let mut priority = Priority::default();
        for (weight, hosts) in *localities {
            let locality = Arc::new(Locality::default());
            let mut members = Vec::new();
            for (health, host_weight) in *hosts {
                let index = endpoints.hosts.len() as u32;
                members.push(index);
                endpoints.hosts.push(Arc::new(Host {
                    transport: tidegate_snapshot::TransportIndex::default(),
                    workload: None,
                    lb_metadata: None,
                    id: HostId(u64::from(index)),
                    address: HostAddress::Socket(([127, 0, 0, 1], 1000 + index as u16).into()),
                    address_text: format!("127.0.0.1:{}", 1000 + index).into(),
                    hostname: "".into(),
                    health: *health,
                    weight: *host_weight,
                    locality: Arc::clone(&locality),
                    priority: number as u32,
                }));
            }
            priority.hosts.extend(&members);
            priority.localities.push(LocalityHosts {
                locality,
                weight: Some(*weight),
                hosts: members,
            });
        }
        endpoints.priorities.push(priority);
    }
    endpoints
}

fn of(host: &Host) -> HealthStatus {
    host.health
}

fn config(policy: LbPolicy) -> BalancerConfig {
    BalancerConfig::from(&Cluster {
        lb_policy: policy,
        ..Cluster::default()
    })
}

fn balancer(policy: LbPolicy, endpoints: &Endpoints, rng: &mut Rng) -> Balancer {
    Balancer::new(&config(policy), endpoints, &of, None, rng, &NoLoad)
}

fn shares(
    balancer: &mut Balancer,
    rng: &mut Rng,
    load: &impl HostLoad,
    hosts: usize,
    picks: usize,
) -> Vec<usize> {
    let mut counts = vec![0; hosts];
    for _ in 0..picks {
        counts[balancer.choose(HashKey::default(), rng, load).host.unwrap() as usize] += 1;
    }
    counts
}

#[test]
fn round_robin_takes_turns_and_honours_weights() {
    let mut rng = Rng::with_seed(1);
    let equal = endpoints(&[&[(1, &[(Healthy, 1), (Healthy, 1), (Healthy, 1)])]]);
    let mut turns = balancer(LbPolicy::RoundRobin, &equal, &mut rng);
    assert_eq!(
        shares(&mut turns, &mut rng, &NoLoad, 3, 300),
        [100, 100, 100]
    );
    let weighted = endpoints(&[&[(1, &[(Healthy, 50), (Healthy, 30), (Healthy, 20)])]]);
    let mut turns = balancer(LbPolicy::RoundRobin, &weighted, &mut rng);
    let counts = shares(&mut turns, &mut rng, &NoLoad, 3, 1000);
    for (count, wanted) in counts.iter().zip([500, 300, 200]) {
        assert!(count.abs_diff(wanted) <= 2, "{counts:?}");
    }
}

#[test]
fn least_request_prefers_the_idle() {
    let mut rng = Rng::with_seed(2);
    let hosts = endpoints(&[&[(1, &[(Healthy, 1), (Healthy, 1)])]]);
    let mut least = balancer(
        LbPolicy::LeastRequest(LeastRequestConfig::default()),
        &hosts,
        &mut rng,
    );
    let counts = shares(&mut least, &mut rng, &Loads(vec![10, 0]), 2, 1000);
    // The busy one is taken only when both samples hit it: a quarter.
    assert!((200..300).contains(&counts[0]), "{counts:?}");
    let weighted = endpoints(&[&[(1, &[(Healthy, 3), (Healthy, 1)])]]);
    let mut least = balancer(
        LbPolicy::LeastRequest(LeastRequestConfig::default()),
        &weighted,
        &mut rng,
    );
    let counts = shares(&mut least, &mut rng, &NoLoad, 2, 1000);
    assert!(counts[0].abs_diff(750) < 10, "{counts:?}");
}

#[test]
fn random_ignores_weights() {
    let mut rng = Rng::with_seed(3);
    let hosts = endpoints(&[&[(1, &[(Healthy, 99), (Healthy, 1)])]]);
    let mut random = balancer(LbPolicy::Random, &hosts, &mut rng);
    let counts = shares(&mut random, &mut rng, &NoLoad, 2, 1000);
    assert!(counts[0].abs_diff(500) < 80, "{counts:?}");
}

#[test]
fn unhealthy_hosts_get_nothing_until_panic() {
    let mut rng = Rng::with_seed(4);
    let most_up = endpoints(&[&[(1, &[(Healthy, 1), (Healthy, 1), (Unhealthy, 1)])]]);
    let mut turns = balancer(LbPolicy::RoundRobin, &most_up, &mut rng);
    assert_eq!(shares(&mut turns, &mut rng, &NoLoad, 3, 100), [50, 50, 0]);
    let most_down = endpoints(&[&[(1, &[(Healthy, 1), (Unhealthy, 1), (Unhealthy, 1)])]]);
    let mut turns = balancer(LbPolicy::RoundRobin, &most_down, &mut rng);
    assert!(turns.choose(HashKey::default(), &mut rng, &NoLoad).panic);
    assert_eq!(shares(&mut turns, &mut rng, &NoLoad, 3, 99), [33, 33, 33]);
    let none = endpoints(&[]);
    assert_eq!(
        balancer(LbPolicy::RoundRobin, &none, &mut rng).choose(
            HashKey::default(),
            &mut rng,
            &NoLoad
        ),
        Choice {
            host: None,
            panic: true
        }
    );
}

#[test]
fn priorities_spill_over_as_in_envoys_table() {
    // Envoy's documentation: with a factor of 1.4, 72 % healthy in P0 keep everything there; 71 % send 1 % away.
    let p0 = |healthy: usize| -> Vec<(HealthStatus, u32)> {
        (0..100)
            .map(|i| (if i < healthy { Healthy } else { Unhealthy }, 1))
            .collect()
    };
    for (healthy, wanted) in [
        (100, [100, 0]),
        (72, [100, 0]),
        (71, [99, 1]),
        (50, [70, 30]),
        (25, [35, 65]),
        (0, [0, 100]),
    ] {
        let hosts = p0(healthy);
        let shape = endpoints(&[&[(1, &hosts)], &[(1, &[(Healthy, 1)])]]);
        let load = PriorityLoad::new(&shape, 50, &of);
        assert_eq!(load.loads().0, wanted, "{healthy}");
        assert!(!load.in_panic(0));
    }
}

#[test]
fn total_panic_spreads_by_size_and_degraded_hosts_come_second() {
    let shape = endpoints(&[
        &[(1, &[(Unhealthy, 1), (Unhealthy, 1), (Unhealthy, 1)])],
        &[(1, &[(Unhealthy, 1)])],
    ]);
    let load = PriorityLoad::new(&shape, 50, &of);
    assert_eq!(
        load.loads(),
        (&[75, 25][..], &[0, 0][..], &[true, true][..])
    );
    let shape = endpoints(&[&[(
        1,
        &[(Healthy, 1), (Degraded, 1), (Degraded, 1), (Degraded, 1)],
    )]]);
    let load = PriorityLoad::new(&shape, 50, &of);
    assert_eq!(load.loads(), (&[35][..], &[65][..], &[false][..]));
    assert!(load.pick(99).degraded && !load.pick(34).degraded);
}

#[test]
fn localities_share_by_weight_when_asked_to() {
    let mut rng = Rng::with_seed(5);
    let shape = endpoints(&[&[
        (9, &[(Healthy, 1)]),
        (1, &[(Healthy, 1), (Healthy, 1), (Healthy, 1)]),
    ]]);
    let config = BalancerConfig {
        locality_weighted: true,
        ..config(LbPolicy::RoundRobin)
    };
    let mut weighted = Balancer::new(&config, &shape, &of, None, &mut rng, &NoLoad);
    let counts = shares(&mut weighted, &mut rng, &NoLoad, 4, 1000);
    assert!(counts[0].abs_diff(900) <= 2, "{counts:?}");
}
