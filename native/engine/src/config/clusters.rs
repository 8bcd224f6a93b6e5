//! Clusters: CDS, warming, and what DNS says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_model::Name;
use tidegate_model::cluster::{
    Address, Cluster, ConfigSource, Discovery, DnsCluster, DnsLookupFamily,
};
use tidegate_model::tls::SecretRef;
use tidegate_snapshot::SnapshotBuilder;
use tidegate_stats::Group;
use tidegate_stats::defs::{cluster as stat, cluster_manager, ssl};
use tidegate_xds::{Decoder, type_url};

use super::counts::count_update;
use super::transports::{check_transports, cluster_secrets};
use super::{ApplyResult, ConfigSourceKey, Failure, Manager, Resource, Subscription, Update};
use crate::error::ConfigError;
use crate::server_log::server_log;

/// A cluster, active or warming.
pub(crate) struct ClusterEntry {
    pub(crate) resource: Resource,
    pub(crate) config: Arc<Cluster>,
    pub(crate) is_static: bool,
    pub(super) membership: Group<stat::Membership>,
    pub(super) secrets: Vec<SecretRef>,
    /// `cluster.NAME.client_ssl_socket_factory.`, where there are secrets.
    pub(super) tls: Option<Group<ssl::SslSocketFactory>>,
    /// Per name and port: what DNS last said (empty after a failure).
    resolved: BTreeMap<(Name, u16), Vec<IpAddr>>,
}

/// All clusters.
#[derive(Default)]
pub(crate) struct Clusters {
    pub(crate) active: BTreeMap<Name, ClusterEntry>,
    /// New ones, and new versions of active ones.
    pub(crate) warming: BTreeMap<Name, ClusterEntry>,
    pub(crate) failures: BTreeMap<Name, Failure>,
    /// Of the last accepted update.
    pub(crate) version: String,
    /// By EDS name: the clusters that take their endpoints from it. `None`: to be made anew.
    services: Option<Arc<BTreeMap<Name, Vec<Name>>>>,
    /// To EDS, by source; as of the last change.
    subscriptions: Option<Vec<Subscription>>,
    /// What nobody names has been dropped since the last change.
    endpoints_checked: bool,
}

/// The names that one cluster needs resolved.
#[derive(Debug, Clone)]
pub(crate) struct DnsJob {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) targets: Vec<(Name, u16)>,
    pub(crate) refresh_rate: Duration,
    pub(crate) respect_dns_ttl: bool,
    pub(crate) jitter: Duration,
    pub(crate) lookup_family: DnsLookupFamily,
    pub(crate) membership: Group<stat::Membership>,
}

/// What DNS said for one of them; `None`: it failed.
#[derive(Debug)]
pub(crate) struct DnsOutcome {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) host: Name,
    pub(crate) port: u16,
    pub(crate) addresses: Option<Vec<IpAddr>>,
}

fn dns(cluster: &Cluster) -> Option<&DnsCluster> {
    match &cluster.discovery {
        Discovery::StrictDns(dns) | Discovery::LogicalDns(dns) => Some(dns),
        Discovery::Static(_) | Discovery::Eds { .. } | Discovery::OriginalDst(_) => None,
    }
}

/// Each name once.
fn dns_targets(cluster: &Cluster) -> Vec<(Name, u16)> {
    let mut targets = BTreeSet::new();
    if let Some(dns) = dns(cluster) {
        for endpoint in dns
            .load_assignment
            .localities
            .iter()
            .flat_map(|locality| &locality.endpoints)
        {
            if let Address::Dns { host, port } = &endpoint.address {
                targets.insert((Name::clone(host), *port));
            }
        }
    }
    targets.into_iter().collect()
}

/// The EDS name, if that is where the endpoints come from.
pub(super) fn service_name(cluster: &Cluster) -> Option<&Name> {
    match &cluster.discovery {
        Discovery::Eds { service_name, .. } => Some(service_name),
        _ => None,
    }
}

impl Clusters {
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.active.contains_key(name) || self.warming.contains_key(name)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &ClusterEntry> {
        self.active.values().chain(self.warming.values())
    }

    pub(crate) fn fail(&mut self, name: Name, failure: Failure) {
        self.failures.insert(name, failure);
    }

