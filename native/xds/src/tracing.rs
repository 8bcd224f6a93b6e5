//! Tracing: `HttpConnectionManager.Tracing`, what routes say over it, and the providers.

use std::time::Duration;

use tidegate_model::tracing::{
    CustomTag, CustomTagValue, Decorator, Exporter, HttpService, OpenTelemetry, Provider,
    RouteTracing, Sampler, Sampling, Tracing, Zipkin,
};
use tidegate_model::{Fraction, Name};

use crate::context::Result;
use crate::fields::Fields;
use crate::{matcher, services};

/// Of a report, when the configuration gives none.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn tracing(fields: &Fields<'_>) -> Result<Tracing> {
    fields.expect_bool("verbose", false)?;
    for name in ["operation", "upstream_operation"] {
        fields.refuse(name, "the operation of a span is not a format yet")?;
    }
    Ok(Tracing {
        sampling: Sampling {
            client: percent(fields, "client_sampling", 10_000)?,
            random: percent(fields, "random_sampling", 100)?,
            overall: percent(fields, "overall_sampling", 10_000)?,
        },
        max_path_tag_length: fields.opt_u32("max_path_tag_length").unwrap_or(256) as usize,
        custom_tags: fields.each("custom_tags", custom_tag)?,
        spawn_upstream_span: fields.opt_bool("spawn_upstream_span").unwrap_or(false),
        provider: fields.opt("provider", provider)?,
    })
}

/// A percentage as Envoy reads it: rounded to so many millionths.
fn percent(fields: &Fields<'_>, name: &str, step: u32) -> Result<Fraction> {
    let value = fields.opt(name, |percent| {
        Ok(percent.opt_double("value").unwrap_or_default())
    })?;
    let steps = (value.unwrap_or(100.0) * 10_000.0 / f64::from(step)).round();
    Ok(Fraction {
        per_million: (steps as u32).saturating_mul(step).min(1_000_000),
    })
}

fn custom_tag(fields: &Fields<'_>) -> Result<CustomTag> {
    fields.refuse("value", "the value of a tag is not a format yet")?;
    let name = fields.string("tag");
    let literal = fields.opt("literal", |literal| Ok(literal.string("value")))?;
    let environment = fields.opt("environment", |variable| {
        let default = variable.string("default_value");
        let found = std::env::var(variable.str("name")).ok();
        Ok(found.map_or(default, Name::from))
    })?;
    let header = fields.opt("request_header", |header| {
        Ok(CustomTagValue::RequestHeader {
            name: Name::from(header.str("name").to_ascii_lowercase()),
            default: header.string("default_value"),
        })
    })?;
    let metadata = fields.opt("metadata", request_metadata)?;
    let value = literal
        .or(environment)
        .map(CustomTagValue::Literal)
        .or(header)
        .or(metadata)
        .unwrap_or_else(|| CustomTagValue::Literal(Name::from("")));
    Ok(CustomTag { name, value })
}

/// A value of the request's dynamic metadata; that of routes, clusters and hosts has no reader.
fn request_metadata(fields: &Fields<'_>) -> Result<CustomTagValue> {
    fields.need("kind", |kind| {
        for other in ["route", "cluster", "host"] {
            kind.refuse(other, "only the request's metadata is supported")?;
        }
        kind.opt("request", |_| Ok(()))
    })?;
    let (filter, path) = fields.need("metadata_key", |key| {
        let path = key.each("path", |segment| Ok(segment.string("key")))?;
        Ok((key.string("key"), path))
    })?;
    Ok(CustomTagValue::RequestMetadata {
        filter,
        path,
        default: fields.string("default_value"),
    })
}

/// `config.trace.v3.Tracing.Http`.
pub(crate) fn provider(fields: &Fields<'_>) -> Result<Provider> {
    fields.str("name");
    fields.need_any(
        "typed_config",
        &[
            ("envoy.config.trace.v3.ZipkinConfig", &zipkin),
            ("envoy.config.trace.v3.OpenTelemetryConfig", &opentelemetry),
        ],
    )
}

