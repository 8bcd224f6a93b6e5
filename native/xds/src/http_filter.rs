//! HTTP filters of a connection manager, and their configuration per route.

use std::sync::Arc;

use tidegate_model::hcm::{
    CorsPolicy, GrpcStats, GrpcStatsMethods, HttpFilter, HttpFilterKind, Router,
};
use tidegate_model::route::{FilterPolicy, PerFilterConfig};

use crate::context::Result;
use crate::fields::Fields;
use crate::{access_log, cors, ext_authz, fault, jwt_authn};

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
        HttpFilterKind::ExtAuthz(_) => "envoy.filters.http.ext_authz",
        HttpFilterKind::JwtAuthn(_) => "envoy.filters.http.jwt_authn",
    }
}

const SUPPORTED: &[&str] = &[
    "envoy.extensions.filters.http.router.v3.Router",
    "envoy.extensions.filters.http.cors.v3.Cors",
    "envoy.extensions.filters.http.fault.v3.HTTPFault",
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
    "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
    "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
];

/// A filter; `None` for one of an unsupported type that the configuration calls optional.
fn http_filter(fields: &Fields<'_>) -> Result<Option<HttpFilter>> {
    let optional = fields.bool("is_optional");
    let name = fields.string("name");
    let disabled = fields.bool("disabled");
    if optional
        && fields
            .any_type("typed_config")
            .is_some_and(|found| !SUPPORTED.contains(&found.as_str()))
    {
        fields.ignore(
            &["typed_config"],
            "the filter is not supported and the configuration calls it optional",
        );
        return Ok(None);
    }
    let [
        router_type,
        cors_type,
        fault_type,
        grpc_stats_type,
        grpc_web_type,
        ext_authz_type,
        jwt_authn_type,
    ] = [0, 1, 2, 3, 4, 5, 6].map(|at| SUPPORTED.get(at).copied().unwrap_or_default());
    let kind = fields.need_any(
        "typed_config",
        &[
            (router_type, &|config: &Fields<'_>| {
                Ok(HttpFilterKind::Router(router(config)?))
            }),
            (cors_type, &|_: &Fields<'_>| {
                Ok(HttpFilterKind::Cors(CorsPolicy::default()))
            }),
            (fault_type, &|config: &Fields<'_>| {
                Ok(HttpFilterKind::Fault(Arc::new(fault::fault(config)?)))
            }),
            (grpc_stats_type, &|config: &Fields<'_>| {
                Ok(HttpFilterKind::GrpcStats(Arc::new(grpc_stats(config)?)))
            }),
            (grpc_web_type, &|_: &Fields<'_>| Ok(HttpFilterKind::GrpcWeb)),
            (jwt_authn_type, &|config: &Fields<'_>| {
                Ok(HttpFilterKind::JwtAuthn(Arc::new(jwt_authn::jwt_authn(
                    config,
                )?)))
            }),
            (ext_authz_type, &|config: &Fields<'_>| {
                Ok(HttpFilterKind::ExtAuthz(Arc::new(ext_authz::ext_authz(
                    config,
                )?)))
            }),
        ],
    )?;
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

/// `typed_per_filter_config` of one level.
pub(crate) fn per_filter(fields: &Fields<'_>) -> Result<PerFilterConfig> {
    let mut config = PerFilterConfig::default();
    fields.entries("typed_per_filter_config", |name, any| {
        let policy = any.unpack(&[
            (CORS, &cors_policy),
            (FAULT, &fault_policy),
            (EXT_AUTHZ, &ext_authz_policy),
            (JWT_AUTHN, &jwt_authn_policy),
            ("envoy.config.route.v3.FilterConfig", &filter_config),
        ])?;
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

const CORS: &str = "envoy.extensions.filters.http.cors.v3.CorsPolicy";
const FAULT: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
const EXT_AUTHZ: &str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute";
const JWT_AUTHN: &str = "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig";

/// What routes may say of filters.
const POLICIES: &[&str] = &[CORS, FAULT, EXT_AUTHZ, JWT_AUTHN];

/// What one entry of `typed_per_filter_config` says.
enum Policy {
    Cors(CorsPolicy),
    Fault(tidegate_model::hcm::Fault),
    Other(FilterPolicy),
    Enabled,
    Disabled,
}

/// `config.route.v3.FilterConfig`, which wraps a configuration.
fn filter_config(wrapper: &Fields<'_>) -> Result<Policy> {
    let optional = wrapper.bool("is_optional");
    if wrapper.bool("disabled") {
        wrapper.ignore(&["config"], "the filter is disabled here");
        return Ok(Policy::Disabled);
    }
    match wrapper.any_type("config") {
        None => Err(wrapper.fault(
            "config",
            "Empty route/virtual host per filter configuration",
        )),
        Some(kind) if kind.is_empty() => {
            wrapper.get("config");
            Ok(Policy::Enabled)
        }
        Some(kind) if optional && !POLICIES.contains(&kind.as_str()) => {
            wrapper.ignore(
                &["config"],
                "the filter is not supported and the configuration calls it optional",
            );
            Ok(Policy::Enabled)
        }
        Some(_) => wrapper.need_any(
            "config",
            &[
                (CORS, &cors_policy),
                (FAULT, &fault_policy),
                (EXT_AUTHZ, &ext_authz_policy),
                (JWT_AUTHN, &jwt_authn_policy),
            ],
        ),
    }
}

fn cors_policy(fields: &Fields<'_>) -> Result<Policy> {
    cors::policy(fields).map(Policy::Cors)
}

fn fault_policy(fields: &Fields<'_>) -> Result<Policy> {
    fault::fault(fields).map(Policy::Fault)
}

fn ext_authz_policy(fields: &Fields<'_>) -> Result<Policy> {
    let config = Arc::new(ext_authz::per_route(fields)?);
    Ok(Policy::Other(FilterPolicy::ExtAuthz(config)))
}

fn jwt_authn_policy(fields: &Fields<'_>) -> Result<Policy> {
    let config = jwt_authn::per_route(fields)?;
    Ok(Policy::Other(FilterPolicy::JwtAuthn(config)))
}
