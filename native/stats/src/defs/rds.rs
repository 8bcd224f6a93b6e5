//! Route discovery.

use crate::def::group;

group! {
    /// `http.PREFIX.rds.NAME.`
    Rds "rds" {
        counters {
            CONFIG_RELOAD "config_reload",
            INIT_FETCH_TIMEOUT "init_fetch_timeout",
            UPDATE_ATTEMPT "update_attempt",
            UPDATE_EMPTY "update_empty",
            UPDATE_FAILURE "update_failure",
            UPDATE_REJECTED "update_rejected",
            UPDATE_SUCCESS "update_success",
        }
        gauges {
            CONFIG_RELOAD_TIME_MS "config_reload_time_ms",
            UPDATE_TIME "update_time",
            VERSION "version",
        }
        histograms {
            UPDATE_DURATION "update_duration",
        }
        codes {}
        texts {
            VERSION_TEXT "version_text",
        }
    }
}
