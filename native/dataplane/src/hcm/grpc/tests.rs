use tidegate_codec::h1::HeadScratch;
use tidegate_stats::Registry;

use super::*;

fn headers(lines: &[(&str, &str)]) -> HeaderList {
    let mut list = HeaderList::default();
    list.receive(b"", &HeadScratch::new());
    for (name, value) in lines {
        list.add(name.as_bytes(), value.as_bytes());
    }
    list
}

fn value(list: &HeaderList, name: &str) -> String {
    String::from_utf8_lossy(list.get(name.as_bytes()).unwrap_or(b"(none)")).into_owned()
}

fn counters(registry: &Registry, prefix: &str) -> Rc<MethodCounters> {
    let group = registry.group(prefix);
    Rc::new(MethodCounters::of(group, 0, "c".into()))
}

fn counting(registry: &Registry) -> GrpcFilters {
    GrpcFilters {
        count: Some(Box::new(Count {
            counters: Some(counters(registry, "cluster.c.grpc.S.M.")),
            request: Frames::default(),
            response: Frames::default(),
            response_is_grpc: false,
            emit_filter_state: true,
            upstream_stats: true,
        })),
        web: None,
    }
}

fn web(registry: &Registry, request: ContentType, accepts: ContentType) -> GrpcFilters {
    GrpcFilters {
        count: None,
        web: Some(Box::new(Web {
            counters: Some(counters(registry, "cluster.c.grpc-web.S.M.")),
            request: RequestBody::new(request),
            response: ResponseBody::new(accepts),
            accepts,
            held: None,
            rewritten: false,
        })),
    }
}

const MESSAGE: &[u8] = b"\0\0\0\0\x03abc";

#[test]
fn a_call_is_counted_as_envoy_counts_it() {
    let registry = Registry::new(1);
    let mut filters = counting(&registry);
    assert_eq!(filters.message_counts(), None);
    let scratch = &mut Vec::new();
    filters.request_data(MESSAGE, false, scratch).unwrap();
    let scratch = &mut Vec::new();
    filters.request_data(&MESSAGE[..4], true, scratch).unwrap();
    let mut head = headers(&[("content-type", "application/grpc+proto")]);
    assert!(!filters.holds(200, &head, false));
    filters.response_head(200, &mut head, false, None);
    assert_eq!(filters.response_data(MESSAGE, &mut Vec::new()), MESSAGE);
    let mut trailers = headers(&[("grpc-status", "0"), ("x-t", "v")]);
    let mut out = Vec::new();
    filters.response_trailers(&mut trailers, Some(Duration::from_millis(7)), &mut out);
    assert!(out.is_empty() && trailers.get(b"x-t").is_some());
    assert_eq!(filters.message_counts(), Some((2, 1)));
    for (name, expected) in [
        ("request_message_count", Some(2)),
        ("response_message_count", Some(1)),
        ("success", Some(1)),
        ("total", Some(1)),
        ("0", Some(1)),
        ("failure", None),
    ] {
        let name = format!("cluster.c.grpc.S.M.{name}");
        assert_eq!(registry.value(&name), expected, "{name}");
    }
}

#[test]
fn an_answer_of_trailers_only_is_a_failure_without_messages() {
    let registry = Registry::new(1);
    let mut filters = counting(&registry);
    let mut head = headers(&[("content-type", "application/grpc"), ("grpc-status", "5")]);
    filters.response_head(200, &mut head, true, None);
    let value = |name: &str| registry.value(&format!("cluster.c.grpc.S.M.{name}"));
    assert_eq!(
        (value("failure"), value("total"), value("5")),
        (Some(1), Some(1), Some(1))
    );
    // A status that has no counter of its own, and one that is no number.
    head = headers(&[("grpc-status", "17")]);
    filters.response_head(200, &mut head, true, None);
    head = headers(&[("grpc-status", "x")]);
    filters.response_head(200, &mut head, true, None);
    assert_eq!(
        (value("failure"), value("total"), value("success")),
        (Some(3), Some(3), None)
    );
    // No gRPC: its body is not looked at.
    head = headers(&[("content-type", "text/plain")]);
    filters.response_head(200, &mut head, false, None);
    filters.response_data(MESSAGE, &mut Vec::new());
    assert_eq!(value("response_message_count"), None);
}

