//! ROUND_ROBIN: in turn; by earliest deadline first where weights differ.

use tidegate_rt::Rng;

use super::{Candidate, Edf};

pub(super) enum RoundRobin {
    Equal { next: usize },
    Weighted(Edf),
}

impl RoundRobin {
    /// Starts at a random host, so that the workers of many proxies do not all begin with the first.
    pub(super) fn new(candidates: &[Candidate], rng: &mut Rng) -> Self {
        let start = rng.below(candidates.len() as u64);
        if !weights_differ(candidates) {
            return Self::Equal {
                next: start as usize,
            };
        }
        let mut edf = Edf::new(
            candidates
                .iter()
                .map(|candidate| f64::from(candidate.weight)),
        );
        for _ in 0..start {
            let _skipped = edf.pick(|position| weight_of(candidates, position));
        }
        Self::Weighted(edf)
    }

    pub(super) fn choose(&mut self, candidates: &[Candidate]) -> usize {
        match self {
            Self::Equal { next } => {
                let position = *next % candidates.len();
                *next = position + 1;
                position
            }
            Self::Weighted(edf) => edf
                .pick(|position| weight_of(candidates, position))
                .unwrap_or(0),
        }
    }
}

pub(super) fn weights_differ(candidates: &[Candidate]) -> bool {
    candidates
        .first()
        .is_some_and(|first| candidates.iter().any(|other| other.weight != first.weight))
}

pub(super) fn weight_of(candidates: &[Candidate], position: usize) -> f64 {
    candidates
        .get(position)
        .map_or(1.0, |candidate| f64::from(candidate.weight))
}
