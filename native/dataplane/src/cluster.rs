//! Clusters at run time: what a worker needs to send traffic to one, and what the workers share of it.
//!
//! A [`ClusterRuntime`] is made in a worker when traffic first asks for the cluster; ten thousand unused clusters cost a
//! worker nothing. It outlives endpoint updates; a change of the cluster's own configuration makes a new one, and the
//! pools of the old one drain. This module chooses hosts and guards limits; it must not know HTTP.

mod breakers;
mod guards;
mod host;
mod original_dst;
pub(crate) mod outlier;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate_model::cluster::{BindConfig, Cluster, Discovery, LbPolicy};
use tidegate_model::route::RoutingPriority;
use tidegate_rt::{Clock, ConnectError, ConnectOptions, Keepalive, Moment, Rng, Socket};
use tidegate_snapshot::hash_policy::CompiledHashPolicy;
use tidegate_snapshot::{
    ClusterId, CompiledCluster, Endpoints, Host, HostAddress, Snapshot, UpstreamTransports,
};
use tidegate_stats::{Group, Local, defs::cluster as stat, defs::ssl as ssl_stat};
use tidegate_tls::{ClientOptions, Session};

pub use self::breakers::{Breakers, Permit, Resource, ResourceKind};
pub use self::guards::{ActiveConnection, ActiveRequest};
pub(crate) use self::host::HostTable;
pub use self::host::{HostCells, HostRuntime, HostShared, HostState};
pub(crate) use self::original_dst::OnDemandHosts;
use self::original_dst::OriginalDstHosts;
use self::outlier::{Detector, effective_health};
use crate::balance::{
    Balancer, BalancerConfig, HashKey, HashTables, HostLoad, PreviousPriorities, TableCache,
};
use crate::http2::LazyStats;
use crate::transport::{SslStats, TlsOptions, TlsStats, Transport};

/// What the workers share of a cluster.
pub struct ClusterShared {
    pub(crate) compiled: Arc<CompiledCluster>,
    pub traffic: Group<stat::Traffic>,
    pub(crate) membership: Group<stat::Membership>,
    pub breakers: Arc<Breakers>,
    pub(crate) hosts: Arc<HostTable>,
    /// If it has TLS.
    pub(crate) ssl: Option<SslStats>,
    pub(crate) bind: Option<BindConfig>,
    pub(crate) detector: Option<Arc<Detector>>,
    /// Of consistent hashing.
    pub(crate) tables: Arc<TableCache>,
    /// Of ORIGINAL_DST.
    pub(crate) on_demand: Option<Arc<OnDemandHosts>>,
}

/// What a choice of host may depend on besides the balancer's own state.
#[derive(Debug, Clone, Copy, Default)]
pub struct LbContext {
    /// Where the downstream connection was headed, if its listener restored that: for ORIGINAL_DST clusters.
    pub original_dst: Option<SocketAddr>,
    /// The address that the request's metadata or its `x-envoy-original-dst-host` header names, if the cluster reads them.
    pub named_dst: Option<SocketAddr>,
    /// For consistent hashing.
    pub key: HashKey,
}

/// A cluster in one worker.
pub struct ClusterRuntime {
    pub id: ClusterId,
    pub config: Arc<Cluster>,
    pub incarnation: u64,
    /// This worker's cells of `cluster.NAME.`.
    pub stats: Local<stat::Traffic>,
    /// The limits, counted over all workers.
    pub breakers: Arc<Breakers>,
    /// For its hosts' connections, if they speak HTTP/2.
    pub(crate) http2: Arc<tidegate_codec::h2::Options>,
    pub(crate) http2_stats: LazyStats,
    transports: Arc<UpstreamTransports>,
    tls_stats: Option<Rc<TlsStats>>,
    worker: usize,
    shared_hosts: Arc<HostTable>,
    bind: Option<BindConfig>,
    detector: Option<Arc<Detector>>,
    tables: Arc<TableCache>,
    /// What goes by in consistent hashing in place of the route's policies.
    pub(crate) hash_policy: Option<CompiledHashPolicy>,
    /// Hosts are chosen by hash: somebody has to make one.
    pub(crate) hashes: bool,
    state: RefCell<State>,
}

