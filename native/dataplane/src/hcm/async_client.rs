//! Requests of our own to named clusters, from a worker (Envoy's `AsyncClient`): what filters, exporters and mirrors ask others.
//!
//! A call goes through the cluster's ordinary pools, balancer, circuit breakers and statistics, by HTTP/1 or HTTP/2. It is an
//! occupant of the worker's slab, with one [`Stream`], so that upstream connections deal with it as with a client's request
//! ([`Requester`](super::requester::Requester)). Its owner is called once with the [`Answer`], after the event in which
//! the call ended and with nothing in anybody's hands; a call without an owner is forgotten (mirrors). Whoever may end before
//! its calls keeps their keys and [`cancel`]s them.
//!
//! ```text
//! start ─▶ (pool) ─▶ sent ─▶ head, body, trailers ─▶ over ─▶ NUDGE_DONE ─▶ owner(worker, answer)
//!   ▲                 └─ failed, a policy says again ─▶ pause ─┘ (timer)
//! ```
//!
//! As in Envoy a call that the cluster cannot serve is answered by us, 503 or 504. Knows nothing of who calls or why.

mod answer;
mod upstream;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate_buf::OutBuf;
use tidegate_codec::h1::{KnownHeader, Method};
use tidegate_model::cluster::UpstreamProtocol;
use tidegate_model::route::RoutingPriority;
use tidegate_rt::{LazyTimer, Moment};
use tidegate_snapshot::retry::{CompiledRetryPolicy, retries_reset};
use tidegate_stats::defs::cluster as stat;

pub(crate) use self::answer::{Answer, CallFailure};
use super::forward;
use super::headers::HeaderList;
use super::response::count_code;
use super::retry::{Ended, Tries, copy, decide, retry_of};
use super::stream::{Protocol, Stream, Upstream};
use super::streams::StreamKey;
use super::upstream::put_lost;
use crate::cluster::outlier::Outcome;
use crate::cluster::{ClusterRuntime, HostRuntime, LbContext};
use crate::conn::{After, Conn, Event, Key, TimerKey};
use crate::pool::{self, Acquired, PoolFailure, PoolProtocol, Wanted};
use crate::worker::{Core, Worker};

/// The call is over: its owner hears of it.
const NUDGE_DONE: u8 = 10;
/// The event in which the call was made is over: it may be sent.
const NUDGE_SEND: u8 = 11;

/// What is called with the answer.
pub(crate) type Owner = Box<dyn FnOnce(&mut Worker, Answer)>;

/// What to send. The body is given whole, or with [`CallRequest::more`] in pieces by [`push`].
pub(crate) struct CallRequest<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) method: &'a [u8],
    pub(crate) authority: &'a [u8],
    pub(crate) path: &'a [u8],
    /// Lower case, without pseudo headers, framing and `host`.
    pub(crate) headers: HeaderList,
    pub(crate) body: &'a [u8],
    /// More of the body follows.
    pub(crate) more: bool,
    /// For the whole, tries included.
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: Option<Arc<CompiledRetryPolicy>>,
    /// `x-envoy-internal` is added, as Envoy does for calls of its own.
    pub(crate) internal: bool,
    /// `x-forwarded-for` is added, with the node's own address.
    pub(crate) forwarded_for: bool,
    /// A longer answer is none.
    pub(crate) max_answer: usize,
    /// Sent after the event at hand: whoever calls has an upstream connection in his hands, which might be the one for it.
    pub(crate) later: bool,
}

/// What an answer may come to where nobody says otherwise.
pub(crate) const MAX_ANSWER: usize = 16 * 1024 * 1024;

impl<'a> CallRequest<'a> {
    pub(crate) fn new(
        cluster: &'a str,
        method: &'a [u8],
        authority: &'a [u8],
        path: &'a [u8],
    ) -> Self {
        Self {
            cluster,
            method,
            authority,
            path,
            headers: HeaderList::default(),
            body: &[],
            more: false,
            timeout: None,
            retry: None,
            internal: true,
            forwarded_for: true,
            max_answer: MAX_ANSWER,
            later: false,
        }
    }

