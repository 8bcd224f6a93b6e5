//! A connection manager in one worker: its configuration boiled down to what a request asks, and its statistics.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_codec::h1::{Limits, UnderscoreAction};
use tidegate_model::hcm::{
    HeadersWithUnderscoresAction, HttpConnectionManager, HttpFilterKind,
    ServerHeaderTransformation, UpgradeConfig,
};
use tidegate_model::listener::TrafficDirection;
use tidegate_snapshot::listener::CompiledHttpFilter;
use tidegate_snapshot::{Chain, CompiledHcm, CompiledRoutes, HcmRoutes, Snapshot};
use tidegate_stats::defs::ext_authz as stat_authz;
use tidegate_stats::defs::jwt_authn as stat_jwt;
use tidegate_stats::defs::lua as stat_lua;
use tidegate_stats::defs::{cors, fault, http, http1, listener_http, local_ratelimit};
use tidegate_stats::{Group, Local, Registry};

use super::compressor::{CompressorGroups, CompressorStats};
use super::ext_authz::{self, AuthzRuntime};
use super::istio::IstioFilters;
use super::jwt_authn::{self, JwtRuntime};
use super::lua;
use super::tracing::TracingRuntime;
use crate::http2::LazyStats;
use crate::listener::ListenerRuntime;
use crate::rbac::{RbacGroups, RbacStats};
use crate::worker::Core;

/// One HTTP filter of the chain, by what it does; `index` is its place in the configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filter {
    pub(crate) kind: FilterKind,
    pub(crate) index: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FilterKind {
    Cors,
    Fault,
    GrpcStats,
    GrpcWeb,
    ExtAuthz,
    JwtAuthn,
    Compressor,
    PeerMetadata,
    Alpn,
    /// Does its work at the end of the stream.
    IstioStats,
    Rbac,
    HeaderMutation,
    LocalRateLimit,
    Lua,
    Missing,
    Router,
}

impl FilterKind {
    /// Has something to do with every response's head.
    const fn encodes(self) -> bool {
        matches!(self, Self::Compressor | Self::HeaderMutation | Self::Lua)
    }
}

/// See the module.
pub(crate) struct HcmRuntime {
    pub(crate) chain: Arc<Chain>,
    pub(crate) config: Arc<HttpConnectionManager>,
    pub(crate) limits: Limits,
    pub(crate) http2: Arc<tidegate_codec::h2::Options>,
    pub(crate) filters: Vec<Filter>,
    pub(crate) tracing: Option<TracingRuntime>,
    /// Those with something to do with every response's head, in its order: the last of the chain comes first.
    pub(crate) encoders: Vec<Filter>,
    /// By place in the configuration.
    pub(crate) filter_runtimes: Vec<FilterRuntime>,
    pub(crate) stats: Local<http::ConnectionManager>,
    pub(crate) listener_stats: Local<listener_http::ListenerHttp>,
    pub(crate) cors_stats: Option<Local<cors::Cors>>,
    pub(crate) fault_stats: Option<Local<fault::Fault>>,
    pub(crate) http1_stats: Local<http1::Http1>,
    pub(crate) http2_stats: LazyStats,
    /// What the `server` header becomes, unless the upstream's stays.
    pub(crate) server: Option<Arc<str>>,
    /// `x-envoy-*` response headers are left out.
    pub(crate) suppress_envoy_headers: bool,
    pub(crate) respect_expected_rq_timeout: bool,
    /// Istio's filters, where there are some.
    pub(super) istio: Option<Box<IstioFilters>>,
    /// Statistics by response code.
    pub(crate) dynamic_stats: bool,
    /// Some filter's configuration comes by ECDS.
    pub(crate) discovers: bool,
    /// Told apart from a later listener at the same place by being held.
    _listener: Rc<ListenerRuntime>,
    _groups: HcmGroups,
}