fn zipkin(fields: &Fields<'_>) -> Result<Provider> {
    fields.expect_bool("split_spans_for_request", false)?;
    fields.choice("trace_context_option", &[("USE_B3", ())])?;
    // JSON is the default of old under its deprecated name, too.
    fields.choice(
        "collector_endpoint_version",
        &[
            ("HTTP_JSON", ()),
            ("DEPRECATED_AND_UNAVAILABLE_DO_NOT_USE", ()),
        ],
    )?;
    let service = fields.opt("collector_service", |service| {
        service.refuse(
            "request_headers_to_add",
            "reports have no headers of their own yet",
        )?;
        service.need("http_uri", |uri| {
            let cluster = uri.string("cluster");
            let timeout = uri.duration("timeout")?.unwrap_or(REPORT_TIMEOUT);
            let (host, path) = host_and_path(uri.str("uri"));
            Ok((cluster, Name::from(host), Name::from(path), timeout))
        })
    })?;
    let (cluster, hostname, endpoint, timeout) = match service {
        Some(service) => service,
        None => {
            let cluster = fields.string("collector_cluster");
            if cluster.is_empty() {
                return Err(fields.fault(
                    "collector_cluster",
                    "collector_cluster must be specified when not using collector_service",
                ));
            }
            let endpoint = fields.string("collector_endpoint");
            if endpoint.is_empty() {
                return Err(fields.fault(
                    "collector_endpoint",
                    "collector_endpoint must be specified when not using collector_service",
                ));
            }
            let hostname = fields.opt_string("collector_hostname");
            (
                cluster.clone(),
                hostname.unwrap_or(cluster),
                endpoint,
                REPORT_TIMEOUT,
            )
        }
    };
    Ok(Provider::Zipkin(Zipkin {
        cluster,
        hostname,
        endpoint,
        timeout,
        shared_span_context: fields.opt_bool("shared_span_context").unwrap_or(true),
        trace_id_128bit: fields.bool("trace_id_128bit"),
    }))
}

fn opentelemetry(fields: &Fields<'_>) -> Result<Provider> {
    let grpc = fields.opt("grpc_service", |service| {
        service.ignore(
            &["timeout"],
            "a report waits as long as it takes, as in Envoy",
        );
        services::grpc_service(service)
    })?;
    let http = fields.opt("http_service", |service| {
        let headers = service.each("request_headers_to_add", |option| {
            option.ignore(
                &["append", "append_action", "keep_empty_value"],
                "the header is set, as Envoy does",
            );
            option.need("header", services::header_value)
        })?;
        service.need("http_uri", |uri| {
            let (text, cluster, timeout) = services::http_uri(uri)?;
            let (host, path) = host_and_path(&text);
            Ok(HttpService {
                cluster,
                host: Name::from(host),
                path: Name::from(path),
                timeout,
                headers,
            })
        })
    })?;
    let exporter = match (grpc, http) {
        (Some(_), Some(_)) => {
            return Err(fields.fault("http_service", "grpc_service is the exporter already"));
        }
        (Some(grpc), None) => Some(Exporter::Grpc(grpc)),
        (None, http) => http.map(Exporter::Http),
    };
    let service = fields.opt_string("service_name");
    let service = service.unwrap_or_else(|| Name::from("unknown_service:envoy"));
    let mut resource = vec![(Name::from("service.name"), service)];
    for found in fields.each("resource_detectors", resource_detector)? {
        resource.extend(found);
    }
    Ok(Provider::OpenTelemetry(Box::new(OpenTelemetry {
        exporter,
        resource,
        sampler: fields.opt("sampler", sampler)?,
        max_cache_size: fields.opt_u32("max_cache_size").unwrap_or(1024),
    })))
}

fn resource_detector(fields: &Fields<'_>) -> Result<Vec<(Name, Name)>> {
    fields.str("name");
    fields.need_any(
        "typed_config",
        &[
            (
                "envoy.extensions.tracers.opentelemetry.resource_detectors.v3.EnvironmentResourceDetectorConfig",
                &|_: &Fields<'_>| {
                    let text = std::env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
                    Ok(resource_attributes(&text))
                },
            ),
            (
                "envoy.extensions.tracers.opentelemetry.resource_detectors.v3.StaticConfigResourceDetectorConfig",
                &|fixed: &Fields<'_>| {
                    let mut attributes = fixed.text_entries("attributes");
                    attributes.retain(|(key, _)| !key.is_empty());
                    Ok(attributes)
                },
            ),
        ],
    )
}

