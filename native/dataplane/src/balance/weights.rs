//! Weights that change while one looks: of hosts that have just come, and so are to be spared.

use tidegate_model::cluster::SlowStart;

use super::{Candidate, HostLoad};

/// Whether hosts have to be chosen by weight: weights differ, or some are to be spared for now.
pub(super) fn are_needed(
    slow_start: Option<SlowStart>,
    candidates: &[Candidate],
    load: &impl HostLoad,
) -> bool {
    let Some(first) = candidates.first() else {
        return false;
    };
    candidates.iter().any(|other| other.weight != first.weight)
        || slow_start.is_some_and(|slow_start| {
            candidates
                .iter()
                .any(|candidate| load.age(candidate.host) <= slow_start.window)
        })
}

/// The weight of a candidate now.
pub(super) fn weight_of(
    slow_start: Option<SlowStart>,
    candidates: &[Candidate],
    position: usize,
    load: &impl HostLoad,
) -> f64 {
    let Some(candidate) = candidates.get(position) else {
        return 1.0;
    };
    let weight = f64::from(candidate.weight);
    match slow_start {
        Some(slow_start) => weight * factor(slow_start, candidate.host, load),
        None => weight,
    }
}

/// Envoy's `applySlowStartFactor`.
fn factor(slow_start: SlowStart, host: u32, load: &impl HostLoad) -> f64 {
    let age = load.age(host);
    if age >= slow_start.window {
        return 1.0;
    }
    let time = age.as_millis().max(1) as f64 / (slow_start.window.as_millis().max(1) as f64);
    let time = time.powf(1.0 / slow_start.aggression);
    time.max(slow_start.min_weight_percent / 100.0)
}
