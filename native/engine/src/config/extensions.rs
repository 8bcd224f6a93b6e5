//! Extension configurations: ECDS for HTTP filters.
//!
//! A filter with `config_discovery` names its resource; listeners are kept as they were given and compiled with what has
//! come for their filters. A new version is put in place of the former one: the filter chains are compiled again, all else
//! in them stays, connections go on and only their next requests see it. What one of the listeners cannot use is refused
//! for all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_model::Name;
use tidegate_model::hcm::{ConfigDiscovery, HttpConnectionManager, HttpFilter, HttpFilterKind};
use tidegate_model::listener::{FilterChain, Listener, NetworkFilter};
use tidegate_snapshot::SnapshotBuilder;
use tidegate_stats::Group;
use tidegate_stats::defs::discovery::Discovery;
use tidegate_stats::defs::extension_config as stat;
use tidegate_xds::{Decoder, ExtensionConfig, check_extension_type, check_terminal, type_url};

use super::counts::{count_asking, count_failure, count_rejection, count_update};
use super::listeners::connection_managers;
use super::{ApplyResult, ConfigSourceKey, Manager, Resource, Subscription, Update};
use crate::error::ConfigError;

/// What a filter of a listener refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExtensionRef {
    pub(super) name: Name,
    initial_fetch_timeout: Option<Duration>,
    /// Whether the listener waits for it.
    warms: bool,
}

/// A configuration that some filter refers to.
pub(crate) struct ExtensionEntry {
    /// The last good version.
    pub(crate) known: Option<(Resource, ExtensionConfig)>,
    /// Whether nobody waits for it (any more).
    settled: bool,
    initial_fetch_timeout: Option<Duration>,
    updates: Group<Discovery>,
    stats: Group<stat::ExtensionConfig>,
}

/// All of them, by name: they come by ADS.
#[derive(Default)]
pub(crate) struct Extensions {
    pub(crate) wanted: BTreeMap<Name, ExtensionEntry>,
    /// Some filter has referred to one.
    pub(crate) used: bool,
}

/// A filter that refers to one.
struct Place<'a> {
    index: usize,
    filter: &'a HttpFilter,
    discovery: &'a ConfigDiscovery,
    is_last: bool,
}

impl Place<'_> {
    /// Why a configuration will not do here.
    fn check(&self, config: &ExtensionConfig) -> Result<(), String> {
        check_extension_type(&config.type_name, &self.discovery.type_urls)?;
        check_terminal(&self.filter.name, &config.kind, self.is_last)
    }
}

fn places(manager: &HttpConnectionManager) -> impl Iterator<Item = Place<'_>> {
    let count = manager.http_filters.len();
    let filters = manager.http_filters.iter().enumerate();
    filters.filter_map(move |(index, filter)| {
        Some(Place {
            index,
            filter,
            discovery: filter.discovery.as_deref()?,
            is_last: index + 1 == count,
        })
    })
}

/// What a listener refers to, each once.
pub(super) fn listener_extensions(listener: &Listener) -> Vec<ExtensionRef> {
    let mut found: BTreeMap<Name, ExtensionRef> = BTreeMap::new();
    for Place {
        filter, discovery, ..
    } in connection_managers(listener).flat_map(|hcm| places(hcm))
    {
        let warms = !discovery.apply_default_config_without_warming;
        found
            .entry(Name::clone(&filter.name))
            .and_modify(|known| known.warms |= warms)
            .or_insert_with(|| ExtensionRef {
                name: Name::clone(&filter.name),
                initial_fetch_timeout: discovery.initial_fetch_timeout,
                warms,
            });
    }
    found.into_values().collect()
}

impl Extensions {
    pub(super) fn are_settled(&self, extensions: &[ExtensionRef]) -> bool {
        self.unsettled(extensions).next().is_none()
    }

