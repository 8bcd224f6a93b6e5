//! Circuit breakers: limits on connections, pending requests, requests, retries and pools, per priority.
//!
//! The limits hold for the process, as Envoy's do, not for a worker: a limit of one connection means one. Each is a
//! shared atomic counter, those of a priority on one cache line, which a request needs anyway; taking and giving back is
//! one relaxed addition each, some 5 ns while one worker uses the cluster and some 50 ns when two fight over it, and no lock. As in Envoy the check and the
//! increment are not one step where a permit is forced, so a limit may be passed by a connection per worker.

use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use tidegate_model::cluster::{CircuitBreakers, RetryBudget, Thresholds};
use tidegate_model::route::RoutingPriority;
use tidegate_stats::{Gauge, defs::cluster as stat};

use super::ClusterRuntime;

/// What a limit is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceKind {
    Connections,
    PendingRequests,
    Requests,
    Retries,
    ConnectionPools,
}

/// One limit and how much of it is used.
#[derive(Debug)]
pub struct Resource {
    used: AtomicU32,
    max: u32,
}

impl Resource {
    const fn new(max: u32) -> Self {
        Self {
            used: AtomicU32::new(0),
            max,
        }
    }

    #[inline]
    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    pub const fn max(&self) -> u32 {
        self.max
    }

    /// Envoy's `canCreate`.
    #[inline]
    pub fn can_create(&self) -> bool {
        self.used() < self.max
    }
}

/// A cache line. Ten thousand clusters have ten thousand pairs of them.
#[derive(Debug)]
#[repr(align(64))]
struct PriorityBreakers {
    connections: Resource,
    pending: Resource,
    requests: Resource,
    retries: Resource,
    pools: Resource,
    track_remaining: bool,
    retry_budget: Option<Box<RetryBudget>>,
}

impl PriorityBreakers {
    fn new(thresholds: &Thresholds) -> Self {
        Self {
            connections: Resource::new(thresholds.max_connections),
            pending: Resource::new(thresholds.max_pending_requests),
            requests: Resource::new(thresholds.max_requests),
            retries: Resource::new(thresholds.max_retries),
            pools: Resource::new(thresholds.max_connection_pools.unwrap_or(u32::MAX)),
            track_remaining: thresholds.track_remaining,
            retry_budget: thresholds.retry_budget.map(Box::new),
        }
    }

    /// A budget takes the place of the limit on retries.
    fn can_retry(&self) -> bool {
        let Some(budget) = &self.retry_budget else {
            return self.retries.can_create();
        };
        let active = self.requests.used().saturating_add(self.pending.used());
        let share = budget.budget_percent / 100.0 * f64::from(active);
        self.retries.used() < (share as u32).max(budget.min_retry_concurrency)
    }

    #[inline]
    const fn resource(&self, kind: ResourceKind) -> &Resource {
        match kind {
            ResourceKind::Connections => &self.connections,
            ResourceKind::PendingRequests => &self.pending,
            ResourceKind::Requests => &self.requests,
            ResourceKind::Retries => &self.retries,
            ResourceKind::ConnectionPools => &self.pools,
        }
    }
}

/// The circuit breakers of one incarnation of a cluster.
#[derive(Debug)]
pub struct Breakers {
    default: PriorityBreakers,
    high: PriorityBreakers,
}

impl Breakers {
    pub(crate) fn new(config: &CircuitBreakers) -> Self {
        Self {
            default: PriorityBreakers::new(&config.default),
            high: PriorityBreakers::new(&config.high),
        }
    }

    const fn of(&self, priority: RoutingPriority) -> &PriorityBreakers {
        match priority {
            RoutingPriority::Default => &self.default,
            RoutingPriority::High => &self.high,
        }
    }

    #[inline]
    pub const fn resource(&self, priority: RoutingPriority, kind: ResourceKind) -> &Resource {
        self.of(priority).resource(kind)
    }

    /// Whether there may be one more retry.
    pub fn can_retry(&self, priority: RoutingPriority) -> bool {
        self.of(priority).can_retry()
    }

    /// Writes the gauges of what remains, for clusters that asked for them; once, by the publisher.
    pub(crate) fn remaining(&self) -> impl Iterator<Item = (Gauge<stat::Traffic>, u32)> {
        [
            (RoutingPriority::Default, &self.default),
            (RoutingPriority::High, &self.high),
        ]
        .into_iter()
        .filter(|(_, breakers)| breakers.track_remaining)
        .flat_map(|(priority, breakers)| {
            [
                ResourceKind::Connections,
                ResourceKind::PendingRequests,
                ResourceKind::Requests,
                ResourceKind::Retries,
                ResourceKind::ConnectionPools,
            ]
            .map(|kind| (gauges(priority, kind).1, breakers.resource(kind).max))
        })
    }
}

