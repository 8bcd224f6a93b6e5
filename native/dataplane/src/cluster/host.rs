//! Hosts at run time: a worker's state of a host, and the counters that `/clusters` prints.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tidegate_rt::Moment;
use tidegate_snapshot::{Host, HostId};

use super::outlier::{Monitor, Outcome};

/// One worker's counters of a host. Only that worker writes them.
#[derive(Debug, Default)]
pub struct HostCells {
    pub cx_active: AtomicU64,
    pub cx_connect_fail: AtomicU64,
    pub cx_total: AtomicU64,
    pub rq_active: AtomicU64,
    pub rq_error: AtomicU64,
    pub rq_success: AtomicU64,
    pub rq_timeout: AtomicU64,
    pub rq_total: AtomicU64,
    /// What outlier detection has been told, with it: answers, and among them those that were none of a server's errors.
    pub(super) external_total: AtomicU64,
    pub(super) external_success: AtomicU64,
    /// The same of connections, if they count apart.
    pub(super) local_total: AtomicU64,
    pub(super) local_success: AtomicU64,
}

impl HostCells {
    pub(super) fn add(&self, cell: &AtomicU64) {
        add(cell, 1);
    }
}

/// A plain load and store: each cell has one writer.
#[inline]
fn add(cell: &AtomicU64, by: u64) {
    cell.store(
        cell.load(Ordering::Relaxed).wrapping_add(by),
        Ordering::Relaxed,
    );
}

/// A host's counters, a set of cells per worker.
#[derive(Debug)]
pub struct HostShared {
    pub cells: Box<[HostCells]>,
    /// Since when it has been there and healthy, in nanoseconds; 0: not yet. Only of clusters with slow start.
    pub(super) healthy_since: AtomicU64,
}

impl HostShared {
    fn new(workers: usize) -> Self {
        Self {
            cells: (0..workers.max(1)).map(|_| HostCells::default()).collect(),
            healthy_since: AtomicU64::new(0),
        }
    }

    /// A counter summed over the workers.
    pub fn sum(&self, cell: impl Fn(&HostCells) -> &AtomicU64) -> u64 {
        self.cells.iter().fold(0, |sum, cells| {
            sum.wrapping_add(cell(cells).load(Ordering::Relaxed))
        })
    }
}

/// The counters of a cluster's hosts. Locked when a worker first meets a host and when `/clusters` is read, never on the
/// path.
#[derive(Debug)]
pub(crate) struct HostTable {
    workers: usize,
    hosts: Mutex<FxHashMap<HostId, Arc<HostShared>>>,
}

impl HostTable {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            hosts: Mutex::new(FxHashMap::default()),
        }
    }

    pub(crate) fn get(&self, id: HostId) -> Arc<HostShared> {
        Arc::clone(
            self.hosts
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(id)
                .or_insert_with(|| Arc::new(HostShared::new(self.workers))),
        )
    }

    /// The counters, if any worker has met the host.
    pub(crate) fn peek(&self, id: HostId) -> Option<Arc<HostShared>> {
        self.hosts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .map(Arc::clone)
    }

    /// The slow start of a healthy host begins when it is first seen.
    pub(crate) fn start_slowly(&self, host: &Host, now: Moment) {
        if crate::balance::is_healthy(host.health) {
            let since = &self.get(host.id).healthy_since;
            if since.load(Ordering::Relaxed) == 0 {
                since.store(now.nanos().max(1), Ordering::Relaxed);
            }
        }
    }

    pub(super) fn remove(&self, id: HostId) {
        self.hosts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }

    pub(crate) fn retain(&self, keep: impl Fn(HostId) -> bool) {
        self.hosts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id, _| keep(*id));
    }
}

/// A host in one worker: address, weight and health as configured now, and the state that outlives such changes.
#[derive(Debug)]
pub struct HostRuntime {
    pub host: Arc<Host>,
    pub state: Rc<HostState>,
}

