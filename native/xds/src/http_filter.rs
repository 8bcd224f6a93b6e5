//! HTTP filters of a connection manager, and their configuration per route.

use std::sync::Arc;

use tidegate_model::Name;
use tidegate_model::hcm::{
    ConfigDiscovery, CorsPolicy, GrpcStats, GrpcStatsMethods, HttpFilter, HttpFilterKind, Router,
};
use tidegate_model::route::{FilterPolicy, PerFilterConfig};

use crate::any::{Decode, type_name};
use crate::context::Result;
use crate::fields::Fields;
use crate::{
    access_log, cluster, compressor, cors, ext_authz, fault, header_mutation, istio, jwt_authn,
    local_ratelimit, lua, rbac,
};

/// The filters, checked as Envoy checks them: one router, and it is the last.
pub(crate) fn http_filters(fields: &Fields<'_>, name: &str) -> Result<Vec<HttpFilter>> {
    let filters = fields.each(name, http_filter)?;
    let filters: Vec<HttpFilter> = filters.into_iter().flatten().collect();
    for (at, filter) in filters.iter().enumerate() {
        let last = at + 1 == filters.len();
        let terminal = last || matches!(filter.kind, HttpFilterKind::Router(_));
        if terminal && filter.disabled {
            return Err(fields.fault(
                &format!("{name}[{at}].disabled"),
                format!(
                    "Error: the last (terminal) filter ({}) in the chain cannot be disabled by default.",
                    filter.name
                ),
            ));
        }
        check_terminal(&filter.name, &filter.kind, last)
            .map_err(|reason| fields.fault(&format!("{name}[{at}]"), reason))?;
    }
    if filters.is_empty() {
        return Err(fields.fault(
            name,
            "the router is missing: a request would have no answer",
        ));
    }
    Ok(filters)
}

/// Whether a filter may stand where it does: the router is the last one, and no other is.
pub fn check_terminal(
    name: &str,
    kind: &HttpFilterKind,
    last: bool,
) -> std::result::Result<(), String> {
    let terminal = match kind {
        // What comes is checked when it is there.
        HttpFilterKind::Missing => return Ok(()),
        HttpFilterKind::Router(_) => true,
        _ => false,
    };
    let kind = kind_name(kind);
    match (terminal, last) {
        (true, false) => Err(format!(
            "Error: terminal filter named {name} of type {kind} must be the last filter in a http filter chain."
        )),
        (false, true) => Err(format!(
            "Error: non-terminal filter named {name} of type {kind} is the last filter in a http filter chain."
        )),
        _ => Ok(()),
    }
}

/// An `envoy.config.core.v3.TypedExtensionConfig`, as ECDS delivers it for an HTTP filter.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtensionConfig {
    pub name: Name,
    /// The full name of the configuration's message.
    pub type_name: Name,
    pub kind: HttpFilterKind,
}

/// `accepts`: says why the message of that name will not do.
pub(crate) fn extension_config(
    fields: &Fields<'_>,
    accepts: &dyn Fn(&str) -> std::result::Result<(), String>,
) -> Result<ExtensionConfig> {
    let type_name = fields.any_type("typed_config").unwrap_or_default();
    accepts(&type_name).map_err(|reason| fields.here(reason))?;
    Ok(ExtensionConfig {
        name: fields.string("name"),
        type_name: type_name.into(),
        kind: fields.need_any("typed_config", SUPPORTED)?,
    })
}

/// Whether a message of that name may configure a filter that wants one of `type_urls`.
pub fn check_extension_type(found: &str, type_urls: &[Name]) -> std::result::Result<(), String> {
    if type_urls.iter().any(|wanted| **wanted == *found) {
        return Ok(());
    }
    Err(format!(
        "Error: filter config has type URL {found} but expect {}.",
        type_urls.join(", ")
    ))
}

