//! A token bucket that workers share without a lock.
//!
//! Tokens flow in continuously, as in Envoy. The state is one moment: that at which the bucket would have been empty had
//! it filled since.

use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_model::local_ratelimit;

/// See the module. Moments are nanoseconds of one clock.
#[derive(Debug)]
pub struct TokenBucket {
    max_tokens: f64,
    nanos_per_token: f64,
    /// 0: nobody has asked yet, and it is full.
    empty_at: AtomicU64,
}

impl TokenBucket {
    pub fn new(config: &local_ratelimit::TokenBucket) -> Self {
        let tokens = f64::from(config.tokens_per_fill.max(1));
        Self {
            max_tokens: f64::from(config.max_tokens),
            nanos_per_token: config.fill_interval.as_nanos() as f64 / tokens,
            empty_at: AtomicU64::new(0),
        }
    }

    /// Takes a token, if there is one.
    pub fn take(&self, now: u64) -> bool {
        let full = (self.max_tokens * self.nanos_per_token) as u64;
        let mut before = self.empty_at.load(Ordering::Relaxed);
        loop {
            let since = if before == 0 {
                full
            } else {
                now.saturating_sub(before).min(full)
            };
            let tokens = since as f64 / self.nanos_per_token;
            if tokens < 1.0 {
                return false;
            }
            let left = (since as f64 - self.nanos_per_token) as u64;
            let after = now.saturating_sub(left).max(1);
            match self.empty_at.compare_exchange_weak(
                before,
                after,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(changed) => before = changed,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn tokens_flow_in() {
        let bucket = TokenBucket::new(&local_ratelimit::TokenBucket {
            max_tokens: 2,
            tokens_per_fill: 2,
            fill_interval: Duration::from_secs(1),
        });
        let at = |millis: u64| bucket.take(1_000_000_000 + millis * 1_000_000);
        assert!(at(0) && at(0) && !at(0) && !at(400));
        assert!(at(501) && !at(600));
        assert!(at(100_000) && at(100_000) && !at(100_000));
    }
}
