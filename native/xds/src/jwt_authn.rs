//! `extensions.filters.http.jwt_authn.v3`.

use std::sync::Arc;
use std::time::Duration;

use tidegate_model::Name;
use tidegate_model::jwt::{
    Jwks, JwtAuthn, JwtPerRoute, JwtProvider, JwtRequirement, JwtRule, RemoteJwks,
};

use crate::context::Result;
use crate::fields::Fields;
use crate::{matcher, route, services};

/// When a key set is asked for again, unless its policy says otherwise.
const RETRY_ON: &str = "5xx,gateway-error,connect-failure,reset";

pub(crate) fn jwt_authn(fields: &Fields<'_>) -> Result<JwtAuthn> {
    let providers = fields.entries("providers", |name, provider_fields| {
        Ok((Name::from(name), Arc::new(provider(provider_fields)?)))
    })?;
    let requirement_map = fields.entries("requirement_map", |name, requirement_fields| {
        Ok((Name::from(name), requirement(requirement_fields)?))
    })?;
    let rules = fields.each("rules", |rule| {
        let matches = rule.need("match", route::route_match)?;
        let requires = match rule.opt("requires", requirement)? {
            Some(requires) => Some(requires),
            None => match rule.opt_string("requirement_name") {
                None => None,
                Some(name) => {
                    let found = requirement_map.iter().find(|(known, _)| *known == name);
                    let (_, requires) = found.ok_or_else(|| {
                        rule.fault(
                            "requirement_name",
                            format!(
                                "Wrong requirement_name: {name}. It should be one of [{}]",
                                names(&requirement_map)
                            ),
                        )
                    })?;
                    Some(requires.clone())
                }
            },
        };
        Ok(JwtRule { matches, requires })
    })?;
    let known = |name: &Name| providers.iter().any(|(known, _)| known == name);
    let required = rules.iter().filter_map(|rule| rule.requires.as_ref());
    for requirement in required.chain(requirement_map.iter().map(|(_, requires)| requires)) {
        if let Some(name) = unknown(requirement, &known) {
            return Err(fields.fault(
                "rules",
                format!("Required provider ['{name}'] is not configured."),
            ));
        }
    }
    let prefix = fields.str("stat_prefix");
    Ok(JwtAuthn {
        providers,
        rules,
        requirement_map,
        bypass_cors_preflight: fields.bool("bypass_cors_preflight"),
        strip_failure_response: fields.bool("strip_failure_response"),
        stat_prefix: if prefix.is_empty() {
            Name::default()
        } else {
            Name::from(format!("{prefix}."))
        },
    })
}

fn names(map: &[(Name, JwtRequirement)]) -> String {
    let names: Vec<&str> = map.iter().map(|(name, _)| &**name).collect();
    names.join(",")
}

/// The first provider that a requirement names and nobody has configured.
fn unknown<'a>(
    requirement: &'a JwtRequirement,
    known: &impl Fn(&Name) -> bool,
) -> Option<&'a Name> {
    match requirement {
        JwtRequirement::Provider { name, .. } => (!known(name)).then_some(name),
        JwtRequirement::Any(all) | JwtRequirement::All(all) => {
            all.iter().find_map(|one| unknown(one, known))
        }
        _ => None,
    }
}

fn requirement(fields: &Fields<'_>) -> Result<JwtRequirement> {
    if let Some(name) = fields.opt_string("provider_name") {
        return Ok(JwtRequirement::Provider {
            name,
            audiences: Vec::new(),
        });
    }
    let with_audiences = fields.opt("provider_and_audiences", |provider| {
        Ok(JwtRequirement::Provider {
            name: provider.string("provider_name"),
            audiences: provider.strings("audiences"),
        })
    })?;
    let list = |list: &Fields<'_>| list.each("requirements", requirement);
    Ok(if let Some(provider) = with_audiences {
        provider
    } else if let Some(any) = fields.opt("requires_any", list)? {
        JwtRequirement::Any(any)
    } else if let Some(all) = fields.opt("requires_all", list)? {
        JwtRequirement::All(all)
    } else if fields.opt("allow_missing_or_failed", |_| Ok(()))?.is_some() {
        JwtRequirement::AllowMissingOrFailed
    } else if fields.opt("allow_missing", |_| Ok(()))?.is_some() {
        JwtRequirement::AllowMissing
    } else {
        JwtRequirement::None
    })
}

fn provider(fields: &Fields<'_>) -> Result<JwtProvider> {
    let jwks = match fields.opt("local_jwks", matcher::data_source)? {
        Some(source) => Jwks::Local(source),
        None => fields.need("remote_jwks", |remote| {
            let (uri, cluster, timeout) = remote.need("http_uri", services::http_uri)?;
            Ok(Jwks::Remote(Arc::new(RemoteJwks {
                uri,
                cluster,
                timeout,
                cache_duration: remote
                    .duration("cache_duration")?
                    .unwrap_or(Duration::from_mins(10)),
                retry_policy: remote.opt("retry_policy", |policy| {
                    services::policy_of(policy, RETRY_ON)
                })?,
            })))
        })?,
    };
    let skew = u64::from(fields.u32("clock_skew_seconds"));
    Ok(JwtProvider {
        issuer: fields.string("issuer"),
        audiences: fields.strings("audiences"),
        subjects: fields.opt("subjects", matcher::string)?,
        require_expiration: fields.bool("require_expiration"),
        max_lifetime: fields.duration("max_lifetime")?,
        jwks,
        forward: fields.bool("forward"),
        from_headers: fields.each("from_headers", |header| {
            Ok((
                matcher::lower(header.str("name")),
                header.string("value_prefix"),
            ))
        })?,
        from_params: fields.strings("from_params"),
        from_cookies: fields.strings("from_cookies"),
        forward_payload_header: fields
            .opt_string("forward_payload_header")
            .map(|name| matcher::lower(&name)),
        pad_forward_payload_header: fields.bool("pad_forward_payload_header"),
        payload_in_metadata: fields.opt_string("payload_in_metadata"),
        space_delimited_claims: fields.or_default("normalize_payload_in_metadata", |claims| {
            Ok(claims.strings("space_delimited_claims"))
        })?,
        header_in_metadata: fields.opt_string("header_in_metadata"),
        failed_status_in_metadata: fields.opt_string("failed_status_in_metadata"),
        clock_skew_seconds: if skew == 0 { 60 } else { skew },
        claim_to_headers: fields.each("claim_to_headers", |claim| {
            Ok((
                matcher::lower(claim.str("header_name")),
                claim.string("claim_name"),
            ))
        })?,
        clear_route_cache: fields.bool("clear_route_cache"),
    })
}

pub(crate) fn per_route(fields: &Fields<'_>) -> Result<JwtPerRoute> {
    match fields.opt_string("requirement_name") {
        Some(name) => Ok(JwtPerRoute::Requirement(name)),
        None if fields.bool("disabled") => Ok(JwtPerRoute::Disabled),
        None => Err(fields.here("neither disabled nor a requirement_name")),
    }
}
