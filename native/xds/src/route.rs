//! `config.route.v3.RouteConfiguration`: virtual hosts, route matches, header changes.

use std::collections::HashSet;
use std::sync::Arc;

use tidegate_model::route::{
    MirrorPolicy, PathSpecifier, PerFilterConfig, RequireTls, Route, RouteAction,
    RouteConfiguration, RouteMatch, VirtualHost,
};
use tidegate_model::{AppendAction, HeaderMutations, HeaderValueOption, Name, format};

use crate::context::Result;
use crate::fields::Fields;
use crate::{cors, http_filter, lua, matcher, retry, route_action, tracing};

/// Routes that RDS delivers: clusters they name need not exist, unless they say so.
pub(crate) fn rds_route_configuration(fields: &Fields<'_>) -> Result<RouteConfiguration> {
    route_configuration(fields, false)
}

/// Routes inside a connection manager: clusters they name must exist, unless they say otherwise.
pub(crate) fn inline_route_configuration(fields: &Fields<'_>) -> Result<RouteConfiguration> {
    route_configuration(fields, true)
}

fn route_configuration(fields: &Fields<'_>, validate_clusters: bool) -> Result<RouteConfiguration> {
    fields.ignore(&["metadata"], "route metadata has no reader");
    let name = fields.string("name");
    let max_body = fields
        .opt_u32("max_direct_response_body_size_bytes")
        .unwrap_or(4096);
    let mirrors = route_action::mirrors(fields)?;
    let virtual_hosts = fields.each("virtual_hosts", |host| {
        virtual_host(host, max_body, &mirrors).map(Arc::new)
    })?;
    check_domains(fields, &name, &virtual_hosts)?;
    Ok(RouteConfiguration {
        virtual_hosts,
        headers: header_mutations(fields)?,
        validate_clusters: fields
            .opt_bool("validate_clusters")
            .unwrap_or(validate_clusters),
        most_specific_header_mutations_wins: fields.bool("most_specific_header_mutations_wins"),
        ignore_port_in_host_matching: fields.bool("ignore_port_in_host_matching"),
        ignore_path_parameters_in_path_matching: fields
            .bool("ignore_path_parameters_in_path_matching"),
        max_direct_response_body_size_bytes: max_body,
        internal_only_headers: header_names(fields, "internal_only_headers"),
        per_filter: http_filter::per_filter(fields)?,
        name,
    })
}

fn check_domains(fields: &Fields<'_>, name: &Name, hosts: &[Arc<VirtualHost>]) -> Result<()> {
    let mut domains = HashSet::new();
    for (at, host) in hosts.iter().enumerate() {
        for (index, domain) in host.domains.iter().enumerate() {
            if domains.insert(domain) {
                continue;
            }
            let reason = if &**domain == "*" {
                format!("Only a single wildcard domain is permitted in route {name}")
            } else {
                format!(
                    "Only unique values for domains are permitted. Duplicate entry of domain {domain} in route {name}"
                )
            };
            return Err(fields.fault(&format!("virtual_hosts[{at}].domains[{index}]"), reason));
        }
    }
    Ok(())
}

fn virtual_host(
    fields: &Fields<'_>,
    max_body: u32,
    mirrors: &Arc<[MirrorPolicy]>,
) -> Result<VirtualHost> {
    let own = route_action::mirrors(fields)?;
    let mirrors = if own.is_empty() { mirrors } else { &own };
    fields.ignore(&["metadata"], "virtual host metadata has no reader");
    fields.ignore(&["virtual_clusters"], "they only add statistics");
    Ok(VirtualHost {
        name: fields.string("name"),
        domains: fields
            .strings("domains")
            .iter()
            .map(|domain| matcher::lower(domain))
            .collect(),
        routes: fields.each("routes", |route| {
            let mut route = self::route(route, max_body)?;
            if let RouteAction::Route(forward) = &mut route.action
                && forward.mirrors.is_empty()
            {
                forward.mirrors = Arc::clone(mirrors);
            }
            Ok(Arc::new(route))
        })?,
        require_tls: fields.choice(
            "require_tls",
            &[
                ("NONE", RequireTls::None),
                ("EXTERNAL_ONLY", RequireTls::ExternalOnly),
                ("ALL", RequireTls::All),
            ],
        )?,
        headers: header_mutations(fields)?,
        include_request_attempt_count: fields.bool("include_request_attempt_count"),
        include_attempt_count_in_response: fields.bool("include_attempt_count_in_response"),
        include_is_timeout_retry_header: fields.bool("include_is_timeout_retry_header"),
        retry_policy: fields.opt("retry_policy", retry::policy)?,
        body_buffer_limit: retry::body_buffer_limit(fields),
        per_filter: with_old_cors(http_filter::per_filter(fields)?, fields)?,
    })
}

/// The `cors` field of old beside `typed_per_filter_config`, which wins.
pub(crate) fn with_old_cors(
    mut config: PerFilterConfig,
    fields: &Fields<'_>,
) -> Result<PerFilterConfig> {
    let old = fields.opt("cors", cors::policy)?;
    config.cors = config.cors.or(old.map(Arc::new));
    Ok(config)
}

