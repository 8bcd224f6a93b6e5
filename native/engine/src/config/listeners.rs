//! Listeners: LDS, and waiting for routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_model::Name;
use tidegate_model::hcm::{HttpConnectionManager, RouteSource};
use tidegate_model::listener::{FilterChain, Listener, NetworkFilter};
use tidegate_model::tls::SecretRef;
use tidegate_snapshot::SnapshotBuilder;
use tidegate_stats::defs::{listener_manager as stat, ssl};
use tidegate_stats::{Group, Registry};
use tidegate_xds::{Decoder, type_url};

use super::counts::count_update;
use super::extensions::{ExtensionRef, listener_extensions};
use super::transports::listener_secrets;
use super::validate::check_listener_clusters;
use super::{
    ApplyResult, ConfigSourceKey, Extensions, Failure, Manager, Resource, Routes, Secrets,
    Subscription, Update,
};
use crate::error::ConfigError;
use crate::server_log::server_log;

/// A listener, active or warming.
pub(crate) struct ListenerEntry {
    pub(crate) resource: Resource,
    pub(crate) config: Arc<Listener>,
    pub(crate) is_static: bool,
    /// The route configurations it refers to by name.
    routes: BTreeSet<Name>,
    pub(super) secrets: Vec<SecretRef>,
    pub(super) extensions: Vec<ExtensionRef>,
    /// `listener.ADDRESS.server_ssl_socket_factory.`, where any of its chains has TLS with secrets.
    pub(super) tls: Option<Group<ssl::SslSocketFactory>>,
}

impl ListenerEntry {
    fn new(
        config: Arc<Listener>,
        resource: Resource,
        is_static: bool,
        registry: &Registry,
    ) -> Self {
        let secrets = listener_secrets(&config);
        let prefix = format!("listener.{}.server_ssl_socket_factory.", config.stat_prefix);
        Self {
            tls: (!secrets.is_empty()).then(|| registry.group(&prefix)),
            secrets,
            extensions: listener_extensions(&config),
            routes: connection_managers(&config)
                .filter_map(|hcm| match &hcm.routes {
                    RouteSource::Rds(name) => Some(Name::clone(name)),
                    RouteSource::Inline(_) => None,
                })
                .collect(),
            resource,
            config,
            is_static,
        }
    }
}

impl ListenerEntry {
    /// Whether nothing is waited for any more.
    fn is_warm(&self, routes: &Routes, secrets: &Secrets, extensions: &Extensions) -> bool {
        routes.are_settled(&self.routes)
            && secrets.are_settled(&self.secrets)
            && extensions.are_settled(&self.extensions)
    }
}

/// With the default chain.
pub(super) fn filter_chains(listener: &Listener) -> impl Iterator<Item = &FilterChain> {
    listener
        .filter_chains
        .iter()
        .chain(&listener.default_filter_chain)
}

pub(super) fn connection_managers(
    listener: &Listener,
) -> impl Iterator<Item = &Arc<HttpConnectionManager>> {
    filter_chains(listener).filter_map(|chain| match &chain.filter {
        NetworkFilter::HttpConnectionManager(hcm) => Some(hcm),
        NetworkFilter::TcpProxy(_) => None,
    })
}

fn addresses(listener: &Listener) -> impl Iterator<Item = SocketAddr> {
    std::iter::once(listener.address).chain(listener.additional_addresses.iter().copied())
}

/// All listeners.
#[derive(Default)]
pub(crate) struct Listeners {
    pub(crate) active: BTreeMap<Name, ListenerEntry>,
    /// New ones, and new versions of active ones.
    pub(crate) warming: BTreeMap<Name, ListenerEntry>,
    /// Route configurations that only connections of former versions still use, and until when they may.
    draining: BTreeMap<Name, Instant>,
    /// Likewise, secrets.
    pub(super) draining_secrets: Vec<(SecretRef, Instant)>,
    /// Likewise, what ECDS delivers.
    pub(super) draining_extensions: Vec<(ExtensionRef, Instant)>,
    pub(crate) failures: BTreeMap<Name, Failure>,
    /// Of the last accepted update.
    pub(crate) version: String,
}

impl Listeners {
    pub(super) fn all(&self) -> impl Iterator<Item = &ListenerEntry> {
        self.active.values().chain(self.warming.values())
    }

