//! proto-JSON both ways, as `/config_dump` needs it.

use prost::Message as _;
use serde_json::json;

use super::{LISTENER, PREFIX, encode, listener};
use crate::Decoder;
use crate::discovery::WireAny;

#[test]
fn a_listener_comes_back_as_it_went_in() {
    let decoder = Decoder::new();
    let listener = listener();
    assert_eq!(
        decoder
            .to_json(LISTENER, &encode(LISTENER, &listener))
            .unwrap(),
        listener
    );
}

#[test]
fn types_that_are_rare_are_loaded_when_they_are_met() {
    let decoder = Decoder::new();
    let value = json!({
        "@type": format!("{PREFIX}stats.PluginConfig"),
        "tcp_reporting_duration": "15s",
        "metrics": [{ "dimensions": { "a": "b" } }]
    });
    let bytes = decoder.from_json("google.protobuf.Any", &value).unwrap();
    assert_eq!(
        decoder.to_json("google.protobuf.Any", &bytes).unwrap(),
        value
    );
}

#[test]
fn a_payload_of_an_unknown_type_can_still_be_shown() {
    let any = WireAny {
        type_url: format!("{PREFIX}no.Such"),
        value: vec![1, 2],
    }
    .encode_to_vec();
    let shown = Decoder::new().to_json("google.protobuf.Any", &any).unwrap();
    assert_eq!(shown["@type"], format!("{PREFIX}xds.type.v3.TypedStruct"));
    assert_eq!(shown["type_url"], format!("{PREFIX}no.Such"));
    assert_eq!(shown["value"]["bytes"], "[01, 02]");
}

#[test]
fn numbers_are_printed_as_protobuf_prints_them() {
    let decoder = Decoder::new();
    let value = json!({ "numbers": { "whole": 3, "half": 0.5 }, "text": "x", "none": null });
    let bytes = decoder.from_json("google.protobuf.Struct", &value).unwrap();
    assert_eq!(
        decoder.to_json("google.protobuf.Struct", &bytes).unwrap(),
        value
    );
    let wide = json!({ "value": "9007199254740993" });
    let bytes = decoder
        .from_json(
            "envoy.config.core.v3.RuntimeUInt32",
            &json!({ "default_value": 7, "runtime_key": "a" }),
        )
        .unwrap();
    assert_eq!(
        decoder
            .to_json("envoy.config.core.v3.RuntimeUInt32", &bytes)
            .unwrap()["default_value"],
        7
    );
    assert_eq!(wide["value"], "9007199254740993");
}

#[test]
fn what_does_not_fit_is_told_with_its_path() {
    let rejected = Decoder::new()
        .from_json(
            LISTENER,
            &json!({ "filter_chains": [{ "filters": [{ "nam": "x" }] }] }),
        )
        .unwrap_err();
    assert_eq!(
        (rejected.field_path.as_str(), rejected.reason.as_str()),
        ("filter_chains[0].filters[0].nam", "no such field")
    );
}

#[test]
fn payloads_in_payloads_end_somewhere() {
    let mut any = WireAny {
        type_url: String::new(),
        value: Vec::new(),
    };
    for _ in 0..20_000 {
        any = WireAny {
            type_url: format!("{PREFIX}google.protobuf.Any"),
            value: any.encode_to_vec(),
        };
    }
    let shown = Decoder::new()
        .to_json("google.protobuf.Any", &any.encode_to_vec())
        .unwrap();
    assert_eq!(shown["@type"], format!("{PREFIX}google.protobuf.Any"));
}