fn route(fields: &Fields<'_>, max_body: u32) -> Result<Route> {
    fields.ignore(&["stat_prefix"], "it only adds statistics");
    let mut per_filter = http_filter::per_filter(fields)?;
    per_filter.metadata = lua::route_metadata(fields)?;
    let action = if let Some((forward, cors)) = fields.opt("route", route_action::forward)? {
        per_filter.cors = per_filter.cors.or(cors);
        RouteAction::Route(Box::new(forward))
    } else if let Some(redirect) = fields.opt("redirect", route_action::redirect)? {
        RouteAction::Redirect(Box::new(redirect))
    } else if let Some(response) = fields.opt("direct_response", |response| {
        route_action::direct_response(response, max_body)
    })? {
        RouteAction::DirectResponse(Box::new(response))
    } else {
        fields.refuse("filter_action", "is not supported")?;
        fields.need("non_forwarding_action", |_| Ok(RouteAction::NonForwarding))?
    };
    Ok(Route {
        name: fields.string("name"),
        matches: fields.need("match", route_match)?,
        action,
        headers: header_mutations(fields)?,
        per_filter,
        body_buffer_limit: retry::body_buffer_limit(fields),
        decorator: fields.opt("decorator", tracing::decorator)?,
        tracing: fields.opt("tracing", tracing::route_tracing)?.map(Box::new),
    })
}

pub(crate) fn route_match(fields: &Fields<'_>) -> Result<RouteMatch> {
    let path = if let Some(regex) = fields.opt("safe_regex", matcher::regex)? {
        PathSpecifier::SafeRegex(regex)
    } else if fields.has("prefix") {
        PathSpecifier::Prefix(fields.string("prefix"))
    } else if fields.has("path") {
        PathSpecifier::Path(fields.string("path"))
    } else if fields.has("path_separated_prefix") {
        PathSpecifier::PathSeparatedPrefix(fields.string("path_separated_prefix"))
    } else if fields.opt("connect_matcher", |_| Ok(()))?.is_some() {
        PathSpecifier::ConnectMatcher
    } else {
        return Err(fields.fault("path_match_policy", "is not supported"));
    };
    Ok(RouteMatch {
        path,
        case_sensitive: fields.opt_bool("case_sensitive").unwrap_or(true),
        headers: fields.each("headers", matcher::header)?,
        query_parameters: fields.each("query_parameters", matcher::query_parameter)?,
        runtime_fraction: fields.opt("runtime_fraction", matcher::runtime_fraction)?,
        grpc: fields.opt("grpc", |_| Ok(()))?.is_some(),
    })
}

/// The four lists of header changes that every level has.
pub(crate) fn header_mutations(fields: &Fields<'_>) -> Result<HeaderMutations> {
    Ok(HeaderMutations {
        request_add: fields.each("request_headers_to_add", header_value_option)?,
        request_remove: removed(fields, "request_headers_to_remove")?,
        response_add: fields.each("response_headers_to_add", header_value_option)?,
        response_remove: removed(fields, "response_headers_to_remove")?,
    })
}

fn header_names(fields: &Fields<'_>, name: &str) -> Vec<Name> {
    fields
        .strings(name)
        .iter()
        .map(|header| matcher::lower(header))
        .collect()
}

fn removed(fields: &Fields<'_>, name: &str) -> Result<Vec<Name>> {
    let headers = header_names(fields, name);
    match headers
        .iter()
        .position(|header| header.starts_with(':') || &**header == "host")
    {
        Some(at) => Err(fields.fault(
            &format!("{name}[{at}]"),
            ":-prefixed or host headers may not be removed",
        )),
        None => Ok(headers),
    }
}

pub(crate) const fn append_actions() -> &'static [(&'static str, AppendAction)] {
    &[
        ("APPEND_IF_EXISTS_OR_ADD", AppendAction::AppendIfExistsOrAdd),
        ("ADD_IF_ABSENT", AppendAction::AddIfAbsent),
        (
            "OVERWRITE_IF_EXISTS_OR_ADD",
            AppendAction::OverwriteIfExistsOrAdd,
        ),
        ("OVERWRITE_IF_EXISTS", AppendAction::OverwriteIfExists),
    ]
}

pub(crate) fn header_value_option(fields: &Fields<'_>) -> Result<HeaderValueOption> {
    let (name, value) = fields.need("header", |header| {
        let name = matcher::lower(header.str("key"));
        if name.starts_with(':') || &*name == "host" {
            return Err(header.fault("key", ":-prefixed or host headers may not be modified"));
        }
        let raw = header.bytes("raw_value").map(String::from_utf8_lossy);
        let value = raw.map_or_else(
            || header.str("value").to_owned(),
            std::borrow::Cow::into_owned,
        );
        format::parse(&value).map_err(|error| header.fault("value", error.to_string()))?;
        Ok((name, Name::from(value)))
    })?;
    let action = fields.choice("append_action", append_actions())?;
    let append_action = match fields.opt_bool("append") {
        None => action,
        Some(_) if action != AppendAction::AppendIfExistsOrAdd => {
            return Err(fields.fault(
                "append",
                "Both append and append_action are set and it's not allowed",
            ));
        }
        Some(true) => AppendAction::AppendIfExistsOrAdd,
        Some(false) => AppendAction::OverwriteIfExistsOrAdd,
    };
    Ok(HeaderValueOption {
        name,
        value,
        append_action,
        keep_empty_value: fields.bool("keep_empty_value"),
    })
}
