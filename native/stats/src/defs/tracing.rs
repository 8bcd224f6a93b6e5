//! Reports of spans.

use crate::def::group;

group! {
    /// `tracing.zipkin.`
    Zipkin "zipkin" {
        counters {
            REPORTS_DROPPED "reports_dropped",
            REPORTS_FAILED "reports_failed",
            REPORTS_SENT "reports_sent",
            REPORTS_SKIPPED_NO_CLUSTER "reports_skipped_no_cluster",
            SPANS_SENT "spans_sent",
            TIMER_FLUSHED "timer_flushed",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}
