//! `HttpConnectionManager`.

use std::sync::Arc;
use std::time::Duration;

use tidegate_model::Name;
use tidegate_model::cluster::ConfigSource;
use tidegate_model::hcm::{
    CodecType, ForwardClientCertDetails, HeaderKeyFormat, HeadersWithUnderscoresAction,
    Http1Options, HttpConnectionManager, HttpFilterKind, InternalAddressConfig,
    PathWithEscapedSlashesAction, RouteSource, ServerHeaderTransformation, UpgradeConfig,
};
use tidegate_model::http2::Http2Options;
use tidegate_model::route::RouteConfiguration;

use crate::context::Result;
use crate::fields::Fields;
use crate::{access_log, address, cluster, http_filter, http2, matcher, route, tracing};

pub(crate) fn connection_manager(fields: &Fields<'_>) -> Result<HttpConnectionManager> {
    fields.ignore(
        &["set_current_client_cert_details"],
        "there is no client certificate on a plain connection",
    );
    fields.ignore(
        &["add_proxy_protocol_connection_state"],
        "there is no PROXY protocol listener filter",
    );
    for name in [
        "add_user_agent",
        "represent_ipv4_remote_address_as_ipv4_mapped_ipv6",
    ] {
        fields.expect_bool(name, false)?;
    }
    request_id_extension(fields)?;
    if fields.bool("strip_matching_host_port") && fields.bool("strip_any_host_port") {
        return Err(fields.fault(
            "strip_matching_host_port",
            "Error: Only one of `strip_matching_host_port` or `strip_any_host_port` can be set.",
        ));
    }
    let http_filters = http_filter::http_filters(fields, "http_filters")?;
    let suppress_envoy_headers = http_filters
        .iter()
        .any(|filter| matches!(&filter.kind, HttpFilterKind::Router(router) if router.suppress_envoy_headers));
    let common = fields.or_default("common_http_protocol_options", common_options)?;
    let stream_error = fields.bool("stream_error_on_invalid_http_message");
    let (http1, http1_stream_error) = fields
        .opt("http_protocol_options", http1_options)?
        .unwrap_or_else(|| {
            (
                Http1Options {
                    allow_absolute_url: true,
                    ..Http1Options::default()
                },
                None,
            )
        });
    Ok(HttpConnectionManager {
        stat_prefix: fields.string("stat_prefix"),
        codec_type: fields.choice(
            "codec_type",
            &[
                ("AUTO", CodecType::Auto),
                ("HTTP1", CodecType::Http1),
                ("HTTP2", CodecType::Http2),
            ],
        )?,
        routes: routes(fields)?,
        http_filters,
        server_name: fields
            .opt_string("server_name")
            .unwrap_or_else(|| Name::from("envoy")),
        server_header_transformation: fields.choice(
            "server_header_transformation",
            &[
                ("OVERWRITE", ServerHeaderTransformation::Overwrite),
                (
                    "APPEND_IF_ABSENT",
                    ServerHeaderTransformation::AppendIfAbsent,
                ),
                ("PASS_THROUGH", ServerHeaderTransformation::PassThrough),
            ],
        )?,
        scheme_to_overwrite: fields
            .opt("scheme_header_transformation", |scheme| {
                Ok(scheme.opt_string("scheme_to_overwrite"))
            })?
            .flatten(),
        max_request_headers_bytes: max_request_headers_bytes(fields),
        max_headers_count: common.max_headers_count,
        idle_timeout: common.idle_timeout,
        max_connection_duration: common.max_connection_duration,
        max_stream_duration: common.max_stream_duration,
        max_requests_per_connection: common.max_requests_per_connection,
        headers_with_underscores_action: common.headers_with_underscores_action,
        stream_idle_timeout: fields.timeout("stream_idle_timeout", Some(Duration::from_mins(5)))?,
        request_timeout: fields.timeout("request_timeout", None)?,
        request_headers_timeout: fields.timeout("request_headers_timeout", None)?,
        drain_timeout: fields
            .duration("drain_timeout")?
            .unwrap_or(Duration::from_secs(5)),
        delayed_close_timeout: fields
            .timeout("delayed_close_timeout", Some(Duration::from_secs(1)))?,
        tracing: fields.opt("tracing", tracing::tracing)?.map(Arc::new),
        access_log: fields.each("access_log", access_log::access_log)?,
        use_remote_address: fields.bool("use_remote_address"),
        xff_num_trusted_hops: fields.u32("xff_num_trusted_hops"),
        skip_xff_append: fields.bool("skip_xff_append"),
        internal_address_config: fields.or_default("internal_address_config", |config| {
            Ok(InternalAddressConfig {
                unix_sockets: config.bool("unix_sockets"),
                cidr_ranges: address::cidr_ranges(config, "cidr_ranges")?,
            })
        })?,
        via: fields.opt_string("via"),
        generate_request_id: fields.opt_bool("generate_request_id").unwrap_or(true),
        preserve_external_request_id: fields.bool("preserve_external_request_id"),
        always_set_request_id_in_response: fields.bool("always_set_request_id_in_response"),
        forward_client_cert_details: fields.choice(
            "forward_client_cert_details",
            &[
                ("SANITIZE", ForwardClientCertDetails::Sanitize),
                ("FORWARD_ONLY", ForwardClientCertDetails::ForwardOnly),
                ("APPEND_FORWARD", ForwardClientCertDetails::AppendForward),
                ("SANITIZE_SET", ForwardClientCertDetails::SanitizeSet),
                (
                    "ALWAYS_FORWARD_ONLY",
                    ForwardClientCertDetails::AlwaysForwardOnly,
                ),
            ],
        )?,
        proxy_100_continue: fields.bool("proxy_100_continue"),
        upgrade_configs: upgrade_configs(fields)?,
        normalize_path: fields.bool("normalize_path"),
        merge_slashes: fields.bool("merge_slashes"),
        path_with_escaped_slashes_action: fields.choice(
            "path_with_escaped_slashes_action",
            &[
                (
                    "IMPLEMENTATION_SPECIFIC_DEFAULT",
                    PathWithEscapedSlashesAction::KeepUnchanged,
                ),
                (
                    "KEEP_UNCHANGED",
                    PathWithEscapedSlashesAction::KeepUnchanged,
                ),
                (
                    "REJECT_REQUEST",
                    PathWithEscapedSlashesAction::RejectRequest,
                ),
                (
                    "UNESCAPE_AND_REDIRECT",
                    PathWithEscapedSlashesAction::UnescapeAndRedirect,
                ),
                (
                    "UNESCAPE_AND_FORWARD",
                    PathWithEscapedSlashesAction::UnescapeAndForward,
                ),
            ],
        )?,
        strip_any_host_port: fields.bool("strip_any_host_port"),
        strip_matching_host_port: fields.bool("strip_matching_host_port"),
        strip_trailing_host_dot: fields.bool("strip_trailing_host_dot"),
        suppress_envoy_headers,
        stream_error_on_invalid_http_message: http1_stream_error.unwrap_or(stream_error),
        append_x_forwarded_port: fields.bool("append_x_forwarded_port"),
        http1,
        http2: http2_options(fields)?,
    })
}

