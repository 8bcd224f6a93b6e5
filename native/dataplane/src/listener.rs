//! Listeners at run time: a worker's view of each listener, and what its connections share.
//!
//! This module must not know network filters: it counts connections and tells whether they shall leave.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustc_hash::FxHashMap;
use tidegate_model::listener::TrafficDirection;
use tidegate_rt::{Clock, Moment};
use tidegate_snapshot::rbac::CompiledNetworkRbac;
use tidegate_snapshot::{Chain, CompiledListener, ListenerId};
use tidegate_stats::defs::{http_inspector::HttpInspector, tls_inspector::TlsInspector};
use tidegate_stats::defs::{listener as stat, listener_worker as worker_stat, tcp as tcp_stat};
use tidegate_stats::{Group, Local};

use crate::conn::Key;
use crate::hcm::HcmGroups;
use crate::rbac::{RbacGroups, RbacStats};
use crate::shared::Bound;

/// What the workers share of a listener.
pub(crate) struct ListenerShared {
    pub(crate) compiled: Arc<CompiledListener>,
    pub(crate) bound: Vec<Arc<Bound>>,
    pub(crate) stats: Arc<ListenerStats>,
    pub(crate) chain_stats: Vec<(Arc<Chain>, ChainStats)>,
    /// Of the RBAC network filters of all chains.
    pub(crate) rbac: Vec<(Arc<CompiledNetworkRbac>, RbacGroups)>,
    /// Where it has such filters.
    pub(crate) tls_inspector: Option<Group<TlsInspector>>,
    pub(crate) http_inspector: Option<Group<HttpInspector>>,
}

/// Keeps the statistics of a filter chain's network filter in the registry while the chain is configured.
pub(crate) enum ChainStats {
    TcpProxy(Group<tcp_stat::TcpProxy>),
    Http(#[expect(dead_code, reason = "held, not read")] HcmGroups),
}

/// A listener's statistics and the count that `max_connections` limits; they outlive an update of the listener.
pub(crate) struct ListenerStats {
    pub(crate) group: Group<stat::Listener>,
    pub(crate) per_worker: Vec<Group<worker_stat::ListenerWorker>>,
    active: AtomicU64,
    global: Option<Arc<GlobalLimit>>,
    /// Kept for listeners with `exact_balance` only.
    balance: Balance,
}

/// The limit on the downstream connections of the whole process (`global_downstream_max_connections`).
pub(crate) struct GlobalLimit {
    active: AtomicU64,
    max: u64,
}

impl GlobalLimit {
    pub(crate) const fn new(max: u64) -> Self {
        Self {
            active: AtomicU64::new(0),
            max,
        }
    }

    fn take(self: &Arc<Self>) -> Option<GlobalShare> {
        let share = GlobalShare(Arc::clone(self));
        // Above the limit, dropping the share takes it back.
        (self.active.fetch_add(1, Ordering::Relaxed) < self.max).then_some(share)
    }
}

/// A connection among those of the process.
struct GlobalShare(Arc<GlobalLimit>);

impl Drop for GlobalShare {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for GlobalShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GlobalShare")
    }
}

/// A listener's connections by worker.
struct Balance(Box<[AtomicU64]>);

impl Balance {
    fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| AtomicU64::new(0)).collect())
    }

    /// The worker that has the fewest, counting the new one already.
    ///
    /// Another worker may accept at the same time. The count must still be the one that was compared, else both
    /// connections would go to the same worker; without ends in between, counts never differ by more than one.
    fn take(&self) -> Option<usize> {
        loop {
            let (fewest, worker, count) = self
                .0
                .iter()
                .enumerate()
                .map(|(worker, count)| (count.load(Ordering::Relaxed), worker, count))
                .min_by_key(|(connections, ..)| *connections)?;
            let counted =
                count.compare_exchange(fewest, fewest + 1, Ordering::Relaxed, Ordering::Relaxed);
            if counted.is_ok() {
                return Some(worker);
            }
        }
    }

    fn give_back(&self, worker: usize) {
        if let Some(count) = self.0.get(worker) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A connection's share in its worker's count of a listener with `exact_balance`; it ends with the connection.
#[derive(Debug)]
pub(crate) struct BalanceShare {
    stats: Arc<ListenerStats>,
    pub(crate) worker: usize,
}

impl Drop for BalanceShare {
    fn drop(&mut self) {
        self.stats.balance.give_back(self.worker);
    }
}

impl std::fmt::Debug for ListenerStats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ListenerStats").field(&self.group).finish()
    }
}