    /// A unary call; `message` is framed here. See [`Answer::grpc`] for what comes back.
    pub(crate) fn grpc(
        cluster: &'a str,
        authority: &'a [u8],
        path: &'a [u8],
        message: &'a [u8],
        framed: &'a mut Vec<u8>,
    ) -> Self {
        framed.clear();
        framed.push(0);
        framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
        framed.extend_from_slice(message);
        let mut request = Self::new(cluster, b"POST", authority, path);
        request.headers.add_known(KnownHeader::Te, b"trailers");
        request
            .headers
            .add_known(KnownHeader::ContentType, b"application/grpc");
        request.body = framed;
        request
    }
}

/// A request of ours that is under way. See the module.
pub struct Call {
    key: Key,
    stream: Box<Stream>,
    owner: Option<Owner>,
    over: bool,
    failure: Option<CallFailure>,
    body: Vec<u8>,
    max_answer: usize,
    timer: LazyTimer,
}

/// Sends a request. The owner is never called before this returns.
pub(crate) fn start(
    worker: &mut Worker,
    mut request: CallRequest<'_>,
    owner: Option<Owner>,
) -> Key {
    let core = &mut worker.core;
    let now = core.now();
    let mut stream = core.http.take_stream();
    let key = worker.conns.reserve();
    stream.key = StreamKey::of_call(key);
    stream.times.start = now;
    stream.times.request_end = (!request.more).then_some(now);
    stream.deadlines.response = request.timeout.map(|timeout| now + timeout);
    fill(&mut stream, &mut request, core);
    let id = core
        .snapshot
        .cluster_by_name(request.cluster)
        .map(|cluster| cluster.id());
    stream.cluster = id.and_then(|id| core.cluster(id));
    if let Some(policy) = request.retry {
        let mut body = OutBuf::new();
        body.push(&mut core.segments, request.body);
        stream.tries = Some(Box::new(Tries::of_call(policy, body)));
    }
    let mut call = Box::new(Call {
        key,
        stream,
        owner,
        over: false,
        failure: None,
        body: Vec::new(),
        max_answer: request.max_answer,
        timer: LazyTimer::new(),
    });
    if request.later {
        worker.core.nudge(key, NUDGE_SEND);
    } else {
        call.send(worker);
    }
    call.arm(&mut worker.core);
    worker.conns.put(key, Conn::Call(call));
    key
}

fn fill(stream: &mut Stream, call: &mut CallRequest<'_>, core: &mut Core) {
    let request = &mut stream.request;
    request.headers = std::mem::take(&mut call.headers);
    let headers = &mut request.headers;
    headers.set_known(KnownHeader::Host, call.authority);
    if call.internal {
        headers.set_known(KnownHeader::XEnvoyInternal, b"true");
    }
    if let Some(timeout) = call.timeout {
        let mut buffer = itoa::Buffer::new();
        let millis = buffer.format(timeout.as_millis() as u64);
        headers.set_known(KnownHeader::XEnvoyExpectedRqTimeoutMs, millis.as_bytes());
    }
    if call.forwarded_for {
        let local = core.http.local_address().to_owned();
        headers.append(b"x-forwarded-for", b",", local.as_bytes());
    }
    if headers.has(KnownHeader::ContentLength) {
        // A copy of another request, which knew.
    } else if !call.body.is_empty() {
        let mut buffer = itoa::Buffer::new();
        let length = buffer.format(call.body.len());
        let grpc = headers
            .known(KnownHeader::ContentType)
            .is_some_and(|kind| kind == b"application/grpc");
        if call.more || grpc {
            request.chunked = true;
        } else {
            headers.set_known(KnownHeader::ContentLength, length.as_bytes());
        }
    } else if call.more {
        request.chunked = true;
    }
    request.method = Method::from_token(call.method).unwrap_or(Method::Other);
    request.method_text = request.headers.keep(call.method);
    request.path = request.headers.keep(call.path);
    request.scheme = request.headers.keep(b"http");
    // Its body is payload.
    request.protocol = Protocol::Http2;
    request.parsed = true;
    request.internal = true;
    request.complete = !call.more;
    request.bytes = call.body.len() as u64;
    request.pending.push(&mut core.segments, call.body);
}