fn routes(fields: &Fields<'_>) -> Result<RouteSource> {
    if let Some(inline) = fields.opt("route_config", route::inline_route_configuration)? {
        return Ok(RouteSource::Inline(Arc::new(inline)));
    }
    fields.refuse("scoped_routes", "is not supported")?;
    fields.need("rds", |rds| {
        let (source, _) = rds.need("config_source", |source| {
            source.ignore(&["initial_fetch_timeout"], "routes are waited for 15 s");
            cluster::config_source(source)
        })?;
        if source != ConfigSource::Ads {
            return Err(rds.fault("config_source", "only ads is supported for routes"));
        }
        Ok(RouteSource::Rds(rds.string("route_config_name")))
    })
}

/// Envoy's own default extension, with its options as far as they mean something without tracing.
fn request_id_extension(fields: &Fields<'_>) -> Result<()> {
    let uuid = |config: &Fields<'_>| {
        config.ignore(
            &["use_request_id_for_trace_sampling"],
            "spans are not reported yet",
        );
        config.expect_bool("pack_trace_reason", true)
    };
    fields
        .opt("request_id_extension", |extension| {
            extension.any(
                "typed_config",
                &[(
                    "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                    &uuid,
                )],
            )
        })
        .map(drop)
}

struct CommonOptions {
    idle_timeout: Option<Duration>,
    max_connection_duration: Option<Duration>,
    max_stream_duration: Option<Duration>,
    max_headers_count: u32,
    max_requests_per_connection: Option<u32>,
    headers_with_underscores_action: HeadersWithUnderscoresAction,
}

impl Default for CommonOptions {
    fn default() -> Self {
        Self {
            idle_timeout: Some(Duration::from_hours(1)),
            max_connection_duration: None,
            max_stream_duration: None,
            max_headers_count: 100,
            max_requests_per_connection: None,
            headers_with_underscores_action: HeadersWithUnderscoresAction::Allow,
        }
    }
}

