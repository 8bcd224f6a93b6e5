//! The engine's handle on the workers: start, publish, drain, stop.
//!
//! Publishing opens the listening sockets (so that an address in use is an error the control plane hears of), pairs every
//! cluster and listener with its process-wide companions (statistics, circuit breakers), swaps the generation in and
//! wakes the workers. It is called by one thread at a time and never by a worker.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use tidegate_model::Name;
use tidegate_model::cluster::{Discovery, HealthStatus, LbPolicy};
use tidegate_model::listener::{Listener, ListenerFilterKind, TrafficDirection};
use tidegate_rt::{Clock, Errno, ListenOptions, Listening, Moment, Waker};
use tidegate_snapshot::{
    ChainFilter, CompiledCluster, CompiledListener, CompiledReadFilter, Endpoints, Host, HostId,
    Snapshot,
};
use tidegate_stats::{Group, Registry, defs::cluster as cluster_stat};

use crate::balance::{BalancerConfig, HashTables, TableCache, is_healthy};
use crate::cluster::outlier::{Detector, Monitor, effective_health};
use crate::cluster::{Breakers, ClusterShared, HostShared, HostTable, OnDemandHosts};
use crate::hcm::HcmGroups;
use crate::listener::{ChainStats, ListenerShared, ListenerStats};
use crate::rbac::RbacGroups;
use crate::shared::{Bound, DataplaneConfig, DrainScope, Generation, Shared, WorkerContext};
use crate::transport::SslStats;
use crate::worker::{LogSink, Worker};

/// A listener's address could not be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindError {
    pub listener: Name,
    pub address: SocketAddr,
    pub error: Errno,
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "cannot bind '{}': {}",
            self.address,
            std::io::Error::from(self.error)
        )
    }
}

impl std::error::Error for BindError {}

/// The workers of a process.
pub struct DataplaneHandle {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    bound: BTreeMap<(Name, SocketAddr), Arc<Bound>>,
    /// Descriptors handed over by a parent process, to be used instead of binding.
    inherited: BTreeMap<SocketAddr, Vec<Listening>>,
    /// Listeners whose sockets a drain has closed; they are not opened again.
    closed: DrainScope,
}

/// Starts the workers; they serve nothing until the first [`DataplaneHandle::publish`].
pub fn spawn_workers(
    config: DataplaneConfig,
    registry: Registry,
    log_sink: Arc<dyn LogSink>,
) -> Result<DataplaneHandle, Errno> {
    let count = config.workers.max(1);
    let wakers = (0..count)
        .map(|_| Waker::new())
        .collect::<Result<Vec<_>, _>>()?;
    let shared = Arc::new(Shared::new(config, registry, log_sink, wakers));
    let mut handle = DataplaneHandle {
        shared: Arc::clone(&shared),
        threads: Vec::with_capacity(count),
        bound: BTreeMap::new(),
        inherited: BTreeMap::new(),
        closed: DrainScope::None,
    };
    for (id, waker) in shared.wakers.iter().enumerate() {
        let context = WorkerContext {
            id,
            waker: waker.clone(),
            shared: Arc::clone(&shared),
        };
        let (started, outcome) = std::sync::mpsc::channel();
        // The worker is made inside its thread: much of it may not move between threads.
        let thread = std::thread::Builder::new()
            .name(format!("wrk:worker_{id}"))
            .spawn(move || match Worker::new(context) {
                Ok(worker) => {
                    let _started = started.send(Ok(()));
                    worker.run();
                }
                Err(error) => {
                    let _failed = started.send(Err(error));
                }
            })
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        handle.threads.push(thread);
        outcome.recv().unwrap_or(Err(Errno::AGAIN))?;
    }
    Ok(handle)
}

impl DataplaneHandle {
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Uses listening sockets of another process for these addresses instead of binding anew (hot restart).
    pub fn inherit(&mut self, address: SocketAddr, sockets: Vec<Listening>) {
        self.inherited.insert(address, sockets);
    }

