//! Spans for OpenTelemetry collectors.

use crate::def::group;

group! {
    /// `tracing.opentelemetry.`
    OpenTelemetry "opentelemetry" {
        counters {
            SPANS_DROPPED "spans_dropped",
            SPANS_SENT "spans_sent",
            TIMER_FLUSHED "timer_flushed",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}
