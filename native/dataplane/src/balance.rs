//! Load balancing: from a cluster's endpoints to one host.
//!
//! Envoy's scheme: a priority is chosen by the health of all priorities (overprovisioning, panic), then, if locality
//! weighted, a locality, then a host by policy. All state belongs to one worker, but for the tables of consistent hashing,
//! which nobody writes to. This module must not know pools, sockets or statistics; it sees hosts as a list with weights,
//! health, age and a number of active requests.

mod edf;
mod hashing;
mod least_request;
mod priority_load;
mod random;
mod retry_priority;
mod round_robin;
mod weights;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tidegate_model::cluster::{Cluster, HealthStatus, LbPolicy, SlowStart};
use tidegate_rt::Rng;
use tidegate_snapshot::{Endpoints, Host};

use self::edf::Edf;
pub use self::hashing::{HashTables, TableCache, TableStats};
use self::least_request::LeastRequest;
use self::priority_load::{PriorityLoad, Shares};
pub use self::retry_priority::PreviousPriorities;
use self::round_robin::RoundRobin;

/// What policies ask about a host, by its index in [`Endpoints::hosts`].
pub trait HostLoad {
    /// Requests (for the TCP proxy: connections) in flight from this worker.
    fn active(&self, host: u32) -> u32;

    /// The same from all workers.
    fn active_everywhere(&self, host: u32) -> u32;

    /// The same to all hosts of the cluster.
    fn total_active(&self) -> u32;

    /// How long the host has been there and healthy; asked only for slow start.
    fn age(&self, host: u32) -> Duration;
}

/// The outcome of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Index in [`Endpoints::hosts`]; `None`: there is none that may be used.
    pub host: Option<u32>,
    /// The priority was in panic: health was ignored.
    pub panic: bool,
}

