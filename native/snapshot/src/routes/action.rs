//! One route: its conditions and what it asks for.

use std::sync::Arc;

use tidegate_model::Name;
use tidegate_model::route::{
    ClusterSpecifier, DirectResponse, Forward, ForwardPolicy, HostRewrite, MirrorPolicy,
    PathRedirect, PathSpecifier, Redirect, Route, RouteAction, RouteMatch, SchemeRedirect,
    WeightedClusterName,
};
use tidegate_model::{HeaderMutations, RuntimeFraction};

use super::path_match::PathMatch;
use super::redirect::CompiledRedirect;
use super::rewrite::{CompiledHostRewrite, PathRewrite};
use crate::error::CompileError;
use crate::grpc_status::is_grpc_content_type;
use crate::hash_policy::CompiledHashPolicy;
use crate::header_name::{HeaderName, WellKnown};
use crate::headers::HeaderMutator;
use crate::ids::ClusterRef;
use crate::listener::Names;
use crate::matcher::{CompiledHeader, CompiledQueryParameter};
use crate::per_filter::CompiledPerFilter;
use crate::request::RequestView;
use crate::retry::CompiledRetryPolicy;
use crate::runtime::Runtime;
use crate::tracing::CompiledRouteTracing;

/// A route with everything compiled. What plain routes do not have is a word in here: requests that walk over many routes
/// pay for each cache line of them.
#[derive(Debug)]
pub struct CompiledRoute {
    pub action: CompiledAction,
    pub(super) path: PathMatch,
    conditions: Option<Box<Conditions>>,
    pub header_mutations: HeaderMutator,
    pub per_filter: CompiledPerFilter,
    pub tracing: Option<Box<CompiledRouteTracing>>,
    /// Position in its virtual host.
    pub position: u32,
    pub config: Arc<Route>,
}

/// What a route asks for besides the path.
#[derive(Debug)]
struct Conditions {
    headers: Vec<CompiledHeader>,
    query_parameters: Vec<CompiledQueryParameter>,
    runtime_fraction: Option<RuntimeFraction>,
    grpc: bool,
}

#[derive(Debug)]
pub enum CompiledAction {
    Route(CompiledForward),
    Redirect(Box<CompiledRedirect>),
    DirectResponse(DirectResponse),
    /// Envoy answers 404.
    NonForwarding,
}

/// `RouteAction`: where to send the request and how to change it on the way.
#[derive(Debug)]
pub struct CompiledForward {
    /// Routes that say the same share it: requests that walk over many routes then find it in the cache.
    pub config: Arc<ForwardPolicy>,
    cluster: CompiledClusters,
    pub path_rewrite: PathRewrite,
    pub host_rewrite: CompiledHostRewrite,
    /// `None`: the virtual host's, if it has one.
    pub retry_policy: Option<Arc<CompiledRetryPolicy>>,
    /// What consistent hashing goes by.
    pub hash_policy: Option<Box<CompiledHashPolicy>>,
    /// Where copies go.
    pub mirrors: Arc<[MirrorPolicy]>,
}

#[derive(Debug)]
enum CompiledClusters {
    Single(ClusterRef),
    Header(Box<HeaderName>),
    Weighted(Box<WeightedClusters>),
}

#[derive(Debug)]
struct WeightedClusters {
    entries: Vec<CompiledWeightedCluster>,
    total_weight: u64,
}

/// One of a route's weighted clusters.
#[derive(Debug)]
pub struct CompiledWeightedCluster {
    cluster: WeightedTarget,
    weight: u64,
    pub header_mutations: HeaderMutator,
    pub host_rewrite_literal: Option<Name>,
    pub per_filter: CompiledPerFilter,
}

#[derive(Debug)]
enum WeightedTarget {
    Cluster(ClusterRef),
    Header(HeaderName),
}

/// The outcome of choosing a cluster.
#[derive(Debug, Clone, Copy)]
pub struct RoutedCluster<'a> {
    pub target: ClusterTarget<'a>,
    /// Header changes, host rewrite and filter configuration of the chosen entry.
    pub weighted: Option<&'a CompiledWeightedCluster>,
}

