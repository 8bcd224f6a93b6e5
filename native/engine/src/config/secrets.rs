//! Secrets: SDS, and those of the bootstrap.
//!
//! What listeners and clusters refer to is subscribed to, once per name and source, and let go when nothing refers to it. A
//! listener or cluster waits for its secrets; afterwards a new version of a secret goes into the slots of the published
//! snapshot, and neither listeners nor connections notice. A secret that its users cannot use is refused, and the last good
//! one serves on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tidegate_model::Name;
use tidegate_model::tls::{SecretConfigSource, SecretRef, SecretValue};
use tidegate_stats::Group;
use tidegate_stats::defs::discovery::Discovery;
use tidegate_stats::defs::sds as stat;
use tidegate_tls::SecretSource;
use tidegate_xds::{Decoder, type_url};

use super::counts::{count_asking, count_failure, count_rejection, count_update};
use super::{ApplyResult, ConfigSourceKey, Failure, Manager, Resource, Subscription, Update};
use crate::error::ConfigError;
use crate::server_log::server_log;

/// A secret that something refers to.
pub(crate) struct SecretEntry {
    /// With its source, as it is subscribed to.
    pub(crate) reference: SecretRef,
    /// The last good version.
    pub(crate) known: Option<(Resource, SecretValue)>,
    pub(crate) failure: Option<Failure>,
    /// Whether nobody waits for it (any more).
    pub(crate) settled: bool,
    /// When it was first wanted.
    pub(crate) asked: SystemTime,
    /// The directories of the files it refers to, as they are watched.
    directories: BTreeSet<String>,
    updates: Group<Discovery>,
    stats: Group<stat::Sds>,
}

/// All secrets.
#[derive(Default)]
pub(crate) struct Secrets {
    pub(crate) dynamic: HashMap<(ConfigSourceKey, Name), SecretEntry>,
    /// `static_resources.secrets`.
    pub(crate) statics: HashMap<Name, (Resource, SecretValue)>,
    /// Other directories are to be watched than when it was last told.
    pub(super) directories_changed: bool,
}

/// Where a secret comes from, if from a subscription.
fn source(secret: &SecretRef) -> Option<ConfigSourceKey> {
    match &secret.source {
        SecretConfigSource::Static => None,
        SecretConfigSource::Ads => Some(ConfigSourceKey::Ads),
        SecretConfigSource::Path(path) => Some(ConfigSourceKey::Path(Name::clone(path))),
        SecretConfigSource::Grpc(grpc) => Some(ConfigSourceKey::Grpc(Arc::clone(grpc))),
    }
}

impl SecretSource for Secrets {
    fn secret(&self, secret: &SecretRef) -> Option<SecretValue> {
        let found = match source(secret) {
            None => self.statics.get(&secret.name),
            Some(source) => self
                .dynamic
                .get(&(source, Name::clone(&secret.name)))
                .and_then(|entry| entry.known.as_ref()),
        };
        found.map(|(_, value)| value.clone())
    }
}

impl Secrets {
    /// Whether a listener or cluster need not wait for these.
    pub(super) fn are_settled(&self, secrets: &[SecretRef]) -> bool {
        secrets.iter().all(|secret| match source(secret) {
            None => true,
            Some(source) => self
                .dynamic
                .get(&(source, Name::clone(&secret.name)))
                .is_some_and(|entry| entry.settled),
        })
    }