    /// Those that are still waited for.
    pub(super) fn unsettled<'a>(
        &'a self,
        extensions: &'a [ExtensionRef],
    ) -> impl Iterator<Item = &'a ExtensionRef> {
        extensions.iter().filter(|extension| {
            let entry = self.wanted.get(&extension.name);
            extension.warms && !entry.is_some_and(|entry| entry.settled)
        })
    }

    /// One for those that are waited for equally long.
    pub(super) fn subscriptions(&self) -> impl Iterator<Item = Subscription> {
        let mut by_patience: BTreeMap<Option<Duration>, Vec<String>> = BTreeMap::new();
        for (name, entry) in &self.wanted {
            let names = by_patience.entry(entry.initial_fetch_timeout).or_default();
            names.push(name.to_string());
        }
        by_patience
            .into_iter()
            .map(|(patience, names)| Subscription {
                type_url: type_url::TYPED_EXTENSION_CONFIG,
                source: ConfigSourceKey::Ads,
                names: Arc::new(names),
                initial_fetch_timeout: patience,
            })
    }

    fn known(&self, name: &str) -> Option<&ExtensionConfig> {
        let (_, config) = self.wanted.get(name)?.known.as_ref()?;
        Some(config)
    }

    /// A listener with what has come for its filters, or their defaults; `conflict` hears of what is known and will not do.
    fn resolve(&self, listener: &Arc<Listener>, conflict: &dyn Fn(&str)) -> Arc<Listener> {
        if listener_extensions(listener).is_empty() {
            return Arc::clone(listener);
        }
        let mut resolved = Listener::clone(listener);
        let chains = resolved.filter_chains.iter_mut();
        for chain in chains.chain(&mut resolved.default_filter_chain) {
            self.resolve_chain(chain, conflict);
        }
        Arc::new(resolved)
    }

    fn resolve_chain(&self, chain: &mut FilterChain, conflict: &dyn Fn(&str)) {
        let NetworkFilter::HttpConnectionManager(manager) = &mut chain.filter else {
            return;
        };
        let mut kinds: Vec<(usize, HttpFilterKind)> = Vec::new();
        for place in places(manager) {
            let Some(config) = self.known(&place.filter.name) else {
                continue;
            };
            match place.check(config) {
                Ok(()) => kinds.push((place.index, config.kind.clone())),
                Err(_) => conflict(&place.filter.name),
            }
        }
        let filters = &mut Arc::make_mut(manager).http_filters;
        for (index, kind) in kinds {
            if let Some(filter) = filters.get_mut(index) {
                filter.kind = kind;
            }
        }
    }
}

impl Manager {
    /// The listener as it is to be compiled now.
    pub(super) fn resolved_listener(&self, listener: &Arc<Listener>) -> Arc<Listener> {
        self.extensions.resolve(listener, &|_| {})
    }

    /// What is known already and does not fit a new listener is counted.
    pub(super) fn count_conflicts(&self, listener: &Arc<Listener>) {
        self.extensions.resolve(listener, &|name| {
            if let Some(entry) = self.extensions.wanted.get(name) {
                entry.stats.shared().inc(stat::CONFIG_CONFLICT);
            }
        });
    }

    /// Follows what listeners refer to now.
    pub(super) fn follow_extensions(&mut self) {
        if !self.init.listeners_may_be_asked_for() {
            return;
        }
        let mut wanted: BTreeMap<Name, Option<Duration>> = BTreeMap::new();
        let drained = self.listeners.draining_extensions.iter();
        for each in self
            .listeners
            .all()
            .flat_map(|entry| &entry.extensions)
            .chain(drained.map(|(each, _)| each))
        {
            wanted
                .entry(Name::clone(&each.name))
                .or_insert(each.initial_fetch_timeout);
        }
        let registry = self.context.registry.clone();
        let entries = &mut self.extensions.wanted;
        let before = entries.len();
        entries.retain(|name, _| wanted.contains_key(name));
        if entries.len() != before || wanted.len() != before {
            self.subscriptions_stale = true;
        }
        self.extensions.used |= !wanted.is_empty();
        for (name, initial_fetch_timeout) in wanted {
            entries.entry(name).or_insert_with_key(|name| {
                let prefix = format!("extension_config_discovery.http_filter.{name}.");
                let updates = registry.group(&prefix);
                count_asking(&updates);
                ExtensionEntry {
                    known: None,
                    settled: false,
                    initial_fetch_timeout,
                    updates,
                    stats: registry.group(&prefix),
                }
            });
        }
    }

