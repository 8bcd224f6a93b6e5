//! Judging hosts: whether a run of failures or a rate is reason enough, for how long, and when a host may come back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate_rt::{Clock, Moment};
use tidegate_snapshot::HostId;
use tidegate_stats::defs::outlier as stat;

use super::super::host::HostShared;
use super::{Detector, Ejection, Monitor, State};

/// A host as the detector sees it.
pub(super) struct Watched {
    pub(super) monitor: Arc<Monitor>,
    counters: Arc<HostShared>,
    /// Total and successes at the last tick, and since the one before.
    external: Rate,
    local: Rate,
    last_ejection: Option<Moment>,
    last_unejection: Option<Moment>,
    /// Multiplies the ejection time: grows with every ejection, shrinks with every interval without.
    backoff: u32,
    jitter: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct Rate {
    counted: (u64, u64),
    interval: (u64, u64),
}

impl Rate {
    fn turn(&mut self, total: u64, success: u64) {
        let before = std::mem::replace(&mut self.counted, (total, success));
        self.interval = (total.wrapping_sub(before.0), success.wrapping_sub(before.1));
    }

    /// Percent and volume, if anything happened.
    fn of_interval(&self) -> Option<(f64, u64)> {
        let (total, success) = self.interval;
        (total > 0).then(|| (success as f64 * 100.0 / total as f64, total))
    }
}

impl Watched {
    pub(super) fn new(monitor: Arc<Monitor>, counters: Arc<HostShared>) -> Self {
        let mut watched = Self {
            monitor,
            counters,
            external: Rate::default(),
            local: Rate::default(),
            last_ejection: None,
            last_unejection: None,
            backoff: 0,
            jitter: Duration::ZERO,
        };
        // Of a cluster that took over from another with the same hosts only what is to come counts.
        watched.turn();
        watched.external.interval = (0, 0);
        watched.local.interval = (0, 0);
        watched
    }

    fn turn(&mut self) {
        let counters = &self.counters;
        self.external.turn(
            counters.sum(|cells| &cells.external_total),
            counters.sum(|cells| &cells.external_success),
        );
        self.local.turn(
            counters.sum(|cells| &cells.local_total),
            counters.sum(|cells| &cells.local_success),
        );
    }

    fn set_success_rate(&self, local: bool, percent: f64) {
        let cell = if local {
            &self.monitor.local_origin_success_rate
        } else {
            &self.monitor.success_rate
        };
        cell.store(percent.to_bits(), Ordering::Relaxed);
    }
}

impl Detector {
    /// A run of failures has come to its limit.
    pub(super) fn on_consecutive(&self, host: HostId, why: Ejection) {
        let now = Clock::precise();
        let mut state = self.lock();
        let Some(watched) = state.hosts.get(&host) else {
            return;
        };
        if watched.monitor.is_ejected() {
            return;
        }
        let monitor = Arc::clone(&watched.monitor);
        let changed = self.judge(&mut state, host, why, now);
        if why == Ejection::Consecutive5xx {
            self.stats.shared().inc(stat::EJECTIONS_CONSECUTIVE_5XX);
        }
        monitor.reset_run(why);
        if changed {
            self.changed(&state);
        }
    }

    /// Looks at rates and at hosts whose time is over, if the interval is. Returns when to call again.
    pub fn tick(&self, now: Moment) -> Moment {
        let mut state = self.lock();
        if now < state.due {
            return state.due;
        }
        state.due = now + self.config.interval;
        let mut changed = self.take_back(&mut state, now);
        for watched in state.hosts.values_mut() {
            watched.turn();
            watched.set_success_rate(false, -1.0);
            watched.set_success_rate(true, -1.0);
        }
        changed |= self.judge_rates(&mut state, false, now);
        changed |= self.judge_rates(&mut state, true, now);
        for watched in state.hosts.values_mut() {
            let rested = watched
                .last_unejection
                .is_some_and(|since| now.since(since) >= self.config.interval);
            if rested && !watched.monitor.is_ejected() {
                watched.backoff = watched.backoff.saturating_sub(1);
            }
        }
        if changed {
            self.changed(&state);
        }
        state.due
    }

