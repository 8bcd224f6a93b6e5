//! The configuration in force and on its way in: what was accepted, what is warming, what was refused.
//!
//! State of the world, as Envoy's managers keep it: a resource whose content did not change is not touched; a refused one
//! keeps its last good version; a new version waits until it is warm (a cluster for its endpoints, a listener for its
//! routes) while the old one serves; then everything that became ready is published in one snapshot.
//!
//! [`Manager`] is not thread-safe; the engine keeps it behind a lock that no worker ever takes.

mod clusters;
mod counts;
mod endpoints;
mod extensions;
mod init;
mod listeners;
mod resource;
mod routes;
mod rtds;
mod runtime;
mod secrets;
mod transports;
mod validate;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tidegate_dataplane::DataplaneHandle;
use tidegate_model::Name;
use tidegate_model::bootstrap::DynamicResources;
use tidegate_model::cluster::ConfigSource;
use tidegate_model::tls::GrpcSource;
use tidegate_snapshot::{Snapshot, SnapshotBuilder};
use tidegate_stats::defs::{cluster_manager, discovery, listener_manager};
use tidegate_stats::{Group, Registry};
use tidegate_xds::{Loaded, Warning, type_url};

pub(crate) use clusters::{ClusterEntry, Clusters, DnsJob, DnsOutcome};
pub(crate) use endpoints::Endpoints;
pub(crate) use extensions::Extensions;
pub(crate) use init::{Init, ServerState, State};
pub(crate) use listeners::{ListenerEntry, Listeners};
pub(crate) use resource::{Failure, Resource};
pub(crate) use routes::Routes;
pub(crate) use runtime::RuntimeLayers;
pub(crate) use secrets::Secrets;
pub(crate) use transports::TlsContext;

use self::counts::{count_asking, count_failure, count_rejection};
use crate::error::ConfigError;
use crate::events::{Event, Events};
use crate::server_log::{ServerLog, server_log};

/// What became of one update.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApplyResult {
    /// Now serving or warming with this update's content, unchanged ones included.
    pub accepted: Vec<String>,
    /// The part of `accepted` whose content differs from before.
    pub changed: Vec<String>,
    /// Served before and gone (CDS and LDS only).
    pub removed: Vec<String>,
    /// The last good version of each of these keeps serving.
    pub rejected: Vec<ConfigError>,
    /// All rejections in one text, as Envoy words its `error_detail`.
    pub detail: String,
}

/// So many warnings are remembered as told.
const MOST_TOLD: usize = 10_000;

/// One thing the engine wants to hear about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub type_url: &'static str,
    pub source: ConfigSourceKey,
    /// Sorted and unique; empty for the wildcard subscriptions.
    pub names: Arc<Vec<String>>,
    /// `None`: wait for ever.
    pub initial_fetch_timeout: Option<Duration>,
}

/// Where updates come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ConfigSourceKey {
    Ads,
    Path(Name),
    /// A stream of its own, of the type's own service.
    Grpc(Arc<GrpcSource>),
}

impl ConfigSourceKey {
    /// The word by which updates say where they came from.
    pub fn origin(&self) -> String {
        match self {
            Self::Ads => String::new(),
            Self::Path(path) => path.to_string(),
            Self::Grpc(source) => format!("grpc:{}", source.cluster_name),
        }
    }
}

impl From<&ConfigSource> for ConfigSourceKey {
    fn from(source: &ConfigSource) -> Self {
        match source {
            ConfigSource::Ads => Self::Ads,
            ConfigSource::Path(path) => Self::Path(Name::clone(path)),
        }
    }
}

/// What an incremental response has besides its resources.
#[derive(Debug, Clone, Copy)]
pub struct Delta<'a> {
    /// Name and version of each resource.
    pub versions: &'a [(String, String)],
    pub removed: &'a [String],
}

/// One response, as it is applied.
pub(crate) struct Update<'a> {
    version: Name,
    resources: &'a [(String, Vec<u8>)],
    /// Of an incremental response: what is gone. `None`: the whole state, in which what is absent is gone.
    removed: Option<BTreeSet<&'a str>>,
    /// Of an incremental response: the version of each resource, if it has one.
    versions: HashMap<&'a str, Name>,
    /// Names that are given more than once.
    duplicates: BTreeSet<&'a str>,
    present: BTreeSet<&'a str>,
    started: SystemTime,
}

