//! Route configurations: virtual hosts, route matches and actions (`config.route.v3`).

use std::sync::Arc;
use std::time::Duration;

use crate::compressor::CompressorPerRoute;
use crate::ext_authz::ExtAuthzPerRoute;
use crate::hcm::{CorsPolicy, Fault, UpgradeConfig};
use crate::header_mutation::Mutations;
use crate::jwt::JwtPerRoute;
use crate::local_ratelimit::LocalRateLimit;
use crate::lua::LuaPerRoute;
use crate::matcher::{HeaderMatcher, QueryParameterMatcher};
use crate::rbac::RbacPerRoute;
use crate::retry::{BodyBufferLimit, RetryPolicy};
use crate::tracing::{Decorator, RouteTracing};
use crate::{DataSource, HeaderMutations, Name, RuntimeFraction};

/// `config.route.v3.RouteConfiguration`.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteConfiguration {
    pub name: Name,
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    pub headers: HeaderMutations,
    /// A route to an unknown cluster is an error when the configuration is loaded. Default: false for RDS,
    /// true for inline routes.
    pub validate_clusters: bool,
    pub most_specific_header_mutations_wins: bool,
    pub ignore_port_in_host_matching: bool,
    pub ignore_path_parameters_in_path_matching: bool,
    /// Default 4096.
    pub max_direct_response_body_size_bytes: u32,
    pub internal_only_headers: Vec<Name>,
    pub per_filter: PerFilterConfig,
}

/// `config.route.v3.VirtualHost`.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualHost {
    pub name: Name,
    /// Lower case: exact, `*.suffix`, `prefix.*` or `*`.
    pub domains: Vec<Name>,
    pub routes: Vec<Arc<Route>>,
    pub require_tls: RequireTls,
    pub headers: HeaderMutations,
    pub include_request_attempt_count: bool,
    pub include_attempt_count_in_response: bool,
    pub include_is_timeout_retry_header: bool,
    /// Of routes that have none.
    pub retry_policy: Option<Arc<RetryPolicy>>,
    /// Of routes that have none.
    pub body_buffer_limit: Option<BodyBufferLimit>,
    pub per_filter: PerFilterConfig,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RequireTls {
    #[default]
    None,
    ExternalOnly,
    All,
}

/// `config.route.v3.Route`.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// May be empty; `%ROUTE_NAME%`.
    pub name: Name,
    pub matches: RouteMatch,
    pub action: RouteAction,
    pub headers: HeaderMutations,
    pub per_filter: PerFilterConfig,
    /// `None`: the virtual host's.
    pub body_buffer_limit: Option<BodyBufferLimit>,
    pub decorator: Option<Decorator>,
    pub tracing: Option<Box<RouteTracing>>,
}

/// `config.route.v3.RouteMatch`.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteMatch {
    pub path: PathSpecifier,
    /// Default true; has no effect on regexes.
    pub case_sensitive: bool,
    pub headers: Vec<HeaderMatcher>,
    pub query_parameters: Vec<QueryParameterMatcher>,
    pub runtime_fraction: Option<RuntimeFraction>,
    /// `grpc: {}`: only requests with a gRPC content type.
    pub grpc: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathSpecifier {
    Prefix(Name),
    Path(Name),
    /// RE2 syntax on the path without query, matched whole.
    SafeRegex(Name),
    /// No trailing slash.
    PathSeparatedPrefix(Name),
    ConnectMatcher,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RouteAction {
    Route(Box<Forward>),
    Redirect(Box<Redirect>),
    DirectResponse(Box<DirectResponse>),
    /// `non_forwarding_action`.
    NonForwarding,
}

/// `config.route.v3.RouteAction`.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    pub cluster: ClusterSpecifier,
    pub prefix_rewrite: Option<Name>,
    pub regex_rewrite: Option<RegexRewrite>,
    pub host_rewrite: HostRewrite,
    pub policy: ForwardPolicy,
    /// `None`: the virtual host's.
    pub retry_policy: Option<Arc<RetryPolicy>>,
    /// What consistent hashing goes by.
    pub hash_policy: Vec<HashPolicy>,
    /// `request_mirror_policies`: the route's, else the virtual host's, else those of the route configuration.
    pub mirrors: Arc<[MirrorPolicy]>,
}

/// `config.route.v3.RouteAction.RequestMirrorPolicy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorPolicy {
    pub cluster: MirrorCluster,
    /// `None`: every request.
    pub runtime_fraction: Option<RuntimeFraction>,
    pub disable_shadow_host_suffix_append: bool,
    pub host_rewrite_literal: Option<Name>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorCluster {
    Name(Name),
    /// The request header that names it, in lower case.
    Header(Name),
}

