//! `extensions.filters.{http,network}.local_ratelimit.v3.LocalRateLimit`.

use std::time::Duration;

use tidegate_model::local_ratelimit::{LocalRateLimit, NetworkLocalRateLimit, TokenBucket};

use crate::compressor::runtime_flag;
use crate::context::Result;
use crate::fields::Fields;
use crate::matcher;
use crate::route::header_value_option;

/// Of the HTTP filter.
pub(crate) fn http(fields: &Fields<'_>) -> Result<LocalRateLimit> {
    const DESCRIPTORS: &str = "limits by descriptor are not supported";
    for name in [
        "descriptors",
        "rate_limits",
        "stage",
        "max_dynamic_descriptors",
    ] {
        fields.refuse(name, DESCRIPTORS)?;
    }
    // Without descriptors there is nothing else to consume.
    fields.opt_bool("always_consume_default_token_bucket");
    fields.expect_bool("local_rate_limit_per_downstream_connection", false)?;
    fields.refuse("local_cluster_rate_limit", "is not supported")?;
    fields.choice("enable_x_ratelimit_headers", &[("OFF", ())])?;
    fields.ignore(&["vh_rate_limits"], "there are no limits by descriptor");
    let token_bucket = fields.opt("token_bucket", token_bucket)?;
    let status = fields.opt("status", |status| {
        let value = status.get("code").and_then(crate::message::Value::as_enum);
        Ok(value
            .and_then(|code| u16::try_from(code).ok())
            .unwrap_or_default())
    })?;
    Ok(LocalRateLimit {
        stat_prefix: fields.string("stat_prefix"),
        // Anything that is no error is 429.
        status: status.filter(|status| *status >= 400).unwrap_or(429),
        token_bucket,
        filter_enabled: fields.opt("filter_enabled", matcher::runtime_fraction)?,
        filter_enforced: fields.opt("filter_enforced", matcher::runtime_fraction)?,
        request_headers_to_add_when_not_enforced: fields.each(
            "request_headers_to_add_when_not_enforced",
            header_value_option,
        )?,
        response_headers_to_add: fields.each("response_headers_to_add", header_value_option)?,
        rate_limited_as_resource_exhausted: fields.bool("rate_limited_as_resource_exhausted"),
    })
}

/// Of a route.
pub(crate) fn per_route(fields: &Fields<'_>) -> Result<LocalRateLimit> {
    if !fields.has("token_bucket") {
        return Err(fields.fault(
            "token_bucket",
            "local rate limit token bucket must be set for per filter configs",
        ));
    }
    http(fields)
}

pub(crate) fn network(fields: &Fields<'_>) -> Result<NetworkLocalRateLimit> {
    fields.refuse("share_key", "buckets are not shared between filters")?;
    Ok(NetworkLocalRateLimit {
        stat_prefix: fields.string("stat_prefix"),
        token_bucket: fields.need("token_bucket", token_bucket)?,
        enabled: fields.opt("runtime_enabled", runtime_flag)?.unwrap_or(
            tidegate_model::RuntimeFlag {
                default: true,
                runtime_key: None,
            },
        ),
    })
}

fn token_bucket(fields: &Fields<'_>) -> Result<TokenBucket> {
    let fill_interval = fields.duration("fill_interval")?.unwrap_or_default();
    if fill_interval < Duration::from_millis(50) {
        return Err(fields.fault(
            "fill_interval",
            "local rate limit token bucket fill timer must be >= 50ms",
        ));
    }
    Ok(TokenBucket {
        max_tokens: fields.u32("max_tokens"),
        tokens_per_fill: fields.opt_u32("tokens_per_fill").unwrap_or(1),
        fill_interval,
    })
}
