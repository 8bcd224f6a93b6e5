//! Route configurations: RDS.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tidegate_model::Name;
use tidegate_model::hcm::RouteSource;
use tidegate_model::route::RouteConfiguration;
use tidegate_snapshot::SnapshotBuilder;
use tidegate_stats::Group;
use tidegate_stats::defs::discovery::Discovery;
use tidegate_stats::defs::rds as stat;
use tidegate_xds::Decoder;

use super::counts::{count_asking, count_failure, count_rejection, count_update};
use super::listeners::connection_managers;
use super::validate::check_route_clusters;
use super::{ApplyResult, Failure, Manager, Resource, Update};
use crate::error::ConfigError;
use crate::server_log::server_log;

pub(crate) struct RoutesEntry {
    pub(crate) resource: Resource,
}

/// The counters of a connection manager that asks for routes: `http.PREFIX.rds.NAME.`
#[derive(Clone)]
struct RouteStats {
    updates: Group<Discovery>,
    stats: Group<stat::Rds>,
}

/// Route configurations by name, as long as a listener refers to them.
#[derive(Default)]
pub(crate) struct Routes {
    pub(crate) known: BTreeMap<Name, RoutesEntry>,
    /// Names that are no longer waited for.
    given_up: BTreeSet<Name>,
    pub(crate) failures: BTreeMap<Name, Failure>,
    /// By every name that a listener refers to, one per connection manager that does. As of when listeners were last looked
    /// through.
    stats: Arc<BTreeMap<Name, Vec<RouteStats>>>,
    /// Whether listeners are still the same.
    stats_current: bool,
}

impl Routes {
    pub(super) fn are_settled(&self, names: &BTreeSet<Name>) -> bool {
        names
            .iter()
            .all(|name| self.known.contains_key(name) || self.given_up.contains(name))
    }

    /// Those that are still waited for.
    pub(super) fn unsettled<'a>(
        &'a self,
        names: &'a BTreeSet<Name>,
    ) -> impl Iterator<Item = &'a Name> {
        names
            .iter()
            .filter(|name| !self.known.contains_key(*name) && !self.given_up.contains(*name))
    }

    pub(crate) fn fail(&mut self, name: Name, failure: Failure) {
        self.failures.insert(name, failure);
    }

    /// The names that are gone.
    pub(super) fn retain(&mut self, wanted: &BTreeSet<Name>) -> Vec<Name> {
        let gone: Vec<Name> = self
            .known
            .keys()
            .filter(|name| !wanted.contains(*name))
            .map(Name::clone)
            .collect();
        for name in &gone {
            self.known.remove(name);
        }
        self.given_up.retain(|name| wanted.contains(name));
        self.failures.retain(|name, _| wanted.contains(name));
        gone
    }
}

impl Manager {
    pub(super) fn apply_routes(&mut self, update: &Update<'_>) -> ApplyResult {
        let version = &update.version;
        let mut result = ApplyResult::default();
        let mut builder = self.begin();
        let decoder = Decoder::new();
        let wanted = self.route_stats();
        for (name, raw) in update.resources {
            let outcome = if update.duplicates.contains(name.as_str()) {
                Err(ConfigError::new(
                    name,
                    "",
                    format!("duplicate route configuration {name} found"),
                ))
            } else if name.is_empty() {
                Err(ConfigError::new(
                    "",
                    "name",
                    "route configuration without a name, or of another type",
                ))
            } else if !wanted.contains_key(name.as_str())
                || self
                    .routes
                    .known
                    .get(name.as_str())
                    .is_some_and(|known| *known.resource.raw == **raw)
            {
                // Nobody asked for it, or nothing changed.
                Ok(false)
            } else {
                self.take_routes(&decoder, &mut builder, &update.version_of(name), name, raw)
            };
            match outcome {
                Ok(changed) => {
                    self.routes.failures.remove(name.as_str());
                    result.accepted.push(name.clone());
                    if changed {
                        result.changed.push(name.clone());
                    }
                    self.count_routes(name, update, changed);
                }
                Err(error) => {
                    let failure = Failure::new(&error.to_string(), Some(raw), version);
                    self.routes.fail(Name::from(name.as_str()), failure);
                    result.rejected.push(error);
                }
            }
        }
        self.tell_warnings(decoder.take_warnings());
        for name in update.removed.iter().flatten() {
            // A route configuration lives as long as a listener names it.
            server_log!(
                self.context.log,
                Error,
                "router",
                "Server sent a delta RDS update attempting to remove a resource (name: {name}). Ignoring."
            );
            self.count_routes(name, update, false);
        }
        if !result.rejected.is_empty() {
            // As in Envoy it counts for all who listen.
            // Nor does anybody wait any longer: a bad update must not keep the process from serving.
            self.routes.given_up.extend(wanted.keys().map(Name::clone));
            for group in wanted.values().flatten() {
                count_rejection(&group.updates);
            }
            self.tell_rejections(&mut result, "rds");
        }
        self.commit(builder);
        result
    }

