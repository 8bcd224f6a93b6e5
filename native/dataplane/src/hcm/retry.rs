//! Trying again: what is kept of a request for that, what is a reason, how long to wait, and how a try is given up.
//!
//! A request has [`Tries`] only if its route or its own headers ask for retries or for a limit on each try. The way of one:
//!
//! ```text
//! begin_tries ─▶ send_upstream ─▶ … a head:    retries_head  ┬─▶ end_try ─▶ (pause) ─▶ on_try_timer ─▶ send_upstream
//!   keep_body ─▶                  … an end:    retries_reset ┘
//!                                 … too slow:  on_try_timer
//! ```
//!
//! The conditions themselves are pure functions of `tidegate_snapshot::retry`; order and counters are those of Envoy's
//! `RetryStateImpl`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tidegate_buf::{OutBuf, SegmentPool};
use tidegate_codec::h1::{BodyTracker, KnownHeader};
use tidegate_model::retry::{BackOff, BodyBufferLimit, RetryOn, RetryPolicy};
use tidegate_model::route::RoutingPriority;
use tidegate_rt::{Moment, Rng};
use tidegate_snapshot::ResponseFlags;
use tidegate_snapshot::retry::{
    CompiledRetryPolicy, RequestedRetries, ResponseView, asked_pause, retries_reset,
    retries_response,
};
use tidegate_stats::defs::cluster as stat;

use super::ServerConnection;
use super::headers::HeaderList;
use super::local_reply::Reply;
use super::stream::{Attached, Request, Stream, StreamRoute};
use crate::cluster::{ClusterRuntime, HostRuntime, LbContext, Permit, ResourceKind};
use crate::worker::{Core, Worker};

/// The tries of one request.
pub(crate) struct Tries {
    /// From the end of the request, or of its sending, to the response's head.
    per_try_timeout: Option<Duration>,
    /// The longest silence of the upstream.
    idle_timeout: Option<Duration>,
    /// When the try at hand has had its time.
    deadline: Option<Moment>,
    /// When the upstream last said something; `None`: nobody listens.
    active_at: Option<Moment>,
    /// `None`: this try is the last, whatever comes of it.
    retry: Option<Retry>,
}

/// The means for another try.
struct Retry {
    policy: Option<Arc<CompiledRetryPolicy>>,
    requested: RequestedRetries,
    on: RetryOn,
    left: u32,
    back_off: Pauses,
    /// Held from the decision to try again to the next decision.
    permit: Option<Permit>,
    /// A try has failed; when the next one begins.
    at: Option<Moment>,
    /// It had no time left.
    timed_out: bool,
    /// The pause is as long as the response asked for.
    limited: bool,
    /// Hosts that have been tried, if the policy wants to know.
    tried: Vec<u64>,
    /// What has been received of the body, as it came.
    body: OutBuf,
    /// Payload that may be kept.
    limit: u64,
    /// As before the body.
    unframe: BodyTracker,
}

/// The pauses between tries: random, below a bound that doubles.
#[derive(Debug, Clone, Copy)]
struct Pauses {
    bound: u64,
    max: u64,
}

impl Pauses {
    const fn new(back_off: BackOff) -> Self {
        Self {
            bound: back_off.base,
            max: back_off.max,
        }
    }

    /// Milliseconds.
    fn next(&mut self, rng: &mut Rng) -> u64 {
        let bound = self.bound.max(1);
        self.bound = bound.saturating_mul(2).min(self.max);
        rng.below(bound)
    }
}

/// Why a try ended without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// A circuit breaker let it not begin.
    Overflow,
    /// No connection came about.
    NotConnected,
    /// The upstream says that it has not looked at the request.
    Refused,
    Reset,
}

/// The head of a response that has been received, but not yet taken for the answer.
struct Head<'a> {
    status: u16,
    headers: &'a HeaderList,
}

impl ResponseView for Head<'_> {
    fn status(&self) -> u16 {
        self.status
    }

    fn header(&self, name: &[u8]) -> Option<&[u8]> {
        self.headers.get(name)
    }

    fn each_header(&self, name: &[u8], each: &mut dyn FnMut(&[u8])) {
        self.headers.pairs().for_each(|(known, value)| {
            if known.eq_ignore_ascii_case(name) {
                each(value);
            }
        });
    }
}

