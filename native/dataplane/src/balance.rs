//! Load balancing: from a cluster's endpoints to one host.
//!
//! Envoy's scheme: a priority is chosen by the health of all priorities (overprovisioning, panic), then, if locality
//! weighted, a locality, then a host by policy. All state belongs to one worker. This module must not know pools,
//! sockets or statistics; it sees hosts as a list with weights, health and a number of active requests.

mod edf;
mod least_request;
mod priority_load;
mod random;
mod round_robin;

#[cfg(test)]
mod tests;

use tidegate_model::cluster::{HealthStatus, LbPolicy};
use tidegate_rt::Rng;
use tidegate_snapshot::Endpoints;

use self::edf::Edf;
use self::least_request::LeastRequest;
use self::priority_load::PriorityLoad;
use self::round_robin::RoundRobin;

/// What policies ask about a host, by its index in [`Endpoints::hosts`].
pub trait HostLoad {
    /// Requests (for the TCP proxy: connections) in flight from this worker.
    fn active(&self, host: u32) -> u32;
}

/// The outcome of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Index in [`Endpoints::hosts`]; `None`: there is none that may be used.
    pub host: Option<u32>,
    /// The priority was in panic: health was ignored.
    pub panic: bool,
}

/// A candidate: index and weight.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    host: u32,
    weight: u32,
}

/// Hosts among which a policy chooses.
struct HostPool {
    candidates: Vec<Candidate>,
    policy: Policy,
}

enum Policy {
    RoundRobin(RoundRobin),
    LeastRequest(LeastRequest),
    Random,
}

impl HostPool {
    fn new(policy: LbPolicy, candidates: Vec<Candidate>, rng: &mut Rng) -> Self {
        let policy = match policy {
            LbPolicy::RoundRobin => Policy::RoundRobin(RoundRobin::new(&candidates, rng)),
            LbPolicy::LeastRequest { choice_count } => {
                Policy::LeastRequest(LeastRequest::new(choice_count, &candidates, rng))
            }
            // ORIGINAL_DST clusters have no endpoints to choose from.
            LbPolicy::Random | LbPolicy::ClusterProvided => Policy::Random,
        };
        Self { candidates, policy }
    }

    fn choose(&mut self, rng: &mut Rng, load: &impl HostLoad) -> Option<u32> {
        let candidates = &self.candidates;
        let position = match &mut self.policy {
            // One candidate needs no policy.
            _ if candidates.len() < 2 => 0,
            Policy::RoundRobin(policy) => policy.choose(candidates),
            Policy::LeastRequest(policy) => policy.choose(candidates, rng, load),
            Policy::Random => random::choose(candidates, rng),
        };
        candidates.get(position).map(|candidate| candidate.host)
    }
}

/// The localities of one priority, weighted.
struct Localities {
    order: Edf,
    pools: Vec<(HostPool, f64)>,
}

/// One priority.
struct Tier {
    healthy: HostPool,
    degraded: HostPool,
    all: HostPool,
    healthy_localities: Option<Localities>,
    degraded_localities: Option<Localities>,
}

/// The balancer of one cluster in one worker, for one version of its endpoints.
pub struct Balancer {
    tiers: Vec<Tier>,
    load: PriorityLoad,
}

/// What of the cluster's configuration concerns balancing.
#[derive(Debug, Clone, Copy)]
pub struct BalancerConfig {
    pub policy: LbPolicy,
    /// Percent.
    pub healthy_panic_threshold: u32,
    pub locality_weighted: bool,
}

/// A host may be sent requests.
pub const fn is_healthy(health: HealthStatus) -> bool {
    matches!(health, HealthStatus::Unknown | HealthStatus::Healthy)
}

impl Balancer {
    pub fn new(config: BalancerConfig, endpoints: &Endpoints, rng: &mut Rng) -> Self {
        let candidates = |members: &[u32], wanted: fn(HealthStatus) -> bool| {
            members
                .iter()
                .filter_map(|&index| {
                    let host = endpoints.hosts.get(index as usize)?;
                    wanted(host.health).then_some(Candidate {
                        host: index,
                        weight: host.weight,
                    })
                })
                .collect::<Vec<_>>()
        };
        let degraded = |health| health == HealthStatus::Degraded;
        let mut tiers = Vec::with_capacity(endpoints.priorities.len());
        for priority in &endpoints.priorities {
            let mut pool = |members: &[u32], wanted: fn(HealthStatus) -> bool| {
                HostPool::new(config.policy, candidates(members, wanted), rng)
            };
            let mut tier = Tier {
                healthy: pool(&priority.hosts, is_healthy),
                degraded: pool(&priority.hosts, degraded),
                all: pool(&priority.hosts, |_| true),
                healthy_localities: None,
                degraded_localities: None,
            };
            if config.locality_weighted {
                let mut localities = |wanted: fn(HealthStatus) -> bool| {
                    let mut pools = Vec::new();
                    for group in &priority.localities {
                        let members = candidates(&group.hosts, wanted);
                        let weight = effective_weight(
                            group.weight.unwrap_or(0),
                            members.len(),
                            group.hosts.len(),
                            endpoints.overprovisioning_factor,
                        );
                        if weight > 0.0 && !members.is_empty() {
                            pools.push((HostPool::new(config.policy, members, rng), weight));
                        }
                    }
                    (!pools.is_empty()).then(|| Localities {
                        order: Edf::new(pools.iter().map(|(_, weight)| *weight)),
                        pools,
                    })
                };
                tier.healthy_localities = localities(is_healthy);
                tier.degraded_localities = localities(degraded);
            }
            tiers.push(tier);
        }
        Self {
            load: PriorityLoad::new(endpoints, config.healthy_panic_threshold),
            tiers,
        }
    }

    /// A host for one request or connection.
    pub fn choose(&mut self, rng: &mut Rng, load: &impl HostLoad) -> Choice {
        let picked = if self.load.is_single() {
            self.load.only()
        } else {
            self.load.pick(rng.below(100) as u32)
        };
        let panic = self.load.in_panic(picked.priority);
        let host = self
            .tiers
            .get_mut(picked.priority)
            .and_then(|tier| tier.choose(picked.degraded, panic, rng, load));
        Choice { host, panic }
    }
}

impl Tier {
    fn choose(
        &mut self,
        degraded: bool,
        panic: bool,
        rng: &mut Rng,
        load: &impl HostLoad,
    ) -> Option<u32> {
        if panic {
            return self.all.choose(rng, load);
        }
        let (pool, localities) = if degraded {
            (&mut self.degraded, &mut self.degraded_localities)
        } else {
            (&mut self.healthy, &mut self.healthy_localities)
        };
        match localities {
            Some(Localities { order, pools }) => {
                let position = order
                    .pick(|position| pools.get(position).map_or(1.0, |(_, weight)| *weight))?;
                pools.get_mut(position)?.0.choose(rng, load)
            }
            None => pool.choose(rng, load),
        }
    }
}

/// A locality's share shrinks once so many of its hosts are gone that overprovisioning no longer makes up for them.
fn effective_weight(weight: u32, usable: usize, total: usize, overprovisioning: u32) -> f64 {
    if total == 0 {
        return 0.0;
    }
    let available = (f64::from(overprovisioning) / 100.0 * usable as f64 / total as f64).min(1.0);
    f64::from(weight) * available
}
