//! PINGs that tell whether the other end is still there (`connection_keepalive`).

use std::time::Duration;

use tidegate_model::http2::KeepaliveSettings;
use tidegate_rt::{Moment, Rng};

/// The state of one connection's pings. When is told to it; what is sent is the caller's affair.
#[derive(Debug)]
pub(crate) struct Keepalive {
    settings: KeepaliveSettings,
    /// When the next periodic ping is due.
    next: Option<Moment>,
    /// When the connection is given up, because a ping has not been answered.
    give_up: Option<Moment>,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pulse {
    Nothing,
    Ping,
    /// The other end is gone.
    Dead,
}

impl Keepalive {
    pub(crate) fn new(settings: &KeepaliveSettings, now: Moment, rng: &mut Rng) -> Self {
        let mut keepalive = Self {
            settings: settings.clone(),
            next: None,
            give_up: None,
        };
        keepalive.schedule(now, rng);
        keepalive
    }

    fn schedule(&mut self, now: Moment, rng: &mut Rng) {
        self.next = self.settings.interval.map(|interval| {
            let share = u64::from(self.settings.interval_jitter.per_million);
            let most = interval.as_micros() as u64 * share / 1_000_000;
            let jitter = if most > 0 { rng.below(most + 1) } else { 0 };
            now + interval + Duration::from_micros(jitter)
        });
    }

    pub(crate) fn deadline(&self) -> Option<Moment> {
        match (self.next, self.give_up) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(crate) fn on_timer(&mut self, now: Moment) -> Pulse {
        if self.give_up.is_some_and(|moment| moment <= now) {
            return Pulse::Dead;
        }
        if self.next.is_some_and(|moment| moment <= now) {
            self.next = None;
            self.give_up = Some(now + self.settings.timeout);
            return Pulse::Ping;
        }
        Pulse::Nothing
    }

    /// A request is about to be sent on a connection that was last heard of at `heard`.
    pub(crate) fn before_request(&mut self, now: Moment, heard: Moment) -> Pulse {
        let idle = self.settings.connection_idle_interval;
        if self.give_up.is_none() && idle.is_some_and(|idle| now.since(heard) >= idle) {
            self.give_up = Some(now + self.settings.timeout);
            return Pulse::Ping;
        }
        Pulse::Nothing
    }

    /// The other end has answered.
    pub(crate) fn on_pong(&mut self, now: Moment, rng: &mut Rng) {
        self.give_up = None;
        self.schedule(now, rng);
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::Fraction;

    use super::*;

    #[test]
    fn pings_and_gives_up() {
        let settings = KeepaliveSettings {
            interval: Some(Duration::from_secs(10)),
            timeout: Duration::from_secs(2),
            interval_jitter: Fraction { per_million: 0 },
            connection_idle_interval: Some(Duration::from_secs(5)),
        };
        let mut rng = Rng::with_seed(1);
        let start = Moment::from_nanos(0);
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut keepalive = Keepalive::new(&settings, start, &mut rng);
        assert_eq!(keepalive.deadline(), Some(at(10)));
        assert_eq!(keepalive.on_timer(at(9)), Pulse::Nothing);
        assert_eq!(keepalive.on_timer(at(10)), Pulse::Ping);
        assert_eq!(keepalive.deadline(), Some(at(12)));
        keepalive.on_pong(at(11), &mut rng);
        assert_eq!(keepalive.deadline(), Some(at(21)));
        assert_eq!(keepalive.before_request(at(12), at(11)), Pulse::Nothing);
        assert_eq!(keepalive.before_request(at(18), at(11)), Pulse::Ping);
        assert_eq!(keepalive.on_timer(at(20)), Pulse::Dead);
    }
}
