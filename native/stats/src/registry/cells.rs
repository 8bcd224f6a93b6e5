//! What the handles of a group count into: a set of cells per thread, and the sums over them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

use super::{Sample, Value, lock};
use crate::def::{GroupDef, Metric};
use crate::histogram::{Cells, HistogramSnapshot};

/// A gauge's cell holds its value times two, and in the lowest bit whether it was ever used: a gauge that is back at zero
/// still counts as used.
pub(super) const USED: u64 = 1;

pub(super) fn gauge_value(cell: u64) -> i64 {
    (cell as i64) >> 1
}

/// Counters by status: one block per class, made when the class is first seen.
#[derive(Default)]
struct CodeCells {
    classes: [OnceLock<Box<[AtomicU64; 100]>>; 5],
}

/// One thread's cells.
pub(super) struct Shard {
    /// Counters, then gauges.
    pub(super) cells: Arc<[AtomicU64]>,
    pub(super) histograms: Box<[Cells]>,
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
    pub(super) fn code_cell(&self, family: u16, status: u16) -> Option<&AtomicU64> {
        let class = usize::from(status / 100).checked_sub(1)?;
        self.codes
            .get(usize::from(family))?
            .classes
            .get(class)?
            .get_or_init(|| Box::new([const { AtomicU64::new(0) }; 100]))
            .get(usize::from(status % 100))
    }
}

pub(super) struct GroupInner {
    pub(super) def: &'static GroupDef,
    pub(super) prefix: Box<str>,
    /// The shared one, then one per worker; made when first asked for.
    pub(super) shards: Box<[OnceLock<Arc<Shard>>]>,
    pub(super) rare: OnceLock<Box<Rare>>,
}

/// What few groups need.
#[derive(Default)]
pub(super) struct Rare {
    pub(super) texts: Mutex<Vec<Option<Box<str>>>>,
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
    pub(super) fn shard(&self, index: usize) -> Arc<Shard> {
        self.shards.get(index).map_or_else(
            || Arc::new(Shard::new(self.def)),
            |shard| Arc::clone(shard.get_or_init(|| Arc::new(Shard::new(self.def)))),
        )
    }

    pub(super) fn rare(&self) -> &Rare {
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

    pub(super) fn sum(&self, index: usize) -> u64 {
        let base = self
            .rare
            .get()
            .and_then(|rare| lock(&rare.reset).counters.get(index).copied());
        self.raw_sum(index).wrapping_sub(base.unwrap_or_default())
    }

    /// Value and whether it was used.
    pub(super) fn gauge(&self, index: usize) -> (i64, bool) {
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

    pub(super) fn merge_histograms(&self) {
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

    pub(super) fn reset_counters(&self) {
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

    pub(super) fn visit(&self, visitor: &mut impl FnMut(Sample<'_>)) {
        let mut give = |metric: &Metric, used: bool, value: Value<'_>| {
            if used || !metric.on_demand {
                visitor(Sample {
                    prefix: &self.prefix,
                    name: Cow::Borrowed(metric.name),
                    value,
                    used,
                    series: None,
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
                series: None,
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
