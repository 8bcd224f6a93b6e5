//! An upstream connection that speaks HTTP/2: many requests at a time, each with a token.
//!
//! What the codec has to say leaves once per pass of the loop. What the answers mean is told by `hcm/upstream_http2.rs`.

mod requests;
mod timers;

use std::sync::Arc;

use tidegate_codec::h2::{
    ConnectionError, ErrorCode, Event, Input, Options, ResetBy, Role, StreamFault, StreamRef,
};
use tidegate_rt::Moment;
use tidegate_stats::defs::{cluster as stat, http2};

use super::connection::{ClientConnection, State};
use super::{Offered, offer};
use crate::conn::After;
use crate::hcm::{Lost, Requester, StreamKey};
use crate::http2::{Keepalive, Wire, overflow_counter};
use crate::worker::{Core, Worker};

/// A request that the connection serves.
#[derive(Debug, Clone, Copy)]
struct Request {
    stream: StreamKey,
    wire: StreamRef,
}

/// What an HTTP/2 connection has that one of HTTP/1 has not.
pub(super) struct Http2 {
    wire: Wire,
    /// By token.
    requests: Vec<Option<Request>>,
    free: Vec<u32>,
    /// Upgrades that wait for the upstream's SETTINGS, which tell whether it takes them.
    upgrades: Vec<StreamKey>,
    /// No more requests, please.
    pub(super) draining: bool,
    keepalive: Option<Keepalive>,
    /// When something last came from the upstream.
    heard: Moment,
}

impl Http2 {
    fn new(options: &Arc<Options>, heard: Moment) -> Self {
        Self {
            wire: Wire::new(Role::Client, options),
            requests: Vec::new(),
            free: Vec::new(),
            upgrades: Vec::new(),
            draining: false,
            keepalive: None,
            heard,
        }
    }

    fn request(&self, token: u32) -> Option<Request> {
        self.requests.get(token as usize).copied().flatten()
    }

    /// As [`Self::request`], if the token still stands for that stream.
    fn request_of(&self, token: u32, stream: StreamKey) -> Option<Request> {
        self.request(token)
            .filter(|request| request.stream == stream)
    }

    fn forget(&mut self, token: u32) {
        if let Some(request) = self.requests.get_mut(token as usize)
            && request.take().is_some()
        {
            self.free.push(token);
        }
    }

    fn active(&self) -> usize {
        self.requests.len() - self.free.len() + self.upgrades.len()
    }
}

impl ClientConnection {
    pub(super) fn speak_http2(&mut self, core: &Core) {
        let cluster = &self.guard.cluster;
        let stats = cluster.http2_stats.make(&core.shared.registry, core.id);
        stats.inc(http2::NGHTTP2_UPSTREAM_CONNECTIONS);
        self.http2 = Some(Box::new(Http2::new(&cluster.http2, core.now())));
    }

    /// Takes over what the codec has counted.
    fn count_http2(&mut self) {
        if let Some(http2) = &mut self.http2 {
            http2.wire.count(&self.guard.cluster.http2_stats);
        }
    }

    /// The connection is gone.
    pub(super) fn forget_http2(&mut self) {
        if let Some(http2) = self.http2.take() {
            http2.wire.forget(&self.guard.cluster.http2_stats);
        }
    }

    pub(crate) const fn is_http2(&self) -> bool {
        self.http2.is_some()
    }

    /// Requests that it serves.
    pub(super) fn active_requests(&self) -> usize {
        match &self.http2 {
            Some(http2) => http2.active(),
            None => usize::from(matches!(self.state, State::Busy(_))),
        }
    }

    /// How many more requests it can take now.
    pub(super) fn capacity(&self) -> u32 {
        match &self.http2 {
            Some(http2) if self.state == State::Shared && !http2.draining => {
                let left = self
                    .guard
                    .cluster
                    .config
                    .http
                    .max_requests_per_connection
                    .map_or(u32::MAX, |max| max.saturating_sub(self.requests));
                http2.wire.codec.free_streams().min(left)
            }
            _ => 0,
        }
    }

    fn flush_later(&mut self, core: &mut Core) {
        if let Some(http2) = &mut self.http2 {
            http2.wire.flush_later(core, self.key);
        }
    }

    fn lend_output(&mut self, core: &mut Core) {
        if let Some(http2) = &mut self.http2 {
            http2.wire.lend_output(core);
        }
    }

