//! Extension configuration discovery.

use crate::def::group;

group! {
    /// `extension_config_discovery.http_filter.NAME.`
    ExtensionConfig "extension_config_discovery" {
        counters {
            CONFIG_CONFLICT "config_conflict",
            CONFIG_FAIL "config_fail",
            CONFIG_RELOAD "config_reload",
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
