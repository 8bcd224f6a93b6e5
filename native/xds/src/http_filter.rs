//! HTTP filters of a connection manager, and their configuration per route.

use std::sync::Arc;

use tidegate_model::hcm::{
    CorsPolicy, GrpcStats, GrpcStatsMethods, HttpFilter, HttpFilterKind, Router,
};
use tidegate_model::route::{FilterPolicy, PerFilterConfig};

use crate::any::Decode;
use crate::context::Result;
use crate::fields::Fields;
use crate::{
    access_log, compressor, cors, ext_authz, fault, header_mutation, istio, jwt_authn,
    local_ratelimit, lua, rbac,
};

/// The filters, checked as Envoy checks them: one router, and it is the last.
pub(crate) fn http_filters(fields: &Fields<'_>, name: &str) -> Result<Vec<HttpFilter>> {
    let filters = fields.each(name, http_filter)?;
    let filters: Vec<HttpFilter> = filters.into_iter().flatten().collect();
    for (at, filter) in filters.iter().enumerate() {
        let terminal = matches!(filter.kind, HttpFilterKind::Router(_));
        let last = at + 1 == filters.len();
        let (filter, kind) = (&filter.name, kind_name(&filter.kind));
        if terminal && !last {
            return Err(fields.fault(
                &format!("{name}[{at}]"),
                format!("Error: terminal filter named {filter} of type {kind} must be the last filter in a http filter chain."),
            ));
        }
        if last && !terminal {
            return Err(fields.fault(
                &format!("{name}[{at}]"),
                format!("Error: non-terminal filter named {filter} of type {kind} is the last filter in a http filter chain."),
            ));
        }
    }
    if filters.is_empty() {
        return Err(fields.fault(
            name,
            "the router is missing: a request would have no answer",
        ));
    }
    Ok(filters)
}

fn kind_name(kind: &HttpFilterKind) -> &'static str {
    match kind {
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
    fields.refuse(
        "config_discovery",
        "filters whose configuration comes by ECDS are not supported",
    )?;
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
    if disabled && matches!(kind, HttpFilterKind::Router(_)) {
        return Err(fields.fault("disabled", format!("Error: the last (terminal) filter ({name}) in the chain cannot be disabled by default.")));
    }
    Ok(Some(HttpFilter {
        name,
        disabled,
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
