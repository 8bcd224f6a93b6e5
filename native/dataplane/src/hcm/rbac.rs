//! The RBAC filter: lets requests pass by rules, and tells what shadow rules would have done.

use std::rc::Rc;
use std::sync::LazyLock;

use tidegate_model::Name;
use tidegate_model::hcm::HttpFilterKind;
use tidegate_model::rbac::Action;
use tidegate_snapshot::metadata::DynamicMetadata;
use tidegate_snapshot::per_filter::CompiledPolicy;
use tidegate_snapshot::rbac::{Outcome, Subject};

use super::ServerConnection;
use super::filters::Verdict;
use super::local_reply::Reply;
use super::runtime::FilterRuntime;
use super::stream::{Stream, StreamRoute};
use crate::rbac::{DENIED, details, peer};
use crate::worker::Worker;

static NAMESPACE: LazyLock<Name> = LazyLock::new(|| Name::from("envoy.filters.http.rbac"));

/// `prefix`: what keys still lack.
fn tell(metadata: &mut DynamicMetadata, outcome: Outcome<'_>, prefix: &str) {
    if prefix.is_empty() {
        return metadata.merge_shared(&NAMESPACE, outcome.told);
    }
    let fields = outcome.told.iter();
    let fields = fields.map(|(key, value)| (format!("{prefix}{key}"), value.clone()));
    metadata.merge(&NAMESPACE, fields.collect());
}

impl ServerConnection {
    pub(super) fn rbac(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        index: usize,
    ) -> Verdict {
        let hcm = Rc::clone(self.manager_of(stream));
        let Some(filter) = hcm.filter(index) else {
            return Verdict::Continue;
        };
        let levels = stream.route.as_ref().map(StreamRoute::per_filter);
        let of_route = levels.and_then(|levels| levels.policy(&filter.config.name));
        let HttpFilterKind::Rbac(config) = &filter.config.kind else {
            return Verdict::Continue;
        };
        // A route that has no prefix of its own tells its outcomes under the filter's.
        let (rbac, prefixes) = match (of_route, &filter.rbac) {
            (Some(CompiledPolicy::Rbac(rbac)), _) => (
                rbac,
                [
                    &*config.rules_stat_prefix,
                    &*config.shadow_rules_stat_prefix,
                ],
            ),
            (_, Some(rbac)) => (rbac, [""; 2]),
            (_, None) => return Verdict::Continue,
        };
        let [prefix, shadow_prefix] = prefixes;
        let Some(FilterRuntime::Rbac(stats)) = hcm.filter_runtimes.get(index) else {
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
            let is_prefixed = shadow_prefix.is_empty() || rbac.has_shadow_prefix;
            tell(
                &mut stream.metadata,
                outcome,
                if is_prefixed { "" } else { shadow_prefix },
            );
        }
        let Some((rules, outcome)) = enforced else {
            return Verdict::Continue;
        };
        stats.count(rules, outcome);
        let is_prefixed = prefix.is_empty() || rbac.has_prefix;
        tell(
            &mut stream.metadata,
            outcome,
            if is_prefixed { "" } else { prefix },
        );
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
