//! What a span says of its request (Envoy's `HttpTracerUtility::finalizeDownstreamSpan`).

use std::borrow::Cow;
use std::net::IpAddr;

use tidegate_codec::h1::KnownHeader;
use tidegate_model::bootstrap::Node;
use tidegate_snapshot::ResponseFlags;
use tidegate_snapshot::grpc_status::is_grpc_content_type;
use tidegate_snapshot::tracing::{CompiledTag, CompiledTracing, TagValue};

use super::Kind;
use super::tried::Tried;
use crate::hcm::ServerConnection;
use crate::hcm::stream::{Stream, StreamRoute};

/// See the module.
pub(super) struct Tags<'a> {
    stream: &'a Stream,
    tracing: &'a CompiledTracing,
    node: &'a Node,
    peer: IpAddr,
    of_route: &'a [CompiledTag],
}

impl<'a> Tags<'a> {
    pub(super) fn new(
        connection: &ServerConnection,
        stream: &'a Stream,
        tracing: &'a CompiledTracing,
        node: &'a Node,
    ) -> Self {
        let route = stream.route.as_ref().map(StreamRoute::route);
        let of_route = route.and_then(|route| route.tracing.as_ref());
        Self {
            stream,
            tracing,
            node,
            peer: connection.downstream.info.remote.ip(),
            of_route: of_route.map_or(&[], |tracing| &tracing.custom_tags),
        }
    }

    pub(super) fn each(&self, tag: &mut dyn FnMut(&str, &[u8])) {
        let (request, response) = (&self.stream.request, &self.stream.response);
        let headers = &request.headers;
        tag("node_id", self.node.id.as_bytes());
        tag("zone", self.node.zone.as_bytes());
        if let Some(id) = headers.known(KnownHeader::XRequestId) {
            tag("guid:x-request-id", id);
        }
        tag("http.url", &self.url());
        tag("http.method", request.method_bytes());
        let known = |known| headers.known(known).unwrap_or(b"-");
        tag(
            "downstream_cluster",
            known(KnownHeader::XEnvoyDownstreamServiceCluster),
        );
        tag("user_agent", known(KnownHeader::UserAgent));
        tag("http.protocol", request.protocol.as_str().as_bytes());
        tag("peer.address", self.peer.to_string().as_bytes());
        if let Some(id) = headers.get(b"x-client-trace-id") {
            tag("guid:x-client-trace-id", id);
        }
        if request.grpc {
            tag("grpc.path", request.path_bytes());
            tag("grpc.authority", request.authority_bytes());
            tag("grpc.content_type", known(KnownHeader::ContentType));
            if let Some(timeout) = headers.known(KnownHeader::GrpcTimeout) {
                tag("grpc.timeout", timeout);
            }
        }
        let mut buffer = itoa::Buffer::new();
        tag("request_size", buffer.format(request.bytes).as_bytes());
        self.common(tag);
        self.custom(tag);
        let status = response.status;
        if status == 0 || status >= 500 {
            tag("error", b"true");
        }
    }

    /// The tags that the configuration adds.
    fn custom(&self, tag: &mut dyn FnMut(&str, &[u8])) {
        let request = &self.stream.request;
        let overruled = |name: &str| self.of_route.iter().any(|own| *own.name == *name);
        let of_manager = self.tracing.custom_tags.iter();
        for custom in self
            .of_route
            .iter()
            .chain(of_manager.filter(|custom| !overruled(&custom.name)))
        {
            match &custom.value {
                TagValue::Literal(text) if text.is_empty() => {}
                TagValue::Literal(text) => tag(&custom.name, text.as_bytes()),
                TagValue::RequestMetadata {
                    filter,
                    path,
                    default,
                } => {
                    let value = match self.stream.metadata.value(filter, path) {
                        Some(serde_json::Value::String(text)) => Cow::Borrowed(text.as_str()),
                        Some(serde_json::Value::Null) | None => Cow::Borrowed(&**default),
                        Some(other) => Cow::Owned(other.to_string()),
                    };
                    if !value.is_empty() {
                        tag(&custom.name, value.as_bytes());
                    }
                }
                TagValue::RequestHeader { name, default } => {
                    let value = request.header_named(name).unwrap_or(default.as_bytes());
                    if !value.is_empty() {
                        tag(&custom.name, value);
                    }
                }
            }
        }
    }

