//! Rate limits of this process, of requests and of connections (`filters.http.local_ratelimit`, `filters.network.local_ratelimit`).

use std::time::Duration;

use crate::{HeaderValueOption, Name, RuntimeFlag, RuntimeFraction};

/// `type.v3.TokenBucket`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    pub max_tokens: u32,
    pub tokens_per_fill: u32,
    /// 50 ms or more.
    pub fill_interval: Duration,
}

/// `extensions.filters.http.local_ratelimit.v3.LocalRateLimit`, of the filter or of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalRateLimit {
    pub stat_prefix: Name,
    /// Of the answer to a request too many; default 429.
    pub status: u16,
    /// `None`: no limit.
    pub token_bucket: Option<TokenBucket>,
    /// Of the requests that are counted at all; `None`: none.
    pub filter_enabled: Option<RuntimeFraction>,
    /// Of the requests too many that are refused; `None`: none.
    pub filter_enforced: Option<RuntimeFraction>,
    pub request_headers_to_add_when_not_enforced: Vec<HeaderValueOption>,
    pub response_headers_to_add: Vec<HeaderValueOption>,
    /// gRPC learns `RESOURCE_EXHAUSTED` instead of `UNAVAILABLE`.
    pub rate_limited_as_resource_exhausted: bool,
}

/// `extensions.filters.network.local_ratelimit.v3.LocalRateLimit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkLocalRateLimit {
    pub stat_prefix: Name,
    pub token_bucket: TokenBucket,
    pub enabled: RuntimeFlag,
}