/// `config.route.v3.RouteAction.HashPolicy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashPolicy {
    pub specifier: HashSpecifier,
    /// If there is a hash once this one has been asked, the rest is not.
    pub terminal: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashSpecifier {
    Header {
        /// Lower case.
        name: Name,
        regex_rewrite: Option<RegexRewrite>,
    },
    Cookie(HashCookie),
    /// `connection_properties.source_ip`.
    SourceIp,
    QueryParameter(Name),
}

/// `HashPolicy.Cookie`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashCookie {
    pub name: Name,
    /// `None`: never made up; zero: for the session. Whole seconds.
    pub ttl: Option<Duration>,
    pub path: Name,
    /// Name and value, which may be empty.
    pub attributes: Vec<(Name, Name)>,
}

/// Timeouts, priority, upgrades and what else of `RouteAction` needs no compiling. Most routes of a configuration say the
/// same here.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardPolicy {
    /// Default 503.
    pub cluster_not_found_status: u16,
    pub append_x_forwarded_host: bool,
    /// Default 15 s; `None`: off.
    pub timeout: Option<Duration>,
    /// `None`: the connection manager's; `Some(None)`: off.
    pub idle_timeout: Option<Option<Duration>>,
    pub max_stream_duration: Option<MaxStreamDuration>,
    /// Deprecated but always sent by Istio 1.0: caps `grpc-timeout`. `Some(None)`: no cap.
    pub max_grpc_timeout: Option<Option<Duration>>,
    pub priority: RoutingPriority,
    /// Overrides the connection manager's by type.
    pub upgrade_configs: Vec<UpgradeConfig>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaxStreamDuration {
    /// `Some(None)`: unlimited.
    pub max_stream_duration: Option<Option<Duration>>,
    pub grpc_timeout_header_max: Option<Option<Duration>>,
    pub grpc_timeout_header_offset: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RoutingPriority {
    #[default]
    Default,
    High,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ClusterSpecifier {
    Cluster(Name),
    /// The request header that names it.
    ClusterHeader(Name),
    Weighted(WeightedClusters),
}

#[derive(Debug, Clone, PartialEq)]
pub struct WeightedClusters {
    pub clusters: Vec<WeightedCluster>,
    /// More than zero.
    pub total_weight: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct WeightedCluster {
    pub cluster: WeightedClusterName,
    pub weight: u32,
    pub headers: HeaderMutations,
    pub host_rewrite_literal: Option<Name>,
    pub per_filter: PerFilterConfig,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WeightedClusterName {
    Name(Name),
    Header(Name),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HostRewrite {
    #[default]
    None,
    Literal(Name),
    /// `auto_host_rewrite`: the hostname of the chosen upstream host (DNS clusters).
    Auto,
    Header(Name),
    /// `host_rewrite_path_regex`.
    PathRegex(RegexRewrite),
}

/// `type.matcher.v3.RegexMatchAndSubstitute`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegexRewrite {
    /// Known to compile.
    pub regex: Name,
    /// RE2 form: `\1` is a group.
    pub substitution: Name,
}

/// `config.route.v3.RedirectAction`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    pub scheme: SchemeRedirect,
    pub host: Option<Name>,
    pub port: Option<u16>,
    pub path: PathRedirect,
    /// 301, 302, 303, 307 or 308.
    pub response_code: u16,
    pub strip_query: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SchemeRedirect {
    #[default]
    None,
    Https,
    Scheme(Name),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PathRedirect {
    #[default]
    None,
    Path(Name),
    PrefixRewrite(Name),
    RegexRewrite(RegexRewrite),
}

/// `config.route.v3.DirectResponseAction`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectResponse {
    pub status: u16,
    pub body: Option<DataSource>,
}

/// `typed_per_filter_config` of one level, by kind of filter. The most specific level wins.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PerFilterConfig {
    pub cors: Option<Arc<CorsPolicy>>,
    pub fault: Option<Arc<Fault>>,
    /// Names of filters switched off (`true`) or on (`false`) here by `FilterConfig.disabled`.
    pub disabled: Vec<(Name, bool)>,
    /// What other filters, by name, are to do here.
    pub policies: Vec<(Name, FilterPolicy)>,
    /// The route's `metadata`, by namespace, for filters that read it.
    pub metadata: Option<Arc<serde_json::Map<String, serde_json::Value>>>,
}

/// The configuration of one filter at one level.
#[derive(Debug, Clone, PartialEq)]
pub enum FilterPolicy {
    ExtAuthz(Arc<ExtAuthzPerRoute>),
    JwtAuthn(JwtPerRoute),
    Compressor(CompressorPerRoute),
    Rbac(RbacPerRoute),
    HeaderMutation(Arc<Mutations>),
    LocalRateLimit(Arc<LocalRateLimit>),
    Lua(Arc<LuaPerRoute>),
}

impl PerFilterConfig {
    pub fn is_empty(&self) -> bool {
        self.cors.is_none()
            && self.fault.is_none()
            && self.disabled.is_empty()
            && self.policies.is_empty()
            && self.metadata.is_none()
    }
}
