//! `/stats?format=json`.

use std::fmt::Write as _;

use super::text::{disjoint, up_to};
use super::{Buckets, PickedValue, Selection, general, pick, shortest};
use crate::histogram::{HistogramSnapshot, QUANTILES};
use crate::registry::Registry;

/// One object, `stats`, with the histograms as its last entry.
pub fn json(registry: &Registry, selection: Selection<'_>) -> String {
    let picked = pick(registry, selection);
    let mut entries: Vec<String> = Vec::with_capacity(picked.len());
    for metric in &picked {
        if let PickedValue::Text(text) = &metric.value {
            entries.push(format!(
                r#"{{"name":{},"value":{}}}"#,
                quote(&metric.name),
                quote(text)
            ));
        }
    }
    for metric in &picked {
        match metric.value {
            PickedValue::Counter(value) => entries.push(format!(
                r#"{{"name":{},"value":{value}}}"#,
                quote(&metric.name)
            )),
            PickedValue::Gauge(value) => entries.push(format!(
                r#"{{"name":{},"value":{value}}}"#,
                quote(&metric.name)
            )),
            PickedValue::Histogram { .. } | PickedValue::Text(_) => {}
        }
    }
    let histograms: Vec<Histogram<'_>> = picked
        .iter()
        .filter_map(|metric| match &metric.value {
            PickedValue::Histogram {
                interval,
                cumulative,
                bounds,
            } => Some(Histogram {
                name: &metric.name,
                interval,
                cumulative,
                bounds,
            }),
            _ => None,
        })
        .collect();
    if !histograms.is_empty() {
        entries.push(format!(
            r#"{{"histograms":{}}}"#,
            all(&histograms, selection.buckets)
        ));
    }
    format!(r#"{{"stats":[{}]}}"#, entries.join(","))
}

struct Histogram<'a> {
    name: &'a str,
    interval: &'a HistogramSnapshot,
    cumulative: &'a HistogramSnapshot,
    bounds: &'a [f64],
}

fn all(histograms: &[Histogram<'_>], buckets: Buckets) -> String {
    let percentiles = QUANTILES
        .map(|quantile| general(quantile * 100.0, 6))
        .join(",");
    match buckets {
        Buckets::Summary => {
            let computed: Vec<String> = histograms
                .iter()
                .filter(|histogram| !histogram.cumulative.is_empty())
                .map(|histogram| {
                    format!(
                        r#"{{"name":{},"values":[{}]}}"#,
                        quote(histogram.name),
                        quantiles(histogram)
                    )
                })
                .collect();
            format!(
                r#"{{"supported_quantiles":[{percentiles}],"computed_quantiles":[{}]}}"#,
                computed.join(",")
            )
        }
        Buckets::Cumulative | Buckets::Disjoint => {
            let parts: Vec<String> = histograms
                .iter()
                .map(|histogram| {
                    let counts = if buckets == Buckets::Disjoint {
                        disjoint(histogram.interval, histogram.cumulative, histogram.bounds)
                    } else {
                        up_to(histogram.interval, histogram.cumulative, histogram.bounds)
                    };
                    let counts: Vec<String> = counts
                        .iter()
                        .map(|(bound, interval, cumulative)| {
                            format!(
                                r#"{{"upper_bound":{},"interval":{interval},"cumulative":{cumulative}}}"#,
                                shortest(*bound)
                            )
                        })
                        .collect();
                    format!(r#"{{"name":{},"buckets":[{}]}}"#, quote(histogram.name), counts.join(","))
                })
                .collect();
            format!("[{}]", parts.join(","))
        }
        Buckets::Detailed => {
            let parts: Vec<String> = histograms
                .iter()
                .map(|histogram| {
                    format!(
                        r#"{{"name":{},"totals":[{}],"intervals":[{}],"percentiles":[{}]}}"#,
                        quote(histogram.name),
                        bins(histogram.cumulative),
                        bins(histogram.interval),
                        quantiles(histogram)
                    )
                })
                .collect();
            format!(
                r#"{{"supported_percentiles":[{percentiles}],"details":[{}]}}"#,
                parts.join(",")
            )
        }
    }
}

fn quantiles(histogram: &Histogram<'_>) -> String {
    let value = |snapshot: &HistogramSnapshot, quantile| {
        snapshot
            .quantile(quantile)
            .map_or_else(|| "null".to_owned(), shortest)
    };
    let parts = QUANTILES.map(|quantile| {
        format!(
            r#"{{"cumulative":{},"interval":{}}}"#,
            value(histogram.cumulative, quantile),
            value(histogram.interval, quantile)
        )
    });
    parts.join(",")
}

fn bins(snapshot: &HistogramSnapshot) -> String {
    let parts: Vec<String> = snapshot
        .bins()
        .map(|(low, width, count)| {
            format!(
                r#"{{"lower_bound":{},"width":{},"count":{count}}}"#,
                shortest(low),
                shortest(width)
            )
        })
        .collect();
    parts.join(",")
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
