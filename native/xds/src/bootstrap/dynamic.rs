//! `dynamic_resources`: where listeners, clusters and the ADS stream come from.

use std::sync::Arc;
use std::time::Duration;

use tidegate_model::bootstrap::{Ads, DynamicResources};
use tidegate_model::cluster::Discovery;

use super::{AdsExtra, Clusters};
use crate::cluster;
use crate::context::Result;
use crate::fields::Fields;

pub(super) fn dynamic_resources(
    fields: &Fields<'_>,
    clusters: &Clusters,
    extra: &mut AdsExtra,
) -> Result<DynamicResources> {
    let ads = fields.opt("ads_config", |ads| self::ads(ads, clusters, extra))?;
    let source = |name: &str| -> Result<_> {
        let source = fields.opt(name, cluster::config_source)?;
        let timeout = source.as_ref().and_then(|(_, timeout)| *timeout);
        Ok((source.map(|(source, _)| source), timeout))
    };
    let (lds, lds_initial_fetch_timeout) = source("lds_config")?;
    let (cds, cds_initial_fetch_timeout) = source("cds_config")?;
    Ok(DynamicResources {
        lds,
        cds,
        lds_initial_fetch_timeout,
        cds_initial_fetch_timeout,
        ads,
    })
}

fn ads(fields: &Fields<'_>, clusters: &Clusters, extra: &mut AdsExtra) -> Result<Ads> {
    fields.ignore(&["refresh_delay", "request_timeout"], "it is for REST");
    fields.ignore(
        &["rate_limit_settings"],
        "requests are paced by the answers to them",
    );
    // It is there in any case; a server has to keep it for the stream.
    fields.bool("set_node_on_first_message_only");
    let delta = fields.choice(
        "api_type",
        &[
            ("GRPC", false),
            ("AGGREGATED_GRPC", false),
            ("DELTA_GRPC", true),
        ],
    )?;
    fields.choice("transport_api_version", &[("AUTO", ()), ("V3", ())])?;
    let mut services = fields.each("grpc_services", |service| {
        service.ignore(&["timeout"], "a stream has no end");
        let metadata = service.each("initial_metadata", |header| {
            Ok((header.string("key"), header.string("value")))
        })?;
        let (name, authority, back_off) = service.need("envoy_grpc", |grpc| {
            grpc.ignore(
                &["max_receive_message_length", "skip_envoy_headers"],
                "the xDS client has no such limit",
            );
            Ok((
                grpc.string("cluster_name"),
                grpc.str("authority").to_owned(),
                grpc.opt("retry_policy", retry_back_off)?.flatten(),
            ))
        })?;
        Ok((name, authority, back_off, metadata))
    })?;
    let (Some((cluster_name, authority, back_off, initial_metadata)), true) =
        (services.pop(), services.is_empty())
    else {
        return Err(fields.fault(
            "grpc_services",
            "ADS: exactly one gRPC service must be given",
        ));
    };
    let path = "grpc_services[0].envoy_grpc.cluster_name";
    let Some(cluster) = clusters.iter().find(|cluster| cluster.name == cluster_name) else {
        return Err(fields.fault(
            path,
            format!(
                "gRPC client cluster '{cluster_name}' is not among the clusters of static_resources"
            ),
        ));
    };
    let targets = match &cluster.discovery {
        Discovery::Static(targets) => targets,
        Discovery::StrictDns(dns) | Discovery::LogicalDns(dns) => &dns.load_assignment,
        Discovery::Eds { .. } | Discovery::OriginalDst(_) => {
            return Err(fields.fault(
                path,
                format!(
                    "gRPC client cluster '{cluster_name}' must be STATIC, STRICT_DNS or LOGICAL_DNS"
                ),
            ));
        }
    };
    extra.authority = authority;
    extra.retry_back_off = back_off;
    extra.tcp_keepalive = cluster.tcp_keepalive;
    let keepalive = cluster.http.http2.connection_keepalive.as_ref();
    extra.http2_keepalive =
        keepalive.and_then(|keepalive| Some((keepalive.interval?, keepalive.timeout)));
    Ok(Ads {
        targets: Arc::clone(targets),
        connect_timeout: cluster.connect_timeout,
        keepalive: cluster.tcp_keepalive.and_then(|keepalive| keepalive.time),
        initial_metadata,
        cluster_name,
        delta,
    })
}

/// How long to wait between attempts at the stream. Without a maximum it is ten times the base, as Envoy has it.
fn retry_back_off(fields: &Fields<'_>) -> Result<Option<(Duration, Duration)>> {
    fields.opt("retry_back_off", |back_off| {
        let base = back_off.duration("base_interval")?.unwrap_or_default();
        let max = back_off.duration("max_interval")?.unwrap_or(base * 10);
        if max < base {
            return Err(back_off.fault("max_interval", "must be no less than the base_interval"));
        }
        Ok((base, max))
    })
}
