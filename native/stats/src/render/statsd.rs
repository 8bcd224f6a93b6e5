//! What is sent to a statsd sink at each flush.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::{Buckets, Kind, Picked, PickedValue, Selection, pick};
use crate::registry::Registry;
use crate::tags::TagRules;

/// One sink's memory of what it has sent.
#[derive(Debug, Default)]
pub struct Statsd {
    prefix: String,
    sent: HashMap<String, u64>,
    dog: Option<Dog>,
}

/// What `DogStatsD` has beyond statsd.
#[derive(Debug)]
struct Dog {
    rules: TagRules,
    /// Lines share a datagram up to this size.
    max_bytes: usize,
}

impl Statsd {
    /// Names begin with this and a dot; Envoy's default is `envoy`.
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            ..Self::default()
        }
    }

    /// Labels leave the names and become tags. `max_bytes`: lines share a datagram up to this size; 0: never.
    pub fn dog(prefix: &str, rules: TagRules, max_bytes: usize) -> Self {
        Self {
            dog: Some(Dog { rules, max_bytes }),
            ..Self::new(prefix)
        }
    }

    /// A line per metric that was ever used: counters by how much they grew, gauges as they are, histograms as timings
    /// (one per distinct value, with the sample rate that makes it count as often as it was recorded). `send` is given
    /// datagrams.
    pub fn flush(&mut self, registry: &Registry, mut send: impl FnMut(&str)) {
        let selection = Selection {
            used_only: true,
            matches: &|_| true,
            kind: Kind::All,
            buckets: Buckets::Summary,
            text_readouts: false,
        };
        let mut sent = HashMap::with_capacity(self.sent.len());
        let mut datagram = Datagram {
            lines: String::new(),
            max_bytes: self.dog.as_ref().map_or(0, |dog| dog.max_bytes),
            send: &mut send,
        };
        for metric in pick(registry, selection) {
            let (name, tags) = self.named(&metric);
            match metric.value {
                PickedValue::Counter(value) => {
                    let before = self.sent.get(&metric.name).copied().unwrap_or_default();
                    // A counter below what was sent has been reset.
                    let delta = value.checked_sub(before).unwrap_or(value);
                    datagram.line(&format!("{name}:{delta}|c{tags}"));
                    sent.insert(metric.name, value);
                }
                PickedValue::Gauge(value) => datagram.line(&format!("{name}:{value}|g{tags}")),
                PickedValue::Histogram { interval, .. } => {
                    for (low, width, count) in interval.bins() {
                        let value = if width > 1.0 { low + width / 2.0 } else { low };
                        let rate = match count {
                            1 => String::new(),
                            count => format!("|@{}", 1.0 / count as f64),
                        };
                        datagram.line(&format!("{name}:{value}|ms{rate}{tags}"));
                    }
                }
                PickedValue::Text(_) => {}
            }
        }
        datagram.end();
        // What is no longer there is forgotten with its owner.
        self.sent = sent;
    }

    /// The name of a line, and its tags.
    fn named(&self, metric: &Picked) -> (String, String) {
        let plain = |name: &str| format!("{}.{}", self.prefix, name.replace(':', "_"));
        let Some(dog) = &self.dog else {
            return (plain(&metric.name), String::new());
        };
        let mut tags = String::new();
        let mut tag = |name: &str, value: &str| {
            // Writing to a string cannot fail.
            let _ = write!(
                tags,
                "{}{name}:{value}",
                if tags.is_empty() { "|#" } else { "," }
            );
        };
        if let Some(series) = &metric.series {
            for (name, value) in series.labels.iter() {
                tag(name, value);
            }
            return (plain(&series.base), tags);
        }
        let extracted = dog.rules.extract(&metric.name);
        for (name, value) in &extracted.labels {
            tag(name, value);
        }
        (plain(&extracted.base), tags)
    }
}

/// Lines on their way.
struct Datagram<'s> {
    lines: String,
    max_bytes: usize,
    send: &'s mut dyn FnMut(&str),
}

impl Datagram<'_> {
    fn line(&mut self, line: &str) {
        if line.len() >= self.max_bytes {
            (self.send)(line);
            return;
        }
        if self.lines.len() + line.len() + 1 > self.max_bytes {
            self.end();
        } else if !self.lines.is_empty() {
            self.lines.push('\n');
        }
        self.lines.push_str(line);
    }

    fn end(&mut self) {
        if !self.lines.is_empty() {
            (self.send)(&self.lines);
            self.lines.clear();
        }
    }
}
