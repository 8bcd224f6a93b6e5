//! Spans on their way to the collector: kept until there are enough of them, or long enough.
//!
//! One per worker and provider. Reports go through the collector's cluster as calls of our own; what a collector that
//! is away does not take is dropped and counted, as Envoy does. Knows nothing of what a span says.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tidegate_codec::h1::KnownHeader;
use tidegate_model::tracing::Provider;
use tidegate_stats::defs::tracing::{self as stat, Zipkin};
use tidegate_stats::{Group, Local};

use crate::hcm::async_client::{self, Answer, CallFailure, CallRequest};
use crate::worker::{Core, Worker, own_timer};

/// Spans that make a report, and the time after which fewer do (`tracing.zipkin.min_flush_spans`,
/// `tracing.zipkin.flush_interval_ms`).
const MIN_SPANS: u64 = 5;
const INTERVAL_MS: u64 = 5000;

/// See the module.
pub(crate) struct Reporter {
    provider: Rc<Provider>,
    stats: Local<Zipkin>,
    _group: Group<Zipkin>,
    /// JSON, without the brackets of the list.
    spans: Vec<u8>,
    count: u64,
    /// The timer runs.
    timed: bool,
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
        let group = core.group::<Zipkin>("tracing.zipkin.");
        let reporter = Rc::new(RefCell::new(Self {
            provider: Rc::new(provider.clone()),
            stats: group.local(core.id),
            _group: group,
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

    /// One more span, written by `write`.
    pub(super) fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.count > 0 {
            self.spans.push(b',');
        }
        write(&mut self.spans);
        self.count += 1;
    }

    /// A span has been added: there may be enough of them.
    pub(super) fn after_add(this: &Rc<RefCell<Self>>, worker: &mut Worker) {
        let runtime = worker.core.snapshot.runtime();
        let enough = runtime.integer("tracing.zipkin.min_flush_spans", MIN_SPANS);
        let interval = runtime.integer("tracing.zipkin.flush_interval_ms", INTERVAL_MS);
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
                    this.stats.inc(stat::TIMER_FLUSHED);
                }
                timed && this.count > 0
            };
            if waits {
                Self::flush(&reporter, worker);
            }
        }
    }

    fn flush(this: &Rc<RefCell<Self>>, worker: &mut Worker) {
        let (provider, body, count) = {
            let mut this = this.borrow_mut();
            let mut body = Vec::with_capacity(this.spans.len() + 2);
            body.push(b'[');
            body.append(&mut this.spans);
            body.push(b']');
            let count = std::mem::take(&mut this.count);
            this.stats.add(stat::SPANS_SENT, count);
            (Rc::clone(&this.provider), body, count)
        };
        debug_assert!(count > 0);
        let Provider::Zipkin(zipkin) = &*provider;
        if worker
            .core
            .snapshot
            .cluster_by_name(&zipkin.cluster)
            .is_none()
        {
            return this.borrow().stats.inc(stat::REPORTS_SKIPPED_NO_CLUSTER);
        }
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
            reporter.borrow().stats.inc(of);
        };
        async_client::start(worker, request, Some(Box::new(owner)));
    }
}