    pub(crate) fn fail(&mut self, name: Name, failure: Failure) {
        self.failures.insert(name, failure);
    }

    pub(super) fn route_names(&self) -> BTreeSet<Name> {
        self.all()
            .flat_map(|entry| &entry.routes)
            .chain(self.draining.keys())
            .map(Name::clone)
            .collect()
    }

    pub(super) fn drains(&self, routes: &str) -> bool {
        self.draining.contains_key(routes)
    }

    pub(super) fn are_warm(
        &self,
        routes: &Routes,
        secrets: &Secrets,
        extensions: &Extensions,
    ) -> bool {
        let mut entries = self.warming.values();
        entries.all(|entry| entry.is_warm(routes, secrets, extensions))
    }

    /// RDS.
    pub(super) fn subscriptions(&self) -> Vec<Subscription> {
        let names: Vec<String> = self.route_names().iter().map(ToString::to_string).collect();
        if names.is_empty() {
            return Vec::new();
        }
        vec![Subscription {
            type_url: type_url::ROUTE_CONFIGURATION,
            source: ConfigSourceKey::Ads,
            names: Arc::new(names),
            initial_fetch_timeout: Some(Duration::from_secs(15)),
        }]
    }

    /// Another listener that has one of this one's addresses.
    fn with_same_address(&self, config: &Listener) -> Option<(&Name, SocketAddr)> {
        self.all()
            .filter(|entry| entry.config.name != config.name)
            .find_map(|entry| {
                let taken: Vec<SocketAddr> = addresses(&entry.config).collect();
                let same = addresses(config)
                    .find(|address| address.port() != 0 && taken.contains(address))?;
                Some((&entry.config.name, same))
            })
    }
}

impl Manager {
    pub(super) fn add_static_listener(
        &mut self,
        config: Arc<Listener>,
        resource: Resource,
        builder: &SnapshotBuilder,
    ) -> Result<(), ConfigError> {
        self.check_listener(&config, builder)?;
        let entry = ListenerEntry::new(config, resource, true, &self.context.registry);
        self.listeners_changed();
        self.listeners
            .warming
            .insert(Name::clone(&entry.config.name), entry);
        Ok(())
    }

    /// Everything that is wrong with a listener by itself or beside its neighbours.
    fn check_listener(
        &self,
        config: &Arc<Listener>,
        builder: &SnapshotBuilder,
    ) -> Result<(), ConfigError> {
        if let Some((other, address)) = self.listeners.with_same_address(config) {
            return Err(ConfigError::new(
                &config.name,
                "address",
                format!(
                    "error adding listener: '{}' has duplicate address '{address}' as existing listener '{other}'",
                    config.name
                ),
            ));
        }
        self.check_secrets(&listener_secrets(config))
            .map_err(|reason| ConfigError::new(&config.name, "filter_chains", reason))?;
        check_listener_clusters(config, &|name| self.clusters.contains(name))
            .map_err(|(path, reason)| ConfigError::new(&config.name, path, reason))?;
        // Compiled on the side: a listener that has to wait for its routes must be refused now if it cannot serve then.
        SnapshotBuilder::from(builder.peek())
            .set_listener(self.resolved_listener(config))
            .map_err(|error| ConfigError::compile(&config.name, error))?;
        Ok(())
    }

