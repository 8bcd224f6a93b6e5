//! The registry of groups, the handles through which threads count, and the walk over all values.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use crate::def::{Codes, Counter, Def, Gauge, GroupDef, Histogram, Metric, Text};
use crate::histogram::{Cells, HistogramSnapshot};

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding one of these locks, and the data would still be consistent if it did.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All groups of a process. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    workers: usize,
    groups: Mutex<Groups>,
    filter: OnceLock<Filter>,
    /// Counters with names of their own, see [`Registry::count`].
    others: Mutex<BTreeMap<Box<str>, u64>>,
}

type Filter = Box<dyn Fn(&str) -> bool + Send + Sync>;

#[derive(Default)]
struct Groups {
    /// Most prefixes have one group, some two.
    by_prefix: BTreeMap<Box<str>, Vec<Weak<GroupInner>>>,
    added_since_sweep: usize,
}

impl Groups {
    fn sweep(&mut self) {
        self.by_prefix.retain(|_, groups| {
            groups.retain(|group| group.strong_count() > 0);
            !groups.is_empty()
        });
        self.added_since_sweep = 0;
    }
}

impl Registry {
    /// For this number of worker threads; the threads that are not workers share one set of cells more.
    pub fn new(workers: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                workers,
                groups: Mutex::default(),
                filter: OnceLock::new(),
                others: Mutex::default(),
            }),
        }
    }

    /// How many workers count.
    pub fn workers(&self) -> usize {
        self.inner.workers
    }

    /// The group of this kind with this prefix (which ends with a dot), made if it is not there. It lives as long as one of
    /// its handles.
    pub fn group<G: Def>(&self, prefix: &str) -> Group<G> {
        let mut groups = lock(&self.inner.groups);
        if let Some(group) = groups.by_prefix.get(prefix).and_then(|candidates| {
            candidates
                .iter()
                .filter_map(Weak::upgrade)
                .find(|group| std::ptr::eq(group.def, G::DEF) || group.def.id == G::DEF.id)
        }) {
            return Group::of(group);
        }
        groups.added_since_sweep += 1;
        if groups.added_since_sweep > 64 + groups.by_prefix.len() {
            groups.sweep();
        }
        let group = Arc::new(GroupInner {
            def: G::DEF,
            prefix: prefix.into(),
            shards: (0..=self.inner.workers).map(|_| OnceLock::new()).collect(),
            rare: OnceLock::new(),
        });
        let candidates = groups.by_prefix.entry(prefix.into()).or_default();
        candidates.retain(|group| group.strong_count() > 0);
        candidates.push(Arc::downgrade(&group));
        Group::of(group)
    }

    /// Visits every value, in the order of the prefixes. Histograms are given as last merged, see [`Self::merge_histograms`].
    pub fn visit(&self, mut visitor: impl FnMut(Sample<'_>)) {
        let others = lock(&self.inner.others).clone();
        let others = others.iter().map(|(name, value)| Sample {
            prefix: "",
            name: Cow::Borrowed(&**name),
            value: Value::Counter(*value),
            used: true,
        });
        let Some(filter) = self.inner.filter.get() else {
            for group in self.live() {
                group.visit(&mut visitor);
            }
            others.for_each(visitor);
            return;
        };
        let mut name = String::new();
        for group in self.live() {
            group.visit(&mut |sample: Sample<'_>| {
                name.clear();
                name.push_str(sample.prefix);
                name.push_str(&sample.name);
                if filter(&name) {
                    visitor(sample);
                }
            });
        }
        others
            .filter(|sample| filter(&sample.name))
            .for_each(visitor);
    }

    /// Adds to a counter that belongs to no group, by its full name; for rare events.
    pub fn count(&self, name: &str, amount: u64) {
        let mut others = lock(&self.inner.others);
        match others.get_mut(name) {
            Some(value) => *value += amount,
            None => {
                others.insert(name.into(), amount);
            }
        }
    }

    /// Lets only metrics with these full names be seen (`stats_matcher`); to be called once, before traffic.
    pub fn set_filter(&self, filter: impl Fn(&str) -> bool + Send + Sync + 'static) {
        // A second filter has no effect: the bootstrap is read once.
        let _ = self.inner.filter.set(Box::new(filter));
    }

    /// Sums the histograms over the threads; the interval is what came since the last call. To be called at each flush.
    pub fn merge_histograms(&self) {
        for group in self.live() {
            group.merge_histograms();
        }
    }

    /// Lets all counters start anew at zero.
    pub fn reset_counters(&self) {
        for group in self.live() {
            group.reset_counters();
        }
        lock(&self.inner.others)
            .values_mut()
            .for_each(|value| *value = 0);
    }

    /// The sum of one counter or gauge by its full name, for tests and for the few that Python reads.
    pub fn value(&self, name: &str) -> Option<i64> {
        let mut found = None;
        self.visit(|sample| {
            if name.starts_with(sample.prefix)
                && name.get(sample.prefix.len()..) == Some(&*sample.name)
            {
                found = match sample.value {
                    Value::Counter(value) => Some(value as i64),
                    Value::Gauge(value) => Some(value),
                    Value::Histogram { .. } | Value::Text(_) => found,
                };
            }
        });
        found
    }

    fn live(&self) -> Vec<Arc<GroupInner>> {
        let mut groups = lock(&self.inner.groups);
        groups.sweep();
        groups
            .by_prefix
            .values()
            .flatten()
            .filter_map(Weak::upgrade)
            .collect()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("workers", &self.inner.workers)
            .finish_non_exhaustive()
    }
}