/// More of the body of a call that was started with [`CallRequest::more`].
pub(crate) fn push(worker: &mut Worker, key: Key, bytes: &[u8], end: bool) {
    let Some(mut call) = take(worker, key) else {
        return;
    };
    let stream = &mut call.stream;
    stream.request.complete |= end;
    stream.request.bytes += bytes.len() as u64;
    if let Some(tries) = &mut stream.tries {
        tries.give_up(&mut worker.core.segments);
    }
    match stream.upstream {
        Upstream::Active(up_key, token) => {
            if let Some(Conn::Upstream(mut up)) = worker.conns.take(up_key) {
                forward::send_body(stream, &mut worker.core, &mut up, token, bytes);
                worker.conns.put(up_key, Conn::Upstream(up));
            }
        }
        _ if call.over => {}
        _ => stream
            .request
            .pending
            .push(&mut worker.core.segments, bytes),
    }
    worker.conns.put(key, Conn::Call(call));
}

/// The owner is no longer interested, and will not be called.
pub(crate) fn cancel(worker: &mut Worker, key: Key) {
    if let Some(mut call) = take(worker, key) {
        call.end(worker);
        worker.conns.remove(key);
    }
}

fn take(worker: &mut Worker, key: Key) -> Option<Box<Call>> {
    match worker.conns.take(key)? {
        Conn::Call(call) => Some(call),
        other => {
            worker.conns.put(key, other);
            None
        }
    }
}

impl Call {
    pub(crate) const fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn on_event(&mut self, worker: &mut Worker, event: Event) -> After {
        match event {
            Event::Nudge {
                why: NUDGE_DONE, ..
            } if self.over => {
                self.end(worker);
                if let Some(owner) = self.owner.take() {
                    let answer = self.answer();
                    owner(worker, answer);
                }
                return After::Close;
            }
            Event::Nudge {
                why: NUDGE_SEND, ..
            } if !self.over => self.send(worker),
            Event::Nudge {
                why: super::NUDGE_FAILED,
                ..
            } => {
                for (stream, host, failure) in worker.core.pools.take_failed(self.key) {
                    self.on_pool_failure(worker, stream, &host, failure);
                }
            }
            Event::Timer(_) => self.on_timer(worker),
            Event::DrainDeadline => {
                self.end(worker);
                return After::Close;
            }
            _ => {}
        }
        self.arm(&mut worker.core);
        After::Keep
    }

    fn answer(&mut self) -> Answer {
        let response = &mut self.stream.response;
        Answer {
            status: response.status,
            headers: std::mem::take(&mut response.headers),
            trailers: std::mem::take(&mut response.trailers),
            body: std::mem::take(&mut self.body),
            failure: self.failure.take(),
        }
    }

    /// Lets go of everything.
    fn end(&mut self, worker: &mut Worker) {
        self.over = true;
        self.abandon(worker);
        let stream = &mut self.stream;
        stream.active = None;
        stream.request.pending.clear(&mut worker.core.segments);
        if let Some(tries) = &mut stream.tries {
            tries.give_up(&mut worker.core.segments);
        }
        stream.tries = None;
        self.timer.cancel(&mut worker.core.timers);
    }

    fn abandon(&mut self, worker: &mut Worker) {
        let stream = &mut self.stream;
        match std::mem::take(&mut stream.upstream) {
            Upstream::None => {}
            Upstream::Pending(id) => {
                if let Some(cluster) = &stream.cluster {
                    cluster.stats.inc(stat::UPSTREAM_RQ_CANCELLED);
                }
                pool::cancel(worker, id, stream.key);
            }
            Upstream::Active(key, token) => {
                stream.active = None;
                let unreleased = std::mem::take(&mut stream.upstream_unreleased);
                pool::discard(worker, key, token, stream.key, unreleased);
            }
        }
    }

