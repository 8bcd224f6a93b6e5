//! Role-based access control for requests and connections: what is counted of its outcomes, and what it is told of a connection.
//!
//! Deciding is `tidegate_snapshot::rbac`'s; what follows from it is the filters'.

use std::borrow::Cow;

use tidegate_model::rbac::{Rbac, Rules};
use tidegate_snapshot::rbac::{CompiledRules, Outcome, Peer};
use tidegate_stats::defs::rbac as stat;
use tidegate_stats::{Group, Local, Registry};

use crate::accept::ConnectionInfo;

/// The answer to a request that is refused.
pub(crate) const DENIED: &[u8] = b"RBAC: access denied";

/// The counters of one filter.
pub(crate) struct RbacGroups {
    enforced: Group<stat::Rbac>,
    shadow: Group<stat::RbacShadow>,
    /// By place of the policy; empty where policies do not count on their own.
    policies: Vec<Group<stat::RbacPolicy>>,
    shadow_policies: Vec<Group<stat::RbacShadowPolicy>>,
}

/// The same in one worker.
pub(crate) struct RbacStats {
    enforced: Local<stat::Rbac>,
    shadow: Local<stat::RbacShadow>,
    policies: Vec<Local<stat::RbacPolicy>>,
    shadow_policies: Vec<Local<stat::RbacShadowPolicy>>,
}

impl RbacGroups {
    /// `prefix`: whatever stands before `rbac.`.
    pub(crate) fn new(registry: &Registry, prefix: &str, config: &Rbac) -> Self {
        let (rules, shadow) = (&config.rules_stat_prefix, &config.shadow_rules_stat_prefix);
        let names = |rules: &Option<Rules>, prefix: &str| -> Vec<String> {
            let policies = rules.iter().flat_map(|rules| &rules.policies);
            policies
                .filter(|_| config.track_per_rule_stats)
                .map(|(name, _)| format!("{prefix}policy.{name}."))
                .collect()
        };
        let enforced = joined(&[prefix, "rbac", rules]);
        let shadow = joined(&[prefix, "rbac", shadow]);
        Self {
            policies: names(&config.rules, &enforced)
                .iter()
                .map(|name| registry.group(name))
                .collect(),
            shadow_policies: names(&config.shadow_rules, &shadow)
                .iter()
                .map(|name| registry.group(name))
                .collect(),
            enforced: registry.group(&enforced),
            shadow: registry.group(&shadow),
        }
    }

    pub(crate) fn local(&self, worker: usize) -> RbacStats {
        RbacStats {
            enforced: self.enforced.local(worker),
            shadow: self.shadow.local(worker),
            policies: self
                .policies
                .iter()
                .map(|group| group.local(worker))
                .collect(),
            shadow_policies: self
                .shadow_policies
                .iter()
                .map(|group| group.local(worker))
                .collect(),
        }
    }
}

/// The parts with a dot after each, as Envoy joins them.
fn joined(parts: &[&str]) -> String {
    let parts = parts
        .iter()
        .map(|part| part.strip_suffix('.').unwrap_or(part));
    parts
        .filter(|part| !part.is_empty())
        .flat_map(|part| [part, "."])
        .collect()
}

/// The counters of the policy of an outcome, if it has some.
fn of_policy<'s, G>(
    stats: &'s [Local<G>],
    rules: &CompiledRules,
    outcome: Outcome<'_>,
) -> Option<&'s Local<G>> {
    let policy = outcome.policy?;
    let at = rules
        .policies
        .iter()
        .position(|known| std::ptr::eq(known, policy))?;
    stats.get(at)
}

impl RbacStats {
    pub(crate) fn count(&self, rules: &CompiledRules, outcome: Outcome<'_>) {
        self.enforced.inc(if outcome.allowed {
            stat::ALLOWED
        } else {
            stat::DENIED
        });
        if !self.policies.is_empty()
            && let Some(policy) = of_policy(&self.policies, rules, outcome)
        {
            policy.inc(if outcome.allowed {
                stat::POLICY_ALLOWED
            } else {
                stat::POLICY_DENIED
            });
        }
    }

    pub(crate) fn count_shadow(&self, rules: &CompiledRules, outcome: Outcome<'_>) {
        self.shadow.inc(if outcome.allowed {
            stat::SHADOW_ALLOWED
        } else {
            stat::SHADOW_DENIED
        });
        if !self.shadow_policies.is_empty()
            && let Some(policy) = of_policy(&self.shadow_policies, rules, outcome)
        {
            policy.inc(if outcome.allowed {
                stat::POLICY_SHADOW_ALLOWED
            } else {
                stat::POLICY_SHADOW_DENIED
            });
        }
    }
}

/// `rbac_access_denied_matched_policy[NAME]`, without white space.
pub(crate) fn details(outcome: Outcome<'_>) -> Cow<'static, str> {
    let name = outcome.policy.map_or("none", |policy| &*policy.name);
    let name = name.replace(char::is_whitespace, "_");
    Cow::Owned(format!("rbac_access_denied_matched_policy[{name}]"))
}

/// The names in the client's certificate, none if it showed none; `None`: the connection is plaintext.
pub(crate) fn peer(info: &ConnectionInfo) -> Option<Peer<'_>> {
    let tls = info.tls.as_ref()?;
    Some(tls.peer.as_ref().map_or(
        Peer {
            uri_sans: &[],
            dns_sans: &[],
            subject: "",
        },
        |peer| Peer {
            uri_sans: &peer.uri_sans,
            dns_sans: &peer.dns_sans,
            subject: &peer.subject,
        },
    ))
}