impl Tries {
    /// The earliest of what may happen.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        let at = self.retry.as_ref().and_then(|retry| retry.at);
        [at, self.deadline, self.idle_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    fn idle_deadline(&self) -> Option<Moment> {
        Some(self.active_at? + self.idle_timeout?)
    }

    /// The request has been sent: the try's time begins.
    pub(super) fn start(&mut self, now: Moment) {
        self.deadline = self.per_try_timeout.map(|timeout| now + timeout);
        self.active_at = Some(now);
    }

    /// The upstream has said something.
    pub(super) fn touch(&mut self, now: Moment) {
        if self.active_at.is_some() {
            self.active_at = Some(now);
        }
    }

    fn stop(&mut self) {
        self.deadline = None;
        self.active_at = None;
    }

    /// No further try, whatever comes.
    fn give_up(&mut self, segments: &mut SegmentPool) {
        if let Some(mut retry) = self.retry.take() {
            retry.body.clear(segments);
        }
    }
}

impl Stream {
    /// A try has failed, and the next one has not begun.
    pub(super) fn waits_to_retry(&self) -> bool {
        self.tries
            .as_ref()
            .and_then(|tries| tries.retry.as_ref())
            .is_some_and(|retry| retry.at.is_some())
    }

    /// It may be tried again.
    pub(super) fn may_retry(&self) -> bool {
        self.tries
            .as_ref()
            .is_some_and(|tries| tries.retry.is_some())
    }

    fn priority(&self) -> RoutingPriority {
        let forward = self.route.as_ref().and_then(StreamRoute::forward);
        forward.map_or(RoutingPriority::Default, |forward| forward.config.priority)
    }

    /// The text of an answer for an upstream that gave none.
    pub(super) fn reset_text(&self, reason: &str) -> String {
        let retried = if self.attempts > 1 && self.tries.is_some() {
            "retried and the latest "
        } else {
            ""
        };
        format!(
            "upstream connect error or disconnect/reset before headers. {retried}reset reason: {reason}"
        )
    }
}

/// The time that each try has: the policy's, or as the request says; nothing if the whole has no more.
pub(super) fn per_try_timeout(stream: &Stream, global: Option<Duration>) -> Option<Duration> {
    let policy = stream.route.as_ref().and_then(StreamRoute::retry_policy);
    let asked = stream
        .request
        .headers
        .known(KnownHeader::XEnvoyUpstreamRqPerTryTimeoutMs)
        .and_then(number::<u64>);
    let timeout = match asked {
        Some(millis) => Some(Duration::from_millis(millis)),
        None => policy.and_then(|policy| policy.config.per_try_timeout),
    };
    timeout.filter(|timeout| !timeout.is_zero() && global.is_none_or(|global| *timeout < global))
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.trim_ascii().parse().ok()
}

/// The names of a list in a header, or the list in a policy.
fn words(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|word| !word.is_empty())
}

/// What the request's headers ask for; they go no further.
fn take_requested(request: &mut Request) -> RequestedRetries {
    let headers = &request.headers;
    let text = |known| {
        headers
            .known(known)
            .and_then(|value| std::str::from_utf8(value).ok())
    };
    let list = |known| headers.known(known).map(words).into_iter().flatten();
    let on = text(KnownHeader::XEnvoyRetryOn).map_or(RetryOn::NONE, RetryOn::parse_http);
    let grpc_on = text(KnownHeader::XEnvoyRetryGrpcOn).map_or(RetryOn::NONE, RetryOn::parse_grpc);
    let requested = RequestedRetries {
        retry_on: on | grpc_on,
        max_retries: headers
            .known(KnownHeader::XEnvoyMaxRetries)
            .and_then(number),
        status_codes: list(KnownHeader::XEnvoyRetriableStatusCodes)
            .filter_map(number)
            .collect(),
        header_names: list(KnownHeader::XEnvoyRetriableHeaderNames)
            .map(<[u8]>::to_ascii_lowercase)
            .collect(),
    };
    for known in [
        KnownHeader::XEnvoyUpstreamRqPerTryTimeoutMs,
        KnownHeader::XEnvoyRetryOn,
        KnownHeader::XEnvoyRetryGrpcOn,
        KnownHeader::XEnvoyMaxRetries,
        KnownHeader::XEnvoyRetriableStatusCodes,
        KnownHeader::XEnvoyRetriableHeaderNames,
        KnownHeader::XEnvoyHedgeOnPerTryTimeout,
    ] {
        request.headers.remove_known(known);
    }
    requested
}

