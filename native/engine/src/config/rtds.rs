//! Runtime layers: RTDS. They are waited for before anything else is asked for, as in Envoy.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_model::Name;
use tidegate_model::bootstrap::RtdsLayer;
use tidegate_stats::defs::discovery;
use tidegate_xds::{Decoder, type_url};

use super::counts::{count_failure, count_update};
use super::{ApplyResult, ConfigSourceKey, Manager, Subscription, Update};
use crate::error::ConfigError;

/// A layer and what was delivered for it.
pub(crate) struct DeliveredLayer {
    pub(crate) config: RtdsLayer,
    pub(crate) values: BTreeMap<Name, Name>,
    /// Whether nobody waits for it (any more).
    settled: bool,
}

impl DeliveredLayer {
    pub(super) fn new(config: &RtdsLayer) -> Self {
        Self {
            config: config.clone(),
            values: BTreeMap::new(),
            settled: false,
        }
    }

    fn source(&self) -> ConfigSourceKey {
        ConfigSourceKey::from(&self.config.source)
    }
}

impl Manager {
    pub(super) fn runtime_is_settled(&self) -> bool {
        self.runtime.delivered.iter().all(|layer| layer.settled)
    }

    pub(super) fn runtime_subscriptions(&self) -> impl Iterator<Item = Subscription> {
        self.runtime.delivered.iter().map(|layer| Subscription {
            type_url: type_url::RUNTIME,
            source: layer.source(),
            names: Arc::new(vec![layer.config.name.to_string()]),
            initial_fetch_timeout: layer.config.initial_fetch_timeout,
        })
    }

    /// The asking is an attempt.
    pub(super) fn count_runtime_asking(&self) {
        let layers = self.runtime.delivered.iter();
        let asked = layers.filter(|layer| layer.source() == ConfigSourceKey::Ads);
        if let Some(stats) = &self.runtime.updates {
            stats
                .shared()
                .add(discovery::UPDATE_ATTEMPT, asked.count() as u64);
        }
    }

    pub(super) fn apply_runtime(&mut self, update: &Update<'_>, origin: &str) -> ApplyResult {
        let mut result = ApplyResult::default();
        let decoder = Decoder::new();
        for (name, raw) in update.resources {
            match self.take_runtime(&decoder, update, origin, name, raw) {
                Ok(changed) => {
                    result.accepted.push(name.clone());
                    if changed {
                        result.changed.push(name.clone());
                    }
                }
                Err(error) => result.rejected.push(error),
            }
        }
        for name in update.removed.iter().flatten() {
            for layer in self.layers_of(origin) {
                if *layer.config.name == **name {
                    layer.values.clear();
                    layer.settled = true;
                }
            }
        }
        let refused = !result.rejected.is_empty();
        if refused {
            // A bad update must not keep the process from serving.
            for layer in self.layers_of(origin) {
                layer.settled = true;
            }
            self.tell_rejections(&mut result, "rtds");
        }
        if let Some(updates) = &self.runtime.updates {
            count_update(updates, update, refused);
        }
        self.publish_runtime();
        result
    }

    fn take_runtime(
        &mut self,
        decoder: &Decoder,
        update: &Update<'_>,
        origin: &str,
        name: &str,
        raw: &[u8],
    ) -> Result<bool, ConfigError> {
        if update.duplicates.contains(name) {
            let reason = format!("duplicate runtime layer {name} found");
            return Err(ConfigError::new(name, "", reason));
        }
        let (own, values) = decoder.runtime(raw)?;
        let values: BTreeMap<Name, Name> = values.into_iter().collect();
        let mut layers = self.layers_of(origin);
        let Some(layer) = layers.find(|layer| layer.config.name == own) else {
            // By ADS it may be what nobody asks for (any more); a file is for one layer.
            drop(layers);
            let expected = self.layers_of(origin).next();
            return match expected {
                Some(layer) if !origin.is_empty() => {
                    let expected = &layer.config.name;
                    let reason = format!("Unexpected RTDS runtime (expecting {expected}): {own}");
                    Err(ConfigError::new("", "", reason))
                }
                _ => Ok(false),
            };
        };
        layer.settled = true;
        let changed = layer.values != values;
        layer.values = values;
        Ok(changed)
    }

    fn layers_of(&mut self, origin: &str) -> impl Iterator<Item = &mut DeliveredLayer> {
        let all = self.runtime.delivered.iter_mut();
        all.filter(move |layer| layer.source().origin() == origin)
    }

    pub(super) fn runtime_failed(&mut self, names: &[String], given_up: bool, origin: &str) {
        let mut concerned = 0;
        for layer in self.layers_of(origin) {
            if names.is_empty() || names.iter().any(|name| **name == *layer.config.name) {
                layer.settled |= given_up;
                concerned += 1;
            }
        }
        if let (Some(stats), 1..) = (&self.runtime.updates, concerned) {
            count_failure(stats, given_up);
        }
        self.subscriptions_stale = true;
    }

    /// A file that could not be read as a layer.
    pub(super) fn runtime_rejected(&mut self, origin: &str) {
        for layer in self.layers_of(origin) {
            layer.settled = true;
        }
        self.publish_runtime();
    }

    fn publish_runtime(&mut self) {
        self.runtime.count();
        self.subscriptions_stale = true;
        let mut builder = self.begin();
        builder.set_runtime(self.runtime.compile());
        self.commit(builder);
    }
}
