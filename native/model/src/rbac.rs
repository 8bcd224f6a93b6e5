//! Role-based access control, of requests and of connections (`config.rbac.v3` and the two filters).

use std::sync::Arc;

use ipnet::IpNet;

use crate::Name;
use crate::matcher::{HeaderMatcher, MetadataMatcher, StringMatcher};

/// `extensions.filters.http.rbac.v3.RBAC`; also what a route says instead.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rbac {
    /// `None`: everything passes.
    pub rules: Option<Rules>,
    pub rules_stat_prefix: Name,
    /// Evaluated and told, without consequences.
    pub shadow_rules: Option<Rules>,
    pub shadow_rules_stat_prefix: Name,
    /// Each policy counts on its own, too.
    pub track_per_rule_stats: bool,
}

/// `extensions.filters.network.rbac.v3.RBAC`.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkRbac {
    pub rbac: Rbac,
    pub stat_prefix: Name,
    /// Again with all bytes that come (`CONTINUOUS`), not only with the first.
    pub continuous: bool,
}

/// `config.rbac.v3.RBAC`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    pub action: Action,
    /// In the order of their names, which is that of evaluation.
    pub policies: Vec<(Name, Policy)>,
}

/// What it means that a policy matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Allow,
    Deny,
    /// Nothing is refused; the match is told as `access_log_hint`.
    Log,
}

/// Matches where any of the permissions and any of the principals does.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub permissions: Vec<Rule>,
    pub principals: Vec<Rule>,
}

/// A `Permission` or a `Principal`.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    Any,
    And(Vec<Rule>),
    Or(Vec<Rule>),
    Not(Box<Rule>),
    Header(HeaderMatcher),
    /// Without the query.
    UrlPath(StringMatcher),
    Metadata(MetadataMatcher),
    DestinationIp(IpNet),
    DestinationPort(u32),
    /// Half open.
    DestinationPortRange(u32, u32),
    RequestedServerName(StringMatcher),
    /// A client with TLS; with a matcher, one of its certificate's names.
    Authenticated(Option<StringMatcher>),
    /// The socket's peer.
    DirectRemoteIp(IpNet),
    /// The client as `x-forwarded-for` and the configuration tell it.
    RemoteIp(IpNet),
}

/// What a route says to the filter; no rules at all switch it off.
pub type RbacPerRoute = Arc<Rbac>;
