//! The external authorization filter.

use crate::def::group;

group! {
    /// `http.PREFIX.ext_authz.[STAT_PREFIX.]`
    ExtAuthz "ext_authz" {
        counters {
            DENIED "denied",
            DISABLED "disabled",
            ERROR "error",
            FAILURE_MODE_ALLOWED "failure_mode_allowed",
            FILTER_STATE_NAME_COLLISION "filter_state_name_collision",
            IGNORED_DYNAMIC_METADATA "ignored_dynamic_metadata",
            INVALID "invalid",
            OK "ok",
            OMITTED_RESPONSE_HEADERS "omitted_response_headers",
            REQUEST_HEADER_LIMITS_REACHED "request_header_limits_reached",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}

/// `cluster.NAME.ext_authz.[STAT_PREFIX.]`, of the cluster that the request is for.
pub mod of_cluster {
    use crate::def::group;

    group! {
        /// As above.
        ClusterExtAuthz "cluster_ext_authz" {
            counters {
                DENIED ? "denied",
                ERROR ? "error",
                FAILURE_MODE_ALLOWED ? "failure_mode_allowed",
                INVALID ? "invalid",
                OK ? "ok",
            }
            gauges {}
            histograms {}
            codes {}
            texts {}
        }
    }
}
