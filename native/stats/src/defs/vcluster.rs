//! Virtual clusters.

use crate::def::group;

group! {
    /// `vhost.VIRTUALHOST.vcluster.other.`
    VirtualCluster "vcluster" {
        counters {
            UPSTREAM_RQ_RETRY "upstream_rq_retry",
            UPSTREAM_RQ_RETRY_LIMIT_EXCEEDED "upstream_rq_retry_limit_exceeded",
            UPSTREAM_RQ_RETRY_OVERFLOW "upstream_rq_retry_overflow",
            UPSTREAM_RQ_RETRY_SUCCESS "upstream_rq_retry_success",
            UPSTREAM_RQ_TIMEOUT "upstream_rq_timeout",
            UPSTREAM_RQ_TOTAL "upstream_rq_total",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}