struct State {
    endpoints: Arc<Endpoints>,
    /// The version of the hosts' health, with outlier detection.
    health: u64,
    /// Connections of hosts that were ejected up to this version have been drained.
    drained: u64,
    /// In the order of `endpoints.hosts`.
    hosts: Vec<Rc<HostRuntime>>,
    balancer: Balancer,
    original_dst: Option<OriginalDstHosts>,
}

struct Loads<'a> {
    hosts: &'a [Rc<HostRuntime>],
    breakers: &'a Breakers,
    now: Moment,
}

impl Loads<'_> {
    #[inline]
    fn host(&self, host: u32) -> Option<&HostState> {
        self.hosts.get(host as usize).map(|host| &*host.state)
    }
}

impl HostLoad for Loads<'_> {
    #[inline]
    fn active(&self, host: u32) -> u32 {
        self.host(host).map_or(u32::MAX, HostState::rq_active)
    }

    fn active_everywhere(&self, host: u32) -> u32 {
        self.host(host)
            .map_or(u32::MAX, HostState::rq_active_everywhere)
    }

    fn total_active(&self) -> u32 {
        let used = |priority| {
            let requests = self.breakers.resource(priority, ResourceKind::Requests);
            requests.used()
        };
        used(RoutingPriority::Default).wrapping_add(used(RoutingPriority::High))
    }

    fn age(&self, host: u32) -> Duration {
        self.host(host)
            .map_or(Duration::MAX, |host| host.age(self.now))
    }
}

impl ClusterRuntime {
    fn new(
        shared: &ClusterShared,
        compiled: &CompiledCluster,
        worker: usize,
        rng: &mut Rng,
    ) -> Self {
        let config = Arc::clone(&compiled.config);
        let original_dst = match (&config.discovery, &shared.on_demand) {
            (Discovery::OriginalDst(original_dst), Some(hosts)) => {
                Some(OriginalDstHosts::new(original_dst, hosts))
            }
            _ => None,
        };
        let runtime = Self {
            id: compiled.id(),
            incarnation: compiled.incarnation,
            stats: shared.traffic.local(worker),
            breakers: Arc::clone(&shared.breakers),
            http2: crate::http2::options(
                &config.http.http2,
                config.http.max_response_headers_bytes_http2,
                config.http.max_headers_count,
                tidegate_codec::h1::UnderscoreAction::Allow,
                config.per_connection_buffer_limit_bytes,
            ),
            http2_stats: LazyStats::new(format!("cluster.{}.http2.", config.alt_stat_name)),
            transports: Arc::clone(compiled.transports()),
            tls_stats: shared
                .ssl
                .as_ref()
                .map(|ssl| Rc::new(TlsStats::new(ssl, worker))),
            worker,
            shared_hosts: Arc::clone(&shared.hosts),
            bind: shared.bind.clone(),
            detector: shared.detector.as_ref().map(Arc::clone),
            tables: Arc::clone(&shared.tables),
            // It has been compiled before, by the decoder's checks.
            hash_policy: CompiledHashPolicy::compile(&config.lb.hash_policy).unwrap_or_default(),
            hashes: matches!(
                config.lb_policy,
                LbPolicy::RingHash(_) | LbPolicy::Maglev { .. }
            ),
            state: RefCell::new(State {
                endpoints: Arc::default(),
                health: 0,
                drained: 0,
                hosts: Vec::new(),
                balancer: Balancer::empty(),
                original_dst,
            }),
            config,
        };
        let _none = runtime.update_endpoints(&compiled.endpoints, rng);
        runtime
    }

