//! Services that filters ask: `config.core.v3.GrpcService`, `HttpUri` and the retry policy that goes with them.

use std::sync::Arc;
use std::time::Duration;

use tidegate_model::Name;
use tidegate_model::ext_authz::GrpcService;
use tidegate_model::retry::{RetryOn, RetryPolicy};

use crate::context::Result;
use crate::fields::Fields;
use crate::{matcher, retry};

/// `GrpcService` with `envoy_grpc`; `google_grpc` is refused by its path.
pub(crate) fn grpc_service(fields: &Fields<'_>) -> Result<GrpcService> {
    let mut initial_metadata = Vec::new();
    let mut skip_envoy_headers = false;
    let retry_policy = fields.opt("retry_policy", |policy| policy_of(policy, ""))?;
    for entry in fields.each("initial_metadata", header_value)? {
        initial_metadata.push(entry);
    }
    let (cluster, authority) = fields.need("envoy_grpc", |grpc| {
        skip_envoy_headers = grpc.bool("skip_envoy_headers");
        grpc.ignore(
            &["retry_policy"],
            "it is for streams of the control plane, as in Envoy",
        );
        Ok((grpc.string("cluster_name"), grpc.opt_string("authority")))
    })?;
    Ok(GrpcService {
        cluster,
        authority,
        timeout: fields.timeout("timeout", None)?,
        initial_metadata,
        retry_policy,
        skip_envoy_headers,
    })
}

/// `HttpUri`: the URI, its cluster and its timeout.
pub(crate) fn http_uri(fields: &Fields<'_>) -> Result<(Name, Name, Duration)> {
    let timeout = fields.duration("timeout")?.unwrap_or_default();
    Ok((fields.string("uri"), fields.string("cluster"), timeout))
}

/// `config.core.v3.RetryPolicy`; `retry_on` is what holds where the configuration says nothing.
pub(crate) fn policy_of(fields: &Fields<'_>, retry_on: &str) -> Result<Arc<RetryPolicy>> {
    let default = RetryPolicy::default();
    let on = match fields.str("retry_on") {
        "" => retry_on,
        on => on,
    };
    Ok(Arc::new(RetryPolicy {
        retry_on: RetryOn::parse(on),
        num_retries: fields.opt_u32("num_retries").unwrap_or(default.num_retries),
        back_off: fields
            .opt("retry_back_off", retry::back_off)?
            .unwrap_or_default(),
        ..default
    }))
}

/// A `HeaderValue` whose value is literal text.
pub(crate) fn header_value(fields: &Fields<'_>) -> Result<(Name, Name)> {
    let value = fields.str("value");
    if value.replace("%%", "").contains('%') {
        return Err(fields.fault("value", "command operators are not supported here"));
    }
    Ok((
        matcher::lower(fields.str("key")),
        Name::from(value.replace("%%", "%")),
    ))
}
