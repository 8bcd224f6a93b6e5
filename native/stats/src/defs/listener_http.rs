//! The HTTP connection manager, by listener.

use crate::def::group;

group! {
    /// `listener.ADDRESS.http.PREFIX.`
    ListenerHttp "listener_http" {
        counters {
            DOWNSTREAM_RQ_1XX "downstream_rq_1xx",
            DOWNSTREAM_RQ_2XX "downstream_rq_2xx",
            DOWNSTREAM_RQ_3XX "downstream_rq_3xx",
            DOWNSTREAM_RQ_4XX "downstream_rq_4xx",
            DOWNSTREAM_RQ_5XX "downstream_rq_5xx",
            DOWNSTREAM_RQ_COMPLETED "downstream_rq_completed",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}
