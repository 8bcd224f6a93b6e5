//! `config.route.v3.RetryPolicy` and how much of a body may be kept for it.

use std::sync::Arc;
use std::time::Duration;

use tidegate_model::retry::{
    BackOff, BodyBufferLimit, HostPredicate, RateLimitedBackOff, ResetHeader, ResetHeaderFormat,
    RetryOn, RetryPolicy,
};

use crate::context::Result;
use crate::fields::Fields;
use crate::{matcher, metadata};

const PREVIOUS_HOSTS: &str = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
const OMIT_CANARY_HOSTS: &str =
    "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate";
const OMIT_HOST_METADATA: &str =
    "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig";
const PREVIOUS_PRIORITIES: &str =
    "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";

/// The longest pause that a response may ask for, unless configured.
const MAX_RESET_INTERVAL: Duration = Duration::from_mins(5);

pub(crate) fn policy(fields: &Fields<'_>) -> Result<Arc<RetryPolicy>> {
    let default = RetryPolicy::default();
    let host_predicates = fields.each("retry_host_predicate", |predicate| {
        predicate.string("name");
        predicate.need_any(
            "typed_config",
            &[
                (PREVIOUS_HOSTS, &|_| Ok(HostPredicate::PreviousHosts)),
                (OMIT_CANARY_HOSTS, &|_| Ok(HostPredicate::OmitCanaryHosts)),
                (OMIT_HOST_METADATA, &|config| {
                    let labels = metadata::lb_criteria(config, "metadata_match");
                    Ok(HostPredicate::OmitHostMetadata(labels))
                }),
            ],
        )
    })?;
    let previous_priorities = fields.opt("retry_priority", |priority| {
        priority.string("name");
        priority.need_any(
            "typed_config",
            &[(PREVIOUS_PRIORITIES, &|config| {
                u32::try_from(config.int("update_frequency"))
                    .ok()
                    .filter(|frequency| *frequency > 0)
                    .ok_or_else(|| config.fault("update_frequency", "value must be greater than 0"))
            })],
        )
    })?;
    let codes = fields.get("retriable_status_codes");
    let codes = codes.and_then(crate::message::Value::as_list);
    let attempts = fields.int("host_selection_retry_max_attempts");
    let attempts = u32::try_from(attempts)
        .ok()
        .filter(|attempts| *attempts > 0);
    Ok(Arc::new(RetryPolicy {
        retry_on: RetryOn::parse(fields.str("retry_on")),
        num_retries: fields.opt_u32("num_retries").unwrap_or(default.num_retries),
        per_try_timeout: fields.timeout("per_try_timeout", None)?,
        per_try_idle_timeout: fields.timeout("per_try_idle_timeout", None)?,
        back_off: fields.opt("retry_back_off", back_off)?.unwrap_or_default(),
        rate_limited_back_off: fields.opt("rate_limited_retry_back_off", rate_limited_back_off)?,
        retriable_status_codes: codes
            .unwrap_or_default()
            .iter()
            .filter_map(|code| u32::try_from(code.as_u64()?).ok())
            .collect(),
        retriable_headers: fields.each("retriable_headers", matcher::header)?,
        retriable_request_headers: fields.each("retriable_request_headers", matcher::header)?,
        host_predicates,
        previous_priorities,
        host_selection_attempts: attempts.unwrap_or(default.host_selection_attempts),
    }))
}

/// Less than a millisecond is one, as in Envoy.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

pub(crate) fn back_off(fields: &Fields<'_>) -> Result<BackOff> {
    let base = fields.duration("base_interval")?.map_or(25, millis);
    let max = match fields.duration("max_interval")?.map(millis) {
        Some(max) if max < base => {
            return Err(fields.fault(
                "max_interval",
                "retry_policy.max_interval must greater than or equal to the base_interval",
            ));
        }
        Some(max) => max,
        None => base.saturating_mul(10),
    };
    Ok(BackOff { base, max })
}

fn rate_limited_back_off(fields: &Fields<'_>) -> Result<RateLimitedBackOff> {
    let max_interval = fields.duration("max_interval")?;
    Ok(RateLimitedBackOff {
        reset_headers: fields.each("reset_headers", |header| {
            Ok(ResetHeader {
                name: matcher::lower(header.str("name")),
                format: header.choice(
                    "format",
                    &[
                        ("SECONDS", ResetHeaderFormat::Seconds),
                        ("UNIX_TIMESTAMP", ResetHeaderFormat::UnixTimestamp),
                    ],
                )?,
            })
        })?,
        max_interval: max_interval
            .map_or(MAX_RESET_INTERVAL, |max| Duration::from_millis(millis(max))),
    })
}

/// Of a route or a virtual host; the newer field wins.
pub(crate) fn body_buffer_limit(fields: &Fields<'_>) -> Option<BodyBufferLimit> {
    let old = fields.opt_u32("per_request_buffer_limit_bytes");
    let new = fields.opt_uint("request_body_buffer_limit");
    new.map(BodyBufferLimit::Exactly)
        .or(old.map(BodyBufferLimit::AtMost))
}
