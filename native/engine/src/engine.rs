//! The engine: the parts put together, and the calls its owner makes.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tidegate_dataplane::{DataplaneConfig, DrainScope, spawn_workers};
use tidegate_model::Name;
use tidegate_model::bootstrap::AdminAddress;
use tidegate_model::cluster::{
    Address, Cluster, ClusterLoadAssignment, Discovery, LocalityLbEndpoints, TcpKeepalive,
};
use tidegate_model::tls::GrpcSource;
use tidegate_stats::defs::control_plane;
use tidegate_stats::defs::server as stat;
use tidegate_stats::{Group, Registry, TagRules, Value};
use tidegate_xds::{Decoder, Format, Loaded, Overrides};
use tokio::sync::mpsc::unbounded_channel;

use crate::admin::AdminSocket;
use crate::aux::{self, Order, Orders};
use crate::config::{
    ApplyResult, ConfigSourceKey, Context, Delta, Manager, ServerState, Subscription, UpdateFailure,
};
use crate::error::{ConfigError, EngineError};
use crate::events::{Event, Events};
use crate::log_files::{LogFiles, Logs, check_writable};
use crate::options::Options;
use crate::server_log::{Level, ServerLog, server_log};
use crate::stats_flush::{StatsFlush, set_buckets, set_matcher, tag_rules};
use crate::version;

/// What the owner of the streams has to know of the bootstrap.
#[derive(Debug, Clone, PartialEq)]
pub struct BootstrapInfo {
    /// The encoded `Node`.
    pub node: Vec<u8>,
    pub node_id: String,
    pub node_cluster: String,
    pub ads: Option<GrpcTarget>,
    /// As bound; empty when there is no admin or it is not started.
    pub admin_address: String,
}

/// Where a discovery stream goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrpcTarget {
    pub cluster: String,
    /// Incremental instead of state of the world.
    pub delta: bool,
    /// gRPC targets: `dns:host:port`, `ipv4:1.2.3.4:5`, `ipv6:[::1]:5` or `unix:/path`.
    pub targets: Vec<String>,
    pub authority: String,
    pub initial_metadata: Vec<(String, String)>,
    pub connect_timeout: Duration,
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Interval and timeout.
    pub http2_keepalive: Option<(Duration, Duration)>,
    /// Base and maximum.
    pub retry_back_off: (Duration, Duration),
}

/// What the engine's threads share.
pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) loaded: Loaded,
    pub(crate) registry: Registry,
    pub(crate) tags: TagRules,
    pub(crate) log: Arc<ServerLog>,
    pub(crate) events: Arc<Events>,
    pub(crate) state: Arc<ServerState>,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    pub(crate) log_files: OnceLock<LogFiles>,
    /// A change of the configuration may be in force.
    pub(crate) configured: tokio::sync::Notify,
    orders: Orders,
    manager: Mutex<Manager>,
}

