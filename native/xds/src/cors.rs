//! `extensions.filters.http.cors.v3.CorsPolicy`, and the older `route.v3.CorsPolicy` with the same fields.

use tidegate_model::hcm::CorsPolicy;

use crate::context::Result;
use crate::fields::Fields;
use crate::matcher;

pub(crate) fn policy(fields: &Fields<'_>) -> Result<CorsPolicy> {
    Ok(CorsPolicy {
        allow_origin: fields.each("allow_origin_string_match", matcher::string)?,
        allow_methods: fields.opt_string("allow_methods"),
        allow_headers: fields.opt_string("allow_headers"),
        expose_headers: fields.opt_string("expose_headers"),
        max_age: fields.opt_string("max_age"),
        allow_credentials: fields.opt_bool("allow_credentials"),
        allow_private_network_access: fields.opt_bool("allow_private_network_access"),
        forward_not_matching_preflights: fields.opt_bool("forward_not_matching_preflights"),
        filter_enabled: fields.opt("filter_enabled", matcher::runtime_fraction)?,
        shadow_enabled: fields.opt("shadow_enabled", matcher::runtime_fraction)?,
    })
}