    /// The clusters of each EDS name. An update of endpoints looks its few names up, however many clusters there are.
    pub(super) fn by_service(&mut self) -> Arc<BTreeMap<Name, Vec<Name>>> {
        if let Some(known) = &self.services {
            return Arc::clone(known);
        }
        let mut services: BTreeMap<Name, Vec<Name>> = BTreeMap::new();
        for entry in self.all() {
            if let Some(service) = service_name(&entry.config) {
                let clusters = services.entry(Name::clone(service)).or_default();
                // A cluster with a new version on its way in is there twice.
                if !clusters.contains(&entry.config.name) {
                    clusters.push(Name::clone(&entry.config.name));
                }
            }
        }
        let services = Arc::new(services);
        self.services = Some(Arc::clone(&services));
        services
    }

    fn forget_derived(&mut self) {
        self.services = None;
        self.subscriptions = None;
        self.endpoints_checked = false;
    }

    /// The EDS names, if there may be other ones than at the last call.
    pub(super) fn changed_service_names(&mut self) -> Option<BTreeSet<Name>> {
        let checked = std::mem::replace(&mut self.endpoints_checked, true);
        (!checked).then(|| self.service_names())
    }

    fn service_names(&self) -> BTreeSet<Name> {
        self.all()
            .filter_map(|entry| service_name(&entry.config))
            .map(Name::clone)
            .collect()
    }

    /// EDS, by source. The list is long where clusters are many, and most updates leave it as it is.
    pub(super) fn subscriptions(&mut self) -> Vec<Subscription> {
        if let Some(known) = &self.subscriptions {
            return known.clone();
        }
        let made = self.make_subscriptions();
        self.subscriptions = Some(made.clone());
        made
    }

    fn make_subscriptions(&self) -> Vec<Subscription> {
        let mut by_source = BTreeMap::new();
        for entry in self.all() {
            if let Discovery::Eds {
                service_name,
                source,
                initial_fetch_timeout,
            } = &entry.config.discovery
            {
                let (names, timeout): &mut (BTreeSet<String>, Option<Duration>) = by_source
                    .entry(match source {
                        ConfigSource::Ads => None,
                        ConfigSource::Path(path) => Some(Name::clone(path)),
                    })
                    .or_insert((BTreeSet::new(), Some(Duration::ZERO)));
                names.insert(service_name.to_string());
                // The most patient one, of which none is for ever.
                *timeout = match (*timeout, *initial_fetch_timeout) {
                    (Some(a), Some(b)) => Some(a.max(b)),
                    _ => None,
                };
            }
        }
        by_source
            .into_iter()
            .map(|(path, (names, initial_fetch_timeout))| Subscription {
                type_url: type_url::CLUSTER_LOAD_ASSIGNMENT,
                source: path.map_or(ConfigSourceKey::Ads, ConfigSourceKey::Path),
                names: Arc::new(names.into_iter().collect()),
                initial_fetch_timeout,
            })
            .collect()
    }

    pub(super) fn dns_jobs(&self) -> Vec<DnsJob> {
        self.all()
            .filter_map(|entry| {
                let dns = dns(&entry.config)?;
                Some(DnsJob {
                    cluster: Arc::clone(&entry.config),
                    targets: dns_targets(&entry.config),
                    refresh_rate: dns.refresh_rate,
                    respect_dns_ttl: dns.respect_dns_ttl,
                    jitter: dns.jitter,
                    lookup_family: dns.lookup_family,
                    membership: entry.membership.clone(),
                })
            })
            .filter(|job| !job.targets.is_empty())
            .collect()
    }

    /// The entry that runs this very configuration.
    fn running(&mut self, config: &Arc<Cluster>) -> Option<&mut ClusterEntry> {
        self.active
            .get_mut(&config.name)
            .into_iter()
            .chain(self.warming.get_mut(&config.name))
            .find(|entry| Arc::ptr_eq(&entry.config, config))
    }
}

impl Manager {
    /// A cluster came, went or has another configuration.
    fn clusters_changed(&mut self) {
        self.clusters.forget_derived();
        self.subscriptions_stale = true;
        self.dns_stale = true;
    }

    pub(super) fn add_static_cluster(
        &mut self,
        config: Arc<Cluster>,
        resource: Resource,
    ) -> Result<(), ConfigError> {
        tidegate_snapshot::UpstreamTransports::check(&config)
            .map_err(|error| ConfigError::compile(&config.name, error))?;
        let entry = self.cluster_entry(config, resource, true);
        self.clusters
            .warming
            .insert(Name::clone(&entry.config.name), entry);
        Ok(())
    }