fn config_discovery(fields: &Fields<'_>, filter: &str) -> Result<ConfigDiscovery> {
    let initial_fetch_timeout = fields.need("config_source", |source| {
        for name in ["path_config_source", "path", "api_config_source", "self"] {
            source.refuse(name, "ECDS: only ads is supported")?;
        }
        let (_, timeout) = cluster::path_and_timeout(source)?;
        source.need("ads", |_| Ok(()))?;
        Ok(timeout)
    })?;
    let without_warming = fields.bool("apply_default_config_without_warming");
    if without_warming && !fields.has("default_config") {
        return Err(fields.fault(
            "apply_default_config_without_warming",
            format!(
                "Error: filter config {filter} applied without warming but has no default config."
            ),
        ));
    }
    let mut type_urls = Vec::new();
    for (at, url) in fields.strings("type_urls").iter().enumerate() {
        let kind = type_name(url);
        if !is_supported(SUPPORTED, kind) {
            return Err(fields.fault(
                &format!("type_urls[{at}]"),
                format!("Error: no factory found for a required type URL {kind}."),
            ));
        }
        type_urls.push(Name::from(kind));
    }
    if let Some(kind) = fields.any_type("default_config") {
        check_extension_type(&kind, &type_urls)
            .map_err(|reason| fields.fault("default_config", reason))?;
    }
    Ok(ConfigDiscovery {
        type_urls,
        default_config: fields.any("default_config", SUPPORTED)?,
        apply_default_config_without_warming: without_warming,
        initial_fetch_timeout,
    })
}

fn kind_name(kind: &HttpFilterKind) -> &'static str {
    match kind {
        HttpFilterKind::Missing => "",
        HttpFilterKind::Router(_) => "envoy.filters.http.router",
        HttpFilterKind::Cors(_) => "envoy.filters.http.cors",
        HttpFilterKind::Fault(_) => "envoy.filters.http.fault",
        HttpFilterKind::GrpcStats(_) => "envoy.filters.http.grpc_stats",
        HttpFilterKind::GrpcWeb => "envoy.filters.http.grpc_web",
        HttpFilterKind::Compressor(_) => "envoy.filters.http.compressor",
        HttpFilterKind::PeerMetadata(_) => "envoy.filters.http.peer_metadata",
        HttpFilterKind::Alpn(_) => "envoy.filters.http.alpn",
        HttpFilterKind::IstioStats(_) => "envoy.filters.http.istio_stats",
        HttpFilterKind::Rbac(_) => "envoy.filters.http.rbac",
        HttpFilterKind::HeaderMutation(_) => "envoy.filters.http.header_mutation",
        HttpFilterKind::LocalRateLimit(_) => "envoy.filters.http.local_ratelimit",
        HttpFilterKind::Lua(_) => "envoy.filters.http.lua",
        HttpFilterKind::ExtAuthz(_) => "envoy.filters.http.ext_authz",
        HttpFilterKind::JwtAuthn(_) => "envoy.filters.http.jwt_authn",
    }
}