impl ServerConnection {
    /// The request is about to be sent for the first time: prepares for more, if its route or its headers ask for it.
    /// `body`: what came with the head and has not been counted yet.
    pub(super) fn begin_tries(
        &self,
        stream: &mut Stream,
        core: &mut Core,
        cluster: &ClusterRuntime,
        per_try_timeout: Option<Duration>,
        body: &Attached<'_>,
    ) {
        let requested = take_requested(&mut stream.request);
        let policy = stream.route.as_ref().and_then(StreamRoute::retry_policy);
        if policy.is_none() && requested.retry_on.is_empty() && per_try_timeout.is_none() {
            return;
        }
        let idle_timeout = policy.and_then(|policy| policy.config.per_try_idle_timeout);
        let mut on = requested.retry_on;
        if let Some(policy) = policy {
            on |= policy.config.retry_on;
            if !policy.takes_request(&stream.request) {
                on = RetryOn::NONE;
            }
        }
        let default = RetryPolicy::default;
        let (num_retries, back_off) = match policy {
            Some(policy) => (policy.config.num_retries, policy.config.back_off),
            None => (default().num_retries, default().back_off),
        };
        let policy = policy.map(Arc::clone);
        let mut tries = Tries {
            per_try_timeout,
            idle_timeout,
            deadline: None,
            active_at: None,
            retry: None,
        };
        if !on.is_empty() {
            let mut retry = Retry {
                policy,
                on,
                left: requested.max_retries.unwrap_or(num_retries),
                requested,
                back_off: Pauses::new(back_off),
                permit: None,
                at: None,
                timed_out: false,
                limited: false,
                tried: Vec::new(),
                body: OutBuf::new(),
                limit: self.body_limit(stream),
                unframe: stream.request.unframe,
            };
            if stream.request.bytes + body.payload > retry.limit {
                cluster.stats.inc(stat::RETRY_OR_SHADOW_ABANDONED);
            } else {
                copy(&stream.request.pending, &mut retry.body, &mut core.segments);
                retry.body.push(&mut core.segments, body.bytes);
                tries.retry = Some(retry);
            }
        }
        stream.tries = Some(Box::new(tries));
    }

    /// How much payload may be kept: as the route says, its virtual host, or the connection's buffers.
    fn body_limit(&self, stream: &Stream) -> u64 {
        let of_connection = if self.is_http2() {
            self.hcm.config.http2.initial_stream_window_size
        } else {
            self.downstream.listener.buffer_limit()
        };
        let of_connection = match of_connection {
            0 => u64::MAX,
            limit => u64::from(limit),
        };
        let configured = stream.route.as_ref().and_then(|route| {
            let of_route = route.route().config.body_buffer_limit;
            of_route.or(route.virtual_host.config.body_buffer_limit)
        });
        match configured {
            None => of_connection,
            Some(BodyBufferLimit::Exactly(limit)) => limit,
            Some(BodyBufferLimit::AtMost(limit)) => u64::from(limit).min(of_connection),
        }
    }

    /// Keeps a piece of the body, which has been counted, as long as it might have to be sent again. `false`: there is
    /// nobody to send it to now.
    pub(super) fn keep_body(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        body: &[u8],
    ) -> bool {
        let received = stream.request.bytes;
        let Some(tries) = &mut stream.tries else {
            return true;
        };
        let Some(retry) = &mut tries.retry else {
            return true;
        };
        let waits = retry.at.is_some();
        if received <= retry.limit {
            retry.body.push(&mut worker.core.segments, body);
            if waits && stream.request.complete {
                self.request_sent(stream, worker.core.now());
            }
            return !waits;
        }
        tries.give_up(&mut worker.core.segments);
        if let Some(cluster) = &stream.cluster {
            cluster.stats.inc(stat::RETRY_OR_SHADOW_ABANDONED);
        }
        if waits {
            if !self.is_http2() && !body.is_empty() {
                // Envoy's codec tells of the end of a request only after its body.
                stream.request.complete = false;
            }
            let reply = Reply {
                attempts: true,
                ..Reply::new(
                    507,
                    b"exceeded request buffer limit while retrying upstream",
                    "request_payload_exceeded_retry_buffer_limit",
                )
            };
            self.reply(stream, worker, reply);
        }
        !waits
    }