    fn cluster_entry(
        &self,
        config: Arc<Cluster>,
        resource: Resource,
        is_static: bool,
    ) -> ClusterEntry {
        let prefix = format!("cluster.{}.", config.alt_stat_name);
        let membership: Group<stat::Membership> = self.context.registry.group(&prefix);
        if let Discovery::Eds {
            source: ConfigSource::Ads,
            ..
        } = &config.discovery
        {
            // The asking is an attempt.
            membership.shared().inc(stat::UPDATE_ATTEMPT);
        }
        let secrets = cluster_secrets(&config);
        ClusterEntry {
            membership,
            tls: (!secrets.is_empty()).then(|| {
                let prefix = format!("{prefix}client_ssl_socket_factory.");
                self.context.registry.group(&prefix)
            }),
            secrets,
            resource,
            config,
            is_static,
            resolved: BTreeMap::new(),
        }
    }

    pub(super) fn apply_clusters(&mut self, update: &Update<'_>) -> ApplyResult {
        let version = &update.version;
        let mut result = ApplyResult::default();
        let mut builder = self.begin();
        let decoder = Decoder::new();
        for (name, raw) in update.resources {
            let outcome = if update.duplicates.contains(name.as_str()) {
                Err(ConfigError::new(
                    name,
                    "",
                    format!("duplicate cluster {name} found"),
                ))
            } else {
                self.take_cluster(&decoder, &update.version_of(name), name, raw)
            };
            match outcome {
                Ok(changed) => {
                    self.clusters.failures.remove(name.as_str());
                    result.accepted.push(name.clone());
                    if changed {
                        result.changed.push(name.clone());
                    }
                }
                Err(error) => {
                    self.clusters.fail(
                        Name::from(name.as_str()),
                        Failure::new(&error.to_string(), Some(raw), version),
                    );
                    result.rejected.push(error);
                }
            }
        }
        self.remove_clusters(&mut builder, update, &mut result);
        self.tell_warnings(decoder.take_warnings());
        if result.rejected.is_empty() {
            (**version).clone_into(&mut self.clusters.version);
            self.clusters.failures.remove("");
        } else {
            let reasons: Vec<String> = result.rejected.iter().map(ToString::to_string).collect();
            result.detail = format!("Error adding/updating cluster(s) {}", reasons.join(", "));
            server_log!(
                self.context.log,
                Warning,
                "config",
                "cds: {}",
                result.detail
            );
        }
        if let Some(cds) = &self.stats.cds {
            count_update(cds, update, !result.rejected.is_empty());
        }
        self.init.cds_answered();
        self.commit(builder);
        result
    }

    /// True when something changed. The tables change once it is warm.
    fn take_cluster(
        &mut self,
        decoder: &Decoder,
        version: &Name,
        name: &str,
        raw: &[u8],
    ) -> Result<bool, ConfigError> {
        if name.is_empty() {
            return Err(ConfigError::new(
                "",
                "name",
                "cluster without a name, or of another type",
            ));
        }
        // A warming version supersedes the active one as what new content is compared with.
        if let Some(entry) = self
            .clusters
            .warming
            .get(name)
            .or_else(|| self.clusters.active.get(name))
        {
            if entry.is_static {
                server_log!(
                    self.context.log,
                    Debug,
                    "upstream",
                    "cds: cluster '{name}' is static, not replaced"
                );
                return Ok(false);
            }
            if *entry.resource.raw == *raw {
                return Ok(false);
            }
        }
        let config = Arc::new(decoder.cluster(raw)?);
        let resource = Resource::new(Bytes::copy_from_slice(raw), version);
        if let Some(active) = self.clusters.active.get_mut(name)
            && *active.config == *config
        {
            // Other bytes, the same meaning; a version on its way in is overtaken.
            active.resource = resource;
            self.clusters.warming.remove(name);
            self.clusters_changed();
            return Ok(true);
        }
        let mut entry = self.cluster_entry(config, resource, false);
        self.check_secrets(&entry.secrets)
            .and_then(|()| check_transports(&entry.config))
            .map_err(|reason| ConfigError::new(name, "transport_socket", reason))?;
        let replaces = self.clusters.active.get(name);
        if let Some(active) = replaces
            && dns_targets(&active.config) == dns_targets(&entry.config)
        {
            entry.resolved.clone_from(&active.resolved);
        }
        let stats = self.stats.clusters.shared();
        stats.inc(if replaces.is_some() {
            cluster_manager::CLUSTER_MODIFIED
        } else {
            cluster_manager::CLUSTER_ADDED
        });
        self.clusters.warming.insert(Name::from(name), entry);
        self.clusters_changed();
        Ok(true)
    }

