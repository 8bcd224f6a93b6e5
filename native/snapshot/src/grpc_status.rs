//! The gRPC status of a request: for log lines and the filters of logs.

use std::sync::LazyLock;

use tidegate_model::format::{HeaderMap, NumberField};

use crate::header_name::{HeaderName, WellKnown};
use crate::log_context::LogContext;

static CONTENT_TYPE: LazyLock<HeaderName> =
    LazyLock::new(|| HeaderName::known_as(WellKnown::ContentType));
static GRPC_STATUS: LazyLock<HeaderName> =
    LazyLock::new(|| HeaderName::known_as(WellKnown::GrpcStatus));

/// Stands for a `grpc-status` that is no number.
const INVALID: i64 = -1;

pub(crate) const UNKNOWN: i64 = 2;

/// The names of the gRPC statuses, camel and snake.
const NAMES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

/// Camel and snake; `None` for a status that has no name.
pub(crate) fn names(status: i64) -> Option<(&'static str, &'static str)> {
    NAMES.get(usize::try_from(status).ok()?).copied()
}

/// The HTTP status that stands for a gRPC status, Envoy's `grpcToHttpStatus`.
pub const fn to_http(status: u64) -> u16 {
    match status {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// `application/grpc`, alone or with a format (`+proto`). gRPC-Web is something else.
pub fn is_grpc_content_type(content_type: &[u8]) -> bool {
    content_type
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
}

/// Whether the request is a gRPC call.
pub(crate) fn is_grpc_request(context: &(impl LogContext + ?Sized)) -> bool {
    context
        .header(HeaderMap::Request, &CONTENT_TYPE)
        .is_some_and(is_grpc_content_type)
}

/// From the trailers, else the headers (a response of trailers only), else from the HTTP status.
pub fn grpc_status(context: &(impl LogContext + ?Sized)) -> Option<i64> {
    let said = |map| {
        context
            .header(map, &GRPC_STATUS)
            .filter(|value| !value.is_empty())
            .map(|value| {
                let digits = std::str::from_utf8(value).unwrap_or_default();
                let code = digits.parse::<u64>().ok();
                code.and_then(|code| i64::try_from(code).ok())
                    .unwrap_or(INVALID)
            })
    };
    said(HeaderMap::ResponseTrailers)
        .or_else(|| said(HeaderMap::Response))
        .or_else(|| {
            let http = context.number(NumberField::ResponseCode)?;
            (http > 0).then(|| of_http(http))
        })
}

/// The gRPC status that stands for an HTTP status.
pub const fn of_http(status: u64) -> i64 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}
