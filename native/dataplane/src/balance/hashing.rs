//! Consistent hashing: RING_HASH and MAGLEV, so that a key finds the host that Envoy finds for it.
//!
//! The tables depend on hosts, weights and health alone, so that all workers share them: whoever meets a new version first
//! builds it ([`TableCache`]). How keys are made is `snapshot::hash_policy`'s; this module gets a number.

mod bounded;
mod maglev;
mod murmur;
mod ring;

use std::sync::{Arc, Mutex, PoisonError};

use tidegate_model::cluster::{HealthStatus, LbPolicy, RingHash};
use tidegate_snapshot::{Endpoints, Host};

use self::maglev::Maglev;
use self::ring::Ring;
use super::priority_load::PriorityLoad;
use super::{BalancerConfig, HostLoad, is_healthy};

/// A host with its share of the whole, and what it is hashed by.
#[derive(Debug, Clone, Copy)]
struct Weighted<'e> {
    host: u32,
    /// All sum to 1.
    weight: f64,
    key: &'e str,
}

/// What is told of the table built last: `ring_hash_lb.*`, `maglev_lb.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableStats {
    /// Of a ring; 0 for Maglev, whose size is configured.
    pub size: u64,
    pub min_per_host: u64,
    pub max_per_host: u64,
}

#[derive(Debug)]
enum Table {
    Ring(Ring),
    Maglev(Maglev),
}

/// The table of one priority.
#[derive(Debug)]
struct PriorityTable {
    table: Table,
    /// Index and share, for bounded loads; else empty.
    weights: Vec<(u32, f64)>,
}

/// The tables of all priorities, for one version of a cluster's hosts and their health.
#[derive(Debug)]
pub struct HashTables {
    priorities: Vec<Option<PriorityTable>>,
    /// Percent; 0: loads are not bounded.
    hash_balance_factor: u32,
    /// Of the table built last, if any was.
    pub stats: Option<TableStats>,
}

impl HashTables {
    /// `None`: the policy does not hash.
    pub fn build(
        config: &BalancerConfig,
        endpoints: &Endpoints,
        health: &dyn Fn(&Host) -> HealthStatus,
    ) -> Option<Self> {
        if !matches!(
            config.policy,
            LbPolicy::RingHash(_) | LbPolicy::Maglev { .. }
        ) {
            return None;
        }
        let load = PriorityLoad::new(endpoints, config.healthy_panic_threshold, health);
        let mut stats = None;
        let mut priorities = Vec::with_capacity(endpoints.priorities.len());
        for priority in 0..endpoints.priorities.len() {
            let panic = load.in_panic(priority);
            let wanted = |host: &Host| panic || is_healthy(health(host));
            let hosts = weighted(config, endpoints, priority, &wanted);
            if hosts.is_empty() {
                priorities.push(None);
                continue;
            }
            let (table, built) = match config.policy {
                LbPolicy::Maglev { table_size } => {
                    let (table, stats) = Maglev::build(&hosts, table_size);
                    (Table::Maglev(table), stats)
                }
                LbPolicy::RingHash(ring) => build_ring(&hosts, &ring),
                _ => build_ring(&hosts, &RingHash::default()),
            };
            stats = Some(built);
            let bounded = config.hash_balance_factor > 0;
            priorities.push(Some(PriorityTable {
                table,
                weights: hosts
                    .iter()
                    .filter(|_| bounded)
                    .map(|host| (host.host, host.weight))
                    .collect(),
            }));
        }
        Some(Self {
            priorities,
            hash_balance_factor: config.hash_balance_factor,
            stats,
        })
    }

    /// The host for a hash; `attempt`: how many hosts have been turned down before.
    pub(super) fn choose(
        &self,
        priority: usize,
        hash: u64,
        attempt: u32,
        load: &impl HostLoad,
    ) -> Option<u32> {
        let priority = self.priorities.get(priority)?.as_ref()?;
        let host = match &priority.table {
            Table::Ring(ring) => ring.choose(hash, attempt),
            Table::Maglev(maglev) => maglev.choose(hash, attempt),
        }?;
        if self.hash_balance_factor == 0 {
            return Some(host);
        }
        let factor = self.hash_balance_factor;
        Some(bounded::choose(&priority.weights, host, hash, factor, load))
    }
}

fn build_ring(hosts: &[Weighted<'_>], config: &RingHash) -> (Table, TableStats) {
    let (ring, stats) = Ring::build(hosts, config);
    (Table::Ring(ring), stats)
}

/// The hosts of a priority with their shares, Envoy's `normalizeWeights`.
fn weighted<'e>(
    config: &BalancerConfig,
    endpoints: &'e Endpoints,
    priority: usize,
    wanted: &dyn Fn(&Host) -> bool,
) -> Vec<Weighted<'e>> {
    let Some(priority) = endpoints.priorities.get(priority) else {
        return Vec::new();
    };
    let mut shares = Vec::with_capacity(priority.hosts.len());
    let mut add = |members: &[u32], part: f64| {
        let hosts = || {
            members.iter().filter_map(|&index| {
                let host = endpoints.hosts.get(index as usize)?;
                wanted(host).then_some((index, host))
            })
        };
        let sum: u64 = hosts().map(|(_, host)| u64::from(host.weight)).sum();
        shares.extend(hosts().map(|(index, host)| Weighted {
            host: index,
            weight: f64::from(host.weight) * part / sum as f64,
            key: hash_key(host, config.use_hostname_for_hashing),
        }));
    };
    if !config.locality_weighted {
        add(&priority.hosts, 1.0);
        return shares;
    }
    // By name, as Envoy keeps them; running sums make the order count.
    let mut localities: Vec<_> = priority.localities.iter().collect();
    localities.sort_by(|a, b| {
        let key = |l: &tidegate_model::cluster::Locality| {
            [l.region.0.clone(), l.zone.0.clone(), l.sub_zone.0.clone()]
        };
        key(&a.locality).cmp(&key(&b.locality))
    });
    let sum: u64 = localities
        .iter()
        .map(|group| u64::from(group.weight.unwrap_or(0)))
        .sum();
    for group in localities {
        let weight = group.weight.unwrap_or(0);
        if weight > 0 {
            add(&group.hosts, f64::from(weight) / sum as f64);
        }
    }
    shares
}

fn hash_key(host: &Host, by_hostname: bool) -> &str {
    if by_hostname {
        &host.hostname
    } else {
        &host.address_text
    }
}

type Version = (u64, u64);

/// The tables that are in force, and of what version of the endpoints and of health. Locked when a worker takes a new
/// version over, never on the path.
#[derive(Debug, Default)]
pub struct TableCache {
    built: Mutex<Option<(Version, Arc<HashTables>)>>,
}

impl TableCache {
    /// The tables of a version, built if nobody has built them before; whether they were is told to `built`.
    pub fn get(
        &self,
        version: Version,
        build: impl FnOnce() -> Option<HashTables>,
    ) -> Option<Arc<HashTables>> {
        let mut cached = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, tables)) = &*cached
            && *of == version
        {
            return Some(Arc::clone(tables));
        }
        let tables = Arc::new(build()?);
        *cached = Some((version, Arc::clone(&tables)));
        Some(tables)
    }
}

#[cfg(test)]
mod tests;
