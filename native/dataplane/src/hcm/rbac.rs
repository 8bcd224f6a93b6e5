//! The RBAC filter: lets requests pass by rules, and tells what shadow rules would have done.

use std::rc::Rc;
use std::sync::LazyLock;

use tidegate_model::Name;
use tidegate_model::rbac::Action;
use tidegate_snapshot::per_filter::CompiledPolicy;
use tidegate_snapshot::rbac::Subject;

use super::ServerConnection;
use super::filters::Verdict;
use super::local_reply::Reply;
use super::runtime::FilterStats;
use super::stream::{Stream, StreamRoute};
use crate::rbac::{DENIED, details, peer};
use crate::worker::Worker;

static NAMESPACE: LazyLock<Name> = LazyLock::new(|| Name::from("envoy.filters.http.rbac"));

impl ServerConnection {
    pub(super) fn rbac(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        index: usize,
    ) -> Verdict {
        let hcm = Rc::clone(&self.hcm);
        let Some(filter) = hcm
            .compiled()
            .and_then(|compiled| compiled.filters.get(index))
        else {
            return Verdict::Continue;
        };
        let route = stream.route.clone();
        let levels = route.as_ref().map(StreamRoute::per_filter);
        let of_route = levels.and_then(|levels| levels.policy(&filter.config.name));
        let rbac = match of_route {
            Some(CompiledPolicy::Rbac(rbac)) => rbac,
            _ => match &filter.rbac {
                Some(rbac) => rbac,
                None => return Verdict::Continue,
            },
        };
        let Some(FilterStats::Rbac(stats)) = hcm.filter_stats.get(index) else {
            return Verdict::Continue;
        };
        let info = &self.downstream.info;
        let subject = Subject {
            request: &stream.request,
            local: info.local,
            direct_remote: info.remote,
            remote: stream.client.unwrap_or(info.remote),
            server_name: info.requested_server_name.as_deref().unwrap_or_default(),
            metadata: &stream.metadata,
            peer: peer(info),
        };
        let shadow = rbac
            .shadow_rules
            .as_ref()
            .map(|rules| (rules, rules.evaluate(&subject)));
        let enforced = rbac
            .rules
            .as_ref()
            .map(|rules| (rules, rules.evaluate(&subject)));
        if let Some((rules, outcome)) = shadow {
            stats.count_shadow(rules, outcome);
            stream.metadata.merge_shared(&NAMESPACE, outcome.told);
        }
        let Some((rules, outcome)) = enforced else {
            return Verdict::Continue;
        };
        stats.count(rules, outcome);
        stream.metadata.merge_shared(&NAMESPACE, outcome.told);
        if rules.action == Action::Log {
            let hint = outcome.policy.is_some().into();
            stream.metadata.set("envoy.common", "access_log_hint", hint);
        }
        if outcome.allowed {
            return Verdict::Continue;
        }
        let reply = Reply {
            details: details(outcome),
            ..Reply::new(403, DENIED, "")
        };
        self.reply(stream, worker, reply);
        Verdict::Answered
    }
}
