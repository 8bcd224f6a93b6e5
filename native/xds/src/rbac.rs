//! `config.rbac.v3.RBAC` and the filters that evaluate it.

use std::sync::Arc;

use tidegate_model::rbac::{Action, NetworkRbac, Policy, Rbac, RbacPerRoute, Rule, Rules};

use crate::address::cidr_range;
use crate::context::Result;
use crate::fields::Fields;
use crate::{matcher, metadata};

const MATCHERS: &str = "matching trees are not supported, rules are";
const CONDITIONS: &str = "expressions (CEL) are not supported";

/// `extensions.filters.http.rbac.v3.RBAC`.
pub(crate) fn http(fields: &Fields<'_>) -> Result<Rbac> {
    fields.refuse("matcher", MATCHERS)?;
    fields.refuse("shadow_matcher", MATCHERS)?;
    Ok(Rbac {
        rules: fields.opt("rules", |rules| self::rules(rules, Place::Http))?,
        rules_stat_prefix: fields.string("rules_stat_prefix"),
        shadow_rules: fields.opt("shadow_rules", |rules| self::rules(rules, Place::Http))?,
        shadow_rules_stat_prefix: fields.string("shadow_rules_stat_prefix"),
        track_per_rule_stats: fields.bool("track_per_rule_stats"),
    })
}

/// `RBACPerRoute`.
pub(crate) fn per_route(fields: &Fields<'_>) -> Result<RbacPerRoute> {
    Ok(Arc::new(fields.or_default("rbac", http)?))
}

/// `extensions.filters.network.rbac.v3.RBAC`.
pub(crate) fn network(fields: &Fields<'_>) -> Result<NetworkRbac> {
    fields.refuse("matcher", MATCHERS)?;
    fields.refuse("shadow_matcher", MATCHERS)?;
    fields.refuse("delay_deny", "connections are closed at once")?;
    let rules = |rules: &Fields<'_>| self::rules(rules, Place::Network);
    Ok(NetworkRbac {
        rbac: Rbac {
            rules: fields.opt("rules", rules)?,
            shadow_rules: fields.opt("shadow_rules", rules)?,
            shadow_rules_stat_prefix: fields.string("shadow_rules_stat_prefix"),
            ..Rbac::default()
        },
        stat_prefix: fields.string("stat_prefix"),
        continuous: fields.choice(
            "enforcement_type",
            &[("ONE_TIME_ON_FIRST_BYTE", false), ("CONTINUOUS", true)],
        )?,
    })
}

/// Connections have no headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Http,
    Network,
}

fn rules(fields: &Fields<'_>, place: Place) -> Result<Rules> {
    fields.refuse("audit_logging_options", "audit loggers are not supported")?;
    Ok(Rules {
        action: fields.choice(
            "action",
            &[
                ("ALLOW", Action::Allow),
                ("DENY", Action::Deny),
                ("LOG", Action::Log),
            ],
        )?,
        policies: fields.entries("policies", |name, policy| {
            for condition in ["condition", "checked_condition", "cel_config"] {
                policy.refuse(condition, CONDITIONS)?;
            }
            let policy = Policy {
                permissions: policy.each("permissions", |rule| permission(rule, place))?,
                principals: policy.each("principals", |rule| principal(rule, place))?,
            };
            Ok((name.into(), policy))
        })?,
    })
}

