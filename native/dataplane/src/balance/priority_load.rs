//! How traffic is spread over priorities: Envoy's arithmetic of health, overprovisioning and panic, in whole percent.

use std::sync::Arc;

use tidegate_model::cluster::HealthStatus;
use tidegate_snapshot::cluster::Priority;
use tidegate_snapshot::{Endpoints, Host};

use super::is_healthy;

/// Where a percent point fell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Picked {
    pub(super) priority: usize,
    /// Among the degraded hosts instead of the healthy ones.
    pub(super) degraded: bool,
}

/// Percent of each priority, healthy hosts and degraded hosts apart.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Shares {
    pub(super) healthy: Vec<u32>,
    pub(super) degraded: Vec<u32>,
}

impl Shares {
    /// How much of its full load each priority can take, overprovisioning included; each up to 100.
    pub(super) fn available(endpoints: &Endpoints, health: &dyn Fn(&Host) -> HealthStatus) -> Self {
        let mut shares = Self {
            healthy: Vec::with_capacity(endpoints.priorities.len().max(1)),
            degraded: Vec::with_capacity(endpoints.priorities.len().max(1)),
        };
        for priority in &endpoints.priorities {
            let amount = |wanted: fn(HealthStatus) -> bool| -> u64 {
                members(endpoints, priority)
                    .filter(|host| wanted(health(host)))
                    .map(|host| {
                        if endpoints.weighted_priority_health {
                            u64::from(host.weight)
                        } else {
                            1
                        }
                    })
                    .sum()
            };
            // Hosts that are draining neither count for nor against the others.
            let total = amount(|health| health != HealthStatus::Draining);
            let availability = |part: u64| -> u32 {
                (u64::from(endpoints.overprovisioning_factor) * part)
                    .checked_div(total)
                    .map_or(0, |percent| percent.min(100) as u32)
            };
            shares.healthy.push(availability(amount(is_healthy)));
            shares.degraded.push(availability(amount(|health| {
                health == HealthStatus::Degraded
            })));
        }
        shares
    }

    /// Nothing for the priorities that are excluded.
    pub(super) fn without(&self, excluded: &[bool]) -> Self {
        let kept = |shares: &[u32]| {
            let mut kept = shares.to_vec();
            for (share, excluded) in kept.iter_mut().zip(excluded) {
                if *excluded {
                    *share = 0;
                }
            }
            kept
        };
        Self {
            healthy: kept(&self.healthy),
            degraded: kept(&self.degraded),
        }
    }

    pub(super) fn total(&self) -> u32 {
        self.healthy.iter().sum::<u32>() + self.degraded.iter().sum::<u32>()
    }

    /// `point`: 0 to 99.
    pub(super) fn pick(&self, point: u32) -> Picked {
        let mut sum = 0;
        for (degraded, loads) in [(false, &self.healthy), (true, &self.degraded)] {
            for (priority, load) in loads.iter().enumerate() {
                sum += load;
                if point < sum {
                    return Picked { priority, degraded };
                }
            }
        }
        FIRST
    }
}

/// The healthy hosts of the first priority.
const FIRST: Picked = Picked {
    priority: 0,
    degraded: false,
};

fn members<'a>(
    endpoints: &'a Endpoints,
    priority: &'a Priority,
) -> impl Iterator<Item = &'a Arc<Host>> {
    priority
        .hosts
        .iter()
        .filter_map(|&index| endpoints.hosts.get(index as usize))
}

/// The share that each priority takes, which sum to 100, and which of them are in panic.
#[derive(Debug, Default)]
pub(super) struct PriorityLoad {
    shares: Shares,
    panic: Vec<bool>,
}

