//! Tracing: whether a request is traced, its span, and what the other side is told of it.
//!
//! ```text
//! route ─▶ begin_span (x-request-id says whether and why) ─▶ filters ─▶ inject ─▶ upstream
//!             reporter ◀─ end_span ◀─ finish ◀─ decorate_response ◀─────────────────┘
//! ```
//!
//! A request that is not traced has a span too, which only carries the context on. Everything here costs requests of
//! connection managers without tracing one look. Envoy's words and decisions: `ConnectionManagerUtility` for the marks,
//! `HttpTracerUtility` for the tags. How spans are written and where they
//! go is the business of `zipkin`, `otlp` and `reporter`; how context travels, that of `b3` and `w3c`.

mod b3;
mod context;
mod otlp;
pub(crate) mod reporter;
mod tags;
pub(in crate::hcm) mod tried;
mod w3c;
mod zipkin;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tidegate_codec::h1::KnownHeader;
use tidegate_model::Name;
use tidegate_model::listener::TrafficDirection;
use tidegate_model::tracing::{OpenTelemetry, Provider, Sampling, Zipkin};
use tidegate_rt::{Moment, Rng};
use tidegate_snapshot::Runtime;
use tidegate_snapshot::listener::CompiledHcm;
use tidegate_stats::defs::http as stat;

use self::context::Context;
use self::reporter::Reporter;
use self::tried::Tried;
use super::ServerConnection;
use super::headers::HeaderList;
use super::stream::{Request, Stream, StreamRoute};
use crate::worker::{Core, Worker};

/// Where a request id (a UUID) has the reason in place of its version.
const REASON: usize = 14;
const UUID_LENGTH: usize = 36;

/// Why a request is traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    NotTraceable,
    Sampling,
    ServiceForced,
    ClientForced,
}

impl Reason {
    const fn digit(self) -> u8 {
        match self {
            Self::NotTraceable => b'4',
            Self::Sampling => b'9',
            Self::ServiceForced => b'a',
            Self::ClientForced => b'b',
        }
    }

    fn of(id: &[u8]) -> Self {
        match id.get(REASON) {
            _ if id.len() != UUID_LENGTH => Self::NotTraceable,
            Some(b'9') => Self::Sampling,
            Some(b'a') => Self::ServiceForced,
            Some(b'b') => Self::ClientForced,
            _ => Self::NotTraceable,
        }
    }
}

/// What a worker knows of a connection manager's tracing.
pub(crate) struct TracingRuntime {
    sampling: Sampling,
    /// Requests of others come in, or our own go out.
    ingress: bool,
    /// Tries have spans.
    spawns: bool,
    /// `None`: there is no provider.
    reporter: Option<Rc<RefCell<Reporter>>>,
}

impl TracingRuntime {
    pub(crate) fn new(
        core: &mut Core,
        compiled: &CompiledHcm,
        direction: TrafficDirection,
    ) -> Option<Self> {
        let tracing = compiled.tracing.as_ref()?;
        let configured = tracing.config.provider.as_ref();
        let provider = configured.or(core.shared.config.tracing.as_ref()).cloned();
        Some(Self {
            sampling: tracing.config.sampling,
            ingress: direction != TrafficDirection::Outbound,
            spawns: tracing.config.spawn_upstream_span,
            reporter: provider.map(|provider| Reporter::find(core, &provider)),
        })
    }
}

/// The span of a request.
pub(crate) struct Span {
    context: Context,
    carried: Carried,
    kind: Kind,
    /// Of a span that will be reported; nobody asks for that of others.
    operation: Vec<u8>,
    /// The route's operation, if the other side is to be told.
    told: Option<Name>,
    /// Tries have spans.
    spawns: bool,
    /// Those that will be reported, the one at hand last.
    tries: Vec<Tried>,
}

/// What there is to write of a span besides its tags.
struct Record<'a> {
    context: Context,
    kind: Kind,
    operation: &'a [u8],
    moments: Moments,
    /// In OpenTelemetry's eyes.
    is_error: bool,
}

