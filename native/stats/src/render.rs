//! The text of `/stats`, `/stats/prometheus` and statsd.

mod json;
mod prometheus;
mod statsd;
mod text;

use std::fmt::Write as _;
use std::sync::Arc;

pub use json::json;
pub use prometheus::prometheus;
pub use statsd::Statsd;
pub use text::text;

use crate::histogram::HistogramSnapshot;
use crate::registry::{Registry, SeriesName, Value};

/// Which metrics are rendered.
#[derive(Clone, Copy)]
pub struct Selection<'a> {
    /// Only those counted at least once.
    pub used_only: bool,
    /// On the full name.
    pub matches: &'a dyn Fn(&str) -> bool,
    pub kind: Kind,
    pub buckets: Buckets,
    /// Include text readouts in the Prometheus form.
    pub text_readouts: bool,
}

/// `type=`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    #[default]
    All,
    Counters,
    Gauges,
    Histograms,
    TextReadouts,
}

/// `histogram_buckets=`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Buckets {
    #[default]
    Summary,
    Cumulative,
    Disjoint,
    Detailed,
}

/// A metric picked out of the registry.
struct Picked {
    name: String,
    series: Option<SeriesName>,
    value: PickedValue,
}

enum PickedValue {
    Counter(u64),
    Gauge(i64),
    Histogram {
        interval: HistogramSnapshot,
        cumulative: HistogramSnapshot,
        bounds: Arc<[f64]>,
    },
    Text(String),
}

/// Everything selected, by name.
fn pick(registry: &Registry, selection: Selection<'_>) -> Vec<Picked> {
    let mut picked = Vec::new();
    let mut name = String::new();
    registry.visit(|sample| {
        if selection.used_only && !sample.used {
            return;
        }
        let kind = match sample.value {
            Value::Counter(_) => Kind::Counters,
            Value::Gauge(_) => Kind::Gauges,
            Value::Histogram { .. } => Kind::Histograms,
            Value::Text(_) => Kind::TextReadouts,
        };
        if selection.kind != Kind::All && selection.kind != kind {
            return;
        }
        name.clear();
        name.push_str(sample.prefix);
        name.push_str(&sample.name);
        if !(selection.matches)(&name) {
            return;
        }
        picked.push(Picked {
            name: name.clone(),
            series: sample.series.cloned(),
            value: match sample.value {
                Value::Counter(value) => PickedValue::Counter(value),
                Value::Gauge(value) => PickedValue::Gauge(value),
                Value::Histogram {
                    interval,
                    cumulative,
                } => PickedValue::Histogram {
                    interval: interval.clone(),
                    cumulative: cumulative.clone(),
                    bounds: registry.buckets(&name),
                },
                Value::Text(text) => PickedValue::Text(text.to_owned()),
            },
        });
    });
    picked.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    picked
}

/// C's `%g` with so many significant digits.
fn general(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{value:.*e}", digits - 1);
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let trim = |text: &str| -> String {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(mantissa), exponent.abs());
    }
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    trim(&format!("{value:.decimals$}"))
}

/// The shortest text that reads back as the same number, as C++'s `to_chars`.
fn shortest(value: f64) -> String {
    let plain = format!("{value}");
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return plain;
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let mut other = mantissa.to_owned();
    let sign = if exponent < 0 { '-' } else { '+' };
    // Writing to a string cannot fail.
    let _ = write!(other, "e{sign}{:02}", exponent.abs());
    if other.len() < plain.len() {
        other
    } else {
        plain
    }
}

#[cfg(test)]
mod tests;
