//! The frames of incremental discovery: `DeltaDiscoveryRequest` out, `DeltaDiscoveryResponse` in.
//!
//! Like `discovery`, prost structs of exactly the fields that matter, held against the descriptors by a test.

use std::collections::BTreeMap;

use prost::Message as _;

use crate::discovery::{INTERNAL, WireAny, WireControlPlane, WireStatus, own_name};

/// What an incremental response holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeltaDiscoveryResponse {
    pub type_url: String,
    /// `system_version_info`.
    pub version: String,
    pub nonce: String,
    /// `control_plane.identifier`.
    pub control_plane: String,
    /// Name and encoded resource, in wire order. As in a response of the whole state, one whose type is not the response's, or
    /// whose name cannot be read, has the name "".
    pub resources: Vec<(String, Vec<u8>)>,
    /// `Resource.name` and `Resource.version` of all of them, and of those that only say that they still live.
    pub versions: Vec<(String, String)>,
    pub removed: Vec<String>,
}

/// An incremental request to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeltaDiscoveryRequest<'a> {
    /// The encoded node, in the first request of a stream.
    pub node: Option<&'a [u8]>,
    pub type_url: &'a str,
    /// The response that this answers; empty: none.
    pub nonce: &'a str,
    pub subscribe: Vec<String>,
    pub unsubscribe: Vec<String>,
    /// Name and version of what is known, in the first request of a type on a stream.
    pub initial_versions: Vec<(String, String)>,
    /// What was wrong with the response: a NACK.
    pub error_detail: Option<&'a str>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WireDeltaRequest {
    /// A `Node`: bytes and a message look the same on the wire.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub(crate) node: Option<Vec<u8>>,
    #[prost(string, tag = "2")]
    pub(crate) type_url: String,
    #[prost(string, repeated, tag = "3")]
    pub(crate) resource_names_subscribe: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    pub(crate) resource_names_unsubscribe: Vec<String>,
    #[prost(btree_map = "string, string", tag = "5")]
    pub(crate) initial_resource_versions: BTreeMap<String, String>,
    #[prost(string, tag = "6")]
    pub(crate) response_nonce: String,
    #[prost(message, optional, tag = "7")]
    pub(crate) error_detail: Option<WireStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WireDeltaResponse {
    #[prost(string, tag = "1")]
    pub(crate) system_version_info: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) resources: Vec<WireDeltaResource>,
    #[prost(string, tag = "4")]
    pub(crate) type_url: String,
    #[prost(string, tag = "5")]
    pub(crate) nonce: String,
    #[prost(string, repeated, tag = "6")]
    pub(crate) removed_resources: Vec<String>,
    #[prost(message, optional, tag = "7")]
    pub(crate) control_plane: Option<WireControlPlane>,
}

/// `envoy.service.discovery.v3.Resource`, with its version.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WireDeltaResource {
    #[prost(string, tag = "1")]
    pub(crate) version: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) resource: Option<WireAny>,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
}

/// Decodes an `envoy.service.discovery.v3.DeltaDiscoveryResponse`.
pub fn decode_delta_discovery_response(bytes: &[u8]) -> Result<DeltaDiscoveryResponse, String> {
    let wire = WireDeltaResponse::decode(bytes)
        .map_err(|error| format!("not a DeltaDiscoveryResponse: {error}"))?;
    let type_url = wire.type_url;
    let mut resources = Vec::with_capacity(wire.resources.len());
    let mut versions = Vec::with_capacity(wire.resources.len());
    for wrapper in wire.resources {
        // Without one it is a sign of life, or an alias that leads nowhere.
        if let Some(resource) = wrapper.resource {
            let name = own_name(&type_url, &resource, &wrapper.name);
            resources.push((name, resource.value));
        }
        versions.push((wrapper.name, wrapper.version));
    }
    Ok(DeltaDiscoveryResponse {
        version: wire.system_version_info,
        nonce: wire.nonce,
        control_plane: wire.control_plane.unwrap_or_default().identifier,
        resources,
        versions,
        removed: wire.removed_resources,
        type_url,
    })
}

/// Encodes an `envoy.service.discovery.v3.DeltaDiscoveryRequest`.
pub fn encode_delta_discovery_request(request: DeltaDiscoveryRequest<'_>) -> Vec<u8> {
    WireDeltaRequest {
        node: request.node.map(<[u8]>::to_vec),
        type_url: request.type_url.to_owned(),
        resource_names_subscribe: request.subscribe,
        resource_names_unsubscribe: request.unsubscribe,
        initial_resource_versions: request.initial_versions.into_iter().collect(),
        response_nonce: request.nonce.to_owned(),
        error_detail: request.error_detail.map(|detail| WireStatus {
            code: INTERNAL,
            message: detail.to_owned(),
        }),
    }
    .encode_to_vec()
}
