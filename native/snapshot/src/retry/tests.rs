use std::sync::Arc;

use tidegate_model::Name;
use tidegate_model::matcher::{HeaderMatchSpecifier, HeaderMatcher};
use tidegate_model::retry::{RateLimitedBackOff, ResetHeader};

use super::*;

struct Response(u16, Vec<(&'static str, &'static str)>);

impl ResponseView for Response {
    fn status(&self) -> u16 {
        self.0
    }

    fn header(&self, name: &[u8]) -> Option<&[u8]> {
        let found = self.1.iter().find(|(known, _)| known.as_bytes() == name)?;
        Some(found.1.as_bytes())
    }

    fn each_header(&self, name: &[u8], each: &mut dyn FnMut(&[u8])) {
        for (known, value) in &self.1 {
            if known.as_bytes() == name {
                each(value.as_bytes());
            }
        }
    }
}

fn retried(retry_on: &str, response: &Response) -> bool {
    let none = RequestedRetries::default();
    retries_response(None, &none, RetryOn::parse(retry_on), response)
}

#[test]
fn statuses() {
    let status = |code| Response(code, Vec::new());
    assert!(retried("5xx", &status(500)));
    assert!(retried("5xx", &status(599)));
    assert!(!retried("5xx", &status(404)));
    assert!(retried("gateway-error", &status(502)));
    assert!(retried("gateway-error", &status(504)));
    assert!(!retried("gateway-error", &status(500)));
    assert!(!retried("gateway-error", &status(505)));
    assert!(retried("retriable-4xx", &status(409)));
    assert!(!retried("retriable-4xx", &status(429)));
    assert!(!retried("", &status(503)));
}

#[test]
fn codes_and_headers_of_policy_and_request() {
    let config = Arc::new(RetryPolicy {
        retriable_status_codes: vec![418],
        retriable_headers: vec![HeaderMatcher {
            name: Name::from("x-again"),
            specifier: HeaderMatchSpecifier::Present(true),
            invert_match: false,
            treat_missing_header_as_empty: false,
        }],
        ..RetryPolicy::default()
    });
    let policy = CompiledRetryPolicy::compile(&config).unwrap();
    let requested = RequestedRetries {
        status_codes: vec![404],
        header_names: vec![b"x-other".to_vec()],
        ..RequestedRetries::default()
    };
    let check = |on: &str, response: &Response| {
        retries_response(Some(&policy), &requested, RetryOn::parse(on), response)
    };
    assert!(check("retriable-status-codes", &Response(418, Vec::new())));
    assert!(check("retriable-status-codes", &Response(404, Vec::new())));
    assert!(!check("5xx", &Response(404, Vec::new())));
    assert!(check(
        "retriable-headers",
        &Response(200, vec![("x-again", "")])
    ));
    assert!(check(
        "retriable-headers",
        &Response(200, vec![("x-other", "")])
    ));
    assert!(!check(
        "retriable-headers",
        &Response(200, vec![("x-third", "")])
    ));
    assert!(!check("5xx", &Response(200, vec![("x-again", "")])));
}

#[test]
fn grpc_statuses() {
    let grpc = |status| Response(200, vec![("grpc-status", status)]);
    assert!(retried("unavailable", &grpc("14")));
    assert!(retried("cancelled", &grpc("1")));
    assert!(retried("deadline-exceeded", &grpc("4")));
    assert!(retried("internal", &grpc("13")));
    assert!(retried("resource-exhausted", &grpc("8")));
    assert!(!retried("unavailable", &grpc("1")));
    assert!(!retried("5xx", &grpc("14")));
    assert!(!retried("unavailable", &grpc("x")));
}

#[test]
fn rate_limits_of_an_envoy_are_respected() {
    let limited = Response(503, vec![("x-envoy-ratelimited", "true")]);
    assert!(!retried("5xx", &limited));
    assert!(retried("envoy-ratelimited", &limited));
}

#[test]
fn resets() {
    let check = |on: &str, connecting, refused, begun| {
        retries_reset(RetryOn::parse(on), connecting, refused, begun)
    };
    for any in ["reset", "5xx", "gateway-error"] {
        assert!(check(any, false, false, true), "{any}");
    }
    assert!(check("connect-failure", true, false, false));
    assert!(!check("connect-failure", false, false, true));
    assert!(check("refused-stream", false, true, true));
    assert!(!check("refused-stream", false, false, true));
    assert!(check("reset-before-request", true, false, false));
    assert!(!check("reset-before-request", false, false, true));
    assert!(!check("retriable-4xx,unavailable", true, true, false));
}

#[test]
fn pauses_that_responses_ask_for() {
    let header = |name: &str, format| ResetHeader {
        name: Name::from(name),
        format,
    };
    let policy = RetryPolicy {
        rate_limited_back_off: Some(RateLimitedBackOff {
            reset_headers: vec![
                header("retry-after", ResetHeaderFormat::Seconds),
                header("x-reset", ResetHeaderFormat::UnixTimestamp),
            ],
            max_interval: Duration::from_secs(10),
        }),
        ..RetryPolicy::default()
    };
    let pause = |name, value| {
        let response = Response(503, vec![(name, value)]);
        asked_pause(&policy, &response, 1000).map(|pause| pause.as_secs())
    };
    assert_eq!(pause("retry-after", "7"), Some(7));
    assert_eq!(pause("retry-after", "11"), None);
    assert_eq!(pause("retry-after", "soon"), None);
    assert_eq!(pause("retry-after", "0"), None);
    assert_eq!(pause("x-reset", "1004"), Some(4));
    assert_eq!(pause("x-reset", "999"), None);
}
