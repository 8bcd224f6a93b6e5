//! Runtime layers: the bootstrap's, flattened, and the admin page's over them.

use std::collections::BTreeMap;

use tidegate_model::Name;
use tidegate_model::bootstrap::Bootstrap;
use tidegate_snapshot::Runtime;
use tidegate_stats::defs::runtime as stat;
use tidegate_stats::{Group, Registry};

/// Values by key, a layer over another.
pub(crate) struct RuntimeLayers {
    base: BTreeMap<Name, Name>,
    /// `None`: the bootstrap has no admin layer, so nothing can be modified.
    admin: Option<BTreeMap<Name, Name>>,
    stats: Group<stat::Runtime>,
}

impl RuntimeLayers {
    pub(crate) fn new(bootstrap: &Bootstrap, registry: &Registry) -> Self {
        let layers = Self {
            base: bootstrap.runtime.iter().cloned().collect(),
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
        Runtime::new(self.base.iter().chain(self.overrides()).map(pair))
    }

    /// What the admin page has set.
    pub(crate) fn overrides(&self) -> impl Iterator<Item = (&Name, &Name)> {
        self.admin.iter().flatten()
    }

    fn count(&self) {
        let stats = self.stats.shared();
        let overrides = self.admin.as_ref().map_or(0, BTreeMap::len);
        stats.inc(stat::LOAD_SUCCESS);
        stats.gauge_set(stat::ADMIN_OVERRIDES_ACTIVE, i64::from(overrides > 0));
        stats.gauge_set(stat::NUM_KEYS, (self.base.len() + overrides) as i64);
        stats.gauge_set(
            stat::NUM_LAYERS,
            i64::from(!self.base.is_empty()) + i64::from(self.admin.is_some()),
        );
    }
}
