//! `typed_per_filter_config` of one level, compiled; the most specific level that says something wins.

use tidegate_model::Name;
use tidegate_model::route::PerFilterConfig;

use crate::cors::{CompiledCors, CorsLevels};
use crate::error::CompileError;
use crate::fault::CompiledFault;

/// The filters' configurations of a route, virtual host, route configuration or weighted cluster.
#[derive(Debug, Default)]
pub struct CompiledPerFilter {
    pub cors: Option<CompiledCors>,
    pub fault: Option<CompiledFault>,
    disabled: Vec<(Name, bool)>,
}

impl CompiledPerFilter {
    pub(crate) fn compile(config: &PerFilterConfig) -> Result<Self, CompileError> {
        Ok(Self {
            cors: match &config.cors {
                Some(policy) => Some(CompiledCors::compile(policy)?),
                None => None,
            },
            fault: match &config.fault {
                Some(fault) => Some(CompiledFault::compile(fault)?),
                None => None,
            },
            disabled: config.disabled.clone(),
        })
    }

    /// Whether this level switches the filter off (`Some(true)`), on, or says nothing.
    #[inline]
    pub fn disabled(&self, filter: &str) -> Option<bool> {
        self.disabled
            .iter()
            .find(|(name, _)| &**name == filter)
            .map(|(_, disabled)| *disabled)
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.cors.is_none() && self.fault.is_none() && self.disabled.is_empty()
    }
}

/// The levels that apply to a request, most specific first.
#[derive(Debug, Clone, Copy)]
pub struct PerFilterLevels<'a> {
    pub weighted_cluster: Option<&'a CompiledPerFilter>,
    pub route: &'a CompiledPerFilter,
    pub virtual_host: &'a CompiledPerFilter,
    pub route_configuration: &'a CompiledPerFilter,
}

impl<'a> PerFilterLevels<'a> {
    fn levels(self) -> impl Iterator<Item = &'a CompiledPerFilter> {
        self.weighted_cluster.into_iter().chain([
            self.route,
            self.virtual_host,
            self.route_configuration,
        ])
    }

    #[inline]
    pub fn fault(self) -> Option<&'a CompiledFault> {
        self.levels().find_map(|level| level.fault.as_ref())
    }

    /// The CORS filter looks at all levels together, field by field.
    #[inline]
    pub fn cors(self) -> Option<CorsLevels<'a>> {
        CorsLevels::new([
            self.weighted_cluster.and_then(|level| level.cors.as_ref()),
            self.route.cors.as_ref(),
            self.virtual_host.cors.as_ref(),
            self.route_configuration.cors.as_ref(),
        ])
    }

    #[inline]
    pub fn disabled(self, filter: &str, by_default: bool) -> bool {
        self.levels()
            .find_map(|level| level.disabled(filter))
            .unwrap_or(by_default)
    }
}
