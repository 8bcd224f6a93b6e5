//! Filters that wait: the request's filter chain stops at one of them and goes on when its event has come.
//!
//! A filter that returns [`Verdict::Wait`] or [`Verdict::WaitForBody`] stays the stream's filter at hand; its event is given to
//! [`ServerConnection::resume`], which asks it again and runs the rest of the chain:
//!
//! ```text
//! run_filters ─▶ filter ─▶ Wait ───────────▶ Answer, Timer ────────▶ filter ─▶ run_filters ─▶ … ─▶ router
//!                      └─▶ WaitForBody ─▶ hold_body … ─▶ Body ────────┘
//! ```
//!
//! What comes of the body meanwhile waits with the stream, as flow control lets it; a filter that wants the body gets it as
//! payload, up to its limit, whatever framed it. Whichever way the stream ends, the calls that the filter has under way
//! are cancelled. What filters ask and answer is their own affair.

use tidegate_codec::h1::BodyTracker;
use tidegate_stats::defs::http as stat;

use super::async_client::{self, Answer, CallRequest, Owner};
use super::filters::Verdict;
use super::http1::feed_payload;
use super::local_reply::Reply;
use super::runtime::FilterKind;
use super::stream::{Attached, Stream};
use super::{NUDGE_READ, ServerConnection, StreamKey, put_back};
use crate::conn::{Conn, Key};
use crate::worker::{Core, Worker};

/// A filter that waits.
#[derive(Default)]
pub(crate) struct Pause {
    /// What it has under way.
    calls: Vec<Key>,
    demand: Option<BodyDemand>,
}

/// How much of the request's body a filter wants to see before it decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BodyDemand {
    pub(crate) limit: usize,
    /// The first `limit` bytes will do; else a longer body is answered with 413.
    pub(crate) partial: bool,
}

/// What a filter has waited for.
pub(crate) enum Resume {
    Answer(Answer),
    /// The stream's `deadlines.delay` is over.
    Timer,
    /// The body is there, as far as it was asked for: [`Stream::held_body`].
    Body,
}

impl Stream {
    /// The filter at hand asks for the body, which is let in although nobody takes it on.
    pub(super) fn demands_body(&self) -> bool {
        self.pause
            .as_ref()
            .is_some_and(|pause| pause.demand.is_some())
    }

    /// What has been received of the body and waits, at most `limit` bytes.
    pub(super) fn held_body(&self, limit: usize) -> Vec<u8> {
        let pending = &self.request.pending;
        let count = pending.len().div_ceil(tidegate_buf::SEGMENT_SIZE) + 2;
        let mut slices = vec![std::io::IoSlice::new(&[]); count];
        let used = pending.slices(&mut slices);
        let mut body = Vec::with_capacity(pending.len().min(limit));
        for slice in slices.iter().take(used) {
            let room = limit - body.len();
            body.extend_from_slice(slice.get(..room.min(slice.len())).unwrap_or_default());
        }
        body
    }

    /// Takes received bytes out of HTTP/1's chunks, if they came in some.
    pub(super) fn unframe<'b>(&mut self, bytes: &'b [u8], several: &'b mut Vec<u8>) -> &'b [u8] {
        let request = &mut self.request;
        if !matches!(request.unframe, BodyTracker::Chunked(_)) {
            return bytes;
        }
        // They have been checked on their way in.
        let trailers = request.takes_trailers.then_some(&mut request.trailers);
        feed_payload(&mut request.unframe, bytes, several, trailers)
            .map_or(&[][..], |(payload, _)| payload)
    }
}

impl ServerConnection {
    /// Sends a request on behalf of the filter at hand, which gets [`Resume::Answer`] unless the stream ends before.
    /// The filter returns [`Verdict::Wait`].
    pub(super) fn call(stream: &mut Stream, worker: &mut Worker, request: CallRequest<'_>) {
        let key = stream.key;
        let owner: Owner =
            Box::new(move |worker, answer| resume_stream(worker, key, Resume::Answer(answer)));
        let call = async_client::start(worker, request, Some(owner));
        stream.pause.get_or_insert_default().calls.push(call);
    }

    /// The filter at hand has said that it waits. `body`: what was received with the head and is not kept yet.
    /// Returns what it says next, if what it waits for is there already.
    pub(super) fn pause(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        body: Attached<'_>,
        demand: Option<BodyDemand>,
    ) -> Option<Verdict> {
        stream.pause.get_or_insert_default().demand = demand;
        stream.attach(body, worker.core.now());
        if demand.is_some() && !std::mem::replace(&mut stream.request.filtered, true) {
            // From here on the body is payload; so becomes what there is of it.
            let mut framed = std::mem::take(&mut stream.request.pending);
            let mut several = Vec::new();
            while !framed.is_empty() {
                let mut slices = [std::io::IoSlice::new(&[]); 1];
                framed.slices(&mut slices);
                let [first] = &slices;
                let payload = stream.unframe(first, &mut several);
                stream
                    .request
                    .pending
                    .push(&mut worker.core.segments, payload);
                let count = first.len();
                framed.consume(&mut worker.core.segments, count);
            }
        }
        self.keep_held(stream, &mut worker.core, body.bytes);
        demand.and_then(|demand| self.meet_demand(stream, worker, demand))
    }