#[test]
fn a_web_call_in_text() {
    let registry = Registry::new(1);
    let mut filters = web(&registry, ContentType::Text, ContentType::Text);
    let scratch = &mut Vec::new();
    let sent = filters
        .request_data(b"AAAAAANhYmM=", true, scratch)
        .unwrap();
    assert_eq!(sent, MESSAGE);
    let mut head = headers(&[("content-type", "application/grpc")]);
    assert!(!filters.holds(200, &head, false));
    filters.response_head(200, &mut head, false, None);
    assert_eq!(
        value(&head, "content-type"),
        "application/grpc-web-text+proto"
    );
    let scratch = &mut Vec::new();
    assert_eq!(filters.response_data(MESSAGE, scratch), b"AAAAAANhYmM=");
    let mut trailers = headers(&[("grpc-status", "0"), ("grpc-message", ""), ("x-t", "v")]);
    let mut out = Vec::new();
    filters.response_trailers(&mut trailers, None, &mut out);
    assert_eq!(
        out,
        b"gAAAACVncnBjLXN0YXR1czowDQpncnBjLW1lc3NhZ2U6DQp4LXQ6dg0K"
    );
    assert_eq!(trailers.pairs().count(), 0);
    assert_eq!(registry.value("cluster.c.grpc-web.S.M.success"), Some(1));
}

#[test]
fn what_is_no_grpc_becomes_a_message() {
    let registry = Registry::new(1);
    for (status, content_type, held, grpc_status) in [
        (200, "text/plain", true, "2"),
        (404, "application/grpc", true, "12"),
        (503, "", true, "14"),
        (200, "application/grpc-web-text", true, "2"),
        (200, "application/grpc-web+proto", false, "(none)"),
        (200, "application/grpc", false, "(none)"),
    ] {
        let mut filters = web(&registry, ContentType::Binary, ContentType::Binary);
        let mut head = headers(&[("content-type", content_type), ("content-length", "2")]);
        assert_eq!(filters.holds(status, &head, false), held, "{content_type}");
        let passed = filters.response_data(b"h%", &mut Vec::new()).len();
        assert_eq!(passed, if held { 0 } else { 2 });
        filters.finish_held(status, &mut head);
        filters.response_head(status, &mut head, held, None);
        assert_eq!(value(&head, "content-type"), "application/grpc-web+proto");
        assert_eq!(value(&head, "grpc-status"), grpc_status, "{status}");
        if held {
            assert_eq!(value(&head, "grpc-message"), "h%25");
            assert_eq!(value(&head, "content-length"), "0");
        }
    }
    // Not more of it than Envoy takes; nor is such an answer counted.
    let mut filters = web(&registry, ContentType::Binary, ContentType::Binary);
    let mut head = headers(&[]);
    assert!(filters.holds(500, &head, false));
    for _ in 0..17 {
        filters.response_data(&[b'h'; 1000], &mut Vec::new());
    }
    filters.finish_held(500, &mut head);
    filters.response_head(500, &mut head, true, None);
    assert_eq!(head.get(b"grpc-message").map(<[u8]>::len), Some(16384));
    assert_eq!(registry.value("cluster.c.grpc-web.S.M.total"), None);
    // Nothing to say without a body.
    assert!(!filters.holds(404, &head, true));
}

#[test]
fn answers_of_our_own() {
    let registry = Registry::new(1);
    let mut filters = web(&registry, ContentType::Binary, ContentType::Text);
    let mut head = headers(&[("content-length", "4"), ("content-type", "text/plain")]);
    assert!(filters.answer(403, &mut head, b"nope"));
    filters.response_head(403, &mut head, true, None);
    assert_eq!(
        value(&head, "content-type"),
        "application/grpc-web-text+proto"
    );
    assert_eq!(
        (value(&head, "grpc-status"), value(&head, "grpc-message")),
        ("7".into(), "nope".into())
    );
    assert!(!filters.answer(404, &mut head, b""));
    assert!(!GrpcFilters::default().answer(404, &mut head, b"x"));
    assert!(GrpcFilters::default().is_empty());
}