/// The filters there are, by the type of their configuration.
const SUPPORTED: &[(&str, Decode<'static, HttpFilterKind>)] = &[
    (
        "envoy.extensions.filters.http.router.v3.Router",
        &|fields| Ok(HttpFilterKind::Router(router(fields)?)),
    ),
    ("envoy.extensions.filters.http.cors.v3.Cors", &|_| {
        Ok(HttpFilterKind::Cors(CorsPolicy::default()))
    }),
    (
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
        &|fields| Ok(HttpFilterKind::Fault(Arc::new(fault::fault(fields)?))),
    ),
    (
        "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
        &|fields| Ok(HttpFilterKind::GrpcStats(Arc::new(grpc_stats(fields)?))),
    ),
    ("envoy.extensions.filters.http.grpc_web.v3.GrpcWeb", &|_| {
        Ok(HttpFilterKind::GrpcWeb)
    }),
    (
        "envoy.extensions.filters.http.compressor.v3.Compressor",
        &|fields| {
            Ok(HttpFilterKind::Compressor(Arc::new(
                compressor::compressor(fields)?,
            )))
        },
    ),
    (istio::PEER_METADATA, &|fields| {
        Ok(HttpFilterKind::PeerMetadata(Arc::new(
            istio::peer_metadata(fields)?,
        )))
    }),
    (istio::ALPN, &|fields| {
        Ok(HttpFilterKind::Alpn(Arc::new(istio::alpn(fields)?)))
    }),
    (istio::STATS, &|fields| {
        Ok(HttpFilterKind::IstioStats(Arc::new(istio::stats(fields)?)))
    }),
    (
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        &|fields| {
            Ok(HttpFilterKind::HeaderMutation(Arc::new(
                header_mutation::filter(fields)?,
            )))
        },
    ),
    (
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        &|fields| {
            Ok(HttpFilterKind::LocalRateLimit(Arc::new(
                local_ratelimit::http(fields)?,
            )))
        },
    ),
    (
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        &|fields| {
            Ok(HttpFilterKind::ExtAuthz(Arc::new(ext_authz::ext_authz(
                fields,
            )?)))
        },
    ),
    (
        "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        &|fields| {
            Ok(HttpFilterKind::JwtAuthn(Arc::new(jwt_authn::jwt_authn(
                fields,
            )?)))
        },
    ),
    ("envoy.extensions.filters.http.lua.v3.Lua", &|fields| {
        Ok(HttpFilterKind::Lua(Arc::new(lua::filter(fields)?)))
    }),
    ("envoy.extensions.filters.http.rbac.v3.RBAC", &|fields| {
        Ok(HttpFilterKind::Rbac(Arc::new(rbac::http(fields)?)))
    }),
];

fn is_supported<T>(table: &[(&str, T)], kind: &str) -> bool {
    table.iter().any(|(known, _)| *known == kind)
}

/// A filter; `None` for one of an unsupported type that the configuration calls optional.
fn http_filter(fields: &Fields<'_>) -> Result<Option<HttpFilter>> {
    let optional = fields.bool("is_optional");
    let name = fields.string("name");
    let disabled = fields.bool("disabled");
    let discovery = fields.opt("config_discovery", |source| config_discovery(source, &name))?;
    if let Some(discovery) = discovery {
        let default = discovery.default_config.clone();
        return Ok(Some(HttpFilter {
            name,
            disabled,
            kind: default.unwrap_or(HttpFilterKind::Missing),
            discovery: Some(Arc::new(discovery)),
        }));
    }
    if optional
        && fields
            .any_type("typed_config")
            .is_some_and(|found| !is_supported(SUPPORTED, &found))
    {
        fields.ignore(
            &["typed_config"],
            "the filter is not supported and the configuration calls it optional",
        );
        return Ok(None);
    }
    let kind = fields.need_any("typed_config", SUPPORTED)?;
    Ok(Some(HttpFilter {
        name,
        disabled,
        discovery: None,
        kind,
    }))
}

fn grpc_stats(fields: &Fields<'_>) -> Result<GrpcStats> {
    let listed = fields.opt("individual_method_stats_allowlist", |list| {
        list.each("services", |service| {
            Ok((service.string("name"), service.strings("method_names")))
        })
    })?;
    let all = fields.opt_bool("stats_for_all_methods");
    Ok(GrpcStats {
        methods: match listed {
            Some(services) => GrpcStatsMethods::Listed(services),
            None if all == Some(true) => GrpcStatsMethods::All,
            None => GrpcStatsMethods::None,
        },
        emit_filter_state: fields.bool("emit_filter_state"),
        enable_upstream_stats: fields.bool("enable_upstream_stats"),
        replace_dots_in_grpc_service_name: fields.bool("replace_dots_in_grpc_service_name"),
    })
}

fn router(fields: &Fields<'_>) -> Result<Router> {
    fields.ignore(&["start_child_span"], "spans are not reported yet");
    fields.ignore(
        &["suppress_grpc_request_failure_code_stats"],
        "it only changes statistics of gRPC",
    );
    Ok(Router {
        dynamic_stats: fields.opt_bool("dynamic_stats").unwrap_or(true),
        suppress_envoy_headers: fields.bool("suppress_envoy_headers"),
        respect_expected_rq_timeout: fields.bool("respect_expected_rq_timeout"),
        upstream_log: fields.each("upstream_log", access_log::access_log)?,
    })
}

