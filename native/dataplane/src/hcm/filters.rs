//! The HTTP filters before the router: CORS and fault injection.

use std::rc::Rc;

use tidegate_snapshot::ResponseFlags;
use tidegate_snapshot::cors::CorsDecision;
use tidegate_snapshot::fault::Abort;
use tidegate_stats::defs::{cors, fault as fault_stat};

use super::ServerConnection;
use super::local_reply::Reply;
use super::paused::BodyDemand;
use super::runtime::{Filter, FilterKind};
use super::stream::{Stream, StreamRoute};
use crate::worker::Worker;

/// What a filter decides about the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Continue,
    /// It has been answered.
    Answered,
    /// It will be asked again when its event has come, see `paused`.
    Wait,
    /// As `Wait`, when the body has come.
    WaitForBody(BodyDemand),
}

impl ServerConnection {
    pub(super) fn is_disabled(&self, stream: &Stream, filter: Filter) -> bool {
        let Some(config) = self
            .manager_of(stream)
            .config
            .http_filters
            .get(filter.index)
        else {
            return false;
        };
        match &stream.route {
            Some(route) => route.per_filter().disabled(&config.name, config.disabled),
            None => config.disabled,
        }
    }

    /// There is no configuration of a filter.
    pub(super) fn missing_filter(&mut self, stream: &mut Stream, worker: &mut Worker) -> Verdict {
        self.choose_cluster(stream, &mut worker.core);
        stream.flags.insert(ResponseFlags::NO_FILTER_CONFIG_FOUND);
        self.reply(stream, worker, Reply::new(500, b"", ""));
        Verdict::Answered
    }

    /// The filters' response side, from the last to the first, for the head of any response; `at`: where it stands. `ends`:
    /// nothing follows. Returns where to go on, if the head has to wait.
    pub(super) fn run_encoders(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        at: usize,
        ends: bool,
    ) -> Option<usize> {
        let hcm = Rc::clone(self.manager_of(stream));
        for (at, filter) in hcm.encoders.iter().enumerate().skip(at) {
            if self.is_disabled(stream, *filter) {
                continue;
            }
            match filter.kind {
                FilterKind::Lua => {
                    let ends = ends && !Self::lua_has_added(stream);
                    if !self.lua_response_head(stream, worker, filter.index, ends) {
                        return Some(at + 1);
                    }
                }
                FilterKind::Compressor => {
                    let ends = ends && !Self::lua_has_added(stream);
                    self.compress_head(stream, &worker.core, filter.index, ends);
                }
                FilterKind::HeaderMutation => {
                    self.mutate_response_headers(stream, &worker.core, filter.index);
                }
                _ => {}
            }
        }
        None
    }

    /// The CORS filter's request side.
    pub(super) fn cors(&mut self, stream: &mut Stream, worker: &mut Worker) -> Verdict {
        // Envoy's filter does nothing for redirects and direct responses.
        let forwards = |route: &&StreamRoute| route.forward().is_some();
        let Some(policy) = stream
            .route
            .as_ref()
            .filter(forwards)
            .and_then(|route| route.per_filter().cors())
        else {
            return Verdict::Continue;
        };
        let request = &stream.request;
        let runtime = std::sync::Arc::clone(worker.core.snapshot.runtime());
        if let Some(stats) = &self.hcm.cors_stats
            && let Some(valid) = policy.verdict_to_count(request, stream.random, &runtime)
        {
            stats.inc(if valid {
                cors::ORIGIN_VALID
            } else {
                cors::ORIGIN_INVALID
            });
        }
        match policy.decide(request, stream.random, &runtime) {
            CorsDecision::Ignore => Verdict::Continue,
            CorsDecision::Annotate => {
                stream.cors = true;
                Verdict::Continue
            }
            CorsDecision::Preflight => {
                stream.response.headers.clear();
                let headers = &mut stream.response.headers;
                policy
                    .preflight_headers(request, |name, value| headers.add(name.as_bytes(), value));
                stream.cors = true;
                stream.response.status = 200;
                stream.details = std::borrow::Cow::Borrowed("cors_response");
                self.choose_cluster(stream, &mut worker.core);
                self.send_reply(stream, worker, &[]);
                Verdict::Answered
            }
        }
    }

