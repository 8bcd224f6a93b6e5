//! The registry of groups and the walk over all values.

mod cells;
mod handles;
mod series;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use self::cells::GroupInner;
pub use self::handles::{Group, Local, Shared};
use self::series::Series;
pub use self::series::{LocalSeries, SeriesKind, SeriesLabels, SeriesName};
use crate::def::Def;
use crate::histogram::{BUCKET_BOUNDS, HistogramSnapshot};

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding one of these locks, and the data would still be consistent if it did.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A counter with a name of its own; all threads count in the same cell.
#[derive(Debug, Clone, Default)]
pub struct NamedCounter(Arc<AtomicU64>);

impl NamedCounter {
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }
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
    buckets: OnceLock<BucketsOf>,
    /// Counters with names of their own, see [`Registry::count`].
    others: Mutex<BTreeMap<Box<str>, NamedCounter>>,
    /// By full name.
    series: Mutex<BTreeMap<Box<str>, Arc<Series>>>,
}

type Filter = Box<dyn Fn(&str) -> bool + Send + Sync>;
type BucketsOf = Box<dyn Fn(&str) -> Option<Arc<[f64]>> + Send + Sync>;

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
                buckets: OnceLock::new(),
                others: Mutex::default(),
                series: Mutex::default(),
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
            value: Value::Counter(value.0.load(Relaxed)),
            used: true,
            series: None,
        });
        let series: Vec<Arc<Series>> = lock(&self.inner.series).values().cloned().collect();
        let Some(filter) = self.inner.filter.get() else {
            for group in self.live() {
                group.visit(&mut visitor);
            }
            for series in series {
                series.visit(&mut visitor);
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
        for series in series {
            if filter(series.full_name()) {
                series.visit(&mut visitor);
            }
        }
        others
            .filter(|sample| filter(&sample.name))
            .for_each(visitor);
    }

    /// Adds to a counter that belongs to no group, by its full name; for rare events.
    pub fn count(&self, name: &str, amount: u64) {
        self.counter(name).add(amount);
    }

    /// The counter that [`Self::count`] would add to, to be kept: finding it takes a lock, counting does not.
    pub fn counter(&self, name: &str) -> NamedCounter {
        let mut others = lock(&self.inner.others);
        if let Some(counter) = others.get(name) {
            return counter.clone();
        }
        let counter = NamedCounter::default();
        others.insert(name.into(), counter.clone());
        counter
    }

    /// Lets only metrics with these full names be seen (`stats_matcher`); to be called once, before traffic.
    pub fn set_filter(&self, filter: impl Fn(&str) -> bool + Send + Sync + 'static) {
        // A second filter has no effect: the bootstrap is read once.
        let _ = self.inner.filter.set(Box::new(filter));
    }

    /// Gives histograms other buckets than Envoy's, by full name (`histogram_bucket_settings`); to be called once.
    pub fn set_buckets(
        &self,
        buckets: impl Fn(&str) -> Option<Arc<[f64]>> + Send + Sync + 'static,
    ) {
        let _ = self.inner.buckets.set(Box::new(buckets));
    }

    /// The bounds of a histogram's buckets.
    pub(crate) fn buckets(&self, name: &str) -> Arc<[f64]> {
        static DEFAULT: LazyLock<Arc<[f64]>> = LazyLock::new(|| Arc::from(BUCKET_BOUNDS));
        let own = self.inner.buckets.get().and_then(|own| own(name));
        own.unwrap_or_else(|| Arc::clone(&DEFAULT))
    }

    /// Sums the histograms over the threads; the interval is what came since the last call. To be called at each flush.
    pub fn merge_histograms(&self) {
        for group in self.live() {
            group.merge_histograms();
        }
        for series in lock(&self.inner.series).values() {
            series.merge();
        }
    }

    /// Lets all counters start anew at zero.
    pub fn reset_counters(&self) {
        for group in self.live() {
            group.reset_counters();
        }
        for series in lock(&self.inner.series).values() {
            series.reset();
        }
        for counter in lock(&self.inner.others).values() {
            counter.0.store(0, Relaxed);
        }
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
    /// It has labels of its own.
    pub series: Option<&'a SeriesName>,
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

#[cfg(test)]
mod tests;