#[derive(Debug, Clone, Copy)]
pub enum ClusterTarget<'a> {
    Cluster(&'a ClusterRef),
    /// Look the cluster up by the value of this request header; absent means no cluster found.
    Header(&'a HeaderName),
}

impl CompiledForward {
    fn compile(
        config: &Forward,
        path: &PathSpecifier,
        names: &mut Names<'_>,
    ) -> Result<Self, CompileError> {
        let cluster = match &config.cluster {
            ClusterSpecifier::Cluster(name) => CompiledClusters::Single(names.cluster(name)),
            ClusterSpecifier::ClusterHeader(header) => {
                CompiledClusters::Header(Box::new(HeaderName::from(header)))
            }
            ClusterSpecifier::Weighted(weighted) => {
                let mut entries = Vec::with_capacity(weighted.clusters.len());
                for (index, entry) in weighted.clusters.iter().enumerate() {
                    let within =
                        |e: CompileError| e.within(&format!("weighted_clusters.clusters[{index}]"));
                    entries.push(CompiledWeightedCluster {
                        cluster: match &entry.cluster {
                            WeightedClusterName::Name(name) => {
                                WeightedTarget::Cluster(names.cluster(name))
                            }
                            WeightedClusterName::Header(name) => {
                                WeightedTarget::Header(HeaderName::from(name))
                            }
                        },
                        weight: u64::from(entry.weight),
                        header_mutations: HeaderMutator::compile(&entry.headers).map_err(within)?,
                        host_rewrite_literal: entry.host_rewrite_literal.clone(),
                        per_filter: CompiledPerFilter::compile(&entry.per_filter)
                            .map_err(within)?,
                    });
                }
                CompiledClusters::Weighted(Box::new(WeightedClusters {
                    entries,
                    total_weight: weighted.total_weight.max(1),
                }))
            }
        };
        Ok(Self {
            cluster,
            path_rewrite: PathRewrite::compile(
                path,
                config.prefix_rewrite.as_ref(),
                config.regex_rewrite.as_ref(),
            )?,
            host_rewrite: match &config.host_rewrite {
                HostRewrite::None => CompiledHostRewrite::None,
                HostRewrite::Literal(host) => CompiledHostRewrite::Literal(Name::clone(host)),
                HostRewrite::Auto => CompiledHostRewrite::Auto,
                HostRewrite::Header(name) => CompiledHostRewrite::Header(HeaderName::from(name)),
                HostRewrite::PathRegex(rewrite) => CompiledHostRewrite::path_regex(rewrite)?,
            },
            config: names.policy(&config.policy),
            retry_policy: match &config.retry_policy {
                Some(policy) => Some(names.retry_policy(policy)?),
                None => None,
            },
            hash_policy: CompiledHashPolicy::compile(&config.hash_policy)?.map(Box::new),
            mirrors: Arc::clone(&config.mirrors),
        })
    }

    /// The cluster for a request, by the request's random number: entries in order, `random % total_weight`, as Envoy.
    #[inline]
    pub fn pick(&self, random: u64) -> RoutedCluster<'_> {
        match &self.cluster {
            CompiledClusters::Single(cluster) => RoutedCluster {
                target: ClusterTarget::Cluster(cluster),
                weighted: None,
            },
            CompiledClusters::Header(name) => RoutedCluster {
                target: ClusterTarget::Header(name),
                weighted: None,
            },
            CompiledClusters::Weighted(weighted) => {
                let point = random % weighted.total_weight;
                let mut end = 0_u64;
                let entries = &weighted.entries;
                let chosen = entries
                    .iter()
                    .find(|entry| {
                        end += entry.weight;
                        point < end
                    })
                    .or(entries.last());
                match chosen {
                    Some(entry) => RoutedCluster {
                        target: match &entry.cluster {
                            WeightedTarget::Cluster(cluster) => ClusterTarget::Cluster(cluster),
                            WeightedTarget::Header(name) => ClusterTarget::Header(name),
                        },
                        weighted: Some(entry),
                    },
                    // No entries at all: the decoder refuses that; an unnamed header finds no cluster.
                    None => RoutedCluster {
                        target: ClusterTarget::Header(&NO_HEADER),
                        weighted: None,
                    },
                }
            }
        }
    }

    /// All clusters it may go to, for `validate_clusters` and `explain`.
    pub fn clusters(&self) -> Vec<&ClusterRef> {
        match &self.cluster {
            CompiledClusters::Single(cluster) => vec![cluster],
            CompiledClusters::Header(_) => Vec::new(),
            CompiledClusters::Weighted(weighted) => weighted
                .entries
                .iter()
                .filter_map(|entry| match &entry.cluster {
                    WeightedTarget::Cluster(cluster) => Some(cluster),
                    WeightedTarget::Header(_) => None,
                })
                .collect(),
        }
    }
}