impl<'a> Update<'a> {
    fn new(
        version: &str,
        resources: &'a [(String, Vec<u8>)],
        delta: Option<&'a Delta<'a>>,
    ) -> Self {
        let mut present = BTreeSet::new();
        let names = resources.iter().map(|(name, _)| name.as_str());
        let mut duplicates: BTreeSet<&str> = names.filter(|name| !present.insert(*name)).collect();
        let removed: Option<BTreeSet<&str>> =
            delta.map(|delta| delta.removed.iter().map(String::as_str).collect());
        if let Some(removed) = &removed {
            duplicates.extend(removed.intersection(&present));
        }
        Self {
            version: Name::from(version),
            resources,
            removed,
            versions: delta
                .into_iter()
                .flat_map(|delta| delta.versions)
                .map(|(name, version)| (name.as_str(), Name::from(version.as_str())))
                .collect(),
            duplicates,
            present,
            started: SystemTime::now(),
        }
    }

    /// What a resource says of its version.
    fn version_of(&self, name: &str) -> Name {
        match &self.removed {
            None => Name::clone(&self.version),
            Some(_) => self.versions.get(name).cloned().unwrap_or_default(),
        }
    }

    /// Whether a cluster or listener that was there before is not any more.
    fn removes(&self, name: &str) -> bool {
        match &self.removed {
            Some(removed) => removed.contains(name) && !self.present.contains(name),
            // Bytes without a readable name may have been any of ours: nothing counts as absent.
            None => !self.present.contains(name) && !self.present.contains(""),
        }
    }
}

/// Why there is no answer to a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateFailure {
    /// The stream failed; counted only.
    Connection,
    /// `initial_fetch_timeout` went by: warming goes on without these.
    FetchTimeout,
}

/// The manager's groups in the registry.
struct Stats {
    clusters: Group<cluster_manager::ClusterManager>,
    listeners: Group<listener_manager::ListenerManager>,
    cds: Option<Group<discovery::Discovery>>,
    lds: Option<Group<discovery::Discovery>>,
}

/// What a manager is made with.
pub(crate) struct Context {
    pub(crate) registry: Registry,
    pub(crate) log: Arc<ServerLog>,
    pub(crate) events: Arc<Events>,
    pub(crate) state: Arc<ServerState>,
    pub(crate) drain_time: Duration,
}

/// Configuration: accepted, warming, refused.
pub(crate) struct Manager {
    pub(crate) context: Context,
    pub(crate) clusters: Clusters,
    pub(crate) endpoints: Endpoints,
    pub(crate) listeners: Listeners,
    pub(crate) routes: Routes,
    pub(crate) secrets: Secrets,
    pub(crate) extensions: Extensions,
    pub(crate) runtime: RuntimeLayers,
    pub(crate) init: Init,
    pub(crate) dynamic: DynamicResources,
    snapshot: Arc<Snapshot>,
    dataplane: Option<DataplaneHandle>,
    stats: Stats,
    /// As last told.
    subscriptions: Vec<Subscription>,
    subscriptions_stale: bool,
    /// The warnings told already, by resource and path: an update repeats what stays as it was.
    told: BTreeSet<(String, String)>,
    /// Clusters were warming when it was last told.
    clusters_wait: bool,
    dns_stale: bool,
}

/// The last of each name, with its place.
fn by_name(all: &[(Name, Bytes)]) -> HashMap<&str, (usize, &Bytes)> {
    all.iter()
        .enumerate()
        .map(|(at, (name, raw))| (&**name, (at, raw)))
        .collect()
}

impl Manager {
    /// Takes the bootstrap's static resources in, compiled, so that what cannot serve is refused here.
    pub(crate) fn new(context: Context, loaded: &Loaded) -> Result<Self, ConfigError> {
        let dynamic = loaded.bootstrap.dynamic.clone();
        let registry = &context.registry;
        let stats = Stats {
            clusters: registry.group("cluster_manager."),
            listeners: registry.group("listener_manager."),
            cds: dynamic
                .cds
                .is_some()
                .then(|| registry.group("cluster_manager.cds.")),
            lds: dynamic
                .lds
                .is_some()
                .then(|| registry.group("listener_manager.lds.")),
        };
        let runtime = RuntimeLayers::new(&loaded.bootstrap, registry);
        let mut manager = Self {
            clusters: Clusters::default(),
            endpoints: Endpoints::default(),
            listeners: Listeners::default(),
            routes: Routes::default(),
            secrets: Secrets::default(),
            extensions: Extensions::default(),
            runtime,
            init: Init::new(&dynamic),
            dynamic,
            snapshot: Arc::new(Snapshot::default()),
            dataplane: None,
            stats,
            subscriptions: Vec::new(),
            subscriptions_stale: true,
            told: BTreeSet::new(),
            clusters_wait: false,
            dns_stale: true,
            context,
        };
        manager.take_static(loaded)?;
        Ok(manager)
    }