    /// Whether a response with this head, whose headers have been received, is given up for another try. The caller lets the
    /// upstream go.
    pub(super) fn retries_head(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        status: u16,
    ) -> bool {
        let Some(tries) = &mut stream.tries else {
            return false;
        };
        tries.deadline = None;
        let Some(retry) = &tries.retry else {
            return false;
        };
        let head = Head {
            status,
            headers: &stream.response.headers,
        };
        let policy = retry.policy.as_deref();
        let wanted = retries_response(policy, &retry.requested, retry.on, &head);
        let wall = worker.core.clock.wall();
        let pause = policy.filter(|_| wanted).and_then(|policy| {
            let unix = wall.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            asked_pause(&policy.config, &head, unix.as_secs())
        });
        if !decide(stream, &mut worker.core, wanted, pause) {
            self.give_up_retries(stream, &mut worker.core);
            return false;
        }
        if let Some(cluster) = &stream.cluster {
            cluster.stats.inc(stat::RETRY_UPSTREAM_RQ_COMPLETED);
            cluster.stats.code(stat::RETRY_UPSTREAM_RQ, status);
        }
        self.end_try(stream, &mut worker.core);
        true
    }

    /// Whether a request whose upstream is gone, without a word of an answer, is tried again.
    pub(super) fn retries_reset(
        &mut self,
        stream: &mut Stream,
        core: &mut Core,
        ended: Ended,
    ) -> bool {
        if stream.response.started {
            return false;
        }
        let begun = stream.times.upstream_tx_begin.is_some();
        let Some(retry) = stream.tries.as_mut().and_then(|tries| tries.retry.as_mut()) else {
            return false;
        };
        retry.timed_out = false;
        let wanted = ended != Ended::Overflow
            && retries_reset(
                retry.on,
                ended == Ended::NotConnected,
                ended == Ended::Refused,
                begun,
            );
        if !decide(stream, core, wanted, None) {
            return false;
        }
        self.end_try(stream, core);
        true
    }

    /// The answer is on its way, or part of it: nothing is tried again any more.
    pub(super) fn give_up_retries(&self, stream: &mut Stream, core: &mut Core) {
        if let Some(tries) = &mut stream.tries {
            tries.give_up(&mut core.segments);
        }
    }

    /// The request is over.
    pub(super) fn end_tries(&self, stream: &mut Stream, core: &mut Core) {
        self.give_up_retries(stream, core);
        stream.tries = None;
    }

    /// The try has failed, and another one will follow.
    fn end_try(&mut self, stream: &mut Stream, core: &mut Core) {
        if let Some(host) = &stream.host {
            host.state.count(|cells| &cells.rq_error);
        }
        if let Some(tries) = &mut stream.tries {
            tries.stop();
        }
        stream.active = None;
        stream.pending_host = None;
        stream.upstream_unreleased = 0;
        stream.request_held = false;
        stream.request.pending.clear(&mut core.segments);
        stream.response.headers.clear();
        stream.response.trailers.clear();
        self.release_request(stream, core);
        if !stream.request.complete && !self.is_http2() {
            // Reading may have paused.
            core.nudge(self.key, super::NUDGE_READ);
        }
    }

    /// Something of the tries is due.
    pub(super) fn on_try_timer(&mut self, stream: &mut Stream, worker: &mut Worker, now: Moment) {
        let due = |deadline: Option<Moment>| deadline.is_some_and(|deadline| deadline <= now);
        let Some(tries) = &mut stream.tries else {
            return;
        };
        if let Some(retry) = &mut tries.retry
            && due(retry.at)
        {
            retry.at = None;
            if let Some(cluster) = &stream.cluster {
                // Envoy counts a retry when it is made, not when it is decided upon.
                cluster.stats.inc(stat::UPSTREAM_RQ_RETRY);
                cluster.stats.inc(if retry.limited {
                    stat::UPSTREAM_RQ_RETRY_BACKOFF_RATELIMITED
                } else {
                    stat::UPSTREAM_RQ_RETRY_BACKOFF_EXPONENTIAL
                });
            }
            return self.try_again(stream, worker);
        }
        let (counter, details) = if due(tries.deadline) {
            (
                stat::UPSTREAM_RQ_PER_TRY_TIMEOUT,
                "upstream_per_try_timeout",
            )
        } else if due(tries.idle_deadline()) {
            (
                stat::UPSTREAM_RQ_PER_TRY_IDLE_TIMEOUT,
                "upstream_per_try_idle_timeout",
            )
        } else {
            return;
        };
        tries.stop();
        if let Some(cluster) = &stream.cluster {
            cluster.stats.inc(counter);
        }
        if let Some(host) = &stream.host {
            host.state.count(|cells| &cells.rq_timeout);
        }
        self.abandon_upstream(stream, worker);
        if self.retries_reset(stream, &mut worker.core, Ended::Reset) {
            if let Some(retry) = stream.tries.as_mut().and_then(|tries| tries.retry.as_mut()) {
                retry.timed_out = true;
            }
            return;
        }
        stream.flags.insert(ResponseFlags::UPSTREAM_REQUEST_TIMEOUT);
        let reply = Reply::new(504, b"upstream request timeout", details);
        self.reply_upstream(stream, worker, reply);
    }

