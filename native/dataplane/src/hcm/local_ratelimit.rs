//! The local rate limit: requests beyond what the bucket holds are refused, or told apart.

use std::rc::Rc;
use std::sync::Arc;

use tidegate_snapshot::headers::HeaderOps;
use tidegate_snapshot::local_ratelimit::CompiledLocalRateLimit;
use tidegate_snapshot::per_filter::CompiledPolicy;
use tidegate_snapshot::{HeaderScratch, ResponseFlags};
use tidegate_stats::defs::local_ratelimit as stat;

use super::ServerConnection;
use super::filters::Verdict;
use super::local_reply::Reply;
use super::log::RequestSide;
use super::runtime::{FilterRuntime, HcmRuntime};
use super::stream::{Stream, StreamRoute};
use crate::worker::Worker;

/// gRPC's codes for a request too many.
const RESOURCE_EXHAUSTED: i64 = 8;
const UNAVAILABLE: i64 = 14;

impl ServerConnection {
    pub(super) fn local_ratelimit(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        index: usize,
    ) -> Verdict {
        let hcm = Rc::clone(self.manager_of(stream));
        let Some((limit, enforced)) = exceeded(stream, worker, &hcm, index) else {
            return Verdict::Continue;
        };
        if !enforced {
            apply(self, stream, worker, &limit.request_headers);
            return Verdict::Continue;
        }
        stream.flags.insert(ResponseFlags::RATE_LIMITED);
        self.choose_cluster(stream, &mut worker.core);
        let exhausted = limit.config.rate_limited_as_resource_exhausted;
        let reply = Reply {
            grpc_status: Some(if exhausted {
                RESOURCE_EXHAUSTED
            } else {
                UNAVAILABLE
            }),
            changes: Some(&limit.response_headers),
            ..Reply::new(
                limit.config.status,
                b"local_rate_limited",
                "local_rate_limited",
            )
        };
        self.reply(stream, worker, reply);
        Verdict::Answered
    }
}

/// Counts a request, and takes a token for it. The limit that it is beyond, if so, and whether that is enforced.
fn exceeded(
    stream: &Stream,
    worker: &mut Worker,
    hcm: &HcmRuntime,
    index: usize,
) -> Option<(Arc<CompiledLocalRateLimit>, bool)> {
    let filter = hcm.filter(index)?;
    let levels = stream.route.as_ref().map(StreamRoute::per_filter);
    let of_route = levels.and_then(|levels| levels.policy(&filter.config.name));
    let limit = match of_route {
        Some(CompiledPolicy::LocalRateLimit(limit)) => limit,
        _ => filter.local_ratelimit.as_ref()?,
    };
    let core = &mut worker.core;
    let (enabled, enforced) = (core.rng.next_u64(), core.rng.next_u64());
    let is_hit = |fraction: &Option<tidegate_model::RuntimeFraction>, random| {
        fraction
            .as_ref()
            .is_some_and(|fraction| core.snapshot.runtime().hits(fraction, random))
    };
    if !is_hit(&limit.config.filter_enabled, enabled) {
        return None;
    }
    let enforced = is_hit(&limit.config.filter_enforced, enforced);
    // A route's limit counts under its own name.
    let Some(FilterRuntime::LocalRateLimit(groups)) = hcm.filter_runtimes.get(index) else {
        return None;
    };
    let stats = groups.of(&core.shared.registry, core.id, &limit.config.stat_prefix);
    stats.inc(stat::ENABLED);
    let now = core.now().nanos();
    if limit.bucket.as_ref().is_none_or(|bucket| bucket.take(now)) {
        stats.inc(stat::OK);
        return None;
    }
    stats.inc(stat::RATE_LIMITED);
    if enforced {
        stats.inc(stat::ENFORCED);
    }
    Some((Arc::clone(limit), enforced))
}

fn apply(connection: &ServerConnection, stream: &mut Stream, worker: &Worker, changes: &HeaderOps) {
    if !changes.is_empty() {
        let mut side = RequestSide::new(connection, stream, &worker.core.clock);
        changes.apply(&mut side, &mut HeaderScratch::default());
    }
}