/// What one entry of `typed_per_filter_config` says.
enum Policy {
    Cors(CorsPolicy),
    Fault(tidegate_model::hcm::Fault),
    Other(FilterPolicy),
    Enabled,
    Disabled,
}

/// The configurations that filters may have per route.
const POLICIES: &[(&str, Decode<'static, Policy>)] = &[
    (
        "envoy.extensions.filters.http.cors.v3.CorsPolicy",
        &|fields| cors::policy(fields).map(Policy::Cors),
    ),
    (
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
        &|fields| fault::fault(fields).map(Policy::Fault),
    ),
    (
        "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute",
        &|fields| {
            Ok(Policy::Other(FilterPolicy::Compressor(
                compressor::per_route(fields)?,
            )))
        },
    ),
    (
        "envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
        &|fields| Ok(Policy::Other(FilterPolicy::Rbac(rbac::per_route(fields)?))),
    ),
    (
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
        &|fields| {
            let mutations = header_mutation::per_route(fields)?;
            Ok(Policy::Other(FilterPolicy::HeaderMutation(Arc::new(
                mutations,
            ))))
        },
    ),
    (
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        &|fields| {
            let limit = local_ratelimit::per_route(fields)?;
            Ok(Policy::Other(FilterPolicy::LocalRateLimit(Arc::new(limit))))
        },
    ),
    (
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
        &|fields| {
            let config = Arc::new(ext_authz::per_route(fields)?);
            Ok(Policy::Other(FilterPolicy::ExtAuthz(config)))
        },
    ),
    (
        "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig",
        &|fields| {
            Ok(Policy::Other(FilterPolicy::JwtAuthn(jwt_authn::per_route(
                fields,
            )?)))
        },
    ),
    (
        "envoy.extensions.filters.http.lua.v3.LuaPerRoute",
        &|fields| {
            let config = Arc::new(lua::per_route(fields)?);
            Ok(Policy::Other(FilterPolicy::Lua(config)))
        },
    ),
    (FILTER_CONFIG, &filter_config),
];

const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";

/// `typed_per_filter_config` of one level.
pub(crate) fn per_filter(fields: &Fields<'_>) -> Result<PerFilterConfig> {
    let mut config = PerFilterConfig::default();
    fields.entries("typed_per_filter_config", |name, any| {
        let policy = any.unpack(POLICIES)?;
        if let Policy::Disabled = policy {
            config.disabled.push((name.into(), true));
            return Ok(());
        }
        // Any configuration of a filter switches it on, also one that is off in the connection manager.
        config.disabled.push((name.into(), false));
        match policy {
            Policy::Cors(policy) => config.cors = Some(Arc::new(policy)),
            Policy::Fault(fault) => config.fault = Some(Arc::new(fault)),
            Policy::Other(policy) => config.policies.push((name.into(), policy)),
            Policy::Enabled | Policy::Disabled => {}
        }
        Ok(())
    })?;
    Ok(config)
}

/// `config.route.v3.FilterConfig`, which wraps a configuration.
fn filter_config(wrapper: &Fields<'_>) -> Result<Policy> {
    let optional = wrapper.bool("is_optional");
    if wrapper.bool("disabled") {
        wrapper.ignore(&["config"], "the filter is disabled here");
        return Ok(Policy::Disabled);
    }
    let known = |kind: &str| kind != FILTER_CONFIG && is_supported(POLICIES, kind);
    match wrapper.any_type("config") {
        None => Err(wrapper.fault(
            "config",
            "Empty route/virtual host per filter configuration",
        )),
        Some(kind) if kind.is_empty() => {
            wrapper.get("config");
            Ok(Policy::Enabled)
        }
        Some(kind) if optional && !known(&kind) => {
            wrapper.ignore(
                &["config"],
                "the filter is not supported and the configuration calls it optional",
            );
            Ok(Policy::Enabled)
        }
        Some(kind) if kind == FILTER_CONFIG => Err(wrapper.fault(
            "config",
            "a FilterConfig in a FilterConfig is not supported",
        )),
        Some(_) => wrapper.need_any("config", POLICIES),
    }
}
