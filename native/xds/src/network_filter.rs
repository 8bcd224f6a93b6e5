//! Network filters: those before the terminal one, and the terminal ones.

use std::sync::Arc;
use std::time::Duration;

use tidegate_model::listener::{NetworkFilter, ReadFilter, ReadFilterKind, TcpCluster, TcpProxy};

use crate::context::Result;
use crate::fields::Fields;
use crate::{access_log, hash_policy, hcm, istio};

/// What may stand in a chain.
enum Kind {
    Read(ReadFilterKind),
    Terminal(NetworkFilter),
}

impl Kind {
    const fn name(&self) -> &'static str {
        match self {
            Self::Read(ReadFilterKind::LocalRateLimit(_)) => {
                "envoy.filters.network.local_ratelimit"
            }
            Self::Read(ReadFilterKind::Rbac(_)) => "envoy.filters.network.rbac",
            Self::Read(ReadFilterKind::SniCluster) => "envoy.filters.network.sni_cluster",
            Self::Read(ReadFilterKind::MetadataExchange(_)) => {
                "envoy.filters.network.metadata_exchange"
            }
            Self::Read(ReadFilterKind::IstioStats(_)) => "envoy.filters.network.istio_stats",
            Self::Terminal(NetworkFilter::TcpProxy(_)) => "envoy.filters.network.tcp_proxy",
            Self::Terminal(NetworkFilter::HttpConnectionManager(_)) => {
                "envoy.filters.network.http_connection_manager"
            }
        }
    }
}

/// A chain's filters, checked as Envoy checks them: one terminal filter, and it is the last.
pub(crate) fn filters(fields: &Fields<'_>) -> Result<(Vec<ReadFilter>, NetworkFilter)> {
    let mut filters = fields.each("filters", |filter| {
        let name = filter.string("name");
        let tcp_proxy = |config: &Fields<'_>| {
            let proxy = Arc::new(tcp_proxy(config)?);
            Ok(Kind::Terminal(NetworkFilter::TcpProxy(proxy)))
        };
        let manager = |config: &Fields<'_>| {
            let manager = Arc::new(hcm::connection_manager(config)?);
            Ok(Kind::Terminal(NetworkFilter::HttpConnectionManager(
                manager,
            )))
        };
        let sni_cluster = |_: &Fields<'_>| Ok(Kind::Read(ReadFilterKind::SniCluster));
        let metadata_exchange = |config: &Fields<'_>| {
            let exchange = Arc::new(istio::metadata_exchange(config)?);
            Ok(Kind::Read(ReadFilterKind::MetadataExchange(exchange)))
        };
        let istio_stats = |config: &Fields<'_>| {
            let stats = Arc::new(istio::stats(config)?);
            Ok(Kind::Read(ReadFilterKind::IstioStats(stats)))
        };
        let local_ratelimit = |config: &Fields<'_>| {
            let limit = Arc::new(crate::local_ratelimit::network(config)?);
            Ok(Kind::Read(ReadFilterKind::LocalRateLimit(limit)))
        };
        let rbac = |config: &Fields<'_>| {
            let rbac = Arc::new(crate::rbac::network(config)?);
            Ok(Kind::Read(ReadFilterKind::Rbac(rbac)))
        };
        filter.refuse(
            "config_discovery",
            "filters whose configuration comes by ECDS are not supported",
        )?;
        let kind = filter.need_any(
            "typed_config",
            &[
                ("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", &tcp_proxy),
                ("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", &manager),
                ("envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit", &local_ratelimit),
                ("envoy.extensions.filters.network.rbac.v3.RBAC", &rbac),
                ("envoy.extensions.filters.network.sni_cluster.v3.SniCluster", &sni_cluster),
                (istio::METADATA_EXCHANGE, &metadata_exchange),
                (istio::STATS, &istio_stats),
            ],
        )?;
        Ok((name, kind))
    })?;
    let Some((name, last)) = filters.pop() else {
        return Err(fields.fault("filters", "a filter chain needs a terminal filter"));
    };
    let mut read_filters = Vec::with_capacity(filters.len());
    for (at, (name, kind)) in filters.into_iter().enumerate() {
        let kind_name = kind.name();
        match kind {
            Kind::Read(kind) => read_filters.push(ReadFilter { name, kind }),
            Kind::Terminal(_) => {
                return Err(fields.fault(
                    &format!("filters[{at}]"),
                    format!("Error: terminal filter named {name} of type {kind_name} must be the last filter in a network filter chain."),
                ));
            }
        }
    }
    match last {
        Kind::Terminal(filter) => Ok((read_filters, filter)),
        Kind::Read(_) => Err(fields.fault(
            &format!("filters[{}]", read_filters.len()),
            format!("Error: non-terminal filter named {name} of type {} is the last filter in a network filter chain.", last.name()),
        )),
    }
}

fn tcp_proxy(fields: &Fields<'_>) -> Result<TcpProxy> {
    fields.ignore(
        &["downstream_idle_timeout", "upstream_idle_timeout"],
        "Envoy does not implement it either",
    );
    let weighted = fields.opt("weighted_clusters", |weighted| {
        let clusters = weighted.each("clusters", |cluster| {
            Ok((cluster.string("name"), cluster.u32("weight")))
        })?;
        if clusters
            .iter()
            .map(|(_, weight)| u64::from(*weight))
            .sum::<u64>()
            > u64::from(u32::MAX)
        {
            return Err(weighted.fault(
                "clusters",
                "The sum of weights of all clusters exceeds 4294967295",
            ));
        }
        Ok(clusters)
    })?;
    let cluster = match weighted {
        Some(clusters) => TcpCluster::Weighted(clusters),
        None => TcpCluster::Single(fields.string("cluster")),
    };
    Ok(TcpProxy {
        stat_prefix: fields.string("stat_prefix"),
        cluster,
        idle_timeout: fields.timeout("idle_timeout", Some(Duration::from_hours(1)))?,
        max_downstream_connection_duration: fields
            .timeout("max_downstream_connection_duration", None)?,
        access_log: fields.each("access_log", access_log::access_log)?,
        max_connect_attempts: fields.opt_u32("max_connect_attempts").unwrap_or(1),
        hash_source_ip: hash_policy::tcp_source_ip(fields)?,
    })
}
