//! Tracing: whether a request is traced, its span, and what the other side is told of it.
//!
//! ```text
//! route ─▶ begin_span (x-request-id says whether and why) ─▶ filters ─▶ inject ─▶ upstream
//!             reporter ◀─ end_span ◀─ finish ◀─ decorate_response ◀─────────────────┘
//! ```
//!
//! A request that is not traced has a span too, which only carries the context on. Everything here costs requests of
//! connection managers without tracing one look. Envoy's words and decisions: `ConnectionManagerUtility` for the marks,
//! `HttpTracerUtility` for the tags. How spans are written and where they go is the business of `zipkin` and `reporter`.

pub(crate) mod b3;
pub(crate) mod reporter;
mod tags;
mod zipkin;

use std::cell::RefCell;
use std::rc::Rc;

use tidegate_codec::h1::KnownHeader;
use tidegate_model::listener::TrafficDirection;
use tidegate_model::tracing::{Provider, Sampling};
use tidegate_model::{Fraction, RuntimeFraction};
use tidegate_rt::Rng;
use tidegate_snapshot::Runtime;
use tidegate_snapshot::listener::CompiledHcm;
use tidegate_stats::defs::http as stat;

use self::b3::Context;
use self::reporter::Reporter;
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
            reporter: provider.map(|provider| Reporter::find(core, &provider)),
        })
    }
}

/// The span of a request.
pub(crate) struct Span {
    context: Context,
    /// It is reported.
    traced: bool,
    /// The context goes on in the single header that it came in.
    single_header: bool,
    operation: Vec<u8>,
    /// The operation is the route's; `true`: and the other side is told.
    decorated: Option<bool>,
}

/// Marks the request's id with whether it is traced, as the samplings and the runtime say.
fn decide(headers: &mut HeaderList, sampling: Sampling, runtime: &Runtime) {
    let Some(id) = headers.known(KnownHeader::XRequestId) else {
        return;
    };
    // What has no number is not traced.
    let number = id.get(..8).and_then(|text| std::str::from_utf8(text).ok());
    let Some(number) = number.and_then(|text| u64::from_str_radix(text, 16).ok()) else {
        return;
    };
    let hits = |key: &str, fraction: Fraction| {
        runtime.hits(
            &RuntimeFraction {
                default: fraction,
                runtime_key: Some(key.into()),
            },
            number,
        )
    };
    let mut reason = Reason::of(id);
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
    let mut marked = id.to_vec();
    if marked.len() == UUID_LENGTH
        && let Some(place) = marked.get_mut(REASON)
        && *place != reason.digit()
    {
        *place = reason.digit();
        headers.set_known(KnownHeader::XRequestId, &marked);
    }
}

impl ServerConnection {
    /// The route is known, or that there is none: the request's span begins.
    pub(super) fn begin_span(&self, stream: &mut Stream, core: &mut Core) {
        let Some(tracing) = &self.hcm.tracing else {
            return;
        };
        let of_route = stream
            .route
            .as_ref()
            .and_then(|route| route.route().config.tracing.as_ref());
        let sampling = of_route.map_or(tracing.sampling, |of_route| of_route.sampling);
        decide(
            &mut stream.request.headers,
            sampling,
            core.snapshot.runtime(),
        );
        let id = stream.request.headers.known(KnownHeader::XRequestId);
        let reason = Reason::of(id.unwrap_or_default());
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
        let provider = Rc::clone(reporter.borrow().provider());
        let mut span = start(
            &provider,
            &stream.request,
            traced,
            tracing.ingress,
            &mut core.rng,
        );
        let decorator = stream
            .route
            .as_ref()
            .and_then(|route| route.route().config.decorator.as_ref());
        if let Some(decorator) = decorator.filter(|decorator| !decorator.operation.is_empty()) {
            span.operation.clear();
            span.operation
                .extend_from_slice(decorator.operation.as_bytes());
            span.decorated = Some(decorator.propagate);
        }
        let headers = &mut stream.request.headers;
        if tracing.ingress {
            if let Some(told) = headers.known(KnownHeader::XEnvoyDecoratorOperation) {
                if !told.is_empty() {
                    span.operation = told.to_vec();
                }
                span.decorated = None;
                headers.remove_known(KnownHeader::XEnvoyDecoratorOperation);
            }
        } else if span.decorated == Some(true) {
            headers.set_known(KnownHeader::XEnvoyDecoratorOperation, &span.operation);
        }
        stream.span = Some(Box::new(span));
    }

