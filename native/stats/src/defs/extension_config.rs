//! Extension configuration discovery.

use crate::def::group;

group! {
    /// `extension_config_discovery.http_filter.NAME.`, beside [`super::discovery::Discovery`].
    ExtensionConfig "extension_config_discovery" {
        counters {
            CONFIG_CONFLICT "config_conflict",
            CONFIG_FAIL "config_fail",
            CONFIG_RELOAD "config_reload",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}
