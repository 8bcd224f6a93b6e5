//! `extensions.filters.http.ext_authz.v3`.

use std::sync::Arc;

use tidegate_model::ext_authz::{
    AuthzService, BodySettings, ExtAuthz, ExtAuthzPerRoute, HttpAuthz,
};
use tidegate_model::matcher::StringMatcher;
use tidegate_model::{Name, RuntimeFlag};

use crate::context::Result;
use crate::fields::Fields;
use crate::{matcher, metadata, services};

/// When an HTTP service is asked again, unless its policy says otherwise.
const RETRY_ON: &str = "5xx,gateway-error,connect-failure,reset";

pub(crate) fn ext_authz(fields: &Fields<'_>) -> Result<ExtAuthz> {
    fields
        .choice("transport_api_version", &[("AUTO", ()), ("V3", ())])
        .map_err(|_| fields.fault("transport_api_version", "only V3 is supported"))?;
    let mut allowed_headers = fields.opt("allowed_headers", patterns)?;
    let service = match fields.opt("grpc_service", services::grpc_service)? {
        Some(service) => AuthzService::Grpc(Arc::new(service)),
        None => {
            let (service, allowed) = fields.need("http_service", http_service)?;
            if allowed.is_some() && allowed_headers.is_some() {
                return Err(fields.fault(
                    "allowed_headers",
                    "Invalid duplicate configuration for allowed_headers.",
                ));
            }
            allowed_headers = allowed_headers.or(allowed);
            AuthzService::Http(Arc::new(service))
        }
    };
    let status = fields.opt("status_on_error", |status| Ok(status.enum_number("code")))?;
    let prefix = fields.str("stat_prefix");
    Ok(ExtAuthz {
        service,
        failure_mode_allow: fields.bool("failure_mode_allow"),
        failure_mode_allow_header_add: fields.bool("failure_mode_allow_header_add"),
        with_request_body: fields.opt("with_request_body", body_settings)?,
        clear_route_cache: fields.bool("clear_route_cache"),
        status_on_error: status
            .and_then(|code| u16::try_from(code).ok())
            .filter(|code| *code > 0)
            .unwrap_or(403),
        validate_mutations: fields.bool("validate_mutations"),
        metadata_context_namespaces: fields.strings("metadata_context_namespaces"),
        filter_enabled: fields.opt("filter_enabled", matcher::runtime_fraction)?,
        filter_enabled_metadata: fields.opt("filter_enabled_metadata", metadata::matcher)?,
        deny_at_disable: fields.opt("deny_at_disable", |flag| {
            Ok(RuntimeFlag {
                default: flag.bool("default_value"),
                runtime_key: flag.opt_string("runtime_key"),
            })
        })?,
        stat_prefix: if prefix.is_empty() {
            Name::default()
        } else {
            Name::from(format!("{prefix}."))
        },
        allowed_headers,
        disallowed_headers: fields.opt("disallowed_headers", patterns)?,
        charge_cluster_response_stats: fields
            .opt_bool("charge_cluster_response_stats")
            .unwrap_or(true),
        encode_raw_headers: fields.bool("encode_raw_headers"),
        enable_dynamic_metadata_ingestion: fields
            .opt_bool("enable_dynamic_metadata_ingestion")
            .unwrap_or(true),
        max_denied_response_body_bytes: fields.u32("max_denied_response_body_bytes"),
    })
}

/// `ListStringMatcher`.
fn patterns(fields: &Fields<'_>) -> Result<Vec<StringMatcher>> {
    fields.each("patterns", matcher::string)
}

fn body_settings(fields: &Fields<'_>) -> Result<BodySettings> {
    Ok(BodySettings {
        max_request_bytes: fields.u32("max_request_bytes"),
        allow_partial_message: fields.bool("allow_partial_message"),
        pack_as_bytes: fields.bool("pack_as_bytes"),
    })
}

fn http_service(fields: &Fields<'_>) -> Result<(HttpAuthz, Option<Vec<StringMatcher>>)> {
    let (_, cluster, timeout) = fields.need("server_uri", services::http_uri)?;
    let path_prefix = fields.string("path_prefix");
    if !path_prefix.is_empty() && !path_prefix.starts_with('/') {
        return Err(fields.fault("path_prefix", "path_prefix should start with \"/\"."));
    }
    let mut service = HttpAuthz {
        cluster,
        timeout,
        path_prefix,
        headers_to_add: Vec::new(),
        allowed_upstream_headers: Vec::new(),
        allowed_upstream_headers_to_append: Vec::new(),
        allowed_client_headers: Vec::new(),
        allowed_client_headers_on_success: Vec::new(),
        dynamic_metadata_from_headers: Vec::new(),
        retry_policy: fields.opt("retry_policy", |policy| {
            services::policy_of(policy, RETRY_ON)
        })?,
    };
    let allowed = fields.opt("authorization_request", |request| {
        service.headers_to_add = request.each("headers_to_add", services::header_value)?;
        request.opt("allowed_headers", patterns)
    })?;
    fields.opt("authorization_response", |response| {
        let list = |name| response.or_default(name, patterns);
        service.allowed_upstream_headers = list("allowed_upstream_headers")?;
        service.allowed_upstream_headers_to_append = list("allowed_upstream_headers_to_append")?;
        service.allowed_client_headers = list("allowed_client_headers")?;
        service.allowed_client_headers_on_success = list("allowed_client_headers_on_success")?;
        service.dynamic_metadata_from_headers = list("dynamic_metadata_from_headers")?;
        Ok(())
    })?;
    Ok((service, allowed.flatten()))
}

pub(crate) fn per_route(fields: &Fields<'_>) -> Result<ExtAuthzPerRoute> {
    let mut config = ExtAuthzPerRoute {
        disabled: fields.bool("disabled"),
        ..ExtAuthzPerRoute::default()
    };
    fields.opt("check_settings", |settings| {
        config.context_extensions = settings.text_entries("context_extensions");
        config.disable_request_body_buffering = settings.bool("disable_request_body_buffering");
        config.with_request_body = settings.opt("with_request_body", body_settings)?;
        Ok(())
    })?;
    Ok(config)
}