/// What a request goes by in consistent hashing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HashKey {
    /// `None`: any host will do.
    pub hash: Option<u64>,
    /// How many hosts have been turned down for this try.
    pub attempt: u32,
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
    fn new(
        config: &BalancerConfig,
        candidates: Vec<Candidate>,
        rng: &mut Rng,
        load: &impl HostLoad,
    ) -> Self {
        let slow_start = config.slow_start;
        let policy = match config.policy {
            LbPolicy::RoundRobin => {
                Policy::RoundRobin(RoundRobin::new(slow_start, &candidates, rng, load))
            }
            LbPolicy::LeastRequest(policy) => Policy::LeastRequest(LeastRequest::new(
                policy,
                slow_start,
                &candidates,
                rng,
                load,
            )),
            // Of ORIGINAL_DST clusters there is nothing to choose from; consistent hashing has tables.
            LbPolicy::Random
            | LbPolicy::ClusterProvided
            | LbPolicy::RingHash(_)
            | LbPolicy::Maglev { .. } => Policy::Random,
        };
        Self { candidates, policy }
    }

    fn choose(&mut self, rng: &mut Rng, load: &impl HostLoad) -> Option<u32> {
        let candidates = &self.candidates;
        let position = match &mut self.policy {
            // One candidate needs no policy.
            _ if candidates.len() < 2 => 0,
            Policy::RoundRobin(policy) => policy.choose(candidates, load),
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

/// The balancer of one cluster in one worker, for one version of its endpoints and of their health.
pub struct Balancer {
    tiers: Vec<Tier>,
    load: PriorityLoad,
    /// In place of the tiers.
    tables: Option<Arc<HashTables>>,
    fail_traffic_on_panic: bool,
}

/// What of the cluster's configuration concerns balancing.
#[derive(Debug, Clone, Copy)]
pub struct BalancerConfig {
    pub policy: LbPolicy,
    /// Percent.
    pub healthy_panic_threshold: u32,
    pub locality_weighted: bool,
    pub fail_traffic_on_panic: bool,
    pub use_hostname_for_hashing: bool,
    pub hash_balance_factor: u32,
    pub slow_start: Option<SlowStart>,
}

impl From<&Cluster> for BalancerConfig {
    fn from(cluster: &Cluster) -> Self {
        let lb = &cluster.lb;
        Self {
            policy: cluster.lb_policy,
            healthy_panic_threshold: lb.healthy_panic_threshold,
            locality_weighted: lb.locality_weighted,
            fail_traffic_on_panic: lb.fail_traffic_on_panic,
            use_hostname_for_hashing: lb.use_hostname_for_hashing,
            hash_balance_factor: lb.hash_balance_factor,
            slow_start: lb.slow_start,
        }
    }
}

/// A host may be sent requests.
pub const fn is_healthy(health: HealthStatus) -> bool {
    matches!(health, HealthStatus::Unknown | HealthStatus::Healthy)
}

impl Balancer {
    /// Of a cluster without hosts.
    pub fn empty() -> Self {
        Self {
            load: PriorityLoad::default(),
            tiers: Vec::new(),
            tables: None,
            fail_traffic_on_panic: false,
        }
    }

    /// `health`: of a host as it is now, whatever its configuration says. `tables`: for consistent hashing.
    pub fn new(
        config: &BalancerConfig,
        endpoints: &Endpoints,
        health: &dyn Fn(&Host) -> HealthStatus,
        tables: Option<Arc<HashTables>>,
        rng: &mut Rng,
        load: &impl HostLoad,
    ) -> Self {
        let mut tiers = Vec::new();
        if tables.is_none() {
            tiers.reserve_exact(endpoints.priorities.len());
            for priority in &endpoints.priorities {
                tiers.push(Tier::new(config, endpoints, priority, health, rng, load));
            }
        }
        Self {
            load: PriorityLoad::new(endpoints, config.healthy_panic_threshold, health),
            tiers,
            tables,
            fail_traffic_on_panic: config.fail_traffic_on_panic,
        }
    }

    /// A host for one request or connection.
    pub fn choose(&mut self, key: HashKey, rng: &mut Rng, load: &impl HostLoad) -> Choice {
        self.choose_by(None, key, rng, load)
    }

    /// [`Self::choose`] for a retry that leaves priorities out, which consistent hashing does not look at. `endpoints` and
    /// `health` are those that the balancer was made for.
    pub fn choose_again(
        &mut self,
        previous: &mut PreviousPriorities,
        endpoints: &Endpoints,
        health: &dyn Fn(&Host) -> HealthStatus,
        key: HashKey,
        rng: &mut Rng,
        load: &impl HostLoad,
    ) -> Choice {
        self.choose_by(previous.shares(endpoints, health), key, rng, load)
    }

    /// `shares`: of the priorities, in place of its own.
    fn choose_by(
        &mut self,
        shares: Option<&Shares>,
        key: HashKey,
        rng: &mut Rng,
        load: &impl HostLoad,
    ) -> Choice {
        if let Some(tables) = &self.tables {
            let hash = key.hash.unwrap_or_else(|| rng.next_u64());
            let picked = self.load.pick((hash % 100) as u32);
            return Choice {
                host: tables.choose(picked.priority, hash, key.attempt, load),
                panic: self.load.in_panic(picked.priority),
            };
        }
        let picked = match shares {
            Some(shares) => shares.pick(rng.below(100) as u32),
            None if self.load.is_single() => self.load.only(),
            None => self.load.pick(rng.below(100) as u32),
        };
        let panic = self.load.in_panic(picked.priority);
        if panic && self.fail_traffic_on_panic {
            return Choice { host: None, panic };
        }
        let host = self
            .tiers
            .get_mut(picked.priority)
            .and_then(|tier| tier.choose(picked.degraded, panic, rng, load));
        Choice { host, panic }
    }
}

impl Tier {
    fn new(
        config: &BalancerConfig,
        endpoints: &Endpoints,
        priority: &tidegate_snapshot::cluster::Priority,
        health: &dyn Fn(&Host) -> HealthStatus,
        rng: &mut Rng,
        load: &impl HostLoad,
    ) -> Self {
        let candidates = |members: &[u32], wanted: fn(HealthStatus) -> bool| {
            members
                .iter()
                .filter_map(|&index| {
                    let host = endpoints.hosts.get(index as usize)?;
                    wanted(health(host)).then_some(Candidate {
                        host: index,
                        weight: host.weight,
                    })
                })
                .collect::<Vec<_>>()
        };
        let degraded = |health| health == HealthStatus::Degraded;
        let mut pool = |members: &[u32], wanted: fn(HealthStatus) -> bool| {
            HostPool::new(config, candidates(members, wanted), rng, load)
        };
        let mut tier = Self {
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
                        candidates(&group.hosts, |health| health != HealthStatus::Draining).len(),
                        endpoints.overprovisioning_factor,
                    );
                    if weight > 0.0 && !members.is_empty() {
                        pools.push((HostPool::new(config, members, rng, load), weight));
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
        tier
    }

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