    /// Opens the sockets of a listener that is about to be published, so that a failure can reject it. Addresses that
    /// are open already stay as they are.
    pub fn bind(&mut self, listener: &Listener) -> Result<(), BindError> {
        if !listener.bind_to_port || self.is_closed(listener) {
            return Ok(());
        }
        let addresses =
            std::iter::once(listener.address).chain(listener.additional_addresses.iter().copied());
        let mut opened = Vec::new();
        for address in addresses {
            let key = (Name::clone(&listener.name), address);
            if self.bound.contains_key(&key) {
                continue;
            }
            // Another listener of that address hands its sockets on: a renamed listener must not lose a connection.
            let twin = self
                .bound
                .iter()
                .find(|((_, other), _)| *other == address && address.port() != 0)
                .map(|(_, bound)| Arc::clone(bound));
            let bound = match twin {
                Some(bound) => bound,
                None => Arc::new(self.open(listener, address).map_err(|error| BindError {
                    listener: Name::clone(&listener.name),
                    address,
                    error,
                })?),
            };
            opened.push((key, bound));
        }
        self.bound.extend(opened);
        Ok(())
    }

    fn open(&mut self, listener: &Listener, address: SocketAddr) -> Result<Bound, Errno> {
        let workers = self.shared.wakers.len();
        let options = ListenOptions {
            reuse_port: listener.reuse_port,
            backlog: listener.tcp_backlog_size,
            freebind: listener.freebind,
            transparent: listener.transparent,
        };
        let mut sockets: Vec<Arc<Listening>> = self
            .inherited
            .remove(&address)
            .unwrap_or_default()
            .into_iter()
            .take(workers)
            .map(Arc::new)
            .collect();
        let first = if let Some(first) = sockets.first() {
            Arc::clone(first)
        } else {
            let first = Arc::new(Listening::bind(address, &options)?);
            sockets.push(Arc::clone(&first));
            first
        };
        let local = first.local_addr()?;
        while sockets.len() < workers {
            sockets.push(if listener.reuse_port {
                Arc::new(Listening::bind(local, &options)?)
            } else {
                Arc::clone(&first)
            });
        }
        Ok(Bound {
            local,
            same_socket: !listener.reuse_port && workers > 1,
            sockets,
        })
    }

    /// Closes sockets opened by [`DataplaneHandle::bind`] for a listener that is not published after all. Sockets of the
    /// published version stay.
    pub fn unbind_unpublished(&mut self) {
        let generation = self.shared.generation.load_full();
        self.bound.retain(|_, bound| {
            generation
                .listeners
                .iter()
                .flatten()
                .any(|listener| listener.bound.iter().any(|other| Arc::ptr_eq(other, bound)))
        });
    }

    /// Makes a snapshot the one in force. Listeners that cannot be bound are left without a socket and reported.
    pub fn publish(&mut self, snapshot: Arc<Snapshot>) -> Vec<BindError> {
        let old = self.shared.generation.load_full();
        let mut errors = Vec::new();
        let mut listeners: Vec<Option<Arc<ListenerShared>>> = Vec::new();
        listeners.resize_with(snapshot.listener_slots(), || None);
        let closed: Vec<Name> = snapshot
            .listeners()
            .filter(|listener| self.is_closed(&listener.config))
            .map(|listener| Name::clone(listener.name()))
            .collect();
        self.bound.retain(|(name, _), _| !closed.contains(name));
        for compiled in snapshot.listeners() {
            if let Err(error) = self.bind(&compiled.config) {
                errors.push(error);
            }
            let shared = self.listener_shared(&old, compiled);
            if let Some(slot) = listeners.get_mut(compiled.id().index()) {
                *slot = Some(shared);
            }
        }
        self.bound.retain(|(name, address), _| {
            snapshot.listener_by_name(name).is_some_and(|listener| {
                listener.is_bound() && listener.addresses().any(|other| other == *address)
            })
        });
        let mut clusters: Vec<Option<Arc<ClusterShared>>> = Vec::new();
        clusters.resize_with(snapshot.cluster_slots(), || None);
        for compiled in snapshot.clusters() {
            let shared = self.cluster_shared(&old, compiled);
            if let Some(slot) = clusters.get_mut(compiled.id().index()) {
                *slot = Some(shared);
            }
        }
        self.shared.generation.store(Arc::new(Generation {
            snapshot,
            clusters,
            listeners,
        }));
        self.shared.wake_all();
        errors
    }