    fn take_routes(
        &mut self,
        decoder: &Decoder,
        builder: &mut SnapshotBuilder,
        version: &Name,
        name: &str,
        raw: &[u8],
    ) -> Result<bool, ConfigError> {
        let config: Arc<RouteConfiguration> = Arc::new(decoder.route_configuration(raw)?);
        if config.validate_clusters {
            check_route_clusters(&config, &|cluster| self.clusters.contains(cluster))
                .map_err(|(path, reason)| ConfigError::new(name, path, reason))?;
        }
        builder
            .set_route_configuration(config)
            .map_err(|error| ConfigError::compile(name, error))?;
        let resource = Resource::new(Bytes::copy_from_slice(raw), version);
        self.routes
            .known
            .insert(Name::from(name), RoutesEntry { resource });
        self.routes.given_up.remove(name);
        Ok(true)
    }

    /// A listener came, went or has another configuration.
    pub(super) fn listeners_changed(&mut self) {
        self.routes.stats_current = false;
    }

    /// The route configurations that listeners ask for, with their statistics.
    fn route_stats(&mut self) -> Arc<BTreeMap<Name, Vec<RouteStats>>> {
        if self.routes.stats_current {
            return Arc::clone(&self.routes.stats);
        }
        let mut groups: BTreeMap<Name, BTreeSet<String>> = BTreeMap::new();
        for entry in self
            .listeners
            .active
            .values()
            .chain(self.listeners.warming.values())
        {
            for hcm in connection_managers(&entry.config) {
                if let RouteSource::Rds(name) = &hcm.routes {
                    groups
                        .entry(Name::clone(name))
                        .or_default()
                        .insert(format!("http.{}.rds.{name}.", hcm.stat_prefix));
                }
            }
        }
        let known = Arc::clone(&self.routes.stats);
        let stats = groups.into_iter().map(|(name, prefixes)| {
            let new = !known.contains_key(&name);
            let groups = prefixes
                .iter()
                .map(|prefix| RouteStats {
                    updates: self.context.registry.group(prefix),
                    stats: self.context.registry.group(prefix),
                })
                .inspect(|group| {
                    if new {
                        count_asking(&group.updates);
                    }
                })
                .collect();
            (name, groups)
        });
        let mut stats: BTreeMap<_, _> = stats.collect();
        for (name, groups) in &*known {
            if self.listeners.drains(name) {
                let kept = || groups.clone();
                stats.entry(Name::clone(name)).or_insert_with(kept);
            }
        }
        self.routes.stats = Arc::new(stats);
        self.routes.stats_current = true;
        Arc::clone(&self.routes.stats)
    }

    fn count_routes(&self, name: &str, update: &Update<'_>, changed: bool) {
        for group in self.routes.stats.get(name).into_iter().flatten() {
            count_update(&group.updates, update, false);
            if changed {
                let stats = group.stats.shared();
                stats.inc(stat::CONFIG_RELOAD);
                let now = crate::time::unix_millis(SystemTime::now());
                stats.gauge_set(stat::CONFIG_RELOAD_TIME_MS, now);
            }
        }
    }

    pub(super) fn routes_failed(&mut self, names: &[String], given_up: bool) {
        for (name, groups) in &*self.route_stats() {
            if !names.is_empty() && !names.iter().any(|failed| **failed == **name) {
                continue;
            }
            for group in groups {
                count_failure(&group.updates, given_up);
            }
            if given_up {
                self.routes.given_up.insert(Name::clone(name));
            }
        }
    }
}