impl PriorityLoad {
    pub(super) fn new(
        endpoints: &Endpoints,
        panic_threshold: u32,
        health: &dyn Fn(&Host) -> HealthStatus,
    ) -> Self {
        let count = endpoints.priorities.len().max(1);
        let Shares {
            healthy: mut healthy_share,
            degraded: mut degraded_share,
        } = Shares::available(endpoints, health);
        let mut totals = Vec::with_capacity(count);
        let mut below_threshold = Vec::with_capacity(count);
        for priority in &endpoints.priorities {
            let hosts = || members(endpoints, priority);
            let members = hosts()
                .filter(|host| health(host) != HealthStatus::Draining)
                .count() as u64;
            let usable = hosts()
                .filter(|host| {
                    let health = health(host);
                    is_healthy(health) || health == HealthStatus::Degraded
                })
                .count() as u64;
            // An empty priority has 0 % healthy hosts.
            below_threshold.push(
                members == 0 && panic_threshold > 0
                    || usable * 100 < u64::from(panic_threshold) * members,
            );
            totals.push(priority.hosts.len() as u64);
        }
        if totals.is_empty() {
            totals.push(0);
            healthy_share.push(0);
            degraded_share.push(0);
            below_threshold.push(panic_threshold > 0);
        }
        let normalized =
            (healthy_share.iter().sum::<u32>() + degraded_share.iter().sum::<u32>()).min(100);
        if normalized == 0 && panic_threshold == 0 {
            // Nothing is available and panic is off: everything goes to the first priority, and fails there.
            return Self::all_to_first(count);
        }
        let panic: Vec<bool> = below_threshold
            .into_iter()
            .map(|below| normalized != 100 && below)
            .collect();
        if panic.iter().all(|&panic| panic) {
            return Self::total_panic(&totals, panic);
        }
        let mut left = 100u32;
        let mut spread = |shares: &[u32]| -> Vec<u32> {
            shares
                .iter()
                .map(|&share| {
                    let load = (share * 100 / normalized.max(1)).min(left);
                    left -= load;
                    load
                })
                .collect()
        };
        let mut healthy = spread(&healthy_share);
        let mut degraded = spread(&degraded_share);
        // What integer division left over goes to the first priority that takes traffic at all.
        if left > 0 {
            let first = healthy
                .iter_mut()
                .zip(&healthy_share)
                .find(|(_, share)| **share > 0)
                .map(|(load, _)| load);
            match first {
                Some(load) => *load += left,
                None => {
                    if let Some((load, _)) = degraded
                        .iter_mut()
                        .zip(&degraded_share)
                        .find(|(_, share)| **share > 0)
                    {
                        *load += left;
                    }
                }
            }
        }
        Self {
            shares: Shares { healthy, degraded },
            panic,
        }
    }

    fn all_to_first(count: usize) -> Self {
        let mut healthy = vec![0; count];
        if let Some(first) = healthy.first_mut() {
            *first = 100;
        }
        Self {
            shares: Shares {
                healthy,
                degraded: vec![0; count],
            },
            panic: vec![false; count],
        }
    }

    /// All priorities are in panic: traffic is spread by their number of hosts.
    fn total_panic(totals: &[u64], panic: Vec<bool>) -> Self {
        let sum: u64 = totals.iter().sum();
        if sum == 0 {
            return Self {
                panic,
                ..Self::all_to_first(totals.len())
            };
        }
        let mut left = 100u32;
        let mut healthy: Vec<u32> = totals
            .iter()
            .map(|&total| {
                let load = ((total * 100 / sum) as u32).min(left);
                left -= load;
                load
            })
            .collect();
        if let Some((load, _)) = healthy
            .iter_mut()
            .zip(totals)
            .find(|(_, total)| **total > 0)
        {
            *load += left;
        }
        Self {
            shares: Shares {
                degraded: vec![0; healthy.len()],
                healthy,
            },
            panic,
        }
    }

    /// There is but one priority, and no share for degraded hosts: no random number is needed.
    #[inline]
    pub(super) fn is_single(&self) -> bool {
        let first = self.shares.healthy.first();
        first.is_some_and(|&load| load == 100)
    }

    #[inline]
    pub(super) const fn only(&self) -> Picked {
        FIRST
    }

    /// `point`: 0 to 99.
    pub(super) fn pick(&self, point: u32) -> Picked {
        self.shares.pick(point)
    }

    #[inline]
    pub(super) fn in_panic(&self, priority: usize) -> bool {
        self.panic.get(priority).copied().unwrap_or(false)
    }

    #[cfg(test)]
    pub(super) fn loads(&self) -> (&[u32], &[u32], &[bool]) {
        (&self.shares.healthy, &self.shares.degraded, &self.panic)
    }
}
