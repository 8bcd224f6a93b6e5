//! What can only be judged with all clusters in view: `validate_clusters`.

use tidegate_model::hcm::RouteSource;
use tidegate_model::listener::{FilterChain, Listener, NetworkFilter};
use tidegate_model::route::{
    ClusterSpecifier, MirrorCluster, RouteAction, RouteConfiguration, WeightedClusterName,
};

type Unknown = (String, String);

/// Path and reason of the first route to a cluster that is not there, where the configuration asks for that check.
pub(super) fn check_listener_clusters(
    listener: &Listener,
    known: &dyn Fn(&str) -> bool,
) -> Result<(), Unknown> {
    let check = |chain: &FilterChain, at: String| match &chain.filter {
        NetworkFilter::HttpConnectionManager(hcm) => match &hcm.routes {
            RouteSource::Inline(routes) if routes.validate_clusters => {
                check_route_clusters(routes, known).map_err(|(path, reason)| {
                    (
                        format!(
                            "{at}.filters[{}].typed_config.route_config.{path}",
                            chain.read_filters.len()
                        ),
                        reason,
                    )
                })
            }
            RouteSource::Inline(_) | RouteSource::Rds(_) => Ok(()),
        },
        NetworkFilter::TcpProxy(_) => Ok(()),
    };
    for (index, chain) in listener.filter_chains.iter().enumerate() {
        check(chain, format!("filter_chains[{index}]"))?;
    }
    match &listener.default_filter_chain {
        Some(chain) => check(chain, "default_filter_chain".to_owned()),
        None => Ok(()),
    }
}

/// Path and reason of the first route to a cluster that is not there.
pub(super) fn check_route_clusters(
    config: &RouteConfiguration,
    known: &dyn Fn(&str) -> bool,
) -> Result<(), Unknown> {
    for (host_at, host) in config.virtual_hosts.iter().enumerate() {
        for (at, route) in host.routes.iter().enumerate() {
            let RouteAction::Route(forward) = &route.action else {
                continue;
            };
            let path = format!("virtual_hosts[{host_at}].routes[{at}].route");
            for (mirror_at, mirror) in forward.mirrors.iter().enumerate() {
                if let MirrorCluster::Name(name) = &mirror.cluster
                    && !known(name)
                {
                    return Err((
                        format!("{path}.request_mirror_policies[{mirror_at}].cluster"),
                        format!("route: unknown shadow cluster '{name}'"),
                    ));
                }
            }
            match &forward.cluster {
                ClusterSpecifier::Cluster(name) if !known(name) => {
                    return Err((
                        format!("{path}.cluster"),
                        format!("route: unknown cluster '{name}'"),
                    ));
                }
                ClusterSpecifier::Weighted(weighted) => {
                    for (weight_at, cluster) in weighted.clusters.iter().enumerate() {
                        if let WeightedClusterName::Name(name) = &cluster.cluster
                            && !known(name)
                        {
                            return Err((
                                format!("{path}.weighted_clusters.clusters[{weight_at}].name"),
                                format!("route: unknown weighted cluster '{name}'"),
                            ));
                        }
                    }
                }
                ClusterSpecifier::Cluster(_) | ClusterSpecifier::ClusterHeader(_) => {}
            }
        }
    }
    Ok(())
}