/// When, and for how long.
struct Moments {
    begun: SystemTime,
    took: Duration,
}

/// Tells every tag.
type Each<'a> = &'a dyn Fn(&mut dyn FnMut(&str, &[u8]));

/// Which side of a call a span is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Server,
    Client,
}

/// How the context goes on.
enum Carried {
    B3 {
        /// In the one header that it came in.
        single: bool,
    },
    W3c {
        /// The list that goes with the trace.
        state: Vec<u8>,
        /// The caller told of a span of its own.
        remote_parent: bool,
    },
    /// The request keeps what it has.
    Not,
}

impl Carried {
    /// Tells the upstream of a span.
    fn inject(&self, context: &Context, headers: &mut HeaderList) {
        match self {
            Self::B3 { single } => context.inject(headers, *single),
            Self::W3c { state, .. } => w3c::inject(context, state, headers),
            Self::Not => {}
        }
    }
}

impl Span {
    fn set_operation(&mut self, operation: &[u8]) {
        if self.context.sampled {
            self.operation.clear();
            self.operation.extend_from_slice(operation);
        }
    }

    /// Takes over what the other side calls the operation.
    fn take_operation(&mut self, headers: &mut HeaderList) -> bool {
        let Some(told) = headers.known(KnownHeader::XEnvoyDecoratorOperation) else {
            return false;
        };
        if !told.is_empty() {
            self.set_operation(told);
        }
        headers.remove_known(KnownHeader::XEnvoyDecoratorOperation);
        true
    }
}

/// Marks the request's id with whether and why it is traced, as the samplings and the runtime say.
fn decide(headers: &mut HeaderList, sampling: Sampling, runtime: &Runtime) -> Reason {
    let Some(id) = headers.known(KnownHeader::XRequestId) else {
        return Reason::NotTraceable;
    };
    let mut reason = Reason::of(id);
    // What has no number is not sampled.
    let number = id.get(..8).and_then(|text| std::str::from_utf8(text).ok());
    let Some(number) = number.and_then(|text| u64::from_str_radix(text, 16).ok()) else {
        return reason;
    };
    let hits = |key, share| runtime.fraction_of(key, share).hits(number);
    if reason == Reason::NotTraceable {
        if headers.get(b"x-client-trace-id").is_some()
            && hits("tracing.client_enabled", sampling.client)
        {
            reason = Reason::ClientForced;
        } else if headers.has(KnownHeader::XEnvoyForceTrace) {
            reason = Reason::ServiceForced;
        } else if hits("tracing.random_sampling", sampling.random) {
            reason = Reason::Sampling;
        }
    }
    if reason != Reason::NotTraceable && !hits("tracing.global_enabled", sampling.overall) {
        reason = Reason::NotTraceable;
    }
    let Ok(mut marked) = <[u8; UUID_LENGTH]>::try_from(id) else {
        // There is no place for a mark.
        return Reason::NotTraceable;
    };
    if let Some(place) = marked.get_mut(REASON)
        && *place != reason.digit()
    {
        *place = reason.digit();
        headers.set_known(KnownHeader::XRequestId, &marked);
    }
    reason
}

