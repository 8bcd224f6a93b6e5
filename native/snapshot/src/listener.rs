//! Listeners: their filter chains compiled, and the table that hands a redirected connection to the right one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tidegate_model::Name;
use tidegate_model::hcm::{HttpConnectionManager, HttpFilter, HttpFilterKind, RouteSource};
use tidegate_model::istio::MetadataExchange;
use tidegate_model::listener::{
    FilterChain, Listener, NetworkFilter, ReadFilter, ReadFilterKind, TcpCluster, TcpProxy,
};
use tidegate_model::retry::RetryPolicy;
use tidegate_model::route::ForwardPolicy;
use tidegate_model::tls::DownstreamTransport;
use tidegate_tls::ServerSlot;

use crate::access_log::{AccessLogs, CompiledAccessLog};
use crate::error::CompileError;
use crate::ext_authz::CompiledExtAuthz;
use crate::fault::CompiledFault;
use crate::filter_chain::{FilterChains, canonical};
use crate::grpc_stats::CompiledGrpcStats;
use crate::header_mutation::CompiledHeaderMutation;
use crate::ids::{ClusterRef, ListenerId, RouteConfigRef, Slot, SlotTable};
use crate::istio_stats::CompiledIstioStats;
use crate::jwt::CompiledJwtAuthn;
use crate::local_ratelimit::{CompiledLocalRateLimit, CompiledNetworkRateLimit};
use crate::lua::CompiledLua;
use crate::rbac::{CompiledNetworkRbac, CompiledRbac};
use crate::retry::CompiledRetryPolicy;
use crate::routes::CompiledRoutes;
use crate::tracing::CompiledTracing;

/// One listener of a snapshot, bound to a socket or reached by hand-off only.
#[derive(Debug)]
pub struct CompiledListener {
    pub(crate) slot: Arc<Slot>,
    pub config: Arc<Listener>,
    /// The snapshot generation in which `config` became what it is.
    pub incarnation: u64,
    pub filter_chains: FilterChains,
    /// For connections that no filter chain took.
    pub access_log: AccessLogs,
}

impl CompiledListener {
    #[inline]
    pub fn id(&self) -> ListenerId {
        ListenerId::of(&self.slot)
    }

    #[inline]
    pub fn name(&self) -> &Name {
        &self.config.name
    }

    /// Whether it has a socket of its own.
    #[inline]
    pub fn is_bound(&self) -> bool {
        self.config.bind_to_port
    }

    /// The address and the additional addresses.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        std::iter::once(self.config.address).chain(self.config.additional_addresses.iter().copied())
    }
}

/// A filter chain. The same `Arc` as before as long as its configuration is the same, whatever happens to its listener:
/// connections need to drain only when their chain is gone.
#[derive(Debug)]
pub struct Chain {
    pub config: FilterChain,
    /// The network filters before the terminal one, in order; most chains have none.
    pub read_filters: Vec<CompiledReadFilter>,
    pub filter: ChainFilter,
    /// `None`: plain.
    pub tls: Option<Arc<ServerSlot>>,
}

/// A network filter before the terminal one.
#[derive(Debug, Clone)]
pub enum CompiledReadFilter {
    SniCluster,
    MetadataExchange(Arc<MetadataExchange>),
    IstioStats(Arc<CompiledIstioStats>),
    Rbac(Arc<CompiledNetworkRbac>),
    LocalRateLimit(Arc<CompiledNetworkRateLimit>),
}

impl Chain {
    /// Its connection manager, if it has one.
    pub fn http(&self) -> Option<&CompiledHcm> {
        match &self.filter {
            ChainFilter::Http(compiled) => Some(compiled),
            ChainFilter::TcpProxy(_) => None,
        }
    }
}

#[derive(Debug)]
pub enum ChainFilter {
    TcpProxy(CompiledTcpProxy),
    Http(CompiledHcm),
}

#[derive(Debug)]
pub struct CompiledTcpProxy {
    pub config: Arc<TcpProxy>,
    pub clusters: TcpClusters,
    pub access_log: AccessLogs,
}

#[derive(Debug)]
pub enum TcpClusters {
    Single(ClusterRef),
    Weighted {
        entries: Vec<(ClusterRef, u32)>,
        total_weight: u64,
    },
}

impl CompiledTcpProxy {
    /// The cluster for a connection, by a uniformly random number.
    #[inline]
    pub fn pick(&self, random: u64) -> Option<&ClusterRef> {
        match &self.clusters {
            TcpClusters::Single(cluster) => Some(cluster),
            TcpClusters::Weighted {
                entries,
                total_weight,
            } => {
                let mut point = random % (*total_weight).max(1);
                for (cluster, weight) in entries {
                    let weight = u64::from(*weight);
                    if point < weight {
                        return Some(cluster);
                    }
                    point -= weight;
                }
                None
            }
        }
    }
}