/// What one filter keeps in one worker: its counters, and what else outlives a request.
pub(crate) enum FilterRuntime {
    None,
    ExtAuthz(AuthzRuntime),
    JwtAuthn(JwtRuntime),
    Compressor(CompressorStats),
    Rbac(RbacStats),
    LocalRateLimit(RateLimitStats),
    Lua(Local<stat_lua::Lua>),
}

/// The counters of a rate limit, by the names that the filter and the routes give it.
pub(crate) struct RateLimitStats(RefCell<Vec<NamedRateLimit>>);

struct NamedRateLimit {
    stats: Rc<Local<local_ratelimit::HttpLocalRateLimit>>,
    group: Group<local_ratelimit::HttpLocalRateLimit>,
}

fn rate_limit_prefix(name: &str) -> String {
    format!("{name}.http_local_rate_limit.")
}

impl RateLimitStats {
    fn new(group: Group<local_ratelimit::HttpLocalRateLimit>, worker: usize) -> Self {
        let stats = Rc::new(group.local(worker));
        Self(RefCell::new(vec![NamedRateLimit { stats, group }]))
    }

    /// Those under a name; a route's are made when they are first asked for.
    pub(crate) fn of(
        &self,
        registry: &Registry,
        worker: usize,
        name: &str,
    ) -> Rc<Local<local_ratelimit::HttpLocalRateLimit>> {
        let mut all = self.0.borrow_mut();
        let is_named = |known: &&NamedRateLimit| {
            let prefix = known.group.prefix();
            prefix.strip_suffix(".http_local_rate_limit.") == Some(name)
        };
        if let Some(known) = all.iter().find(is_named) {
            return Rc::clone(&known.stats);
        }
        let group = registry.group(&rate_limit_prefix(name));
        let stats = Rc::new(group.local(worker));
        all.push(NamedRateLimit {
            stats: Rc::clone(&stats),
            group,
        });
        stats
    }
}

/// The counters of one filter.
enum FilterGroups {
    None,
    ExtAuthz(Group<stat_authz::ExtAuthz>),
    JwtAuthn {
        group: Group<stat_jwt::JwtAuthn>,
        providers: usize,
    },
    Compressor(CompressorGroups),
    Rbac(RbacGroups),
    LocalRateLimit(Group<local_ratelimit::HttpLocalRateLimit>),
    Lua(Group<stat_lua::Lua>),
}

impl FilterGroups {
    /// `prefix`: the connection manager's, `http.NAME.`.
    fn new(registry: &Registry, prefix: &str, kind: &HttpFilterKind) -> Self {
        match kind {
            HttpFilterKind::ExtAuthz(config) => {
                Self::ExtAuthz(ext_authz::group(registry, prefix, config))
            }
            HttpFilterKind::JwtAuthn(config) => Self::JwtAuthn {
                group: jwt_authn::group(registry, prefix, config),
                providers: config.providers.len(),
            },
            HttpFilterKind::Compressor(config) => {
                Self::Compressor(CompressorGroups::new(registry, prefix, config))
            }
            HttpFilterKind::LocalRateLimit(config) => {
                Self::LocalRateLimit(registry.group(&rate_limit_prefix(&config.stat_prefix)))
            }
            HttpFilterKind::Lua(config) => Self::Lua(lua::group(registry, prefix, config)),
            HttpFilterKind::Rbac(config) => Self::Rbac(RbacGroups::new(registry, prefix, config)),
            _ => Self::None,
        }
    }

    fn local(&self, worker: usize) -> FilterRuntime {
        match self {
            Self::None => FilterRuntime::None,
            Self::ExtAuthz(group) => FilterRuntime::ExtAuthz(AuthzRuntime::new(group, worker)),
            Self::JwtAuthn { group, providers } => {
                FilterRuntime::JwtAuthn(JwtRuntime::new(group, *providers, worker))
            }
            Self::Compressor(groups) => FilterRuntime::Compressor(groups.local(worker)),
            Self::Lua(group) => FilterRuntime::Lua(group.local(worker)),
            Self::Rbac(groups) => FilterRuntime::Rbac(groups.local(worker)),
            Self::LocalRateLimit(group) => {
                FilterRuntime::LocalRateLimit(RateLimitStats::new(group.clone(), worker))
            }
        }
    }
}

