//! Istio's own filters and the metadata that they read.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use tidegate_model::Name;
use tidegate_model::istio::{
    Alpn, Expression, IstioCluster, IstioService, IstioStats, METRICS, MetadataExchange,
    MetricConfig, MetricDefinition, MetricKind, NodeMetadata, PeerDiscovery, PeerField,
    PeerMetadata, PeerPropagation,
};

use crate::context::Result;
use crate::fields::Fields;
use crate::message::{Encoded, Value};
use crate::metadata;
use crate::value::from_struct;

pub(crate) const PEER_METADATA: &str = "io.istio.http.peer_metadata.Config";
pub(crate) const ALPN: &str = "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";
pub(crate) const STATS: &str = "stats.PluginConfig";
pub(crate) const METADATA_EXCHANGE: &str = "envoy.tcp.metadataexchange.config.MetadataExchange";

pub(crate) fn peer_metadata(fields: &Fields<'_>) -> Result<PeerMetadata> {
    if fields.bool("shared_with_upstream") {
        return Err(fields.fault(
            "shared_with_upstream",
            "there are no internal connections to share it with",
        ));
    }
    let discovery = |method: &Fields<'_>| {
        let nothing = |_: &Fields<'_>| Ok(());
        if method.opt("baggage", nothing)?.is_some() {
            return Ok(Some(PeerDiscovery::Baggage));
        }
        if method.opt("workload_discovery", nothing)?.is_some() {
            return Ok(Some(PeerDiscovery::WorkloadDiscovery));
        }
        let headers = method.opt("istio_headers", |headers| {
            // It says something about what is sent.
            headers.get("skip_external_clusters");
            Ok(())
        })?;
        Ok(headers.map(|()| PeerDiscovery::IstioHeaders))
    };
    let propagation = |method: &Fields<'_>| {
        method.opt("istio_headers", |headers| {
            Ok(PeerPropagation {
                skip_external_clusters: headers.bool("skip_external_clusters"),
            })
        })
    };
    let discoveries = |name| -> Result<Vec<PeerDiscovery>> {
        Ok(fields
            .each(name, discovery)?
            .into_iter()
            .flatten()
            .collect())
    };
    let propagations = |name| -> Result<Vec<PeerPropagation>> {
        Ok(fields
            .each(name, propagation)?
            .into_iter()
            .flatten()
            .collect())
    };
    let mut upstream_discovery = discoveries("upstream_discovery")?;
    // Envoy warns that it exists for requests only.
    upstream_discovery.retain(|method| *method != PeerDiscovery::Baggage);
    Ok(PeerMetadata {
        downstream_discovery: discoveries("downstream_discovery")?,
        upstream_discovery,
        downstream_propagation: propagations("downstream_propagation")?,
        upstream_propagation: propagations("upstream_propagation")?,
        additional_labels: fields.strings("additional_labels"),
    })
}

pub(crate) fn alpn(fields: &Fields<'_>) -> Result<Alpn> {
    let mut alpn = Alpn::default();
    let overrides = fields.each("alpn_override", |entry| {
        let protocol = entry.choice(
            "upstream_protocol",
            &[("HTTP10", 0_u8), ("HTTP11", 1), ("HTTP2", 2)],
        )?;
        Ok((protocol, entry.strings("alpn_override")))
    })?;
    // The first entry for a protocol counts.
    for (protocol, names) in overrides.into_iter().rev() {
        let names = names.into();
        match protocol {
            0 => alpn.http10 = names,
            1 => alpn.http11 = names,
            _ => alpn.http2 = names,
        }
    }
    Ok(alpn)
}

pub(crate) fn metadata_exchange(fields: &Fields<'_>) -> Result<MetadataExchange> {
    // Workloads are looked up where the bootstrap extension subscribes to them, which it does not here.
    fields.get("enable_discovery");
    Ok(MetadataExchange {
        protocol: fields.string("protocol"),
        additional_labels: fields.strings("additional_labels"),
    })
}

/// The metadata exchange among a cluster's `filters`, which has no other.
pub(crate) fn cluster_filters(fields: &Fields<'_>) -> Result<Option<Arc<MetadataExchange>>> {
    let filters = fields.each("filters", |filter| {
        filter.str("name");
        filter.need_any(
            "typed_config",
            &[(METADATA_EXCHANGE, &|config: &Fields<'_>| {
                metadata_exchange(config)
            })],
        )
    })?;
    let mut filters = filters.into_iter();
    let first = filters.next();
    if filters.next().is_some() {
        return Err(fields.fault("filters[1]", "metadata is exchanged once"));
    }
    Ok(first.map(Arc::new))
}

