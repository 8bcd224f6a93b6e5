//! Listener filters: what looks at a connection before its filter chain is chosen.

use tidegate_model::listener::{ConnectionPredicate, ListenerFilter, ListenerFilterKind};

use crate::context::Result;
use crate::fields::Fields;

/// The longest ClientHello that is waited for, in bytes.
const MAX_CLIENT_HELLO: u32 = 16 * 1024;

/// The filters in order, with the one that `use_original_dst` implies.
pub(crate) fn listener_filters(fields: &Fields<'_>) -> Result<Vec<ListenerFilter>> {
    let mut filters = fields.each("listener_filters", |filter| {
        filter.str("name");
        filter.refuse(
            "config_discovery",
            "filters whose configuration comes by ECDS are not supported",
        )?;
        Ok(ListenerFilter {
            disabled: filter.opt("filter_disabled", predicate)?,
            kind: filter.need_any(
                "typed_config",
                &[
                    (
                        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
                        &|_: &Fields<'_>| Ok(ListenerFilterKind::OriginalDst),
                    ),
                    (
                        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
                        &tls_inspector,
                    ),
                    (
                        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
                        &|_: &Fields<'_>| Ok(ListenerFilterKind::HttpInspector),
                    ),
                ],
            )?,
        })
    })?;
    let has_original_dst = filters
        .iter()
        .any(|filter| filter.kind == ListenerFilterKind::OriginalDst);
    if fields.bool("use_original_dst") && !has_original_dst {
        filters.push(ListenerFilter {
            kind: ListenerFilterKind::OriginalDst,
            disabled: None,
        });
    }
    Ok(filters)
}

fn tls_inspector(fields: &Fields<'_>) -> Result<ListenerFilterKind> {
    fields.expect_bool("enable_ja3_fingerprinting", false)?;
    fields.expect_bool("enable_ja4_fingerprinting", false)?;
    let max_client_hello_size = fields
        .opt_u32("max_client_hello_size")
        .unwrap_or(MAX_CLIENT_HELLO);
    if max_client_hello_size > MAX_CLIENT_HELLO {
        return Err(fields.fault(
            "max_client_hello_size",
            format!("max_client_hello_size of {max_client_hello_size} is greater than maximum of {MAX_CLIENT_HELLO}."),
        ));
    }
    // Where reading begins; nobody can tell, for it goes on up to the largest size.
    fields.get("initial_read_buffer_size");
    Ok(ListenerFilterKind::TlsInspector {
        max_client_hello_size: max_client_hello_size as usize,
        close_on_parse_errors: fields.bool("close_connection_on_client_hello_parsing_errors"),
    })
}

fn predicate(fields: &Fields<'_>) -> Result<ConnectionPredicate> {
    if let Some(rules) = fields.opt("or_match", rules)? {
        return Ok(ConnectionPredicate::Or(rules));
    }
    if let Some(rules) = fields.opt("and_match", rules)? {
        return Ok(ConnectionPredicate::And(rules));
    }
    if let Some(rule) = fields.opt("not_match", predicate)? {
        return Ok(ConnectionPredicate::Not(Box::new(rule)));
    }
    if fields.bool("any_match") {
        return Ok(ConnectionPredicate::Any);
    }
    fields.need("destination_port_range", |range| {
        Ok(ConnectionPredicate::DestinationPort {
            start: u32::try_from(range.int("start")).unwrap_or_default(),
            end: u32::try_from(range.int("end")).unwrap_or_default(),
        })
    })
}

fn rules(fields: &Fields<'_>) -> Result<Vec<ConnectionPredicate>> {
    fields.each("rules", predicate)
}
