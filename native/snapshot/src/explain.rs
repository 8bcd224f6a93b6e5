//! A dry run of a connection and its request through the tables: which listener, filter chain, virtual host, route and cluster,
//! and why the others lost.
//!
//! It calls the functions that traffic calls; only the reasons are worked out here. Pure, and off the hot path.

mod text;

use std::net::SocketAddr;
use std::sync::Arc;

use tidegate_model::Name;
use tidegate_model::cluster::HealthStatus;
use tidegate_model::listener::{FilterChainMatch, SourceType};

use crate::cluster::CompiledCluster;
use crate::filter_chain::ApplicationProtocols;
use crate::filter_chain::{ConnMeta, canonical};
use crate::listener::{Chain, ChainFilter, CompiledHcm, CompiledListener, HcmRoutes};
use crate::request::PlainRequest;
use crate::routes::action::ClusterTarget;
use crate::routes::{
    CompiledAction, CompiledForward, CompiledRoute, CompiledRoutes, CompiledVirtualHost, Mismatch,
};
use crate::snapshot::Snapshot;

/// What is to be explained.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// The listener that accepts the connection.
    pub listener: &'a str,
    /// Where the connection was made to, before redirection.
    pub destination: SocketAddr,
    pub source: SocketAddr,
    /// Without it the explanation ends with the filter chain, or with the TCP proxy's cluster.
    pub request: Option<&'a PlainRequest>,
    /// Decides weighted clusters and fractions, as the request's random number would.
    pub random: u64,
}

