//! Access-log files.

use crate::def::group;

group! {
    /// `filesystem.`
    Filesystem "filesystem" {
        counters {
            FLUSHED_BY_TIMER "flushed_by_timer",
            REOPEN_FAILED "reopen_failed",
            WRITE_BUFFERED "write_buffered",
            WRITE_COMPLETED "write_completed",
            WRITE_FAILED "write_failed",
        }
        gauges {
            WRITE_TOTAL_BUFFERED "write_total_buffered",
        }
        histograms {}
        codes {}
        texts {}
    }
}
