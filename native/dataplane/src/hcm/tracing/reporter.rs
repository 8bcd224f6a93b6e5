//! Spans on their way to the collector: kept until there are enough of them, or long enough.
//!
//! One per worker and provider. Reports go through the collector's cluster as calls of our own; what a collector that
//! is away does not take is dropped and counted, as Envoy does. Knows nothing of what a span says.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate_codec::h1::KnownHeader;
use tidegate_model::tracing::{Exporter, Provider, Zipkin};
use tidegate_snapshot::retry::CompiledRetryPolicy;
use tidegate_stats::defs::{opentelemetry, tracing as stat};
use tidegate_stats::{Group, Local};

use super::otlp;
use crate::hcm::async_client::{self, Answer, CallFailure, CallRequest};
use crate::worker::{Core, Worker, own_timer};

/// Spans that make a report, and the time after which fewer do (`tracing.zipkin.min_flush_spans`,
/// `tracing.zipkin.flush_interval_ms`).
const MIN_SPANS: u64 = 5;
const INTERVAL_MS: u64 = 5000;

/// See the module.
pub(crate) struct Reporter {
    provider: Rc<Provider>,
    /// Of reports by gRPC.
    retry: Option<Arc<CompiledRetryPolicy>>,
    stats: Stats,
    /// JSON without the brackets of the list, or encoded messages.
    spans: Vec<u8>,
    count: u64,
    /// The timer runs.
    timed: bool,
}

enum Stats {
    Zipkin(
        Local<stat::Zipkin>,
        #[expect(dead_code, reason = "keeps it")] Group<stat::Zipkin>,
    ),
    OpenTelemetry(
        Local<opentelemetry::OpenTelemetry>,
        #[expect(dead_code, reason = "keeps it")] Group<opentelemetry::OpenTelemetry>,
    ),
}

impl Stats {
    fn new(core: &mut Core, provider: &Provider) -> Self {
        match provider {
            Provider::Zipkin(_) => {
                let group = core.group("tracing.zipkin.");
                Self::Zipkin(group.local(core.id), group)
            }
            Provider::OpenTelemetry(_) => {
                let group = core.group("tracing.opentelemetry.");
                Self::OpenTelemetry(group.local(core.id), group)
            }
        }
    }

    fn timer_flushed(&self) {
        match self {
            Self::Zipkin(stats, _) => stats.inc(stat::TIMER_FLUSHED),
            Self::OpenTelemetry(stats, _) => stats.inc(opentelemetry::TIMER_FLUSHED),
        }
    }

    /// Of a report to Zipkin.
    fn zipkin(&self, count: impl FnOnce(&Local<stat::Zipkin>)) {
        if let Self::Zipkin(stats, _) = self {
            count(stats);
        }
    }
}

impl Reporter {
    /// The worker's reporter to a provider.
    pub(crate) fn find(core: &mut Core, provider: &Provider) -> Rc<RefCell<Self>> {
        let known = core
            .http
            .reporters
            .iter()
            .find(|reporter| *reporter.borrow().provider == *provider);
        if let Some(reporter) = known {
            return Rc::clone(reporter);
        }
        let reporter = Rc::new(RefCell::new(Self {
            provider: Rc::new(provider.clone()),
            retry: retry_policy(provider),
            stats: Stats::new(core, provider),
            spans: Vec::new(),
            count: 0,
            timed: false,
        }));
        core.http.reporters.push(Rc::clone(&reporter));
        reporter
    }

    pub(crate) fn provider(&self) -> &Rc<Provider> {
        &self.provider
    }

    /// One more span.
    pub(super) fn add(&mut self, span: &[u8]) {
        match &*self.provider {
            Provider::OpenTelemetry(provider)
                if self.count >= u64::from(provider.max_cache_size) =>
            {
                if let Stats::OpenTelemetry(stats, _) = &self.stats {
                    stats.inc(opentelemetry::SPANS_DROPPED);
                }
                return;
            }
            Provider::Zipkin(_) if self.count > 0 => self.spans.push(b','),
            Provider::Zipkin(_) | Provider::OpenTelemetry(_) => {}
        }
        self.spans.extend_from_slice(span);
        self.count += 1;
    }

