//! `config.cluster.v3.Cluster`, `core.v3.ConfigSource` and what hangs on them.

use std::sync::Arc;
use std::time::Duration;

use tidegate_model::Name;
use tidegate_model::cluster::{
    Address, BindConfig, CircuitBreakers, Cluster, ClusterLoadAssignment, ConfigSource, Discovery,
    DnsCluster, DnsLookupFamily, MetadataKey, OriginalDst, RetryBudget, TcpKeepalive, Thresholds,
    UpstreamHttpOptions, UpstreamProtocol,
};
use tidegate_model::tls::UpstreamTransport;

use crate::context::Result;
use crate::fields::Fields;
use crate::outlier_detection::outlier_detection;
use crate::upstream_http::{common_options, http_protocol_options, protocols, upstream_options};
use crate::{address, endpoint, istio, lb, tls};

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

pub(crate) fn cluster(fields: &Fields<'_>) -> Result<Cluster> {
    fields.ignore(
        &["track_timeout_budgets", "track_cluster_stats"],
        "it only adds statistics",
    );
    fields.expect_bool("wait_for_warm_on_init", true)?;
    let name = fields.string("name");
    let discovery = discovery(fields, &name)?;
    let (lb_policy, lb) = lb::balancing(fields, &discovery)?;
    let tcp_keepalive = fields.opt("upstream_connection_options", |options| {
        options.ignore(
            &["set_local_interface_name_on_upstream_connections"],
            "it only labels connections",
        );
        options.opt("tcp_keepalive", tcp_keepalive)
    })?;
    let http = upstream_http(fields)?;
    let transport_socket = tls::upstream_transport(fields)?;
    let transport_socket_matches = tls::transport_socket_matches(fields)?;
    if http.protocol == UpstreamProtocol::Negotiated
        && transport_socket_matches
            .iter()
            .map(|entry| &entry.transport)
            .chain([&transport_socket])
            .any(|transport| *transport == UpstreamTransport::RawBuffer)
    {
        let path = format!("typed_extension_protocol_options[\"{HTTP_OPTIONS}\"].auto_config");
        return Err(fields.fault(
            &path,
            "ALPN configured for cluster which has a non-ALPN transport socket",
        ));
    }
    Ok(Cluster {
        alt_stat_name: stat_name(
            fields
                .opt_string("alt_stat_name")
                .unwrap_or_else(|| name.clone()),
        ),
        name,
        discovery,
        connect_timeout: fields
            .duration("connect_timeout")?
            .unwrap_or(Duration::from_secs(5)),
        per_connection_buffer_limit_bytes: fields
            .opt_u32("per_connection_buffer_limit_bytes")
            .unwrap_or(1 << 20),
        lb_policy,
        lb,
        outlier_detection: fields.opt("outlier_detection", |outlier| {
            outlier_detection(outlier).map(Box::new)
        })?,
        circuit_breakers: fields.or_default("circuit_breakers", circuit_breakers)?,
        http,
        tcp_keepalive: tcp_keepalive.flatten(),
        upstream_bind: fields.opt("upstream_bind_config", bind_config)?,
        ignore_health_on_host_removal: fields.bool("ignore_health_on_host_removal"),
        close_connections_on_host_health_failure: fields
            .bool("close_connections_on_host_health_failure"),
        transport_socket,
        transport_socket_matches,
        istio: istio::cluster_metadata(fields),
        metadata_exchange: istio::cluster_filters(fields)?,
    })
}

/// The form of a name in statistics.
fn stat_name(name: Name) -> Name {
    if name.contains(':') {
        Name::from(name.replace(':', "_"))
    } else {
        name
    }
}

