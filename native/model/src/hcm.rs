//! The HTTP connection manager and its HTTP filters.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::access_log::AccessLog;
use crate::compressor::Compressor;
use crate::ext_authz::ExtAuthz;
use crate::header_mutation::HeaderMutation;
use crate::http2::Http2Options;
use crate::istio::{Alpn, IstioStats, PeerMetadata};
use crate::jwt::JwtAuthn;
use crate::local_ratelimit::LocalRateLimit;
use crate::lua::Lua;
use crate::matcher::HeaderMatcher;
use crate::rbac::Rbac;
use crate::route::RouteConfiguration;
use crate::tracing::Tracing;
use crate::{Name, RuntimeFraction};

/// `extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpConnectionManager {
    pub tracing: Option<Arc<Tracing>>,
    pub stat_prefix: Name,
    pub codec_type: CodecType,
    pub routes: RouteSource,
    /// In order, the router last.
    pub http_filters: Vec<HttpFilter>,
    /// The `server` response header; default `envoy`.
    pub server_name: Name,
    pub server_header_transformation: ServerHeaderTransformation,
    /// `scheme_header_transformation.scheme_to_overwrite`.
    pub scheme_to_overwrite: Option<Name>,
    /// Default 60 KiB, in bytes.
    pub max_request_headers_bytes: u32,
    /// `common_http_protocol_options.max_headers_count`, default 100.
    pub max_headers_count: u32,
    /// `common_http_protocol_options.idle_timeout`, default 1 h.
    pub idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    pub max_stream_duration: Option<Duration>,
    pub max_requests_per_connection: Option<u32>,
    pub headers_with_underscores_action: HeadersWithUnderscoresAction,
    /// Default 5 min.
    pub stream_idle_timeout: Option<Duration>,
    pub request_timeout: Option<Duration>,
    pub request_headers_timeout: Option<Duration>,
    /// Default 5 s.
    pub drain_timeout: Duration,
    /// Default 1 s; `None`: close at once.
    pub delayed_close_timeout: Option<Duration>,
    pub access_log: Vec<Arc<AccessLog>>,
    pub use_remote_address: bool,
    pub xff_num_trusted_hops: u32,
    pub skip_xff_append: bool,
    pub internal_address_config: InternalAddressConfig,
    pub via: Option<Name>,
    /// Default true.
    pub generate_request_id: bool,
    pub preserve_external_request_id: bool,
    pub always_set_request_id_in_response: bool,
    pub forward_client_cert_details: ForwardClientCertDetails,
    pub set_current_client_cert_details: ClientCertDetails,
    pub proxy_100_continue: bool,
    pub upgrade_configs: Vec<UpgradeConfig>,
    pub normalize_path: bool,
    pub merge_slashes: bool,
    pub path_with_escaped_slashes_action: PathWithEscapedSlashesAction,
    pub strip_any_host_port: bool,
    pub strip_matching_host_port: bool,
    pub strip_trailing_host_dot: bool,
    pub suppress_envoy_headers: bool,
    pub stream_error_on_invalid_http_message: bool,
    pub append_x_forwarded_port: bool,
    pub http1: Http1Options,
    pub http2: Http2Options,
}

