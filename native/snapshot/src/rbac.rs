//! Role-based access control, compiled: whether a request or a connection passes, and by which policy.
//!
//! Pure: knows what is said about the subject ([`Subject`]), not where from. Nothing is allocated by matching.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::{Map, Value};
use tidegate_model::Name;
use tidegate_model::rbac::{Action, NetworkRbac, Policy, Rbac, Rule, Rules};

use crate::error::CompileError;
use crate::matcher::{CompiledHeader, CompiledString};
use crate::metadata::{CompiledMetadata, DynamicMetadata};
use crate::request::{RequestView, path_without_query};

/// The names in a client's certificate, by which it is known.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    pub uri_sans: &'a [Box<str>],
    pub dns_sans: &'a [Box<str>],
    pub subject: &'a str,
}

/// What rules may ask about.
#[derive(Debug)]
pub struct Subject<'a, R> {
    /// Connections have an empty one.
    pub request: &'a R,
    /// The original destination where that was looked up.
    pub local: SocketAddr,
    /// The socket's peer.
    pub direct_remote: SocketAddr,
    /// The client as far as it can be told.
    pub remote: SocketAddr,
    pub server_name: &'a str,
    pub metadata: &'a DynamicMetadata,
    /// `None`: the connection is plaintext. Without a certificate all names are empty.
    pub peer: Option<Peer<'a>>,
}

/// What rules came to.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    pub allowed: bool,
    /// The first policy that matched.
    pub policy: Option<&'a CompiledPolicy>,
    /// The dynamic metadata that tells it.
    pub told: &'a Arc<Map<String, Value>>,
}

/// `extensions.filters.http.rbac.v3.RBAC`, or the same of a network filter.
#[derive(Debug)]
pub struct CompiledRbac {
    pub rules: Option<CompiledRules>,
    pub shadow_rules: Option<CompiledRules>,
    pub track_per_rule_stats: bool,
    /// What is told of the rules has a prefix.
    pub has_prefix: bool,
    pub has_shadow_prefix: bool,
}

/// Rules, and what is told of their outcomes.
#[derive(Debug)]
pub struct CompiledRules {
    pub action: Action,
    pub policies: Vec<CompiledPolicy>,
    /// Of an outcome without a policy.
    told: Told,
}

#[derive(Debug)]
pub struct CompiledPolicy {
    pub name: Name,
    permissions: Matcher,
    principals: Matcher,
    told: Told,
}

/// The dynamic metadata of an outcome, ready.
#[derive(Debug)]
struct Told {
    allowed: Arc<Map<String, Value>>,
    denied: Arc<Map<String, Value>>,
}

impl Told {
    /// `keys`: of the policy, and of the result.
    fn new(keys: &[String; 2], policy: Option<&Name>) -> Self {
        let [policy_key, result_key] = keys;
        let fields = |result: &str| {
            let mut fields = Map::new();
            if let Some(policy) = policy {
                fields.insert(policy_key.clone(), Value::from(&**policy));
            }
            fields.insert(result_key.clone(), Value::from(result));
            Arc::new(fields)
        };
        Self {
            allowed: fields("allowed"),
            denied: fields("denied"),
        }
    }
}

impl CompiledRbac {
    pub fn compile(config: &Rbac) -> Result<Self, CompileError> {
        let rules = |rules: &Option<Rules>, name: &str, kind: &str, prefix: &Name| {
            let keys = [
                format!("{prefix}{kind}_effective_policy_id"),
                format!("{prefix}{kind}_engine_result"),
            ];
            let rules = rules
                .as_ref()
                .map(|rules| CompiledRules::compile(rules, &keys));
            rules.transpose().map_err(|e| e.within(name))
        };
        Ok(Self {
            rules: rules(
                &config.rules,
                "rules",
                "enforced",
                &config.rules_stat_prefix,
            )?,
            shadow_rules: rules(
                &config.shadow_rules,
                "shadow_rules",
                "shadow",
                &config.shadow_rules_stat_prefix,
            )?,
            track_per_rule_stats: config.track_per_rule_stats,
            has_prefix: !config.rules_stat_prefix.is_empty(),
            has_shadow_prefix: !config.shadow_rules_stat_prefix.is_empty(),
        })
    }
}

/// The network filter.
#[derive(Debug)]
pub struct CompiledNetworkRbac {
    pub config: Arc<NetworkRbac>,
    pub rbac: CompiledRbac,
}

impl CompiledNetworkRbac {
    pub fn compile(config: &Arc<NetworkRbac>) -> Result<Self, CompileError> {
        Ok(Self {
            rbac: CompiledRbac::compile(&config.rbac)?,
            config: Arc::clone(config),
        })
    }
}

