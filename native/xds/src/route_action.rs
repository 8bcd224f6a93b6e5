//! What a route does: `RouteAction`, `RedirectAction`, `DirectResponseAction`.

use std::sync::Arc;

use tidegate_model::hcm::{CorsPolicy, UpgradeConfig};
use tidegate_model::route::{
    ClusterSpecifier, DirectResponse, Forward, ForwardPolicy, HostRewrite, MaxStreamDuration,
    MirrorCluster, MirrorPolicy, PathRedirect, Redirect, RoutingPriority, SchemeRedirect,
    WeightedCluster, WeightedClusterName, WeightedClusters,
};

use crate::context::Result;
use crate::fields::Fields;
use crate::hash_policy::hash_policies;
use crate::{cors, hcm, http_filter, matcher, retry, route};

/// Envoy's default route timeout.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(15);

/// `RouteAction`, and its `cors` field of old.
pub(crate) fn forward(fields: &Fields<'_>) -> Result<(Forward, Option<Arc<CorsPolicy>>)> {
    fields.ignore(&["early_data_policy"], "there is no TLS early data");
    fields.choice(
        "internal_redirect_action",
        &[("PASS_THROUGH_INTERNAL_REDIRECT", ())],
    )?;
    let prefix_rewrite = fields.opt_string("prefix_rewrite");
    let regex_rewrite = fields.opt("regex_rewrite", matcher::regex_rewrite)?;
    if prefix_rewrite.is_some() && regex_rewrite.is_some() {
        return Err(fields.fault(
            "regex_rewrite",
            "Specify only one of prefix_rewrite, regex_rewrite or path_rewrite_policy",
        ));
    }
    let cluster = cluster_specifier(fields)?;
    let host_rewrite = host_rewrite(fields)?;
    let policy = ForwardPolicy {
        cluster_not_found_status: fields.choice(
            "cluster_not_found_response_code",
            &[
                ("SERVICE_UNAVAILABLE", 503),
                ("NOT_FOUND", 404),
                ("INTERNAL_SERVER_ERROR", 500),
            ],
        )?,
        append_x_forwarded_host: fields.bool("append_x_forwarded_host"),
        timeout: fields.timeout("timeout", Some(TIMEOUT))?,
        idle_timeout: fields.opt_timeout("idle_timeout")?,
        max_stream_duration: fields.opt("max_stream_duration", |duration| {
            Ok(MaxStreamDuration {
                max_stream_duration: duration.opt_timeout("max_stream_duration")?,
                grpc_timeout_header_max: duration.opt_timeout("grpc_timeout_header_max")?,
                grpc_timeout_header_offset: duration.duration("grpc_timeout_header_offset")?,
            })
        })?,
        max_grpc_timeout: fields.opt_timeout("max_grpc_timeout")?,
        priority: fields.choice(
            "priority",
            &[
                ("DEFAULT", RoutingPriority::Default),
                ("HIGH", RoutingPriority::High),
            ],
        )?,
        upgrade_configs: fields.each("upgrade_configs", upgrade_config)?,
    };
    let forward = Forward {
        cluster,
        prefix_rewrite,
        regex_rewrite,
        host_rewrite,
        policy,
        retry_policy: fields.opt("retry_policy", retry::policy)?,
        hash_policy: hash_policies(fields)?,
        mirrors: mirrors(fields)?,
    };
    let cors = fields.opt("cors", cors::policy)?;
    Ok((forward, cors.map(Arc::new)))
}

/// The `request_mirror_policies` of a route, a virtual host or a route configuration.
pub(crate) fn mirrors(fields: &Fields<'_>) -> Result<Arc<[MirrorPolicy]>> {
    let policies = fields.each("request_mirror_policies", |policy| {
        policy.ignore(&["trace_sampled"], "copies have no spans of their own");
        let header = policy.opt_string("cluster_header");
        let cluster = match (policy.opt_string("cluster"), header) {
            (Some(_), Some(_)) => {
                return Err(policy.fault(
                    "cluster_header",
                    "Only one of cluster or cluster_header can be specified",
                ));
            }
            (Some(name), None) => MirrorCluster::Name(name),
            (None, Some(header)) => MirrorCluster::Header(matcher::lower(&header)),
            (None, None) => {
                return Err(
                    policy.here("Exactly one of cluster or cluster_header must be specified")
                );
            }
        };
        Ok(MirrorPolicy {
            cluster,
            runtime_fraction: policy.opt("runtime_fraction", matcher::runtime_fraction)?,
            disable_shadow_host_suffix_append: policy.bool("disable_shadow_host_suffix_append"),
            host_rewrite_literal: policy.opt_string("host_rewrite_literal"),
        })
    })?;
    Ok(policies.into())
}

/// CONNECT may be passed on; to end it here and open a TCP connection is not supported.
fn upgrade_config(fields: &Fields<'_>) -> Result<UpgradeConfig> {
    if fields.has("connect_config") {
        let upgrade_type = fields.str("upgrade_type");
        return Err(fields.fault(
            "connect_config",
            if upgrade_type.eq_ignore_ascii_case("connect") {
                "is not supported".to_owned()
            } else {
                format!("Non-CONNECT upgrade type {upgrade_type} has ConnectConfig")
            },
        ));
    }
    hcm::upgrade_config(fields)
}

