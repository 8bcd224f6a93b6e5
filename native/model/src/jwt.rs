//! Authentication by JSON Web Tokens (`extensions.filters.http.jwt_authn.v3`).

use std::sync::Arc;
use std::time::Duration;

use crate::matcher::StringMatcher;
use crate::retry::RetryPolicy;
use crate::route::RouteMatch;
use crate::{DataSource, Name};

/// `JwtAuthentication`.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtAuthn {
    pub providers: Vec<(Name, Arc<JwtProvider>)>,
    pub rules: Vec<JwtRule>,
    pub requirement_map: Vec<(Name, JwtRequirement)>,
    pub bypass_cors_preflight: bool,
    pub strip_failure_response: bool,
    /// Empty, or with a dot behind it.
    pub stat_prefix: Name,
}

/// `RequirementRule`.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtRule {
    pub matches: RouteMatch,
    /// `None`: nothing is required.
    pub requires: Option<JwtRequirement>,
}

/// `JwtRequirement`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtRequirement {
    /// One that says nothing.
    None,
    Provider {
        name: Name,
        /// Instead of the provider's.
        audiences: Vec<Name>,
    },
    Any(Vec<JwtRequirement>),
    All(Vec<JwtRequirement>),
    AllowMissingOrFailed,
    AllowMissing,
}

/// `JwtProvider`.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtProvider {
    /// Empty: any.
    pub issuer: Name,
    pub audiences: Vec<Name>,
    pub subjects: Option<StringMatcher>,
    pub require_expiration: bool,
    pub max_lifetime: Option<Duration>,
    pub jwks: Jwks,
    pub forward: bool,
    /// Header (lower case) and what stands before the token.
    pub from_headers: Vec<(Name, Name)>,
    pub from_params: Vec<Name>,
    pub from_cookies: Vec<Name>,
    pub forward_payload_header: Option<Name>,
    pub pad_forward_payload_header: bool,
    pub payload_in_metadata: Option<Name>,
    /// `normalize_payload_in_metadata.space_delimited_claims`
    pub space_delimited_claims: Vec<Name>,
    pub header_in_metadata: Option<Name>,
    pub failed_status_in_metadata: Option<Name>,
    /// Default 60.
    pub clock_skew_seconds: u64,
    /// Header (lower case) and claim, whose parts are separated by dots.
    pub claim_to_headers: Vec<(Name, Name)>,
    pub clear_route_cache: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Jwks {
    Local(DataSource),
    Remote(Arc<RemoteJwks>),
}

/// `RemoteJwks`.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteJwks {
    pub uri: Name,
    pub cluster: Name,
    pub timeout: Duration,
    /// Default 10 min.
    pub cache_duration: Duration,
    pub retry_policy: Option<Arc<RetryPolicy>>,
}

/// `PerRouteConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtPerRoute {
    Disabled,
    Requirement(Name),
}