    pub(super) fn apply_listeners(&mut self, update: &Update<'_>) -> ApplyResult {
        let version = &update.version;
        let mut result = ApplyResult::default();
        let mut builder = self.begin();
        let decoder = Decoder::new();
        // First, so that an address is free for its new owner.
        self.remove_listeners(&mut builder, update, &mut result);
        for (name, raw) in update.resources {
            let outcome = if update.duplicates.contains(name.as_str()) {
                Err(ConfigError::new(
                    name,
                    "",
                    format!("duplicate listener {name} found"),
                ))
            } else {
                self.take_listener(&decoder, &builder, &update.version_of(name), name, raw)
            };
            match outcome {
                Ok(changed) => {
                    self.listeners.failures.remove(name.as_str());
                    result.accepted.push(name.clone());
                    if changed {
                        result.changed.push(name.clone());
                    }
                }
                Err(error) => {
                    self.stats
                        .listeners
                        .shared()
                        .inc(stat::LISTENER_CREATE_FAILURE);
                    let failure = Failure::new(&error.to_string(), Some(raw), version);
                    self.listeners.fail(Name::from(name.as_str()), failure);
                    result.rejected.push(error);
                }
            }
        }
        self.tell_warnings(decoder.take_warnings());
        if result.rejected.is_empty() {
            (**version).clone_into(&mut self.listeners.version);
            self.listeners.failures.remove("");
        } else {
            let reasons: Vec<String> = result
                .rejected
                .iter()
                .map(|error| format!("{error}\n"))
                .collect();
            result.detail = format!("Error adding/updating listener(s) {}", reasons.concat());
            server_log!(
                self.context.log,
                Warning,
                "config",
                "lds: {}",
                result.detail.trim_end()
            );
        }
        if let Some(lds) = &self.stats.lds {
            count_update(lds, update, !result.rejected.is_empty());
        }
        self.init.lds_answered();
        self.commit(builder);
        result
    }

    /// True when something changed.
    fn take_listener(
        &mut self,
        decoder: &Decoder,
        builder: &SnapshotBuilder,
        version: &Name,
        name: &str,
        raw: &[u8],
    ) -> Result<bool, ConfigError> {
        if name.is_empty() {
            return Err(ConfigError::new(
                "",
                "name",
                "listener without a name, or of another type",
            ));
        }
        if let Some(entry) = self
            .listeners
            .warming
            .get(name)
            .or_else(|| self.listeners.active.get(name))
        {
            if entry.is_static {
                server_log!(
                    self.context.log,
                    Debug,
                    "config",
                    "lds: listener '{name}' is static, not replaced"
                );
                return Ok(false);
            }
            if *entry.resource.raw == *raw {
                return Ok(false);
            }
        }
        let config = Arc::new(decoder.listener(raw)?);
        let resource = Resource::new(Bytes::copy_from_slice(raw), version);
        if let Some(active) = self.listeners.active.get_mut(name)
            && *active.config == *config
        {
            active.resource = resource;
            self.listeners.warming.remove(name);
            self.listeners_changed();
            self.subscriptions_stale = true;
            return Ok(true);
        }
        self.check_listener(&config, builder)?;
        self.count_conflicts(&config);
        if let Some(dataplane) = &mut self.dataplane {
            dataplane
                .bind(&config)
                .map_err(|error| ConfigError::new(name, "address", error.to_string()))?;
        }
        let stats = self.stats.listeners.shared();
        if let Some(active) = self.listeners.active.get(name)
            && active.config.may_become_in_place(&config)
        {
            stats.inc(stat::LISTENER_IN_PLACE_UPDATED);
        }
        stats.inc(if self.listeners.active.contains_key(name) {
            stat::LISTENER_MODIFIED
        } else {
            stat::LISTENER_ADDED
        });
        self.listeners.warming.insert(
            Name::from(name),
            ListenerEntry::new(config, resource, false, &self.context.registry),
        );
        self.listeners_changed();
        self.subscriptions_stale = true;
        Ok(true)
    }

    fn remove_listeners(
        &mut self,
        builder: &mut SnapshotBuilder,
        update: &Update<'_>,
        result: &mut ApplyResult,
    ) {
        let gone = |listeners: &BTreeMap<Name, ListenerEntry>| -> Vec<Name> {
            listeners
                .iter()
                .filter(|(name, entry)| !entry.is_static && update.removes(name))
                .map(|(name, _)| Name::clone(name))
                .collect()
        };
        let mut removed: BTreeSet<Name> = BTreeSet::new();
        for name in gone(&self.listeners.warming) {
            self.listeners.warming.remove(&name);
            removed.insert(name);
        }
        for name in gone(&self.listeners.active) {
            if let Some(entry) = self.listeners.active.remove(&name) {
                self.drain_routes(entry);
            }
            builder.remove_listener(&name);
            removed.insert(name);
        }
        if !removed.is_empty() {
            self.listeners_changed();
            self.subscriptions_stale = true;
            self.stats
                .listeners
                .shared()
                .add(stat::LISTENER_REMOVED, removed.len() as u64);
            result
                .removed
                .extend(removed.iter().map(ToString::to_string));
        }
        self.listeners
            .failures
            .retain(|name, _| !update.removes(name));
    }

