//! Local rate limits.

use crate::def::group;

group! {
    /// `PREFIX.http_local_rate_limit.`
    HttpLocalRateLimit "http local rate limit" {
        counters {
            ENABLED "enabled",
            ENFORCED "enforced",
            RATE_LIMITED "rate_limited",
            OK "ok",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}

group! {
    /// `local_rate_limit.PREFIX.`
    LocalRateLimit "local rate limit" {
        counters {
            CX_RATE_LIMITED "rate_limited",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}