    /// HTTP/2: takes requests that wait, as many as there is room for; without any it is idle, or ends.
    pub(super) fn serve(&mut self, worker: &mut Worker) -> After {
        if self.state != State::Shared {
            return After::Keep;
        }
        while self.capacity() > 0 {
            match offer(worker, self) {
                Offered::Taken => {}
                Offered::Nobody => break,
                Offered::Gone => {
                    self.drain(worker);
                    break;
                }
            }
        }
        let now = worker.core.now();
        if !self.is_draining() {
            let exhausted = self.is_exhausted();
            if exhausted || super::is_past(self.max_duration, now) {
                self.guard.cluster.stats.inc(if exhausted {
                    stat::UPSTREAM_CX_MAX_REQUESTS
                } else {
                    stat::UPSTREAM_CX_MAX_DURATION_REACHED
                });
                self.drain(worker);
            }
        }
        if self.active_requests() == 0 {
            if self.is_draining() {
                return self.finish(worker, true);
            }
            if self.deadline.is_none() {
                let timeout = self.guard.cluster.config.http.idle_timeout;
                self.deadline = timeout.map(|timeout| now + timeout);
            }
        }
        self.arm(&mut worker.core);
        After::Keep
    }

    /// Received bytes.
    pub(super) fn on_http2_input(&mut self, worker: &mut Worker, bytes: &[u8]) -> After {
        if let Some(http2) = &mut self.http2 {
            http2.heard = worker.core.now();
        }
        let mut input = Input::new(bytes);
        self.pump_http2(worker, &mut input)
    }

    fn pump_http2(&mut self, worker: &mut Worker, input: &mut Input<'_>) -> After {
        let now = worker.core.now_millis();
        self.lend_output(&mut worker.core);
        let active = self.active_requests();
        loop {
            let Some(http2) = &mut self.http2 else {
                return After::Keep;
            };
            match http2
                .wire
                .codec
                .next(input, &mut worker.core.http.fields, now)
            {
                Ok(Some(event)) => self.on_http2_event(worker, event),
                Ok(None) => break,
                Err(error) => return self.on_http2_error(worker, error),
            }
        }
        self.count_http2();
        let Some(http2) = &self.http2 else {
            return After::Keep;
        };
        if !http2.wire.codec.output().is_empty() {
            self.flush_later(&mut worker.core);
        }
        if self.active_requests() < active {
            return self.serve(worker);
        }
        After::Keep
    }

    fn on_http2_event(&mut self, worker: &mut Worker, event: Event<'_>) {
        match event {
            Event::Response {
                token, status, end, ..
            } => {
                self.deliver(worker, token, |requester, worker, up, stream| {
                    requester.on_upstream_head(worker, up, stream, status, end);
                });
                if end {
                    self.response_ended(&mut worker.core, token);
                }
            }
            Event::Data {
                stream,
                token,
                bytes,
                end,
            } => {
                let delivered = self.deliver(worker, token, |requester, worker, up, stream| {
                    requester.on_upstream_body(worker, up, stream, token, bytes, end);
                });
                if let Some(http2) = &mut self.http2
                    && !delivered
                {
                    http2.wire.codec.release(stream, bytes.len());
                }
                if end {
                    self.response_ended(&mut worker.core, token);
                }
            }
            Event::Trailers { token, .. } => {
                self.deliver(worker, token, |requester, worker, up, stream| {
                    requester.on_upstream_trailers(worker, up, stream);
                });
                self.response_ended(&mut worker.core, token);
            }
            Event::Writable { token, .. } => {
                self.deliver(worker, token, |requester, worker, up, stream| {
                    requester.on_upstream_writable(worker, up, stream, token);
                });
            }
            Event::Reset {
                token, code, by, ..
            } => {
                let lost = match by {
                    ResetBy::GoAway => Lost::GoneAway,
                    // Envoy takes a head that is too large for a reset.
                    ResetBy::Fault(StreamFault::Overflow(overflow)) => {
                        let stats = &self.guard.cluster.http2_stats;
                        stats.inc(overflow_counter(overflow));
                        Lost::Reset
                    }
                    ResetBy::Fault(_) => {
                        self.count_protocol_error();
                        Lost::ProtocolError
                    }
                    ResetBy::Peer => match code {
                        ErrorCode::REFUSED_STREAM => Lost::Refused,
                        ErrorCode::CONNECT_ERROR => Lost::ConnectError,
                        ErrorCode::PROTOCOL_ERROR => Lost::ProtocolError,
                        _ => Lost::Reset,
                    },
                };
                match lost {
                    Lost::Reset => self.guard.cluster.stats.inc(stat::UPSTREAM_RQ_RX_RESET),
                    Lost::ProtocolError => {
                        self.guard.cluster.stats.inc(stat::UPSTREAM_RQ_TX_RESET);
                    }
                    _ => {}
                }
                self.lose(worker, token, lost);
            }
            Event::GoAway { .. } => {
                self.count_close_notify();
                self.drain(worker);
            }
            Event::Settings => {
                self.send_upgrades(worker);
                worker.core.nudge(self.key, super::connection::NUDGE_OFFER);
            }
            Event::Pong { .. } => {
                let now = worker.core.now();
                if let Some(http2) = &mut self.http2
                    && let Some(keepalive) = &mut http2.keepalive
                {
                    keepalive.on_pong(now, &mut worker.core.rng);
                }
            }
            Event::Request { .. } | Event::TooLarge { .. } | Event::Refused { .. } => {}
        }
    }

