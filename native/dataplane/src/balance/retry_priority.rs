//! Retries that leave the priorities out which were tried before: Envoy's `previous_priorities`.
//!
//! Panic is not looked at: which hosts of the priority are used then is the balancer's to say.

use tidegate_model::cluster::HealthStatus;
use tidegate_snapshot::{Endpoints, Host};

use super::priority_load::Shares;

/// What one request knows of the priorities that it was sent to.
#[derive(Debug)]
pub struct PreviousPriorities {
    /// After so many tries the shares are calculated anew; 1 and up.
    update_frequency: usize,
    attempted: Vec<u32>,
    excluded: Vec<bool>,
    shares: Shares,
}

impl PreviousPriorities {
    pub fn new(update_frequency: u32) -> Self {
        Self {
            update_frequency: (update_frequency as usize).max(1),
            attempted: Vec::new(),
            excluded: Vec::new(),
            shares: Shares::default(),
        }
    }

    /// A host of this priority is tried.
    pub fn attempt(&mut self, priority: u32) {
        self.attempted.push(priority);
    }

    /// The shares for the choice at hand. `None`: the balancer's own.
    pub(super) fn shares(
        &mut self,
        endpoints: &Endpoints,
        health: &dyn Fn(&Host) -> HealthStatus,
    ) -> Option<&Shares> {
        if self.attempted.len() < self.update_frequency {
            return None;
        }
        if self.attempted.len().is_multiple_of(self.update_frequency)
            && !self.recalculate(Shares::available(endpoints, health))
        {
            return None;
        }
        Some(&self.shares)
    }

    /// `false`: nothing is available anywhere.
    fn recalculate(&mut self, available: Shares) -> bool {
        if self.excluded.len() < available.healthy.len() {
            self.excluded.resize(available.healthy.len(), false);
        }
        for &priority in &self.attempted {
            if let Some(excluded) = self.excluded.get_mut(priority as usize) {
                *excluded = true;
            }
        }
        let mut left = available.without(&self.excluded);
        if left.total() == 0 {
            // All have been tried: from the beginning.
            self.excluded.fill(false);
            self.attempted.clear();
            left = available;
        }
        let total = left.total().min(100);
        if total == 0 {
            return false;
        }
        let mut rest = 100;
        let mut shares = Shares {
            healthy: vec![0; left.healthy.len()],
            degraded: vec![0; left.degraded.len()],
        };
        // What integer division leaves over goes round once more, from the first.
        while rest > 0 {
            let healthy = shares.healthy.iter_mut().zip(&left.healthy);
            let degraded = shares.degraded.iter_mut().zip(&left.degraded);
            for (share, available) in healthy.chain(degraded) {
                let part = (available * 100 / total).min(rest);
                *share += part;
                rest -= part;
            }
        }
        self.shares = shares;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(healthy: &[u32], degraded: &[u32]) -> Shares {
        Shares {
            healthy: healthy.to_vec(),
            degraded: degraded.to_vec(),
        }
    }

    fn after(previous: &mut PreviousPriorities, available: &Shares) -> Option<Vec<u32>> {
        previous
            .recalculate(available.clone())
            .then(|| previous.shares.healthy.clone())
    }

    #[test]
    fn what_was_tried_gets_nothing_until_all_was_tried() {
        let available = shares(&[100, 100, 50], &[0, 0, 0]);
        let mut previous = PreviousPriorities::new(1);
        previous.attempt(0);
        assert_eq!(after(&mut previous, &available).unwrap(), [0, 100, 0]);
        previous.attempt(1);
        assert_eq!(after(&mut previous, &available).unwrap(), [0, 0, 100]);
        previous.attempt(2);
        assert_eq!(after(&mut previous, &available).unwrap(), [100, 0, 0]);
        assert!(previous.attempted.is_empty());
    }

    #[test]
    fn what_is_left_over_goes_to_the_first_that_is_left() {
        let mut previous = PreviousPriorities::new(1);
        previous.attempt(0);
        let available = shares(&[100, 30, 40], &[0, 0, 0]);
        assert_eq!(after(&mut previous, &available).unwrap(), [0, 43, 57]);
    }

    #[test]
    fn degraded_hosts_take_what_healthy_ones_cannot() {
        let mut previous = PreviousPriorities::new(1);
        previous.attempt(0);
        assert!(previous.recalculate(shares(&[100, 40, 0], &[0, 0, 70])));
        assert_eq!(previous.shares, shares(&[0, 40, 0], &[0, 0, 60]));
    }

    #[test]
    fn nowhere_to_go() {
        let mut previous = PreviousPriorities::new(1);
        previous.attempt(0);
        assert_eq!(after(&mut previous, &shares(&[0, 0], &[0, 0])), None);
        // Priorities that are gone do no harm.
        previous.attempt(7);
        assert_eq!(after(&mut previous, &shares(&[100], &[0])).unwrap(), [100]);
    }

    #[test]
    fn shares_change_every_so_many_tries() {
        let none = Endpoints::default();
        let health = |host: &Host| host.health;
        let mut previous = PreviousPriorities::new(2);
        previous.attempt(0);
        assert!(previous.shares(&none, &health).is_none());
        previous.attempt(0);
        // Of no endpoints there is nothing to have; the tries are forgotten.
        assert!(previous.shares(&none, &health).is_none());
        assert!(previous.attempted.is_empty());
    }
}
