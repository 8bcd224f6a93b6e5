//! ROUND_ROBIN: in turn; by earliest deadline first where weights differ.

use tidegate_model::cluster::SlowStart;
use tidegate_rt::Rng;

use super::weights::{are_needed, weight_of};
use super::{Candidate, Edf, HostLoad};

pub(super) enum RoundRobin {
    Equal {
        next: usize,
    },
    Weighted {
        order: Edf,
        slow_start: Option<SlowStart>,
    },
}

impl RoundRobin {
    /// Starts at a random host, so that the workers of many proxies do not all begin with the first.
    pub(super) fn new(
        slow_start: Option<SlowStart>,
        candidates: &[Candidate],
        rng: &mut Rng,
        load: &impl HostLoad,
    ) -> Self {
        let start = rng.below(candidates.len() as u64);
        if !are_needed(slow_start, candidates, load) {
            return Self::Equal {
                next: start as usize,
            };
        }
        let weight = |position| weight_of(slow_start, candidates, position, load);
        let mut order = Edf::new((0..candidates.len()).map(weight));
        for _ in 0..start {
            let _skipped = order.pick(weight);
        }
        Self::Weighted { order, slow_start }
    }

    pub(super) fn choose(&mut self, candidates: &[Candidate], load: &impl HostLoad) -> usize {
        match self {
            Self::Equal { next } => {
                let position = *next % candidates.len();
                *next = position + 1;
                position
            }
            Self::Weighted { order, slow_start } => order
                .pick(|position| weight_of(*slow_start, candidates, position, load))
                .unwrap_or(0),
        }
    }
}
