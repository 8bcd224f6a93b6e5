//! The data path's own matching over one compiled bootstrap, without traffic: for benchmarks and explanations.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use tidegate_model::hcm::RouteSource;
use tidegate_model::listener::NetworkFilter;
use tidegate_model::route::{ClusterSpecifier, RouteAction, WeightedClusterName};
use tidegate_snapshot::{
    ApplicationProtocols, ChainFilter, CompiledRoutes, ConnMeta, HcmRoutes, PlainRequest, Snapshot,
    SnapshotBuilder,
};
use tidegate_xds::{Decoder, Format, Overrides};

use crate::error::ConfigError;

/// Where a request would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMatch {
    pub virtual_host: String,
    pub route: String,
    /// Position of the route in its virtual host.
    pub index: usize,
    /// The cluster, or the first of the weighted ones; empty for a redirect or a direct response.
    pub cluster: String,
}

/// What listener filters would have found out about a connection.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Lower case; empty when there is none.
    pub server_name: String,
    /// `raw_buffer` or `tls`.
    pub transport_protocol: String,
    pub application_protocols: Vec<String>,
}

impl Seen {
    fn application_protocols(&self) -> ApplicationProtocols {
        let mut list = Vec::new();
        for name in &self.application_protocols {
            // A name that is too long for the list can match nothing.
            if let Ok(length) = u8::try_from(name.len()) {
                list.push(length);
                list.extend_from_slice(name.as_bytes());
            }
        }
        ApplicationProtocols::Offered(list.into_boxed_slice())
    }
}

/// A snapshot to ask.
pub struct Matcher {
    snapshot: Arc<Snapshot>,
}

impl Matcher {
    pub fn new(bootstrap: &[u8], format: Format) -> Result<Self, ConfigError> {
        let loaded = Decoder::new().bootstrap(bootstrap, format, &Overrides::default())?;
        let mut builder = SnapshotBuilder::default();
        for cluster in &loaded.bootstrap.clusters {
            builder.set_cluster(Arc::clone(cluster));
        }
        for listener in &loaded.bootstrap.listeners {
            builder
                .set_listener(Arc::clone(listener))
                .map_err(|error| ConfigError::compile(&listener.name, error))?;
        }
        Ok(Self {
            snapshot: builder.build(),
        })
    }

    /// The listener that a `use_original_dst` listener hands a connection to; `None`: it keeps it.
    pub fn original_dst(
        &self,
        virtual_listener: &str,
        address: SocketAddr,
        repeat: usize,
    ) -> Option<String> {
        let table = self.snapshot.listener_table();
        for _ in 1..repeat {
            black_box(table.find(black_box(address)));
        }
        let found = table.find(address)?;
        (**found.name() != *virtual_listener).then(|| found.name().to_string())
    }

    /// The name of the filter chain (its index as text when it has none).
    pub fn filter_chain(
        &self,
        listener: &str,
        destination: SocketAddr,
        source: SocketAddr,
        seen: &Seen,
        repeat: usize,
    ) -> Option<String> {
        let listener = self.snapshot.listener_by_name(listener)?;
        let protocols = seen.application_protocols();
        let meta = ConnMeta {
            server_name: &seen.server_name,
            transport_protocol: &seen.transport_protocol,
            application_protocols: &protocols,
            ..ConnMeta::plain(destination, source)
        };
        for _ in 1..repeat {
            black_box(listener.filter_chains.find(black_box(&meta)));
        }
        let found = listener.filter_chains.find(&meta)?;
        if found.config.name.is_empty() {
            let chains = listener.filter_chains.chains();
            return chains
                .iter()
                .position(|chain| Arc::ptr_eq(chain, found))
                .map(|index| index.to_string());
        }
        Some(found.config.name.to_string())
    }

    /// Where a request goes by the route configuration of this name, wherever in the bootstrap it stands.
    pub fn route(
        &self,
        route_config: &str,
        request: &PlainRequest,
        repeat: usize,
    ) -> Option<RouteMatch> {
        let routes = self.routes(route_config)?;
        let runtime = self.snapshot.runtime();
        for _ in 1..repeat {
            black_box(routes.find(black_box(request), 0, runtime));
        }
        let found = routes.find(request, 0, runtime)?;
        let index = found.route.position as usize;
        let config = &found.route.config;
        let cluster = match &config.action {
            RouteAction::Route(forward) => match &forward.cluster {
                ClusterSpecifier::Cluster(name) => name.to_string(),
                ClusterSpecifier::ClusterHeader(_) => String::new(),
                ClusterSpecifier::Weighted(weighted) => weighted
                    .clusters
                    .first()
                    .map(|first| match &first.cluster {
                        WeightedClusterName::Name(name) | WeightedClusterName::Header(name) => {
                            name.to_string()
                        }
                    })
                    .unwrap_or_default(),
            },
            _ => String::new(),
        };
        Some(RouteMatch {
            virtual_host: found.virtual_host.name().to_string(),
            route: config.name.to_string(),
            index,
            cluster,
        })
    }

    fn routes(&self, name: &str) -> Option<Arc<CompiledRoutes>> {
        for listener in self.snapshot.listeners() {
            let chains = &listener.filter_chains;
            for chain in chains.chains().iter().chain(chains.default_chain()) {
                if let (ChainFilter::Http(hcm), NetworkFilter::HttpConnectionManager(config)) =
                    (&chain.filter, &chain.config.filter)
                    && let (HcmRoutes::Inline(routes), RouteSource::Inline(config)) =
                        (&hcm.routes, &config.routes)
                    && *config.name == *name
                {
                    return Some(Arc::clone(routes));
                }
            }
        }
        None
    }
}