fn common_options(fields: &Fields<'_>) -> Result<CommonOptions> {
    fields.refuse(
        "max_response_headers_kb",
        "Error: max_response_headers_kb cannot be set on http_connection_manager.",
    )?;
    let default = CommonOptions::default();
    Ok(CommonOptions {
        idle_timeout: fields.timeout("idle_timeout", default.idle_timeout)?,
        max_connection_duration: fields.timeout("max_connection_duration", None)?,
        max_stream_duration: fields.timeout("max_stream_duration", None)?,
        max_headers_count: fields
            .opt_u32("max_headers_count")
            .unwrap_or(default.max_headers_count),
        max_requests_per_connection: fields
            .opt_u32("max_requests_per_connection")
            .filter(|count| *count > 0),
        headers_with_underscores_action: fields.choice(
            "headers_with_underscores_action",
            &[
                ("ALLOW", HeadersWithUnderscoresAction::Allow),
                (
                    "REJECT_REQUEST",
                    HeadersWithUnderscoresAction::RejectRequest,
                ),
                ("DROP_HEADER", HeadersWithUnderscoresAction::DropHeader),
            ],
        )?,
    })
}

/// Downstream HTTP/1 options, and the override of `stream_error_on_invalid_http_message`.
fn http1_options(fields: &Fields<'_>) -> Result<(Http1Options, Option<bool>)> {
    fields.ignore(&["use_balsa_parser"], "there is one parser");
    for name in ["send_fully_qualified_url", "allow_custom_methods"] {
        fields.expect_bool(name, false)?;
    }
    let header_key_format = fields.opt("header_key_format", |format| {
        if format.opt("proper_case_words", |_| Ok(()))?.is_some() {
            return Ok(HeaderKeyFormat::ProperCaseWords);
        }
        format.opt("stateful_formatter", |formatter| {
            formatter.str("name");
            let preserve = |config: &Fields<'_>| config.expect_bool("forward_reason_phrase", false);
            formatter.need_any(
                "typed_config",
                &[(
                    "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig",
                    &preserve,
                )],
            )
        })?;
        Ok(HeaderKeyFormat::PreserveCase)
    })?;
    let options = Http1Options {
        accept_http_10: fields.bool("accept_http_10"),
        default_host_for_http_10: fields.opt_string("default_host_for_http_10"),
        header_key_format: header_key_format.unwrap_or_default(),
        enable_trailers: fields.bool("enable_trailers"),
        allow_absolute_url: fields.opt_bool("allow_absolute_url").unwrap_or(true),
        allow_chunked_length: fields.bool("allow_chunked_length"),
    };
    Ok((
        options,
        fields.opt_bool("override_stream_error_on_invalid_http_message"),
    ))
}

/// Downstream HTTP/2 options. Where they do not override it, the connection manager says what an invalid message ends.
fn http2_options(fields: &Fields<'_>) -> Result<Http2Options> {
    const NAME: &str = "http2_protocol_options";
    let decoded = fields.opt(NAME, http2::options)?;
    let (mut options, is_final) = decoded.map_or_else(Default::default, |decoded| {
        (decoded.options, decoded.stream_error_is_final)
    });
    if let Some(stream_error) = fields.opt_bool("stream_error_on_invalid_http_message")
        && !is_final
    {
        options.stream_error_on_invalid_http_message = stream_error;
    }
    match options.max_header_field_size_bytes {
        Some(one) if one > max_request_headers_bytes(fields) => Err(fields.fault(
            &format!("{NAME}.max_header_field_size_kb"),
            "max_header_field_size_kb must not exceed max_request_headers_kb",
        )),
        _ => Ok(options),
    }
}

fn max_request_headers_bytes(fields: &Fields<'_>) -> u32 {
    fields
        .opt_u32("max_request_headers_kb")
        .unwrap_or(60)
        .saturating_mul(1024)
}

fn upgrade_configs(fields: &Fields<'_>) -> Result<Vec<UpgradeConfig>> {
    let configs = fields.each("upgrade_configs", upgrade_config)?;
    for (at, config) in configs.iter().enumerate() {
        if configs
            .iter()
            .take(at)
            .any(|other| other.upgrade_type == config.upgrade_type)
        {
            return Err(fields.fault(
                &format!("upgrade_configs[{at}]"),
                format!(
                    "Error: multiple upgrade configs with the same name: '{}'",
                    config.upgrade_type
                ),
            ));
        }
    }
    Ok(configs)
}

/// One of `upgrade_configs`, of a connection manager or of a route.
pub(crate) fn upgrade_config(fields: &Fields<'_>) -> Result<UpgradeConfig> {
    let upgrade_type = matcher::lower(fields.str("upgrade_type"));
    if &*upgrade_type == "connect-udp" {
        return Err(fields.fault("upgrade_type", "CONNECT-UDP is not supported"));
    }
    Ok(UpgradeConfig {
        upgrade_type,
        enabled: fields.opt_bool("enabled").unwrap_or(true),
    })
}

/// The routes that a connection manager carries itself.
pub(crate) fn inline_routes(manager: &HttpConnectionManager) -> Option<&RouteConfiguration> {
    match &manager.routes {
        RouteSource::Inline(routes) => Some(routes),
        RouteSource::Rds(_) => None,
    }
}