/// An HTTP connection manager with everything that its requests need compiled.
#[derive(Debug)]
pub struct CompiledHcm {
    pub config: Arc<HttpConnectionManager>,
    pub routes: HcmRoutes,
    /// In order, the router last.
    pub filters: Vec<Arc<CompiledHttpFilter>>,
    pub tracing: Option<CompiledTracing>,
    pub access_log: AccessLogs,
    /// `router.upstream_log`.
    pub upstream_log: AccessLogs,
}

#[derive(Debug)]
pub enum HcmRoutes {
    /// Look up in the current snapshot, [`crate::Snapshot::routes`].
    Rds(RouteConfigRef),
    Inline(Arc<CompiledRoutes>),
}

#[derive(Debug)]
pub struct CompiledHttpFilter {
    pub config: HttpFilter,
    /// For `HttpFilterKind::Fault`.
    pub fault: Option<CompiledFault>,
    /// For `HttpFilterKind::GrpcStats`.
    pub grpc_stats: Option<CompiledGrpcStats>,
    /// For `HttpFilterKind::ExtAuthz`.
    pub ext_authz: Option<CompiledExtAuthz>,
    /// For `HttpFilterKind::JwtAuthn`.
    pub jwt_authn: Option<CompiledJwtAuthn>,
    /// For `HttpFilterKind::IstioStats`.
    pub istio_stats: Option<Arc<CompiledIstioStats>>,
    /// For `HttpFilterKind::HeaderMutation`.
    pub header_mutation: Option<CompiledHeaderMutation>,
    /// For `HttpFilterKind::LocalRateLimit`.
    pub local_ratelimit: Option<Arc<CompiledLocalRateLimit>>,
    /// For `HttpFilterKind::Lua`.
    pub lua: Option<CompiledLua>,
    /// For `HttpFilterKind::Rbac`.
    pub rbac: Option<CompiledRbac>,
}

/// Finds listeners by address.
#[derive(Debug, Clone, Default)]
pub struct ListenerTable {
    by_address: FxHashMap<SocketAddr, Arc<CompiledListener>>,
}

impl ListenerTable {
    pub(crate) fn new<'a>(listeners: impl Iterator<Item = &'a Arc<CompiledListener>>) -> Self {
        let mut by_address = FxHashMap::default();
        for listener in listeners {
            for address in listener.addresses() {
                by_address
                    .entry(canonical(address))
                    .or_insert_with(|| Arc::clone(listener));
            }
        }
        Self { by_address }
    }

    /// The listener that a connection made to `original_dst` belongs to: exact IP and port, then the wildcard address of its
    /// family with that port. An IPv4 address mapped into IPv6 counts as IPv4, as in Envoy. `None`: the listener that
    /// accepted it keeps it.
    #[inline]
    pub fn find(&self, original_dst: SocketAddr) -> Option<&Arc<CompiledListener>> {
        let address = canonical(original_dst);
        self.by_address.get(&address).or_else(|| {
            let any = match address.ip() {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            self.by_address.get(&SocketAddr::new(any, address.port()))
        })
    }
}

/// What compiling a listener may intern.
pub(crate) struct Names<'a> {
    clusters: &'a mut SlotTable,
    routes: &'a mut SlotTable,
    /// The last different ones seen.
    policies: Vec<Arc<ForwardPolicy>>,
    retries: Vec<Arc<CompiledRetryPolicy>>,
}

/// A configuration's routes rarely say more different things.
const POLICIES: usize = 16;

impl<'a> Names<'a> {
    pub(crate) const fn new(clusters: &'a mut SlotTable, routes: &'a mut SlotTable) -> Self {
        Self {
            clusters,
            routes,
            policies: Vec::new(),
            retries: Vec::new(),
        }
    }

    pub(crate) fn cluster(&mut self, name: &Name) -> ClusterRef {
        ClusterRef::new(self.clusters.intern(name))
    }

    pub(crate) fn policy(&mut self, policy: &ForwardPolicy) -> Arc<ForwardPolicy> {
        if let Some(known) = self.policies.iter().find(|known| ***known == *policy) {
            return Arc::clone(known);
        }
        if self.policies.len() == POLICIES {
            self.policies.remove(0);
        }
        let policy = Arc::new(policy.clone());
        self.policies.push(Arc::clone(&policy));
        policy
    }