    fn keep_held(&self, stream: &mut Stream, core: &mut Core, bytes: &[u8]) {
        let mut several = Vec::new();
        let payload = if stream.request.filtered {
            stream.unframe(bytes, &mut several)
        } else {
            bytes
        };
        stream.request.pending.push(&mut core.segments, payload);
    }

    /// More of the body of a request whose filter waits.
    pub(super) fn hold_body(&mut self, stream: &mut Stream, worker: &mut Worker, bytes: &[u8]) {
        self.keep_held(stream, &mut worker.core, bytes);
        let demand = stream.pause.as_ref().and_then(|pause| pause.demand);
        if let Some(demand) = demand
            && let Some(verdict) = self.meet_demand(stream, worker, demand)
        {
            self.go_on(stream, worker, verdict);
        }
    }

    /// Asks the filter again if the body that it wants is there. `None`: not yet.
    fn meet_demand(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        demand: BodyDemand,
    ) -> Option<Verdict> {
        let have = stream.request.pending.len();
        // As in Envoy a frame that ends the body is not held against it.
        let ends = self.is_http2() && stream.request.complete;
        if have > demand.limit && !demand.partial && !ends {
            self.hcm.stats.inc(stat::DOWNSTREAM_RQ_TOO_LARGE);
            if !self.is_http2() {
                // Envoy's codec tells of the end of a request only after its body.
                stream.request.complete = false;
            }
            let details = "request_payload_too_large";
            self.reply(
                stream,
                worker,
                Reply::new(413, b"Payload Too Large", details),
            );
            return Some(Verdict::Answered);
        }
        if !stream.request.complete && have < demand.limit.max(1) + usize::from(!demand.partial) {
            return None;
        }
        Some(self.ask_again(stream, worker, Resume::Body))
    }

    /// Gives the filter at hand what it has waited for, and goes on as it says.
    pub(super) fn resume(&mut self, stream: &mut Stream, worker: &mut Worker, what: Resume) {
        let verdict = self.ask_again(stream, worker, what);
        self.go_on(stream, worker, verdict);
    }

    fn ask_again(&mut self, stream: &mut Stream, worker: &mut Worker, what: Resume) -> Verdict {
        if let Some(pause) = &mut stream.pause {
            pause.demand = None;
            if matches!(what, Resume::Answer(_)) {
                pause.calls.clear();
            }
        }
        let at = stream.next_filter.checked_sub(1);
        let Some(filter) = at.and_then(|at| self.manager_of(stream).filters.get(at).copied())
        else {
            return Verdict::Continue;
        };
        match filter.kind {
            FilterKind::Fault => self.after_delay(stream, worker),
            FilterKind::JwtAuthn => self.jwt_authn_resumed(stream, worker, filter.index, what),
            FilterKind::Lua => self.lua_resumed(stream, worker, filter.index, what),
            FilterKind::ExtAuthz => self.ext_authz_resumed(stream, worker, filter.index, what),
            // These do not wait.
            FilterKind::Cors
            | FilterKind::Compressor
            | FilterKind::GrpcStats
            | FilterKind::GrpcWeb
            | FilterKind::PeerMetadata
            | FilterKind::Alpn
            | FilterKind::IstioStats
            | FilterKind::Rbac
            | FilterKind::HeaderMutation
            | FilterKind::LocalRateLimit
            | FilterKind::Missing
            | FilterKind::Router => Verdict::Continue,
        }
    }

    fn go_on(&mut self, stream: &mut Stream, worker: &mut Worker, verdict: Verdict) {
        match verdict {
            Verdict::Continue => {
                stream.pause = None;
                self.run_filters(stream, worker, Attached::default());
            }
            Verdict::Answered | Verdict::Wait => {}
            Verdict::WaitForBody(demand) => {
                if let Some(verdict) = self.pause(stream, worker, Attached::default(), Some(demand))
                {
                    self.go_on(stream, worker, verdict);
                }
            }
        }
    }

    /// The stream is answered or over: nothing is waited for any more.
    pub(super) fn end_pause(stream: &mut Stream, worker: &mut Worker) {
        if let Some(pause) = stream.pause.take() {
            for call in pause.calls {
                async_client::cancel(worker, call);
            }
        }
    }

    /// Envoy's `clearRouteCache`: a filter has changed what routes look at.
    pub(super) fn clear_route(&self, stream: &mut Stream, core: &Core) {
        stream.route = None;
        stream.cluster = None;
        self.find_route(stream, core);
    }
}

/// The filter at which a stream waits may go on. To be called with nothing in anybody's hands, as owners of calls are.
pub(crate) fn resume_stream(worker: &mut Worker, key: StreamKey, what: Resume) {
    let connection = match worker.conns.take(key.connection) {
        Some(Conn::Http(connection)) => Some(connection),
        Some(other) => {
            worker.conns.put(key.connection, other);
            None
        }
        None => None,
    };
    let Some(mut connection) = connection else {
        return;
    };
    if let Some(mut stream) = connection.streams.take_key(key) {
        if stream.pause.is_some() {
            connection.resume(&mut stream, worker, what);
        }
        connection.settle(stream, worker);
        // Reading may have paused.
        worker.core.nudge(key.connection, NUDGE_READ);
    }
    put_back(worker, connection);
}