    fn remove_clusters(
        &mut self,
        builder: &mut SnapshotBuilder,
        update: &Update<'_>,
        result: &mut ApplyResult,
    ) {
        let gone = |clusters: &BTreeMap<Name, ClusterEntry>| -> Vec<Name> {
            clusters
                .iter()
                .filter(|(name, entry)| !entry.is_static && update.removes(name))
                .map(|(name, _)| Name::clone(name))
                .collect()
        };
        for name in gone(&self.clusters.warming) {
            self.clusters.warming.remove(&name);
            self.clusters_changed();
            if !self.clusters.active.contains_key(&name) {
                self.stats
                    .clusters
                    .shared()
                    .inc(cluster_manager::CLUSTER_REMOVED);
                result.removed.push(name.to_string());
            }
        }
        for name in gone(&self.clusters.active) {
            self.clusters.active.remove(&name);
            builder.remove_cluster(&name);
            self.stats
                .clusters
                .shared()
                .inc(cluster_manager::CLUSTER_REMOVED);
            self.clusters_changed();
            result.removed.push(name.to_string());
        }
        self.clusters
            .failures
            .retain(|name, _| !update.removes(name));
    }

    /// True when a cluster became active.
    pub(super) fn activate_clusters(&mut self, builder: &mut SnapshotBuilder) -> bool {
        let ready: Vec<Name> = self
            .clusters
            .warming
            .iter()
            .filter(|(_, entry)| self.is_warm(entry))
            .map(|(name, _)| Name::clone(name))
            .collect();
        for name in &ready {
            let Some(entry) = self.clusters.warming.remove(name) else {
                continue;
            };
            if let Err(error) = builder.set_cluster(Arc::clone(&entry.config)) {
                // It could be made when it was accepted, so this is not expected; the old version stays.
                let error = ConfigError::compile(name, error);
                let failure = Failure::new(
                    &error.to_string(),
                    Some(&entry.resource.raw),
                    &entry.resource.version,
                );
                self.clusters.fail(Name::clone(name), failure);
                continue;
            }
            if let Some(assignment) =
                service_name(&entry.config).and_then(|service| self.endpoints.get(service))
            {
                builder.set_endpoints(name, Arc::clone(assignment));
            }
            for ((host, port), addresses) in &entry.resolved {
                builder.set_resolved(name, host, *port, addresses.clone());
            }
            entry.membership.shared().gauge_set(stat::WARMING_STATE, 0);
            if entry.is_static {
                self.stats
                    .clusters
                    .shared()
                    .inc(cluster_manager::CLUSTER_ADDED);
            }
            server_log!(
                self.context.log,
                Debug,
                "upstream",
                "cluster '{name}' is warm"
            );
            self.clusters.active.insert(Name::clone(name), entry);
            // The version before may have had its endpoints from elsewhere.
            self.clusters.forget_derived();
        }
        !ready.is_empty()
    }

    fn is_warm(&self, entry: &ClusterEntry) -> bool {
        self.are_endpoints_settled(entry) && self.secrets.are_settled(&entry.secrets)
    }

    pub(super) fn are_endpoints_settled(&self, entry: &ClusterEntry) -> bool {
        match service_name(&entry.config) {
            Some(service) => self.endpoints.is_settled(service),
            None => dns_targets(&entry.config)
                .iter()
                .all(|target| entry.resolved.contains_key(target)),
        }
    }

    pub(super) fn take_resolved(&mut self, builder: &mut SnapshotBuilder, outcome: DnsOutcome) {
        let Some(entry) = self.clusters.running(&outcome.cluster) else {
            return;
        };
        let key = (Name::clone(&outcome.host), outcome.port);
        let stats = entry.membership.shared();
        match outcome.addresses {
            Some(addresses) => {
                stats.inc(stat::UPDATE_SUCCESS);
                if addresses.is_empty() {
                    stats.inc(stat::UPDATE_EMPTY);
                }
                if entry.resolved.get(&key) == Some(&addresses) {
                    stats.inc(stat::UPDATE_NO_REBUILD);
                    return;
                }
                entry.resolved.insert(key, addresses.clone());
                if self
                    .clusters
                    .active
                    .get(&outcome.cluster.name)
                    .is_some_and(|active| Arc::ptr_eq(&active.config, &outcome.cluster))
                {
                    builder.set_resolved(
                        &outcome.cluster.name,
                        &outcome.host,
                        outcome.port,
                        addresses,
                    );
                }
            }
            None => {
                // The last good answer stays; without one the cluster is warm and empty.
                stats.inc(stat::UPDATE_FAILURE);
                entry.resolved.entry(key).or_default();
            }
        }
    }
}