    /// Lets hosts in again whose time is over.
    fn take_back(&self, state: &mut State, now: Moment) -> bool {
        let config = &self.config;
        let mut back = Vec::new();
        for (id, watched) in &mut state.hosts {
            let Some(since) = watched.last_ejection else {
                continue;
            };
            let time = config
                .base_ejection_time
                .saturating_mul(watched.backoff)
                .min(config.max_ejection_time)
                + watched.jitter;
            let monitor = &watched.monitor;
            if !monitor.is_ejected() || now.since(since) < time {
                continue;
            }
            monitor.ejected.store(false, Ordering::Relaxed);
            for run in [
                Ejection::Consecutive5xx,
                Ejection::ConsecutiveGatewayFailure,
                Ejection::ConsecutiveLocalOriginFailure,
            ] {
                monitor.reset_run(run);
            }
            watched.last_unejection = Some(now);
            back.push(*id);
        }
        for id in &back {
            state.ejected.remove(id);
            self.stats.shared().gauge_add(stat::EJECTIONS_ACTIVE, -1);
        }
        !back.is_empty()
    }

    /// Compares the success rates of the last interval, of answers or of connections.
    fn judge_rates(&self, state: &mut State, local: bool, now: Moment) -> bool {
        let config = &self.config;
        let [of_answers, of_connections] = &mut state.rates;
        *(if local { of_connections } else { of_answers }) = (-1.0, -1.0);
        let count = state.hosts.len();
        let (rate_hosts, percentage_hosts) = (
            config.success_rate_minimum_hosts as usize,
            config.failure_percentage_minimum_hosts as usize,
        );
        if count < rate_hosts && count < percentage_hosts {
            return false;
        }
        let rate_volume = u64::from(config.success_rate_request_volume);
        let percentage_volume = u64::from(config.failure_percentage_request_volume);
        let (mut of_rate, mut of_percentage) = (Vec::new(), Vec::new());
        for host in &state.members {
            let Some(watched) = state.hosts.get(&host.id) else {
                continue;
            };
            let rate = if local {
                &watched.local
            } else {
                &watched.external
            };
            let Some((percent, volume)) = rate.of_interval() else {
                continue;
            };
            if watched.monitor.is_ejected() {
                continue;
            }
            if volume >= rate_volume.min(percentage_volume) {
                watched.set_success_rate(local, percent);
            }
            if volume >= rate_volume {
                of_rate.push((host.id, percent));
            }
            if volume >= percentage_volume {
                of_percentage.push((host.id, percent));
            }
        }
        let mut changed = false;
        if !of_rate.is_empty() && of_rate.len() >= rate_hosts {
            let factor = f64::from(config.success_rate_stdev_factor) / 1000.0;
            let (mean, threshold) = success_rate_threshold(&of_rate, factor);
            let [of_answers, of_connections] = &mut state.rates;
            *(if local { of_connections } else { of_answers }) = (mean, threshold);
            let why = if local {
                Ejection::SuccessRateLocalOrigin
            } else {
                Ejection::SuccessRate
            };
            for (host, percent) in of_rate {
                if percent < threshold {
                    self.stats.shared().inc(stat::EJECTIONS_SUCCESS_RATE);
                    changed |= self.judge(state, host, why, now);
                }
            }
        }
        if !of_percentage.is_empty() && of_percentage.len() >= percentage_hosts {
            let threshold = f64::from(config.failure_percentage_threshold);
            let why = if local {
                Ejection::FailurePercentageLocalOrigin
            } else {
                Ejection::FailurePercentage
            };
            for (host, percent) in of_percentage {
                if 100.0 - percent >= threshold {
                    changed |= self.judge(state, host, why, now);
                }
            }
        }
        changed
    }