    /// Makes the balancer anew, for other hosts or for another health of theirs.
    fn rebalance(&self, state: &mut State, rng: &mut Rng) {
        let detector = self.detector.as_ref();
        // Read before what it is the version of: a change in between is found by the next look.
        state.health = detector.map_or(0, |detector| detector.version());
        let ejected = detector
            .map(|detector| detector.ejected())
            .unwrap_or_default();
        let health = |host: &Host| effective_health(&ejected, host);
        let config = BalancerConfig::from(&*self.config);
        let version = (state.endpoints.version, state.health);
        let tables = self.hashes.then(|| {
            self.tables.get(version, || {
                HashTables::build(&config, &state.endpoints, &health)
            })
        });
        let loads = Loads {
            hosts: &state.hosts,
            breakers: &self.breakers,
            now: Clock::precise(),
        };
        state.balancer = Balancer::new(
            &config,
            &state.endpoints,
            &health,
            tables.flatten(),
            rng,
            &loads,
        );
    }

    /// Takes a change of the hosts' health over; returns those that have been ejected since the last time.
    fn follow_health(&self, rng: &mut Rng) -> Vec<Rc<HostRuntime>> {
        let Some(detector) = &self.detector else {
            return Vec::new();
        };
        let state = &mut *self.state.borrow_mut();
        let version = detector.version();
        if version != state.health {
            self.rebalance(state, rng);
        }
        if state.drained == version {
            return Vec::new();
        }
        state.drained = version;
        let ejected = |host: &&Rc<HostRuntime>| host.state.is_newly_ejected();
        match &state.original_dst {
            Some(original_dst) => original_dst.hosts().filter(ejected).cloned().collect(),
            None => state.hosts.iter().filter(ejected).cloned().collect(),
        }
    }

    /// Takes new endpoints over; returns the hosts that are gone. Hosts that stay keep their state.
    fn update_endpoints(&self, endpoints: &Arc<Endpoints>, rng: &mut Rng) -> Vec<Rc<HostRuntime>> {
        let mut state = self.state.borrow_mut();
        let mut before: rustc_hash::FxHashMap<_, _> = state
            .hosts
            .drain(..)
            .map(|host| (host.host.id, host))
            .collect();
        let hosts = endpoints
            .hosts
            .iter()
            .map(|host| match before.remove(&host.id) {
                Some(old) if Arc::ptr_eq(&old.host, host) => old,
                Some(old) => Rc::new(HostRuntime {
                    host: Arc::clone(host),
                    state: Rc::clone(&old.state),
                }),
                None => Rc::new(HostRuntime::new(
                    Arc::clone(host),
                    self.shared_hosts.get(host.id),
                    self.detector
                        .as_ref()
                        .and_then(|detector| detector.monitor(host.id)),
                    self.worker,
                )),
            })
            .collect();
        state.hosts = hosts;
        state.endpoints = Arc::clone(endpoints);
        self.rebalance(&mut state, rng);
        let gone: Vec<_> = before.into_values().collect();
        for host in &gone {
            host.state.set_gone();
        }
        gone
    }

    /// Chooses a host. `None`: there is none (`UH`); `upstream_cx_none_healthy` is the caller's to count, as it is of
    /// Envoy's pools.
    pub fn choose_host(
        &self,
        rng: &mut Rng,
        now: Moment,
        context: &LbContext,
    ) -> Option<Rc<HostRuntime>> {
        self.choose_host_again(rng, now, context, None)
    }

    /// [`Self::choose_host`] for a retry that leaves priorities out.
    pub(crate) fn choose_host_again(
        &self,
        rng: &mut Rng,
        now: Moment,
        context: &LbContext,
        previous: Option<&mut PreviousPriorities>,
    ) -> Option<Rc<HostRuntime>> {
        let state = &mut *self.state.borrow_mut();
        if let Some(original_dst) = &mut state.original_dst {
            return original_dst.choose(context, now, self.worker);
        }
        if let Some(detector) = &self.detector
            && detector.version() != state.health
        {
            self.rebalance(state, rng);
        }
        let loads = Loads {
            hosts: &state.hosts,
            breakers: &self.breakers,
            now,
        };
        let choice = match previous {
            None => state.balancer.choose(context.key, rng, &loads),
            Some(previous) => {
                let ejected = self.detector.as_ref().map(|detector| detector.ejected());
                let ejected = ejected.unwrap_or_default();
                let health = |host: &Host| effective_health(&ejected, host);
                let (key, endpoints) = (context.key, &state.endpoints);
                let balancer = &mut state.balancer;
                balancer.choose_again(previous, endpoints, &health, key, rng, &loads)
            }
        };
        if choice.panic {
            self.stats.inc(stat::LB_HEALTHY_PANIC);
        }
        state.hosts.get(choice.host? as usize).map(Rc::clone)
    }

