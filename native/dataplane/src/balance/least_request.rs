//! LEAST_REQUEST: the least loaded of a few random hosts, or of all; where weights differ, earliest deadline first with
//! weights divided by the load.
//!
//! The load is that of this worker, not of the process: balancer state belongs to one worker.

use tidegate_model::cluster::{LeastRequest as Config, SlowStart};
use tidegate_rt::Rng;

use super::weights::{are_needed, weight_of};
use super::{Candidate, Edf, HostLoad};

pub(super) struct LeastRequest {
    config: Config,
    slow_start: Option<SlowStart>,
    /// Only where weights differ.
    weighted: Option<Edf>,
}

impl LeastRequest {
    pub(super) fn new(
        config: Config,
        slow_start: Option<SlowStart>,
        candidates: &[Candidate],
        rng: &mut Rng,
        load: &impl HostLoad,
    ) -> Self {
        let weighted = are_needed(slow_start, candidates, load).then(|| {
            let weight = |position| weight_of(slow_start, candidates, position, load);
            let mut edf = Edf::new((0..candidates.len()).map(weight));
            for _ in 0..rng.below(candidates.len() as u64) {
                let _skipped = edf.pick(weight);
            }
            edf
        });
        Self {
            config,
            slow_start,
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
            let (bias, slow_start) = (self.config.active_request_bias, self.slow_start);
            return edf
                .pick(|position| {
                    let weight = weight_of(slow_start, candidates, position, load);
                    let requests = f64::from(active(position).saturating_add(1));
                    if (bias - 1.0).abs() < f64::EPSILON {
                        weight / requests
                    } else {
                        weight / requests.powf(bias)
                    }
                })
                .unwrap_or(0);
        }
        if self.config.full_scan {
            return least_of_all(candidates, rng, active);
        }
        let mut best = rng.below(candidates.len() as u64) as usize;
        let mut best_active = active(best);
        for _ in 1..self.config.choice_count {
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

/// Any of those that have the least.
fn least_of_all(candidates: &[Candidate], rng: &mut Rng, active: impl Fn(usize) -> u32) -> usize {
    let (mut best, mut best_active, mut ties) = (0, u32::MAX, 0);
    for position in 0..candidates.len() {
        let load = active(position);
        if load < best_active || ties == 0 {
            (best, best_active, ties) = (position, load, 1);
        } else if load == best_active {
            ties += 1;
            if rng.below(ties) == 0 {
                best = position;
            }
        }
    }
    best
}
