//! The published configuration: an immutable [`Snapshot`] and the builder that makes the next one out of it.
//!
//! What did not change is shared by `Arc` with the snapshot before; an endpoint update rebuilds one cluster and copies one
//! page of 64 pointers. This module must not know who publishes snapshots or who reads them.

use std::net::IpAddr;
use std::sync::Arc;

use tidegate_model::Name;
use tidegate_model::cluster::{Cluster, ClusterLoadAssignment};
use tidegate_model::listener::Listener;
use tidegate_model::route::RouteConfiguration;

use crate::cluster::CompiledCluster;
use crate::error::CompileError;
use crate::ids::{ClusterId, ClusterRef, ListenerId, RouteConfigId, SlotTable};
use crate::listener::{self, CompiledListener, ListenerTable, Names};
use crate::paged::Paged;
use crate::routes::CompiledRoutes;
use crate::runtime::Runtime;

/// Everything that traffic is decided by, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    generation: u64,
    clusters: Paged<Arc<CompiledCluster>>,
    cluster_names: Arc<SlotTable>,
    listeners: Arc<Listeners>,
    routes: Paged<Arc<CompiledRoutes>>,
    route_names: Arc<SlotTable>,
    runtime: Arc<Runtime>,
}

#[derive(Debug, Clone, Default)]
struct Listeners {
    slots: Paged<Arc<CompiledListener>>,
    names: SlotTable,
    table: ListenerTable,
}

impl Snapshot {
    /// Counts up by one with every build; 0 is the empty snapshot.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The cluster, if there is one under this id's name just now.
    #[inline]
    pub fn cluster(&self, id: ClusterId) -> Option<&Arc<CompiledCluster>> {
        self.clusters
            .get(id.index())
            .filter(|cluster| cluster.id() == id)
    }

    /// For `cluster_header` and admin; routes hold ids.
    pub fn cluster_by_name(&self, name: &str) -> Option<&Arc<CompiledCluster>> {
        let slot = self.cluster_names.get(name)?;
        self.cluster(ClusterId::of(&slot))
    }

    /// In the order of their slots.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<CompiledCluster>> {
        self.clusters.iter()
    }

    /// One more than the largest `ClusterId::index()` in use: the size of a table indexed by it.
    pub fn cluster_slots(&self) -> usize {
        self.cluster_names.len()
    }

    #[inline]
    pub fn listener(&self, id: ListenerId) -> Option<&Arc<CompiledListener>> {
        self.listeners
            .slots
            .get(id.index())
            .filter(|listener| listener.id() == id)
    }

    pub fn listener_by_name(&self, name: &str) -> Option<&Arc<CompiledListener>> {
        let slot = self.listeners.names.get(name)?;
        self.listener(ListenerId::of(&slot))
    }

    pub fn listeners(&self) -> impl Iterator<Item = &Arc<CompiledListener>> {
        self.listeners.slots.iter()
    }

    pub fn listener_slots(&self) -> usize {
        self.listeners.names.len()
    }

    /// Listeners by address, for the hand-off of redirected connections.
    #[inline]
    pub fn listener_table(&self) -> &ListenerTable {
        &self.listeners.table
    }

    /// A route configuration delivered by RDS. `None`: not yet, or no longer (then the snapshot that the connection was
    /// accepted under still has it).
    #[inline]
    pub fn routes(&self, id: RouteConfigId) -> Option<&Arc<CompiledRoutes>> {
        self.routes
            .get(id.index())
            .filter(|routes| routes.rds_id() == Some(id))
    }

    pub fn routes_by_name(&self, name: &str) -> Option<&Arc<CompiledRoutes>> {
        let slot = self.route_names.get(name)?;
        self.routes(RouteConfigId::of(&slot))
    }

    /// Those delivered by RDS.
    pub fn route_configurations(&self) -> impl Iterator<Item = &Arc<CompiledRoutes>> {
        self.routes.iter()
    }

    #[inline]
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }
}

/// Makes the next snapshot. Every setter returns whether anything changed; unchanged content (by pointer, else by value)
/// is left alone, its compiled form shared.
#[derive(Debug)]
pub struct SnapshotBuilder {
    next: Snapshot,
    changed: bool,
    /// Something that holds names was replaced or removed.
    released: bool,
    listeners_changed: bool,
}

impl Default for SnapshotBuilder {
    fn default() -> Self {
        Self::from(&Snapshot::default())
    }
}

impl From<&Snapshot> for SnapshotBuilder {
    fn from(previous: &Snapshot) -> Self {
        let mut next = previous.clone();
        next.generation += 1;
        Self {
            next,
            changed: false,
            released: false,
            listeners_changed: false,
        }
    }
}

impl From<&Arc<Snapshot>> for SnapshotBuilder {
    fn from(previous: &Arc<Snapshot>) -> Self {
        Self::from(&**previous)
    }
}

impl SnapshotBuilder {
    /// Adds or replaces a cluster. A replaced one gets a new incarnation and keeps its endpoints where their source is the same.
    /// # Errors
    /// A transport socket that cannot be made; the cluster stays as it was.
    pub fn set_cluster(&mut self, config: Arc<Cluster>) -> Result<bool, CompileError> {
        let old = self.next.cluster_by_name(&config.name).cloned();
        if let Some(old) = &old
            && (Arc::ptr_eq(&old.config, &config) || old.config == config)
        {
            return Ok(false);
        }
        let key = match &old {
            Some(old) => old.key.clone(),
            None => {
                ClusterRef::new(Arc::make_mut(&mut self.next.cluster_names).intern(&config.name))
            }
        };
        let mut cluster = CompiledCluster::new(key, config, self.next.generation)?;
        if let Some(old) = old {
            cluster.inherit(&old);
        }
        self.put_cluster(cluster);
        Ok(true)
    }

