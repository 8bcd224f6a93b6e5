//! Runtime layers: the bootstrap's, flattened, those of RTDS over them, and the admin page's over all.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_model::Name;
use tidegate_model::bootstrap::Bootstrap;
use tidegate_snapshot::Runtime;
use tidegate_stats::defs::{discovery, runtime as stat};
use tidegate_stats::{Group, Registry};

use super::rtds::DeliveredLayer;

/// Values by key, a layer over another.
pub(crate) struct RuntimeLayers {
    base: BTreeMap<Name, Name>,
    pub(super) delivered: Vec<DeliveredLayer>,
    /// Of RTDS, where there are such layers.
    pub(super) updates: Option<Group<discovery::Discovery>>,
    /// `None`: the bootstrap has no admin layer, so nothing can be modified.
    admin: Option<BTreeMap<Name, Name>>,
    stats: Group<stat::Runtime>,
}

impl RuntimeLayers {
    pub(crate) fn new(bootstrap: &Bootstrap, registry: &Registry) -> Self {
        let layers = Self {
            base: bootstrap.runtime.iter().cloned().collect(),
            delivered: bootstrap.rtds.iter().map(DeliveredLayer::new).collect(),
            updates: (!bootstrap.rtds.is_empty()).then(|| registry.group("runtime.")),
            admin: bootstrap.admin_layer.then(BTreeMap::new),
            stats: registry.group("runtime."),
        };
        layers.count();
        layers
    }

    /// Whether the admin page may change values.
    pub(crate) fn is_modifiable(&self) -> bool {
        self.admin.is_some()
    }

    /// An empty value removes an override.
    pub(super) fn modify(&mut self, changes: &[(String, String)]) {
        let Some(admin) = &mut self.admin else {
            return;
        };
        for (key, value) in changes {
            if value.is_empty() {
                admin.remove(key.as_str());
            } else {
                admin.insert(key.as_str().into(), value.as_str().into());
            }
        }
        self.count();
    }

    pub(super) fn compile(&self) -> Runtime {
        let pair = |(key, value): (&Name, &Name)| (Name::clone(key), Name::clone(value));
        let delivered = self.delivered.iter().flat_map(|layer| &layer.values);
        let all = self.base.iter().chain(delivered).chain(self.overrides());
        Runtime::new(all.map(pair))
    }

    /// What RTDS has delivered for a layer.
    pub(crate) fn delivered(&self, layer: &str) -> impl Iterator<Item = (&Name, &Name)> {
        let layers = self.delivered.iter();
        let found = layers.filter(move |known| *known.config.name == *layer);
        found.flat_map(|layer| &layer.values)
    }

    /// What the admin page has set.
    pub(crate) fn overrides(&self) -> impl Iterator<Item = (&Name, &Name)> {
        self.admin.iter().flatten()
    }

    pub(super) fn count(&self) {
        let stats = self.stats.shared();
        let overrides = self.admin.as_ref().map_or(0, BTreeMap::len);
        let delivered = self.delivered.iter().flat_map(|layer| layer.values.keys());
        let keys: BTreeSet<&Name> = self
            .base
            .keys()
            .chain(delivered)
            .chain(self.overrides().map(|(key, _)| key))
            .collect();
        stats.inc(stat::LOAD_SUCCESS);
        stats.gauge_set(stat::ADMIN_OVERRIDES_ACTIVE, i64::from(overrides > 0));
        stats.gauge_set(stat::NUM_KEYS, keys.len() as i64);
        stats.gauge_set(
            stat::NUM_LAYERS,
            i64::from(!self.base.is_empty())
                + self.delivered.len() as i64
                + i64::from(self.admin.is_some()),
        );
    }
}
