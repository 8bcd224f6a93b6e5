//! `config.cluster.v3.OutlierDetection`.

use std::time::Duration;

use tidegate_model::cluster::OutlierDetection;

use crate::context::Result;
use crate::fields::Fields;

pub(crate) fn outlier_detection(fields: &Fields<'_>) -> Result<OutlierDetection> {
    fields.ignore(
        &["successful_active_health_check_uneject_host"],
        "there are no active health checks",
    );
    let default = OutlierDetection::default();
    let base_ejection_time = fields
        .duration("base_ejection_time")?
        .unwrap_or(default.base_ejection_time);
    let max_ejection_time = fields
        .duration("max_ejection_time")?
        .unwrap_or_else(|| default.max_ejection_time.max(base_ejection_time));
    if max_ejection_time < base_ejection_time {
        return Err(fields.fault(
            "max_ejection_time",
            "outlier detector's max_ejection_time cannot be smaller than base_ejection_time",
        ));
    }
    let number = |name: &str, default: u32| fields.opt_u32(name).unwrap_or(default);
    Ok(OutlierDetection {
        // Counted in whole milliseconds.
        interval: fields
            .duration("interval")?
            .unwrap_or(default.interval)
            .max(Duration::from_millis(1)),
        base_ejection_time,
        max_ejection_time,
        max_ejection_time_jitter: fields
            .duration("max_ejection_time_jitter")?
            .unwrap_or(default.max_ejection_time_jitter),
        max_ejection_percent: number("max_ejection_percent", default.max_ejection_percent),
        always_eject_one_host: fields.bool("always_eject_one_host"),
        split_external_local_origin_errors: fields.bool("split_external_local_origin_errors"),
        consecutive_5xx: number("consecutive_5xx", default.consecutive_5xx),
        consecutive_gateway_failure: number(
            "consecutive_gateway_failure",
            default.consecutive_gateway_failure,
        ),
        consecutive_local_origin_failure: number(
            "consecutive_local_origin_failure",
            default.consecutive_local_origin_failure,
        ),
        success_rate_minimum_hosts: number(
            "success_rate_minimum_hosts",
            default.success_rate_minimum_hosts,
        ),
        success_rate_request_volume: number(
            "success_rate_request_volume",
            default.success_rate_request_volume,
        ),
        success_rate_stdev_factor: number(
            "success_rate_stdev_factor",
            default.success_rate_stdev_factor,
        ),
        failure_percentage_threshold: number(
            "failure_percentage_threshold",
            default.failure_percentage_threshold,
        ),
        failure_percentage_minimum_hosts: number(
            "failure_percentage_minimum_hosts",
            default.failure_percentage_minimum_hosts,
        ),
        failure_percentage_request_volume: number(
            "failure_percentage_request_volume",
            default.failure_percentage_request_volume,
        ),
        enforcing_consecutive_5xx: number(
            "enforcing_consecutive_5xx",
            default.enforcing_consecutive_5xx,
        ),
        enforcing_consecutive_gateway_failure: number(
            "enforcing_consecutive_gateway_failure",
            default.enforcing_consecutive_gateway_failure,
        ),
        enforcing_consecutive_local_origin_failure: number(
            "enforcing_consecutive_local_origin_failure",
            default.enforcing_consecutive_local_origin_failure,
        ),
        enforcing_success_rate: number("enforcing_success_rate", default.enforcing_success_rate),
        enforcing_local_origin_success_rate: number(
            "enforcing_local_origin_success_rate",
            default.enforcing_local_origin_success_rate,
        ),
        enforcing_failure_percentage: number(
            "enforcing_failure_percentage",
            default.enforcing_failure_percentage,
        ),
        enforcing_failure_percentage_local_origin: number(
            "enforcing_failure_percentage_local_origin",
            default.enforcing_failure_percentage_local_origin,
        ),
    })
}
