//! `config.listener.v3.Listener`: listeners and filter chains.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_model::Name;
use tidegate_model::listener::{
    FilterChain, FilterChainMatch, Listener, SourceType, TrafficDirection,
};

use crate::context::Result;
use crate::fields::Fields;
use crate::{access_log, address, listener_filter, network_filter, tls};

/// The longest queue of pending connections worth asking for; the system caps it at `net.core.somaxconn`.
const BACKLOG: u32 = 65_535;

pub(crate) fn listener(fields: &Fields<'_>) -> Result<Listener> {
    fields.ignore(&["metadata"], "listener metadata has no reader");
    fields.ignore(
        &["bypass_overload_manager"],
        "there are no overload actions",
    );
    fields.expect_bool("enable_mptcp", false)?;
    if !fields.has("address") {
        return Err(fields.fault("address", "address is necessary"));
    }
    let address = fields.need("address", address::socket)?;
    let filter_chains = fields.each("filter_chains", filter_chain)?;
    let default_filter_chain = fields.opt("default_filter_chain", filter_chain)?;
    if filter_chains.is_empty() && default_filter_chain.is_none() {
        return Err(fields.fault("filter_chains", "no filter chains specified"));
    }
    for (at, chain) in filter_chains.iter().enumerate() {
        if let Some(twin) = filter_chains
            .iter()
            .take(at)
            .position(|other| other.matches == chain.matches)
        {
            return Err(fields.fault(
                &format!("filter_chains[{at}].filter_chain_match"),
                format!("filter chain '{}' has the same matching rules defined as filter_chains[{twin}]", chain.name),
            ));
        }
    }
    let deprecated_bind = fields
        .opt("deprecated_v1", |old| Ok(old.opt_bool("bind_to_port")))?
        .flatten();
    Ok(Listener {
        name: fields
            .opt_string("name")
            .unwrap_or_else(|| Name::from(address.to_string())),
        address,
        additional_addresses: fields.each("additional_addresses", |additional| {
            additional.need("address", address::socket)
        })?,
        stat_prefix: fields
            .opt_string("stat_prefix")
            .unwrap_or_else(|| stat_prefix(address)),
        bind_to_port: fields.opt_bool("bind_to_port").unwrap_or(true)
            && deprecated_bind.unwrap_or(true),
        use_original_dst: fields.bool("use_original_dst"),
        listener_filters: listener_filter::listener_filters(fields)?,
        filter_chains,
        default_filter_chain,
        per_connection_buffer_limit_bytes: fields
            .opt_u32("per_connection_buffer_limit_bytes")
            .unwrap_or(1 << 20),
        listener_filters_timeout: fields
            .timeout("listener_filters_timeout", Some(Duration::from_secs(15)))?,
        continue_on_listener_filters_timeout: fields.bool("continue_on_listener_filters_timeout"),
        traffic_direction: fields.choice(
            "traffic_direction",
            &[
                ("UNSPECIFIED", TrafficDirection::Unspecified),
                ("INBOUND", TrafficDirection::Inbound),
                ("OUTBOUND", TrafficDirection::Outbound),
            ],
        )?,
        reuse_port: fields
            .opt_bool("enable_reuse_port")
            .or(fields.opt_bool("reuse_port"))
            .unwrap_or(true),
        exact_balance: exact_balance(fields)?,
        tcp_backlog_size: fields.opt_u32("tcp_backlog_size").unwrap_or(BACKLOG),
        max_accepts_per_event: fields.opt_u32("max_connections_to_accept_per_socket_event"),
        freebind: fields.bool("freebind"),
        transparent: fields.bool("transparent"),
        access_log: fields.each("access_log", access_log::access_log)?,
        drain_type_modify_only: fields
            .choice("drain_type", &[("DEFAULT", false), ("MODIFY_ONLY", true)])?,
        max_connections: None,
        ignore_global_conn_limit: fields.bool("ignore_global_conn_limit"),
    })
}

/// The address as it stands in stat names: `0.0.0.0_15001`, `[__1]_80`.
fn stat_prefix(address: SocketAddr) -> Name {
    Name::from(address.to_string().replace(':', "_"))
}

fn exact_balance(fields: &Fields<'_>) -> Result<bool> {
    let exact = fields.opt("connection_balance_config", |config| {
        config.opt("exact_balance", |_| Ok(()))
    })?;
    Ok(exact.flatten().is_some())
}

fn filter_chain(fields: &Fields<'_>) -> Result<FilterChain> {
    fields.ignore(&["metadata"], "filter chain metadata has no reader");
    fields.expect_bool("use_proxy_proto", false)?;
    let (read_filters, filter) = network_filter::filters(fields)?;
    Ok(FilterChain {
        name: fields.string("name"),
        matches: fields.or_default("filter_chain_match", chain_match)?,
        read_filters,
        filter,
        transport_socket: tls::downstream_transport(fields)?,
        transport_socket_connect_timeout: fields
            .timeout("transport_socket_connect_timeout", None)?,
    })
}

fn chain_match(fields: &Fields<'_>) -> Result<FilterChainMatch> {
    let server_names = fields.strings("server_names");
    for (at, name) in server_names.iter().enumerate() {
        if name.contains('*') && !name.starts_with("*.") {
            return Err(fields.fault(
                &format!("server_names[{at}]"),
                "partial wildcards are not supported in \"server_names\"",
            ));
        }
    }
    let ports = fields
        .get("source_ports")
        .and_then(|ports| ports.as_list())
        .unwrap_or_default();
    Ok(FilterChainMatch {
        destination_port: fields
            .opt_u32("destination_port")
            .and_then(|port| u16::try_from(port).ok()),
        prefix_ranges: address::cidr_ranges(fields, "prefix_ranges")?,
        server_names,
        transport_protocol: fields.opt_string("transport_protocol"),
        application_protocols: fields.strings("application_protocols"),
        direct_source_prefix_ranges: address::cidr_ranges(fields, "direct_source_prefix_ranges")?,
        source_type: fields.choice(
            "source_type",
            &[
                ("ANY", SourceType::Any),
                ("SAME_IP_OR_LOOPBACK", SourceType::SameIpOrLoopback),
                ("EXTERNAL", SourceType::External),
            ],
        )?,
        source_prefix_ranges: address::cidr_ranges(fields, "source_prefix_ranges")?,
        source_ports: ports
            .iter()
            .filter_map(|port| u16::try_from(port.as_u64()?).ok())
            .collect(),
    })
}