    fn listener_shared(
        &self,
        old: &Generation,
        compiled: &Arc<CompiledListener>,
    ) -> Arc<ListenerShared> {
        let before = old
            .listeners
            .get(compiled.id().index())
            .and_then(Option::as_ref)
            .filter(|before| before.compiled.id() == compiled.id());
        let bound: Vec<Arc<Bound>> = compiled
            .addresses()
            .filter_map(|address| {
                self.bound
                    .get(&(Name::clone(compiled.name()), address))
                    .map(Arc::clone)
            })
            .collect();
        if let Some(before) = before
            && Arc::ptr_eq(&before.compiled, compiled)
            && before.bound.len() == bound.len()
        {
            return Arc::clone(before);
        }
        let prefix = format!("listener.{}.", compiled.config.stat_prefix);
        let stats = match before {
            Some(before) if before.stats.group.prefix() == prefix => Arc::clone(&before.stats),
            _ => Arc::new(ListenerStats::new(
                self.shared.registry.group(&prefix),
                (0..self.shared.wakers.len())
                    .map(|worker| {
                        self.shared
                            .registry
                            .group(&format!("{prefix}worker_{worker}."))
                    })
                    .collect(),
                self.shared.global_limit.clone(),
            )),
        };
        let chains = &compiled.filter_chains;
        let chain_stats = chains
            .chains()
            .iter()
            .chain(chains.default_chain())
            .map(|chain| {
                let registry = &self.shared.registry;
                let stats = match &chain.filter {
                    ChainFilter::TcpProxy(proxy) => ChainStats::TcpProxy(
                        registry.group(&format!("tcp.{}.", proxy.config.stat_prefix)),
                    ),
                    ChainFilter::Http(hcm) => ChainStats::Http(HcmGroups::new(
                        registry,
                        hcm,
                        &compiled.config.stat_prefix,
                    )),
                };
                (Arc::clone(chain), stats)
            })
            .collect();
        let rate_limits = chains
            .chains()
            .iter()
            .chain(chains.default_chain())
            .flat_map(|chain| &chain.read_filters)
            .filter_map(|filter| match filter {
                CompiledReadFilter::LocalRateLimit(limit) => {
                    let prefix = format!("local_rate_limit.{}.", limit.config.stat_prefix);
                    Some((Arc::clone(limit), self.shared.registry.group(&prefix)))
                }
                _ => None,
            })
            .collect();
        let rbac = chains
            .chains()
            .iter()
            .chain(chains.default_chain())
            .flat_map(|chain| &chain.read_filters)
            .filter_map(|filter| match filter {
                CompiledReadFilter::Rbac(rbac) => {
                    let prefix = &rbac.config.stat_prefix;
                    let groups = RbacGroups::new(&self.shared.registry, prefix, &rbac.config.rbac);
                    Some((Arc::clone(rbac), groups))
                }
                _ => None,
            })
            .collect();
        let has_filter = |is_it: fn(&ListenerFilterKind) -> bool| {
            let mut filters = compiled.config.listener_filters.iter();
            filters.any(|filter| is_it(&filter.kind))
        };
        let mut all = chains.chains().iter().chain(chains.default_chain());
        let ssl = all
            .any(|chain| chain.tls.is_some())
            .then(|| SslStats::new(&self.shared.registry, &prefix, "server_ssl_socket_factory."));
        Arc::new(ListenerShared {
            compiled: Arc::clone(compiled),
            bound,
            stats,
            ssl,
            chain_stats,
            rbac,
            rate_limits,
            tls_inspector: has_filter(|kind| {
                matches!(kind, ListenerFilterKind::TlsInspector { .. })
            })
            .then(|| self.shared.registry.group("tls_inspector.")),
            http_inspector: has_filter(|kind| *kind == ListenerFilterKind::HttpInspector)
                .then(|| self.shared.registry.group("http_inspector.")),
        })
    }

