//! Listeners, by worker.

use crate::def::group;

group! {
    /// `listener.ADDRESS.worker_N.`, and `listener.admin.main_thread.`
    ListenerWorker "listener_worker" {
        counters {
            DOWNSTREAM_CX_TOTAL "downstream_cx_total",
        }
        gauges {
            DOWNSTREAM_CX_ACTIVE "downstream_cx_active",
        }
        histograms {}
        codes {}
        texts {}
    }
}
