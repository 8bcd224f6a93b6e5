//! `/stats`: a line per metric.

use std::fmt::Write as _;

use super::{Buckets, Picked, PickedValue, Selection, general, pick, shortest};
use crate::histogram::{HistogramSnapshot, QUANTILES};
use crate::registry::Registry;

/// Text readouts first, then counters and gauges, then histograms, each by name.
pub fn text(registry: &Registry, selection: Selection<'_>) -> String {
    let picked = pick(registry, selection);
    let mut out = String::with_capacity(picked.len() * 48);
    for metric in &picked {
        if let PickedValue::Text(text) = &metric.value {
            line(&mut out, &metric.name, format_args!(" \"{text}\""));
        }
    }
    for metric in &picked {
        match metric.value {
            PickedValue::Counter(value) => line(&mut out, &metric.name, format_args!(" {value}")),
            PickedValue::Gauge(value) => line(&mut out, &metric.name, format_args!(" {value}")),
            PickedValue::Histogram { .. } | PickedValue::Text(_) => {}
        }
    }
    for Picked { name, value, .. } in &picked {
        if let PickedValue::Histogram {
            interval,
            cumulative,
            bounds,
        } = value
        {
            match selection.buckets {
                Buckets::Summary => line(
                    &mut out,
                    name,
                    format_args!(" {}", summary(interval, cumulative)),
                ),
                Buckets::Cumulative => {
                    let counts = up_to(interval, cumulative, bounds);
                    line(&mut out, name, format_args!(" {}", buckets(&counts)));
                }
                Buckets::Disjoint => {
                    line(
                        &mut out,
                        name,
                        format_args!(" {}", buckets(&disjoint(interval, cumulative, bounds))),
                    );
                }
                Buckets::Detailed => {
                    line(
                        &mut out,
                        name,
                        format_args!(
                            "\n  totals={}\n  intervals={}\n  summary={}",
                            bins(cumulative),
                            bins(interval),
                            summary(interval, cumulative)
                        ),
                    );
                }
            }
        }
    }
    out
}

/// The counts up to each bound.
pub(super) fn up_to(
    interval: &HistogramSnapshot,
    cumulative: &HistogramSnapshot,
    bounds: &[f64],
) -> Vec<(f64, u64, u64)> {
    let bounds = bounds.iter();
    bounds
        .map(|&bound| {
            (
                bound,
                interval.count_below(bound),
                cumulative.count_below(bound),
            )
        })
        .collect()
}

/// The counts of the buckets by themselves.
pub(super) fn disjoint(
    interval: &HistogramSnapshot,
    cumulative: &HistogramSnapshot,
    bounds: &[f64],
) -> Vec<(f64, u64, u64)> {
    let mut counts = up_to(interval, cumulative, bounds);
    let mut before = (0, 0);
    for (_, interval, cumulative) in &mut counts {
        let up_to = (*interval, *cumulative);
        *interval -= before.0;
        *cumulative -= before.1;
        before = up_to;
    }
    counts
}

fn line(out: &mut String, name: &str, rest: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{name}:{rest}");
}

fn buckets(counts: &[(f64, u64, u64)]) -> String {
    let parts: Vec<String> = counts
        .iter()
        .map(|(bound, interval, cumulative)| {
            format!("B{}({interval},{cumulative})", general(*bound, 6))
        })
        .collect();
    parts.join(" ")
}

fn bins(snapshot: &HistogramSnapshot) -> String {
    let parts: Vec<String> = snapshot
        .bins()
        .map(|(low, width, count)| format!("{},{}:{count}", general(low, 6), general(width, 6)))
        .collect();
    parts.join(", ")
}

fn summary(interval: &HistogramSnapshot, cumulative: &HistogramSnapshot) -> String {
    if cumulative.is_empty() {
        return "No recorded values".to_owned();
    }
    let value = |snapshot: &HistogramSnapshot, quantile| {
        snapshot
            .quantile(quantile)
            .map_or_else(|| "nan".to_owned(), shortest)
    };
    let parts: Vec<String> = QUANTILES
        .iter()
        .map(|&quantile| {
            format!(
                "P{}({},{})",
                general(quantile * 100.0, 6),
                value(interval, quantile),
                value(cumulative, quantile)
            )
        })
        .collect();
    parts.join(" ")
}
