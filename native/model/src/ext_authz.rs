//! External authorization (`extensions.filters.http.ext_authz.v3`) and the services that filters ask.

use std::sync::Arc;
use std::time::Duration;

use crate::matcher::{MetadataMatcher, StringMatcher};
use crate::retry::RetryPolicy;
use crate::{Name, RuntimeFlag, RuntimeFraction};

/// `config.core.v3.GrpcService` with `envoy_grpc`.
#[derive(Debug, Clone, PartialEq)]
pub struct GrpcService {
    pub cluster: Name,
    /// Default: the cluster's name.
    pub authority: Option<Name>,
    pub timeout: Option<Duration>,
    /// Names in lower case.
    pub initial_metadata: Vec<(Name, Name)>,
    pub retry_policy: Option<Arc<RetryPolicy>>,
    /// `x-envoy-internal` and `x-forwarded-for` are left out.
    pub skip_envoy_headers: bool,
}

/// `ExtAuthz`.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtAuthz {
    pub service: AuthzService,
    pub failure_mode_allow: bool,
    /// `x-envoy-auth-failure-mode-allowed: true` for the upstream.
    pub failure_mode_allow_header_add: bool,
    pub with_request_body: Option<BodySettings>,
    pub clear_route_cache: bool,
    /// Default 403.
    pub status_on_error: u16,
    pub validate_mutations: bool,
    pub metadata_context_namespaces: Vec<Name>,
    pub filter_enabled: Option<RuntimeFraction>,
    pub filter_enabled_metadata: Option<MetadataMatcher>,
    pub deny_at_disable: Option<RuntimeFlag>,
    /// Empty, or with a dot behind it.
    pub stat_prefix: Name,
    /// Request headers that the service is told; `None`: all (gRPC), or only the few that it always gets (HTTP).
    pub allowed_headers: Option<Vec<StringMatcher>>,
    pub disallowed_headers: Option<Vec<StringMatcher>>,
    /// Denials count among the responses of the request's cluster. Default true.
    pub charge_cluster_response_stats: bool,
    pub encode_raw_headers: bool,
    /// Default true.
    pub enable_dynamic_metadata_ingestion: bool,
    /// 0: no limit.
    pub max_denied_response_body_bytes: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub enum AuthzService {
    Grpc(Arc<GrpcService>),
    Http(Arc<HttpAuthz>),
}

/// `BufferSettings`: how much of the body the service sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodySettings {
    pub max_request_bytes: u32,
    pub allow_partial_message: bool,
    pub pack_as_bytes: bool,
}

/// `HttpService`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpAuthz {
    pub cluster: Name,
    pub timeout: Duration,
    /// In front of the request's path.
    pub path_prefix: Name,
    pub headers_to_add: Vec<(Name, Name)>,
    pub allowed_upstream_headers: Vec<StringMatcher>,
    pub allowed_upstream_headers_to_append: Vec<StringMatcher>,
    /// Empty: all.
    pub allowed_client_headers: Vec<StringMatcher>,
    pub allowed_client_headers_on_success: Vec<StringMatcher>,
    pub dynamic_metadata_from_headers: Vec<StringMatcher>,
    pub retry_policy: Option<Arc<RetryPolicy>>,
}

/// `ExtAuthzPerRoute`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExtAuthzPerRoute {
    pub disabled: bool,
    pub context_extensions: Vec<(Name, Name)>,
    pub disable_request_body_buffering: bool,
    pub with_request_body: Option<BodySettings>,
}
