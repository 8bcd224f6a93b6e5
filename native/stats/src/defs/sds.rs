//! Secret discovery.

use crate::def::group;

group! {
    /// `sds.NAME.`, beside [`super::discovery::Discovery`].
    Sds "sds" {
        counters {
            KEY_ROTATION_FAILED "key_rotation_failed",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}