    /// Of a span towards the upstream (Envoy's `finalizeUpstreamSpan`). `last`: the response is that try's.
    pub(super) fn each_of_try(&self, tried: &Tried, last: bool, tag: &mut dyn FnMut(&str, &[u8])) {
        let mut buffer = itoa::Buffer::new();
        if tried.retry > 0 {
            tag("retry.count", buffer.format(tried.retry).as_bytes());
        }
        if tried.canceled {
            tag("canceled", b"true");
        }
        if let Some(reason) = tried.reset {
            tag("error.reason", reason.as_bytes());
        }
        tag("http.protocol", tried.protocol.unwrap_or("-").as_bytes());
        let address = &tried.host.host.address_text;
        tag("upstream_address", address.as_bytes());
        tag("peer.address", address.as_bytes());
        tag("component", b"proxy");
        let config = &tried.cluster.config;
        tag("upstream_cluster", config.name.as_bytes());
        tag("upstream_cluster.name", config.alt_stat_name.as_bytes());
        tag("http.status_code", buffer.format(tried.status).as_bytes());
        flags_tag(tried.flags, tag);
        if last && tried.status > 0 {
            self.grpc_status(tag);
        }
        self.custom(tag);
        if tried.status == 0 || tried.status >= 500 || tried.reset.is_some() {
            tag("error", b"true");
        }
    }

    /// Whether OpenTelemetry calls it one: the server's fault, and for a client that of the client, too.
    pub(super) fn is_error(&self, kind: Kind) -> bool {
        is_error(self.stream.response.status, kind)
    }

    /// What downstream and upstream spans have in common.
    fn common(&self, tag: &mut dyn FnMut(&str, &[u8])) {
        let response = &self.stream.response;
        tag("component", b"proxy");
        if let Some(cluster) = &self.stream.cluster {
            tag("upstream_cluster", cluster.config.name.as_bytes());
            tag(
                "upstream_cluster.name",
                cluster.config.alt_stat_name.as_bytes(),
            );
        }
        let mut buffer = itoa::Buffer::new();
        tag("response_size", buffer.format(response.bytes).as_bytes());
        flags_tag(self.stream.flags, tag);
        tag(
            "http.status_code",
            buffer.format(response.status).as_bytes(),
        );
        self.grpc_status(tag);
    }

    fn grpc_status(&self, tag: &mut dyn FnMut(&str, &[u8])) {
        let response = &self.stream.response;
        let is_grpc = response
            .headers
            .known(KnownHeader::ContentType)
            .is_some_and(is_grpc_content_type);
        if is_grpc {
            for (name, known) in [
                ("grpc.status_code", KnownHeader::GrpcStatus),
                ("grpc.message", KnownHeader::GrpcMessage),
            ] {
                let value = response.trailers.known(known);
                if let Some(value) = value.or_else(|| response.headers.known(known)) {
                    tag(name, value);
                }
            }
        }
    }

    /// `scheme://host/path`, the path as the client sent it and cut.
    fn url(&self) -> Vec<u8> {
        let request = &self.stream.request;
        let original = request.headers.known(KnownHeader::XEnvoyOriginalPath);
        let path = original.unwrap_or_else(|| request.path_bytes());
        let scheme = request.headers.known(KnownHeader::XForwardedProto);
        let mut url = scheme.unwrap_or_default().to_vec();
        url.extend_from_slice(b"://");
        url.extend_from_slice(request.authority_bytes());
        let longest = self.tracing.config.max_path_tag_length;
        url.extend_from_slice(path.get(..longest).unwrap_or(path));
        url
    }
}

pub(super) fn is_error(status: u16, kind: Kind) -> bool {
    status >= 500 || kind == Kind::Client && status >= 400
}

fn flags_tag(flags: ResponseFlags, tag: &mut dyn FnMut(&str, &[u8])) {
    let mut text = Vec::new();
    flags.write(false, &mut text);
    tag("response_flags", if text.is_empty() { b"-" } else { &text });
}