fn upstream_http(fields: &Fields<'_>) -> Result<UpstreamHttpOptions> {
    let mut options = UpstreamHttpOptions::default();
    fields.opt("common_http_protocol_options", |common| {
        common_options(common, &mut options)
    })?;
    protocols(fields, &mut options)?;
    upstream_options(fields, &mut options)?;
    let downstream = fields.choice(
        "protocol_selection",
        &[
            ("USE_CONFIGURED_PROTOCOL", false),
            ("USE_DOWNSTREAM_PROTOCOL", true),
        ],
    )?;
    let http2 = fields.has("http2_protocol_options");
    options.protocol = match (downstream, http2) {
        (true, _) => UpstreamProtocol::Downstream,
        (false, true) => UpstreamProtocol::Http2,
        (false, false) => UpstreamProtocol::Http1,
    };
    let both = http2 && !downstream && fields.has("http_protocol_options");
    if let Some(count) = fields.opt_u32("max_requests_per_connection") {
        options.max_requests_per_connection = (count > 0).then_some(count);
    }
    let extensions = fields.entries("typed_extension_protocol_options", |_, options| {
        options.unpack(&[(HTTP_OPTIONS, &http_protocol_options)])
    })?;
    // The extension is all that counts where it is there.
    match extensions.into_iter().next() {
        Some(extension) => Ok(extension),
        None if both => Err(fields.fault(
            "http2_protocol_options",
            "cluster: Both HTTP1 and HTTP2 options may only be configured with non-default 'protocol_selection' values",
        )),
        None => Ok(options),
    }
}

fn discovery(fields: &Fields<'_>, name: &Name) -> Result<Discovery> {
    fields.refuse("cluster_type", "custom cluster types are not supported")?;
    fields.ignore(
        &["dns_failure_refresh_rate"],
        "a lookup that failed is repeated after dns_refresh_rate",
    );
    let kind = fields.enum_name("type");
    if kind != "EDS" && fields.has("eds_cluster_config") {
        return Err(fields.fault(
            "eds_cluster_config",
            "eds_cluster_config set in a non-EDS cluster",
        ));
    }
    fields.opt("typed_dns_resolver_config", dns_resolver)?;
    let dns = |fields: &Fields<'_>| -> Result<DnsCluster> {
        Ok(DnsCluster {
            load_assignment: assignment(fields, name, true)?,
            refresh_rate: fields
                .duration("dns_refresh_rate")?
                .unwrap_or(Duration::from_secs(5)),
            respect_dns_ttl: fields.bool("respect_dns_ttl"),
            jitter: fields.duration("dns_jitter")?.unwrap_or_default(),
            lookup_family: lookup_family(fields)?,
        })
    };
    let discovery = match &*kind {
        "STATIC" => Discovery::Static(assignment(fields, name, false)?),
        "STRICT_DNS" => Discovery::StrictDns(dns(fields)?),
        "LOGICAL_DNS" => {
            let dns = dns(fields)?;
            let endpoints = dns.load_assignment.localities.as_slice();
            if endpoints.is_empty() {
                return Err(fields.fault(
                    "load_assignment",
                    "LOGICAL_DNS clusters must have a single host",
                ));
            }
            if !matches!(endpoints, [only] if only.endpoints.len() == 1) {
                return Err(fields.fault(
                    "load_assignment",
                    "LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint",
                ));
            }
            Discovery::LogicalDns(dns)
        }
        "EDS" => eds(fields, name)?,
        "ORIGINAL_DST" => original_dst(fields)?,
        other => return Err(fields.fault("type", format!("{other} is not supported"))),
    };
    // These speak of lookups; for the other types Envoy reads them and does nothing.
    if !matches!(
        discovery,
        Discovery::StrictDns(_) | Discovery::LogicalDns(_)
    ) {
        fields.ignore(
            &[
                "dns_refresh_rate",
                "respect_dns_ttl",
                "dns_lookup_family",
                "dns_jitter",
            ],
            "no DNS is used",
        );
    }
    if !matches!(discovery, Discovery::OriginalDst(_)) {
        fields.ignore(&["cleanup_interval"], "it is for ORIGINAL_DST clusters");
    }
    Ok(discovery)
}

/// c-ares, Envoy's default; the resolver of ours takes its name servers from the same file.
fn dns_resolver(fields: &Fields<'_>) -> Result<()> {
    fields.str("name");
    fields.need_any(
        "typed_config",
        &[(
            "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            &|cares| {
                cares.ignore(
                    &["udp_max_queries", "max_udp_channel_duration"],
                    "every lookup has a socket of its own",
                );
                Ok(())
            },
        )],
    )
}

