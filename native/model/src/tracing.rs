//! Tracing: which requests become spans, what the spans say, and where they go.

use std::time::Duration;

use crate::ext_authz::GrpcService;
use crate::{Fraction, Name};

/// `HttpConnectionManager.Tracing`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    pub sampling: Sampling,
    /// Default 256; of `http.url`, without scheme and host.
    pub max_path_tag_length: usize,
    pub custom_tags: Vec<CustomTag>,
    /// Each try towards an upstream is a span of its own, below the request's.
    pub spawn_upstream_span: bool,
    /// `None`: requests are marked and counted, but there is nobody to tell of them.
    pub provider: Option<Provider>,
}

/// Which requests are traced: of those that ask for it, of all others, and of those chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    pub client: Fraction,
    pub random: Fraction,
    pub overall: Fraction,
}

/// `type.tracing.v3.CustomTag`; the environment has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomTag {
    pub name: Name,
    pub value: CustomTagValue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CustomTagValue {
    Literal(Name),
    /// Lower case; the default stands where the header does not, and an empty one means no tag.
    RequestHeader {
        name: Name,
        default: Name,
    },
    /// What a filter has said of the request; a namespace and a path below it.
    RequestMetadata {
        filter: Name,
        path: Vec<Name>,
        default: Name,
    },
}

/// What a route says over the connection manager (`config.route.v3.Tracing`).
#[derive(Debug, Clone, PartialEq)]
pub struct RouteTracing {
    pub sampling: Sampling,
    /// These go before those of the same name.
    pub custom_tags: Vec<CustomTag>,
}

/// `config.route.v3.Decorator`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decorator {
    pub operation: Name,
    /// The other side is told of the operation. Default true.
    pub propagate: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Provider {
    Zipkin(Zipkin),
    OpenTelemetry(Box<OpenTelemetry>),
}

/// `config.trace.v3.OpenTelemetryConfig`.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenTelemetry {
    /// `None`: the context goes on, and nobody is told.
    pub exporter: Option<Exporter>,
    /// The service's name and what detectors have found; a later value replaces an earlier one.
    pub resource: Vec<(Name, Name)>,
    /// `None`: as the connection manager decides and callers say.
    pub sampler: Option<Sampler>,
    /// Spans that wait for a report; more are dropped. Default 1024.
    pub max_cache_size: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Exporter {
    Grpc(GrpcService),
    Http(HttpService),
}

/// `config.core.v3.HttpService`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpService {
    pub cluster: Name,
    pub host: Name,
    pub path: Name,
    pub timeout: Duration,
    /// Names in lower case.
    pub headers: Vec<(Name, Name)>,
}

/// Whether a request that may be traced is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sampler {
    AlwaysOn,
    /// So many of so many trace ids.
    TraceIdRatio {
        numerator: u64,
        denominator: u64,
    },
    /// As the caller says; the sampler decides where there is none.
    ParentBased(Box<Sampler>),
}

/// `config.trace.v3.ZipkinConfig`: spans as JSON of Zipkin's API v2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zipkin {
    pub cluster: Name,
    /// The `host` of reports.
    pub hostname: Name,
    /// The path of reports.
    pub endpoint: Name,
    pub timeout: Duration,
    pub shared_span_context: bool,
    pub trace_id_128bit: bool,
}
