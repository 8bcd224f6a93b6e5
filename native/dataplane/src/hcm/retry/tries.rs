//! What a request knows of its tries: the means for another one, and what its own headers ask for.
//!
//! Data and questions; `retry.rs` tells what happens with it.

use std::sync::Arc;
use std::time::Duration;

use tidegate_buf::{OutBuf, SegmentPool};
use tidegate_codec::h1::{BodyTracker, KnownHeader};
use tidegate_model::retry::{BackOff, RetryOn};
use tidegate_model::route::RoutingPriority;
use tidegate_rt::{Moment, Rng};
use tidegate_snapshot::retry::{CompiledRetryPolicy, RequestedRetries, ResponseView};

use crate::balance::PreviousPriorities;
use crate::cluster::Permit;
use crate::hcm::headers::HeaderList;
use crate::hcm::stream::{Request, Stream, StreamRoute};

/// The tries of one request.
pub(crate) struct Tries {
    /// From the end of the request, or of its sending, to the response's head.
    pub(in crate::hcm) per_try_timeout: Option<Duration>,
    /// The longest silence of the upstream.
    pub(in crate::hcm) idle_timeout: Option<Duration>,
    /// When the try at hand has had its time.
    pub(in crate::hcm) deadline: Option<Moment>,
    /// When the upstream last said something; `None`: nobody listens.
    pub(in crate::hcm) active_at: Option<Moment>,
    /// `None`: this try is the last, whatever comes of it.
    pub(in crate::hcm) retry: Option<Retry>,
}

/// The means for another try.
pub(in crate::hcm) struct Retry {
    pub(in crate::hcm) policy: Option<Arc<CompiledRetryPolicy>>,
    pub(in crate::hcm) requested: RequestedRetries,
    pub(in crate::hcm) on: RetryOn,
    pub(in crate::hcm) left: u32,
    pub(in crate::hcm) back_off: Pauses,
    /// Held from the decision to try again to the next decision.
    pub(in crate::hcm) permit: Option<Permit>,
    /// A try has failed; when the next one begins.
    pub(in crate::hcm) at: Option<Moment>,
    /// It had no time left.
    pub(in crate::hcm) timed_out: bool,
    /// The pause is as long as the response asked for.
    pub(in crate::hcm) limited: bool,
    /// Hosts that have been tried, if the policy wants to know.
    pub(in crate::hcm) tried: Vec<u64>,
    /// Priorities that have been tried, if the policy wants to know.
    pub(in crate::hcm) priorities: Option<Box<PreviousPriorities>>,
    /// What has been received of the body, as it came.
    pub(in crate::hcm) body: OutBuf,
    /// Payload that may be kept.
    pub(in crate::hcm) limit: u64,
    /// As before the body.
    pub(in crate::hcm) unframe: BodyTracker,
}

/// The pauses between tries: random, below a bound that doubles.
#[derive(Debug, Clone, Copy)]
pub(in crate::hcm) struct Pauses {
    pub(in crate::hcm) bound: u64,
    pub(in crate::hcm) max: u64,
}

impl Pauses {
    pub(in crate::hcm) const fn new(back_off: BackOff) -> Self {
        Self {
            bound: back_off.base,
            max: back_off.max,
        }
    }

    /// Milliseconds.
    pub(in crate::hcm) fn next(&mut self, rng: &mut Rng) -> u64 {
        let bound = self.bound.max(1);
        self.bound = bound.saturating_mul(2).min(self.max);
        rng.below(bound)
    }
}

/// Why a try ended without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::hcm) enum Ended {
    /// A circuit breaker let it not begin.
    Overflow,
    /// No connection came about.
    NotConnected,
    /// The upstream says that it has not looked at the request.
    Refused,
    Reset,
}

/// The head of a response that has been received, but not yet taken for the answer.
pub(in crate::hcm) struct Head<'a> {
    pub(in crate::hcm) status: u16,
    pub(in crate::hcm) headers: &'a HeaderList,
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
    /// Those of a call of our own, as its owner's policy says; the whole body is kept for another one.
    pub(in crate::hcm) fn of_call(policy: Arc<CompiledRetryPolicy>, body: OutBuf) -> Self {
        let config = &policy.config;
        Self {
            per_try_timeout: None,
            idle_timeout: None,
            deadline: None,
            active_at: None,
            retry: Some(Retry {
                on: config.retry_on,
                left: config.num_retries,
                back_off: Pauses::new(config.back_off),
                policy: Some(policy),
                requested: RequestedRetries::default(),
                permit: None,
                at: None,
                timed_out: false,
                limited: false,
                tried: Vec::new(),
                priorities: None,
                body,
                limit: u64::MAX,
                unframe: BodyTracker::None,
            }),
        }
    }

    /// The earliest of what may happen.
    pub(in crate::hcm) fn next_deadline(&self) -> Option<Moment> {
        let at = self.retry.as_ref().and_then(|retry| retry.at);
        [at, self.deadline, self.idle_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    pub(in crate::hcm) fn idle_deadline(&self) -> Option<Moment> {
        Some(self.active_at? + self.idle_timeout?)
    }

    /// The request has been sent: the try's time begins.
    pub(in crate::hcm) fn start(&mut self, now: Moment) {
        self.deadline = self.per_try_timeout.map(|timeout| now + timeout);
        self.active_at = Some(now);
    }

    /// The upstream has said something.
    pub(in crate::hcm) fn touch(&mut self, now: Moment) {
        if self.active_at.is_some() {
            self.active_at = Some(now);
        }
    }

    pub(in crate::hcm) fn stop(&mut self) {
        self.deadline = None;
        self.active_at = None;
    }

    /// No further try, whatever comes.
    pub(in crate::hcm) fn give_up(&mut self, segments: &mut SegmentPool) {
        if let Some(mut retry) = self.retry.take() {
            retry.body.clear(segments);
        }
    }
}

/// The means for another try, if there are any.
pub(in crate::hcm) fn retry_of(tries: &mut Option<Box<Tries>>) -> Option<&mut Retry> {
    tries.as_mut()?.retry.as_mut()
}

impl Stream {
    /// A try has failed, and the next one has not begun.
    pub(in crate::hcm) fn waits_to_retry(&self) -> bool {
        self.tries
            .as_ref()
            .and_then(|tries| tries.retry.as_ref())
            .is_some_and(|retry| retry.at.is_some())
    }

    /// It may be tried again.
    pub(in crate::hcm) fn may_retry(&self) -> bool {
        self.tries
            .as_ref()
            .is_some_and(|tries| tries.retry.is_some())
    }

    pub(in crate::hcm) fn priority(&self) -> RoutingPriority {
        let forward = self.route.as_ref().and_then(StreamRoute::forward);
        forward.map_or(RoutingPriority::Default, |forward| forward.config.priority)
    }

    /// The text of an answer for an upstream that gave none.
    pub(in crate::hcm) fn reset_text(&self, reason: &str) -> String {
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
pub(in crate::hcm) fn per_try_timeout(
    stream: &Stream,
    global: Option<Duration>,
) -> Option<Duration> {
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

pub(in crate::hcm) fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.trim_ascii().parse().ok()
}

/// The names of a list in a header, or the list in a policy.
pub(in crate::hcm) fn words(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|word| !word.is_empty())
}

/// What the request's headers ask for; they go no further.
pub(in crate::hcm) fn take_requested(request: &mut Request) -> RequestedRetries {
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
