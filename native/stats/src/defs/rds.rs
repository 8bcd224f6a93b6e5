//! Route discovery.

use crate::def::group;

group! {
    /// `http.PREFIX.rds.NAME.`, beside [`super::discovery::Discovery`].
    Rds "rds" {
        counters {
            CONFIG_RELOAD "config_reload",
            UPDATE_EMPTY "update_empty",
        }
        gauges {
            CONFIG_RELOAD_TIME_MS "config_reload_time_ms",
        }
        histograms {}
        codes {}
        texts {}
    }
}
