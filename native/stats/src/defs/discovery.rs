//! Subscriptions: CDS and LDS, and every single resource that is asked for.

use crate::def::group;

group! {
    /// `cluster_manager.cds.`, `listener_manager.lds.`, `runtime.`, `sds.NAME.` and the like.
    Discovery "discovery" {
        counters {
            INIT_FETCH_TIMEOUT "init_fetch_timeout",
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