/// The way of a call, as far as it goes; the last step that is present tells where it ended.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Explanation {
    pub listener: Option<ListenerStep>,
    pub filter_chain: Option<FilterChainStep>,
    pub virtual_host: Option<VirtualHostStep>,
    pub route: Option<RouteStep>,
    pub action: Option<ActionStep>,
    pub cluster: Option<ClusterStep>,
    /// Why it goes no further, when it does not reach an endpoint or an answer of its own.
    pub end: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerStep {
    pub accepted_by: Name,
    pub handled_by: Name,
    pub how: HandOff,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandOff {
    /// `use_original_dst` is off.
    NotUsed,
    /// A listener has exactly this address.
    Exact,
    /// A listener has the wildcard address with this port.
    Wildcard,
    /// No listener has this address: the accepting one keeps the connection.
    Kept,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterChainStep {
    pub name: Name,
    /// Position in the configuration; `None`: the default filter chain.
    pub index: Option<usize>,
    pub lost: Vec<Lost>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualHostStep {
    pub route_configuration: Name,
    pub name: Name,
    /// The domain that matched.
    pub domain: Name,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteStep {
    pub name: Name,
    /// Position in the virtual host; `None`: the redirect to TLS of `require_tls`.
    pub index: Option<usize>,
    /// The routes before it.
    pub lost: Vec<Lost>,
}

/// Something that was considered and not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub index: usize,
    pub name: Name,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionStep {
    Forward {
        cluster: Option<Name>,
        /// All weighted clusters, when there are several.
        weighted: Vec<Name>,
        /// The path sent upstream, where it is rewritten.
        path: Option<String>,
    },
    Redirect {
        status: u16,
        location: String,
    },
    DirectResponse {
        status: u16,
        body_bytes: usize,
    },
    NonForwarding,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStep {
    pub name: Name,
    pub endpoints: Vec<EndpointStep>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointStep {
    pub address: Name,
    pub health: HealthStatus,
    pub weight: u32,
    pub priority: u32,
}

impl Explanation {
    fn ends(mut self, reason: impl Into<String>) -> Self {
        self.end = Some(reason.into());
        self
    }
}

/// Follows a call through the tables.
pub fn explain(snapshot: &Snapshot, call: &Call<'_>) -> Explanation {
    let mut explanation = Explanation::default();
    let Some(accepting) = snapshot.listener_by_name(call.listener) else {
        return explanation.ends(format!("there is no listener {}", call.listener));
    };
    let (listener, how) = hand_off(snapshot, accepting, call.destination);
    explanation.listener = Some(ListenerStep {
        accepted_by: Name::clone(accepting.name()),
        handled_by: Name::clone(listener.name()),
        how,
    });
    let meta = ConnMeta::plain(call.destination, call.source);
    let Some(chain) = listener.filter_chains.find(&meta) else {
        return explanation.ends("no filter chain matches: the connection is closed");
    };
    explanation.filter_chain = Some(filter_chain(listener, chain, &meta));
    match &chain.filter {
        ChainFilter::TcpProxy(proxy) => match proxy.pick(call.random) {
            Some(cluster) => with_cluster(
                explanation,
                snapshot,
                cluster.name(),
                "the connection is closed,",
            ),
            None => explanation.ends("the TCP proxy has no cluster"),
        },
        ChainFilter::Http(hcm) => match call.request {
            Some(request) => http(explanation, snapshot, hcm, request, call.random),
            None => explanation,
        },
    }
}

fn hand_off<'s>(
    snapshot: &'s Snapshot,
    accepting: &'s Arc<CompiledListener>,
    destination: SocketAddr,
) -> (&'s Arc<CompiledListener>, HandOff) {
    if !accepting.config.use_original_dst {
        return (accepting, HandOff::NotUsed);
    }
    match snapshot.listener_table().find(destination) {
        Some(found) if !Arc::ptr_eq(found, accepting) => {
            let exact = found
                .addresses()
                .any(|address| canonical(address) == canonical(destination));
            let how = if exact {
                HandOff::Exact
            } else {
                HandOff::Wildcard
            };
            (found, how)
        }
        _ => (accepting, HandOff::Kept),
    }
}

fn filter_chain(
    listener: &CompiledListener,
    chain: &Arc<Chain>,
    meta: &ConnMeta<'_>,
) -> FilterChainStep {
    let chains = listener.filter_chains.chains();
    let lost = chains
        .iter()
        .enumerate()
        .filter(|(_, other)| !Arc::ptr_eq(other, chain))
        .map(|(index, other)| Lost {
            index,
            name: Name::clone(&other.config.name),
            reason: why_not_chain(&other.config.matches, meta),
        })
        .collect();
    FilterChainStep {
        name: Name::clone(&chain.config.name),
        index: chains.iter().position(|other| Arc::ptr_eq(other, chain)),
        lost,
    }
}

/// The first condition that does not hold, in the order of matching.
fn why_not_chain(matches: &FilterChainMatch, meta: &ConnMeta<'_>) -> String {
    let destination = meta.destination;
    if let Some(port) = matches.destination_port
        && port != destination.port()
    {
        return format!("destination_port is {port}");
    }
    let outside = |nets: &[ipnet::IpNet], ip: std::net::IpAddr| {
        !nets.is_empty() && !nets.iter().any(|net| net.contains(&ip))
    };
    if outside(&matches.prefix_ranges, destination.ip()) {
        return format!("{} is not in its prefix_ranges", destination.ip());
    }
    if !matches.server_names.is_empty() && meta.server_name.is_empty() {
        return "it wants a server name".to_owned();
    }
    if let Some(transport) = &matches.transport_protocol
        && &**transport != meta.transport_protocol
    {
        return format!("transport_protocol is {transport}");
    }
    if !matches.application_protocols.is_empty()
        && *meta.application_protocols == ApplicationProtocols::Unknown
    {
        return "it wants an application protocol".to_owned();
    }
    if outside(
        &matches.direct_source_prefix_ranges,
        meta.direct_source.ip(),
    ) {
        return format!(
            "{} is not in its direct_source_prefix_ranges",
            meta.direct_source.ip()
        );
    }
    let local = meta.is_same_ip_or_loopback();
    match matches.source_type {
        SourceType::SameIpOrLoopback if !local => {
            return "source_type is SAME_IP_OR_LOOPBACK".to_owned();
        }
        SourceType::External if local => return "source_type is EXTERNAL".to_owned(),
        _ => {}
    }
    if outside(&matches.source_prefix_ranges, meta.source.ip()) {
        return format!("{} is not in its source_prefix_ranges", meta.source.ip());
    }
    if !matches.source_ports.is_empty() && !matches.source_ports.contains(&meta.source.port()) {
        return format!("{} is not in its source_ports", meta.source.port());
    }
    "another chain is more specific".to_owned()
}

fn http(
    mut explanation: Explanation,
    snapshot: &Snapshot,
    hcm: &CompiledHcm,
    request: &PlainRequest,
    random: u64,
) -> Explanation {
    let routes = match &hcm.routes {
        HcmRoutes::Inline(routes) => routes,
        HcmRoutes::Rds(name) => match snapshot.routes(name.id()) {
            Some(routes) => routes,
            None => {
                return explanation
                    .ends(format!("route configuration {} has not come", name.name()));
            }
        },
    };
    let Some(host) = routes.find_virtual_host(request.authority.as_bytes()) else {
        return explanation.ends("no virtual host has this domain: 404 NR");
    };
    explanation.virtual_host = Some(VirtualHostStep {
        route_configuration: Name::clone(routes.name()),
        name: Name::clone(host.name()),
        domain: domain(routes, host, &request.authority),
    });
    let runtime = snapshot.runtime();
    let found = host.route(request, random, runtime);
    let before = found.map_or(u32::MAX, |route| route.position);
    let lost: Vec<Lost> = host
        .routes()
        .iter()
        .take_while(|route| route.position < before)
        .filter(|_| before != u32::MAX || found.is_none())
        .filter_map(|route| {
            let mismatch = route.mismatch(request, random, runtime)?;
            Some(Lost {
                index: route.position as usize,
                name: Name::clone(route.name()),
                reason: reason(route, mismatch),
            })
        })
        .collect();
    let Some(route) = found else {
        explanation.route = Some(RouteStep {
            name: Name::from(""),
            index: None,
            lost,
        });
        return explanation.ends("no route matches: 404 NR");
    };
    explanation.route = Some(RouteStep {
        name: Name::clone(route.name()),
        index: (route.position != u32::MAX).then_some(route.position as usize),
        lost,
    });
    action(explanation, snapshot, route, request, random)
}

/// Which of the virtual host's domains it was.
fn domain(routes: &CompiledRoutes, host: &CompiledVirtualHost, authority: &str) -> Name {
    let mut lower = authority.to_ascii_lowercase();
    if routes.config.ignore_port_in_host_matching
        && let Some(start) = crate::routes::port_start(lower.as_bytes())
    {
        lower.truncate(start);
    }
    let domains = &host.config.domains;
    let longest = |fits: &dyn Fn(&str) -> bool| {
        domains
            .iter()
            .filter(|domain| domain.len() <= lower.len() && fits(domain))
            .max_by_key(|domain| domain.len())
    };
    domains
        .iter()
        .find(|domain| ***domain == *lower)
        .or_else(|| {
            longest(&|domain| {
                domain
                    .strip_prefix('*')
                    .is_some_and(|suffix| lower.ends_with(suffix))
            })
        })
        .or_else(|| {
            longest(&|domain| {
                domain
                    .strip_suffix('*')
                    .is_some_and(|prefix| lower.starts_with(prefix))
            })
        })
        .map_or_else(|| Name::from("*"), Name::clone)
}

fn reason(route: &CompiledRoute, mismatch: Mismatch) -> String {
    let matches = &route.config.matches;
    match mismatch {
        Mismatch::Path => format!("the path is not {}", text::path(&matches.path)),
        Mismatch::RuntimeFraction => "not in its runtime_fraction".to_owned(),
        Mismatch::Grpc => "not a gRPC request".to_owned(),
        Mismatch::Header(index) => match matches.headers.get(index) {
            Some(header) => format!("header {} does not match", header.name),
            None => "a header does not match".to_owned(),
        },
        Mismatch::QueryParameter(index) => match matches.query_parameters.get(index) {
            Some(parameter) => format!("query parameter {} does not match", parameter.name),
            None => "a query parameter does not match".to_owned(),
        },
    }
}

fn action(
    mut explanation: Explanation,
    snapshot: &Snapshot,
    route: &CompiledRoute,
    request: &PlainRequest,
    random: u64,
) -> Explanation {
    match &route.action {
        CompiledAction::Route(forward) => {
            forwarded(explanation, snapshot, forward, request, random)
        }
        CompiledAction::Redirect(redirect) => {
            let mut location = Vec::new();
            redirect.location(request, &mut location);
            explanation.action = Some(ActionStep::Redirect {
                status: redirect.status(),
                location: String::from_utf8_lossy(&location).into_owned(),
            });
            explanation
        }
        CompiledAction::DirectResponse(response) => {
            explanation.action = Some(ActionStep::DirectResponse {
                status: response.status,
                body_bytes: response.body.as_ref().map_or(0, |body| body.bytes.len()),
            });
            explanation
        }
        CompiledAction::NonForwarding => {
            explanation.action = Some(ActionStep::NonForwarding);
            explanation
        }
    }
}

fn forwarded(
    mut explanation: Explanation,
    snapshot: &Snapshot,
    forward: &CompiledForward,
    request: &PlainRequest,
    random: u64,
) -> Explanation {
    let picked = forward.pick(random);
    let cluster = match picked.target {
        ClusterTarget::Cluster(cluster) => Some(Name::clone(cluster.name())),
        ClusterTarget::Header(name) => request
            .headers
            .iter()
            .find(|(header, _)| header == name.as_str())
            .map(|(_, value)| Name::from(value.as_str())),
    };
    let mut path = Vec::new();
    let rewritten = forward
        .path_rewrite
        .apply(request.path.as_bytes(), &mut path);
    let weighted = match picked.weighted {
        Some(_) => forward.clusters(),
        None => Vec::new(),
    };
    explanation.action = Some(ActionStep::Forward {
        cluster: cluster.clone(),
        weighted: weighted
            .into_iter()
            .map(|cluster| Name::clone(cluster.name()))
            .collect(),
        path: rewritten.then(|| String::from_utf8_lossy(&path).into_owned()),
    });
    match cluster {
        Some(cluster) => with_cluster(explanation, snapshot, &cluster, "503"),
        None => explanation.ends("the cluster header is absent: 503 NC"),
    }
}

/// `answer` is what the client gets when it ends here.
fn with_cluster(
    mut explanation: Explanation,
    snapshot: &Snapshot,
    name: &Name,
    answer: &str,
) -> Explanation {
    let Some(cluster) = snapshot.cluster_by_name(name) else {
        return explanation.ends(format!("there is no cluster {name}: {answer} NC"));
    };
    let step = cluster_step(cluster);
    let empty = step.endpoints.is_empty();
    explanation.cluster = Some(step);
    let original_dst = matches!(
        cluster.config.discovery,
        tidegate_model::cluster::Discovery::OriginalDst(_)
    );
    if empty && !original_dst {
        return explanation.ends(format!("the cluster has no endpoints: {answer} UH"));
    }
    explanation
}

fn cluster_step(cluster: &CompiledCluster) -> ClusterStep {
    ClusterStep {
        name: Name::clone(cluster.name()),
        endpoints: cluster
            .endpoints
            .hosts
            .iter()
            .map(|host| EndpointStep {
                address: Name::clone(&host.address_text),
                health: host.health,
                weight: host.weight,
                priority: host.priority,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests;
