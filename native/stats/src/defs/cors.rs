//! The CORS filter.

use crate::def::group;

group! {
    /// `http.PREFIX.cors.`
    Cors "cors" {
        counters {
            ORIGIN_INVALID "origin_invalid",
            ORIGIN_VALID "origin_valid",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}