    pub(super) fn apply_extensions(&mut self, update: &Update<'_>) -> ApplyResult {
        let mut result = ApplyResult::default();
        let decoder = Decoder::new();
        let mut changed: BTreeSet<Name> = BTreeSet::new();
        for (name, raw) in update.resources {
            let outcome = if update.duplicates.contains(name.as_str()) {
                Err(ConfigError::new(
                    name,
                    "",
                    format!("duplicate extension config {name} found"),
                ))
            } else if name.is_empty() {
                Err(ConfigError::new(
                    "",
                    "name",
                    "extension config without a name, or of another type",
                ))
            } else {
                self.take_extension(&decoder, update, name, raw)
            };
            match outcome {
                Ok(is_new) => {
                    result.accepted.push(name.clone());
                    if is_new {
                        result.changed.push(name.clone());
                        changed.insert(Name::from(name.as_str()));
                    }
                }
                Err(error) => {
                    if let Some(entry) = self.extensions.wanted.get(name.as_str())
                        && update.removed.is_some()
                    {
                        // Envoy's incremental form counts the attempt and its failure.
                        count_asking(&entry.updates);
                    }
                    result.rejected.push(error);
                }
            }
        }
        for name in update.removed.iter().flatten() {
            if let Some(entry) = self.extensions.wanted.get_mut(*name) {
                entry.settled = true;
                count_update(&entry.updates, update, false);
                entry.known = None;
                changed.insert(Name::from(*name));
            }
        }
        self.tell_warnings(decoder.take_warnings());
        if !result.rejected.is_empty() {
            // As in Envoy it counts for all who listen, and nobody waits any longer.
            for entry in self.extensions.wanted.values_mut() {
                entry.settled = true;
                count_rejection(&entry.updates);
                entry.stats.shared().inc(stat::CONFIG_FAIL);
            }
            self.tell_rejections(&mut result, "ecds");
        }
        let mut builder = self.begin();
        self.replace_extensions(&mut builder, &changed);
        self.commit(builder);
        for name in &changed {
            if let Some(entry) = self.extensions.wanted.get(name) {
                entry.stats.shared().inc(stat::CONFIG_RELOAD);
            }
        }
        result
    }

    /// True when something changed.
    fn take_extension(
        &mut self,
        decoder: &Decoder,
        update: &Update<'_>,
        name: &str,
        raw: &[u8],
    ) -> Result<bool, ConfigError> {
        let Some(entry) = self.extensions.wanted.get(name) else {
            // Nobody asked for it (any more): neither kept nor an error.
            return Ok(false);
        };
        let known = entry.known.as_ref();
        let mut is_new = known.is_none_or(|(resource, _)| *resource.raw != *raw);
        if is_new {
            let config = self.read_extension(decoder, name, raw)?;
            is_new = known.is_none_or(|(_, before)| *before != config);
            if is_new {
                let resource = Resource::new(Bytes::copy_from_slice(raw), &update.version_of(name));
                self.try_extension(name, (resource, config))?;
            }
        }
        if let Some(entry) = self.extensions.wanted.get_mut(name) {
            entry.settled = true;
            count_update(&entry.updates, update, false);
        }
        Ok(is_new)
    }

    fn read_extension(
        &self,
        decoder: &Decoder,
        name: &str,
        raw: &[u8],
    ) -> Result<ExtensionConfig, ConfigError> {
        let wanting = || {
            let managers = self
                .listeners
                .all()
                .flat_map(|entry| connection_managers(&entry.config));
            let places = managers.flat_map(|manager| places(manager));
            places.filter(|place| *place.filter.name == *name)
        };
        let config = decoder.extension_config(raw, &|found| {
            wanting().try_for_each(|place| check_extension_type(found, &place.discovery.type_urls))
        })?;
        for place in wanting() {
            place
                .check(&config)
                .map_err(|reason| ConfigError::new(name, "", reason))?;
        }
        Ok(config)
    }

    /// Takes a configuration over if all who refer to it can serve with it.
    fn try_extension(
        &mut self,
        name: &str,
        new: (Resource, ExtensionConfig),
    ) -> Result<(), ConfigError> {
        let Some(entry) = self.extensions.wanted.get_mut(name) else {
            return Ok(());
        };
        let former = entry.known.replace(new);
        let tried = self.listeners.all().try_for_each(|listener| {
            if !listener.extensions.iter().any(|each| *each.name == *name) {
                return Ok(());
            }
            SnapshotBuilder::from(&self.snapshot)
                .set_listener(self.resolved_listener(&listener.config))
                .map(|_| ())
                .map_err(|error| ConfigError::compile(name, error))
        });
        if tried.is_err()
            && let Some(entry) = self.extensions.wanted.get_mut(name)
        {
            entry.known = former;
        }
        tried
    }

    /// Puts what has changed into the listeners that serve.
    fn replace_extensions(&self, builder: &mut SnapshotBuilder, changed: &BTreeSet<Name>) {
        for listener in self.listeners.active.values() {
            if listener
                .extensions
                .iter()
                .any(|each| changed.contains(&each.name))
            {
                // It has been tried; a default was there from the start.
                let _compiled = builder.set_listener(self.resolved_listener(&listener.config));
            }
        }
    }

    pub(super) fn extensions_failed(&mut self, names: &[String], given_up: bool) {
        for (name, entry) in &mut self.extensions.wanted {
            if !names.is_empty() && !names.iter().any(|each| **each == **name) {
                continue;
            }
            count_failure(&entry.updates, given_up);
            if given_up {
                entry.stats.shared().inc(stat::CONFIG_FAIL);
                entry.settled = true;
            }
        }
    }
}
