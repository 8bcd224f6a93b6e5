//! `/stats/prometheus`: the exposition format, labels cut out of the names.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{PickedValue, Selection, general, pick};
use crate::histogram::BUCKET_BOUNDS;
use crate::registry::Registry;
use crate::tags::TagRules;

/// Counters, then gauges, text readouts if asked for, then histograms; each family with its type.
pub fn prometheus(registry: &Registry, rules: &TagRules, selection: Selection<'_>) -> String {
    // By kind and family, the series in the order of their full names.
    let mut families: BTreeMap<(u8, String), Vec<(String, PickedValue)>> = BTreeMap::new();
    for metric in pick(registry, selection) {
        let order = match metric.value {
            PickedValue::Counter(_) => 0,
            PickedValue::Gauge(_) => 1,
            PickedValue::Text(_) if selection.text_readouts => 2,
            PickedValue::Text(_) => continue,
            PickedValue::Histogram { .. } => 3,
        };
        let extracted = rules.extract(&metric.name);
        let mut labels = String::new();
        for (name, value) in extracted.labels {
            if !labels.is_empty() {
                labels.push(',');
            }
            // Writing to a string cannot fail.
            let _ = write!(labels, "{}=\"{}\"", sanitize(name), escape(value));
        }
        families
            .entry((order, format!("envoy_{}", sanitize(&extracted.base))))
            .or_default()
            .push((labels, metric.value));
    }
    let mut out = String::new();
    for ((order, family), series) in families {
        let kind = match order {
            0 => "counter",
            1 | 2 => "gauge",
            _ => "histogram",
        };
        let _ = writeln!(out, "# TYPE {family} {kind}");
        for (labels, value) in series {
            write_series(&mut out, &family, &labels, &value);
        }
    }
    out
}

fn write_series(out: &mut String, family: &str, labels: &str, value: &PickedValue) {
    // Writing to a string cannot fail.
    let _ = match value {
        PickedValue::Counter(value) => writeln!(out, "{family}{{{labels}}} {value}"),
        PickedValue::Gauge(value) => writeln!(out, "{family}{{{labels}}} {value}"),
        PickedValue::Text(text) => {
            let comma = if labels.is_empty() { "" } else { "," };
            writeln!(
                out,
                "{family}{{{labels}{comma}text_value=\"{}\"}} 0",
                escape(text)
            )
        }
        PickedValue::Histogram { cumulative, .. } => {
            let comma = if labels.is_empty() { "" } else { "," };
            for bound in BUCKET_BOUNDS {
                let _ = writeln!(
                    out,
                    "{family}_bucket{{{labels}{comma}le=\"{}\"}} {}",
                    general(bound, 32),
                    cumulative.count_below(bound)
                );
            }
            let count = cumulative.count();
            let _ = writeln!(out, "{family}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
            let _ = writeln!(
                out,
                "{family}_sum{{{labels}}} {}",
                general(cumulative.sum(), 32)
            );
            writeln!(out, "{family}_count{{{labels}}} {count}")
        }
    };
}

fn sanitize(name: &str) -> String {
    name.chars()
        .map(|character| {
            if character.is_ascii_alphanumeric() {
                character
            } else {
                '_'
            }
        })
        .collect()
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
