//! `/stats/prometheus`: the exposition format, labels cut out of the names.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{PickedValue, Selection, general, pick};
use crate::registry::Registry;
use crate::tags::TagRules;

/// The stat namespace that Istio's filters register.
const CUSTOM_NAMESPACE: &str = "istiocustom.";

/// Counters, then gauges, text readouts if asked for, then histograms; each family with its type.
pub fn prometheus(registry: &Registry, rules: &TagRules, selection: Selection<'_>) -> String {
    // By kind and family, the series in the order of their full names.
    let mut families: BTreeMap<(u8, String), Vec<Line>> = BTreeMap::new();
    for metric in pick(registry, selection) {
        let order = match metric.value {
            PickedValue::Counter(_) => 0,
            PickedValue::Gauge(_) => 1,
            PickedValue::Text(_) if selection.text_readouts => 2,
            PickedValue::Text(_) => continue,
            PickedValue::Histogram { .. } => 3,
        };
        let (family, labels, divisor) = match &metric.series {
            Some(series) => {
                let labels = series.labels.iter();
                let labels = printed(labels.map(|(name, value)| (&**name, &**value)));
                (family_name(&series.base), labels, series.divisor)
            }
            None => {
                let extracted = rules.extract(&metric.name);
                let labels = printed(extracted.labels.into_iter());
                (family_name(&extracted.base), labels, 1.0)
            }
        };
        families.entry((order, family)).or_default().push(Line {
            labels,
            value: metric.value,
            divisor,
        });
    }
    let mut out = String::new();
    for ((order, family), series) in families {
        let kind = match order {
            0 => "counter",
            1 | 2 => "gauge",
            _ => "histogram",
        };
        let _ = writeln!(out, "# TYPE {family} {kind}");
        for line in series {
            write_series(&mut out, &family, &line);
        }
    }
    out
}

/// One series of a family.
struct Line {
    labels: String,
    value: PickedValue,
    divisor: f64,
}

/// Metrics in a namespace of their own keep their names, all others are Envoy's.
fn family_name(base: &str) -> String {
    match base.strip_prefix(CUSTOM_NAMESPACE) {
        Some(name) => sanitize(name),
        None => format!("envoy_{}", sanitize(base)),
    }
}

fn printed<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (name, value) in labels {
        if !out.is_empty() {
            out.push(',');
        }
        // Writing to a string cannot fail.
        let _ = write!(out, "{}=\"{}\"", sanitize(name), escape(value));
    }
    out
}

fn write_series(out: &mut String, family: &str, line: &Line) {
    let Line {
        labels,
        value,
        divisor,
    } = line;
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
        PickedValue::Histogram {
            cumulative, bounds, ..
        } => {
            let comma = if labels.is_empty() { "" } else { "," };
            // A quotient is not exact.
            let digits = if *divisor > 1.0 { 15 } else { 32 };
            for &bound in bounds.iter() {
                let _ = writeln!(
                    out,
                    "{family}_bucket{{{labels}{comma}le=\"{}\"}} {}",
                    general(bound / divisor, digits),
                    cumulative.count_below(bound)
                );
            }
            let count = cumulative.count();
            let _ = writeln!(out, "{family}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
            let _ = writeln!(
                out,
                "{family}_sum{{{labels}}} {}",
                general(cumulative.sum() / divisor, digits)
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
