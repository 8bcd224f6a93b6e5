//! Tracing: which requests become spans, what the spans say, and where they go.

use std::time::Duration;

use crate::{Fraction, Name};

/// `HttpConnectionManager.Tracing`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    pub sampling: Sampling,
    /// Default 256; of `http.url`, without scheme and host.
    pub max_path_tag_length: usize,
    pub custom_tags: Vec<CustomTag>,
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

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Provider {
    Zipkin(Zipkin),
}

/// `config.trace.v3.ZipkinConfig`: spans as JSON of Zipkin's API v2.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