impl HostRuntime {
    pub(super) fn new(
        host: Arc<Host>,
        shared: Arc<HostShared>,
        monitor: Option<Arc<Monitor>>,
        worker: usize,
    ) -> Self {
        Self {
            host,
            state: Rc::new(HostState {
                uid: next_uid(),
                shared,
                monitor,
                worker,
                rq_active: Cell::new(0),
                gone: Cell::new(false),
                ejected: Cell::new(false),
                drained: Cell::new(Moment::default()),
            }),
        }
    }
}

/// What a worker keeps of a host for as long as the host is there.
#[derive(Debug)]
pub struct HostState {
    uid: u64,
    shared: Arc<HostShared>,
    /// Of a cluster with outlier detection.
    monitor: Option<Arc<Monitor>>,
    worker: usize,
    rq_active: Cell<u32>,
    gone: Cell<bool>,
    /// As of the last look.
    ejected: Cell<bool>,
    /// Connections opened before take no more requests.
    drained: Cell<Moment>,
}

impl HostState {
    /// Unique in the worker and never reused: the key of the host's pools.
    #[inline]
    pub const fn uid(&self) -> u64 {
        self.uid
    }

    /// Removed from its cluster, or the cluster was changed or removed: connections close when idle, and none is opened.
    #[inline]
    pub const fn is_gone(&self) -> bool {
        self.gone.get()
    }

    pub(super) fn set_gone(&self) {
        self.gone.set(true);
    }

    /// Requests in flight from this worker.
    #[inline]
    pub const fn rq_active(&self) -> u32 {
        self.rq_active.get()
    }

    /// The same from all workers.
    pub(super) fn rq_active_everywhere(&self) -> u32 {
        self.shared.sum(|cells| &cells.rq_active) as u32
    }

    /// Outlier detection has left it out since the last time this was asked.
    pub(super) fn is_newly_ejected(&self) -> bool {
        let ejected = self
            .monitor
            .as_ref()
            .is_some_and(|monitor| monitor.is_ejected());
        !self.ejected.replace(ejected) && ejected
    }

    pub(crate) fn drain(&self, now: Moment) {
        self.drained.set(now);
    }

    /// A connection that was opened then takes no more requests.
    #[inline]
    pub(crate) fn has_drained(&self, opened: Moment) -> bool {
        opened < self.drained.get()
    }

    /// How long it has been there and healthy.
    pub(super) fn age(&self, now: Moment) -> Duration {
        let since = self.shared.healthy_since.load(Ordering::Relaxed);
        now.since(Moment::from_nanos(since))
    }

    /// Tells outlier detection, if there is any, what came of a request or connection. `code`: the HTTP status that stands
    /// for it.
    #[inline]
    pub(crate) fn put_result(&self, outcome: Outcome, code: Option<u16>) {
        if let Some(monitor) = &self.monitor
            && let Some(cells) = self.cells()
        {
            monitor.put(cells, outcome, code);
        }
    }

    /// This worker's counters.
    #[inline]
    pub fn cells(&self) -> Option<&HostCells> {
        self.shared.cells.get(self.worker)
    }

    /// Counts one more, in `cells()`.
    #[inline]
    pub fn count(&self, cell: impl Fn(&HostCells) -> &AtomicU64) {
        if let Some(cells) = self.cells() {
            add(cell(cells), 1);
        }
    }

    pub(super) fn request_started(&self) {
        self.rq_active.set(self.rq_active.get() + 1);
        if let Some(cells) = self.cells() {
            add(&cells.rq_total, 1);
            add(&cells.rq_active, 1);
        }
    }

    pub(super) fn request_ended(&self) {
        self.rq_active.set(self.rq_active.get().saturating_sub(1));
        if let Some(cells) = self.cells() {
            add(&cells.rq_active, 1u64.wrapping_neg());
        }
    }

    pub(super) fn connection_started(&self) {
        if let Some(cells) = self.cells() {
            add(&cells.cx_total, 1);
            add(&cells.cx_active, 1);
        }
    }

    pub(super) fn connection_ended(&self) {
        if let Some(cells) = self.cells() {
            add(&cells.cx_active, 1u64.wrapping_neg());
        }
    }
}

fn next_uid() -> u64 {
    thread_local! {
        static NEXT: Cell<u64> = const { Cell::new(1) };
    }
    NEXT.with(|next| {
        let uid = next.get();
        next.set(uid + 1);
        uid
    })
}