    /// The endpoints in force (drop overloads, hosts).
    pub fn endpoints(&self) -> Arc<Endpoints> {
        Arc::clone(&self.state.borrow().endpoints)
    }

    /// All hosts, those of ORIGINAL_DST included.
    pub fn hosts(&self) -> Vec<Rc<HostRuntime>> {
        let state = self.state.borrow();
        match &state.original_dst {
            Some(original_dst) => original_dst.hosts().cloned().collect(),
            None => state.hosts.clone(),
        }
    }

    /// Where connections to hosts of a family come from.
    pub(crate) fn source(&self, ipv4: bool) -> Option<SocketAddr> {
        let sources = &self.bind.as_ref()?.sources;
        let fitting = sources.iter().find(|source| source.is_ipv4() == ipv4);
        fitting.or(sources.first()).copied()
    }

    /// Starts a connection to a host, as `Socket::connect`.
    pub fn connect(&self, host: &HostRuntime) -> Result<(Socket, bool), ConnectError> {
        let address = match &host.host.address {
            HostAddress::Socket(address) => address,
            HostAddress::Pipe(path) => return Ok(Socket::connect_unix(path)?),
        };
        let started = Socket::connect(
            *address,
            &ConnectOptions {
                bind: self.source(address.is_ipv4()),
                freebind: self.bind.as_ref().is_some_and(|bind| bind.freebind),
                keepalive: self.config.tcp_keepalive.map(|keepalive| Keepalive {
                    probes: keepalive.probes,
                    time: keepalive.time,
                    interval: keepalive.interval,
                }),
            },
        );
        if started.as_ref().is_err_and(|error| error.binding) {
            self.stats.inc(stat::BIND_ERRORS);
        }
        started
    }

    /// The transport over a host's connected, or connecting, socket. `fallback`: the protocols of ALPN where the
    /// configuration has none.
    ///
    /// # Errors
    /// In the words of the access log: the secrets are not there, or a server name is none.
    pub(crate) fn transport(
        &self,
        host: &HostRuntime,
        socket: Socket,
        options: Option<&TlsOptions>,
        fallback: &[&[u8]],
    ) -> Result<Transport, Rc<str>> {
        let Some(slot) = self.transports.get(host.host.transport) else {
            return Ok(Transport::plain(socket));
        };
        let Some((context, stats)) = slot.load().zip(self.tls_stats.as_ref()) else {
            if let Some(stats) = &self.tls_stats {
                stats
                    .factory
                    .inc(ssl_stat::UPSTREAM_CONTEXT_SECRETS_NOT_READY);
            }
            return Err(Rc::from("TLS error: Secret is not supplied by SDS"));
        };
        let none = TlsOptions::default();
        let options = options.unwrap_or(&none);
        let names: Vec<&str> = options.subject_alt_name.as_deref().into_iter().collect();
        let alpn: Vec<&[u8]> = options.alpn.iter().map(|name| &**name).collect();
        let session = Session::client(
            &context,
            &ClientOptions {
                server_name: options.server_name.as_deref(),
                hostname: &host.host.hostname,
                alpn: &alpn,
                alpn_fallback: fallback,
                subject_alt_names: &names,
            },
        );
        match session {
            Ok(session) => Ok(Transport::tls(socket, session, Rc::clone(stats))),
            Err(error) => Err(Rc::from(error.reason)),
        }
    }

    /// Whether the connections to a host are over TLS.
    #[inline]
    pub(crate) fn is_secure(&self, host: &HostRuntime) -> bool {
        self.tls_stats.is_some() && self.transports.get(host.host.transport).is_some()
    }

    /// ORIGINAL_DST hosts unused for two cleanup intervals.
    fn clean_original_dst(&self, now: Moment) -> Vec<Rc<HostRuntime>> {
        match &mut self.state.borrow_mut().original_dst {
            Some(original_dst) => original_dst.clean(now),
            None => Vec::new(),
        }
    }
}