/// One unit of a limit; dropping it gives the unit back.
pub struct Permit {
    cluster: Rc<ClusterRuntime>,
    priority: RoutingPriority,
    kind: ResourceKind,
}

impl Permit {
    /// A unit, if the limit allows.
    #[inline]
    pub fn try_take(
        cluster: &Rc<ClusterRuntime>,
        priority: RoutingPriority,
        kind: ResourceKind,
    ) -> Option<Self> {
        cluster
            .breakers
            .resource(priority, kind)
            .can_create()
            .then(|| Self::force(cluster, priority, kind))
    }

    /// A unit even beyond the limit: Envoy opens one connection to a host that has none, whatever the limit says.
    #[inline]
    pub fn force(
        cluster: &Rc<ClusterRuntime>,
        priority: RoutingPriority,
        kind: ResourceKind,
    ) -> Self {
        let breakers = cluster.breakers.of(priority);
        let resource = breakers.resource(kind);
        let before = resource.used.fetch_add(1, Ordering::Relaxed);
        let (open, remaining) = gauges(priority, kind);
        // Adding nothing marks the gauge as used, as Envoy's setting it does.
        cluster
            .stats
            .gauge_add(open, i64::from(before.wrapping_add(1) == resource.max));
        if breakers.track_remaining {
            cluster.stats.gauge_dec(remaining);
        }
        Self {
            cluster: Rc::clone(cluster),
            priority,
            kind,
        }
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        let breakers = self.cluster.breakers.of(self.priority);
        let resource = breakers.resource(self.kind);
        let before = resource.used.fetch_sub(1, Ordering::Relaxed);
        let (open, remaining) = gauges(self.priority, self.kind);
        if before == resource.max {
            self.cluster.stats.gauge_dec(open);
        }
        if breakers.track_remaining {
            self.cluster.stats.gauge_inc(remaining);
        }
    }
}

/// The gauges `circuit_breakers.PRIORITY.*_open` and `.remaining_*` of a limit. Retries' and pools' included.
const fn gauges(
    priority: RoutingPriority,
    kind: ResourceKind,
) -> (Gauge<stat::Traffic>, Gauge<stat::Traffic>) {
    match (priority, kind) {
        (RoutingPriority::Default, ResourceKind::Connections) => (
            stat::CIRCUIT_BREAKERS_DEFAULT_CX_OPEN,
            stat::CIRCUIT_BREAKERS_DEFAULT_REMAINING_CX,
        ),
        (RoutingPriority::Default, ResourceKind::PendingRequests) => (
            stat::CIRCUIT_BREAKERS_DEFAULT_RQ_PENDING_OPEN,
            stat::CIRCUIT_BREAKERS_DEFAULT_REMAINING_PENDING,
        ),
        (RoutingPriority::Default, ResourceKind::Requests) => (
            stat::CIRCUIT_BREAKERS_DEFAULT_RQ_OPEN,
            stat::CIRCUIT_BREAKERS_DEFAULT_REMAINING_RQ,
        ),
        (RoutingPriority::Default, ResourceKind::Retries) => (
            stat::CIRCUIT_BREAKERS_DEFAULT_RQ_RETRY_OPEN,
            stat::CIRCUIT_BREAKERS_DEFAULT_REMAINING_RETRIES,
        ),
        (RoutingPriority::Default, ResourceKind::ConnectionPools) => (
            stat::CIRCUIT_BREAKERS_DEFAULT_CX_POOL_OPEN,
            stat::CIRCUIT_BREAKERS_DEFAULT_REMAINING_CX_POOLS,
        ),
        (RoutingPriority::High, ResourceKind::Connections) => (
            stat::CIRCUIT_BREAKERS_HIGH_CX_OPEN,
            stat::CIRCUIT_BREAKERS_HIGH_REMAINING_CX,
        ),
        (RoutingPriority::High, ResourceKind::PendingRequests) => (
            stat::CIRCUIT_BREAKERS_HIGH_RQ_PENDING_OPEN,
            stat::CIRCUIT_BREAKERS_HIGH_REMAINING_PENDING,
        ),
        (RoutingPriority::High, ResourceKind::Requests) => (
            stat::CIRCUIT_BREAKERS_HIGH_RQ_OPEN,
            stat::CIRCUIT_BREAKERS_HIGH_REMAINING_RQ,
        ),
        (RoutingPriority::High, ResourceKind::Retries) => (
            stat::CIRCUIT_BREAKERS_HIGH_RQ_RETRY_OPEN,
            stat::CIRCUIT_BREAKERS_HIGH_REMAINING_RETRIES,
        ),
        (RoutingPriority::High, ResourceKind::ConnectionPools) => (
            stat::CIRCUIT_BREAKERS_HIGH_CX_POOL_OPEN,
            stat::CIRCUIT_BREAKERS_HIGH_REMAINING_CX_POOLS,
        ),
    }
}