    fn take_static(&mut self, loaded: &Loaded) -> Result<(), ConfigError> {
        let mut builder = SnapshotBuilder::from(&self.snapshot);
        builder.set_runtime(self.runtime.compile());
        // By name, because a listener given twice is there once: the later one.
        let (clusters, listeners) = (
            by_name(&loaded.static_clusters),
            by_name(&loaded.static_listeners),
        );
        let version = Name::default();
        let secrets = loaded.bootstrap.secrets.iter().zip(&loaded.static_secrets);
        for (secret, (name, raw)) in secrets {
            let resource = Resource::new(raw.clone(), &version);
            let known = (resource, secret.value.clone());
            self.secrets.statics.insert(Name::clone(name), known);
        }
        let raw = |all: &HashMap<&str, (usize, &Bytes)>, name: &Name| {
            let (at, raw) = all.get(&**name).copied().unzip();
            let resource = Resource::new(raw.cloned().unwrap_or_default(), &version);
            (at.unwrap_or_default(), resource)
        };
        for (at, config) in loaded.bootstrap.clusters.iter().enumerate() {
            let (_, resource) = raw(&clusters, &config.name);
            self.add_static_cluster(Arc::clone(config), resource)
                .map_err(|error| error.within(&format!("static_resources.clusters[{at}]")))?;
        }
        for config in &loaded.bootstrap.listeners {
            let (at, resource) = raw(&listeners, &config.name);
            self.add_static_listener(Arc::clone(config), resource, &builder)
                .map_err(|error| error.within(&format!("static_resources.listeners[{at}]")))?;
        }
        self.snapshot = builder.build();
        Ok(())
    }

    /// Connects the workers: addresses of static listeners are bound, and what is warm is published.
    pub(crate) fn start(&mut self, mut dataplane: DataplaneHandle) -> Result<(), ConfigError> {
        for (name, entry) in &self.listeners.warming {
            if entry.is_static {
                dataplane.bind(&entry.config).map_err(|error| {
                    ConfigError::new(name, "", format!("error adding listener: {error}"))
                })?;
            }
        }
        self.dataplane = Some(dataplane);
        self.count_runtime_asking();
        self.count_asking(self.dynamic.cds.as_ref(), self.stats.cds.as_ref());
        let builder = self.begin();
        self.commit(builder);
        Ok(())
    }

    /// Stops the workers.
    pub(crate) fn stop(&mut self) {
        if let Some(mut dataplane) = self.dataplane.take() {
            dataplane.shutdown();
        }
    }

    pub(crate) fn dataplane(&self) -> Option<&DataplaneHandle> {
        self.dataplane.as_ref()
    }

    pub(crate) fn dataplane_mut(&mut self) -> Option<&mut DataplaneHandle> {
        self.dataplane.as_mut()
    }

    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// All that is wanted now, in the order in which it should be asked for.
    pub(crate) fn subscriptions(&mut self) -> Vec<Subscription> {
        self.refresh_subscriptions();
        self.subscriptions.clone()
    }

    /// Decodes, compiles and publishes one response; `delta`: it is an incremental one.
    pub(crate) fn apply(
        &mut self,
        type_url: &str,
        version: &str,
        resources: &[(String, Vec<u8>)],
        delta: Option<&Delta<'_>>,
        origin: &str,
    ) -> ApplyResult {
        let update = &Update::new(version, resources, delta);
        match type_url {
            type_url::CLUSTER => self.apply_clusters(update),
            type_url::LISTENER => self.apply_listeners(update),
            type_url::CLUSTER_LOAD_ASSIGNMENT => self.apply_endpoints(update),
            type_url::ROUTE_CONFIGURATION => self.apply_routes(update),
            type_url::SECRET => self.apply_secrets(update, origin),
            type_url::TYPED_EXTENSION_CONFIG => self.apply_extensions(update),
            type_url::RUNTIME => self.apply_runtime(update, origin),
            other => {
                let error = ConfigError::new("", "", format!("unknown type URL {other}"));
                ApplyResult {
                    detail: error.to_string(),
                    rejected: vec![error],
                    ..ApplyResult::default()
                }
            }
        }
    }