    /// What callers and called tell each other of the operation, in the response's head.
    pub(super) fn decorate_response(&self, stream: &mut Stream) {
        let (Some(tracing), Some(span)) = (&self.hcm.tracing, &mut stream.span) else {
            return;
        };
        let headers = &mut stream.response.headers;
        if tracing.ingress {
            if span.decorated == Some(true) {
                headers.set_known(KnownHeader::XEnvoyDecoratorOperation, &span.operation);
            }
        } else if let Some(told) = headers.known(KnownHeader::XEnvoyDecoratorOperation) {
            if !told.is_empty() {
                span.operation = told.to_vec();
            }
            headers.remove_known(KnownHeader::XEnvoyDecoratorOperation);
        }
    }

    /// The stream is over: its span is handed to the reporter, if it is traced.
    pub(super) fn end_span(&self, stream: &mut Stream, worker: &mut Worker) {
        let Some(span) = stream
            .span
            .take()
            .filter(|span| span.traced && span.context.sampled)
        else {
            return;
        };
        let Some(tracing) = &self.hcm.tracing else {
            return;
        };
        let (Some(reporter), Some(compiled)) = (
            &tracing.reporter,
            self.hcm
                .compiled()
                .and_then(|compiled| compiled.tracing.as_ref()),
        ) else {
            return;
        };
        let core = &mut worker.core;
        let local = core.http.local_address().to_owned();
        let tags = tags::Tags::new(self, stream, compiled, &core.shared.config.node);
        let begun = core.clock.wall_of(stream.times.start);
        let took = core.now().since(stream.times.start);
        reporter.borrow_mut().add(|out| {
            zipkin::write(
                out,
                &span.context,
                &span.operation,
                zipkin::Moments { begun, took },
                tracing.ingress,
                zipkin::Endpoint {
                    service: &core.shared.config.node.cluster,
                    address: &local,
                },
                &tags,
            );
        });
        Reporter::after_add(reporter, worker);
    }
}

/// The upstream is told of the span.
pub(super) fn inject(stream: &mut Stream) {
    if let Some(span) = &stream.span {
        span.context
            .inject(&mut stream.request.headers, span.single_header);
    }
}

/// The span's context: the request's own, or one that begins here.
fn start(
    provider: &Provider,
    request: &Request,
    traced: bool,
    ingress: bool,
    rng: &mut Rng,
) -> Span {
    let Provider::Zipkin(zipkin) = provider;
    let extracted = b3::extract(&request.headers, traced);
    let context = match extracted.context {
        // The span of the caller is taken over where both sides of a call share one.
        Some(context) if zipkin.shared_span_context && ingress => context,
        Some(context) => context.child(rng),
        None => Context::root(
            rng,
            zipkin.trace_id_128bit,
            extracted.sampled.unwrap_or(traced),
        ),
    };
    Span {
        context,
        traced: true,
        single_header: extracted.single_header,
        operation: request.authority_bytes().to_vec(),
        decorated: None,
    }
}

/// The tags of a route go before those of the connection manager.
fn route_tags(route: Option<&StreamRoute>) -> Vec<tidegate_snapshot::tracing::CompiledTag> {
    route
        .and_then(|route| route.route().config.tracing.as_ref())
        .map(|tracing| tidegate_snapshot::tracing::compile_tags(&tracing.custom_tags))
        .unwrap_or_default()
}