    /// Where most routes say the same about retries, they share it.
    pub(crate) fn retry_policy(
        &mut self,
        policy: &Arc<RetryPolicy>,
    ) -> Result<Arc<CompiledRetryPolicy>, CompileError> {
        let same = |known: &&Arc<CompiledRetryPolicy>| *known.config == **policy;
        if let Some(known) = self.retries.iter().find(same) {
            return Ok(Arc::clone(known));
        }
        if self.retries.len() == POLICIES {
            self.retries.remove(0);
        }
        let compiled = CompiledRetryPolicy::compile(policy);
        let compiled = Arc::new(compiled.map_err(|e| e.within("retry_policy"))?);
        self.retries.push(Arc::clone(&compiled));
        Ok(compiled)
    }

    pub(crate) fn route_config(&mut self, name: &Name) -> RouteConfigRef {
        RouteConfigRef {
            slot: self.routes.intern(name),
        }
    }
}

pub(crate) fn compile(
    config: &Arc<Listener>,
    slot: Arc<Slot>,
    incarnation: u64,
    old: Option<&CompiledListener>,
    names: &mut Names<'_>,
) -> Result<CompiledListener, CompileError> {
    let mut chains = Vec::with_capacity(config.filter_chains.len());
    for (index, chain) in config.filter_chains.iter().enumerate() {
        let compiled = compile_chain(chain, old, names)
            .map_err(|error| error.within(&format!("filter_chains[{index}]")))?;
        chains.push(compiled);
    }
    let default = match &config.default_filter_chain {
        Some(chain) => Some(
            compile_chain(chain, old, names)
                .map_err(|error| error.within("default_filter_chain"))?,
        ),
        None => None,
    };
    Ok(CompiledListener {
        slot,
        config: Arc::clone(config),
        incarnation,
        filter_chains: FilterChains::compile(chains, default)?,
        access_log: CompiledAccessLog::compile_all(&config.access_log)?,
    })
}

fn compile_chain(
    config: &FilterChain,
    old: Option<&CompiledListener>,
    names: &mut Names<'_>,
) -> Result<Arc<Chain>, CompileError> {
    if let Some(old) = old {
        let chains = &old.filter_chains;
        let kept = chains
            .chains()
            .iter()
            .chain(chains.default_chain())
            .find(|chain| chain.config == *config);
        if let Some(chain) = kept {
            return Ok(Arc::clone(chain));
        }
    }
    // Where ECDS has delivered something, all else stays as it is.
    let before = old.and_then(|old| {
        old.filter_chains
            .all()
            .find(|chain| chain.config.differs_by_discovery(config))
    });
    let filter = match &config.filter {
        NetworkFilter::TcpProxy(proxy) => ChainFilter::TcpProxy(CompiledTcpProxy {
            config: Arc::clone(proxy),
            clusters: match &proxy.cluster {
                TcpCluster::Single(name) => TcpClusters::Single(names.cluster(name)),
                TcpCluster::Weighted(entries) => TcpClusters::Weighted {
                    total_weight: entries.iter().map(|(_, weight)| u64::from(*weight)).sum(),
                    entries: entries
                        .iter()
                        .map(|(name, weight)| (names.cluster(name), *weight))
                        .collect(),
                },
            },
            access_log: CompiledAccessLog::compile_all(&proxy.access_log)?,
        }),
        NetworkFilter::HttpConnectionManager(hcm) => ChainFilter::Http(compile_hcm(
            hcm,
            before.and_then(|chain| chain.http()),
            names,
        )?),
    };
    if let Some(before) = before {
        return Ok(Arc::new(Chain {
            config: config.clone(),
            read_filters: before.read_filters.clone(),
            filter,
            tls: before.tls.clone(),
        }));
    }
    Ok(Arc::new(Chain {
        config: config.clone(),
        read_filters: config
            .read_filters
            .iter()
            .enumerate()
            .map(|(at, filter)| {
                compile_read_filter(filter)
                    .map_err(|e| e.within(&format!("filters[{at}].typed_config")))
            })
            .collect::<Result<_, _>>()?,
        filter,
        tls: match &config.transport_socket {
            DownstreamTransport::RawBuffer => None,
            DownstreamTransport::Tls(context) => {
                let slot = ServerSlot::new(Arc::clone(context));
                Some(
                    slot.map_err(|error| CompileError::new("transport_socket", error.to_string()))?,
                )
            }
        },
    }))
}