    /// Those that are still waited for.
    pub(super) fn unsettled<'a>(
        &'a self,
        secrets: &'a [SecretRef],
    ) -> impl Iterator<Item = &'a SecretRef> {
        secrets
            .iter()
            .filter(|secret| !self.are_settled(std::slice::from_ref(*secret)))
    }

    /// Those of one origin, by name.
    fn of(&mut self, origin: &str) -> impl Iterator<Item = &mut SecretEntry> {
        self.dynamic
            .iter_mut()
            .filter(move |((source, _), _)| source.origin() == origin)
            .map(|(_, entry)| entry)
    }

    /// By ADS one for those that are waited for equally long, elsewhere one for each, in an order that does not change by itself.
    pub(super) fn subscriptions(&self) -> Vec<Subscription> {
        let mut ads: Vec<&SecretEntry> = Vec::new();
        let mut others = Vec::new();
        for ((source, name), entry) in &self.dynamic {
            if *source == ConfigSourceKey::Ads {
                ads.push(entry);
            } else {
                others.push(Subscription {
                    type_url: type_url::SECRET,
                    source: source.clone(),
                    names: Arc::new(vec![name.to_string()]),
                    initial_fetch_timeout: entry.reference.initial_fetch_timeout,
                });
            }
        }
        others.sort_by_key(|each| (each.source.origin(), Arc::clone(&each.names)));
        let mut by_patience: BTreeMap<Option<Duration>, Vec<String>> = BTreeMap::new();
        for SecretRef {
            name,
            initial_fetch_timeout,
            ..
        } in ads.into_iter().map(|entry| &entry.reference)
        {
            let names = by_patience.entry(*initial_fetch_timeout).or_default();
            names.push(name.to_string());
        }
        let ads = by_patience.into_iter().map(|(patience, mut names)| {
            names.sort_unstable();
            Subscription {
                type_url: type_url::SECRET,
                source: ConfigSourceKey::Ads,
                names: Arc::new(names),
                initial_fetch_timeout: patience,
            }
        });
        ads.chain(others).collect()
    }
}

