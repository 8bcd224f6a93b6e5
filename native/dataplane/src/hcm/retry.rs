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

mod tries;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tidegate_buf::{OutBuf, SegmentPool};
use tidegate_codec::h1::{BodyTracker, KnownHeader};
use tidegate_model::retry::{BodyBufferLimit, HostPredicate, RetryOn, RetryPolicy};
use tidegate_rt::Moment;
use tidegate_snapshot::ResponseFlags;
use tidegate_snapshot::retry::{asked_pause, retries_reset, retries_response};
use tidegate_stats::defs::cluster as stat;

pub(crate) use self::tries::Tries;
pub(super) use self::tries::{Ended, Head, Retry, per_try_timeout, retry_of};
use self::tries::{Pauses, take_requested};
use super::ServerConnection;
use super::local_reply::Reply;
use super::stream::{Attached, Stream, StreamRoute};
use super::tracing::tried;
use super::upstream::put_answer;
use crate::balance::PreviousPriorities;
use crate::cluster::outlier::Outcome;
use crate::cluster::{ClusterRuntime, HostRuntime, LbContext, Permit, ResourceKind};
use crate::worker::{Core, Worker};

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
            let previous_priorities = policy
                .as_ref()
                .and_then(|policy| policy.config.previous_priorities);
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
                priorities: previous_priorities
                    .map(|frequency| Box::new(PreviousPriorities::new(frequency))),
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
        tried::answered(stream, status);
        let Some(retry) = stream.tries.as_ref().and_then(|tries| tries.retry.as_ref()) else {
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
        put_answer(stream, status);
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
        let Some(retry) = retry_of(&mut stream.tries) else {
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
        if stream.span.is_some() {
            tried::end(stream, core.now());
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
        let (counter, flag, details) = if due(tries.deadline) {
            (
                stat::UPSTREAM_RQ_PER_TRY_TIMEOUT,
                ResponseFlags::UPSTREAM_REQUEST_TIMEOUT,
                "upstream_per_try_timeout",
            )
        } else if due(tries.idle_deadline()) {
            (
                stat::UPSTREAM_RQ_PER_TRY_IDLE_TIMEOUT,
                ResponseFlags::STREAM_IDLE_TIMEOUT,
                "upstream_per_try_idle_timeout",
            )
        } else {
            return;
        };
        tries.stop();
        tried::flagged(stream, flag);
        if let Some(cluster) = &stream.cluster {
            cluster.stats.inc(counter);
        }
        if let Some(host) = &stream.host {
            host.state.count(|cells| &cells.rq_timeout);
            host.state.put_result(Outcome::LocalTimeout, Some(504));
        }
        self.abandon_upstream(stream, worker);
        if self.retries_reset(stream, &mut worker.core, Ended::Reset) {
            if let Some(retry) = retry_of(&mut stream.tries) {
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
        stream.upstream_tls = None;
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
        if let Some(retry) = retry_of(&mut stream.tries) {
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
pub(super) fn decide(
    stream: &mut Stream,
    core: &mut Core,
    wanted: bool,
    pause: Option<Duration>,
) -> bool {
    let priority = stream.priority();
    let Some(retry) = retry_of(&mut stream.tries) else {
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

/// A host for the try at hand. For another try: of a priority and of a kind that the policy wants, if one is found soon
/// enough.
pub(super) fn choose_host(
    stream: &mut Stream,
    core: &mut Core,
    cluster: &ClusterRuntime,
    context: &LbContext,
) -> Option<Rc<HostRuntime>> {
    let (now, again) = (core.now(), stream.attempts > 1);
    let Some(Retry {
        policy: Some(policy),
        tried,
        priorities,
        ..
    }) = retry_of(&mut stream.tries)
    else {
        return cluster.choose_host(&mut core.rng, now, context);
    };
    let policy = &policy.config;
    let mut context = *context;
    let mut choices = if again && !policy.host_predicates.is_empty() {
        policy.host_selection_attempts
    } else {
        0
    };
    let host = loop {
        let previous = priorities.as_deref_mut().filter(|_| again);
        let host = cluster.choose_host_again(&mut core.rng, now, &context, previous)?;
        if choices == 0 || !passes_over(policy, tried, &host) {
            break host;
        }
        choices -= 1;
        context.key.attempt += 1;
    };
    if policy
        .host_predicates
        .contains(&HostPredicate::PreviousHosts)
    {
        tried.push(host.state.uid());
    }
    if let Some(priorities) = priorities {
        priorities.attempt(host.host.priority);
    }
    Some(host)
}

/// Whether a retry should rather go to another host.
fn passes_over(policy: &RetryPolicy, tried: &[u64], host: &HostRuntime) -> bool {
    let mut predicates = policy.host_predicates.iter();
    predicates.any(|predicate| match predicate {
        HostPredicate::PreviousHosts => tried.contains(&host.state.uid()),
        HostPredicate::OmitCanaryHosts => host.host.is_canary(),
        HostPredicate::OmitHostMetadata(labels) => {
            let metadata = host.host.lb_metadata.as_ref();
            metadata.is_some_and(|metadata| metadata.has_all(labels))
        }
    })
}

pub(super) fn copy(from: &OutBuf, to: &mut OutBuf, segments: &mut SegmentPool) {
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
}