fn cluster_specifier(fields: &Fields<'_>) -> Result<ClusterSpecifier> {
    if fields.has("cluster") {
        return Ok(ClusterSpecifier::Cluster(fields.string("cluster")));
    }
    if fields.has("cluster_header") {
        return Ok(ClusterSpecifier::ClusterHeader(matcher::lower(
            fields.str("cluster_header"),
        )));
    }
    for plugin in [
        "cluster_specifier_plugin",
        "inline_cluster_specifier_plugin",
    ] {
        fields.refuse(plugin, "is not supported")?;
    }
    fields
        .need("weighted_clusters", weighted_clusters)
        .map(ClusterSpecifier::Weighted)
}

fn weighted_clusters(fields: &Fields<'_>) -> Result<WeightedClusters> {
    fields.ignore(
        &["total_weight"],
        "the sum of the weights is the total, for Envoy too",
    );
    let clusters = fields.each("clusters", weighted_cluster)?;
    let total_weight: u64 = clusters
        .iter()
        .map(|cluster| u64::from(cluster.weight))
        .sum();
    if total_weight == 0 {
        return Err(fields.fault(
            "clusters",
            "Sum of weights in the weighted_cluster must be greater than 0.",
        ));
    }
    if total_weight > u64::from(u32::MAX) {
        return Err(fields.fault(
            "clusters",
            format!(
                "The sum of weights of all weighted clusters of route exceeds {}",
                u32::MAX
            ),
        ));
    }
    Ok(WeightedClusters {
        clusters,
        total_weight,
    })
}

fn weighted_cluster(fields: &Fields<'_>) -> Result<WeightedCluster> {
    let cluster = match (
        fields.opt_string("name"),
        fields.opt_string("cluster_header"),
    ) {
        (Some(name), None) => WeightedClusterName::Name(name),
        (None, Some(header)) => WeightedClusterName::Header(matcher::lower(&header)),
        (None, None) => {
            return Err(fields.here("At least one of name or cluster_header need to be specified"));
        }
        (Some(_), Some(_)) => {
            return Err(fields.here("Only one of name or cluster_header can be specified"));
        }
    };
    Ok(WeightedCluster {
        cluster,
        weight: fields.u32("weight"),
        headers: route::header_mutations(fields)?,
        host_rewrite_literal: fields.opt_string("host_rewrite_literal"),
        per_filter: http_filter::per_filter(fields)?,
    })
}

fn host_rewrite(fields: &Fields<'_>) -> Result<HostRewrite> {
    if let Some(literal) = fields.opt_string("host_rewrite_literal") {
        return Ok(HostRewrite::Literal(literal));
    }
    if let Some(header) = fields.opt_string("host_rewrite_header") {
        return Ok(HostRewrite::Header(matcher::lower(&header)));
    }
    if let Some(rewrite) = fields.opt("host_rewrite_path_regex", matcher::regex_rewrite)? {
        return Ok(HostRewrite::PathRegex(rewrite));
    }
    Ok(if fields.bool("auto_host_rewrite") {
        HostRewrite::Auto
    } else {
        HostRewrite::None
    })
}

pub(crate) fn redirect(fields: &Fields<'_>) -> Result<Redirect> {
    let scheme = if fields.bool("https_redirect") {
        SchemeRedirect::Https
    } else {
        fields
            .opt_string("scheme_redirect")
            .map_or(SchemeRedirect::None, SchemeRedirect::Scheme)
    };
    let path = if let Some(path) = fields.opt_string("path_redirect") {
        PathRedirect::Path(path)
    } else if fields.has("prefix_rewrite") {
        PathRedirect::PrefixRewrite(fields.string("prefix_rewrite"))
    } else {
        fields
            .opt("regex_rewrite", matcher::regex_rewrite)?
            .map_or(PathRedirect::None, PathRedirect::RegexRewrite)
    };
    // Envoy would take it and write a location that nobody can follow.
    let port = fields.u32("port_redirect");
    let port = u16::try_from(port)
        .map_err(|_| fields.fault("port_redirect", format!("{port} is not a port")))?;
    let port = (port > 0).then_some(port);
    Ok(Redirect {
        scheme,
        host: fields.opt_string("host_redirect"),
        port,
        path,
        response_code: fields.choice(
            "response_code",
            &[
                ("MOVED_PERMANENTLY", 301),
                ("FOUND", 302),
                ("SEE_OTHER", 303),
                ("TEMPORARY_REDIRECT", 307),
                ("PERMANENT_REDIRECT", 308),
            ],
        )?,
        strip_query: fields.bool("strip_query"),
    })
}

pub(crate) fn direct_response(fields: &Fields<'_>, max_body: u32) -> Result<DirectResponse> {
    let body = fields.opt("body", matcher::data_source)?;
    if let Some(size) = body
        .as_ref()
        .map(|body| body.bytes.len())
        .filter(|size| *size > max_body as usize)
    {
        return Err(fields.fault(
            "body",
            format!("response body size is {size} bytes; maximum is {max_body}"),
        ));
    }
    Ok(DirectResponse {
        status: u16::try_from(fields.u32("status")).unwrap_or_default(),
        body,
    })
}
