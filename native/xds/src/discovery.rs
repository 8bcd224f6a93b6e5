//! The discovery protocol's frames: requests out, responses in, response files.
//!
//! These few fields are read for every response, whatever its size, so they are prost structs of exactly the fields that matter:
//! no descriptor pool is built for them. A test holds their numbers against the descriptors.

use prost::Message as _;

use crate::context::Fault;
use crate::{Format, Rejected, any, json, v2, yaml};

/// What a discovery response holds, in either transport (gRPC or file).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiscoveryResponse {
    pub type_url: String,
    pub version: String,
    pub nonce: String,
    /// `control_plane.identifier`.
    pub control_plane: String,
    /// Name and encoded resource, in wire order, `Resource` wrappers taken off. One whose type is not the response's, or whose
    /// name cannot be read, has the name "".
    pub resources: Vec<(String, Vec<u8>)>,
}

/// A discovery request to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiscoveryRequest<'a> {
    /// The encoded node, in the first request of a stream.
    pub node: Option<&'a [u8]>,
    pub type_url: &'a str,
    pub version: &'a str,
    pub nonce: &'a str,
    pub resource_names: Vec<String>,
    /// What was wrong with the response: a NACK.
    pub error_detail: Option<&'a str>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WireResponse {
    #[prost(string, tag = "1")]
    pub(crate) version_info: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) resources: Vec<WireAny>,
    #[prost(string, tag = "4")]
    pub(crate) type_url: String,
    #[prost(string, tag = "5")]
    pub(crate) nonce: String,
    #[prost(message, optional, tag = "6")]
    pub(crate) control_plane: Option<WireControlPlane>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WireControlPlane {
    #[prost(string, tag = "1")]
    pub(crate) identifier: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WireAny {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

/// `envoy.service.discovery.v3.Resource`, a wrapper with a name.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WireResource {
    #[prost(message, optional, tag = "2")]
    pub(crate) resource: Option<WireAny>,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WireRequest {
    #[prost(string, tag = "1")]
    pub(crate) version_info: String,
    /// A `Node`: bytes and a message look the same on the wire.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) node: Option<Vec<u8>>,
    #[prost(string, repeated, tag = "3")]
    pub(crate) resource_names: Vec<String>,
    #[prost(string, tag = "4")]
    pub(crate) type_url: String,
    #[prost(string, tag = "5")]
    pub(crate) response_nonce: String,
    #[prost(message, optional, tag = "6")]
    pub(crate) error_detail: Option<WireStatus>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WireStatus {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

/// The name is field 1 of every resource type there is (`cluster_name` of a ClusterLoadAssignment).
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WireNamed {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

/// The code of Envoy's NACKs.
pub(crate) const INTERNAL: i32 = 13;

const RESOURCE_WRAPPER: &str = "envoy.service.discovery.v3.Resource";

/// The name in an encoded resource of any type; `None` when the bytes are no message.
pub fn resource_name(resource: &[u8]) -> Option<String> {
    WireNamed::decode(resource).ok().map(|named| named.name)
}

/// Decodes an `envoy.service.discovery.v3.DiscoveryResponse`.
pub fn decode_discovery_response(bytes: &[u8]) -> Result<DiscoveryResponse, String> {
    let wire =
        WireResponse::decode(bytes).map_err(|error| format!("not a DiscoveryResponse: {error}"))?;
    Ok(response(wire))
}

fn response(wire: WireResponse) -> DiscoveryResponse {
    let type_url = wire.type_url;
    let resources = wire
        .resources
        .into_iter()
        .map(|resource| named(&type_url, resource))
        .collect();
    DiscoveryResponse {
        version: wire.version_info,
        nonce: wire.nonce,
        control_plane: wire.control_plane.unwrap_or_default().identifier,
        resources,
        type_url,
    }
}

fn named(type_url: &str, mut resource: WireAny) -> (String, Vec<u8>) {
    let mut name = None;
    if any::type_name(&resource.type_url) == RESOURCE_WRAPPER
        && any::type_name(type_url) != RESOURCE_WRAPPER
        && let Ok(WireResource {
            resource: Some(inner),
            name: outer,
        }) = WireResource::decode(resource.value.as_slice())
    {
        name = Some(outer).filter(|outer| !outer.is_empty());
        resource = inner;
    }
    let name = own_name(type_url, &resource, &name.unwrap_or_default());
    (name, resource.value)
}

/// The name that a resource has by itself, else that of its wrapper; empty when it is of another type.
pub(crate) fn own_name(type_url: &str, resource: &WireAny, wrapper: &str) -> String {
    if any::type_name(&resource.type_url) != any::type_name(type_url) {
        return String::new();
    }
    resource_name(&resource.value)
        .filter(|own| !own.is_empty())
        .unwrap_or_else(|| wrapper.to_owned())
}

/// Encodes an `envoy.service.discovery.v3.DiscoveryRequest`.
pub fn encode_discovery_request(request: DiscoveryRequest<'_>) -> Vec<u8> {
    WireRequest {
        version_info: request.version.to_owned(),
        node: request.node.map(<[u8]>::to_vec),
        resource_names: request.resource_names,
        type_url: request.type_url.to_owned(),
        response_nonce: request.nonce.to_owned(),
        error_detail: request.error_detail.map(|detail| WireStatus {
            code: INTERNAL,
            message: detail.to_owned(),
        }),
    }
    .encode_to_vec()
}

/// Decodes a file that `path_config_source` names: a DiscoveryResponse in YAML, JSON or protobuf. The type URL of the file may
/// be missing; it is then that of its first resource.
pub fn decode_discovery_file(
    contents: &[u8],
    format: Format,
) -> Result<DiscoveryResponse, Rejected> {
    let file = |fault: Fault| Rejected::from_fault("", fault);
    let document = match format {
        Format::Yaml => yaml::parse(&String::from_utf8_lossy(contents)).map_err(file)?,
        Format::Json => yaml::parse_json(&String::from_utf8_lossy(contents)).map_err(file)?,
        Format::Pb => {
            return decode_discovery_response(contents)
                .map_err(|reason| file(Fault::whole(reason)));
        }
    };
    let document = v2::resources(document);
    let message = json::parse("envoy.service.discovery.v3.DiscoveryResponse", &document);
    let mut wire = WireResponse::decode(message.map_err(file)?.as_slice())
        .map_err(|error| file(Fault::whole(error.to_string())))?;
    if wire.type_url.is_empty() {
        wire.type_url = wire
            .resources
            .first()
            .map(|first| first.type_url.clone())
            .unwrap_or_default();
    }
    Ok(response(wire))
}
