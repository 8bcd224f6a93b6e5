//! The handles through which threads count: a worker's own, and the one of all others.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::cells::{GroupInner, Shard, USED, gauge_value};
use super::lock;
use crate::def::{Codes, Counter, Def, Gauge, Histogram, Text};

/// A handle that keeps a group alive.
pub struct Group<G> {
    inner: Arc<GroupInner>,
    def: PhantomData<fn() -> G>,
}

impl<G: Def> Group<G> {
    pub(super) fn of(inner: Arc<GroupInner>) -> Self {
        Self {
            inner,
            def: PhantomData,
        }
    }

    pub fn prefix(&self) -> &str {
        &self.inner.prefix
    }

    /// The handle with which worker number `worker` counts. No other thread may use it.
    pub fn local(&self, worker: usize) -> Local<G> {
        // Beyond the last worker is the shared shard; an out-of-range number must not panic and lands there too.
        let shard = self.inner.shard(
            worker
                .saturating_add(1)
                .min(self.inner.shards.len().saturating_sub(1)),
        );
        Local {
            cells: Arc::clone(&shard.cells),
            shard,
            gauges_at: G::DEF.counters.len(),
            def: PhantomData,
        }
    }

    /// The handle for threads that are not workers.
    pub fn shared(&self) -> Shared<G> {
        Shared {
            group: Arc::clone(&self.inner),
            shard: self.inner.shard(0),
            def: PhantomData,
        }
    }
}

impl<G> Clone for Group<G> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            def: PhantomData,
        }
    }
}

impl<G> fmt::Debug for Group<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Group").field(&self.inner.prefix).finish()
    }
}

/// A worker's handle of a group: it is the only writer of its cells, so it needs no atomic addition.
pub struct Local<G> {
    cells: Arc<[AtomicU64]>,
    shard: Arc<Shard>,
    gauges_at: usize,
    def: PhantomData<fn() -> G>,
}

impl<G: Def> Local<G> {
    #[inline]
    pub fn inc(&self, counter: Counter<G>) {
        self.add(counter, 1);
    }

    #[inline]
    pub fn add(&self, counter: Counter<G>, amount: u64) {
        if let Some(cell) = self.cells.get(usize::from(counter.index)) {
            cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
        }
    }

    #[inline]
    pub fn gauge_inc(&self, gauge: Gauge<G>) {
        self.gauge_add(gauge, 1);
    }

    #[inline]
    pub fn gauge_dec(&self, gauge: Gauge<G>) {
        self.gauge_add(gauge, -1);
    }

    #[inline]
    pub fn gauge_add(&self, gauge: Gauge<G>, amount: i64) {
        if let Some(cell) = self.gauge_cell(gauge) {
            cell.store(
                cell.load(Relaxed).wrapping_add((amount as u64) << 1) | USED,
                Relaxed,
            );
        }
    }

    /// This worker's share.
    #[inline]
    pub fn gauge_set(&self, gauge: Gauge<G>, value: i64) {
        if let Some(cell) = self.gauge_cell(gauge) {
            cell.store(((value as u64) << 1) | USED, Relaxed);
        }
    }

    /// This worker's share.
    #[inline]
    pub fn gauge(&self, gauge: Gauge<G>) -> i64 {
        self.gauge_cell(gauge)
            .map_or(0, |cell| gauge_value(cell.load(Relaxed)))
    }

    #[inline]
    fn gauge_cell(&self, gauge: Gauge<G>) -> Option<&AtomicU64> {
        self.cells.get(self.gauges_at + usize::from(gauge.index))
    }

    #[inline]
    pub fn record(&self, histogram: Histogram<G>, value: u64) {
        if let Some(cells) = self.shard.histograms.get(usize::from(histogram.index)) {
            cells.record(value);
        }
    }

    /// Counts a response with this HTTP status (`upstream_rq_200`, `upstream_rq_2xx`).
    #[inline]
    pub fn code(&self, codes: Codes<G>, status: u16) {
        if let Some(cell) = self.shard.code_cell(codes.index, status) {
            cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }
}

impl<G> Clone for Local<G> {
    fn clone(&self) -> Self {
        Self {
            cells: Arc::clone(&self.cells),
            shard: Arc::clone(&self.shard),
            gauges_at: self.gauges_at,
            def: PhantomData,
        }
    }
}

impl<G: Def> fmt::Debug for Local<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Local").field(&G::DEF.id).finish()
    }
}

/// The handle of a group for all threads that are not workers.
pub struct Shared<G> {
    group: Arc<GroupInner>,
    shard: Arc<Shard>,
    def: PhantomData<fn() -> G>,
}

impl<G: Def> Shared<G> {
    pub fn inc(&self, counter: Counter<G>) {
        self.add(counter, 1);
    }

    pub fn add(&self, counter: Counter<G>, amount: u64) {
        if let Some(cell) = self.shard.cells.get(usize::from(counter.index)) {
            cell.fetch_add(amount, Relaxed);
        }
    }

    pub fn gauge_add(&self, gauge: Gauge<G>, amount: i64) {
        if let Some(cell) = self.gauge_cell(gauge) {
            cell.fetch_add((amount as u64) << 1, Relaxed);
            cell.fetch_or(USED, Relaxed);
        }
    }

    pub fn gauge_set(&self, gauge: Gauge<G>, value: i64) {
        if let Some(cell) = self.gauge_cell(gauge) {
            cell.store(((value as u64) << 1) | USED, Relaxed);
        }
    }

    fn gauge_cell(&self, gauge: Gauge<G>) -> Option<&AtomicU64> {
        self.shard
            .cells
            .get(G::DEF.counters.len() + usize::from(gauge.index))
    }

    /// For one thread at a time.
    pub fn record(&self, histogram: Histogram<G>, value: u64) {
        if let Some(cells) = self.shard.histograms.get(usize::from(histogram.index)) {
            cells.record(value);
        }
    }

    /// Counts a response with this HTTP status.
    pub fn code(&self, codes: Codes<G>, status: u16) {
        if let Some(cell) = self.shard.code_cell(codes.index, status) {
            cell.fetch_add(1, Relaxed);
        }
    }

    pub fn text_set(&self, text: Text<G>, value: &str) {
        if let Some(slot) = lock(&self.group.rare().texts).get_mut(usize::from(text.index)) {
            *slot = Some(value.into());
        }
    }

    /// The sum over all threads.
    pub fn counter(&self, counter: Counter<G>) -> u64 {
        self.group.sum(usize::from(counter.index))
    }

    /// The sum over all threads.
    pub fn gauge(&self, gauge: Gauge<G>) -> i64 {
        self.group.gauge(usize::from(gauge.index)).0
    }
}

impl<G> Clone for Shared<G> {
    fn clone(&self) -> Self {
        Self {
            group: Arc::clone(&self.group),
            shard: Arc::clone(&self.shard),
            def: PhantomData,
        }
    }
}

impl<G> fmt::Debug for Shared<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.group.prefix).finish()
    }
}