    /// Calls the one that a request belongs to. `false`: nobody waits for it any more.
    fn deliver(
        &mut self,
        worker: &mut Worker,
        token: u32,
        what: impl FnOnce(&mut Requester, &mut Worker, &mut Self, StreamKey),
    ) -> bool {
        let Some(stream) = self
            .http2
            .as_ref()
            .and_then(|http2| http2.request(token))
            .map(|request| request.stream)
        else {
            return false;
        };
        let Some(mut requester) = Requester::take(worker, stream.connection) else {
            return false;
        };
        what(&mut requester, worker, self, stream);
        requester.put_back(worker);
        true
    }

    /// The response is complete. If the request is not, the upstream has no use for the rest.
    fn response_ended(&mut self, core: &mut Core, token: u32) {
        let Some(http2) = &mut self.http2 else {
            return;
        };
        let Some(request) = http2.request(token) else {
            return;
        };
        if http2.wire.codec.is_live(request.wire) {
            http2.wire.codec.reset(request.wire, ErrorCode::NO_ERROR);
            self.guard.cluster.stats.inc(stat::UPSTREAM_RQ_TX_RESET);
        }
        http2.forget(token);
        self.flush_later(core);
    }

    /// A request will get no answer, or no more of it.
    fn lose(&mut self, worker: &mut Worker, token: u32, lost: Lost) {
        self.deliver(worker, token, |requester, worker, _, stream| {
            requester.on_upstream_lost(worker, stream, lost);
        });
        if let Some(http2) = &mut self.http2 {
            if lost == Lost::ConnectionTermination && http2.request(token).is_some() {
                // Envoy counts them so, whether they waited or not.
                let stats = &self.guard.cluster.stats;
                stats.inc(stat::UPSTREAM_RQ_PENDING_FAILURE_EJECT);
            }
            http2.forget(token);
        }
    }

    /// All requests are lost with the connection.
    pub(super) fn lose_all(&mut self, worker: &mut Worker, lost: Lost) {
        let count = self
            .http2
            .as_ref()
            .map_or(0, |http2| http2.requests.len() as u32);
        for token in 0..count {
            self.lose(worker, token, lost);
        }
        for stream in self.take_upgrades() {
            if let Some(mut requester) = Requester::take(worker, stream.connection) {
                requester.on_upstream_lost(worker, stream, lost);
                requester.put_back(worker);
            }
        }
    }

    /// Takes no more requests, and goes when the last one is done.
    pub(super) fn drain(&mut self, worker: &mut Worker) {
        if let Some(http2) = &mut self.http2
            && !http2.draining
        {
            http2.draining = true;
            super::not_ready(worker, self.pool, self.key);
            worker.core.nudge(self.key, super::connection::NUDGE_OFFER);
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.http2.as_ref().is_some_and(|http2| http2.draining)
    }

    fn on_http2_error(&mut self, worker: &mut Worker, error: ConnectionError) -> After {
        if error != ConnectionError::Ended {
            self.count_protocol_error();
        }
        // Its goodbye, as far as the socket takes it.
        if let Some(http2) = &mut self.http2 {
            let _unsent = self
                .transport
                .send(&mut worker.core, &[http2.wire.codec.output()]);
        }
        if self.active_requests() > 0 {
            let stats = &self.guard.cluster.stats;
            stats.inc(stat::UPSTREAM_CX_DESTROY_LOCAL_WITH_ACTIVE_RQ);
            stats.inc(stat::UPSTREAM_CX_DESTROY_WITH_ACTIVE_RQ);
        }
        self.lose_all(worker, Lost::ProtocolError);
        self.finish(worker, true)
    }

    /// The end of the pass, or the socket takes more: writes the output.
    pub(super) fn flush_http2(&mut self, worker: &mut Worker) -> After {
        let Some(http2) = &mut self.http2 else {
            return After::Keep;
        };
        let mut wrote = 0;
        if self.broken.is_none() {
            let written = http2.wire.write(&mut worker.core, &mut self.transport);
            wrote = written.count;
            self.broken = written.error;
        }
        self.guard
            .cluster
            .stats
            .add(stat::UPSTREAM_CX_TX_BYTES_TOTAL, wrote as u64);
        if self.broken.is_some() {
            return self.on_closed(worker);
        }
        let Some(http2) = &mut self.http2 else {
            return After::Keep;
        };
        http2.wire.count(&self.guard.cluster.http2_stats);
        http2.wire.reclaim_output(&mut worker.core);
        if wrote > 0 {
            return self.pump_http2(worker, &mut Input::empty());
        }
        After::Keep
    }
}