    /// A span has been added: there may be enough of them.
    pub(super) fn after_add(this: &Rc<RefCell<Self>>, worker: &mut Worker) {
        let runtime = worker.core.snapshot.runtime();
        let (enough, interval) = match &*this.borrow().provider {
            Provider::Zipkin(_) => (
                runtime.integer("tracing.zipkin.min_flush_spans", MIN_SPANS),
                runtime.integer("tracing.zipkin.flush_interval_ms", INTERVAL_MS),
            ),
            Provider::OpenTelemetry(_) => (
                runtime.integer("tracing.opentelemetry.min_flush_spans", MIN_SPANS),
                runtime.integer("tracing.opentelemetry.flush_interval_ms", INTERVAL_MS),
            ),
        };
        if this.borrow().count >= enough {
            return Self::flush(this, worker);
        }
        if !std::mem::replace(&mut this.borrow_mut().timed, true) {
            worker
                .core
                .arm_own(Duration::from_millis(interval), own_timer::FLUSH_SPANS);
        }
    }

    /// The time is over for whatever waits in any of the worker's reporters.
    pub(crate) fn on_timer(worker: &mut Worker) {
        for reporter in worker.core.http.reporters.clone() {
            let waits = {
                let mut this = reporter.borrow_mut();
                let timed = std::mem::take(&mut this.timed);
                if timed {
                    this.stats.timer_flushed();
                }
                timed && this.count > 0
            };
            if waits {
                Self::flush(&reporter, worker);
            }
        }
    }

    fn flush(this: &Rc<RefCell<Self>>, worker: &mut Worker) {
        let (provider, retry, spans) = {
            let mut this = this.borrow_mut();
            let count = std::mem::take(&mut this.count);
            debug_assert!(count > 0);
            match (&this.stats, &*this.provider) {
                (Stats::Zipkin(stats, _), _) => stats.add(stat::SPANS_SENT, count),
                (Stats::OpenTelemetry(stats, _), Provider::OpenTelemetry(provider)) => {
                    if provider.exporter.is_some() {
                        stats.add(opentelemetry::SPANS_SENT, count);
                    }
                }
                (Stats::OpenTelemetry(..), Provider::Zipkin(_)) => {}
            }
            let spans = std::mem::take(&mut this.spans);
            (Rc::clone(&this.provider), this.retry.clone(), spans)
        };
        match &*provider {
            Provider::Zipkin(zipkin) => Self::report(this, worker, zipkin, &spans),
            Provider::OpenTelemetry(provider) => otlp::report(worker, provider, retry, &spans),
        }
    }

    /// To Zipkin.
    fn report(this: &Rc<RefCell<Self>>, worker: &mut Worker, zipkin: &Zipkin, spans: &[u8]) {
        if worker
            .core
            .snapshot
            .cluster_by_name(&zipkin.cluster)
            .is_none()
        {
            let this = this.borrow();
            return this
                .stats
                .zipkin(|stats| stats.inc(stat::REPORTS_SKIPPED_NO_CLUSTER));
        }
        let body = [b"[", spans, b"]"].concat();
        let mut request = CallRequest::new(
            &zipkin.cluster,
            b"POST",
            zipkin.hostname.as_bytes(),
            zipkin.endpoint.as_bytes(),
        );
        request
            .headers
            .add_known(KnownHeader::ContentType, b"application/json");
        request.body = &body;
        request.timeout = Some(zipkin.timeout);
        let reporter = Rc::clone(this);
        let owner = move |_: &mut Worker, answer: Answer| {
            let of = match answer {
                Answer {
                    failure: None,
                    status: 202,
                    ..
                } => stat::REPORTS_SENT,
                Answer {
                    failure: None | Some(CallFailure::Local),
                    ..
                } => stat::REPORTS_DROPPED,
                _ => stat::REPORTS_FAILED,
            };
            reporter.borrow().stats.zipkin(|stats| stats.inc(of));
        };
        async_client::start(worker, request, Some(Box::new(owner)));
    }
}

fn retry_policy(provider: &Provider) -> Option<Arc<CompiledRetryPolicy>> {
    let Provider::OpenTelemetry(provider) = provider else {
        return None;
    };
    let Some(Exporter::Grpc(service)) = &provider.exporter else {
        return None;
    };
    // A policy of a service has no matchers that could fail to compile.
    let compiled = CompiledRetryPolicy::compile(service.retry_policy.as_ref()?);
    compiled.ok().map(Arc::new)
}