    /// The CORS filter's response side.
    pub(super) fn annotate_cors(&self, stream: &mut Stream) {
        let Some(policy) = stream
            .route
            .as_ref()
            .and_then(|route| route.per_filter().cors())
        else {
            return;
        };
        let Some(origin) = policy.origin(&stream.request) else {
            return;
        };
        let headers = &mut stream.response.headers;
        policy.response_headers(origin, |name, value| headers.set(name.as_bytes(), value));
    }

    /// The fault filter: holds the request, aborts it, or lets it pass.
    pub(super) fn fault(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        index: usize,
    ) -> Verdict {
        self.choose_cluster(stream, &mut worker.core);
        let hcm = Rc::clone(self.manager_of(stream));
        let of_route = stream
            .route
            .as_ref()
            .and_then(|route| route.per_filter().fault());
        let of_filter = || hcm.filter(index)?.fault.as_ref();
        let Some(fault) = of_route.or_else(of_filter) else {
            return Verdict::Continue;
        };
        let cluster = stream.cluster.as_ref().map(|cluster| &*cluster.config.name);
        if !fault.applies(&stream.request, cluster) {
            return Verdict::Continue;
        }
        if let Some(max) = fault.config.max_active_faults
            && let Some(stats) = &self.hcm.fault_stats
            && stats.gauge(fault_stat::ACTIVE_FAULTS) >= i64::from(max)
        {
            stats.inc(fault_stat::FAULTS_OVERFLOW);
            return Verdict::Continue;
        }
        let delay = fault.delay(&stream.request, worker.core.rng.next_u64());
        // Whether to abort is decided now, and done when the delay is over.
        let abort = fault.abort(&stream.request, worker.core.rng.next_u64());
        if delay.is_some() || abort.is_some() {
            stream.active_fault = true;
            if let Some(stats) = &self.hcm.fault_stats {
                stats.gauge_inc(fault_stat::ACTIVE_FAULTS);
            }
        }
        if let Some(delay) = delay {
            if let Some(stats) = &self.hcm.fault_stats {
                stats.inc(fault_stat::DELAYS_INJECTED);
            }
            stream.flags.insert(ResponseFlags::DELAY_INJECTED);
            stream.deadlines.delay = Some(worker.core.now() + delay);
            stream.abort = abort;
            return Verdict::Wait;
        }
        match abort {
            Some(abort) => {
                self.abort_request(stream, worker, abort);
                Verdict::Answered
            }
            None => Verdict::Continue,
        }
    }

    fn abort_request(&mut self, stream: &mut Stream, worker: &mut Worker, abort: Abort) {
        if let Some(stats) = &self.hcm.fault_stats {
            stats.inc(fault_stat::ABORTS_INJECTED);
        }
        stream.flags.insert(ResponseFlags::FAULT_INJECTED);
        let (status, grpc_status) = match abort {
            Abort::HttpStatus(status) => (status, None),
            Abort::GrpcStatus(status) => (200, Some(status)),
        };
        let reply = Reply {
            grpc_status: grpc_status.map(i64::from),
            ..Reply::new(status, b"fault filter abort", "fault_filter_abort")
        };
        self.reply(stream, worker, reply);
    }

    /// An injected delay is over.
    pub(super) fn after_delay(&mut self, stream: &mut Stream, worker: &mut Worker) -> Verdict {
        self.end_fault(stream);
        match stream.abort.take() {
            Some(abort) => {
                self.abort_request(stream, worker, abort);
                Verdict::Answered
            }
            None => Verdict::Continue,
        }
    }

    /// The stream no longer counts among the active faults.
    pub(super) fn end_fault(&self, stream: &mut Stream) {
        if std::mem::take(&mut stream.active_fault)
            && let Some(stats) = &self.manager_of(stream).fault_stats
        {
            stats.gauge_dec(fault_stat::ACTIVE_FAULTS);
        }
    }
}
