//! Earliest deadline first: Envoy's scheduler for weighted choices.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

#[derive(Debug)]
struct Entry {
    deadline: f64,
    /// Breaks ties: first in, first out.
    order: u64,
    position: usize,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The heap's greatest is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .deadline
            .total_cmp(&self.deadline)
            .then_with(|| other.order.cmp(&self.order))
    }
}

/// Positions that come up in proportion to their weights, as evenly spread as can be.
#[derive(Debug)]
pub(super) struct Edf {
    queue: BinaryHeap<Entry>,
    now: f64,
    next_order: u64,
}

impl Edf {
    pub(super) fn new(weights: impl Iterator<Item = f64>) -> Self {
        let mut edf = Self {
            queue: BinaryHeap::new(),
            now: 0.0,
            next_order: 0,
        };
        for (position, weight) in weights.enumerate() {
            edf.add(position, weight);
        }
        edf
    }

    fn add(&mut self, position: usize, weight: f64) {
        self.next_order += 1;
        self.queue.push(Entry {
            deadline: self.now + 1.0 / weight.max(f64::MIN_POSITIVE),
            order: self.next_order,
            position,
        });
    }

    /// The next position, which goes back in with the weight that `weight_of` gives it now.
    pub(super) fn pick(&mut self, weight_of: impl FnOnce(usize) -> f64) -> Option<usize> {
        let entry = self.queue.pop()?;
        self.now = entry.deadline;
        self.add(entry.position, weight_of(entry.position));
        Some(entry.position)
    }
}
