//! Outlier detection.

use crate::def::group;

group! {
    /// `cluster.NAME.outlier_detection.`, of clusters that have it.
    OutlierDetection "outlier_detection" {
        counters {
            EJECTIONS_CONSECUTIVE_5XX "ejections_consecutive_5xx",
            EJECTIONS_DETECTED_CONSECUTIVE_5XX "ejections_detected_consecutive_5xx",
            EJECTIONS_DETECTED_CONSECUTIVE_GATEWAY_FAILURE "ejections_detected_consecutive_gateway_failure",
            EJECTIONS_DETECTED_CONSECUTIVE_LOCAL_ORIGIN_FAILURE "ejections_detected_consecutive_local_origin_failure",
            EJECTIONS_DETECTED_FAILURE_PERCENTAGE "ejections_detected_failure_percentage",
            EJECTIONS_DETECTED_LOCAL_ORIGIN_FAILURE_PERCENTAGE "ejections_detected_local_origin_failure_percentage",
            EJECTIONS_DETECTED_LOCAL_ORIGIN_SUCCESS_RATE "ejections_detected_local_origin_success_rate",
            EJECTIONS_DETECTED_SUCCESS_RATE "ejections_detected_success_rate",
            EJECTIONS_ENFORCED_CONSECUTIVE_5XX "ejections_enforced_consecutive_5xx",
            EJECTIONS_ENFORCED_CONSECUTIVE_GATEWAY_FAILURE "ejections_enforced_consecutive_gateway_failure",
            EJECTIONS_ENFORCED_CONSECUTIVE_LOCAL_ORIGIN_FAILURE "ejections_enforced_consecutive_local_origin_failure",
            EJECTIONS_ENFORCED_FAILURE_PERCENTAGE "ejections_enforced_failure_percentage",
            EJECTIONS_ENFORCED_LOCAL_ORIGIN_FAILURE_PERCENTAGE "ejections_enforced_local_origin_failure_percentage",
            EJECTIONS_ENFORCED_LOCAL_ORIGIN_SUCCESS_RATE "ejections_enforced_local_origin_success_rate",
            EJECTIONS_ENFORCED_SUCCESS_RATE "ejections_enforced_success_rate",
            EJECTIONS_ENFORCED_TOTAL "ejections_enforced_total",
            EJECTIONS_OVERFLOW "ejections_overflow",
            EJECTIONS_SUCCESS_RATE "ejections_success_rate",
            EJECTIONS_TOTAL "ejections_total",
        }
        gauges {
            EJECTIONS_ACTIVE "ejections_active",
        }
        histograms {}
        codes {}
        texts {}
    }
}