    /// The pause is over.
    fn try_again(&mut self, stream: &mut Stream, worker: &mut Worker) {
        stream.attempts += 1;
        stream.upstream_connection_id = None;
        stream.upstream_http2 = false;
        stream.upstream_local = None;
        stream.failure_reason = None;
        let times = &mut stream.times;
        times.upstream_tx_begin = None;
        times.upstream_tx_end = None;
        times.upstream_rx_begin = None;
        times.upstream_rx_end = None;
        times.connect_begin = None;
        times.connect_end = None;
        // It may have changed meanwhile, or be gone.
        let cluster = stream.cluster.as_ref().map(|cluster| cluster.id);
        let Some(cluster) = cluster.and_then(|id| worker.core.cluster(id)) else {
            stream.flags.insert(ResponseFlags::NO_HEALTHY_UPSTREAM);
            let reply = Reply::new(503, b"no healthy upstream", "no_healthy_upstream");
            return self.reply_upstream(stream, worker, reply);
        };
        stream.cluster = Some(Rc::clone(&cluster));
        self.retell(stream, worker.core.now());
        let request = &mut stream.request;
        if let Some(retry) = stream.tries.as_mut().and_then(|tries| tries.retry.as_mut()) {
            if !request.is_payload() && matches!(retry.unframe, BodyTracker::Chunked(_)) {
                // They are found once more.
                request.trailers.clear();
                request.unframe = retry.unframe;
            }
            copy(&retry.body, &mut request.pending, &mut worker.core.segments);
        }
        self.send_upstream(stream, worker, &cluster, Attached::default());
    }

    /// What a request's head tells of tries and of the time that is left.
    fn retell(&self, stream: &mut Stream, now: Moment) {
        let Some(tries) = &stream.tries else {
            return;
        };
        let timed_out = tries.retry.as_ref().is_some_and(|retry| retry.timed_out);
        let headers = &mut stream.request.headers;
        if let Some(route) = &stream.route {
            let host = &route.virtual_host;
            if host.include_request_attempt_count {
                let mut buffer = itoa::Buffer::new();
                let count = buffer.format(stream.attempts);
                headers.set_known(KnownHeader::XEnvoyAttemptCount, count.as_bytes());
            }
            if host.config.include_is_timeout_retry_header {
                let text: &[u8] = if timed_out { b"true" } else { b"false" };
                headers.set_known(KnownHeader::XEnvoyIsTimeoutRetry, text);
            }
        }
        let global = stream.deadlines.response_timeout;
        let elapsed = stream.times.request_end.map(|end| now.since(end));
        let left = global.map(|global| {
            let elapsed = Duration::from_millis(elapsed.unwrap_or_default().as_millis() as u64);
            global.saturating_sub(elapsed).max(Duration::from_millis(1))
        });
        let expected = match (tries.per_try_timeout, left) {
            (Some(timeout), Some(left)) => Some(timeout.min(left)),
            (timeout, left) => timeout.or(left),
        };
        self.tell_timeout(stream, expected);
    }
}

