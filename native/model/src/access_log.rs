//! Access logs: where, in which format, for which requests.

use crate::matcher::HeaderMatcher;
use crate::{Name, RuntimeFraction};

/// `config.accesslog.v3.AccessLog` with `extensions.access_loggers.file.v3.FileAccessLog` or its stdout and
/// stderr siblings.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    pub path: Name,
    pub format: LogFormat,
    pub filter: Option<AccessLogFilter>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum LogFormat {
    /// Envoy's default text format.
    Default,
    /// Text with operators, ending as written (no newline is added).
    Text(Name),
    Json(JsonFormat),
}

/// `SubstitutionFormatString.json_format`; one line per entry, a newline is added. `omit_empty_values` leaves out what is missing.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonFormat {
    pub root: JsonNode,
    pub omit_empty_values: bool,
    /// Keys in alphabetical order, Envoy's default.
    pub sort_properties: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum JsonNode {
    Null,
    Bool(bool),
    Number(f64),
    /// Literal text with operators; a value that is a single operator keeps its type (number, null).
    String(Name),
    Object(Vec<(Name, JsonNode)>),
    Array(Vec<JsonNode>),
}

/// `config.accesslog.v3.AccessLogFilter`.
#[derive(Debug, Clone, PartialEq)]
pub enum AccessLogFilter {
    StatusCode {
        op: ComparisonOp,
        value: u32,
    },
    /// In milliseconds.
    Duration {
        op: ComparisonOp,
        value: u32,
    },
    NotHealthCheck,
    Traceable,
    Runtime {
        fraction: RuntimeFraction,
        use_independent_randomness: bool,
    },
    And(Vec<AccessLogFilter>),
    Or(Vec<AccessLogFilter>),
    Header(HeaderMatcher),
    /// Empty: any flag.
    ResponseFlag(Vec<Name>),
    /// Without a status (no gRPC, or none told) it is taken from the HTTP status.
    GrpcStatus {
        /// 0 to 16.
        statuses: Vec<u8>,
        exclude: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComparisonOp {
    Eq,
    Ge,
    Le,
    Ne,
}
