//! `config.route.v3.RouteAction.HashPolicy`, which routes, load balancing extensions and the TCP proxy share.

use std::time::Duration;

use tidegate_model::route::{HashCookie, HashPolicy, HashSpecifier};

use crate::context::Result;
use crate::fields::Fields;
use crate::matcher;

/// The `hash_policy` of a message.
pub(crate) fn hash_policies(fields: &Fields<'_>) -> Result<Vec<HashPolicy>> {
    let policies = fields.each("hash_policy", hash_policy)?;
    Ok(policies.into_iter().flatten().collect())
}

/// `None`: one that asks for nothing.
fn hash_policy(fields: &Fields<'_>) -> Result<Option<HashPolicy>> {
    fields.refuse("filter_state", "is not supported")?;
    let terminal = fields.bool("terminal");
    let specifier = if let Some(header) = fields.opt("header", |header| {
        Ok(HashSpecifier::Header {
            name: matcher::lower(header.str("header_name")),
            regex_rewrite: header.opt("regex_rewrite", matcher::regex_rewrite)?,
        })
    })? {
        header
    } else if let Some(cookie) = fields.opt("cookie", cookie)? {
        HashSpecifier::Cookie(cookie)
    } else if let Some(source_ip) = fields.opt("connection_properties", |properties| {
        Ok(properties.bool("source_ip"))
    })? {
        if !source_ip {
            return Ok(None);
        }
        HashSpecifier::SourceIp
    } else {
        fields.need("query_parameter", |parameter| {
            Ok(HashSpecifier::QueryParameter(parameter.string("name")))
        })?
    };
    Ok(Some(HashPolicy {
        specifier,
        terminal,
    }))
}

fn cookie(fields: &Fields<'_>) -> Result<HashCookie> {
    Ok(HashCookie {
        name: fields.string("name"),
        ttl: fields
            .duration("ttl")?
            .map(|ttl| Duration::from_secs(ttl.as_secs())),
        path: fields.string("path"),
        attributes: fields.each("attributes", |attribute| {
            Ok((attribute.string("name"), attribute.string("value")))
        })?,
    })
}

/// The TCP proxy's `hash_policy`: whether it goes by the source address.
pub(crate) fn tcp_source_ip(fields: &Fields<'_>) -> Result<bool> {
    let policies = fields.each("hash_policy", |policy| {
        policy.refuse("filter_state", "is not supported")?;
        policy.need("source_ip", |_| Ok(()))
    })?;
    Ok(!policies.is_empty())
}