    fn cluster_shared(
        &self,
        old: &Generation,
        compiled: &Arc<CompiledCluster>,
    ) -> Arc<ClusterShared> {
        let before = old
            .clusters
            .get(compiled.id().index())
            .and_then(Option::as_ref)
            .filter(|before| before.compiled.id() == compiled.id());
        if let Some(before) = before
            && Arc::ptr_eq(&before.compiled, compiled)
        {
            return Arc::clone(before);
        }
        let same_incarnation =
            before.filter(|before| before.compiled.incarnation == compiled.incarnation);
        let prefix = format!("cluster.{}.", compiled.config.alt_stat_name);
        let registry = &self.shared.registry;
        let (traffic, membership) = match before {
            Some(before) if before.traffic.prefix() == prefix => {
                (before.traffic.clone(), before.membership.clone())
            }
            _ => (registry.group(&prefix), registry.group(&prefix)),
        };
        let breakers = if let Some(before) = same_incarnation {
            Arc::clone(&before.breakers)
        } else {
            let breakers = Breakers::new(&compiled.config.circuit_breakers);
            for (gauge, remaining) in breakers.remaining() {
                traffic.shared().gauge_set(gauge, i64::from(remaining));
            }
            Arc::new(breakers)
        };
        let is_original_dst = matches!(compiled.config.discovery, Discovery::OriginalDst(_));
        // Hosts made on demand are those of one incarnation.
        let hosts = match before.filter(|_| !is_original_dst).or(same_incarnation) {
            Some(before) => Arc::clone(&before.hosts),
            None => Arc::new(HostTable::new(self.shared.wakers.len())),
        };
        let endpoints = &compiled.endpoints;
        if !is_original_dst {
            hosts.retain(|id| endpoints.hosts.iter().any(|host| host.id == id));
        }
        if compiled.config.lb.slow_start.is_some() {
            let now = Clock::precise();
            for host in &endpoints.hosts {
                hosts.start_slowly(host, now);
            }
        }
        if before.is_none_or(|before| before.compiled.endpoints.hosts != endpoints.hosts) {
            count_membership(
                before.map(|before| &*before.compiled),
                compiled,
                &membership,
            );
        }
        let ssl = compiled
            .has_tls()
            .then(|| SslStats::new(registry, &prefix, "client_ssl_socket_factory."));
        let detector = match same_incarnation {
            Some(before) => before.detector.as_ref().map(Arc::clone),
            None => compiled.config.outlier_detection.as_ref().map(|config| {
                Detector::new(
                    config,
                    registry.group(&format!("{prefix}outlier_detection.")),
                    membership.clone(),
                    Arc::clone(&hosts),
                    self.shared.wakers.clone(),
                )
            }),
        };
        if let Some(detector) = detector.as_ref().filter(|_| !is_original_dst) {
            detector.set_hosts(endpoints.hosts.clone());
        }
        let on_demand = match same_incarnation {
            Some(before) => before.on_demand.as_ref().map(Arc::clone),
            None => is_original_dst.then(|| {
                Arc::new(OnDemandHosts::new(
                    compiled.transports().choose(&[]),
                    Arc::clone(&hosts),
                    detector.as_ref().map(Arc::clone),
                    membership.clone(),
                ))
            }),
        };
        let tables =
            same_incarnation.map_or_else(Arc::default, |before| Arc::clone(&before.tables));
        prepare_tables(compiled, detector.as_deref(), &tables, &membership);
        Arc::new(ClusterShared {
            ssl,
            compiled: Arc::clone(compiled),
            traffic,
            membership,
            breakers,
            hosts,
            bind: compiled
                .config
                .upstream_bind
                .clone()
                .or_else(|| self.shared.config.upstream_bind.clone()),
            detector,
            tables,
            on_demand,
        })
    }