/// One metric of one group, as a scrape sees it.
#[derive(Debug)]
pub struct Sample<'a> {
    /// With its dot at the end.
    pub prefix: &'a str,
    /// Below the prefix.
    pub name: Cow<'a, str>,
    pub value: Value<'a>,
    /// It was counted at least once.
    pub used: bool,
}

#[derive(Debug)]
pub enum Value<'a> {
    Counter(u64),
    Gauge(i64),
    /// As last merged.
    Histogram {
        interval: &'a HistogramSnapshot,
        cumulative: &'a HistogramSnapshot,
    },
    Text(&'a str),
}

/// A handle that keeps a group alive.
pub struct Group<G> {
    inner: Arc<GroupInner>,
    def: PhantomData<fn() -> G>,
}

impl<G: Def> Group<G> {
    fn of(inner: Arc<GroupInner>) -> Self {
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

/// A gauge's cell holds its value times two, and in the lowest bit whether it was ever used: a gauge that is back at zero
/// still counts as used.
const USED: u64 = 1;

fn gauge_value(cell: u64) -> i64 {
    (cell as i64) >> 1
}

/// Counters by status: one block per class, made when the class is first seen.
#[derive(Default)]
struct CodeCells {
    classes: [OnceLock<Box<[AtomicU64; 100]>>; 5],
}

/// One thread's cells.
struct Shard {
    /// Counters, then gauges.
    cells: Arc<[AtomicU64]>,
    histograms: Box<[Cells]>,
    codes: Box<[CodeCells]>,
}

impl Shard {
    fn new(def: &GroupDef) -> Self {
        Self {
            cells: (0..def.counters.len() + def.gauges.len())
                .map(|_| AtomicU64::new(0))
                .collect(),
            histograms: def.histograms.iter().map(|_| Cells::default()).collect(),
            codes: def.codes.iter().map(|_| CodeCells::default()).collect(),
        }
    }

    #[inline]
    fn code_cell(&self, family: u16, status: u16) -> Option<&AtomicU64> {
        let class = usize::from(status / 100).checked_sub(1)?;
        self.codes
            .get(usize::from(family))?
            .classes
            .get(class)?
            .get_or_init(|| Box::new([const { AtomicU64::new(0) }; 100]))
            .get(usize::from(status % 100))
    }
}

struct GroupInner {
    def: &'static GroupDef,
    prefix: Box<str>,
    /// The shared one, then one per worker; made when first asked for.
    shards: Box<[OnceLock<Arc<Shard>>]>,
    rare: OnceLock<Box<Rare>>,
}

/// What few groups need.
#[derive(Default)]
struct Rare {
    texts: Mutex<Vec<Option<Box<str>>>>,
    /// Merged histograms: interval and cumulative.
    histograms: Mutex<Vec<(HistogramSnapshot, HistogramSnapshot)>>,
    /// What the counters stood at when they were last reset. Cells are never written by another thread than their own.
    reset: Mutex<ResetBase>,
}

#[derive(Default)]
struct ResetBase {
    counters: Vec<u64>,
    codes: HashMap<(usize, u16), u64>,
}

impl GroupInner {
    fn shard(&self, index: usize) -> Arc<Shard> {
        self.shards.get(index).map_or_else(
            || Arc::new(Shard::new(self.def)),
            |shard| Arc::clone(shard.get_or_init(|| Arc::new(Shard::new(self.def)))),
        )
    }

    fn rare(&self) -> &Rare {
        self.rare.get_or_init(|| {
            Box::new(Rare {
                texts: Mutex::new(vec![None; self.def.texts.len()]),
                ..Rare::default()
            })
        })
    }

    fn made(&self) -> impl Iterator<Item = &Arc<Shard>> {
        self.shards.iter().filter_map(OnceLock::get)
    }

    fn raw_sum(&self, index: usize) -> u64 {
        self.made()
            .filter_map(|shard| shard.cells.get(index))
            .fold(0, |sum, cell| sum.wrapping_add(cell.load(Relaxed)))
    }

    fn sum(&self, index: usize) -> u64 {
        let base = self
            .rare
            .get()
            .and_then(|rare| lock(&rare.reset).counters.get(index).copied());
        self.raw_sum(index).wrapping_sub(base.unwrap_or_default())
    }

    /// Value and whether it was used.
    fn gauge(&self, index: usize) -> (i64, bool) {
        self.made()
            .filter_map(|shard| shard.cells.get(self.def.counters.len() + index))
            .fold((0, false), |(sum, used), cell| {
                let cell = cell.load(Relaxed);
                (sum + gauge_value(cell), used || cell & USED != 0)
            })
    }

    /// Raw sums by status, in order.
    fn code_sums(&self, family: usize) -> BTreeMap<u16, u64> {
        let mut sums = BTreeMap::new();
        for codes in self.made().filter_map(|shard| shard.codes.get(family)) {
            for (class, cells) in (1_u16..).zip(&codes.classes) {
                for (rest, cell) in
                    (0_u16..).zip(cells.get().into_iter().flat_map(|cells| cells.iter()))
                {
                    let value = cell.load(Relaxed);
                    if value > 0 {
                        *sums.entry(class * 100 + rest).or_default() += value;
                    }
                }
            }
        }
        sums
    }

    fn merge_histograms(&self) {
        if self.def.histograms.is_empty() || self.made().next().is_none() {
            return;
        }
        let mut merged = lock(&self.rare().histograms);
        merged.resize_with(self.def.histograms.len(), Default::default);
        for (index, (interval, cumulative)) in merged.iter_mut().enumerate() {
            let mut now = HistogramSnapshot::default();
            for cells in self.made().filter_map(|shard| shard.histograms.get(index)) {
                cells.add_to(&mut now);
            }
            *interval = now.since(cumulative);
            *cumulative = now;
        }
    }

    fn reset_counters(&self) {
        let mut base = lock(&self.rare().reset);
        base.counters = (0..self.def.counters.len())
            .map(|index| self.raw_sum(index))
            .collect();
        base.codes = (0..self.def.codes.len())
            .flat_map(|family| {
                self.code_sums(family)
                    .into_iter()
                    .map(move |(status, value)| ((family, status), value))
            })
            .collect();
    }

    fn visit(&self, visitor: &mut impl FnMut(Sample<'_>)) {
        let mut give = |metric: &Metric, used: bool, value: Value<'_>| {
            if used || !metric.on_demand {
                visitor(Sample {
                    prefix: &self.prefix,
                    name: Cow::Borrowed(metric.name),
                    value,
                    used,
                });
            }
        };
        for (index, metric) in self.def.counters.iter().enumerate() {
            let used = self.raw_sum(index) != 0;
            give(metric, used, Value::Counter(self.sum(index)));
        }
        for (index, metric) in self.def.gauges.iter().enumerate() {
            let (value, used) = self.gauge(index);
            give(metric, used, Value::Gauge(value));
        }
        let empty = HistogramSnapshot::default();
        let merged = self.rare.get().map(|rare| lock(&rare.histograms));
        for (index, metric) in self.def.histograms.iter().enumerate() {
            let (interval, cumulative) = merged
                .as_ref()
                .and_then(|merged| merged.get(index))
                .map_or((&empty, &empty), |(interval, cumulative)| {
                    (interval, cumulative)
                });
            give(
                metric,
                !cumulative.is_empty(),
                Value::Histogram {
                    interval,
                    cumulative,
                },
            );
        }
        drop(merged);
        if !self.def.texts.is_empty() {
            let texts = self.rare.get().map(|rare| lock(&rare.texts));
            for (index, metric) in self.def.texts.iter().enumerate() {
                let text = texts
                    .as_ref()
                    .and_then(|texts| texts.get(index)?.as_deref());
                give(
                    metric,
                    text.is_some(),
                    Value::Text(text.unwrap_or_default()),
                );
            }
        }
        for (family, metric) in self.def.codes.iter().enumerate() {
            self.visit_codes(family, metric, visitor);
        }
    }

    fn visit_codes(&self, family: usize, metric: &Metric, visitor: &mut impl FnMut(Sample<'_>)) {
        let sums = self.code_sums(family);
        if sums.is_empty() {
            return;
        }
        let reset = self.rare.get().map(|rare| lock(&rare.reset));
        let mut classes: BTreeMap<u16, u64> = BTreeMap::new();
        let mut give = |name: String, value: u64| {
            visitor(Sample {
                prefix: &self.prefix,
                name: Cow::Owned(name),
                value: Value::Counter(value),
                used: true,
            });
        };
        for (status, sum) in sums {
            let base = reset
                .as_ref()
                .and_then(|reset| reset.codes.get(&(family, status)).copied())
                .unwrap_or_default();
            let value = sum.wrapping_sub(base);
            *classes.entry(status / 100).or_default() += value;
            give(format!("{}{status}", metric.name), value);
        }
        for (class, value) in classes {
            give(format!("{}{class}xx", metric.name), value);
        }
    }
}

#[cfg(test)]
mod tests;