/// The statistics of a connection manager. Held with the configuration, so that they are there before the first request
/// and outlive every connection.
pub(crate) struct HcmGroups {
    manager: Group<http::ConnectionManager>,
    listener: Group<listener_http::ListenerHttp>,
    cors: Option<Group<cors::Cors>>,
    fault: Option<Group<fault::Fault>>,
    http1: Group<http1::Http1>,
    filters: Vec<FilterGroups>,
}

impl HcmGroups {
    pub(crate) fn new(registry: &Registry, compiled: &CompiledHcm, listener_prefix: &str) -> Self {
        let prefix = &compiled.config.stat_prefix;
        let has = |wanted: fn(&HttpFilterKind) -> bool| {
            compiled
                .config
                .http_filters
                .iter()
                .any(|filter| wanted(&filter.kind))
        };
        Self {
            manager: registry.group(&format!("http.{prefix}.")),
            listener: registry.group(&format!("listener.{listener_prefix}.http.{prefix}.")),
            cors: has(|kind| matches!(kind, HttpFilterKind::Cors(_)))
                .then(|| registry.group(&format!("http.{prefix}.cors."))),
            fault: has(|kind| matches!(kind, HttpFilterKind::Fault(_)))
                .then(|| registry.group(&format!("http.{prefix}.fault."))),
            http1: registry.group("http1."),
            filters: compiled
                .config
                .http_filters
                .iter()
                .map(|filter| FilterGroups::new(registry, &format!("http.{prefix}."), &filter.kind))
                .collect(),
        }
    }
}

