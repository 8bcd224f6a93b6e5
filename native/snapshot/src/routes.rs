//! Route configurations, compiled: host lookup, ordered route matching, and the pure evaluation of what a route says.
//!
//! Everything here is a function of (tables, request, random number): traffic, benches and `explain` run the same code.

pub mod action;
pub mod redirect;
pub mod rewrite;

mod hosts;
mod index;
mod lazy_regex_set;
mod path_match;
mod trie;

use std::sync::Arc;

use rustc_hash::FxHashMap;
use tidegate_model::Name;
use tidegate_model::route::{RequireTls, RouteConfiguration, VirtualHost};

pub use self::action::{CompiledAction, CompiledForward, CompiledRoute, Mismatch, RoutedCluster};
use self::hosts::HostTable;
pub use self::hosts::port_start;
use self::index::RouteIndex;
use crate::error::CompileError;
use crate::headers::HeaderMutator;
use crate::ids::{RouteConfigId, RouteConfigRef};
use crate::listener::Names;
use crate::per_filter::CompiledPerFilter;
use crate::request::RequestView;
use crate::retry::CompiledRetryPolicy;
use crate::runtime::Runtime;

/// `config.route.v3.RouteConfiguration` in tables.
#[derive(Debug)]
pub struct CompiledRoutes {
    pub config: Arc<RouteConfiguration>,
    key: Option<RouteConfigRef>,
    hosts: HostTable,
    virtual_hosts: Vec<Arc<CompiledVirtualHost>>,
    pub headers: HeaderMutator,
    pub per_filter: CompiledPerFilter,
}

/// A virtual host with its routes.
#[derive(Debug)]
pub struct CompiledVirtualHost {
    pub config: Arc<VirtualHost>,
    routes: Box<[CompiledRoute]>,
    index: Option<Box<RouteIndex>>,
    pub headers: HeaderMutator,
    pub per_filter: CompiledPerFilter,
    /// Where a request goes that should have come by TLS.
    ssl_redirect: Option<Box<CompiledRoute>>,
    /// As in the configuration, which requests need not touch.
    pub include_request_attempt_count: bool,
    pub include_attempt_count_in_response: bool,
    /// Of routes that have none.
    pub retry_policy: Option<Arc<CompiledRetryPolicy>>,
}

/// What a request matched.
#[derive(Debug, Clone, Copy)]
pub struct Routed<'a> {
    pub virtual_host: &'a Arc<CompiledVirtualHost>,
    pub route: &'a CompiledRoute,
}

impl CompiledRoutes {
    /// Routes that are part of a connection manager.
    pub(crate) fn compile(
        config: &Arc<RouteConfiguration>,
        names: &mut Names<'_>,
    ) -> Result<Self, CompileError> {
        Self::build(config, None, None, names)
    }

    /// Routes delivered by RDS; virtual hosts equal to those of `old` are taken over.
    pub(crate) fn compile_rds(
        config: &Arc<RouteConfiguration>,
        key: RouteConfigRef,
        old: Option<&Self>,
        names: &mut Names<'_>,
    ) -> Result<Self, CompileError> {
        Self::build(config, Some(key), old, names)
    }

    /// Outside a snapshot, for benches and tests of matching.
    pub fn standalone(config: &Arc<RouteConfiguration>) -> Result<Self, CompileError> {
        let mut clusters = crate::ids::SlotTable::default();
        let mut routes = crate::ids::SlotTable::default();
        let mut names = Names::new(&mut clusters, &mut routes);
        Self::compile(config, &mut names)
    }

    fn build(
        config: &Arc<RouteConfiguration>,
        key: Option<RouteConfigRef>,
        old: Option<&Self>,
        names: &mut Names<'_>,
    ) -> Result<Self, CompileError> {
        // A virtual host may be taken over only when what it inherits at compile time is the same.
        let old = old.filter(|old| {
            old.config.ignore_path_parameters_in_path_matching
                == config.ignore_path_parameters_in_path_matching
        });
        let mut known = old.map(KnownHosts::new);
        let mut virtual_hosts = Vec::with_capacity(config.virtual_hosts.len());
        for (position, host) in config.virtual_hosts.iter().enumerate() {
            let kept = known
                .as_mut()
                .and_then(|known| known.find_same(position, host));
            virtual_hosts.push(match kept {
                Some(kept) => kept,
                None => Arc::new(
                    CompiledVirtualHost::compile(
                        host,
                        config.ignore_path_parameters_in_path_matching,
                        names,
                    )
                    .map_err(|e| e.within(&format!("virtual_hosts[{position}]")))?,
                ),
            });
        }
        Ok(Self {
            hosts: HostTable::compile(&config.virtual_hosts)?,
            headers: HeaderMutator::compile(&config.headers)?,
            per_filter: CompiledPerFilter::compile(&config.per_filter)?,
            virtual_hosts,
            config: Arc::clone(config),
            key,
        })
    }

    /// The id under which RDS delivered it; `None` for inline routes.
    #[inline]
    pub fn rds_id(&self) -> Option<RouteConfigId> {
        self.key.as_ref().map(RouteConfigRef::id)
    }

    #[inline]
    pub fn name(&self) -> &Name {
        &self.config.name
    }

    pub fn virtual_hosts(&self) -> &[Arc<CompiledVirtualHost>] {
        &self.virtual_hosts
    }