/// `key=value,…`; what has not that form is passed over.
fn resource_attributes(text: &str) -> Vec<(Name, Name)> {
    let pairs = text.split(',').filter_map(|pair| {
        let mut parts = pair.split('=').filter(|part| !part.is_empty());
        let (key, value) = (parts.next()?, parts.next()?);
        let pair = (Name::from(key), Name::from(value));
        parts.next().is_none().then_some(pair)
    });
    pairs.collect()
}

fn sampler(fields: &Fields<'_>) -> Result<Sampler> {
    fields.str("name");
    fields.need_any(
        "typed_config",
        &[
            (
                "envoy.extensions.tracers.opentelemetry.samplers.v3.AlwaysOnSamplerConfig",
                &|_: &Fields<'_>| Ok(Sampler::AlwaysOn),
            ),
            (
                "envoy.extensions.tracers.opentelemetry.samplers.v3.TraceIdRatioBasedSamplerConfig",
                &|config: &Fields<'_>| {
                    let share = config.opt("sampling_percentage", |share| {
                        let denominator = share.choice(
                            "denominator",
                            &[
                                ("HUNDRED", 100),
                                ("TEN_THOUSAND", 10_000),
                                ("MILLION", 1_000_000),
                            ],
                        )?;
                        Ok((u64::from(share.u32("numerator")), denominator))
                    })?;
                    let (numerator, denominator) = share.unwrap_or((0, 100));
                    Ok(Sampler::TraceIdRatio {
                        numerator,
                        denominator,
                    })
                },
            ),
            (
                "envoy.extensions.tracers.opentelemetry.samplers.v3.ParentBasedSamplerConfig",
                &|config: &Fields<'_>| {
                    let wrapped = config.need("wrapped_sampler", sampler)?;
                    Ok(Sampler::ParentBased(Box::new(wrapped)))
                },
            ),
        ],
    )
}

/// The parts of `http://host:port/path`; a URI without a scheme is read the same way.
fn host_and_path(uri: &str) -> (&str, &str) {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    }
}

/// `config.route.v3.Decorator`.
pub(crate) fn decorator(fields: &Fields<'_>) -> Result<Decorator> {
    Ok(Decorator {
        operation: fields.string("operation"),
        propagate: fields.opt_bool("propagate").unwrap_or(true),
    })
}

/// `config.route.v3.Tracing`.
pub(crate) fn route_tracing(fields: &Fields<'_>) -> Result<RouteTracing> {
    for name in ["operation", "upstream_operation"] {
        fields.refuse(name, "the operation of a span is not a format yet")?;
    }
    let share = |name: &str| {
        let fraction = fields.opt(name, matcher::fraction)?;
        Ok(fraction.unwrap_or(Fraction::ALWAYS))
    };
    Ok(RouteTracing {
        sampling: Sampling {
            client: share("client_sampling")?,
            random: share("random_sampling")?,
            overall: share("overall_sampling")?,
        },
        custom_tags: fields.each("custom_tags", custom_tag)?,
    })
}

#[cfg(test)]
mod tests {
    use super::{host_and_path, resource_attributes};

    #[test]
    fn attributes_of_the_environment() {
        let found = resource_attributes("a=b,broken,c=d=e,,=f, g = h ,i=");
        let found: Vec<_> = found
            .iter()
            .map(|(key, value)| (&**key, &**value))
            .collect();
        assert_eq!(found, [("a", "b"), (" g ", " h ")]);
    }

    #[test]
    fn parts_of_a_uri() {
        assert_eq!(
            host_and_path("http://zipkin.istio-system:9411/api/v2/spans"),
            ("zipkin.istio-system:9411", "/api/v2/spans")
        );
        assert_eq!(host_and_path("zipkin/v1/traces"), ("zipkin", "/v1/traces"));
        assert_eq!(host_and_path("http://zipkin"), ("zipkin", "/"));
    }
}