/// `config.core.v3.Http1ProtocolOptions`, downstream side.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Http1Options {
    pub accept_http_10: bool,
    pub default_host_for_http_10: Option<Name>,
    pub header_key_format: HeaderKeyFormat,
    pub enable_trailers: bool,
    pub allow_absolute_url: bool,
    pub allow_chunked_length: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeaderKeyFormat {
    /// As received for what is passed on, lower case for what we add.
    #[default]
    Default,
    ProperCaseWords,
    PreserveCase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CodecType {
    /// HTTP/2 for a connection that begins with its preface, HTTP/1 for any other.
    #[default]
    Auto,
    Http1,
    Http2,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RouteSource {
    /// The name of a route configuration that RDS delivers.
    Rds(Name),
    Inline(Arc<RouteConfiguration>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerHeaderTransformation {
    #[default]
    Overwrite,
    AppendIfAbsent,
    PassThrough,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeadersWithUnderscoresAction {
    #[default]
    Allow,
    RejectRequest,
    DropHeader,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PathWithEscapedSlashesAction {
    #[default]
    KeepUnchanged,
    RejectRequest,
    UnescapeAndRedirect,
    UnescapeAndForward,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardClientCertDetails {
    #[default]
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

/// `SetCurrentClientCertDetails`: what is told of the client's certificate besides its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientCertDetails {
    pub subject: bool,
    pub cert: bool,
    pub chain: bool,
    pub dns: bool,
    pub uri: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InternalAddressConfig {
    pub unix_sockets: bool,
    /// Empty: no address is internal, as in Envoy since 1.33.
    pub cidr_ranges: Vec<ipnet::IpNet>,
}

impl InternalAddressConfig {
    /// Whether a trusted client address counts as internal.
    pub fn is_internal(&self, address: IpAddr) -> bool {
        self.cidr_ranges.iter().any(|net| net.contains(&address))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeConfig {
    /// Lower case: `websocket`, `connect` (the method).
    pub upgrade_type: Name,
    pub enabled: bool,
}

/// An HTTP filter with its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpFilter {
    /// The name routes use to address it in `typed_per_filter_config`.
    pub name: Name,
    pub disabled: bool,
    /// Its configuration comes by ECDS; `kind` is the one in force.
    pub discovery: Option<Arc<ConfigDiscovery>>,
    pub kind: HttpFilterKind,
}

/// `config.core.v3.ExtensionConfigSource` of a filter whose configuration comes by ADS, under the filter's name.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigDiscovery {
    /// The full names of the messages that it may be.
    pub type_urls: Vec<Name>,
    /// In force while there is none.
    pub default_config: Option<HttpFilterKind>,
    /// The listener does not wait for it.
    pub apply_default_config_without_warming: bool,
    /// `None`: wait for ever.
    pub initial_fetch_timeout: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum HttpFilterKind {
    Router(Router),
    Cors(CorsPolicy),
    Fault(Arc<Fault>),
    GrpcStats(Arc<GrpcStats>),
    /// `extensions.filters.http.grpc_web.v3.GrpcWeb`, which has no options.
    GrpcWeb,
    ExtAuthz(Arc<ExtAuthz>),
    JwtAuthn(Arc<JwtAuthn>),
    Compressor(Arc<Compressor>),
    PeerMetadata(Arc<PeerMetadata>),
    Alpn(Arc<Alpn>),
    IstioStats(Arc<IstioStats>),
    Rbac(Arc<Rbac>),
    HeaderMutation(Arc<HeaderMutation>),
    LocalRateLimit(Arc<LocalRateLimit>),
    Lua(Arc<Lua>),
    /// ECDS has delivered none, and there is no default: what comes here is answered with 500.
    Missing,
}

/// `extensions.filters.http.grpc_stats.v3.FilterConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrpcStats {
    pub methods: GrpcStatsMethods,
    /// Message counts for `%FILTER_STATE(envoy.filters.http.grpc_stats)%`.
    pub emit_filter_state: bool,
    /// The time that an upstream took, by method.
    pub enable_upstream_stats: bool,
    /// Only with [`GrpcStatsMethods::All`]: `a.B` is counted as `a_B`.
    pub replace_dots_in_grpc_service_name: bool,
}

/// Which methods are counted under a name of their own; the others are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum GrpcStatsMethods {
    #[default]
    None,
    /// `stats_for_all_methods`. The names are the clients'; whoever may call can make as many as he likes.
    All,
    /// `individual_method_stats_allowlist`: services and their methods.
    Listed(Vec<(Name, Vec<Name>)>),
}

/// `extensions.filters.http.router.v3.Router`.
#[derive(Debug, Clone, PartialEq)]
pub struct Router {
    /// `upstream_rq_*` by dynamic code and zone stats; default true.
    pub dynamic_stats: bool,
    pub suppress_envoy_headers: bool,
    pub respect_expected_rq_timeout: bool,
    pub upstream_log: Vec<Arc<AccessLog>>,
}

/// `extensions.filters.http.cors.v3.CorsPolicy`; the filter's own configuration is empty, routes carry it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CorsPolicy {
    pub allow_origin: Vec<crate::matcher::StringMatcher>,
    pub allow_methods: Option<Name>,
    pub allow_headers: Option<Name>,
    pub expose_headers: Option<Name>,
    pub max_age: Option<Name>,
    pub allow_credentials: Option<bool>,
    pub allow_private_network_access: Option<bool>,
    pub forward_not_matching_preflights: Option<bool>,
    /// Default always.
    pub filter_enabled: Option<RuntimeFraction>,
    pub shadow_enabled: Option<RuntimeFraction>,
}

/// `extensions.filters.http.fault.v3.HTTPFault`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fault {
    pub delay: Option<FaultDelay>,
    pub abort: Option<FaultAbort>,
    /// Only for this upstream cluster.
    pub upstream_cluster: Option<Name>,
    pub headers: Vec<HeaderMatcher>,
    pub downstream_nodes: Vec<Name>,
    pub max_active_faults: Option<u32>,
    pub response_rate_limit: Option<FaultRateLimit>,
    pub disable_downstream_cluster_stats: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FaultDelay {
    pub kind: FaultDelayKind,
    pub percentage: crate::Fraction,
}

#[derive(Debug, Clone, PartialEq)]
pub enum FaultDelayKind {
    Fixed(Duration),
    /// From `x-envoy-fault-delay-request` and `x-envoy-fault-delay-request-percentage`.
    Header,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FaultAbort {
    pub kind: FaultAbortKind,
    pub percentage: crate::Fraction,
}

#[derive(Debug, Clone, PartialEq)]
pub enum FaultAbortKind {
    HttpStatus(u16),
    GrpcStatus(u32),
    /// From `x-envoy-fault-abort-request` (or `-grpc-request`).
    Header,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FaultRateLimit {
    pub kind: FaultRateLimitKind,
    pub percentage: crate::Fraction,
}

#[derive(Debug, Clone, PartialEq)]
pub enum FaultRateLimitKind {
    FixedKbps(u64),
    Header,
}