impl ListenerStats {
    pub(crate) fn new(
        group: Group<stat::Listener>,
        per_worker: Vec<Group<worker_stat::ListenerWorker>>,
        global: Option<Arc<GlobalLimit>>,
    ) -> Self {
        Self {
            group,
            global,
            active: AtomicU64::new(0),
            balance: Balance::new(per_worker.len()),
            per_worker,
        }
    }
}

/// A listener in one worker. Connections keep the one they were accepted under.
pub struct ListenerRuntime {
    pub compiled: Arc<CompiledListener>,
    pub stats: Local<stat::Listener>,
    worker_stats: Option<Local<worker_stat::ListenerWorker>>,
    /// Of the filter chains with a TCP proxy.
    tcp_stats: FxHashMap<*const Chain, Local<tcp_stat::TcpProxy>>,
    rbac: FxHashMap<*const CompiledNetworkRbac, Rc<RbacStats>>,
    tls_inspector: Option<Local<TlsInspector>>,
    http_inspector: Option<Local<HttpInspector>>,
    shared: Arc<ListenerStats>,
    drain_since: Cell<Option<Moment>>,
}

impl std::fmt::Debug for ListenerRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerRuntime")
            .field("name", self.compiled.name())
            .finish_non_exhaustive()
    }
}

impl ListenerRuntime {
    pub(crate) fn new(shared: &ListenerShared, worker: usize) -> Self {
        Self {
            compiled: Arc::clone(&shared.compiled),
            stats: shared.stats.group.local(worker),
            worker_stats: shared
                .stats
                .per_worker
                .get(worker)
                .map(|group| group.local(worker)),
            tcp_stats: shared
                .chain_stats
                .iter()
                .filter_map(|(chain, stats)| match stats {
                    ChainStats::TcpProxy(group) => Some((Arc::as_ptr(chain), group.local(worker))),
                    ChainStats::Http(_) => None,
                })
                .collect(),
            tls_inspector: shared
                .tls_inspector
                .as_ref()
                .map(|group| group.local(worker)),
            http_inspector: shared
                .http_inspector
                .as_ref()
                .map(|group| group.local(worker)),
            rbac: shared
                .rbac
                .iter()
                .map(|(rbac, groups)| (Arc::as_ptr(rbac), Rc::new(groups.local(worker))))
                .collect(),
            shared: Arc::clone(&shared.stats),
            drain_since: Cell::new(None),
        }
    }

    /// `per_connection_buffer_limit_bytes`.
    pub fn buffer_limit(&self) -> u32 {
        self.compiled.config.per_connection_buffer_limit_bytes
    }

    pub fn direction(&self) -> TrafficDirection {
        self.compiled.config.traffic_direction
    }

    /// Since when the listener is draining (it was removed, or all listeners are drained).
    pub fn draining_since(&self) -> Option<Moment> {
        self.drain_since.get()
    }

    /// The counters of one of its RBAC filters.
    pub(crate) fn rbac_stats(&self, rbac: &Arc<CompiledNetworkRbac>) -> Option<&Rc<RbacStats>> {
        self.rbac.get(&Arc::as_ptr(rbac))
    }

    /// The statistics of one of its chains with a TCP proxy.
    pub(crate) fn tcp_stats(&self, chain: &Arc<Chain>) -> Option<Local<tcp_stat::TcpProxy>> {
        self.tcp_stats.get(&Arc::as_ptr(chain)).cloned()
    }

    pub(crate) const fn tls_inspector(&self) -> Option<&Local<TlsInspector>> {
        self.tls_inspector.as_ref()
    }

    pub(crate) const fn http_inspector(&self) -> Option<&Local<HttpInspector>> {
        self.http_inspector.as_ref()
    }

