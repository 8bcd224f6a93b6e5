//! Secret discovery.

use crate::def::group;

group! {
    /// `sds.NAME.`
    Sds "sds" {
        counters {
            INIT_FETCH_TIMEOUT "init_fetch_timeout",
            KEY_ROTATION_FAILED "key_rotation_failed",
            UPDATE_ATTEMPT "update_attempt",
            UPDATE_FAILURE "update_failure",
            UPDATE_REJECTED "update_rejected",
            UPDATE_SUCCESS "update_success",
        }
        gauges {
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