impl ServerConnection {
    /// The route is known, or that there is none: the request's span begins.
    pub(super) fn begin_span(&self, stream: &mut Stream, core: &mut Core) {
        let Some(tracing) = &self.hcm.tracing else {
            return;
        };
        let route = stream.route.as_ref().map(StreamRoute::route);
        let of_route = route.and_then(|route| route.tracing.as_ref());
        let sampling = of_route.map_or(tracing.sampling, |of_route| of_route.sampling);
        let headers = &mut stream.request.headers;
        let reason = decide(headers, sampling, core.snapshot.runtime());
        self.hcm.stats.inc(match reason {
            Reason::NotTraceable => stat::TRACING_NOT_TRACEABLE,
            Reason::Sampling => stat::TRACING_RANDOM_SAMPLING,
            Reason::ServiceForced => stat::TRACING_SERVICE_FORCED,
            Reason::ClientForced => stat::TRACING_CLIENT_ENABLED,
        });
        let Some(reporter) = &tracing.reporter else {
            return;
        };
        let traced = reason != Reason::NotTraceable;
        let mut span = start(
            reporter.borrow().provider(),
            &stream.request,
            traced,
            tracing.ingress,
            tracing.spawns,
            &mut core.rng,
        );
        let decorator = route.and_then(|route| route.config.decorator.as_ref());
        if let Some(decorator) = decorator.filter(|decorator| !decorator.operation.is_empty()) {
            span.set_operation(decorator.operation.as_bytes());
            span.told = decorator
                .propagate
                .then(|| Name::clone(&decorator.operation));
        }
        let headers = &mut stream.request.headers;
        if tracing.ingress {
            if span.take_operation(headers) {
                span.told = None;
            }
        } else if let Some(operation) = &span.told {
            headers.set_known(KnownHeader::XEnvoyDecoratorOperation, operation.as_bytes());
        }
        stream.span = Some(Box::new(span));
    }

    /// What callers and called tell each other of the operation, in the response's head.
    pub(super) fn decorate_response(&self, stream: &mut Stream) {
        let (Some(tracing), Some(span)) = (&self.hcm.tracing, &mut stream.span) else {
            return;
        };
        let headers = &mut stream.response.headers;
        if !tracing.ingress {
            span.take_operation(headers);
        } else if let Some(operation) = &span.told {
            headers.set_known(KnownHeader::XEnvoyDecoratorOperation, operation.as_bytes());
        }
    }

    /// The stream is over: its span is handed to the reporter, if it is traced.
    pub(super) fn end_span(&self, stream: &mut Stream, worker: &mut Worker) {
        if stream.span.is_some() {
            let over = stream.times.upstream_rx_end;
            tried::end(stream, over.unwrap_or_else(|| worker.core.now()));
        }
        let Some(span) = stream.span.take().filter(|span| span.context.sampled) else {
            return;
        };
        let Some(tracing) = &self.hcm.tracing else {
            return;
        };
        let compiled = self.hcm.compiled();
        let compiled = compiled.and_then(|compiled| compiled.tracing.as_ref());
        let (Some(reporter), Some(compiled)) = (&tracing.reporter, compiled) else {
            return;
        };
        let core = &mut worker.core;
        let local = core.http.local_address().to_owned();
        let tags = tags::Tags::new(self, stream, compiled, &core.shared.config.node);
        let now = core.now();
        let moments = |begun: Moment, over: Moment| Moments {
            begun: core.clock.wall_of(begun),
            took: over.since(begun),
        };
        let provider = Rc::clone(reporter.borrow().provider());
        let mut written = Vec::with_capacity(span.tries.len() + 1);
        let mut write = |record: &Record<'_>, is_try: bool, tags: Each<'_>| {
            let mut out = Vec::new();
            match (&*provider, &span.carried) {
                (Provider::Zipkin(zipkin), _) => {
                    let endpoint = zipkin::Endpoint {
                        service: &core.shared.config.node.cluster,
                        address: &local,
                    };
                    let shared = zipkin.shared_span_context;
                    zipkin::write(&mut out, record, shared, endpoint, tags);
                }
                (
                    _,
                    Carried::W3c {
                        state,
                        remote_parent,
                    },
                ) => {
                    otlp::write(&mut out, record, state, *remote_parent && !is_try, tags);
                }
                (Provider::OpenTelemetry(_), Carried::B3 { .. } | Carried::Not) => return,
            }
            written.push(out);
        };
        for (at, tried) in span.tries.iter().enumerate() {
            let name = &tried.cluster.config.alt_stat_name;
            let operation = format!("router {name} egress");
            let record = Record {
                context: tried.context,
                kind: Kind::Client,
                operation: operation.as_bytes(),
                moments: moments(tried.begun, tried.over.unwrap_or(now)),
                is_error: tags::is_error(tried.status, Kind::Client),
            };
            let last = at + 1 == span.tries.len();
            write(&record, true, &|tag| tags.each_of_try(tried, last, tag));
        }
        let record = Record {
            context: span.context,
            kind: span.kind,
            operation: &span.operation,
            moments: moments(stream.times.start, now),
            is_error: tags.is_error(span.kind),
        };
        write(&record, false, &|tag| tags.each(tag));
        for span in &written {
            reporter.borrow_mut().add(span);
            Reporter::after_add(reporter, worker);
        }
    }
}

