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

/// prost-reflect, which reads and prints by the descriptors, is what ours is held against.
mod by_the_descriptors {
    use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage};
    use serde_json::{Value as Json, json};

    use crate::json::{parse, parse_text};
    use crate::tests::{LISTENER, PREFIX, listener};

    fn pool() -> DescriptorPool {
        DescriptorPool::decode(tidegate_proto::descriptor_set()).unwrap()
    }

    fn theirs(pool: &DescriptorPool, name: &str, value: &Json) -> Option<DynamicMessage> {
        let descriptor = pool.get_message_by_name(name).unwrap();
        let options = DeserializeOptions::new();
        DynamicMessage::deserialize_with_options(descriptor, value, &options).ok()
    }

    #[track_caller]
    fn agree(pool: &DescriptorPool, name: &str, value: &Json) {
        let descriptor = pool.get_message_by_name(name).unwrap();
        let ours = parse(name, value);
        let theirs = theirs(pool, name, value);
        let decoded = ours
            .as_ref()
            .ok()
            .map(|bytes| DynamicMessage::decode(descriptor, bytes.as_slice()).unwrap());
        // Printed, because payloads may have their fields in another order.
        let printed = |message: &DynamicMessage| serde_json::to_value(message).unwrap();
        assert_eq!(
            decoded.as_ref().map(printed),
            theirs.as_ref().map(printed),
            "{name} {value}: {ours:?}"
        );
        // From text it is the same, or left to the careful reader.
        let text = parse_text(name, &value.to_string()).unwrap();
        assert!(text.is_none() || text == ours.ok(), "{value}");
        assert_eq!(text.is_some(), theirs.is_some(), "{value}");
    }

    #[test]
    fn scalars_in_all_of_their_forms() {
        let pool = pool();
        let values = json!([
            0,
            1,
            -1,
            1.0,
            1.5,
            1e3,
            "0",
            "1",
            "-1",
            "1.5",
            "1e3",
            "x",
            "",
            true,
            false,
            null,
            [],
            [1],
            {},
            "NaN",
            "Infinity",
            "-Infinity",
            2_147_483_647,
            2_147_483_648_u64,
            -2_147_483_648_i64,
            4_294_967_295_u64,
            4_294_967_296_u64,
            9_223_372_036_854_775_807_i64,
            18_446_744_073_709_551_615_u64,
            1e30,
            1e300,
            "9223372036854775807",
            "18446744073709551615",
            "18446744073709551616",
            "AQI=",
            "AQI",
            "_-8",
            "/+8",
            "a b",
            "HIGH",
            "DEFAULT",
            7,
            "1s",
            "1.5s",
            "-1s",
            "1",
            "1.0000000001s",
            "0s",
            "315576000001s",
            "a.bC,d",
            "2020-01-02T03:04:05Z",
            "2020-01-02T03:04:05.5+01:00",
            "NULL_VALUE"
        ]);
        let fields = [
            ("google.protobuf.DoubleValue", ""),
            ("google.protobuf.FloatValue", ""),
            ("google.protobuf.Int32Value", ""),
            ("google.protobuf.Int64Value", ""),
            ("google.protobuf.UInt32Value", ""),
            ("google.protobuf.UInt64Value", ""),
            ("google.protobuf.BoolValue", ""),
            ("google.protobuf.StringValue", ""),
            ("google.protobuf.BytesValue", ""),
            ("google.protobuf.Duration", ""),
            ("google.protobuf.Timestamp", ""),
            ("google.protobuf.FieldMask", ""),
            ("google.protobuf.Struct", ""),
            ("google.protobuf.ListValue", ""),
            ("google.protobuf.Value", ""),
            ("google.protobuf.Empty", ""),
            ("envoy.config.core.v3.SocketAddress", "port_value"),
            ("envoy.config.core.v3.SocketAddress", "portValue"),
            ("envoy.config.core.v3.SocketAddress", "address"),
            ("envoy.config.core.v3.SocketAddress", "ipv4_compat"),
            ("envoy.config.core.v3.SocketOption", "level"),
            ("envoy.config.core.v3.SocketOption", "buf_value"),
            ("envoy.config.core.v3.DataSource", "inline_bytes"),
            ("envoy.config.core.v3.DataSource", "inline_string"),
            ("envoy.type.v3.DoubleRange", "start"),
            ("envoy.type.v3.Percent", "value"),
            ("envoy.type.v3.Int64Range", "end"),
            (
                "envoy.config.cluster.v3.CircuitBreakers.Thresholds",
                "priority",
            ),
            (
                "envoy.config.cluster.v3.CircuitBreakers.Thresholds",
                "max_requests",
            ),
            ("envoy.config.cluster.v3.Cluster", "connect_timeout"),
            ("envoy.config.cluster.v3.Cluster", "metadata"),
            ("envoy.config.core.v3.Metadata", "filter_metadata"),
            ("envoy.config.core.v3.HealthCheck", "healthy_threshold"),
            ("envoy.config.route.v3.VirtualHost", "domains"),
            (
                "envoy.config.route.v3.RetryPolicy",
                "retriable_status_codes",
            ),
            ("envoy.config.core.v3.BuildVersion", "metadata"),
            (
                "envoy.config.trace.v3.OpenCensusConfig",
                "incoming_trace_context",
            ),
        ];
        for (name, field) in fields {
            if pool.get_message_by_name(name).is_none() {
                continue;
            }
            for value in values.as_array().unwrap() {
                if field.is_empty() {
                    agree(&pool, name, value);
                } else {
                    agree(&pool, name, &json!({ field: value }));
                    agree(&pool, name, &json!({ field: [value] }));
                    agree(&pool, name, &json!({ field: { "a": value } }));
                }
            }
        }
    }

    #[test]
    fn whole_resources() {
        let pool = pool();
        agree(&pool, LISTENER, &listener());
        let long = "x".repeat(70_000);
        for value in [
            json!({ "name": long, "metadata": { "filter_metadata": { "a": { "b": [1, "c", null, { "d": {} }, true] } } } }),
            json!({ "name": "a", "bogus": 1 }),
            json!({ "address": { "socket_address": { "port_value": 1, "named_port": "x" } } }),
            json!({ "address": { "pipe": {}, "socket_address": {} } }),
            json!({ "address": null, "filter_chains": null, "name": null }),
            json!({ "filter_chains": [null] }),
            json!({ "filter_chains": {} }),
            json!({ "deprecatedV1": { "bindToPort": false } }),
        ] {
            agree(&pool, LISTENER, &value);
        }
        for value in [
            json!({ "@type": format!("{PREFIX}google.protobuf.Duration"), "value": "1s" }),
            json!({ "@type": format!("{PREFIX}google.protobuf.Struct"), "value": { "a": 1 } }),
            json!({ "@type": format!("{PREFIX}google.protobuf.Duration"), "seconds": 1 }),
            json!({ "@type": format!("{PREFIX}google.protobuf.Duration") }),
            json!({ "@type": format!("{PREFIX}no.Such") }),
            json!({ "@type": "google.protobuf.Duration", "value": "1s" }),
            json!({ "@type": format!("{PREFIX}{LISTENER}"), "name": "x" }),
            json!({ "@type": 1 }),
            json!({}),
        ] {
            agree(&pool, "google.protobuf.Any", &value);
        }
    }

    #[test]
    fn a_key_given_twice_is_left_to_the_careful_reader() {
        for text in [
            r#"{"name": "a", "name": "b"}"#,
            r#"{"name": null, "name": "b"}"#,
            r#"{"metadata": {"filter_metadata": {"a": {}, "a": {}}}}"#,
            r#"{"metadata": {"filter_metadata": {"a": {"b": 1, "b": 2}}}}"#,
            r#"{"name": "a"} {}"#,
            r#"{"name": "a""#,
            r"[]",
        ] {
            assert_eq!(parse_text(LISTENER, text).unwrap(), None, "{text}");
        }
        let twice = json!({ "bind_to_port": false, "bindToPort": true });
        assert_eq!(parse(LISTENER, &twice).unwrap_err().path, "bindToPort");
    }
}