impl Manager {
    /// What has to be so for a reference to be accepted.
    pub(super) fn check_secrets(&self, secrets: &[SecretRef]) -> Result<(), String> {
        for secret in secrets {
            match &secret.source {
                SecretConfigSource::Static if !self.secrets.statics.contains_key(&secret.name) => {
                    return Err(format!("Unknown static secret: {}", secret.name));
                }
                SecretConfigSource::Path(path) if !Path::new(&**path).exists() => {
                    return Err(format!(
                        "paths must refer to an existing path in the system: '{path}' does not exist"
                    ));
                }
                SecretConfigSource::Grpc(grpc) if !self.is_grpc_cluster(&grpc.cluster_name) => {
                    return Err(format!(
                        "'{}' is not a statically defined non-EDS cluster",
                        grpc.cluster_name
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn is_grpc_cluster(&self, name: &str) -> bool {
        self.clusters.all().any(|entry| {
            entry.is_static
                && *entry.config.name == *name
                && crate::engine::grpc_endpoints(&entry.config).is_some()
        })
    }

    /// Follows what listeners and clusters refer to now. A cluster's secrets are asked for when its endpoints are there, and
    /// those of listeners when the clusters are.
    pub(super) fn follow_references(&mut self) {
        let mut wanted: HashMap<(ConfigSourceKey, Name), SecretRef> = HashMap::new();
        let mut add = |secrets: &[SecretRef]| {
            for secret in secrets {
                if let Some(source) = source(secret) {
                    wanted
                        .entry((source, Name::clone(&secret.name)))
                        .or_insert_with(|| secret.clone());
                }
            }
        };
        for entry in self.clusters.all() {
            if self.are_endpoints_settled(entry) {
                add(&entry.secrets);
            }
        }
        if self.init.listeners_may_be_asked_for() {
            for entry in self.listeners.all() {
                add(&entry.secrets);
            }
            for (secret, _) in &self.listeners.draining_secrets {
                add(std::slice::from_ref(secret));
            }
        }
        let registry = self.context.registry.clone();
        let before = self.secrets.dynamic.len();
        let known = &mut self.secrets.dynamic;
        known.retain(|key, _| wanted.contains_key(key));
        if known.len() != before || wanted.len() != before {
            self.subscriptions_stale = true;
        }
        for (key, reference) in wanted {
            self.secrets
                .dynamic
                .entry(key)
                .or_insert_with_key(|(source, name)| {
                    let prefix = format!("sds.{name}.");
                    let updates = registry.group(&prefix);
                    if !matches!(source, ConfigSourceKey::Path(_)) {
                        count_asking(&updates);
                    }
                    SecretEntry {
                        reference,
                        known: None,
                        failure: None,
                        settled: false,
                        asked: SystemTime::now(),
                        directories: BTreeSet::new(),
                        updates,
                        stats: registry.group(&prefix),
                    }
                });
        }
    }

    pub(super) fn apply_secrets(&mut self, update: &Update<'_>, origin: &str) -> ApplyResult {
        let mut result = ApplyResult::default();
        let decoder = Decoder::new();
        let wanted: HashSet<Name> = self
            .secrets
            .of(origin)
            .map(|entry| Name::clone(&entry.reference.name))
            .collect();
        // A stream of its own, and a file, has one secret; it must be that one.
        let alone = !origin.is_empty();
        for (name, raw) in update.resources {
            let outcome = if update.duplicates.contains(name.as_str()) {
                Err(ConfigError::new(
                    name,
                    "",
                    format!("duplicate secret {name} found"),
                ))
            } else if name.is_empty() {
                Err(ConfigError::new(
                    "",
                    "name",
                    "secret without a name, or of another type",
                ))
            } else if wanted.contains(name.as_str()) {
                self.take_secret(&decoder, update, origin, name, raw)
            } else if alone && wanted.len() == 1 {
                let expected = wanted.iter().next().map_or("", |name| &**name);
                Err(ConfigError::new(
                    "",
                    "",
                    format!("Unexpected SDS secret (expecting {expected}): {name}"),
                ))
            } else {
                // Nobody asked for it (any more): neither kept nor an error.
                Ok(false)
            };
            match outcome {
                Ok(changed) => {
                    result.accepted.push(name.clone());
                    if changed {
                        result.changed.push(name.clone());
                    }
                }
                Err(error) => {
                    self.fail_secret(origin, name, Some(raw), &update.version, &error);
                    result.rejected.push(error);
                }
            }
        }
        for name in update.removed.iter().flatten() {
            // A secret lives as long as something names it; only nobody waits for it any more.
            for entry in self.secrets.of(origin) {
                if *entry.reference.name == **name {
                    entry.settled = true;
                    count_update(&entry.updates, update, false);
                }
            }
        }
        self.tell_warnings(decoder.take_warnings());
        if !result.rejected.is_empty() {
            // As in Envoy it counts for all who listen, and nobody waits any longer.
            for entry in self.secrets.of(origin) {
                entry.settled = true;
                count_rejection(&entry.updates);
            }
            self.tell_rejections(&mut result, "sds");
        }
        let builder = self.begin();
        self.commit(builder);
        result
    }

    /// True when something changed.
    fn take_secret(
        &mut self,
        decoder: &Decoder,
        update: &Update<'_>,
        origin: &str,
        name: &str,
        raw: &[u8],
    ) -> Result<bool, ConfigError> {
        let keys: Vec<(ConfigSourceKey, Name)> = self
            .secrets
            .dynamic
            .keys()
            .filter(|(source, known)| **known == *name && source.origin() == origin)
            .cloned()
            .collect();
        let mut changed = false;
        for key in keys {
            let same = self.secrets.dynamic.get(&key).is_some_and(|entry| {
                entry
                    .known
                    .as_ref()
                    .is_some_and(|(known, _)| *known.raw == *raw)
            });
            if !same {
                let resource = Resource::new(Bytes::copy_from_slice(raw), &update.version_of(name));
                let value = decoder.secret(raw)?.value;
                let directories = decoder.secret_directories(raw)?;
                self.set_secret(&key, resource, value)
                    .map_err(|reason| ConfigError::new(name, "", reason))?;
                if let Some(entry) = self.secrets.dynamic.get_mut(&key) {
                    let directories = directories.into_iter().collect();
                    self.secrets.directories_changed |= entry.directories != directories;
                    entry.directories = directories;
                }
                changed = true;
            }
            if let Some(entry) = self.secrets.dynamic.get_mut(&key) {
                entry.settled = true;
                entry.failure = None;
                if let Some((resource, _)) = &mut entry.known {
                    resource.version = update.version_of(name);
                    resource.updated = SystemTime::now();
                }
                count_update(&entry.updates, update, false);
            }
        }
        Ok(changed)
    }

    /// Gives a secret to all who use it; if one of them cannot, all keep the former one.
    fn set_secret(
        &mut self,
        key: &(ConfigSourceKey, Name),
        resource: Resource,
        value: SecretValue,
    ) -> Result<(), String> {
        let Some(entry) = self.secrets.dynamic.get_mut(key) else {
            return Ok(());
        };
        let reference = entry.reference.clone();
        let former = entry.known.replace((resource, value));
        let tried = self.try_secret(&reference, true);
        if tried.is_err() {
            if let Some(entry) = self.secrets.dynamic.get_mut(key) {
                entry.known = former;
            }
            // Those who had taken it already; the former one was good for all of them.
            let _taken_back = self.try_secret(&reference, false);
        }
        tried
    }

    /// Puts a secret into the slots of whoever serves, and tries it on whoever waits.
    fn try_secret(&self, secret: &SecretRef, counted: bool) -> Result<(), String> {
        let same = |each: &SecretRef| each.name == secret.name && each.source == secret.source;
        self.refresh_slots(&same, counted)
            .and_then(|()| self.try_warming(&same))
            .map_err(|error| error.to_string())
    }

    /// Files were renamed into a directory: secrets that refer to files there are read again.
    pub(crate) fn directory_changed(&mut self, directory: &str) {
        let concerned: Vec<(ConfigSourceKey, Name)> = self
            .secrets
            .dynamic
            .iter()
            .filter(|(_, entry)| entry.directories.contains(directory))
            .map(|(key, _)| key.clone())
            .collect();
        let decoder = Decoder::new();
        for key in concerned {
            let known = self.secrets.dynamic.get(&key);
            let Some((resource, value)) = known.and_then(|entry| entry.known.clone()) else {
                continue;
            };
            let outcome = match decoder.secret(&resource.raw) {
                Ok(read) if read.value == value => continue,
                Ok(read) => self.set_secret(&key, resource, read.value),
                Err(rejected) => Err(rejected.to_string()),
            };
            if let (Err(reason), Some(entry)) = (outcome, self.secrets.dynamic.get(&key)) {
                entry.stats.shared().inc(stat::KEY_ROTATION_FAILED);
                server_log!(
                    self.context.log,
                    Warning,
                    "misc",
                    "Failed to reload certificates: {reason}"
                );
            }
        }
    }

    pub(crate) fn watched_directories(&self) -> Vec<String> {
        let entries = self.secrets.dynamic.values();
        let all: BTreeSet<&String> = entries.flat_map(|entry| &entry.directories).collect();
        all.into_iter().cloned().collect()
    }

    fn fail_secret(
        &mut self,
        origin: &str,
        name: &str,
        raw: Option<&[u8]>,
        version: &str,
        error: &ConfigError,
    ) {
        let failure = Failure::new(&error.to_string(), raw, version);
        for entry in self.secrets.of(origin) {
            if name.is_empty() || *entry.reference.name == *name {
                entry.failure = Some(failure.clone());
            }
        }
    }

    pub(super) fn secrets_failed(&mut self, names: &[String], given_up: bool, origin: &str) {
        for entry in self.secrets.of(origin) {
            let concerned = |name: &String| **name == *entry.reference.name;
            if !names.is_empty() && !names.iter().any(concerned) {
                continue;
            }
            count_failure(&entry.updates, given_up);
            entry.settled |= given_up;
        }
    }

    /// A file that could not be read as secrets.
    pub(super) fn secrets_rejected(&mut self, reason: &str, origin: &str) {
        for entry in self.secrets.of(origin) {
            entry.failure = Some(Failure::new(reason, None, ""));
            entry.settled = true;
            count_rejection(&entry.updates);
        }
        let builder = self.begin();
        self.commit(builder);
    }
}
