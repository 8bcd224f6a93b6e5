//! RANDOM: any host, weights ignored, as in Envoy.

use tidegate_rt::Rng;

use super::Candidate;

pub(super) fn choose(candidates: &[Candidate], rng: &mut Rng) -> usize {
    rng.below(candidates.len() as u64) as usize
}