    /// No answer to a subscription.
    pub(crate) fn update_failed(
        &mut self,
        type_url: &str,
        names: &[String],
        why: UpdateFailure,
        origin: &str,
    ) {
        let given_up = why == UpdateFailure::FetchTimeout;
        match type_url {
            type_url::CLUSTER => {
                if let Some(cds) = &self.stats.cds {
                    count_failure(cds, given_up);
                }
                if given_up {
                    self.init.cds_answered();
                }
            }
            type_url::LISTENER => {
                if let Some(lds) = &self.stats.lds {
                    count_failure(lds, given_up);
                }
                if given_up {
                    self.init.lds_answered();
                }
            }
            type_url::CLUSTER_LOAD_ASSIGNMENT => self.endpoints_failed(names, given_up),
            type_url::ROUTE_CONFIGURATION => self.routes_failed(names, given_up),
            type_url::SECRET => self.secrets_failed(names, given_up, origin),
            type_url::TYPED_EXTENSION_CONFIG => self.extensions_failed(names, given_up),
            type_url::RUNTIME => self.runtime_failed(names, given_up, origin),
            _ => return,
        }
        let builder = self.begin();
        self.commit(builder);
    }

    /// An update that could not even be read.
    pub(crate) fn update_rejected(&mut self, type_url: &str, reason: &str, origin: &str) {
        match type_url {
            type_url::SECRET => return self.secrets_rejected(reason, origin),
            type_url::RUNTIME => {
                let stats = self.runtime.updates.as_ref();
                stats.into_iter().for_each(count_rejection);
                return self.runtime_rejected(origin);
            }
            _ => {}
        }
        let group = match type_url {
            type_url::CLUSTER => &self.stats.cds,
            type_url::LISTENER => &self.stats.lds,
            _ => &None,
        };
        group.iter().for_each(count_rejection);
        let failure = Failure::new(reason, None, "");
        match type_url {
            type_url::CLUSTER => self.clusters.fail(Name::from(""), failure),
            type_url::LISTENER => self.listeners.fail(Name::from(""), failure),
            type_url::ROUTE_CONFIGURATION => self.routes.fail(Name::from(""), failure),
            // Envoy's dump of endpoints is made of hosts and shows no failures.
            _ => {}
        }
    }

    /// Runtime values from the admin page.
    pub(crate) fn modify_runtime(&mut self, changes: &[(String, String)]) {
        self.runtime.modify(changes);
        let mut builder = self.begin();
        builder.set_runtime(self.runtime.compile());
        self.commit(builder);
    }

    /// What DNS said, for any number of names.
    pub(crate) fn resolved(&mut self, outcomes: Vec<DnsOutcome>) {
        let mut builder = self.begin();
        for outcome in outcomes {
            self.take_resolved(&mut builder, outcome);
        }
        self.commit(builder);
    }

    /// The names to be resolved, if they may have changed since the last call.
    pub(crate) fn dns_jobs(&mut self) -> Option<Vec<DnsJob>> {
        std::mem::take(&mut self.dns_stale).then(|| self.clusters.dns_jobs())
    }

    /// Where updates come by a stream, the asking is an attempt.
    fn count_asking(
        &self,
        source: Option<&ConfigSource>,
        stats: Option<&Group<discovery::Discovery>>,
    ) {
        if let (Some(ConfigSource::Ads), Some(stats)) = (source, stats) {
            count_asking(stats);
        }
    }

    /// Each once.
    fn tell_warnings(&mut self, warnings: Vec<Warning>) {
        for warning in warnings {
            let line = format!("{}: {warning}", warning.resource);
            // Names come and go: beyond this many it may be told again.
            if self.told.len() >= MOST_TOLD {
                self.told.clear();
            }
            if self.told.insert((warning.resource, warning.field_path)) {
                server_log!(self.context.log, Warning, "config", "{line}");
            }
        }
    }

    /// All rejections in one text, for the server and for the log; `who`: `eds` and the like.
    fn tell_rejections(&self, result: &mut ApplyResult, who: &str) {
        let reasons: Vec<String> = result.rejected.iter().map(ToString::to_string).collect();
        result.detail = reasons.join(", ");
        server_log!(
            self.context.log,
            Warning,
            "config",
            "{who}: {}",
            result.detail
        );
    }

    fn begin(&self) -> SnapshotBuilder {
        SnapshotBuilder::from(&self.snapshot)
    }