/// A host that went away, with the cluster that had it: its idle pool connections shall close.
pub struct GoneHost {
    pub cluster: Rc<ClusterRuntime>,
    pub host: Rc<HostRuntime>,
}

/// A worker's clusters, by `ClusterId::index()`.
pub struct Clusters {
    slots: Vec<Option<Rc<ClusterRuntime>>>,
}

impl Clusters {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new() }
    }

    /// The runtime, if traffic has asked for the cluster before.
    #[inline]
    pub(crate) fn get(&self, id: ClusterId) -> Option<&Rc<ClusterRuntime>> {
        self.slots
            .get(id.index())?
            .as_ref()
            .filter(|cluster| cluster.id == id)
    }

    /// Makes the runtime. `None`: the generation has no such cluster.
    pub(crate) fn make(
        &mut self,
        id: ClusterId,
        shared: &[Option<Arc<ClusterShared>>],
        worker: usize,
        rng: &mut Rng,
    ) -> Option<Rc<ClusterRuntime>> {
        let shared = shared.get(id.index())?.as_ref()?;
        if shared.compiled.id() != id {
            return None;
        }
        let cluster = Rc::new(ClusterRuntime::new(shared, &shared.compiled, worker, rng));
        if self.slots.len() <= id.index() {
            self.slots.resize_with(id.index() + 1, || None);
        }
        if let Some(slot) = self.slots.get_mut(id.index()) {
            *slot = Some(Rc::clone(&cluster));
        }
        Some(cluster)
    }

    /// Brings every runtime in line with a new snapshot; returns the hosts that are gone.
    pub(crate) fn update(&mut self, snapshot: &Snapshot, rng: &mut Rng) -> Vec<GoneHost> {
        let mut gone = Vec::new();
        for slot in &mut self.slots {
            let Some(cluster) = slot else { continue };
            match snapshot.cluster(cluster.id) {
                Some(compiled) if compiled.incarnation == cluster.incarnation => {
                    if !Arc::ptr_eq(&cluster.state.borrow().endpoints, &compiled.endpoints) {
                        for host in cluster.update_endpoints(&compiled.endpoints, rng) {
                            gone.push(GoneHost {
                                cluster: Rc::clone(cluster),
                                host,
                            });
                        }
                    }
                }
                // Changed or removed: the next request makes a new runtime, if there is still a cluster.
                _ => {
                    for host in cluster.hosts() {
                        host.state.set_gone();
                        gone.push(GoneHost {
                            cluster: Rc::clone(cluster),
                            host,
                        });
                    }
                    *slot = None;
                }
            }
        }
        gone
    }

    /// Brings balancers in line with the health of hosts; returns the hosts that have been ejected meanwhile.
    pub(crate) fn follow_health(&self, rng: &mut Rng) -> Vec<GoneHost> {
        let mut ejected = Vec::new();
        for cluster in self.slots.iter().flatten() {
            for host in cluster.follow_health(rng) {
                ejected.push(GoneHost {
                    cluster: Rc::clone(cluster),
                    host,
                });
            }
        }
        ejected
    }

    /// Whether any cluster makes hosts on demand, whose unused ones have to be cleaned up.
    pub(crate) fn clean_original_dst(&mut self, now: Moment) -> Vec<GoneHost> {
        let mut gone = Vec::new();
        for cluster in self.slots.iter().flatten() {
            for host in cluster.clean_original_dst(now) {
                gone.push(GoneHost {
                    cluster: Rc::clone(cluster),
                    host,
                });
            }
        }
        gone
    }

    /// The shortest cleanup interval of the ORIGINAL_DST clusters in use.
    pub(crate) fn cleanup_interval(&self) -> Option<std::time::Duration> {
        self.slots
            .iter()
            .flatten()
            .filter_map(|cluster| match &cluster.config.discovery {
                Discovery::OriginalDst(original_dst) => Some(original_dst.cleanup_interval),
                _ => None,
            })
            .min()
    }
}

#[cfg(test)]
mod tests;