    /// Envoy's `ejectHost`: leaves a host out, unless too many are or the dice say no. Whether it did.
    fn judge(&self, state: &mut State, host: HostId, why: Ejection, now: Moment) -> bool {
        let config = &self.config;
        let stats = self.stats.shared();
        stats.inc(detected(why));
        let active = state.ejected.len();
        let percent = 100.0 * (active + 1) as f64 / state.hosts.len().max(1) as f64;
        let few = percent <= f64::from(config.max_ejection_percent.min(100))
            || config.always_eject_one_host && active == 0;
        if !few {
            stats.inc(stat::EJECTIONS_OVERFLOW);
            return false;
        }
        if matches!(why, Ejection::Consecutive5xx | Ejection::SuccessRate) {
            stats.inc(stat::EJECTIONS_TOTAL);
        }
        let (enforcing, enforced) = match why {
            Ejection::Consecutive5xx => (
                config.enforcing_consecutive_5xx,
                stat::EJECTIONS_ENFORCED_CONSECUTIVE_5XX,
            ),
            Ejection::ConsecutiveGatewayFailure => (
                config.enforcing_consecutive_gateway_failure,
                stat::EJECTIONS_ENFORCED_CONSECUTIVE_GATEWAY_FAILURE,
            ),
            Ejection::ConsecutiveLocalOriginFailure => (
                config.enforcing_consecutive_local_origin_failure,
                stat::EJECTIONS_ENFORCED_CONSECUTIVE_LOCAL_ORIGIN_FAILURE,
            ),
            Ejection::SuccessRate => (
                config.enforcing_success_rate,
                stat::EJECTIONS_ENFORCED_SUCCESS_RATE,
            ),
            Ejection::SuccessRateLocalOrigin => (
                config.enforcing_local_origin_success_rate,
                stat::EJECTIONS_ENFORCED_LOCAL_ORIGIN_SUCCESS_RATE,
            ),
            Ejection::FailurePercentage => (
                config.enforcing_failure_percentage,
                stat::EJECTIONS_ENFORCED_FAILURE_PERCENTAGE,
            ),
            Ejection::FailurePercentageLocalOrigin => (
                config.enforcing_failure_percentage_local_origin,
                stat::EJECTIONS_ENFORCED_LOCAL_ORIGIN_FAILURE_PERCENTAGE,
            ),
        };
        if state.rng.below(100) >= u64::from(enforcing) {
            return false;
        }
        let jitter = config.max_ejection_time_jitter.as_millis() as u64;
        let jitter = Duration::from_millis(state.rng.below(jitter.saturating_add(1)));
        let Some(watched) = state.hosts.get_mut(&host) else {
            return false;
        };
        if watched.monitor.ejected.swap(true, Ordering::Relaxed) {
            return false;
        }
        watched.last_ejection = Some(now);
        watched.jitter = jitter;
        let most = config.max_ejection_time + config.base_ejection_time;
        if config.base_ejection_time.saturating_mul(watched.backoff) < most {
            watched.backoff += 1;
        }
        state.ejected.insert(host);
        stats.gauge_add(stat::EJECTIONS_ACTIVE, 1);
        stats.inc(stat::EJECTIONS_ENFORCED_TOTAL);
        stats.inc(enforced);
        true
    }
}

const fn detected(why: Ejection) -> tidegate_stats::Counter<stat::OutlierDetection> {
    match why {
        Ejection::Consecutive5xx => stat::EJECTIONS_DETECTED_CONSECUTIVE_5XX,
        Ejection::ConsecutiveGatewayFailure => stat::EJECTIONS_DETECTED_CONSECUTIVE_GATEWAY_FAILURE,
        Ejection::ConsecutiveLocalOriginFailure => {
            stat::EJECTIONS_DETECTED_CONSECUTIVE_LOCAL_ORIGIN_FAILURE
        }
        Ejection::SuccessRate => stat::EJECTIONS_DETECTED_SUCCESS_RATE,
        Ejection::SuccessRateLocalOrigin => stat::EJECTIONS_DETECTED_LOCAL_ORIGIN_SUCCESS_RATE,
        Ejection::FailurePercentage => stat::EJECTIONS_DETECTED_FAILURE_PERCENTAGE,
        Ejection::FailurePercentageLocalOrigin => {
            stat::EJECTIONS_DETECTED_LOCAL_ORIGIN_FAILURE_PERCENTAGE
        }
    }
}

/// The mean, and what lies so many standard deviations below it.
fn success_rate_threshold(rates: &[(HostId, f64)], factor: f64) -> (f64, f64) {
    let count = rates.len().max(1) as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let deviations = rates.iter().map(|(_, rate)| (rate - mean).powi(2));
    (
        mean,
        mean - factor * (deviations.sum::<f64>() / count).sqrt(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_is_envoys_example() {
        let rates = [50.0, 100.0, 100.0, 100.0, 100.0].map(|rate| (HostId(0), rate));
        assert_eq!(success_rate_threshold(&rates, 1.9), (90.0, 52.0));
    }
}
