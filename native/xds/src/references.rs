//! References from routes to clusters, which Envoy checks where `validate_clusters` says so.

use tidegate_model::listener::{FilterChain, Listener, NetworkFilter};
use tidegate_model::route::{
    ClusterSpecifier, MirrorCluster, RouteAction, RouteConfiguration, WeightedClusterName,
};

use crate::Rejected;
use crate::hcm::inline_routes;

/// Refuses a listener whose inline routes name a cluster that does not exist, unless they say `validate_clusters: false`.
pub fn check_listener_clusters(
    listener: &Listener,
    exists: impl Fn(&str) -> bool,
) -> Result<(), Rejected> {
    let chains = listener
        .filter_chains
        .iter()
        .enumerate()
        .map(|(at, chain)| (format!("filter_chains[{at}]"), chain));
    let default = listener
        .default_filter_chain
        .iter()
        .map(|chain| ("default_filter_chain".to_owned(), chain));
    for (path, chain) in chains.chain(default) {
        if let Some(routes) = routes(chain)
            && let Err(rejected) = check_route_clusters(routes, &exists)
        {
            return Err(Rejected {
                name: listener.name.to_string(),
                field_path: format!(
                    "{path}.filters[0].typed_config.route_config.{}",
                    rejected.field_path
                ),
                reason: rejected.reason,
            });
        }
    }
    Ok(())
}

fn routes(chain: &FilterChain) -> Option<&RouteConfiguration> {
    match &chain.filter {
        NetworkFilter::HttpConnectionManager(manager) => inline_routes(manager),
        NetworkFilter::TcpProxy(_) => None,
    }
}

/// Refuses a route configuration with `validate_clusters` that names a cluster that does not exist.
pub fn check_route_clusters(
    routes: &RouteConfiguration,
    exists: impl Fn(&str) -> bool,
) -> Result<(), Rejected> {
    if !routes.validate_clusters {
        return Ok(());
    }
    for (host_at, host) in routes.virtual_hosts.iter().enumerate() {
        for (route_at, route) in host.routes.iter().enumerate() {
            let RouteAction::Route(forward) = &route.action else {
                continue;
            };
            let unknown = match &forward.cluster {
                ClusterSpecifier::Cluster(name) if !exists(name) => Some((
                    "cluster".to_owned(),
                    format!("route: unknown cluster '{name}'"),
                )),
                ClusterSpecifier::Weighted(weighted) => weighted
                    .clusters
                    .iter()
                    .enumerate()
                    .find_map(|(at, cluster)| match &cluster.cluster {
                        WeightedClusterName::Name(name) if !exists(name) => Some((
                            format!("weighted_clusters.clusters[{at}].name"),
                            format!("route: unknown weighted cluster '{name}'"),
                        )),
                        _ => None,
                    }),
                _ => None,
            };
            let shadow = || {
                let mut mirrors = forward.mirrors.iter().enumerate();
                mirrors.find_map(|(at, mirror)| match &mirror.cluster {
                    MirrorCluster::Name(name) if !exists(name) => Some((
                        format!("request_mirror_policies[{at}].cluster"),
                        format!("route: unknown shadow cluster '{name}'"),
                    )),
                    _ => None,
                })
            };
            if let Some((field, reason)) = unknown.or_else(shadow) {
                return Err(Rejected {
                    name: routes.name.to_string(),
                    field_path: format!(
                        "virtual_hosts[{host_at}].routes[{route_at}].route.{field}"
                    ),
                    reason,
                });
            }
        }
    }
    Ok(())
}
