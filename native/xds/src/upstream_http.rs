//! HTTP options of an upstream: `extensions.upstreams.http.v3.HttpProtocolOptions` and the cluster's older fields.

use std::time::Duration;

use tidegate_model::cluster::UpstreamHttpOptions;

use crate::context::Result;
use crate::fields::Fields;

/// What a cluster says about HTTP towards its hosts.
#[derive(Debug, Default)]
pub(crate) struct Upstream {
    pub(crate) options: UpstreamHttpOptions,
    pub(crate) http2: Option<Http2>,
}

/// An HTTP/2 upstream; only the xDS client speaks it yet.
#[derive(Debug, Default)]
pub(crate) struct Http2 {
    /// `connection_keepalive`: interval and timeout.
    pub(crate) keepalive: Option<(Duration, Duration)>,
}

pub(crate) const NO_TLS: &str = "it is about TLS, and this upstream has none";

/// `extensions.upstreams.http.v3.HttpProtocolOptions`.
pub(crate) fn http_protocol_options(fields: &Fields<'_>, upstream: &mut Upstream) -> Result<()> {
    fields.ignore(&["upstream_http_protocol_options"], NO_TLS);
    fields.opt("common_http_protocol_options", |common| {
        common_options(common, &mut upstream.options)
    })?;
    fields.opt("explicit_http_config", |explicit| {
        explicit.opt("http_protocol_options", |http1| {
            http1_options(http1, &mut upstream.options)
        })?;
        upstream.http2 = explicit.opt("http2_protocol_options", http2_options)?;
        Ok(())
    })?;
    fields.opt("use_downstream_protocol_config", |downstream| {
        downstream.ignore(
            &["http2_protocol_options", "http3_protocol_options"],
            "only HTTP/1 comes downstream, so only HTTP/1 goes upstream",
        );
        downstream
            .opt("http_protocol_options", |http1| {
                http1_options(http1, &mut upstream.options)
            })
            .map(drop)
    })?;
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

/// `config.core.v3.Http2ProtocolOptions` of the xDS server's cluster.
pub(crate) fn http2_options(fields: &Fields<'_>) -> Result<Http2> {
    fields.ignore(
        &[
            "hpack_table_size",
            "max_concurrent_streams",
            "initial_stream_window_size",
            "initial_connection_window_size",
            "max_outbound_frames",
            "max_outbound_control_frames",
            "max_consecutive_inbound_frames_with_empty_payload",
            "max_inbound_priority_frames_per_stream",
            "max_inbound_window_update_frames_per_data_frame_sent",
            "override_stream_error_on_invalid_http_message",
            "stream_error_on_invalid_http_messaging",
            "use_oghttp2_codec",
            "max_metadata_size",
            "allow_connect",
            "allow_metadata",
        ],
        "the xDS client's gRPC library chooses its own HTTP/2 settings",
    );
    let keepalive = fields.opt("connection_keepalive", |keepalive| {
        keepalive.ignore(
            &["interval_jitter", "connection_idle_interval"],
            "the xDS client's gRPC library paces its pings",
        );
        let interval = keepalive.duration("interval")?;
        let timeout = keepalive.duration("timeout")?.unwrap_or_default();
        Ok(interval.map(|interval| (interval, timeout)))
    })?;
    Ok(Http2 {
        keepalive: keepalive.flatten(),
    })
}