fn permission(fields: &Fields<'_>, place: Place) -> Result<Rule> {
    let set = |set: &Fields<'_>| set.each("rules", |rule| permission(rule, place));
    if let Some(all) = fields.opt("and_rules", set)? {
        return Ok(Rule::And(all));
    }
    if let Some(any) = fields.opt("or_rules", set)? {
        return Ok(Rule::Or(any));
    }
    if let Some(not) = fields.opt("not_rule", |rule| permission(rule, place))? {
        return Ok(Rule::Not(Box::new(not)));
    }
    if let Some(rule) = of_request(fields, place)? {
        return Ok(rule);
    }
    if let Some(net) = fields.opt("destination_ip", cidr_range)? {
        return Ok(Rule::DestinationIp(net));
    }
    if let Some(port) = fields.opt_u32("destination_port") {
        return Ok(Rule::DestinationPort(port));
    }
    if let Some((start, end)) = fields.opt("destination_port_range", port_range)? {
        return Ok(Rule::DestinationPortRange(start, end));
    }
    if let Some(name) = fields.opt("requested_server_name", matcher::string)? {
        return Ok(Rule::RequestedServerName(name));
    }
    fields.refuse("matcher", "extensions are not supported")?;
    fields.refuse("uri_template", "templates are not supported")?;
    Err(fields.here("a permission without a rule"))
}

fn principal(fields: &Fields<'_>, place: Place) -> Result<Rule> {
    let set = |set: &Fields<'_>| set.each("ids", |rule| principal(rule, place));
    if let Some(all) = fields.opt("and_ids", set)? {
        return Ok(Rule::And(all));
    }
    if let Some(any) = fields.opt("or_ids", set)? {
        return Ok(Rule::Or(any));
    }
    if let Some(not) = fields.opt("not_id", |rule| principal(rule, place))? {
        return Ok(Rule::Not(Box::new(not)));
    }
    if let Some(rule) = of_request(fields, place)? {
        return Ok(rule);
    }
    let authenticated = fields.opt("authenticated", |authenticated| {
        authenticated.opt("principal_name", matcher::string)
    })?;
    if let Some(name) = authenticated {
        return Ok(Rule::Authenticated(name));
    }
    // Without a PROXY protocol the connection's peer is the socket's.
    for name in ["source_ip", "direct_remote_ip"] {
        if let Some(net) = fields.opt(name, cidr_range)? {
            return Ok(Rule::DirectRemoteIp(net));
        }
    }
    if let Some(net) = fields.opt("remote_ip", cidr_range)? {
        return Ok(Rule::RemoteIp(net));
    }
    fields.refuse("filter_state", "there is no filter state to match")?;
    fields.refuse("custom", "extensions are not supported")?;
    Err(fields.here("a principal without an identifier"))
}

/// What permissions and principals have in common.
fn of_request(fields: &Fields<'_>, place: Place) -> Result<Option<Rule>> {
    if fields.bool("any") {
        return Ok(Some(Rule::Any));
    }
    if let Some(header) = fields.opt("header", matcher::header)? {
        if place == Place::Network {
            return Err(fields.fault(
                "header",
                format!(
                    "Found header({}) rule, not supported by RBAC network filter",
                    header.name
                ),
            ));
        }
        return Ok(Some(Rule::Header(header)));
    }
    let path = fields.opt("url_path", |path| path.need("path", matcher::string))?;
    if let Some(path) = path {
        return Ok(Some(Rule::UrlPath(path)));
    }
    if let Some(metadata) = fields.opt("metadata", metadata::matcher)? {
        return Ok(Some(Rule::Metadata(metadata)));
    }
    let sourced = fields.opt("sourced_metadata", |sourced| {
        sourced.choice("metadata_source", &[("DYNAMIC", ())])?;
        sourced.need("metadata_matcher", metadata::matcher)
    })?;
    Ok(sourced.map(Rule::Metadata))
}

/// `type.v3.Int32Range`, in Envoy's bounds for ports.
fn port_range(fields: &Fields<'_>) -> Result<(u32, u32)> {
    let bound = |name: &str| {
        let value = fields.int(name);
        u32::try_from(value)
            .ok()
            .filter(|value| *value <= 65_536)
            .ok_or_else(|| fields.fault(name, format!("range {name} {value} is out of bounds")))
    };
    let (start, end) = (bound("start")?, bound("end")?);
    if start >= end {
        return Err(fields.here(format!(
            "range start {start} cannot be greater or equal than range end {end}"
        )));
    }
    Ok((start, end))
}
