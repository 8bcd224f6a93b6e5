//! LEAST_REQUEST: the least loaded of a few random hosts; where weights differ, earliest deadline first with weights
//! divided by the load.
//!
//! The load is that of this worker, not of the process: balancer state belongs to one worker.

use tidegate_rt::Rng;

use super::round_robin::{weight_of, weights_differ};
use super::{Candidate, Edf, HostLoad};

pub(super) struct LeastRequest {
    choice_count: u32,
    /// Only where weights differ.
    weighted: Option<Edf>,
}

impl LeastRequest {
    pub(super) fn new(choice_count: u32, candidates: &[Candidate], rng: &mut Rng) -> Self {
        let weighted = weights_differ(candidates).then(|| {
            let mut edf = Edf::new(
                candidates
                    .iter()
                    .map(|candidate| f64::from(candidate.weight)),
            );
            for _ in 0..rng.below(candidates.len() as u64) {
                let _skipped = edf.pick(|position| weight_of(candidates, position));
            }
            edf
        });
        Self {
            choice_count: choice_count.max(1),
            weighted,
        }
    }

    pub(super) fn choose(
        &mut self,
        candidates: &[Candidate],
        rng: &mut Rng,
        load: &impl HostLoad,
    ) -> usize {
        let active = |position: usize| {
            candidates
                .get(position)
                .map_or(u32::MAX, |candidate| load.active(candidate.host))
        };
        if let Some(edf) = &mut self.weighted {
            return edf
                .pick(|position| {
                    weight_of(candidates, position) / f64::from(active(position).saturating_add(1))
                })
                .unwrap_or(0);
        }
        let mut best = rng.below(candidates.len() as u64) as usize;
        let mut best_active = active(best);
        for _ in 1..self.choice_count {
            let sample = rng.below(candidates.len() as u64) as usize;
            let sample_active = active(sample);
            if sample_active < best_active {
                best = sample;
                best_active = sample_active;
            }
        }
        best
    }
}
