//! What happens when time is up.
//!
//! A connection has one timer, armed for the earliest of all deadlines. It is lazy: a request that keeps its time never
//! touches the wheel.

use tidegate_codec::h1::KnownHeader;
use tidegate_rt::Moment;
use tidegate_snapshot::ResponseFlags;
use tidegate_stats::defs::cluster as cluster_stat;
use tidegate_stats::defs::http as stat;
use tidegate_stats::defs::listener as listener_stat;

use super::local_reply::Reply;
use super::paused::Resume;
use super::stream::{Protocol, Stream, StreamRoute};
use super::{Phase, ServerConnection, grpc_timeout};
use crate::cluster::outlier::Outcome;
use crate::conn::TimerKey;
use crate::worker::{Core, Worker};

impl Stream {
    fn idle_deadline(&self) -> Option<Moment> {
        self.deadlines
            .idle_timeout
            .map(|timeout| self.deadlines.active_at + timeout)
    }

    pub(super) fn next_deadline(&self) -> Option<Moment> {
        let deadlines = &self.deadlines;
        [
            self.idle_deadline(),
            deadlines.request.filter(|_| !self.request.complete),
            deadlines.response,
            deadlines.max_duration,
            deadlines.delay,
            self.tries.as_ref().and_then(|tries| tries.next_deadline()),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// 408 while the request is still coming in, else 504.
const fn timeout_status(stream: &Stream) -> u16 {
    if stream.request.complete { 504 } else { 408 }
}

impl ServerConnection {
    /// The timeouts that a route sets apart from its connection manager.
    pub(super) fn set_route_timeouts(&self, stream: &mut Stream) {
        let Some(forward) = stream.route.as_ref().and_then(StreamRoute::forward) else {
            return;
        };
        if let Some(timeout) = forward.config.idle_timeout {
            stream.deadlines.idle_timeout = timeout;
        }
        let of_manager = self.hcm.config.max_stream_duration;
        let of_route = forward.config.max_stream_duration.as_ref();
        if of_route.is_none() && of_manager.is_none() {
            return;
        }
        let headers = &mut stream.request.headers;
        let limit = grpc_timeout::of_stream(grpc_timeout::asked(headers), of_route, of_manager);
        stream.deadlines.max_duration = limit.map(|limit| stream.times.start + limit);
        if of_route.is_some() && stream.request.grpc {
            match limit {
                Some(limit) => grpc_timeout::tell(headers, limit),
                // Envoy had set a timer and takes back what goes with it.
                None if of_manager.is_some() => {
                    headers.remove_known(KnownHeader::GrpcTimeout);
                }
                None => {}
            }
        }
    }

    /// When the connection has been idle for too long; not again once that has started its drain.
    fn idle_deadline(&self) -> Option<Moment> {
        let timeout = self.hcm.config.idle_timeout.filter(|_| !self.draining);
        timeout.map(|timeout| self.idle_since + timeout)
    }

    /// Envoy's drain sequence: what comes within the drain time is still served, and is the last.
    fn start_drain(&mut self, core: &mut Core) {
        let now = core.now();
        if !self.spoken {
            // A connection that has never said anything has nothing to lose.
            self.phase = Phase::Flushing { linger: false };
        } else if !self.draining {
            self.draining = true;
            self.drain_until = Some(now + self.hcm.config.drain_timeout);
            self.announce_end(core);
        }
    }

    /// As [`Self::start_drain`] for HTTP/2 connections that serve requests.
    pub(super) fn start_drain_sequence(&mut self, core: &mut Core) {
        if !self.draining {
            self.draining = true;
            self.drain_until = Some(core.now() + self.hcm.config.drain_timeout);
            self.announce_end(core);
        }
    }

    /// `transport_socket_connect_timeout`, while the TLS handshake is not done.
    fn handshake_deadline(&self) -> Option<Moment> {
        if !self.downstream.transport.is_handshaking() {
            return None;
        }
        let timeout = self
            .downstream
            .chain
            .config
            .transport_socket_connect_timeout?;
        Some(self.downstream.info.accepted_at + timeout)
    }

    /// Until when a head that has begun must have come.
    fn head_deadline(&self) -> Option<Moment> {
        let since = self.head_since?;
        let config = &self.hcm.config;
        let timeout = earliest(config.request_headers_timeout, config.stream_idle_timeout);
        timeout.map(|timeout| since + timeout)
    }

    fn next_deadline(&self) -> Option<Moment> {
        let of_phase = match (&self.phase, self.streams.first()) {
            (Phase::Open, _) if self.is_http2() && !self.streams.is_empty() => {
                earliest(self.streams.earliest(), self.head_deadline())
            }
            (Phase::Open, Some(stream)) => stream.next_deadline(),
            (Phase::Open, None) => match self.head_since {
                Some(_) => self.head_deadline(),
                None => self.idle_deadline(),
            },
            _ => self.linger_until,
        };
        let of_connection = earliest(
            earliest(self.max_duration, self.drain_until),
            self.handshake_deadline(),
        );
        earliest(earliest(of_phase, of_connection), self.keepalive_deadline())
    }

    /// Brings the timer in line with the earliest deadline.
    pub(super) fn arm(&mut self, core: &mut Core) {
        match self.next_deadline() {
            Some(deadline) => self.timer.set(
                &mut core.timers,
                deadline,
                TimerKey {
                    key: self.key,
                    kind: 0,
                },
            ),
            None => self.timer.clear(),
        }
    }

    pub(super) fn on_timer(&mut self, worker: &mut Worker) {
        let now = worker.core.now();
        if !self.timer.fired(
            &mut worker.core.timers,
            now,
            TimerKey {
                key: self.key,
                kind: 0,
            },
        ) {
            return;
        }
        let due = |deadline: Option<Moment>| deadline.is_some_and(|deadline| deadline <= now);
        if due(self.handshake_deadline()) {
            self.downstream
                .listener
                .stats
                .inc(listener_stat::DOWNSTREAM_CX_TRANSPORT_SOCKET_CONNECT_TIMEOUT);
            self.phase = Phase::Closed;
            return;
        }
        if due(self.max_duration) {
            self.max_duration = None;
            self.hcm.stats.inc(stat::DOWNSTREAM_CX_MAX_DURATION_REACHED);
            self.start_drain(&mut worker.core);
        }
        if due(self.drain_until) {
            self.drain_until = None;
            if self.is_http2() {
                self.say_goodbye(&mut worker.core);
                self.close_if_drained(now);
            } else if self.streams.is_empty() && self.phase == Phase::Open {
                self.flush_and_close(true, now);
            }
        }
        if self.phase == Phase::Open {
            self.on_keepalive_timer(worker, now);
        }
        match self.phase {
            Phase::Open => {}
            Phase::Flushing { .. } | Phase::Lingering => {
                if due(self.linger_until) {
                    self.hcm
                        .stats
                        .inc(stat::DOWNSTREAM_CX_DELAYED_CLOSE_TIMEOUT);
                    self.phase = Phase::Closed;
                }
                return;
            }
            Phase::Closed => return,
        }
        if self.is_http2() && !self.streams.is_empty() {
            self.on_stream_timers(worker, now);
            if due(self.head_deadline()) {
                self.on_idle_timer(worker, now);
            }
            return;
        }
        match self.streams.take(0) {
            Some(stream) => self.on_stream_timer(stream, worker, now),
            None => self.on_idle_timer(worker, now),
        }
    }

    /// One of many streams may be due.
    fn on_stream_timers(&mut self, worker: &mut Worker, now: Moment) {
        self.streams.forget_deadlines();
        for slot in 0..self.streams.slots() {
            let Some(stream) = self.streams.take(slot) else {
                continue;
            };
            if stream
                .next_deadline()
                .is_some_and(|deadline| deadline <= now)
            {
                self.on_stream_timer(stream, worker, now);
            } else {
                self.settle(stream, worker);
            }
        }
    }

    fn on_idle_timer(&mut self, worker: &mut Worker, now: Moment) {
        let due = |deadline: Option<Moment>| deadline.is_some_and(|deadline| deadline <= now);
        let Some(since) = self.head_since else {
            if due(self.idle_deadline()) {
                self.hcm.stats.inc(stat::DOWNSTREAM_CX_IDLE_TIMEOUT);
                self.start_drain(&mut worker.core);
            }
            return;
        };
        if due(self
            .hcm
            .config
            .request_headers_timeout
            .map(|timeout| since + timeout))
        {
            self.hcm.stats.inc(stat::DOWNSTREAM_RQ_HEADER_TIMEOUT);
            self.reply_to_partial_head(
                worker,
                Reply::new(408, b"request header timeout", "request_header_timeout"),
                ResponseFlags::NONE,
            );
        } else if due(self
            .hcm
            .config
            .stream_idle_timeout
            .map(|timeout| since + timeout))
        {
            self.hcm.stats.inc(stat::DOWNSTREAM_RQ_IDLE_TIMEOUT);
            self.reply_to_partial_head(
                worker,
                Reply::new(408, b"stream timeout", "stream_idle_timeout"),
                ResponseFlags::STREAM_IDLE_TIMEOUT,
            );
        }
    }

    /// The stream has lived as long as it may.
    pub(super) fn end_of_life(&mut self, stream: &mut Stream, worker: &mut Worker) {
        stream.deadlines.max_duration = None;
        self.hcm.stats.inc(stat::DOWNSTREAM_RQ_MAX_DURATION_REACHED);
        let reply = Reply {
            // DEADLINE_EXCEEDED
            grpc_status: Some(4),
            ..Reply::new(
                timeout_status(stream),
                b"downstream duration timeout",
                "max_duration_timeout",
            )
        };
        self.reply(stream, worker, reply);
    }

    fn reply_to_partial_head(
        &mut self,
        worker: &mut Worker,
        reply: Reply<'_>,
        flags: ResponseFlags,
    ) {
        let mut stream = self.open_stream(&mut worker.core);
        if self.is_http2() {
            stream.request.protocol = Protocol::Http2;
        }
        stream.times.start = self.head_since.take().unwrap_or(worker.core.now());
        stream.flags.insert(flags);
        self.input = Vec::new();
        self.reply(&mut stream, worker, reply);
        self.settle(stream, worker);
        if self.is_http2() {
            // What has come of the head cannot be taken back: the connection ends.
            self.abort_all(worker, flags, "request_header_timeout");
            self.say_goodbye(&mut worker.core);
            let now = worker.core.now();
            self.flush_and_close(true, now);
        }
    }

    fn on_stream_timer(&mut self, mut stream: Box<Stream>, worker: &mut Worker, now: Moment) {
        let due = |deadline: Option<Moment>| deadline.is_some_and(|deadline| deadline <= now);
        let status = timeout_status(&stream);
        if due(stream.deadlines.delay) {
            stream.deadlines.delay = None;
            self.resume(&mut stream, worker, Resume::Timer);
        } else if due(stream.deadlines.response) {
            stream.deadlines.response = None;
            stream.flags.insert(ResponseFlags::UPSTREAM_REQUEST_TIMEOUT);
            let reply = Reply {
                attempts: true,
                ..Reply::new(504, b"upstream request timeout", "response_timeout")
            };
            if stream.waits_to_retry() {
                // No upstream is to blame.
                self.reply(&mut stream, worker, reply);
                return self.settle(stream, worker);
            }
            if let Some(cluster) = &stream.cluster {
                cluster.stats.inc(cluster_stat::UPSTREAM_RQ_TIMEOUT);
            }
            if let Some(host) = &stream.host {
                host.state.count(|cells| &cells.rq_timeout);
                if !stream.response.started {
                    host.state.put_result(Outcome::LocalTimeout, Some(504));
                }
            }
            self.reply_upstream(&mut stream, worker, reply);
        } else if due(stream
            .tries
            .as_ref()
            .and_then(|tries| tries.next_deadline()))
        {
            self.on_try_timer(&mut stream, worker, now);
        } else if due(stream.deadlines.max_duration) {
            self.end_of_life(&mut stream, worker);
        } else if due(stream.deadlines.request) && !stream.request.complete {
            stream.deadlines.request = None;
            self.hcm.stats.inc(stat::DOWNSTREAM_RQ_TIMEOUT);
            self.reply(
                &mut stream,
                worker,
                Reply::new(status, b"request timeout", "request_overall_timeout"),
            );
        } else if due(stream.idle_deadline()) {
            self.hcm.stats.inc(stat::DOWNSTREAM_RQ_IDLE_TIMEOUT);
            stream.flags.insert(ResponseFlags::STREAM_IDLE_TIMEOUT);
            self.reply(
                &mut stream,
                worker,
                Reply::new(status, b"stream timeout", "stream_idle_timeout"),
            );
        }
        self.settle(stream, worker);
    }
}

fn earliest<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
