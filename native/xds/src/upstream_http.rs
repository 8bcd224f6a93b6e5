//! HTTP options of an upstream: `extensions.upstreams.http.v3.HttpProtocolOptions` and the cluster's older fields.

use tidegate_model::Name;
use tidegate_model::cluster::{UpstreamHttpOptions, UpstreamProtocol};

use crate::context::Result;
use crate::fields::Fields;
use crate::http2;

/// `extensions.upstreams.http.v3.HttpProtocolOptions`.
pub(crate) fn http_protocol_options(fields: &Fields<'_>) -> Result<UpstreamHttpOptions> {
    let mut options = UpstreamHttpOptions::default();
    upstream_options(fields, &mut options)?;
    let max_headers = fields.opt("common_http_protocol_options", |common| {
        common_options(common, &mut options)?;
        Ok(common.opt_u32("max_response_headers_kb"))
    })?;
    fields.opt("explicit_http_config", |explicit| {
        explicit.refuse("http3_protocol_options", NO_HTTP3)?;
        if explicit.has(HTTP2) {
            options.protocol = UpstreamProtocol::Http2;
        }
        protocols(explicit, &mut options)?;
        field_size(explicit, &options, max_headers.flatten())
    })?;
    fields.opt("use_downstream_protocol_config", |downstream| {
        downstream.refuse("http3_protocol_options", NO_HTTP3)?;
        options.protocol = UpstreamProtocol::Downstream;
        protocols(downstream, &mut options)?;
        field_size(downstream, &options, max_headers.flatten())
    })?;
    fields.opt("auto_config", |auto| {
        auto.refuse("http3_protocol_options", NO_HTTP3)?;
        auto.refuse("alternate_protocols_cache_options", NO_HTTP3)?;
        options.protocol = UpstreamProtocol::Negotiated;
        protocols(auto, &mut options)?;
        field_size(auto, &options, max_headers.flatten())
    })?;
    Ok(options)
}

/// `upstream_http_protocol_options`, of either place.
pub(crate) fn upstream_options(
    fields: &Fields<'_>,
    options: &mut UpstreamHttpOptions,
) -> Result<()> {
    fields
        .opt("upstream_http_protocol_options", |upstream| {
            let header = upstream
                .opt_string("override_auto_sni_header")
                .filter(|name| !name.is_empty());
            if upstream.bool("auto_sni") {
                let header = header.map_or_else(
                    || Name::from(":authority"),
                    |name| Name::from(name.to_ascii_lowercase()),
                );
                options.auto_sni = Some(header);
            }
            options.auto_san_validation = upstream.bool("auto_san_validation");
            Ok(())
        })
        .map(drop)
}

const NO_HTTP3: &str = "HTTP3 requires a QuicUpstreamTransport transport socket";
const HTTP2: &str = "http2_protocol_options";

/// `http_protocol_options` and `http2_protocol_options` of a cluster or of one of its choices of a protocol.
pub(crate) fn protocols(fields: &Fields<'_>, options: &mut UpstreamHttpOptions) -> Result<()> {
    fields.opt("http_protocol_options", |http1| {
        http1_options(http1, options)
    })?;
    if let Some(decoded) = fields.opt(HTTP2, http2::options)? {
        options.http2 = decoded.options;
    }
    Ok(())
}

/// Envoy compares only what was set, and only here.
fn field_size(
    fields: &Fields<'_>,
    options: &UpstreamHttpOptions,
    max_headers_kib: Option<u32>,
) -> Result<()> {
    match (options.http2.max_header_field_size_bytes, max_headers_kib) {
        (Some(one), Some(all)) if one > all.saturating_mul(1024) => Err(fields.fault(
            &format!("{HTTP2}.max_header_field_size_kb"),
            "max_header_field_size_kb must not exceed max_response_headers_kb",
        )),
        _ => Ok(()),
    }
}

/// `config.core.v3.HttpProtocolOptions`, upstream side.
pub(crate) fn common_options(fields: &Fields<'_>, options: &mut UpstreamHttpOptions) -> Result<()> {
    options.idle_timeout = fields.timeout("idle_timeout", options.idle_timeout)?;
    options.max_connection_duration = fields.timeout("max_connection_duration", None)?;
    options.max_stream_duration = fields.timeout("max_stream_duration", None)?;
    if let Some(count) = fields.opt_u32("max_headers_count") {
        options.max_headers_count = count;
    }
    if let Some(kib) = fields.opt_u32("max_response_headers_kb") {
        options.max_response_headers_bytes = kib.saturating_mul(1024);
        options.max_response_headers_bytes_http2 = options.max_response_headers_bytes;
    }
    if let Some(count) = fields.opt_u32("max_requests_per_connection") {
        options.max_requests_per_connection = (count > 0).then_some(count);
    }
    fields.ignore(
        &["headers_with_underscores_action"],
        "Envoy does not apply it to responses either",
    );
    Ok(())
}

/// `config.core.v3.Http1ProtocolOptions`, upstream side.
pub(crate) fn http1_options(fields: &Fields<'_>, options: &mut UpstreamHttpOptions) -> Result<()> {
    fields.ignore(
        &[
            "allow_absolute_url",
            "accept_http_10",
            "default_host_for_http_10",
        ],
        "it is about requests received",
    );
    fields.ignore(&["use_balsa_parser"], "there is one parser");
    options.enable_trailers = fields.bool("enable_trailers");
    Ok(())
}
