use super::*;
use crate::format::tests::Sample;

fn text(value: &str) -> JsonNode {
    JsonNode::String(value.into())
}

fn object(fields: &[(&str, JsonNode)]) -> JsonNode {
    JsonNode::Object(
        fields
            .iter()
            .map(|(key, value)| (Name::from(*key), value.clone()))
            .collect(),
    )
}

fn line(root: JsonNode, omit_empty_values: bool, sample: &Sample) -> String {
    let format = JsonFormat {
        root,
        omit_empty_values,
        sort_properties: true,
    };
    let mut out = Vec::new();
    JsonFormatter::compile(&format)
        .unwrap()
        .format(sample, &mut out);
    String::from_utf8(out).unwrap()
}

fn envoys_example() -> JsonNode {
    object(&[
        ("z", text("%PROTOCOL%")),
        (
            "a",
            object(&[
                ("code", text("%RESPONSE_CODE%")),
                ("missing", text("%REQ(nope)%")),
                ("mixed", text("x%RESPONSE_CODE%-%REQ(nope)%")),
            ]),
        ),
        (
            "arr",
            JsonNode::Array(vec![
                text("%RESPONSE_CODE%"),
                text("a"),
                text("%REQ(nope)%"),
            ]),
        ),
        ("emptyobj", object(&[])),
        ("flags", text("%RESPONSE_FLAGS%")),
        ("n", JsonNode::Number(5.0)),
        ("nul", JsonNode::Null),
        ("objmissing", object(&[("a", text("%REQ(nope)%"))])),
        ("pct", text("%%")),
        ("st", text("%START_TIME(%s)%")),
        ("t", JsonNode::Bool(true)),
        ("é", text("ü")),
    ])
}

#[test]
fn types_are_kept_and_keys_sorted() {
    assert_eq!(
        line(envoys_example(), false, &Sample::new()),
        "{\"a\":{\"code\":200,\"missing\":null,\"mixed\":\"x200--\"},\"arr\":[200,\"a\",null],\"emptyobj\":{},\
         \"flags\":\"-\",\"n\":5,\"nul\":null,\"objmissing\":{\"a\":null},\"pct\":\"%\",\"st\":\"1795494947\",\"t\":true,\
         \"z\":\"HTTP/1.1\",\"é\":\"ü\"}\n"
    );
}

#[test]
fn empty_values_are_left_out_on_request() {
    assert_eq!(
        line(envoys_example(), true, &Sample::new()),
        "{\"a\":{\"code\":200,\"mixed\":\"x200-\"},\"arr\":[200,\"a\"],\"flags\":\"-\",\"n\":5,\"pct\":\"%\",\
         \"st\":\"1795494947\",\"t\":true,\"z\":\"HTTP/1.1\",\"é\":\"ü\"}\n"
    );
}

#[test]
fn strings_are_escaped_as_envoy_escapes_them() {
    let cases: [(&[u8], &str); 7] = [
        (b"a\"b", "a\\\"b"),
        (b"a\\b", "a\\\\b"),
        (b"a\tb", "a\\tb"),
        ("é\"".as_bytes(), "é\\\""),
        (b"a\xe9", "a\\u00e9"),
        (b"a\xe9\"\xc3\xa9", "a\\u00e9\\u0022\\u00c3\\u00a9"),
        (b"<>&'", "<>&'"),
    ];
    for (value, expected) in cases {
        let mut sample = Sample::new();
        sample.request.push(("q", value.to_vec()));
        let format = object(&[("m", text("a%REQ(q)%b")), ("q", text("%REQ(q)%"))]);
        assert_eq!(
            line(format, false, &sample),
            format!("{{\"m\":\"a{expected}b\",\"q\":\"{expected}\"}}\n")
        );
    }
}

/// As Envoy 1.40 wrote it.
#[test]
fn grpc_values_keep_their_types() {
    let root = object(&[
        ("a", text("%FILTER_STATE(envoy.filters.http.grpc_stats)%")),
        (
            "b",
            text("%FILTER_STATE(envoy.filters.http.grpc_stats:PLAIN)%"),
        ),
        ("d", text("x%FILTER_STATE(envoy.filters.http.grpc_stats)%")),
        ("e", text("%GRPC_STATUS_NUMBER%")),
        ("f", text("%GRPC_STATUS(NUMBER)%")),
        ("g", text("%GRPC_STATUS%")),
    ]);
    let mut call = Sample::call(200, Some("5"));
    call.message_counts = Some((1, 0));
    assert_eq!(
        line(root, false, &call),
        "{\"a\":{\"request_message_count\":\"1\"},\"b\":\"1,0\",\"d\":\"x{\\\"requestMessageCount\\\":\\\"1\\\"}\",\
         \"e\":5,\"f\":5,\"g\":\"NotFound\"}\n"
    );
}