    /// Looks after outlier detection, whose intervals may be over; returns when to call again, if ever.
    pub fn detect_outliers(&self, now: Moment) -> Option<Moment> {
        let generation = self.shared.generation.load();
        let detectors = generation.clusters.iter().flatten();
        detectors
            .filter_map(|cluster| Some(cluster.detector.as_ref()?.tick(now)))
            .min()
    }

    /// The outlier detection of a cluster, if it has one.
    pub fn detector(&self, cluster: &str) -> Option<Arc<Detector>> {
        let generation = self.shared.generation.load();
        let id = generation.snapshot.cluster_by_name(cluster)?.id();
        let shared = generation.clusters.get(id.index())?.as_ref()?;
        shared.detector.as_ref().map(Arc::clone)
    }

    /// What it knows of a host.
    pub fn host_monitor(&self, cluster: &str, host: HostId) -> Option<Arc<Monitor>> {
        self.detector(cluster)?.monitor(host)
    }

    /// The addresses a listener is bound to, with the ports the kernel chose.
    pub fn local_addresses(&self, listener: &str) -> Vec<SocketAddr> {
        self.bound
            .iter()
            .filter(|((name, _), _)| &**name == listener)
            .map(|(_, bound)| bound.local)
            .collect()
    }

    /// The hosts of an ORIGINAL_DST cluster that there are at the moment.
    pub fn hosts_on_demand(&self, cluster: &str) -> Vec<Arc<Host>> {
        let generation = self.shared.generation.load();
        let id = generation.snapshot.cluster_by_name(cluster).map(|c| c.id());
        let shared = id.and_then(|id| generation.clusters.get(id.index())?.as_ref());
        let hosts = shared.and_then(|shared| shared.on_demand.as_ref());
        hosts.map(|hosts| hosts.hosts()).unwrap_or_default()
    }

    /// A host's counters for `/clusters`; `None`: it has had no traffic.
    pub fn host_counters(&self, cluster: &str, host: HostId) -> Option<Arc<HostShared>> {
        let generation = self.shared.generation.load();
        let id = generation.snapshot.cluster_by_name(cluster)?.id();
        generation
            .clusters
            .get(id.index())?
            .as_ref()?
            .hosts
            .peek(host)
    }

    /// Starts to drain: connections are asked to leave. With `stop_accepting` the listeners' sockets are closed too, after
    /// what is queued in them was accepted.
    pub fn drain(&mut self, scope: DrainScope, stop_accepting: bool) {
        self.shared.drain.fetch_max(scope as u8, Ordering::AcqRel);
        if stop_accepting {
            self.shared.drain_hurried.store(true, Ordering::Release);
            self.closed = self.closed.max(scope);
            let old = self.shared.generation.load_full();
            self.publish(Arc::clone(&old.snapshot));
        } else {
            self.shared.wake_all();
        }
    }

    fn is_closed(&self, listener: &Listener) -> bool {
        match self.closed {
            DrainScope::None => false,
            DrainScope::InboundOnly => listener.traffic_direction == TrafficDirection::Inbound,
            DrainScope::All => true,
        }
    }

    /// The listening sockets by address, for handing them to a child process.
    pub fn listening_sockets(&self) -> Vec<(SocketAddr, Vec<Arc<Listening>>)> {
        self.bound
            .values()
            .map(|bound| (bound.local, bound.sockets.clone()))
            .collect()
    }