/// `core.v3.BindConfig`.
pub(crate) fn bind_config(fields: &Fields<'_>) -> Result<BindConfig> {
    let mut sources: Vec<_> = fields
        .opt("source_address", address::bare_socket)?
        .into_iter()
        .collect();
    let extra = fields.each("extra_source_addresses", |extra| {
        extra.need("address", address::bare_socket)
    })?;
    let additional = fields.each("additional_source_addresses", address::bare_socket)?;
    if !extra.is_empty() && !additional.is_empty() {
        return Err(fields.fault(
            "extra_source_addresses",
            "Can't specify both `extra_source_addresses` and `additional_source_addresses` in the bootstrap's upstream bind config",
        ));
    }
    sources.extend(extra);
    sources.extend(additional);
    if sources.len() > 2 {
        return Err(fields.fault(
            "extra_source_addresses",
            "bootstrap's upstream binding config has more than one extra/additional source addresses. Only one extra/additional source can be supported in BindConfig's extra_source_addresses/additional_source_addresses field",
        ));
    }
    Ok(BindConfig {
        sources,
        freebind: fields.bool("freebind"),
    })
}

fn assignment(fields: &Fields<'_>, name: &Name, dns: bool) -> Result<Arc<ClusterLoadAssignment>> {
    let assignment = fields.opt("load_assignment", |assignment| {
        endpoint::load_assignment(assignment, dns)
    })?;
    let assignment = assignment.unwrap_or_else(|| ClusterLoadAssignment::empty(name.clone()));
    let pipe = |address: &Address| matches!(address, Address::Pipe(_));
    if dns
        && assignment
            .localities
            .iter()
            .flat_map(|locality| &locality.endpoints)
            .any(|e| pipe(&e.address))
    {
        return Err(fields.fault("load_assignment", "a pipe cannot be resolved by DNS"));
    }
    Ok(Arc::new(assignment))
}

fn lookup_family(fields: &Fields<'_>) -> Result<DnsLookupFamily> {
    fields.choice(
        "dns_lookup_family",
        &[
            ("AUTO", DnsLookupFamily::Auto),
            ("V4_ONLY", DnsLookupFamily::V4Only),
            ("V6_ONLY", DnsLookupFamily::V6Only),
            ("V4_PREFERRED", DnsLookupFamily::V4Preferred),
            ("ALL", DnsLookupFamily::All),
        ],
    )
}

fn eds(fields: &Fields<'_>, name: &Name) -> Result<Discovery> {
    fields.refuse(
        "load_assignment",
        "EDS clusters take their endpoints from EDS",
    )?;
    let config = fields.opt("eds_cluster_config", |eds| {
        let source = eds.opt("eds_config", config_source)?;
        Ok((source, eds.opt_string("service_name")))
    })?;
    let Some((Some((source, initial_fetch_timeout)), service_name)) = config else {
        return Err(fields.fault(
            "eds_cluster_config",
            "cannot create an EDS cluster without an EDS config",
        ));
    };
    Ok(Discovery::Eds {
        service_name: service_name.unwrap_or_else(|| name.clone()),
        source,
        initial_fetch_timeout,
    })
}

fn original_dst(fields: &Fields<'_>) -> Result<Discovery> {
    fields.refuse(
        "load_assignment",
        "ORIGINAL_DST clusters must have no load assignment configured",
    )?;
    let mut original = OriginalDst {
        cleanup_interval: fields
            .duration("cleanup_interval")?
            .unwrap_or(Duration::from_secs(5)),
        ..OriginalDst::default()
    };
    fields.opt("original_dst_lb_config", |config| {
        let name = config.str("http_header_name");
        if config.bool("use_http_header") {
            original.http_header_name = Some(if name.is_empty() {
                Name::from("x-envoy-original-dst-host")
            } else {
                crate::matcher::lower(name)
            });
        } else if !name.is_empty() {
            return Err(config.fault(
                "http_header_name",
                format!(
                    "ORIGINAL_DST cluster: invalid config http_header_name={name} and use_http_header is false. Set \
                     use_http_header to true if http_header_name is desired."
                ),
            ));
        }
        original.metadata_key = config.opt("metadata_key", |key| {
            // What network and listener filters write is the connection's; of connections no metadata is kept.
            let of_connection = ["envoy.filters.network.", "envoy.filters.listener."];
            if of_connection
                .iter()
                .any(|prefix| key.str("key").starts_with(prefix))
            {
                return Err(key.fault(
                    "key",
                    "metadata of connections is not supported: only that of requests names destinations",
                ));
            }
            Ok(MetadataKey {
                key: key.string("key"),
                path: key.each("path", |segment| Ok(segment.string("key")))?,
            })
        })?;
        original.upstream_port_override = config
            .opt_u32("upstream_port_override")
            .and_then(|port| u16::try_from(port).ok());
        Ok(())
    })?;
    Ok(Discovery::OriginalDst(original))
}