    pub(super) fn arm(&mut self, core: &mut Core) {
        let again = self.stream.tries.as_ref();
        let again = again.and_then(|tries| tries.next_deadline());
        let deadline = match (self.stream.deadlines.response, again) {
            _ if self.over => None,
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let payload = TimerKey {
            key: self.key,
            kind: 0,
        };
        match deadline {
            Some(deadline) => self.timer.set(&mut core.timers, deadline, payload),
            None => self.timer.clear(),
        }
    }

    fn on_timer(&mut self, worker: &mut Worker) {
        let now = worker.core.now();
        let payload = TimerKey {
            key: self.key,
            kind: 0,
        };
        if !self.timer.fired(&mut worker.core.timers, now, payload) || self.over {
            return;
        }
        let due = |deadline: Option<Moment>| deadline.is_some_and(|deadline| deadline <= now);
        let stream = &mut self.stream;
        if due(stream.deadlines.response) {
            if let Some(cluster) = &stream.cluster {
                cluster.stats.inc(stat::UPSTREAM_RQ_TIMEOUT);
            }
            if let Some(host) = &stream.host {
                host.state.count(|cells| &cells.rq_timeout);
                if stream.response.status == 0 {
                    host.state.put_result(Outcome::LocalTimeout, Some(504));
                }
            }
            self.abandon(worker);
            return self.fail(&mut worker.core, 504, "upstream request timeout");
        }
        let again = retry_of(&mut stream.tries).filter(|retry| due(retry.at));
        if let Some(retry) = again {
            retry.at = None;
            copy(
                &retry.body,
                &mut stream.request.pending,
                &mut worker.core.segments,
            );
            if let Some(cluster) = &stream.cluster {
                cluster.stats.inc(stat::UPSTREAM_RQ_RETRY);
                cluster
                    .stats
                    .inc(stat::UPSTREAM_RQ_RETRY_BACKOFF_EXPONENTIAL);
            }
            stream.attempts += 1;
            stream.times.upstream_tx_begin = None;
            let id = stream.cluster.as_ref().map(|cluster| cluster.id);
            stream.cluster = id.and_then(|id| worker.core.cluster(id));
            self.send(worker);
        }
    }

    /// Picks a host and a connection.
    fn send(&mut self, worker: &mut Worker) {
        let stream = &mut self.stream;
        let Some(cluster) = stream.cluster.clone() else {
            self.failure = Some(CallFailure::NoCluster);
            return self.finish(&mut worker.core);
        };
        stream.attempts = stream.attempts.max(1);
        let now = worker.core.now();
        let context = LbContext::default();
        let Some(host) = cluster.choose_host(&mut worker.core.rng, now, &context) else {
            cluster.stats.inc(stat::UPSTREAM_CX_NONE_HEALTHY);
            return self.fail(&mut worker.core, 503, "no healthy upstream");
        };
        let wanted = Wanted {
            priority: RoutingPriority::Default,
            protocol: match cluster.config.http.protocol {
                UpstreamProtocol::Http2 => PoolProtocol::Http2,
                UpstreamProtocol::Negotiated => PoolProtocol::Negotiated,
                UpstreamProtocol::Http1 | UpstreamProtocol::Downstream => PoolProtocol::Http1,
            },
            tls: None,
        };
        match pool::acquire(worker, &cluster, &host, &wanted, stream.key) {
            Acquired::Ready(key) => {
                stream.host = Some(Rc::clone(&host));
                if let Some(Conn::Upstream(mut up)) = worker.conns.take(key) {
                    let sent = forward::send_on(stream, &mut worker.core, &mut up, &host, &[]);
                    worker.conns.put(key, Conn::Upstream(up));
                    if !sent {
                        self.lost(&mut worker.core, Ended::Reset, 502, "protocol error");
                    }
                }
            }
            Acquired::Queued(pool) => {
                stream.upstream = Upstream::Pending(pool);
                stream.pending_host = Some(host);
            }
            Acquired::Failed(failure) => self.pool_failed(&mut worker.core, &host, failure),
        }
    }

    fn pool_failed(&mut self, core: &mut Core, host: &Rc<HostRuntime>, failure: PoolFailure) {
        let stream = &mut self.stream;
        stream.upstream = Upstream::None;
        stream.pending_host = None;
        let (ended, reason) = match failure {
            PoolFailure::Overflow | PoolFailure::RequestOverflow => (Ended::Overflow, "overflow"),
            PoolFailure::Local(_) | PoolFailure::LocalTls(_) | PoolFailure::Bind(..) => {
                (Ended::NotConnected, "local connection failure")
            }
            PoolFailure::Remote(_) | PoolFailure::Tls(_) => {
                (Ended::NotConnected, "remote connection failure")
            }
            PoolFailure::Timeout => (Ended::NotConnected, "connection timeout"),
        };
        if failure != PoolFailure::Overflow {
            stream.host = Some(Rc::clone(host));
        }
        self.lost(core, ended, 503, reason);
    }

    /// The upstream is gone without an answer: again, or an answer of ours.
    fn lost(&mut self, core: &mut Core, ended: Ended, status: u16, reason: &str) {
        if self.over {
            return;
        }
        let stream = &mut self.stream;
        stream.upstream = Upstream::None;
        stream.upstream_unreleased = 0;
        if ended != Ended::Overflow {
            put_lost(stream);
        }
        if stream.response.status > 0 {
            self.failure = Some(CallFailure::Reset);
            return self.finish(core);
        }
        let begun = stream.times.upstream_tx_begin.is_some();
        let wanted = retry_of(&mut stream.tries).is_some_and(|retry| {
            ended != Ended::Overflow
                && retries_reset(
                    retry.on,
                    ended == Ended::NotConnected,
                    ended == Ended::Refused,
                    begun,
                )
        });
        if stream.tries.is_some() && decide(stream, core, wanted, None) {
            return self.end_try(core);
        }
        let text = stream.reset_text(reason);
        self.fail(core, status, &text);
    }

    /// The try has failed; the timer begins another one.
    fn end_try(&mut self, core: &mut Core) {
        let stream = &mut self.stream;
        if let Some(host) = &stream.host {
            host.state.count(|cells| &cells.rq_error);
        }
        stream.active = None;
        stream.pending_host = None;
        stream.request.pending.clear(&mut core.segments);
        stream.response.headers.clear();
        stream.response.trailers.clear();
        stream.response.status = 0;
        self.body.clear();
    }

    /// Answers in the cluster's stead.
    fn fail(&mut self, core: &mut Core, status: u16, text: &str) {
        if self.over {
            return;
        }
        let stream = &mut self.stream;
        if let Some(cluster) = &stream.cluster {
            count_code(cluster, true, status);
        }
        if let Some(host) = &stream.host {
            host.state.count(|cells| &cells.rq_error);
        }
        stream.response.headers.clear();
        stream.response.trailers.clear();
        stream.response.status = status;
        self.body.clear();
        self.body.extend_from_slice(text.as_bytes());
        self.failure = Some(CallFailure::Local);
        self.finish(core);
    }

    /// The call is over.
    fn finish(&mut self, core: &mut Core) {
        if !std::mem::replace(&mut self.over, true) {
            self.stream.active = None;
            self.timer.clear();
            core.nudge(self.key, NUDGE_DONE);
        }
    }

    fn count_answer(&self, cluster: &ClusterRuntime, now: Moment) {
        if let Some(end) = self.stream.times.request_end {
            let millis = now.since(end).as_millis() as u64;
            cluster.stats.record(stat::UPSTREAM_RQ_TIME, millis);
            cluster
                .stats
                .record(stat::INTERNAL_UPSTREAM_RQ_TIME, millis);
        }
    }
}