    pub(crate) fn start_drain(&self, now: Moment) {
        if self.drain_since.get().is_none() {
            self.drain_since.set(Some(now));
        }
    }

    /// With `exact_balance`, the worker that has the fewest of the listener's connections, counting the new one already.
    pub(crate) fn balance(&self) -> Option<BalanceShare> {
        if !self.compiled.config.exact_balance {
            return None;
        }
        Some(BalanceShare {
            worker: self.shared.balance.take()?,
            stats: Arc::clone(&self.shared),
        })
    }

    /// A place for one more connection; `None`: `max_connections` is reached.
    pub(crate) fn admit(
        self: &Rc<Self>,
        now: Moment,
        share: Option<BalanceShare>,
    ) -> Option<ListenerPermit> {
        let global = match &self.shared.global {
            Some(limit) if !self.compiled.config.ignore_global_conn_limit => {
                let taken = limit.take();
                if taken.is_none() {
                    self.stats.inc(stat::DOWNSTREAM_GLOBAL_CX_OVERFLOW);
                    return None;
                }
                taken
            }
            _ => None,
        };
        let limit = self.compiled.config.max_connections.unwrap_or(u64::MAX);
        if self.shared.active.fetch_add(1, Ordering::Relaxed) >= limit {
            self.shared.active.fetch_sub(1, Ordering::Relaxed);
            self.stats.inc(stat::DOWNSTREAM_CX_OVERFLOW);
            return None;
        }
        self.stats.inc(stat::DOWNSTREAM_CX_TOTAL);
        self.stats.gauge_inc(stat::DOWNSTREAM_CX_ACTIVE);
        if let Some(stats) = &self.worker_stats {
            stats.inc(worker_stat::DOWNSTREAM_CX_TOTAL);
            stats.gauge_inc(worker_stat::DOWNSTREAM_CX_ACTIVE);
        }
        Some(ListenerPermit {
            listener: Rc::clone(self),
            since: now,
            _share: share,
            _global: global,
        })
    }
}

/// A connection's place among its listener's connections; dropping it gives the place back and counts the end.
#[derive(Debug)]
pub struct ListenerPermit {
    listener: Rc<ListenerRuntime>,
    since: Moment,
    _share: Option<BalanceShare>,
    _global: Option<GlobalShare>,
}

impl Drop for ListenerPermit {
    fn drop(&mut self) {
        let listener = &self.listener;
        listener.shared.active.fetch_sub(1, Ordering::Relaxed);
        listener.stats.inc(stat::DOWNSTREAM_CX_DESTROY);
        listener.stats.gauge_dec(stat::DOWNSTREAM_CX_ACTIVE);
        listener.stats.record(
            stat::DOWNSTREAM_CX_LENGTH_MS,
            Clock::precise().since(self.since).as_millis() as u64,
        );
        if let Some(stats) = &listener.worker_stats {
            stats.gauge_dec(worker_stat::DOWNSTREAM_CX_ACTIVE);
        }
    }
}

/// A listener's entry in a worker.
pub(crate) struct Entry {
    pub(crate) runtime: Rc<ListenerRuntime>,
    /// The acceptors with the address each serves.
    pub(crate) acceptors: Vec<(Arc<Bound>, Key)>,
}

/// A worker's listeners.
pub struct Listeners {
    pub(crate) entries: FxHashMap<ListenerId, Entry>,
}

impl Listeners {
    pub(crate) fn new() -> Self {
        Self {
            entries: FxHashMap::default(),
        }
    }

    pub fn get(&self, id: ListenerId) -> Option<&Rc<ListenerRuntime>> {
        self.entries.get(&id).map(|entry| &entry.runtime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_accept_at_the_same_time_stay_balanced() {
        const WORKERS: usize = 4;
        let balance = Balance::new(WORKERS);
        let together = std::sync::Barrier::new(WORKERS);
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    for round in 1..=3000 {
                        together.wait();
                        assert!(balance.take().is_some());
                        together.wait();
                        for count in &balance.0 {
                            assert_eq!(count.load(Ordering::Relaxed), round);
                        }
                    }
                });
            }
        });
        balance.give_back(2);
        assert_eq!(balance.take(), Some(2));
    }
}
