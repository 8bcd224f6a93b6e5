//! The frames of the discovery protocol, held against the descriptors.

use prost::Message as _;
use serde_json::json;

use super::{CLUSTER, PREFIX, cluster, encode};
use crate::discovery::{WireAny, WireResource, WireResponse};
use crate::{
    Decoder, DeltaDiscoveryRequest, DiscoveryRequest, Format, decode_delta_discovery_response,
    decode_discovery_file, decode_discovery_response, encode_delta_discovery_request,
    encode_discovery_request, resource_name, type_url,
};

#[test]
fn an_incremental_response_by_the_descriptors_is_read() {
    let bytes = encode(
        "envoy.service.discovery.v3.DeltaDiscoveryResponse",
        &json!({
            "system_version_info": "7",
            "nonce": "n",
            "type_url": type_url::CLUSTER,
            "control_plane": { "identifier": "istiod" },
            "resources": [
                { "name": "a", "version": "1", "resource": { "@type": type_url::CLUSTER, "name": "a" } },
                { "name": "b", "resource": { "@type": type_url::CLUSTER } },
                { "name": "alive", "version": "2" },
                { "name": "stray", "resource": { "@type": type_url::LISTENER, "name": "stray" } }
            ],
            "removed_resources": ["gone"]
        }),
    );
    let response = decode_delta_discovery_response(&bytes).unwrap();
    assert_eq!(
        [
            &*response.version,
            &*response.nonce,
            &*response.control_plane,
            &*response.type_url
        ],
        ["7", "n", "istiod", type_url::CLUSTER]
    );
    let names: Vec<&str> = response
        .resources
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["a", "b", ""]);
    let versions = [("a", "1"), ("b", ""), ("alive", "2"), ("stray", "")];
    assert_eq!(
        response.versions,
        versions.map(|(name, version)| (name.to_owned(), version.to_owned()))
    );
    assert_eq!(response.removed, ["gone"]);
    assert!(decode_delta_discovery_response(b"\xff").is_err());
}

#[test]
fn an_incremental_request_is_read_back_by_the_descriptors() {
    let request = DeltaDiscoveryRequest {
        node: None,
        type_url: type_url::CLUSTER,
        nonce: "n",
        subscribe: vec!["a".to_owned()],
        unsubscribe: vec!["b".to_owned()],
        initial_versions: vec![("c".to_owned(), "1".to_owned())],
        error_detail: Some("no"),
    };
    let bytes = encode_delta_discovery_request(request);
    let json = Decoder::new()
        .to_json("envoy.service.discovery.v3.DeltaDiscoveryRequest", &bytes)
        .unwrap();
    assert_eq!(
        json,
        json!({
            "type_url": type_url::CLUSTER,
            "response_nonce": "n",
            "resource_names_subscribe": ["a"],
            "resource_names_unsubscribe": ["b"],
            "initial_resource_versions": { "c": "1" },
            "error_detail": { "code": 13, "message": "no" }
        })
    );
}

const RESPONSE: &str = "envoy.service.discovery.v3.DiscoveryResponse";

#[test]
fn a_response_by_the_descriptors_is_read() {
    let bytes = encode(
        RESPONSE,
        &json!({
            "version_info": "7",
            "nonce": "n",
            "type_url": type_url::CLUSTER,
            "control_plane": { "identifier": "istiod" },
            "resources": [
                { "@type": type_url::CLUSTER, "name": "a" },
                { "@type": format!("{PREFIX}envoy.service.discovery.v3.Resource"), "name": "b", "resource": { "@type": type_url::CLUSTER, "name": "b" } },
                { "@type": type_url::LISTENER, "name": "stray" }
            ]
        }),
    );
    let response = decode_discovery_response(&bytes).unwrap();
    assert_eq!(
        (
            response.version.as_str(),
            response.nonce.as_str(),
            response.control_plane.as_str()
        ),
        ("7", "n", "istiod")
    );
    let names: Vec<&str> = response
        .resources
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["a", "b", ""]);
    assert_eq!(
        resource_name(&response.resources[1].1).as_deref(),
        Some("b")
    );
    assert!(decode_discovery_response(b"\xff").is_err());
}

#[test]
fn a_wrapper_may_name_what_has_no_name() {
    let resource = WireAny {
        type_url: type_url::CLUSTER.to_owned(),
        value: Vec::new(),
    };
    let wrapper = WireResource {
        resource: Some(resource),
        name: "outer".to_owned(),
    }
    .encode_to_vec();
    let any = WireAny {
        type_url: format!("{PREFIX}envoy.service.discovery.v3.Resource"),
        value: wrapper,
    };
    let response = WireResponse {
        type_url: type_url::CLUSTER.to_owned(),
        resources: vec![any],
        ..WireResponse::default()
    };
    let response = decode_discovery_response(&response.encode_to_vec()).unwrap();
    assert_eq!(response.resources, [("outer".to_owned(), Vec::new())]);
}

#[test]
fn a_request_is_one_by_the_descriptors() {
    let node = encode("envoy.config.core.v3.Node", &json!({ "id": "a" }));
    let request = DiscoveryRequest {
        node: Some(&node),
        type_url: type_url::CLUSTER,
        version: "7",
        nonce: "n",
        resource_names: vec!["x".to_owned(), "y".to_owned()],
        error_detail: Some("no"),
    };
    let bytes = encode_discovery_request(request);
    let shown = Decoder::new()
        .to_json("envoy.service.discovery.v3.DiscoveryRequest", &bytes)
        .unwrap();
    assert_eq!(
        shown,
        json!({
            "version_info": "7",
            "node": { "id": "a" },
            "resource_names": ["x", "y"],
            "type_url": type_url::CLUSTER,
            "response_nonce": "n",
            "error_detail": { "code": 13, "message": "no" }
        })
    );
}

#[test]
fn files_in_three_forms() {
    let mut resource = cluster();
    resource["@type"] = json!(type_url::CLUSTER);
    let document = json!({ "version_info": "1", "resources": [resource] });
    let pb = encode(
        RESPONSE,
        &json!({ "version_info": "1", "type_url": type_url::CLUSTER, "resources": [resource] }),
    );
    let text = document.to_string();
    let forms = [
        (text.as_bytes(), Format::Json),
        (text.as_bytes(), Format::Yaml),
        (pb.as_slice(), Format::Pb),
    ];
    for (contents, format) in forms {
        let response = decode_discovery_file(contents, format).unwrap();
        assert_eq!(response.type_url, type_url::CLUSTER, "{format:?}");
        assert_eq!(
            response.resources,
            [("backend".to_owned(), encode(CLUSTER, &cluster()))],
            "{format:?}"
        );
    }
    let rejected = decode_discovery_file(
        b"resources: [{'@type': type.googleapis.com/no.Such}]",
        Format::Yaml,
    )
    .unwrap_err();
    assert_eq!(rejected.field_path, "resources[0].@type");
}
