//! `envoy.filters.network.local_ratelimit`: connections beyond what the bucket holds are closed at once.

use std::sync::Arc;

use tidegate_snapshot::ResponseFlags;
use tidegate_snapshot::local_ratelimit::CompiledNetworkRateLimit;

use super::read_filters::{FilterContext, FilterState, ReadFilter, Verdict};

/// Of one connection; keeps nothing.
pub(crate) struct NetworkRateLimit(Arc<CompiledNetworkRateLimit>);

impl NetworkRateLimit {
    pub(crate) fn new(compiled: &Arc<CompiledNetworkRateLimit>) -> Self {
        Self(Arc::clone(compiled))
    }
}

impl ReadFilter for NetworkRateLimit {
    fn on_new_connection(
        &mut self,
        context: &mut FilterContext<'_>,
        state: &mut FilterState,
    ) -> Verdict {
        let core = &context.core;
        if !core.snapshot.runtime().flag(&self.0.config.enabled)
            || self.0.bucket.take(core.now().nanos())
        {
            return Verdict::Continue;
        }
        context.listener.count_rate_limited(&self.0);
        state
            .flags
            .insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        Verdict::Close
    }
}