    /// The virtual host for an authority (`Host` header): exact, longest suffix wildcard, longest prefix wildcard, `*`.
    /// Case does not count; the port does, unless `ignore_port_in_host_matching`.
    #[inline]
    pub fn find_virtual_host(&self, authority: &[u8]) -> Option<&Arc<CompiledVirtualHost>> {
        let host = if self.config.ignore_port_in_host_matching {
            match port_start(authority) {
                Some(start) => authority.get(..start).unwrap_or(authority),
                None => authority,
            }
        } else {
            authority
        };
        self.virtual_hosts.get(self.hosts.find(host)?)
    }

    /// Virtual host and route for a request; `None` is Envoy's 404 with flag `NR`.
    /// `random` decides runtime fractions; use the same number for [`CompiledForward::pick`], as Envoy does.
    #[inline]
    pub fn find(
        &self,
        request: &impl RequestView,
        random: u64,
        runtime: &Runtime,
    ) -> Option<Routed<'_>> {
        let virtual_host = self.find_virtual_host(request.authority())?;
        let route = virtual_host.route(request, random, runtime)?;
        Some(Routed {
            virtual_host,
            route,
        })
    }
}

/// The virtual hosts of the configuration before, to be taken over where they are the same.
struct KnownHosts<'a> {
    hosts: &'a [Arc<CompiledVirtualHost>],
    /// Filled when one is not at its old position.
    by_name: Option<FxHashMap<&'a str, usize>>,
}

impl<'a> KnownHosts<'a> {
    fn new(old: &'a CompiledRoutes) -> Self {
        Self {
            hosts: &old.virtual_hosts,
            by_name: None,
        }
    }

    fn find_same(
        &mut self,
        position: usize,
        host: &Arc<VirtualHost>,
    ) -> Option<Arc<CompiledVirtualHost>> {
        let same = |compiled: &&Arc<CompiledVirtualHost>| {
            Arc::ptr_eq(&compiled.config, host) || compiled.config == *host
        };
        if let Some(kept) = self.hosts.get(position).filter(same) {
            return Some(Arc::clone(kept));
        }
        let hosts = self.hosts;
        let by_name = self.by_name.get_or_insert_with(|| {
            let names = hosts.iter().map(|compiled| &*compiled.config.name);
            names.zip(0..).collect()
        });
        let position = *by_name.get(&*host.name)?;
        hosts.get(position).filter(same).cloned()
    }
}

impl CompiledVirtualHost {
    fn compile(
        config: &Arc<VirtualHost>,
        ignore_path_parameters: bool,
        names: &mut Names<'_>,
    ) -> Result<Self, CompileError> {
        let mut routes = Vec::with_capacity(config.routes.len());
        for (position, route) in config.routes.iter().enumerate() {
            let compiled = CompiledRoute::compile(route, position, ignore_path_parameters, names)
                .map_err(|e| e.within(&format!("routes[{position}]")))?;
            routes.push(compiled);
        }
        let ssl_redirect = match config.require_tls {
            RequireTls::None => None,
            RequireTls::ExternalOnly | RequireTls::All => {
                Some(Box::new(CompiledRoute::ssl_redirect()))
            }
        };
        let index = RouteIndex::compile(&routes).map(Box::new);
        if !index.as_ref().is_some_and(|index| index.has_regex_set()) {
            for (position, route) in routes.iter().enumerate() {
                route
                    .path
                    .prepare()
                    .map_err(|e| e.within(&format!("routes[{position}]")))?;
            }
        }
        Ok(Self {
            index,
            headers: HeaderMutator::compile(&config.headers)?,
            per_filter: CompiledPerFilter::compile(&config.per_filter)?,
            routes: routes.into_boxed_slice(),
            include_request_attempt_count: config.include_request_attempt_count,
            include_attempt_count_in_response: config.include_attempt_count_in_response,
            retry_policy: match &config.retry_policy {
                Some(policy) => Some(names.retry_policy(policy)?),
                None => None,
            },
            config: Arc::clone(config),
            ssl_redirect,
        })
    }

    #[inline]
    pub fn name(&self) -> &Name {
        &self.config.name
    }

    /// In the order of the configuration.
    pub fn routes(&self) -> &[CompiledRoute] {
        &self.routes
    }

    /// The route that was matched, by its position: what a stream keeps of it.
    #[inline]
    pub fn route_at(&self, position: u32) -> &CompiledRoute {
        let listed = self.routes.get(position as usize);
        listed
            .or(self.ssl_redirect.as_deref())
            .unwrap_or(&action::NOWHERE)
    }

    /// The first route, in order, whose every condition holds.
    #[inline]
    pub fn route(
        &self,
        request: &impl RequestView,
        random: u64,
        runtime: &Runtime,
    ) -> Option<&CompiledRoute> {
        if let Some(redirect) = &self.ssl_redirect
            && self.needs_tls(request)
        {
            return Some(redirect);
        }
        match &self.index {
            Some(index) => index.find(&self.routes, request, random, runtime),
            None => self.scan(request, random, runtime),
        }
    }

    /// The same as [`Self::route`] by trying one after the other; what the index is checked against.
    pub fn scan(
        &self,
        request: &impl RequestView,
        random: u64,
        runtime: &Runtime,
    ) -> Option<&CompiledRoute> {
        self.routes
            .iter()
            .find(|route| route.matches(request, random, runtime))
    }

    fn needs_tls(&self, request: &impl RequestView) -> bool {
        use crate::header_name::{HeaderName, WellKnown};

        let scheme = request.scheme();
        if scheme.is_empty() || scheme == b"https" {
            return false;
        }
        match self.config.require_tls {
            RequireTls::None => false,
            RequireTls::All => true,
            RequireTls::ExternalOnly => {
                let internal = HeaderName::known_as(WellKnown::EnvoyInternal);
                request.header(&internal) != Some(b"true")
            }
        }
    }
}

#[cfg(test)]
mod tests;
