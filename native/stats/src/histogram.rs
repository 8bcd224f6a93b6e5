//! Log-linear histograms, as Envoy's: two significant decimal digits.
//!
//! A value lands in the bin of its first two digits, so a decade has 90 bins. Decades are allocated when first hit: a
//! histogram of latencies between 1 and 99 ms holds two of them.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Envoy's default bucket bounds, which Prometheus sees.
pub const BUCKET_BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10000.0,
    30000.0,
    60000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// What the text form prints.
pub const QUANTILES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];

const BINS: usize = 90;
/// 1 to 10^12 and beyond: the last decade takes the rest.
const DECADES: usize = 12;

type Decade = Box<[AtomicU64; BINS]>;

/// One thread's share of a histogram. Only that thread records.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    zero: AtomicU64,
    decades: [OnceLock<Decade>; DECADES],
}

impl Cells {
    #[inline]
    pub(crate) fn record(&self, value: u64) {
        let Some((decade, bin)) = locate(value) else {
            return bump(&self.zero);
        };
        if let Some(cell) = self.decades.get(decade).and_then(|decade| {
            decade
                .get_or_init(|| Box::new([const { AtomicU64::new(0) }; BINS]))
                .get(bin)
        }) {
            bump(cell);
        }
    }

    pub(crate) fn add_to(&self, snapshot: &mut HistogramSnapshot) {
        snapshot.add(0, self.zero.load(Relaxed));
        for (index, decade) in self.decades.iter().enumerate() {
            if let Some(bins) = decade.get() {
                for (bin, cell) in bins.iter().enumerate() {
                    snapshot.add(key(index, bin), cell.load(Relaxed));
                }
            }
        }
    }
}

#[inline]
fn bump(cell: &AtomicU64) {
    cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
}

/// `None` for zero.
#[inline]
fn locate(value: u64) -> Option<(usize, usize)> {
    let decade = value.checked_ilog10()? as usize;
    if decade >= DECADES {
        return Some((DECADES - 1, BINS - 1));
    }
    let bin = if decade == 0 {
        (value - 1) * 10
    } else {
        value / 10_u64.pow(decade as u32 - 1) - 10
    };
    Some((decade, bin as usize))
}

/// A bin's position in order of value; 0 is the value zero.
fn key(decade: usize, bin: usize) -> u16 {
    (1 + decade * BINS + bin) as u16
}

/// Lower bound and width.
fn bounds(key: u16) -> (f64, f64) {
    if key == 0 {
        return (0.0, 0.0);
    }
    let position = usize::from(key - 1);
    let digits = (position % BINS + 10) as f64;
    match position / BINS {
        // Divided, because a tenth is not a binary fraction.
        0 => (digits / 10.0, 0.1),
        decade => {
            let width = 10_f64.powi(decade as i32 - 1);
            (digits * width, width)
        }
    }
}

/// The sum over all threads, and what is computed from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    bins: BTreeMap<u16, u64>,
}

impl HistogramSnapshot {
    fn add(&mut self, key: u16, count: u64) {
        if count > 0 {
            *self.bins.entry(key).or_default() += count;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.bins.is_empty()
    }

    pub fn count(&self) -> u64 {
        self.bins.values().sum()
    }

    /// From the middles of the bins, as Envoy's.
    pub fn sum(&self) -> f64 {
        self.bins
            .iter()
            .map(|(&key, &count)| {
                let (low, width) = bounds(key);
                midpoint(low, width) * count as f64
            })
            .sum()
    }

    /// What was recorded since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = Self::default();
        for (&key, &count) in &self.bins {
            let before = earlier.bins.get(&key).copied().unwrap_or_default();
            difference.add(key, count.saturating_sub(before));
        }
        difference
    }

    /// How many values lie in bins that begin at or below `bound`. The bounds in use are where bins begin, so the values
    /// equal to the bound are in.
    pub fn count_below(&self, bound: f64) -> u64 {
        self.bins
            .iter()
            .take_while(|&(&key, _)| bounds(key).0 <= bound)
            .map(|(_, count)| count)
            .sum()
    }

    /// The value below which the share `quantile` of the recorded ones lie, the values of a bin taken as evenly spread;
    /// `None` when nothing was recorded.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let rank = ((quantile * self.count() as f64).ceil() as u64).max(1);
        let mut below = 0;
        for (&key, &count) in &self.bins {
            if rank <= below + count {
                let (low, width) = bounds(key);
                return Some(low + width * ((rank - below) as f64 / (count + 1) as f64));
            }
            below += count;
        }
        None
    }

    /// Lower bound, width and count of each bin that holds values.
    pub fn bins(&self) -> impl Iterator<Item = (f64, f64, u64)> {
        self.bins.iter().map(|(&key, &count)| {
            let (low, width) = bounds(key);
            (low, width, count)
        })
    }
}

/// Where the mean of a bin's values is assumed.
fn midpoint(low: f64, width: f64) -> f64 {
    if low == 0.0 {
        return 0.0;
    }
    let high = low + width;
    2.0 * low * high / (low + high)
}

#[cfg(test)]
mod tests;
