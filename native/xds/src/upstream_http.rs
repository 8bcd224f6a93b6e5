//! HTTP options of an upstream: `extensions.upstreams.http.v3.HttpProtocolOptions` and the cluster's older fields.

use tidegate_model::cluster::{UpstreamHttpOptions, UpstreamProtocol};

use crate::context::Result;
use crate::fields::Fields;
use crate::http2;

pub(crate) const NO_TLS: &str = "it is about TLS, and this upstream has none";

/// `extensions.upstreams.http.v3.HttpProtocolOptions`.
pub(crate) fn http_protocol_options(fields: &Fields<'_>) -> Result<UpstreamHttpOptions> {
    let mut options = UpstreamHttpOptions::default();
    fields.ignore(&["upstream_http_protocol_options"], NO_TLS);
    fields.opt("common_http_protocol_options", |common| {
        common_options(common, &mut options)
    })?;
    fields.opt("explicit_http_config", |explicit| {
        explicit.refuse("http3_protocol_options", NO_HTTP3)?;
        protocols(explicit, &mut options)?;
        if explicit.has("http2_protocol_options") {
            options.protocol = UpstreamProtocol::Http2;
        }
        Ok(())
    })?;
    fields.opt("use_downstream_protocol_config", |downstream| {
        downstream.ignore(
            &["http3_protocol_options"],
            "no request comes over HTTP/3, so none goes upstream over it",
        );
        options.protocol = UpstreamProtocol::Downstream;
        protocols(downstream, &mut options)
    })?;
    fields.refuse(
        "auto_config",
        "ALPN is negotiated by a TLS transport socket, and TLS is not supported",
    )?;
    Ok(options)
}

const NO_HTTP3: &str = "HTTP/3 is not supported";

/// `http_protocol_options` and `http2_protocol_options` of a cluster or of one of its choices of a protocol.
pub(crate) fn protocols(fields: &Fields<'_>, options: &mut UpstreamHttpOptions) -> Result<()> {
    const HTTP2: &str = "http2_protocol_options";
    fields.opt("http_protocol_options", |http1| {
        http1_options(http1, options)
    })?;
    if let Some(decoded) = fields.opt(HTTP2, http2::options)? {
        http2::check_field_size(
            fields,
            &format!("{HTTP2}.max_header_field_size_kb"),
            &decoded.options,
            options.max_response_headers_bytes_http2,
            "max_header_field_size_kb must not exceed max_response_headers_kb",
        )?;
        options.http2 = decoded.options;
    }
    Ok(())
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