pub(crate) fn stats(fields: &Fields<'_>) -> Result<IstioStats> {
    fields.ignore(
        &["rotation_interval", "graceful_deletion_interval"],
        "Istio's proxy does not rotate metrics any more",
    );
    Ok(IstioStats {
        disable_host_header_fallback: fields.bool("disable_host_header_fallback"),
        reporting_interval: fields
            .timeout("tcp_reporting_duration", Some(Duration::from_secs(5)))?,
        gateway: fields.choice(
            "reporter",
            &[("UNSPECIFIED", false), ("SERVER_GATEWAY", true)],
        )?,
        metrics: fields.each("metrics", metric)?,
        definitions: fields
            .each("definitions", definition)?
            .into_iter()
            .flatten()
            .collect(),
    })
}

fn metric(fields: &Fields<'_>) -> Result<MetricConfig> {
    fields.ignore(&["match"], "Istio's proxy does not implement it either");
    let dimensions = fields
        .get("dimensions")
        .and_then(Value::as_map)
        .unwrap_or_default();
    let mut decoded = Vec::with_capacity(dimensions.len());
    for (label, text) in dimensions {
        let (label, text) = (
            label.as_str().unwrap_or_default(),
            text.as_str().unwrap_or_default(),
        );
        let expression = expression(text)
            .map_err(|reason| fields.fault(&format!("dimensions[\"{label}\"]"), reason))?;
        decoded.push((Name::from(label), expression));
    }
    Ok(MetricConfig {
        name: fields.opt_string("name"),
        drop: fields.bool("drop"),
        tags_to_remove: fields.strings("tags_to_remove"),
        dimensions: decoded,
    })
}

fn definition(fields: &Fields<'_>) -> Result<Option<MetricDefinition>> {
    let name = fields.string("name");
    let value = expression(fields.str("value")).map_err(|reason| fields.fault("value", reason))?;
    let kind = fields.choice(
        "type",
        &[
            ("COUNTER", MetricKind::Counter),
            ("GAUGE", MetricKind::Gauge),
            ("HISTOGRAM", MetricKind::Histogram),
        ],
    )?;
    // A standard metric cannot be defined anew: Istio's proxy passes over it.
    let standard = METRICS.contains(&&*name);
    Ok((!standard).then_some(MetricDefinition { name, value, kind }))
}

/// Attributes and the log operators with the same value.
const ATTRIBUTES: &[(&str, &str)] = &[
    ("request.host", "%REQ(:AUTHORITY)%"),
    ("request.method", "%REQ(:METHOD)%"),
    ("request.path", "%REQ(:PATH)%"),
    ("request.url_path", "%PATH(NQ:PATH)%"),
    ("request.scheme", "%REQ(:SCHEME)%"),
    ("request.protocol", "%PROTOCOL%"),
    ("request.id", "%REQ(X-REQUEST-ID)%"),
    ("request.useragent", "%REQ(USER-AGENT)%"),
    ("request.referer", "%REQ(REFERER)%"),
    ("request.size", "%BYTES_RECEIVED%"),
    ("request.total_size", "%DOWNSTREAM_WIRE_BYTES_RECEIVED%"),
    ("response.code", "%RESPONSE_CODE%"),
    ("response.code_details", "%RESPONSE_CODE_DETAILS%"),
    ("response.grpc_status", "%GRPC_STATUS_NUMBER%"),
    ("response.size", "%BYTES_SENT%"),
    ("response.total_size", "%DOWNSTREAM_WIRE_BYTES_SENT%"),
    ("source.address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("source.port", "%DOWNSTREAM_REMOTE_PORT%"),
    ("destination.address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("destination.port", "%DOWNSTREAM_LOCAL_PORT%"),
    ("upstream.address", "%UPSTREAM_HOST%"),
    ("connection.id", "%CONNECTION_ID%"),
    (
        "connection.requested_server_name",
        "%REQUESTED_SERVER_NAME%",
    ),
    (
        "connection.termination_details",
        "%CONNECTION_TERMINATION_DETAILS%",
    ),
    ("xds.cluster_name", "%UPSTREAM_CLUSTER_RAW%"),
    ("xds.route_name", "%ROUTE_NAME%"),
    ("xds.filter_chain_name", "%FILTER_CHAIN_NAME%"),
];

/// Attributes with a key, and the operator that takes it.
const KEYED: &[(&str, &str)] = &[
    ("request.headers", "REQ"),
    ("response.headers", "RESP"),
    ("response.trailers", "TRAILER"),
];

/// A literal or an attribute; other CEL is refused.
fn expression(text: &str) -> std::result::Result<Expression, String> {
    let text = text.trim();
    let refused =
        || format!("the expression `{text}` is not supported: only literals and attributes are");
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote)) {
            return if inner.contains([quote, '\\']) {
                Err(refused())
            } else {
                Ok(Expression::Text(inner.into()))
            };
        }
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Expression::Text(text.into()));
    }
    if let Some((_, format)) = ATTRIBUTES.iter().find(|(name, _)| *name == text) {
        return Ok(Expression::Format((*format).into()));
    }
    let (path, key) = match text.split_once('[') {
        Some((path, rest)) => (path, Some(keyed(rest).ok_or_else(refused)?)),
        None => (text, None),
    };
    if let Some(key) = key
        && let Some((_, operator)) = KEYED.iter().find(|(name, _)| *name == path)
        && key
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"%()?:".contains(&byte))
    {
        return Ok(Expression::Format(format!("%{operator}({key})%").into()));
    }
    let path = path.strip_prefix("filter_state.").unwrap_or(path);
    let (downstream, field) = if let Some(field) = path.strip_prefix("downstream_peer.") {
        (true, field)
    } else if let Some(field) = path.strip_prefix("upstream_peer.") {
        (false, field)
    } else {
        return Err(refused());
    };
    let field = match (field, key) {
        ("labels", Some(key)) => PeerField::Label(key.into()),
        (field, None)
            if field
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_') =>
        {
            PeerField::Named(field.into())
        }
        _ => return Err(refused()),
    };
    Ok(Expression::Peer { downstream, field })
}

