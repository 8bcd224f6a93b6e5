//! Metrics with labels of their own, as Istio's standard metrics: counters, gauges and histograms that are made when a set of
//! labels is first seen, and stay.
//!
//! In the text forms a series is `BASE.LABEL.VALUE.LABEL.VALUE…`, in Prometheus the base name with the labels, whatever the
//! tag rules say of the text. A worker that wants to count keeps its [`LocalSeries`]; only finding one takes a lock.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

use super::cells::gauge_value;
use super::{Registry, Sample, Value, lock};
use crate::histogram::{Cells, HistogramSnapshot};

/// What a series is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeriesKind {
    Counter,
    Gauge,
    Histogram,
}

/// The labels of a series, in their order; a value may be empty.
pub type SeriesLabels = Arc<[(Box<str>, Box<str>)]>;

/// What tells a series from others.
#[derive(Debug, Clone)]
pub struct SeriesName {
    /// The name without labels.
    pub base: Box<str>,
    pub labels: SeriesLabels,
    /// What the values are divided by where they are shown to Prometheus (1,000: milliseconds shown as seconds).
    pub divisor: f64,
}

pub(super) struct Series {
    name: SeriesName,
    full: Box<str>,
    kind: SeriesKind,
    /// The shared one, then one per worker.
    shards: Box<[OnceLock<Arc<SeriesCells>>]>,
    merged: Mutex<(HistogramSnapshot, HistogramSnapshot)>,
    /// What the counter stood at when it was last reset.
    reset: AtomicU64,
}

/// One thread's share.
#[derive(Default)]
struct SeriesCells {
    value: AtomicU64,
    histogram: Cells,
}

/// A worker's handle of a series: it is the only writer of its cells.
#[derive(Clone)]
pub struct LocalSeries {
    series: Arc<Series>,
    cells: Arc<SeriesCells>,
}

impl std::fmt::Debug for LocalSeries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LocalSeries")
            .field(&self.series.full)
            .finish()
    }
}

impl LocalSeries {
    #[inline]
    pub fn add(&self, amount: u64) {
        let cell = &self.cells.value;
        cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// This worker's share of a gauge.
    #[inline]
    pub fn set(&self, value: i64) {
        self.cells.value.store((value as u64) << 1, Relaxed);
    }

    #[inline]
    pub fn record(&self, value: u64) {
        self.cells.histogram.record(value);
    }
}

impl Series {
    fn sum(&self) -> u64 {
        self.made()
            .fold(0, |sum, cells| sum.wrapping_add(cells.value.load(Relaxed)))
    }

    fn made(&self) -> impl Iterator<Item = &Arc<SeriesCells>> {
        self.shards.iter().filter_map(OnceLock::get)
    }

    pub(super) fn visit(&self, visitor: &mut impl FnMut(Sample<'_>)) {
        let mut give = |value: Value<'_>, used: bool| {
            visitor(Sample {
                prefix: "",
                name: Cow::Borrowed(&self.full),
                value,
                used,
                series: Some(&self.name),
            });
        };
        match self.kind {
            SeriesKind::Counter => {
                let value = self.sum().wrapping_sub(self.reset.load(Relaxed));
                give(Value::Counter(value), true);
            }
            SeriesKind::Gauge => {
                let sum = self
                    .made()
                    .map(|cells| gauge_value(cells.value.load(Relaxed)))
                    .sum();
                give(Value::Gauge(sum), true);
            }
            SeriesKind::Histogram => {
                let (interval, cumulative) = &*lock(&self.merged);
                let used = !cumulative.is_empty();
                give(
                    Value::Histogram {
                        interval,
                        cumulative,
                    },
                    used,
                );
            }
        }
    }

    pub(super) fn full_name(&self) -> &str {
        &self.full
    }

    pub(super) fn merge(&self) {
        if self.kind != SeriesKind::Histogram {
            return;
        }
        let mut now = HistogramSnapshot::default();
        for cells in self.made() {
            cells.histogram.add_to(&mut now);
        }
        let mut merged = lock(&self.merged);
        merged.0 = now.since(&merged.1);
        merged.1 = now;
    }

    pub(super) fn reset(&self) {
        if self.kind == SeriesKind::Counter {
            self.reset.store(self.sum(), Relaxed);
        }
    }
}

impl Registry {
    /// The handle of worker number `worker` for a series, made if it is not there. Takes a lock and allocates: to be kept.
    pub fn series(
        &self,
        worker: usize,
        base: &str,
        labels: &SeriesLabels,
        kind: SeriesKind,
        divisor: f64,
    ) -> LocalSeries {
        let mut full = String::with_capacity(base.len() + labels.len() * 32);
        full.push_str(base);
        for (label, value) in labels.iter() {
            for part in [label, value] {
                if !part.is_empty() {
                    full.push('.');
                    full.push_str(part);
                }
            }
        }
        let mut all = lock(&self.inner.series);
        let series = match all.get(full.as_str()) {
            Some(series) => Arc::clone(series),
            None => {
                let series = Arc::new(Series {
                    name: SeriesName {
                        base: base.into(),
                        labels: Arc::clone(labels),
                        divisor,
                    },
                    full: full.as_str().into(),
                    kind,
                    shards: (0..=self.inner.workers).map(|_| OnceLock::new()).collect(),
                    merged: Mutex::default(),
                    reset: AtomicU64::new(0),
                });
                all.insert(full.into(), Arc::clone(&series));
                series
            }
        };
        drop(all);
        let at = worker.saturating_add(1).min(self.inner.workers);
        let cells = series
            .shards
            .get(at)
            .map(|shard| Arc::clone(shard.get_or_init(Arc::default)))
            .unwrap_or_default();
        LocalSeries { series, cells }
    }
}