fn circuit_breakers(fields: &Fields<'_>) -> Result<CircuitBreakers> {
    let mut breakers = CircuitBreakers::default();
    let thresholds = fields.each("thresholds", |thresholds| {
        let default = Thresholds::default();
        let high = thresholds.choice("priority", &[("DEFAULT", false), ("HIGH", true)])?;
        let values = Thresholds {
            max_connections: thresholds
                .opt_u32("max_connections")
                .unwrap_or(default.max_connections),
            max_pending_requests: thresholds
                .opt_u32("max_pending_requests")
                .unwrap_or(default.max_pending_requests),
            max_requests: thresholds
                .opt_u32("max_requests")
                .unwrap_or(default.max_requests),
            max_retries: thresholds
                .opt_u32("max_retries")
                .unwrap_or(default.max_retries),
            retry_budget: thresholds.opt("retry_budget", retry_budget)?,
            max_connection_pools: thresholds.opt_u32("max_connection_pools"),
            track_remaining: thresholds.bool("track_remaining"),
        };
        Ok((high, values))
    })?;
    // Of several for one priority Envoy takes the first.
    for (high, values) in thresholds.into_iter().rev() {
        if high {
            breakers.high = values;
        } else {
            breakers.default = values;
        }
    }
    Ok(breakers)
}

fn retry_budget(fields: &Fields<'_>) -> Result<RetryBudget> {
    let default = RetryBudget::default();
    let percent = fields.opt("budget_percent", |percent| {
        Ok(percent.opt_double("value").unwrap_or_default())
    })?;
    Ok(RetryBudget {
        budget_percent: percent.unwrap_or(default.budget_percent),
        min_retry_concurrency: fields
            .opt_u32("min_retry_concurrency")
            .unwrap_or(default.min_retry_concurrency),
    })
}

fn tcp_keepalive(fields: &Fields<'_>) -> Result<TcpKeepalive> {
    let seconds = |name| {
        fields
            .opt_u32(name)
            .map(|seconds| Duration::from_secs(u64::from(seconds)))
    };
    Ok(TcpKeepalive {
        probes: fields.opt_u32("keepalive_probes"),
        time: seconds("keepalive_time"),
        interval: seconds("keepalive_interval"),
    })
}

/// What every `config.core.v3.ConfigSource` may say: the file, if it is one, and its `initial_fetch_timeout` (default
/// 15 s, `None`: wait for ever).
pub(crate) fn path_and_timeout(fields: &Fields<'_>) -> Result<(Option<Name>, Option<Duration>)> {
    fields.choice("resource_api_version", &[("AUTO", ()), ("V3", ())])?;
    let timeout = fields.timeout("initial_fetch_timeout", Some(Duration::from_secs(15)))?;
    let path = fields.opt("path_config_source", |source| {
        source.ignore(
            &["watched_directory"],
            "the directory of the file itself is watched",
        );
        Ok(source.string("path"))
    })?;
    Ok((path.or_else(|| fields.opt_string("path")), timeout))
}

/// `config.core.v3.ConfigSource`, with its `initial_fetch_timeout`.
pub(crate) fn config_source(fields: &Fields<'_>) -> Result<(ConfigSource, Option<Duration>)> {
    let (path, timeout) = path_and_timeout(fields)?;
    let source = if let Some(path) = path {
        ConfigSource::Path(path)
    } else {
        for name in ["api_config_source", "self"] {
            fields.refuse(name, "only ads and path_config_source are supported")?;
        }
        fields.need("ads", |_| Ok(()))?;
        ConfigSource::Ads
    };
    Ok((source, timeout))
}