impl Core {
    /// Runs something on the configuration, and passes on what follows from it.
    pub(crate) fn with_manager<T>(&self, work: impl FnOnce(&mut Manager) -> T) -> T {
        let mut manager = self.lock();
        let result = work(&mut manager);
        if manager.dataplane().is_some()
            && let Some(jobs) = manager.dns_jobs()
        {
            self.order(Order::Dns(jobs));
        }
        self.configured.notify_one();
        result
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Manager> {
        // Should a change ever panic half way, the last published snapshot still serves and the next change starts from it.
        self.manager.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn order(&self, order: Order) {
        // After the end there is nobody to take orders.
        let _stopped = self.orders.send(order);
    }

    /// Starts to drain; with `stop_accepting` the sockets close.
    pub(crate) fn drain_listeners(&self, scope: DrainScope, stop_accepting: bool) {
        if let Some(dataplane) = self.lock().dataplane_mut() {
            dataplane.drain(scope, stop_accepting);
        }
    }

    /// `/healthcheck/fail` and `/healthcheck/ok`.
    pub(crate) fn set_health_check_failed(&self, failed: bool) {
        self.state.set_failing(failed);
        if let Some(dataplane) = self.lock().dataplane() {
            dataplane.shared().set_health_check_failed(failed);
        }
    }

    pub(crate) fn downstream_connections(&self) -> i64 {
        let mut connections = 0;
        self.registry.visit(|sample| {
            if let Value::Gauge(active) = sample.value
                && sample.name == "downstream_cx_active"
                && sample.prefix.starts_with("listener.")
                && !sample.prefix.contains(".worker_")
                && sample.prefix != "listener.admin."
            {
                connections += active;
            }
        });
        connections
    }

    pub(crate) fn reopen_logs(&self) {
        if let Some(files) = self.log_files.get() {
            files.reopen();
        }
        if let Err(error) = self.log.reopen() {
            server_log!(self.log, Error, "file", "cannot reopen the log: {error}");
        }
    }
}

/// An update of so many resources leaves memory worth giving back.
const LARGE: usize = 500;

/// Threads, from `start` to `shutdown`.
struct Running {
    aux: JoinHandle<()>,
    log_flush: JoinHandle<()>,
    admin_address: String,
}

/// The data plane.
pub struct Engine {
    core: Arc<Core>,
    waiting: Option<tokio::sync::mpsc::UnboundedReceiver<Order>>,
    running: Option<Running>,
    control_plane: Option<Group<control_plane::ControlPlane>>,
    /// Keep what nobody else holds in the registry.
    _server: Group<stat::Server>,
}

impl Engine {
    /// Reads and compiles the bootstrap: all of validation. Nothing is opened but the process's own log.
    pub fn new(bootstrap: &[u8], format: Format, options: Options) -> Result<Self, ConfigError> {
        let decoder = Decoder::new();
        let overrides = Overrides {
            config_yaml: &options.config_yaml,
            node_id: &options.service_node,
            node_cluster: &options.service_cluster,
            node_zone: &options.service_zone,
            user_agent_name: "tidegate",
            user_agent_version: version::PACKAGE,
            user_agent_metadata: &version::metadata(),
        };
        let loaded = decoder.bootstrap(bootstrap, format, &overrides)?;
        drop(decoder);
        let opened =
            |what: &str, error: String| ConfigError::new("", "", format!("{what}: {error}"));
        let mut log_options = options.clone();
        if let Some(format) = &loaded.bootstrap.log_format {
            if !options.log_format.is_empty() {
                let both = "Only one of ApplicationLogConfig.log_format or CLI option --log-format can be specified.";
                return Err(ConfigError::new("", "application_log_config", both));
            }
            log_options.log_format = format.to_string();
        }
        let log = ServerLog::new(&log_options)
            .map_err(|error| opened(&options.log_path, error.to_string()))?;
        let log = Arc::new(log);
        for warning in &loaded.bootstrap.warnings {
            server_log!(log, Warning, "config", "{warning}");
        }
        let registry = Registry::new(options.workers());
        set_matcher(&registry, &loaded.bootstrap.stats.matcher)?;
        set_buckets(&registry, &loaded.bootstrap.stats.buckets)?;
        let tags = tag_rules(&loaded.bootstrap.stats)?;
        let events = Events::new().map_err(|error| opened("eventfd", error.to_string()))?;
        let events = Arc::new(events);
        let state = Arc::new(ServerState::new());
        let server = registry.group::<stat::Server>("server.");
        let numbers = server.shared();
        numbers.gauge_set(stat::CONCURRENCY, options.workers() as i64);
        numbers.gauge_set(stat::HOT_RESTART_EPOCH, i64::from(options.restart_epoch));
        numbers.gauge_set(stat::DAYS_UNTIL_FIRST_CERT_EXPIRING, i64::from(u32::MAX));
        state.tell(numbers.clone());
        numbers.add(
            stat::STATIC_UNKNOWN_FIELDS,
            loaded.bootstrap.warnings.len() as u64,
        );
        let context = Context {
            registry: registry.clone(),
            log: Arc::clone(&log),
            events: Arc::clone(&events),
            state: Arc::clone(&state),
            drain_time: options.drain_time,
        };
        let manager = Manager::new(context, &loaded)?;
        let (orders, waiting) = unbounded_channel();
        let control_plane = loaded
            .bootstrap
            .dynamic
            .ads
            .is_some()
            .then(|| registry.group("control_plane."));
        Ok(Self {
            core: Arc::new(Core {
                options,
                loaded,
                registry,
                tags,
                log,
                events,
                state,
                started: Instant::now(),
                started_at: SystemTime::now(),
                log_files: OnceLock::new(),
                configured: tokio::sync::Notify::new(),
                orders,
                manager: Mutex::new(manager),
            }),
            waiting: Some(waiting),
            running: None,
            control_plane,
            _server: server,
        })
    }

    /// Opens the admin socket and the logs, starts the threads, begins to warm.
    pub fn start(&mut self) -> Result<(), EngineError> {
        let Some(orders) = self.waiting.take() else {
            return Err(EngineError("started already".to_owned()));
        };
        let core = &self.core;
        let refused =
            |what: &str, error: &dyn std::fmt::Display| EngineError(format!("{what}: {error}"));
        let bootstrap = &core.loaded.bootstrap;
        let admin = match &bootstrap.admin {
            Some(admin) => Some(AdminSocket::bind(&admin.address).map_err(|error| {
                refused(
                    &format!("cannot bind admin '{}'", shown(&admin.address)),
                    &error,
                )
            })?),
            None => None,
        };
        let admin_address = admin.as_ref().map(AdminSocket::address).unwrap_or_default();
        if !core.options.admin_address_path.is_empty() && !admin_address.is_empty() {
            std::fs::write(&core.options.admin_address_path, &admin_address)
                .map_err(|error| refused(&core.options.admin_address_path, &error))?;
        }
        for path in bootstrap
            .admin
            .iter()
            .flat_map(|admin| &admin.access_log_paths)
        {
            check_writable(path)
                .map_err(|error| refused(&format!("unable to open file '{path}'"), &error))?;
        }
        let (log_files, log_flush) =
            LogFiles::start(&core.registry).map_err(|error| refused("log_flush thread", &error))?;
        let flush = StatsFlush::new(
            &core.registry,
            &core.state,
            core.started,
            &bootstrap.stats_sinks,
            &core.tags,
        )
        .map_err(|error| refused("stats_sinks", &error))?;
        let config = DataplaneConfig {
            workers: core.options.workers(),
            node: bootstrap.node.clone(),
            drain_time: core.options.drain_time,
            drain_gradually: core.options.drain_gradually,
            log_flush_interval: core.options.file_flush_interval,
            busy_poll: core.options.busy_poll,
            version: version::version(),
            tracing: bootstrap.tracing.clone(),
            max_downstream_connections: bootstrap.max_active_downstream_connections,
            upstream_bind: bootstrap.upstream_bind.clone(),
        };
        let sink = Logs {
            files: log_files.clone(),
            server: Arc::clone(&core.log),
        };
        let dataplane = spawn_workers(config, core.registry.clone(), Arc::new(sink))
            .map_err(|error| refused("worker thread", &error))?;
        // There is one set of log files, made here.
        let _first = core.log_files.set(log_files);
        let aux = aux::start(Arc::clone(core), orders, admin, flush)
            .map_err(|error| refused("aux thread", &error))?;
        self.running = Some(Running {
            aux,
            log_flush,
            admin_address,
        });
        server_log!(
            core.log,
            Info,
            "main",
            "starting main dispatch loop, version {}",
            version::version()
        );
        core.with_manager(|manager| manager.start(dataplane))
            .map_err(|error| EngineError(error.to_string()))?;
        // Reading a bootstrap takes several times the memory that it leaves in use.
        tidegate_rt::release_unused();
        Ok(())
    }

    pub fn bootstrap_info(&self) -> BootstrapInfo {
        let loaded = &self.core.loaded;
        let bootstrap = &loaded.bootstrap;
        let ads = bootstrap.dynamic.ads.as_ref().map(|ads| GrpcTarget {
            cluster: ads.cluster_name.to_string(),
            delta: ads.delta,
            targets: ads.targets.localities.iter().flat_map(targets).collect(),
            authority: if loaded.ads_authority.is_empty() {
                ads.cluster_name.to_string()
            } else {
                loaded.ads_authority.clone()
            },
            initial_metadata: texts(&ads.initial_metadata),
            connect_timeout: ads.connect_timeout,
            tcp_keepalive: loaded.ads_tcp_keepalive,
            http2_keepalive: loaded.ads_http2_keepalive,
            retry_back_off: loaded.ads_retry_back_off,
        });
        BootstrapInfo {
            node: loaded.node.clone(),
            node_id: bootstrap.node.id.to_string(),
            node_cluster: bootstrap.node.cluster.to_string(),
            ads,
            admin_address: self
                .running
                .as_ref()
                .map(|running| running.admin_address.clone())
                .unwrap_or_default(),
        }
    }

    /// All that is wanted now, in the order in which it should be asked for.
    pub fn subscriptions(&self) -> Vec<Subscription> {
        self.core.with_manager(Manager::subscriptions)
    }

    /// The stream of a subscription that has one of its own.
    pub fn grpc_target(&self, source: &ConfigSourceKey) -> Option<GrpcTarget> {
        match source {
            ConfigSourceKey::Grpc(source) => {
                GrpcTarget::of(source, &self.core.loaded.bootstrap.clusters)
            }
            ConfigSourceKey::Ads | ConfigSourceKey::Path(_) => None,
        }
    }

    /// The directories in which a rename may change a file that a secret refers to.
    pub fn watched_directories(&self) -> Vec<String> {
        self.core.lock().watched_directories()
    }

    /// Something was renamed into one of these directories.
    pub fn directory_changed(&self, directory: &str) {
        self.core
            .with_manager(|manager| manager.directory_changed(directory));
    }

    /// Decodes, compiles and publishes one response, that came from `origin` ([`ConfigSourceKey::origin`]); when this returns, every new connection sees the result.
    pub fn apply(
        &self,
        type_url: &str,
        version: &str,
        resources: &[(String, Vec<u8>)],
        origin: &str,
    ) -> ApplyResult {
        self.take(type_url, version, resources, None, origin)
    }

    /// [`Self::apply`] for an incremental response: what is not mentioned stays, what was removed goes.
    pub fn apply_delta(
        &self,
        type_url: &str,
        version: &str,
        resources: &[(String, Vec<u8>)],
        delta: &Delta<'_>,
        origin: &str,
    ) -> ApplyResult {
        self.take(type_url, version, resources, Some(delta), origin)
    }

    fn take(
        &self,
        type_url: &str,
        version: &str,
        resources: &[(String, Vec<u8>)],
        delta: Option<&Delta<'_>>,
        origin: &str,
    ) -> ApplyResult {
        let result = self
            .core
            .with_manager(|manager| manager.apply(type_url, version, resources, delta, origin));
        if resources.len() >= LARGE {
            tidegate_rt::release_unused();
        }
        result
    }

    /// The type URLs about which no request is to be sent now; [`Event::Subscriptions`] says that it may have changed.
    pub fn paused(&self) -> Vec<&'static str> {
        self.core.lock().paused()
    }

    pub fn update_failed(
        &self,
        type_url: &str,
        names: &[String],
        why: UpdateFailure,
        origin: &str,
    ) {
        self.core
            .with_manager(|manager| manager.update_failed(type_url, names, why, origin));
    }

    /// An update that never reached [`Self::apply`].
    pub fn update_rejected(&self, type_url: &str, reason: &str, origin: &str) {
        self.core
            .with_manager(|manager| manager.update_rejected(type_url, reason, origin));
    }

    /// `control_plane.connected_state`.
    pub fn ads_connected(&self, connected: bool) {
        if let Some(group) = &self.control_plane {
            group
                .shared()
                .gauge_set(control_plane::CONNECTED_STATE, i64::from(connected));
        }
    }

    /// `control_plane.identifier`.
    pub fn control_plane_identifier(&self, identifier: &str) {
        if let Some(group) = &self.control_plane {
            group
                .shared()
                .text_set(control_plane::IDENTIFIER, identifier);
        }
    }

    /// Readable while [`Self::take_events`] would return something.
    pub fn event_fd(&self) -> RawFd {
        self.core.events.fd()
    }

    pub fn take_events(&self) -> Vec<Event> {
        self.core.events.take()
    }

    /// Stops accepting and lets connections end; [`Event::Drained`] comes when none is left or after `limit`.
    pub fn drain(&self, limit: Duration) {
        self.core.drain_listeners(DrainScope::All, true);
        self.core.order(Order::WatchDrain(limit));
    }

    /// Stops and joins every thread, flushes every log.
    pub fn shutdown(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        // The workers first: they hand their last log lines over as they end.
        self.core.lock().stop();
        self.core.order(Order::Stop);
        let _panicked = running.aux.join();
        if let Some(files) = self.core.log_files.get() {
            files.stop();
        }
        let _panicked = running.log_flush.join();
        server_log!(self.core.log, Info, "main", "exiting");
    }

    pub fn reopen_logs(&self) {
        self.core.reopen_logs();
    }

    /// Gives back what coming up has left unused in the whole process's heap, the owner's part of it included.
    pub fn release_unused(&self) {
        tidegate_rt::release_unused();
    }

    /// One line of the process's own log.
    pub fn log(&self, level: Level, component: &str, message: &str) {
        self.core.log.write(level, component, ("", 0), message);
    }

    /// Counts for the owner of the engine.
    pub fn count(&self, name: &str, amount: u64) {
        self.core.registry.count(name, amount);
    }

    /// The addresses a listener is bound to, with the ports the kernel chose.
    pub fn listener_addresses(&self, listener: &str) -> Vec<std::net::SocketAddr> {
        let manager = self.core.lock();
        manager
            .dataplane()
            .map(|dataplane| dataplane.local_addresses(listener))
            .unwrap_or_default()
    }

    /// One counter or gauge by its full name.
    pub fn stat(&self, name: &str) -> Option<i64> {
        self.core.registry.value(name)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Between attempts at a stream whose service does not say otherwise.
const RETRY_BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

impl GrpcTarget {
    /// The stream of a source of its own; `None`: its cluster is not among the static ones, which was refused before.
    fn of(source: &GrpcSource, clusters: &[Arc<Cluster>]) -> Option<Self> {
        let cluster = clusters
            .iter()
            .find(|cluster| cluster.name == source.cluster_name)?;
        let keepalive = cluster.http.http2.connection_keepalive.as_ref();
        let authority = if source.authority.is_empty() {
            &source.cluster_name
        } else {
            &source.authority
        };
        Some(Self {
            cluster: source.cluster_name.to_string(),
            delta: source.delta,
            targets: grpc_endpoints(cluster)?
                .localities
                .iter()
                .flat_map(targets)
                .collect(),
            authority: authority.to_string(),
            initial_metadata: texts(&source.initial_metadata),
            connect_timeout: cluster.connect_timeout,
            tcp_keepalive: cluster.tcp_keepalive,
            http2_keepalive: keepalive
                .and_then(|keepalive| Some((keepalive.interval?, keepalive.timeout))),
            retry_back_off: RETRY_BACK_OFF,
        })
    }
}

/// The addresses of a cluster that a discovery stream may go to.
pub(crate) fn grpc_endpoints(cluster: &Cluster) -> Option<&Arc<ClusterLoadAssignment>> {
    match &cluster.discovery {
        Discovery::Static(endpoints) => Some(endpoints),
        Discovery::StrictDns(dns) | Discovery::LogicalDns(dns) => Some(&dns.load_assignment),
        Discovery::Eds { .. } | Discovery::OriginalDst(_) => None,
    }
}

fn texts(pairs: &[(Name, Name)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

fn shown(address: &AdminAddress) -> String {
    match address {
        AdminAddress::Socket(address) => address.to_string(),
        AdminAddress::Pipe(path) => path.to_string(),
    }
}

fn targets(locality: &LocalityLbEndpoints) -> impl Iterator<Item = String> {
    locality
        .endpoints
        .iter()
        .map(|endpoint| match &endpoint.address {
            Address::Socket(address @ std::net::SocketAddr::V4(_)) => format!("ipv4:{address}"),
            Address::Socket(address @ std::net::SocketAddr::V6(_)) => format!("ipv6:{address}"),
            Address::Dns { host, port } => format!("dns:{host}:{port}"),
            Address::Pipe(path) => format!("unix:{path}"),
        })
}
