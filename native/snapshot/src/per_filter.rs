//! `typed_per_filter_config` of one level, compiled; the most specific level that says something wins.

use tidegate_model::Name;
use tidegate_model::route::{FilterPolicy, PerFilterConfig};

use crate::cors::{CompiledCors, CorsLevels};
use crate::error::CompileError;
use crate::fault::CompiledFault;

/// The filters' configurations of a route, virtual host, route configuration or weighted cluster.
///
/// One word where nothing is configured, as on most routes.
#[derive(Debug, Default)]
pub struct CompiledPerFilter(Option<Box<Inner>>);

#[derive(Debug)]
struct Inner {
    cors: Option<CompiledCors>,
    fault: Option<CompiledFault>,
    disabled: Vec<(Name, bool)>,
    policies: Vec<(Name, FilterPolicy)>,
}

impl CompiledPerFilter {
    pub(crate) fn compile(config: &PerFilterConfig) -> Result<Self, CompileError> {
        let inner = Inner {
            cors: match &config.cors {
                Some(policy) => Some(CompiledCors::compile(policy)?),
                None => None,
            },
            fault: match &config.fault {
                Some(fault) => Some(CompiledFault::compile(fault)?),
                None => None,
            },
            disabled: config.disabled.clone(),
            policies: config.policies.clone(),
        };
        let empty = inner.cors.is_none()
            && inner.fault.is_none()
            && inner.disabled.is_empty()
            && inner.policies.is_empty();
        Ok(Self((!empty).then(|| Box::new(inner))))
    }

    #[inline]
    pub fn cors(&self) -> Option<&CompiledCors> {
        self.0.as_deref()?.cors.as_ref()
    }

    #[inline]
    pub fn fault(&self) -> Option<&CompiledFault> {
        self.0.as_deref()?.fault.as_ref()
    }

    /// Whether this level switches the filter off (`Some(true)`), on, or says nothing.
    #[inline]
    pub fn disabled(&self, filter: &str) -> Option<bool> {
        let inner = self.0.as_deref()?;
        inner
            .disabled
            .iter()
            .find(|(name, _)| &**name == filter)
            .map(|(_, disabled)| *disabled)
    }

    /// What this level says to a filter.
    pub fn policy(&self, filter: &str) -> Option<&FilterPolicy> {
        let policies = &self.0.as_deref()?.policies;
        let found = policies.iter().find(|(name, _)| &**name == filter);
        found.map(|(_, policy)| policy)
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
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
        self.levels().find_map(CompiledPerFilter::fault)
    }

    /// The CORS filter looks at all levels together, field by field.
    #[inline]
    pub fn cors(self) -> Option<CorsLevels<'a>> {
        CorsLevels::new([
            self.weighted_cluster.and_then(CompiledPerFilter::cors),
            self.route.cors(),
            self.virtual_host.cors(),
            self.route_configuration.cors(),
        ])
    }

    /// What the levels say to a filter, most specific first.
    pub fn policies(self, filter: &'a str) -> impl Iterator<Item = &'a FilterPolicy> {
        self.levels().filter_map(move |level| level.policy(filter))
    }

    #[inline]
    pub fn disabled(self, filter: &str, by_default: bool) -> bool {
        self.levels()
            .find_map(|level| level.disabled(filter))
            .unwrap_or(by_default)
    }
}