impl CompiledRules {
    fn compile(rules: &Rules, keys: &[String; 2]) -> Result<Self, CompileError> {
        let policy = |(name, policy): &(Name, Policy)| {
            let any = |rules: &[Rule], field: &str| {
                Matcher::any_of(rules)
                    .map_err(|e| e.within(&format!("policies[\"{name}\"].{field}")))
            };
            Ok(CompiledPolicy {
                name: Name::clone(name),
                permissions: any(&policy.permissions, "permissions")?,
                principals: any(&policy.principals, "principals")?,
                told: Told::new(keys, Some(name)),
            })
        };
        Ok(Self {
            action: rules.action,
            policies: rules
                .policies
                .iter()
                .map(policy)
                .collect::<Result<_, CompileError>>()?,
            told: Told::new(keys, None),
        })
    }

    pub fn evaluate<R: RequestView>(&self, subject: &Subject<'_, R>) -> Outcome<'_> {
        let policy = self.policies.iter().find(|policy| {
            policy.permissions.matches(subject) && policy.principals.matches(subject)
        });
        let allowed = match self.action {
            Action::Allow => policy.is_some(),
            Action::Deny => policy.is_none(),
            Action::Log => true,
        };
        let told = policy.map_or(&self.told, |policy| &policy.told);
        Outcome {
            allowed,
            policy,
            told: if allowed { &told.allowed } else { &told.denied },
        }
    }
}

/// A permission or principal, compiled. Sets of one are what is in them.
#[derive(Debug)]
enum Matcher {
    Any,
    And(Vec<Matcher>),
    Or(Vec<Matcher>),
    Not(Box<Matcher>),
    Header(CompiledHeader),
    UrlPath(CompiledString),
    Metadata(CompiledMetadata),
    DestinationIp(IpNet),
    DestinationPort(u32),
    DestinationPortRange(u32, u32),
    RequestedServerName(CompiledString),
    Authenticated(Option<CompiledString>),
    DirectRemoteIp(IpNet),
    RemoteIp(IpNet),
}

impl Matcher {
    fn any_of(rules: &[Rule]) -> Result<Self, CompileError> {
        match rules {
            [only] => Self::compile(only),
            _ => Self::all(rules).map(Self::Or),
        }
    }

    fn all(rules: &[Rule]) -> Result<Vec<Self>, CompileError> {
        rules.iter().map(Self::compile).collect()
    }

    fn compile(rule: &Rule) -> Result<Self, CompileError> {
        Ok(match rule {
            Rule::Any => Self::Any,
            Rule::And(rules) => match &**rules {
                [only] => Self::compile(only)?,
                _ => Self::And(Self::all(rules)?),
            },
            Rule::Or(rules) => Self::any_of(rules)?,
            Rule::Not(rule) => Self::Not(Box::new(Self::compile(rule)?)),
            Rule::Header(header) => Self::Header(CompiledHeader::compile(header)?),
            Rule::UrlPath(path) => Self::UrlPath(CompiledString::compile(path)?),
            Rule::Metadata(metadata) => Self::Metadata(CompiledMetadata::compile(metadata)?),
            Rule::DestinationIp(net) => Self::DestinationIp(*net),
            Rule::DestinationPort(port) => Self::DestinationPort(*port),
            Rule::DestinationPortRange(start, end) => Self::DestinationPortRange(*start, *end),
            Rule::RequestedServerName(name) => {
                Self::RequestedServerName(CompiledString::compile(name)?)
            }
            Rule::Authenticated(name) => {
                Self::Authenticated(name.as_ref().map(CompiledString::compile).transpose()?)
            }
            Rule::DirectRemoteIp(net) => Self::DirectRemoteIp(*net),
            Rule::RemoteIp(net) => Self::RemoteIp(*net),
        })
    }

    fn matches<R: RequestView>(&self, subject: &Subject<'_, R>) -> bool {
        let within = |net: &IpNet, address: SocketAddr| net.contains(&address.ip().to_canonical());
        let port = u32::from(subject.local.port());
        match self {
            Self::Any => true,
            Self::And(all) => all.iter().all(|rule| rule.matches(subject)),
            Self::Or(any) => any.iter().any(|rule| rule.matches(subject)),
            Self::Not(rule) => !rule.matches(subject),
            Self::Header(header) => header.matches(subject.request),
            Self::UrlPath(path) => match subject.request.path() {
                b"" => false,
                found => path.matches(path_without_query(found)),
            },
            Self::Metadata(metadata) => metadata.matches(subject.metadata),
            Self::DestinationIp(net) => within(net, subject.local),
            Self::DestinationPort(wanted) => port == *wanted,
            Self::DestinationPortRange(start, end) => (*start..*end).contains(&port),
            Self::RequestedServerName(name) => name.matches(subject.server_name.as_bytes()),
            Self::Authenticated(name) => match (&subject.peer, name) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(peer), Some(name)) => {
                    let named =
                        |sans: &[Box<str>]| sans.iter().any(|san| name.matches(san.as_bytes()));
                    named(peer.uri_sans)
                        || named(peer.dns_sans)
                        || name.matches(peer.subject.as_bytes())
                }
            },
            Self::DirectRemoteIp(net) => within(net, subject.direct_remote),
            Self::RemoteIp(net) => within(net, subject.remote),
        }
    }
}
