//! Endpoints: EDS.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tidegate_model::Name;
use tidegate_model::cluster::ClusterLoadAssignment;
use tidegate_stats::Shared;
use tidegate_stats::defs::cluster as stat;
use tidegate_xds::Decoder;

use super::clusters::service_name;
use super::resource::version_hash;
use super::{ApplyResult, Manager, Resource, Update};
use crate::error::ConfigError;

pub(crate) struct EndpointsEntry {
    pub(crate) resource: Resource,
    pub(crate) assignment: Arc<ClusterLoadAssignment>,
}

/// Load assignments by service name, as long as a cluster refers to them.
#[derive(Default)]
pub(crate) struct Endpoints {
    pub(crate) known: BTreeMap<Name, EndpointsEntry>,
    /// Names that are no longer waited for.
    given_up: BTreeSet<Name>,
}

impl Endpoints {
    pub(super) fn get(&self, service: &str) -> Option<&Arc<ClusterLoadAssignment>> {
        self.known.get(service).map(|entry| &entry.assignment)
    }

    /// Whether a cluster need not wait for this name.
    pub(super) fn is_settled(&self, service: &str) -> bool {
        self.known.contains_key(service) || self.given_up.contains(service)
    }

    pub(super) fn retain(&mut self, wanted: &BTreeSet<Name>) {
        self.known.retain(|name, _| wanted.contains(name));
        self.given_up.retain(|name| wanted.contains(name));
    }
}

impl Manager {
    pub(super) fn apply_endpoints(&mut self, update: &Update<'_>) -> ApplyResult {
        let mut result = ApplyResult::default();
        let mut builder = self.begin();
        let decoder = Decoder::new();
        let clusters_of = self.clusters.by_service();
        for (name, raw) in update.resources {
            let clusters = clusters_of.get(name.as_str());
            let outcome = if update.duplicates.contains(name.as_str()) {
                Err(ConfigError::new(
                    name,
                    "",
                    format!("duplicate assignment for {name} found"),
                ))
            } else if name.is_empty() {
                Err(ConfigError::new(
                    "",
                    "cluster_name",
                    "assignment without a name, or of another type",
                ))
            } else if clusters.is_none() {
                // Nobody asked for it (any more): neither kept nor an error.
                Ok(None)
            } else if self
                .endpoints
                .known
                .get(name.as_str())
                .is_some_and(|known| *known.resource.raw == **raw)
            {
                Ok(None)
            } else {
                decoder
                    .cluster_load_assignment(raw)
                    .map(|assignment| Some(Arc::new(assignment)))
                    .map_err(ConfigError::from)
            };
            let clusters = clusters.map(Vec::as_slice).unwrap_or_default();
            match outcome {
                Ok(assignment) => {
                    let mut changed = false;
                    result.accepted.push(name.clone());
                    if let Some(assignment) = assignment {
                        changed = true;
                        for cluster in clusters {
                            builder.set_endpoints(cluster, Arc::clone(&assignment));
                        }
                        let resource =
                            Resource::new(Bytes::copy_from_slice(raw), &update.version_of(name));
                        self.endpoints.known.insert(
                            Name::from(name.as_str()),
                            EndpointsEntry {
                                resource,
                                assignment,
                            },
                        );
                        self.endpoints.given_up.remove(name.as_str());
                        result.changed.push(name.clone());
                    }
                    self.count_endpoints(clusters, Some(update), |stats| {
                        if !changed {
                            stats.inc(stat::UPDATE_NO_REBUILD);
                        }
                    });
                }
                Err(error) => {
                    result.rejected.push(error);
                }
            }
        }
        for name in update.removed.iter().flatten() {
            // The endpoints stay; only nobody waits for them any more.
            if let Some((name, clusters)) = clusters_of.get_key_value(*name) {
                self.endpoints.given_up.insert(Name::clone(name));
                self.count_endpoints(clusters, Some(update), |stats| {
                    stats.inc(stat::UPDATE_EMPTY);
                });
            }
        }
        if !result.rejected.is_empty() {
            // As in Envoy it counts for all who listen.
            let all: Vec<Name> = clusters_of.values().flatten().cloned().collect();
            self.count_endpoints(&all, None, |_| {});
            // Nor does anybody wait any longer: a bad update must not keep the process from serving.
            let all = clusters_of.keys().map(Name::clone);
            self.endpoints.given_up.extend(all);
            self.tell_rejections(&mut result, "eds");
        }
        self.commit(builder);
        result
    }

    /// `accepted`: by what; `None`: refused.
    fn count_endpoints(
        &self,
        clusters: &[Name],
        accepted: Option<&Update<'_>>,
        more: impl Fn(&Shared<stat::Membership>),
    ) {
        for name in clusters {
            let (active, warming) = (&self.clusters.active, &self.clusters.warming);
            let Some(entry) = active.get(name).or_else(|| warming.get(name)) else {
                continue;
            };
            let stats = entry.membership.shared();
            stats.inc(stat::UPDATE_ATTEMPT);
            let Some(update) = accepted else {
                stats.inc(stat::UPDATE_REJECTED);
                continue;
            };
            stats.inc(stat::UPDATE_SUCCESS);
            stats.gauge_set(stat::VERSION, version_hash(&update.version));
            stats.text_set(stat::VERSION_TEXT, &update.version);
            stats.gauge_set(
                stat::UPDATE_TIME,
                crate::time::unix_millis(SystemTime::now()),
            );
            stats.record(
                stat::UPDATE_DURATION,
                update.started.elapsed().unwrap_or_default().as_millis() as u64,
            );
            more(&stats);
        }
    }

    pub(super) fn endpoints_failed(&mut self, names: &[String], given_up: bool) {
        for entry in self.clusters.all() {
            let Some(service) = service_name(&entry.config) else {
                continue;
            };
            if !names.is_empty() && !names.iter().any(|name| **name == **service) {
                continue;
            }
            let stats = entry.membership.shared();
            stats.inc(stat::UPDATE_ATTEMPT);
            if given_up {
                stats.inc(stat::INIT_FETCH_TIMEOUT);
                self.endpoints.given_up.insert(Name::clone(service));
            } else {
                stats.inc(stat::UPDATE_FAILURE);
            }
        }
    }
}