    /// Stops the workers, closing all connections, and waits for their threads. Dropping the handle does the same.
    pub fn shutdown(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake_all();
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

/// Builds the tables of consistent hashing before the workers ask for them, and tells of them.
fn prepare_tables(
    compiled: &CompiledCluster,
    detector: Option<&Detector>,
    tables: &TableCache,
    membership: &Group<cluster_stat::Membership>,
) {
    let health = detector.map_or(0, Detector::version);
    let ejected = detector.map(Detector::ejected).unwrap_or_default();
    let endpoints = &compiled.endpoints;
    let config = BalancerConfig::from(&*compiled.config);
    let built = tables.get((endpoints.version, health), || {
        HashTables::build(&config, endpoints, &|host| effective_health(&ejected, host))
    });
    let Some(tables) = built else { return };
    let stats = membership.shared();
    let built = tables.stats.unwrap_or_default();
    let (least, most) = (built.min_per_host as i64, built.max_per_host as i64);
    if matches!(config.policy, LbPolicy::Maglev { .. }) {
        stats.gauge_set(cluster_stat::MAGLEV_LB_MIN_ENTRIES_PER_HOST, least);
        stats.gauge_set(cluster_stat::MAGLEV_LB_MAX_ENTRIES_PER_HOST, most);
    } else {
        stats.gauge_set(cluster_stat::RING_HASH_LB_SIZE, built.size as i64);
        stats.gauge_set(cluster_stat::RING_HASH_LB_MIN_HASHES_PER_HOST, least);
        stats.gauge_set(cluster_stat::RING_HASH_LB_MAX_HASHES_PER_HOST, most);
    }
}

/// `cluster.NAME.membership_*`. As in Envoy, a cluster that never had a host leaves them untouched.
fn count_membership(
    before: Option<&CompiledCluster>,
    compiled: &CompiledCluster,
    membership: &Group<cluster_stat::Membership>,
) {
    let hosts = &compiled.endpoints.hosts;
    let stats = membership.shared();
    stats.gauge_set(cluster_stat::WARMING_STATE, 0);
    if hosts.is_empty() && before.is_none_or(|before| before.endpoints.hosts.is_empty()) {
        return;
    }
    let count = |wanted: fn(HealthStatus) -> bool| {
        hosts.iter().filter(|host| wanted(host.health)).count() as i64
    };
    // Envoy counts a change of each priority for itself.
    let of_priority = |endpoints: &Endpoints, priority: usize| -> Vec<HostId> {
        let members = endpoints.priorities.get(priority);
        let members = members.into_iter().flat_map(|priority| &priority.hosts);
        members
            .filter_map(|&index| Some(endpoints.hosts.get(index as usize)?.id))
            .collect()
    };
    let empty = Arc::default();
    let old = before.map_or(&empty, |before| &before.endpoints);
    let new = &compiled.endpoints;
    let changes = (0..old.priorities.len().max(new.priorities.len()))
        .filter(|&priority| of_priority(old, priority) != of_priority(new, priority))
        .count();
    stats.add(cluster_stat::MEMBERSHIP_CHANGE, changes.max(1) as u64);
    stats.gauge_set(cluster_stat::MEMBERSHIP_TOTAL, hosts.len() as i64);
    stats.gauge_set(cluster_stat::MEMBERSHIP_HEALTHY, count(is_healthy));
    stats.gauge_set(
        cluster_stat::MEMBERSHIP_DEGRADED,
        count(|health| health == HealthStatus::Degraded),
    );
    stats.gauge_set(
        cluster_stat::MEMBERSHIP_EXCLUDED,
        count(|health| health == HealthStatus::Draining),
    );
}

impl Drop for DataplaneHandle {
    fn drop(&mut self) {
        self.shutdown();
    }
}