/// Envoy's `shouldRetry`: whether a try that is `wanted` may be made. If so its time is set.
fn decide(stream: &mut Stream, core: &mut Core, wanted: bool, pause: Option<Duration>) -> bool {
    let priority = stream.priority();
    let Some(retry) = stream.tries.as_mut().and_then(|tries| tries.retry.as_mut()) else {
        return false;
    };
    let Some(cluster) = &stream.cluster else {
        return false;
    };
    if retry.permit.take().is_some() && !wanted {
        // The one before was not in vain.
        cluster.stats.inc(stat::UPSTREAM_RQ_RETRY_SUCCESS);
    }
    if !wanted {
        return false;
    }
    if retry.left == 0 {
        cluster.stats.inc(stat::UPSTREAM_RQ_RETRY_LIMIT_EXCEEDED);
        stream
            .flags
            .insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        return false;
    }
    retry.left -= 1;
    if !cluster.breakers.can_retry(priority) {
        cluster.stats.inc(stat::UPSTREAM_RQ_RETRY_OVERFLOW);
        stream.flags.insert(ResponseFlags::UPSTREAM_OVERFLOW);
        return false;
    }
    retry.permit = Some(Permit::force(cluster, priority, ResourceKind::Retries));
    retry.limited = pause.is_some();
    let millis = match pause {
        Some(pause) => {
            let millis = pause.as_millis() as u64;
            millis + core.rng.below((millis / 2).max(1))
        }
        None => retry.back_off.next(&mut core.rng),
    };
    retry.at = Some(core.now() + Duration::from_millis(millis));
    true
}

/// A host for the try at hand: not one that has been tried, if the policy says so and one is found soon enough.
pub(super) fn choose_host(
    stream: &mut Stream,
    core: &mut Core,
    cluster: &ClusterRuntime,
    context: &LbContext,
) -> Option<Rc<HostRuntime>> {
    let now = core.now();
    let host = cluster.choose_host(&mut core.rng, now, context);
    let again = stream.attempts > 1;
    let retry = stream.tries.as_mut().and_then(|tries| tries.retry.as_mut());
    let Some((retry, policy)) = retry.and_then(|retry| {
        let policy = Arc::clone(&retry.policy.as_ref()?.config);
        policy.previous_hosts.then_some((retry, policy))
    }) else {
        return host;
    };
    let mut host = host?;
    if again {
        for _ in 0..policy.host_selection_attempts {
            if !retry.tried.contains(&host.state.uid()) {
                break;
            }
            host = cluster.choose_host(&mut core.rng, now, context)?;
        }
    }
    retry.tried.push(host.state.uid());
    Some(host)
}

fn copy(from: &OutBuf, to: &mut OutBuf, segments: &mut SegmentPool) {
    let count = from.len().div_ceil(tidegate_buf::SEGMENT_SIZE) + 2;
    let mut slices = vec![std::io::IoSlice::new(&[]); count];
    let filled = from.slices(&mut slices);
    for slice in slices.iter().take(filled) {
        to.push(segments, slice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound() {
        let mut rng = Rng::with_seed(7);
        let mut pauses = Pauses::new(BackOff { base: 25, max: 90 });
        let mut bounds = Vec::new();
        for _ in 0..4 {
            bounds.push(pauses.bound);
            assert!(pauses.next(&mut rng) < *bounds.last().unwrap());
        }
        assert_eq!(bounds, [25, 50, 90, 90]);
    }

    #[test]
    fn copies_whole_buffers() {
        let mut segments = SegmentPool::new();
        let (mut from, mut to) = (OutBuf::new(), OutBuf::new());
        copy(&from, &mut to, &mut segments);
        assert!(to.is_empty());
        let bytes: Vec<u8> = (0..50_000_u32).map(|n| n as u8).collect();
        from.push(&mut segments, &bytes);
        from.consume(&mut segments, 100);
        copy(&from, &mut to, &mut segments);
        assert_eq!(to.len(), from.len());
        let mut slices = [std::io::IoSlice::new(&[]); 8];
        let filled = to.slices(&mut slices);
        let held: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
        assert_eq!(held, bytes[100..]);
    }

    #[test]
    fn what_requests_ask_for() {
        let mut request = Request::default();
        for (known, value) in [
            (KnownHeader::XEnvoyRetryOn, "5xx, reset"),
            (KnownHeader::XEnvoyRetryGrpcOn, "unavailable"),
            (KnownHeader::XEnvoyMaxRetries, "7"),
            (KnownHeader::XEnvoyRetriableStatusCodes, "404,x, 418"),
            (KnownHeader::XEnvoyRetriableHeaderNames, "X-A, x-b"),
        ] {
            request.headers.add_known(known, value.as_bytes());
        }
        let requested = take_requested(&mut request);
        assert_eq!(
            requested.retry_on,
            RetryOn::FIVE_XX | RetryOn::RESET | RetryOn::GRPC_UNAVAILABLE
        );
        assert_eq!(requested.max_retries, Some(7));
        assert_eq!(requested.status_codes, [404, 418]);
        assert_eq!(requested.header_names, [b"x-a", b"x-b"]);
        assert!(request.headers.is_empty());
    }
}