    /// Lets in what became warm, publishes, and tells who has to know.
    fn commit(&mut self, mut builder: SnapshotBuilder) {
        let initialized_before = self.init.is_done();
        let mut new_slots = false;
        loop {
            if self.subscriptions_stale || self.something_waits_for_secrets() {
                self.follow_references();
                self.follow_extensions();
            }
            let activated = self.activate_clusters(&mut builder);
            let progressed = self.advance_init();
            let started = self.activate_listeners(&mut builder);
            if !activated && !progressed && !started {
                break;
            }
            new_slots |= activated || started;
        }
        self.drop_unreferenced(&mut builder);
        if builder.is_changed() || self.snapshot.generation() == 0 {
            self.snapshot = builder.build();
        }
        if new_slots {
            self.fill_slots();
        }
        if let Some(dataplane) = &mut self.dataplane {
            for error in dataplane.publish(Arc::clone(&self.snapshot)) {
                self.stats
                    .listeners
                    .shared()
                    .inc(listener_manager::LISTENER_CREATE_FAILURE);
                let failure = Failure::new(&error.to_string(), None, "");
                self.listeners.fail(error.listener, failure);
            }
        }
        self.count();
        if self.init.is_done() && !initialized_before {
            self.context.events.raise(Event::Initialized);
        }
        let waits = self.clusters_are_warming();
        let waited = std::mem::replace(&mut self.clusters_wait, waits);
        let subscriptions_changed = self.refresh_subscriptions();
        let directories_changed = std::mem::take(&mut self.secrets.directories_changed);
        if subscriptions_changed || directories_changed || waited != waits {
            self.context.events.raise(Event::Subscriptions);
        }
    }

    /// The types about which nothing is to be said now. An update of clusters is acknowledged when they are warm, so that the
    /// server can tell when to send what refers to them.
    pub(crate) fn paused(&self) -> Vec<&'static str> {
        if self.clusters_are_warming() {
            vec![type_url::CLUSTER]
        } else {
            Vec::new()
        }
    }

    fn clusters_are_warming(&self) -> bool {
        self.init.listeners_may_be_asked_for() && !self.clusters.warming.is_empty()
    }

    /// True when the list differs from what was told last.
    fn refresh_subscriptions(&mut self) -> bool {
        if !std::mem::take(&mut self.subscriptions_stale) {
            return false;
        }
        let mut wanted: Vec<Subscription> = self.runtime_subscriptions().collect();
        if !self.runtime_is_settled() {
            let changed = wanted != self.subscriptions;
            self.subscriptions = wanted;
            return changed;
        }
        if let Some(source) = &self.dynamic.cds {
            wanted.push(Subscription {
                type_url: type_url::CLUSTER,
                source: source.into(),
                names: Arc::default(),
                initial_fetch_timeout: self.dynamic.cds_initial_fetch_timeout,
            });
        }
        wanted.extend(self.clusters.subscriptions());
        if self.init.listeners_may_be_asked_for() {
            if let Some(source) = &self.dynamic.lds {
                wanted.push(Subscription {
                    type_url: type_url::LISTENER,
                    source: source.into(),
                    names: Arc::default(),
                    initial_fetch_timeout: self.dynamic.lds_initial_fetch_timeout,
                });
            }
            wanted.extend(self.extensions.subscriptions());
            wanted.extend(self.listeners.subscriptions());
        }
        wanted.extend(self.secrets.subscriptions());
        let changed = wanted != self.subscriptions;
        self.subscriptions = wanted;
        changed
    }

    /// Whether what secrets are wanted may change without a change of what is configured.
    fn something_waits_for_secrets(&self) -> bool {
        let mut clusters = self.clusters.warming.values();
        let mut listeners = self.listeners.warming.values();
        clusters.any(|entry| !entry.secrets.is_empty())
            || listeners.any(|entry| !entry.secrets.is_empty())
    }

    /// Endpoints and routes that nothing refers to any more.
    fn drop_unreferenced(&mut self, builder: &mut SnapshotBuilder) {
        if !self.subscriptions_stale {
            return;
        }
        if let Some(wanted) = self.clusters.changed_service_names() {
            self.endpoints.retain(&wanted);
        }
        for gone in self.routes.retain(&self.listeners.route_names()) {
            builder.remove_route_configuration(&gone);
        }
    }

    fn count(&self) {
        let clusters = self.stats.clusters.shared();
        clusters.gauge_set(
            cluster_manager::ACTIVE_CLUSTERS,
            self.clusters.active.len() as i64,
        );
        clusters.gauge_set(
            cluster_manager::WARMING_CLUSTERS,
            self.clusters.warming.len() as i64,
        );
        let listeners = self.stats.listeners.shared();
        listeners.gauge_set(
            listener_manager::TOTAL_LISTENERS_ACTIVE,
            self.listeners.active.len() as i64,
        );
        listeners.gauge_set(
            listener_manager::TOTAL_LISTENERS_WARMING,
            self.listeners.warming.len() as i64,
        );
        listeners.gauge_set(
            listener_manager::WORKERS_STARTED,
            i64::from(self.dataplane.is_some() && self.init.is_done()),
        );
    }
}