    /// True when a listener became active. Before the process is initialised none does.
    pub(super) fn activate_listeners(&mut self, builder: &mut SnapshotBuilder) -> bool {
        if !self.init.is_done() {
            return false;
        }
        let ready: Vec<Name> = self
            .listeners
            .warming
            .iter()
            .filter(|(_, entry)| entry.is_warm(&self.routes, &self.secrets, &self.extensions))
            .map(|(name, _)| Name::clone(name))
            .collect();
        for name in &ready {
            let Some(entry) = self.listeners.warming.remove(name) else {
                continue;
            };
            self.listeners_changed();
            let stats = self.stats.listeners.shared();
            if let Err(error) = builder.set_listener(self.resolved_listener(&entry.config)) {
                // It compiled when it was accepted, so this is not expected; the old version stays.
                let error = ConfigError::compile(name, error);
                stats.inc(stat::LISTENER_CREATE_FAILURE);
                let failure = Failure::new(
                    &error.to_string(),
                    Some(&entry.resource.raw),
                    &entry.resource.version,
                );
                self.listeners.fail(Name::clone(name), failure);
                continue;
            }
            if entry.is_static {
                stats.inc(stat::LISTENER_ADDED);
            }
            // Envoy counts each worker that has it.
            stats.add(
                stat::LISTENER_CREATE_SUCCESS,
                self.context.registry.workers() as u64,
            );
            if let Some(former) = self.listeners.active.insert(Name::clone(name), entry) {
                self.drain_routes(former);
            }
        }
        !ready.is_empty()
    }

    /// Connections of a former version go on until they are drained, and so do its routes.
    fn drain_routes(&mut self, former: ListenerEntry) {
        let until = Instant::now() + self.context.drain_time;
        let routes = former.routes.into_iter().map(|routes| (routes, until));
        self.listeners.draining.extend(routes);
        let draining = &mut self.listeners.draining_secrets;
        draining.retain(|(secret, _)| !former.secrets.contains(secret));
        draining.extend(former.secrets.into_iter().map(|secret| (secret, until)));
        let draining = &mut self.listeners.draining_extensions;
        draining.retain(|(extension, _)| !former.extensions.contains(extension));
        let extensions = former.extensions.into_iter();
        draining.extend(extensions.map(|extension| (extension, until)));
    }

    /// What each warming listener still waits for, in Envoy's words.
    pub(crate) fn unready_targets(&self) -> Vec<(String, Vec<String>)> {
        let warming = self.listeners.warming.iter();
        let all = warming.map(|(name, entry)| {
            let hash = xxhash_rust::xxh64::xxh64(&entry.resource.raw, 0);
            let routes = self.routes.unsettled(&entry.routes);
            let mut targets: Vec<String> = routes
                .map(|name| format!("shared target RdsRouteConfigSubscription RDS init {name}"))
                .collect();
            let secrets = self.secrets.unsettled(&entry.secrets);
            targets.extend(secrets.map(|secret| format!("shared target SdsApi {}", secret.name)));
            let extensions = self.extensions.unsettled(&entry.extensions);
            targets.extend(extensions.map(|extension| {
                format!(
                    "shared target FilterConfigSubscription init {}",
                    extension.name
                )
            }));
            let manager = format!("init manager Listener-local-init-manager {name} {hash}");
            (manager, targets)
        });
        all.filter(|(_, targets)| !targets.is_empty()).collect()
    }

    /// Lets go of what was only there for connections whose time is over.
    pub(crate) fn forget_drained(&mut self) {
        let now = Instant::now();
        let listeners = &mut self.listeners;
        let count = |listeners: &Listeners| {
            listeners.draining.len()
                + listeners.draining_secrets.len()
                + listeners.draining_extensions.len()
        };
        let before = count(listeners);
        listeners.draining.retain(|_, until| *until > now);
        listeners.draining_secrets.retain(|(_, until)| *until > now);
        listeners
            .draining_extensions
            .retain(|(_, until)| *until > now);
        if count(listeners) != before {
            self.listeners_changed();
            self.subscriptions_stale = true;
            let builder = self.begin();
            self.commit(builder);
        }
    }
}