/// Stands where a position is none of the table's.
pub(super) static NOWHERE: std::sync::LazyLock<CompiledRoute> = std::sync::LazyLock::new(|| {
    CompiledRoute::made_up(RouteAction::NonForwarding, CompiledAction::NonForwarding)
});

static NO_HEADER: std::sync::LazyLock<HeaderName> =
    std::sync::LazyLock::new(|| HeaderName::new(":none"));

static CONTENT_TYPE: std::sync::LazyLock<HeaderName> =
    std::sync::LazyLock::new(|| HeaderName::known_as(WellKnown::ContentType));

impl CompiledRoute {
    pub(super) fn compile(
        config: &Arc<Route>,
        position: usize,
        ignore_path_parameters: bool,
        names: &mut Names<'_>,
    ) -> Result<Self, CompileError> {
        let matches = &config.matches;
        let path = PathMatch::new(
            &matches.path,
            matches.case_sensitive,
            ignore_path_parameters,
        );
        let query_parameters = matches
            .query_parameters
            .iter()
            .map(CompiledQueryParameter::compile)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| e.within("match.query_parameters"))?;
        let action = match &config.action {
            RouteAction::Route(forward) => CompiledAction::Route(
                CompiledForward::compile(forward, &matches.path, names)
                    .map_err(|e| e.within("route"))?,
            ),
            RouteAction::Redirect(redirect) => CompiledAction::Redirect(Box::new(
                CompiledRedirect::compile(redirect, &matches.path)
                    .map_err(|e| e.within("redirect"))?,
            )),
            RouteAction::DirectResponse(response) => {
                CompiledAction::DirectResponse((**response).clone())
            }
            RouteAction::NonForwarding => CompiledAction::NonForwarding,
        };
        let conditions = Conditions {
            headers: CompiledHeader::compile_all(&matches.headers)
                .map_err(|e| e.within("match"))?,
            query_parameters,
            runtime_fraction: matches.runtime_fraction.clone(),
            grpc: matches.grpc,
        };
        Ok(Self {
            path,
            conditions: (!conditions.is_empty()).then(|| Box::new(conditions)),
            action,
            header_mutations: HeaderMutator::compile(&config.headers)?,
            per_filter: CompiledPerFilter::compile(&config.per_filter)?,
            tracing: config
                .tracing
                .as_deref()
                .map(|tracing| Box::new(CompiledRouteTracing::compile(tracing))),
            config: Arc::clone(config),
            position: position as u32,
        })
    }

    /// The route of a virtual host with `require_tls` for a request that came without: 301 to https.
    pub(super) fn ssl_redirect() -> Self {
        let redirect = Redirect {
            scheme: SchemeRedirect::Https,
            host: None,
            port: None,
            path: PathRedirect::None,
            response_code: 301,
            strip_query: false,
        };
        Self::made_up(
            RouteAction::Redirect(Box::new(redirect.clone())),
            CompiledAction::Redirect(Box::new(CompiledRedirect::ssl(redirect))),
        )
    }

    /// A `RouteMatch` that stands elsewhere than in a route.
    pub(crate) fn matcher(
        matches: &RouteMatch,
        names: &mut Names<'_>,
    ) -> Result<Self, CompileError> {
        let config = Arc::new(Route {
            name: Name::default(),
            matches: matches.clone(),
            action: RouteAction::NonForwarding,
            headers: HeaderMutations::default(),
            per_filter: tidegate_model::route::PerFilterConfig::default(),
            body_buffer_limit: None,
            decorator: None,
            tracing: None,
        });
        let compiled = Self::compile(&config, 0, false, names)?;
        compiled.path.prepare()?;
        Ok(compiled)
    }

    /// A route that no configuration lists.
    fn made_up(source: RouteAction, action: CompiledAction) -> Self {
        let config = Route {
            name: Name::from(""),
            matches: RouteMatch {
                path: PathSpecifier::Prefix(Name::from("")),
                case_sensitive: true,
                headers: Vec::new(),
                query_parameters: Vec::new(),
                runtime_fraction: None,
                grpc: false,
            },
            action: source,
            headers: HeaderMutations::default(),
            per_filter: tidegate_model::route::PerFilterConfig::default(),
            body_buffer_limit: None,
            decorator: None,
            tracing: None,
        };
        Self {
            path: PathMatch::everything(),
            conditions: None,
            action,
            header_mutations: HeaderMutator::default(),
            per_filter: CompiledPerFilter::default(),
            tracing: None,
            config: Arc::new(config),
            position: u32::MAX,
        }
    }

    /// `%ROUTE_NAME%`; may be empty.
    #[inline]
    pub fn name(&self) -> &Name {
        &self.config.name
    }

    #[inline]
    pub(crate) fn matches(
        &self,
        request: &impl RequestView,
        random: u64,
        runtime: &Runtime,
    ) -> bool {
        self.path.matches(request) && self.matches_besides_path(request, random, runtime)
    }

    /// Everything but the path.
    #[inline]
    pub(super) fn matches_besides_path(
        &self,
        request: &impl RequestView,
        random: u64,
        runtime: &Runtime,
    ) -> bool {
        self.mismatch_besides_path(request, random, runtime)
            .is_none()
    }

    #[inline]
    fn mismatch_besides_path(
        &self,
        request: &impl RequestView,
        random: u64,
        runtime: &Runtime,
    ) -> Option<Mismatch> {
        let conditions = self.conditions.as_deref()?;
        conditions.mismatch(request, random, runtime)
    }

    pub(super) fn header_conditions(&self) -> &[CompiledHeader] {
        let conditions = self.conditions.as_deref();
        conditions.map_or(&[], |conditions| &conditions.headers)
    }

    /// The first condition that a request does not fulfil.
    pub fn mismatch(
        &self,
        request: &impl RequestView,
        random: u64,
        runtime: &Runtime,
    ) -> Option<Mismatch> {
        if self.path.matches(request) {
            self.mismatch_besides_path(request, random, runtime)
        } else {
            Some(Mismatch::Path)
        }
    }
}