/// `'key']`
fn keyed(rest: &str) -> Option<&str> {
    let inner = rest.strip_suffix(']')?;
    ['"', '\'']
        .iter()
        .find_map(|quote| inner.strip_prefix(*quote)?.strip_suffix(*quote))
}

/// The `istio` part of a `core.v3.Metadata` field. The field counts as read; what else it holds has no reader.
fn istio_metadata(fields: &Fields<'_>, name: &str) -> Option<Json> {
    metadata::entry(fields, name, "istio").map(Json::Object)
}

pub(crate) fn cluster_metadata(fields: &Fields<'_>) -> Option<Arc<IstioCluster>> {
    let istio = istio_metadata(fields, "metadata")?;
    let text = |value: &Json, key: &str| Some(Name::from(value.get(key)?.as_str()?));
    let service = istio.get("services").and_then(|services| services.get(0));
    Some(Arc::new(IstioCluster {
        service: service.map(|service| IstioService {
            host: text(service, "host"),
            name: text(service, "name"),
            namespace: text(service, "namespace").unwrap_or_default(),
        }),
        external: istio.get("external") == Some(&Json::Bool(true)),
        disable_mx: istio.get("disable_mx") == Some(&Json::Bool(true)),
        keeps_alpn: istio.get("alpn_override").and_then(Json::as_str) == Some("false"),
    }))
}

pub(crate) fn endpoint_workload(fields: &Fields<'_>) -> Option<Name> {
    let istio = istio_metadata(fields, "metadata")?;
    Some(Name::from(istio.get("workload")?.as_str()?))
}

/// Of the bootstrap's node.
pub(crate) fn node_metadata(fields: &Fields<'_>) -> NodeMetadata {
    let struct_of = |message: &Encoded<'_>| from_struct(message);
    let metadata = fields.get("metadata").and_then(Value::as_message);
    let metadata = metadata.map(struct_of).unwrap_or_default();
    let locality = fields.get("locality").and_then(Value::as_message);
    let locality = locality.and_then(|locality| locality.read().ok());
    let place = |name: &str| {
        let found = locality
            .as_ref()
            .and_then(|locality| locality.get(name)?.as_str());
        Name::from(found.unwrap_or_default())
    };
    let text = |name: &str| {
        let found = metadata.get(name).and_then(Json::as_str);
        Name::from(found.unwrap_or_default())
    };
    let labels = metadata.get("LABELS").and_then(Json::as_object);
    NodeMetadata {
        name: text("NAME"),
        namespace: text("NAMESPACE"),
        owner: text("OWNER"),
        workload_name: text("WORKLOAD_NAME"),
        cluster_id: text("CLUSTER_ID"),
        identity: text("IDENTITY"),
        network: text("NETWORK"),
        istio_version: text("ISTIO_VERSION"),
        labels: labels
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((Name::from(&**key), Name::from(value.as_str()?))))
            .collect(),
        region: place("region"),
        zone: place("zone"),
        old_metric_names: &*text("TIDEGATE_ISTIO_METRICS") == "1.0",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let format = |text: &str| Ok(Expression::Format(text.into()));
        assert_eq!(expression("request.host"), format("%REQ(:AUTHORITY)%"));
        assert_eq!(
            expression("request.headers['x-user']"),
            format("%REQ(x-user)%")
        );
        assert_eq!(expression("'a b'"), Ok(Expression::Text("a b".into())));
        assert_eq!(
            expression("filter_state.upstream_peer.labels['role']"),
            Ok(Expression::Peer {
                downstream: false,
                field: PeerField::Label("role".into())
            })
        );
        assert_eq!(
            expression("downstream_peer.cluster"),
            Ok(Expression::Peer {
                downstream: true,
                field: PeerField::Named("cluster".into())
            })
        );
        for text in [
            "a + b",
            "has(request.host)",
            "request.headers[x]",
            "",
            "'a' + 'b'",
        ] {
            assert!(expression(text).is_err(), "{text}");
        }
    }
}
