//! Retry policies, compiled: what a response says about another try.

use std::sync::Arc;
use std::time::Duration;

use tidegate_model::retry::{ResetHeaderFormat, RetryOn, RetryPolicy};

use crate::error::CompileError;
use crate::header_name::{HeaderName, WellKnown};
use crate::matcher::CompiledHeader;
use crate::request::RequestView;

/// A retry policy with its matchers compiled.
#[derive(Debug)]
pub struct CompiledRetryPolicy {
    pub config: Arc<RetryPolicy>,
    retriable_headers: Vec<CompiledHeader>,
    retriable_request_headers: Vec<CompiledHeader>,
}

/// What a retry looks at in a response's head.
pub trait ResponseView {
    fn status(&self) -> u16;

    /// The first value.
    fn header(&self, name: &[u8]) -> Option<&[u8]>;

    /// All values, in order.
    fn each_header(&self, name: &[u8], each: &mut dyn FnMut(&[u8]));
}

/// What a request's own headers ask for, over and above its route's policy.
#[derive(Debug, Clone, Default)]
pub struct RequestedRetries {
    pub retry_on: RetryOn,
    pub max_retries: Option<u32>,
    pub status_codes: Vec<u32>,
    /// Lower case.
    pub header_names: Vec<Vec<u8>>,
}

impl CompiledRetryPolicy {
    pub fn compile(config: &Arc<RetryPolicy>) -> Result<Self, CompileError> {
        let within = |field: &'static str| move |error: CompileError| error.within(field);
        Ok(Self {
            retriable_headers: CompiledHeader::compile_all(&config.retriable_headers)
                .map_err(within("retriable_headers"))?,
            retriable_request_headers: CompiledHeader::compile_all(
                &config.retriable_request_headers,
            )
            .map_err(within("retriable_request_headers"))?,
            config: Arc::clone(config),
        })
    }

    /// Whether requests like this one are tried again at all.
    pub fn takes_request(&self, request: &impl RequestView) -> bool {
        self.retriable_request_headers.is_empty()
            || self
                .retriable_request_headers
                .iter()
                .any(|header| header.matches(request))
    }
}

/// Whether a response is a reason to try again (Envoy's `wouldRetryFromHeaders`).
pub fn retries_response(
    policy: Option<&CompiledRetryPolicy>,
    requested: &RequestedRetries,
    retry_on: RetryOn,
    response: &impl ResponseView,
) -> bool {
    // From an Envoy that limits rates.
    if response.header(b"x-envoy-ratelimited").is_some() {
        return retry_on.has(RetryOn::ENVOY_RATELIMITED);
    }
    let status = response.status();
    if retry_on.has(RetryOn::FIVE_XX) && (500..600).contains(&status)
        || retry_on.has(RetryOn::GATEWAY_ERROR) && (502..505).contains(&status)
        || retry_on.has(RetryOn::RETRIABLE_4XX) && status == 409
    {
        return true;
    }
    if retry_on.has(RetryOn::RETRIABLE_STATUS_CODES) {
        let of_policy = policy.map(|policy| policy.config.retriable_status_codes.as_slice());
        let mut codes = of_policy
            .unwrap_or_default()
            .iter()
            .chain(&requested.status_codes);
        if codes.any(|code| *code == u32::from(status)) {
            return true;
        }
    }
    if retry_on.has(RetryOn::RETRIABLE_HEADERS) {
        let view = HeadersOf(response);
        let matchers = policy.map(|policy| policy.retriable_headers.as_slice());
        if matchers
            .unwrap_or_default()
            .iter()
            .any(|matcher| matches(matcher, &view))
        {
            return true;
        }
        let mut names = requested.header_names.iter();
        if names.any(|name| response.header(name).is_some()) {
            return true;
        }
    }
    let grpc = response
        .header(b"grpc-status")
        .and_then(|status| std::str::from_utf8(status).ok()?.parse::<u32>().ok());
    grpc.is_some_and(|status| retry_on.has(grpc_condition(status)))
}

const fn grpc_condition(status: u32) -> RetryOn {
    match status {
        1 => RetryOn::GRPC_CANCELLED,
        4 => RetryOn::GRPC_DEADLINE_EXCEEDED,
        8 => RetryOn::GRPC_RESOURCE_EXHAUSTED,
        13 => RetryOn::GRPC_INTERNAL,
        14 => RetryOn::GRPC_UNAVAILABLE,
        _ => RetryOn::NONE,
    }
}

/// How long the response asks to wait, if the policy listens to that. `unix_now`: seconds.
pub fn asked_pause(
    policy: &RetryPolicy,
    response: &impl ResponseView,
    unix_now: u64,
) -> Option<Duration> {
    let limited = policy.rate_limited_back_off.as_ref()?;
    let pause = limited.reset_headers.iter().find_map(|header| {
        let value = response.header(header.name.as_bytes())?;
        let number: u64 = std::str::from_utf8(value).ok()?.trim_ascii().parse().ok()?;
        let seconds = match header.format {
            ResetHeaderFormat::Seconds => number,
            ResetHeaderFormat::UnixTimestamp => number.checked_sub(unix_now)?,
        };
        Some(Duration::from_secs(seconds)).filter(|pause| *pause <= limited.max_interval)
    });
    pause.filter(|pause| !pause.is_zero())
}

fn matches<R: ResponseView>(matcher: &CompiledHeader, response: &HeadersOf<'_, R>) -> bool {
    if matcher.name().known() == Some(WellKnown::Status) {
        let status = response.0.status().to_string();
        return matcher.matches_value(Some(status.as_bytes()));
    }
    matcher.matches(response)
}

/// A response as the header matchers see it.
struct HeadersOf<'a, R>(&'a R);

impl<R: ResponseView> RequestView for HeadersOf<'_, R> {
    fn method(&self) -> &[u8] {
        &[]
    }

    fn path(&self) -> &[u8] {
        &[]
    }

    fn authority(&self) -> &[u8] {
        &[]
    }

    fn scheme(&self) -> &[u8] {
        &[]
    }

    fn header(&self, name: &HeaderName) -> Option<&[u8]> {
        self.0.header(name.as_bytes())
    }

    fn each_header(&self, name: &HeaderName, each: &mut dyn FnMut(&[u8])) {
        self.0.each_header(name.as_bytes(), each);
    }
}

/// The conditions under which an upstream that gave no answer is a reason to try again (`wouldRetryFromReset`).
/// `connecting`: no connection came about; `refused`: the upstream says that it has not looked at the request;
/// `begun`: something of the request has been sent.
pub fn retries_reset(retry_on: RetryOn, connecting: bool, refused: bool, begun: bool) -> bool {
    connecting && retry_on.has(RetryOn::CONNECT_FAILURE)
        || !begun && retry_on.has(RetryOn::RESET_BEFORE_REQUEST)
        || refused && retry_on.has(RetryOn::REFUSED_STREAM)
        // What comes of it would be a 5xx.
        || retry_on.has(RetryOn::RESET | RetryOn::FIVE_XX | RetryOn::GATEWAY_ERROR)
}

#[cfg(test)]
mod tests;