    pub fn remove_cluster(&mut self, name: &str) -> bool {
        let Some(id) = self.next.cluster_by_name(name).map(|cluster| cluster.id()) else {
            return false;
        };
        self.next.clusters.set(id.index(), None);
        self.changed = true;
        self.released = true;
        true
    }

    /// Endpoints of an EDS cluster, by the name of the cluster (not the service). False when there is no such cluster or
    /// nothing changed.
    pub fn set_endpoints(&mut self, cluster: &str, assignment: Arc<ClusterLoadAssignment>) -> bool {
        self.update_cluster(cluster, |c| c.set_assignment(assignment))
    }

    /// What DNS said for one of a cluster's names, in the resolver's order (ports come from the configuration).
    pub fn set_resolved(
        &mut self,
        cluster: &str,
        host: &Name,
        port: u16,
        addresses: Vec<IpAddr>,
    ) -> bool {
        self.update_cluster(cluster, |c| c.set_resolved(host, port, addresses))
    }

    fn update_cluster(
        &mut self,
        name: &str,
        update: impl FnOnce(&mut CompiledCluster) -> bool,
    ) -> bool {
        let Some(old) = self.next.cluster_by_name(name) else {
            return false;
        };
        let mut cluster = (**old).clone();
        if !update(&mut cluster) {
            return false;
        }
        self.put_cluster(cluster);
        true
    }

    fn put_cluster(&mut self, cluster: CompiledCluster) {
        let index = cluster.id().index();
        self.next.clusters.set(index, Some(Arc::new(cluster)));
        self.changed = true;
    }

    /// Adds or replaces a listener. Filter chains that stay the same stay the same `Arc`. On an error nothing has changed.
    pub fn set_listener(&mut self, config: Arc<Listener>) -> Result<bool, CompileError> {
        let old = self.next.listener_by_name(&config.name).cloned();
        if let Some(old) = &old
            && (Arc::ptr_eq(&old.config, &config) || old.config == config)
        {
            return Ok(false);
        }
        let mut names = Names::new(
            Arc::make_mut(&mut self.next.cluster_names),
            Arc::make_mut(&mut self.next.route_names),
        );
        let listeners = Arc::make_mut(&mut self.next.listeners);
        let slot = listeners.names.intern(&config.name);
        let compiled = listener::compile(
            &config,
            slot,
            self.next.generation,
            old.as_deref(),
            &mut names,
        )?;
        listeners
            .slots
            .set(compiled.id().index(), Some(Arc::new(compiled)));
        self.changed = true;
        self.released |= old.is_some();
        self.listeners_changed = true;
        Ok(true)
    }

    pub fn remove_listener(&mut self, name: &str) -> bool {
        let Some(id) = self.next.listener_by_name(name).map(|l| l.id()) else {
            return false;
        };
        let listeners = Arc::make_mut(&mut self.next.listeners);
        listeners.slots.set(id.index(), None);
        self.changed = true;
        self.released = true;
        self.listeners_changed = true;
        true
    }

    /// Adds or replaces a route configuration delivered by RDS. Virtual hosts that stay the same stay compiled.
    pub fn set_route_configuration(
        &mut self,
        config: Arc<RouteConfiguration>,
    ) -> Result<bool, CompileError> {
        let old = self.next.routes_by_name(&config.name).cloned();
        if let Some(old) = &old
            && (Arc::ptr_eq(&old.config, &config) || old.config == config)
        {
            return Ok(false);
        }
        let mut names = Names::new(
            Arc::make_mut(&mut self.next.cluster_names),
            Arc::make_mut(&mut self.next.route_names),
        );
        let key = names.route_config(&config.name);
        let index = key.id().index();
        let compiled = CompiledRoutes::compile_rds(&config, key, old.as_deref(), &mut names)?;
        self.next.routes.set(index, Some(Arc::new(compiled)));
        self.changed = true;
        self.released |= old.is_some();
        Ok(true)
    }

    pub fn remove_route_configuration(&mut self, name: &str) -> bool {
        let Some(id) = self.next.routes_by_name(name).and_then(|r| r.rds_id()) else {
            return false;
        };
        self.next.routes.set(id.index(), None);
        self.changed = true;
        self.released = true;
        true
    }

    /// Replaces all runtime values.
    pub fn set_runtime(&mut self, runtime: Runtime) -> bool {
        if *self.next.runtime == runtime {
            return false;
        }
        self.next.runtime = Arc::new(runtime);
        self.changed = true;
        true
    }

    /// Whether anything differs from the snapshot this builder started from.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The snapshot as it would be if built now; for looking up what is there.
    pub fn peek(&self) -> &Snapshot {
        &self.next
    }

    pub fn build(mut self) -> Arc<Snapshot> {
        if self.listeners_changed {
            let listeners = Arc::make_mut(&mut self.next.listeners);
            listeners.table = ListenerTable::new(listeners.slots.iter());
        }
        if self.released {
            // Old generations may still hold names; those are freed by a later sweep.
            Arc::make_mut(&mut self.next.cluster_names).sweep();
            Arc::make_mut(&mut self.next.route_names).sweep();
            Arc::make_mut(&mut self.next.listeners).names.sweep();
        }
        Arc::new(self.next)
    }
}

#[cfg(test)]
mod tests;