impl Conditions {
    fn is_empty(&self) -> bool {
        self.headers.is_empty()
            && self.query_parameters.is_empty()
            && self.runtime_fraction.is_none()
            && !self.grpc
    }

    fn mismatch(
        &self,
        request: &impl RequestView,
        random: u64,
        runtime: &Runtime,
    ) -> Option<Mismatch> {
        if let Some(fraction) = &self.runtime_fraction
            && !runtime.hits(fraction, random)
        {
            return Some(Mismatch::RuntimeFraction);
        }
        if self.grpc && !is_grpc(request) {
            return Some(Mismatch::Grpc);
        }
        let header = |header: &CompiledHeader| !header.matches(request);
        if let Some(index) = self.headers.iter().position(header) {
            return Some(Mismatch::Header(index));
        }
        let path = request.path();
        let parameter = |parameter: &CompiledQueryParameter| !parameter.matches(path);
        self.query_parameters
            .iter()
            .position(parameter)
            .map(Mismatch::QueryParameter)
    }
}

/// A condition of a route; positions are those in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    Path,
    RuntimeFraction,
    Grpc,
    Header(usize),
    QueryParameter(usize),
}

/// `application/grpc` alone or followed by `+`.
fn is_grpc(request: &impl RequestView) -> bool {
    request
        .header(&CONTENT_TYPE)
        .is_some_and(is_grpc_content_type)
}
