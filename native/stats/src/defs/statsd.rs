//! Statistics about sending statistics.

use crate::def::group;

group! {
    /// `statsd.`: the sink over TCP.
    Statsd "statsd" {
        counters {
            CX_OVERFLOW "cx_overflow",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}