/// The upstream is told of the request's span, if its tries have none.
pub(super) fn inject(stream: &mut Stream) {
    if let Some(span) = &stream.span
        && !span.spawns
    {
        span.carried
            .inject(&span.context, &mut stream.request.headers);
    }
}

/// The span's context: the request's own, or one that begins here.
fn start(
    provider: &Provider,
    request: &Request,
    traced: bool,
    ingress: bool,
    spawns: bool,
    rng: &mut Rng,
) -> Span {
    // A proxy whose calls have spans of their own is a server in that of the request.
    let kind = if ingress || spawns {
        Kind::Server
    } else {
        Kind::Client
    };
    let (context, carried) = match provider {
        Provider::Zipkin(zipkin) => start_b3(zipkin, request, traced, kind, rng),
        Provider::OpenTelemetry(config) => start_w3c(config, request, traced, rng),
    };
    let mut span = Span {
        context,
        carried,
        kind,
        operation: Vec::new(),
        told: None,
        spawns,
        tries: Vec::new(),
    };
    match provider {
        Provider::Zipkin(_) => span.set_operation(request.authority_bytes()),
        Provider::OpenTelemetry(_) if ingress => span.set_operation(b"ingress"),
        Provider::OpenTelemetry(_) => {
            span.set_operation(b"egress ");
            if span.context.sampled {
                span.operation.extend_from_slice(request.authority_bytes());
            }
        }
    }
    span
}

fn start_b3(
    zipkin: &Zipkin,
    request: &Request,
    traced: bool,
    kind: Kind,
    rng: &mut Rng,
) -> (Context, Carried) {
    let extracted = b3::extract(&request.headers, traced);
    let context = match extracted.context {
        // The span of the caller is taken over where both sides of a call share one.
        Some(context) if zipkin.shared_span_context && kind == Kind::Server => context,
        Some(context) => context.child(rng),
        None => Context::root(
            rng,
            zipkin.trace_id_128bit,
            extracted.sampled.unwrap_or(traced),
        ),
    };
    let carried = Carried::B3 {
        single: extracted.single_header,
    };
    (context, carried)
}

fn start_w3c(
    config: &OpenTelemetry,
    request: &Request,
    traced: bool,
    rng: &mut Rng,
) -> (Context, Carried) {
    let (parent, state) = match w3c::extract(&request.headers) {
        w3c::Extracted::Nothing => (None, Vec::new()),
        w3c::Extracted::Parent(parent, state) => (Some(parent), state),
        w3c::Extracted::Malformed => return (Context::root(rng, true, false), Carried::Not),
    };
    let mut context = match parent {
        Some(parent) => parent.child(rng),
        None => {
            let mut context = Context::root(rng, true, traced);
            // Trace and span have numbers of their own.
            context.trace = rng.next_u64();
            context
        }
    };
    match &config.sampler {
        _ if !traced => context.sampled = false,
        Some(sampler) => {
            context.sampled = otlp::samples(sampler, parent.as_ref(), context.trace_high);
        }
        None => {}
    }
    let carried = Carried::W3c {
        state,
        remote_parent: parent.is_some(),
    };
    (context, carried)
}
