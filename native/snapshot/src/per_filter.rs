//! `typed_per_filter_config` of one level, compiled; the most specific level that says something wins.

use std::sync::Arc;

use serde_json::{Map, Value};
use tidegate_model::Name;
use tidegate_model::compressor::CompressorPerRoute;
use tidegate_model::ext_authz::ExtAuthzPerRoute;
use tidegate_model::jwt::JwtPerRoute;
use tidegate_model::route::{FilterPolicy, PerFilterConfig};

use crate::cors::{CompiledCors, CorsLevels};
use crate::error::CompileError;
use crate::fault::CompiledFault;
use crate::header_mutation::CompiledMutations;
use crate::local_ratelimit::CompiledLocalRateLimit;
use crate::lua::CompiledLuaPerRoute;
use crate::rbac::CompiledRbac;

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
    policies: Vec<(Name, CompiledPolicy)>,
    metadata: Option<Arc<Map<String, Value>>>,
}

/// The configuration of one filter at one level.
#[derive(Debug)]
pub enum CompiledPolicy {
    Compressor(CompressorPerRoute),
    HeaderMutation(CompiledMutations),
    LocalRateLimit(Arc<CompiledLocalRateLimit>),
    Lua(CompiledLuaPerRoute),
    Rbac(CompiledRbac),
    ExtAuthz(Arc<ExtAuthzPerRoute>),
    JwtAuthn(JwtPerRoute),
}

impl CompiledPolicy {
    fn compile(policy: &FilterPolicy) -> Result<Self, CompileError> {
        Ok(match policy {
            FilterPolicy::Compressor(policy) => Self::Compressor(*policy),
            FilterPolicy::HeaderMutation(policy) => {
                Self::HeaderMutation(CompiledMutations::compile(policy)?)
            }
            FilterPolicy::LocalRateLimit(policy) => {
                Self::LocalRateLimit(Arc::new(CompiledLocalRateLimit::compile(policy)?))
            }
            FilterPolicy::Lua(policy) => Self::Lua(CompiledLuaPerRoute::compile(policy)),
            FilterPolicy::ExtAuthz(policy) => Self::ExtAuthz(Arc::clone(policy)),
            FilterPolicy::JwtAuthn(policy) => Self::JwtAuthn(policy.clone()),
            FilterPolicy::Rbac(policy) => Self::Rbac(CompiledRbac::compile(policy)?),
        })
    }
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
            metadata: config.metadata.clone(),
            policies: config
                .policies
                .iter()
                .map(|(name, policy)| {
                    let within =
                        |e: CompileError| e.within(&format!("typed_per_filter_config[\"{name}\"]"));
                    let compiled = CompiledPolicy::compile(policy).map_err(within)?;
                    Ok((Name::clone(name), compiled))
                })
                .collect::<Result<_, CompileError>>()?,
        };
        let empty = inner.cors.is_none()
            && inner.fault.is_none()
            && inner.disabled.is_empty()
            && inner.policies.is_empty()
            && inner.metadata.is_none();
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

    /// What this level says to the filter of that name.
    #[inline]
    pub fn policy(&self, filter: &str) -> Option<&CompiledPolicy> {
        let inner = self.0.as_deref()?;
        let named = |(name, _): &&(Name, CompiledPolicy)| &**name == filter;
        inner.policies.iter().find(named).map(|(_, policy)| policy)
    }

    /// What the route's metadata says under a namespace.
    pub fn metadata(&self, namespace: &str) -> Option<&Map<String, Value>> {
        let metadata = self.0.as_deref()?.metadata.as_ref()?;
        metadata.get(namespace)?.as_object()
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

    /// What the most specific level that says something says to the filter of that name.
    #[inline]
    pub fn policy(self, filter: &str) -> Option<&'a CompiledPolicy> {
        self.levels().find_map(|level| level.policy(filter))
    }

    /// What every level says to the filter of that name, most specific first.
    pub fn policies(self, filter: &str) -> impl DoubleEndedIterator<Item = &'a CompiledPolicy> {
        [
            self.weighted_cluster,
            Some(self.route),
            Some(self.virtual_host),
            Some(self.route_configuration),
        ]
        .into_iter()
        .flatten()
        .filter_map(move |level| level.policy(filter))
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

    #[inline]
    pub fn disabled(self, filter: &str, by_default: bool) -> bool {
        self.levels()
            .find_map(|level| level.disabled(filter))
            .unwrap_or(by_default)
    }
}
