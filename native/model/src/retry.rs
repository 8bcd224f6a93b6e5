//! Retry policies (`config.route.v3.RetryPolicy`): when a request is sent again, how often, after how long, and where.

use std::ops::{BitOr, BitOrAssign};
use std::time::Duration;

use crate::Name;
use crate::matcher::HeaderMatcher;

/// `config.route.v3.RetryPolicy`.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    pub retry_on: RetryOn,
    /// Default 1.
    pub num_retries: u32,
    /// `None`: a try may take as long as the whole.
    pub per_try_timeout: Option<Duration>,
    pub per_try_idle_timeout: Option<Duration>,
    pub back_off: BackOff,
    pub rate_limited_back_off: Option<RateLimitedBackOff>,
    pub retriable_status_codes: Vec<u32>,
    /// Of the response: one must match.
    pub retriable_headers: Vec<HeaderMatcher>,
    /// Of the request: if there are any, one must match.
    pub retriable_request_headers: Vec<HeaderMatcher>,
    /// `retry_host_predicate`: which hosts are passed over.
    pub host_predicates: Vec<HostPredicate>,
    /// Further choices of a host while those made are passed over. Default 1.
    pub host_selection_attempts: u32,
    /// `retry_priority` with `PreviousPrioritiesConfig`: priorities that were tried get no more, recalculated after so many
    /// tries (1 and up).
    pub previous_priorities: Option<u32>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retry_on: RetryOn::NONE,
            num_retries: 1,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            back_off: BackOff::default(),
            rate_limited_back_off: None,
            retriable_status_codes: Vec::new(),
            retriable_headers: Vec::new(),
            retriable_request_headers: Vec::new(),
            host_predicates: Vec::new(),
            host_selection_attempts: 1,
            previous_priorities: None,
        }
    }
}

/// One of `retry_host_predicate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPredicate {
    /// `PreviousHostsPredicate`: hosts that were tried.
    PreviousHosts,
    /// `OmitCanaryHostsPredicate`: hosts that say `canary: true` in their `envoy.lb` metadata.
    OmitCanaryHosts,
    /// `OmitHostMetadataConfig`: hosts whose `envoy.lb` metadata has all of these; values as compact JSON. None: no host.
    OmitHostMetadata(Vec<(Name, Name)>),
}

/// `retry_back_off`, in milliseconds: the pause is random below a bound that doubles from `base` to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// At least 1; default 25.
    pub base: u64,
    /// At least `base`; default ten times as much.
    pub max: u64,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { base: 25, max: 250 }
    }
}

/// `rate_limited_retry_back_off`: a response may say how long to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimitedBackOff {
    /// The first that says something counts.
    pub reset_headers: Vec<ResetHeader>,
    /// Longer pauses are not believed. Default 300 s.
    pub max_interval: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetHeader {
    /// Lower case.
    pub name: Name,
    pub format: ResetHeaderFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetHeaderFormat {
    Seconds,
    UnixTimestamp,
}

/// How much of a request's body may be kept for another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyBufferLimit {
    /// `request_body_buffer_limit`
    Exactly(u64),
    /// `per_request_buffer_limit_bytes`: and not more than the connection's limit.
    AtMost(u32),
}

/// The conditions of a retry, a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn(u32);

impl RetryOn {
    pub const NONE: Self = Self(0);
    pub const FIVE_XX: Self = Self(1);
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    pub const CONNECT_FAILURE: Self = Self(1 << 2);
    pub const ENVOY_RATELIMITED: Self = Self(1 << 3);
    pub const RETRIABLE_4XX: Self = Self(1 << 4);
    pub const REFUSED_STREAM: Self = Self(1 << 5);
    pub const RETRIABLE_STATUS_CODES: Self = Self(1 << 6);
    pub const RETRIABLE_HEADERS: Self = Self(1 << 7);
    pub const RESET: Self = Self(1 << 8);
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 9);
    /// Never happens here, but makes a policy one.
    pub const HTTP3_POST_CONNECT_FAILURE: Self = Self(1 << 10);
    pub const GRPC_CANCELLED: Self = Self(1 << 11);
    pub const GRPC_DEADLINE_EXCEEDED: Self = Self(1 << 12);
    pub const GRPC_INTERNAL: Self = Self(1 << 13);
    pub const GRPC_RESOURCE_EXHAUSTED: Self = Self(1 << 14);
    pub const GRPC_UNAVAILABLE: Self = Self(1 << 15);

    /// The conditions in `retry_on`, those on gRPC statuses among them. What has no meaning is passed over, as in Envoy.
    pub fn parse(list: &str) -> Self {
        Self::parse_http(list) | Self::parse_grpc(list)
    }

    /// As in `x-envoy-retry-on`.
    pub fn parse_http(list: &str) -> Self {
        Self::each(list, |word| match word {
            "5xx" => Self::FIVE_XX,
            "gateway-error" => Self::GATEWAY_ERROR,
            "connect-failure" => Self::CONNECT_FAILURE,
            "envoy-ratelimited" => Self::ENVOY_RATELIMITED,
            "retriable-4xx" => Self::RETRIABLE_4XX,
            "refused-stream" => Self::REFUSED_STREAM,
            "retriable-status-codes" => Self::RETRIABLE_STATUS_CODES,
            "retriable-headers" => Self::RETRIABLE_HEADERS,
            "reset" => Self::RESET,
            "reset-before-request" => Self::RESET_BEFORE_REQUEST,
            "http3-post-connect-failure" => Self::HTTP3_POST_CONNECT_FAILURE,
            _ => Self::NONE,
        })
    }

    /// As in `x-envoy-retry-grpc-on`.
    pub fn parse_grpc(list: &str) -> Self {
        Self::each(list, |word| match word {
            "cancelled" => Self::GRPC_CANCELLED,
            "deadline-exceeded" => Self::GRPC_DEADLINE_EXCEEDED,
            "internal" => Self::GRPC_INTERNAL,
            "resource-exhausted" => Self::GRPC_RESOURCE_EXHAUSTED,
            "unavailable" => Self::GRPC_UNAVAILABLE,
            _ => Self::NONE,
        })
    }

    fn each(list: &str, meaning: impl Fn(&str) -> Self) -> Self {
        list.split(',')
            .map(|word| meaning(word.trim_ascii()))
            .fold(Self::NONE, Self::bitor)
    }

    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether one of these conditions is in it.
    #[inline]
    pub const fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }
}

impl BitOr for RetryOn {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for RetryOn {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_by_name() {
        let both = RetryOn::FIVE_XX | RetryOn::GRPC_UNAVAILABLE;
        assert_eq!(RetryOn::parse("5xx, unavailable,, nonsense"), both);
        assert_eq!(RetryOn::parse_http("5xx,unavailable"), RetryOn::FIVE_XX);
        assert_eq!(
            RetryOn::parse_grpc("5xx,unavailable"),
            RetryOn::GRPC_UNAVAILABLE
        );
        assert_eq!(RetryOn::parse("5XX"), RetryOn::NONE);
        assert!(RetryOn::parse("").is_empty());
        assert!(both.has(RetryOn::FIVE_XX | RetryOn::RESET));
        assert!(!both.has(RetryOn::RESET));
    }
}