fn compile_read_filter(config: &ReadFilter) -> Result<CompiledReadFilter, CompileError> {
    Ok(match &config.kind {
        ReadFilterKind::SniCluster => CompiledReadFilter::SniCluster,
        ReadFilterKind::MetadataExchange(exchange) => {
            CompiledReadFilter::MetadataExchange(Arc::clone(exchange))
        }
        ReadFilterKind::IstioStats(stats) => {
            CompiledReadFilter::IstioStats(Arc::new(CompiledIstioStats::compile(stats)?))
        }
        ReadFilterKind::LocalRateLimit(config) => {
            CompiledReadFilter::LocalRateLimit(Arc::new(CompiledNetworkRateLimit::new(config)))
        }
        ReadFilterKind::Rbac(config) => {
            CompiledReadFilter::Rbac(Arc::new(CompiledNetworkRbac::compile(config)?))
        }
    })
}

/// `before`: what differs from it was delivered by ECDS.
fn compile_hcm(
    config: &Arc<HttpConnectionManager>,
    before: Option<&CompiledHcm>,
    names: &mut Names<'_>,
) -> Result<CompiledHcm, CompileError> {
    let routes = match (&config.routes, before.map(|before| &before.routes)) {
        (_, Some(HcmRoutes::Inline(routes))) => HcmRoutes::Inline(Arc::clone(routes)),
        (RouteSource::Rds(name), _) => HcmRoutes::Rds(names.route_config(name)),
        (RouteSource::Inline(routes), _) => HcmRoutes::Inline(Arc::new(
            CompiledRoutes::compile(routes, names).map_err(|e| e.within("route_config"))?,
        )),
    };
    let mut filters = Vec::with_capacity(config.http_filters.len());
    let mut upstream_log = AccessLogs::default();
    for (index, filter) in config.http_filters.iter().enumerate() {
        let within = |e: CompileError| e.within(&format!("http_filters[{index}].typed_config"));
        if let HttpFilterKind::Router(router) = &filter.kind {
            upstream_log = CompiledAccessLog::compile_all(&router.upstream_log).map_err(within)?;
        }
        if let Some(known) = before.and_then(|before| before.filters.get(index))
            && known.config == *filter
        {
            filters.push(Arc::clone(known));
            continue;
        }
        let (mut ext_authz, mut jwt_authn) = (None, None);
        let (mut fault, mut grpc_stats, mut istio_stats) = (None, None, None);
        let (mut rbac, mut header_mutation, mut local_ratelimit) = (None, None, None);
        let mut lua = None;
        match &filter.kind {
            HttpFilterKind::Fault(policy) => {
                fault = Some(CompiledFault::compile(policy).map_err(within)?);
            }
            HttpFilterKind::HeaderMutation(config) => {
                header_mutation = Some(CompiledHeaderMutation::compile(config).map_err(within)?);
            }
            HttpFilterKind::LocalRateLimit(config) => {
                let limit = CompiledLocalRateLimit::compile(config).map_err(within)?;
                local_ratelimit = Some(Arc::new(limit));
            }
            HttpFilterKind::Lua(config) => {
                lua = Some(CompiledLua::compile(config));
            }
            HttpFilterKind::Rbac(config) => {
                rbac = Some(CompiledRbac::compile(config).map_err(within)?);
            }
            HttpFilterKind::GrpcStats(stats) => {
                grpc_stats = Some(CompiledGrpcStats::compile(stats));
            }
            HttpFilterKind::ExtAuthz(config) => {
                ext_authz = Some(CompiledExtAuthz::compile(config).map_err(within)?);
            }
            HttpFilterKind::JwtAuthn(config) => {
                jwt_authn = Some(CompiledJwtAuthn::compile(config, names).map_err(within)?);
            }
            HttpFilterKind::IstioStats(stats) => {
                let compiled = CompiledIstioStats::compile(stats).map_err(within)?;
                istio_stats = Some(Arc::new(compiled));
            }
            HttpFilterKind::Router(_)
            | HttpFilterKind::Missing
            | HttpFilterKind::Cors(_)
            | HttpFilterKind::GrpcWeb
            | HttpFilterKind::Compressor(_)
            | HttpFilterKind::PeerMetadata(_)
            | HttpFilterKind::Alpn(_) => {}
        }
        filters.push(Arc::new(CompiledHttpFilter {
            config: filter.clone(),
            fault,
            grpc_stats,
            ext_authz,
            jwt_authn,
            istio_stats,
            header_mutation,
            lua,
            local_ratelimit,
            rbac,
        }));
    }
    Ok(CompiledHcm {
        config: Arc::clone(config),
        routes,
        filters,
        tracing: config.tracing.as_deref().map(CompiledTracing::compile),
        access_log: CompiledAccessLog::compile_all(&config.access_log)?,
        upstream_log,
    })
}
