//! `extensions.filters.http.fault.v3.HTTPFault`.

use tidegate_model::Fraction;
use tidegate_model::hcm::{Fault, FaultAbort, FaultAbortKind, FaultDelay, FaultDelayKind};

use crate::context::Result;
use crate::fields::Fields;
use crate::matcher;

pub(crate) fn fault(fields: &Fields<'_>) -> Result<Fault> {
    fields.ignore(&["filter_metadata"], "filter metadata has no reader");
    fields.ignore(
        &[
            "delay_percent_runtime",
            "abort_percent_runtime",
            "delay_duration_runtime",
            "abort_http_status_runtime",
            "max_active_faults_runtime",
            "response_rate_limit_percent_runtime",
            "abort_grpc_status_runtime",
        ],
        "faults do not read runtime keys of their own",
    );
    fields.refuse("response_rate_limit", "responses are not slowed down yet")?;
    Ok(Fault {
        delay: fields.opt("delay", delay)?,
        abort: fields.opt("abort", abort)?,
        upstream_cluster: fields.opt_string("upstream_cluster"),
        headers: fields.each("headers", matcher::header)?,
        downstream_nodes: fields.strings("downstream_nodes"),
        max_active_faults: fields.opt_u32("max_active_faults"),
        response_rate_limit: None,
        disable_downstream_cluster_stats: fields.bool("disable_downstream_cluster_stats"),
    })
}

/// Without a percentage nothing is faulted, as Envoy has it.
fn percentage(fields: &Fields<'_>) -> Result<Fraction> {
    Ok(fields
        .opt("percentage", matcher::fraction)?
        .unwrap_or(Fraction::NEVER))
}

fn delay(fields: &Fields<'_>) -> Result<FaultDelay> {
    let kind = match fields.duration("fixed_delay")? {
        Some(duration) => FaultDelayKind::Fixed(duration),
        None => fields.need("header_delay", |_| Ok(FaultDelayKind::Header))?,
    };
    Ok(FaultDelay {
        kind,
        percentage: percentage(fields)?,
    })
}

fn abort(fields: &Fields<'_>) -> Result<FaultAbort> {
    let kind = if fields.has("http_status") {
        FaultAbortKind::HttpStatus(u16::try_from(fields.u32("http_status")).unwrap_or_default())
    } else if fields.has("grpc_status") {
        FaultAbortKind::GrpcStatus(fields.u32("grpc_status"))
    } else {
        fields.need("header_abort", |_| Ok(FaultAbortKind::Header))?
    };
    Ok(FaultAbort {
        kind,
        percentage: percentage(fields)?,
    })
}