impl HcmRuntime {
    /// `None`: the chain's filter is no connection manager.
    pub(crate) fn new(
        core: &mut Core,
        chain: &Arc<Chain>,
        listener: &Rc<ListenerRuntime>,
    ) -> Option<Self> {
        let compiled = chain.http()?;
        let config = &compiled.config;
        let groups = HcmGroups::new(
            &core.shared.registry,
            compiled,
            &listener.compiled.config.stat_prefix,
        );
        let mut suppress_envoy_headers = config.suppress_envoy_headers;
        let mut respect_expected_rq_timeout = false;
        let mut dynamic_stats = true;
        let mut filters = Vec::new();
        for (index, filter) in config.http_filters.iter().enumerate() {
            let kind = match &filter.kind {
                HttpFilterKind::Cors(_) => FilterKind::Cors,
                HttpFilterKind::Fault(_) => FilterKind::Fault,
                HttpFilterKind::GrpcStats(_) => FilterKind::GrpcStats,
                HttpFilterKind::GrpcWeb => FilterKind::GrpcWeb,
                HttpFilterKind::ExtAuthz(_) => FilterKind::ExtAuthz,
                HttpFilterKind::JwtAuthn(_) => FilterKind::JwtAuthn,
                HttpFilterKind::Compressor(_) => FilterKind::Compressor,
                HttpFilterKind::PeerMetadata(_) => FilterKind::PeerMetadata,
                HttpFilterKind::Alpn(_) => FilterKind::Alpn,
                HttpFilterKind::IstioStats(_) => FilterKind::IstioStats,
                HttpFilterKind::Lua(_) => FilterKind::Lua,
                HttpFilterKind::Missing => FilterKind::Missing,
                HttpFilterKind::Rbac(_) => FilterKind::Rbac,
                HttpFilterKind::HeaderMutation(_) => FilterKind::HeaderMutation,
                HttpFilterKind::LocalRateLimit(_) => FilterKind::LocalRateLimit,
                HttpFilterKind::Router(router) => {
                    suppress_envoy_headers |= router.suppress_envoy_headers;
                    respect_expected_rq_timeout = router.respect_expected_rq_timeout;
                    dynamic_stats = router.dynamic_stats;
                    FilterKind::Router
                }
            };
            filters.push(Filter { kind, index });
        }
        let underscores = match config.headers_with_underscores_action {
            HeadersWithUnderscoresAction::Allow => UnderscoreAction::Allow,
            HeadersWithUnderscoresAction::RejectRequest => UnderscoreAction::Reject,
            HeadersWithUnderscoresAction::DropHeader => UnderscoreAction::Drop,
        };
        Some(Self {
            http2: crate::http2::options(
                &config.http2,
                config.max_request_headers_bytes,
                config.max_headers_count,
                underscores,
                listener.buffer_limit(),
            ),
            limits: Limits {
                max_head_bytes: config.max_request_headers_bytes,
                max_headers: config.max_headers_count,
                underscores,
                allow_chunked_length: config.http1.allow_chunked_length,
                accept_http_10: config.http1.accept_http_10,
                allow_absolute_url: config.http1.allow_absolute_url,
                // Envoy takes `https://` targets on plaintext listeners too.
                over_tls: true,
            },
            encoders: filters
                .iter()
                .rev()
                .copied()
                .filter(|filter| filter.kind.encodes())
                .collect(),
            filter_runtimes: groups
                .filters
                .iter()
                .map(|filter| filter.local(core.id))
                .collect(),
            filters,
            tracing: TracingRuntime::new(core, compiled, listener.direction()),
            stats: groups.manager.local(core.id),
            listener_stats: groups.listener.local(core.id),
            cors_stats: groups.cors.as_ref().map(|group| group.local(core.id)),
            fault_stats: groups.fault.as_ref().map(|group| group.local(core.id)),
            http1_stats: groups.http1.local(core.id),
            http2_stats: LazyStats::new("http2.".to_owned()),
            server: match config.server_header_transformation {
                ServerHeaderTransformation::PassThrough => None,
                _ => Some(Arc::clone(&config.server_name)),
            },
            suppress_envoy_headers,
            respect_expected_rq_timeout,
            dynamic_stats,
            discovers: config
                .http_filters
                .iter()
                .any(|filter| filter.discovery.is_some()),
            istio: IstioFilters::new(
                core,
                compiled,
                listener.compiled.config.traffic_direction == TrafficDirection::Inbound,
            ),
            config: Arc::clone(config),
            chain: Arc::clone(chain),
            _listener: Rc::clone(listener),
            _groups: groups,
        })
    }

    /// Whether nothing but this worker's memory of it holds the chain any more.
    pub(crate) fn is_unused(self: &Rc<Self>) -> bool {
        Rc::strong_count(self) == 1 && Arc::strong_count(&self.chain) == 1
    }

    pub(crate) fn compiled(&self) -> Option<&CompiledHcm> {
        self.chain.http()
    }

    /// The filter at a place in the configuration.
    pub(crate) fn filter(&self, index: usize) -> Option<&CompiledHttpFilter> {
        self.compiled()?.filters.get(index).map(|filter| &**filter)
    }

    /// The route table in force. `None`: RDS has not delivered it, or it is gone.
    #[inline]
    pub(crate) fn routes(&self, snapshot: &Snapshot) -> Option<Arc<CompiledRoutes>> {
        match &self.compiled()?.routes {
            HcmRoutes::Rds(name) => snapshot.routes(name.id()).map(Arc::clone),
            HcmRoutes::Inline(routes) => Some(Arc::clone(routes)),
        }
    }

    /// Whether requests may upgrade to this protocol; what the route says goes before what the manager says.
    pub(crate) fn allows_upgrade(&self, protocol: &[u8], of_route: &[UpgradeConfig]) -> bool {
        let named = |config: &&UpgradeConfig| {
            config
                .upgrade_type
                .as_bytes()
                .eq_ignore_ascii_case(protocol)
        };
        if let Some(config) = of_route.iter().find(named) {
            return config.enabled;
        }
        self.config
            .upgrade_configs
            .iter()
            .find(named)
            .is_some_and(|config| config.enabled)
    }
}
