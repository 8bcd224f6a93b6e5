//! What is sent to a statsd sink at each flush.

use std::collections::HashMap;

use super::{Buckets, Kind, PickedValue, Selection, pick};
use crate::registry::Registry;

/// One sink's memory of what it has sent.
#[derive(Debug, Default)]
pub struct Statsd {
    prefix: String,
    sent: HashMap<String, u64>,
}

impl Statsd {
    /// Names begin with this and a dot; Envoy's default is `envoy`.
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            sent: HashMap::new(),
        }
    }

    /// A datagram per metric that was ever used: counters by how much they grew, gauges as they are, histograms as timings
    /// (one per distinct value, with the sample rate that makes it count as often as it was recorded).
    pub fn flush(&mut self, registry: &Registry, mut send: impl FnMut(&str)) {
        let selection = Selection {
            used_only: true,
            matches: &|_| true,
            kind: Kind::All,
            buckets: Buckets::Summary,
            text_readouts: false,
        };
        let mut sent = HashMap::with_capacity(self.sent.len());
        for metric in pick(registry, selection) {
            let name = metric.name.replace(':', "_");
            match metric.value {
                PickedValue::Counter(value) => {
                    let before = self.sent.get(&metric.name).copied().unwrap_or_default();
                    // A counter below what was sent has been reset.
                    let delta = value.checked_sub(before).unwrap_or(value);
                    send(&format!("{}.{name}:{delta}|c", self.prefix));
                    sent.insert(metric.name, value);
                }
                PickedValue::Gauge(value) => send(&format!("{}.{name}:{value}|g", self.prefix)),
                PickedValue::Histogram { interval, .. } => {
                    for (low, width, count) in interval.bins() {
                        let value = if width > 1.0 { low + width / 2.0 } else { low };
                        if count == 1 {
                            send(&format!("{}.{name}:{value}|ms", self.prefix));
                        } else {
                            send(&format!(
                                "{}.{name}:{value}|ms|@{}",
                                self.prefix,
                                1.0 / count as f64
                            ));
                        }
                    }
                }
                PickedValue::Text(_) => {}
            }
        }
        // What is no longer there is forgotten with its owner.
        self.sent = sent;
    }
}
