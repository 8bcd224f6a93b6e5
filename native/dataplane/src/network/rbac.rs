//! `envoy.filters.network.rbac`: lets connections pass by rules, when their first bytes come or whenever bytes come.

use std::sync::Arc;

use tidegate_model::Name;
use tidegate_snapshot::PlainRequest;
use tidegate_snapshot::metadata::DynamicMetadata;
use tidegate_snapshot::rbac::{CompiledNetworkRbac, Subject};

use super::read_filters::{FilterContext, FilterState, Input, ReadFilter, Verdict};
use crate::rbac::{details, peer};

/// One connection's.
pub(crate) struct NetworkRbac {
    compiled: Arc<CompiledNetworkRbac>,
    decided: bool,
}

impl NetworkRbac {
    pub(crate) fn new(compiled: &Arc<CompiledNetworkRbac>) -> Self {
        Self {
            compiled: Arc::clone(compiled),
            decided: false,
        }
    }
}

impl ReadFilter for NetworkRbac {
    fn wants_data(&self) -> bool {
        !self.decided || self.compiled.config.continuous
    }

    fn on_data(
        &mut self,
        context: &mut FilterContext<'_>,
        state: &mut FilterState,
        _: &mut Input<'_>,
    ) -> Verdict {
        self.decided = true;
        let Some(stats) = context.listener.rbac_stats(&self.compiled) else {
            return Verdict::Continue;
        };
        let info = context.info;
        let (request, metadata) = (PlainRequest::default(), DynamicMetadata::default());
        let subject = Subject {
            request: &request,
            local: info.local,
            direct_remote: info.remote,
            remote: info.remote,
            server_name: info.requested_server_name.as_deref().unwrap_or_default(),
            metadata: &metadata,
            peer: peer(info),
        };
        let rbac = &self.compiled.rbac;
        if let Some(rules) = &rbac.shadow_rules {
            stats.count_shadow(rules, rules.evaluate(&subject));
        }
        let Some(rules) = &rbac.rules else {
            return Verdict::Continue;
        };
        let outcome = rules.evaluate(&subject);
        stats.count(rules, outcome);
        if outcome.allowed {
            return Verdict::Continue;
        }
        state.termination_details = Some(Name::from(details(outcome)));
        Verdict::Close
    }
}
