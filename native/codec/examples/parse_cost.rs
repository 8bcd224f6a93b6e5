//! What parsing a request head costs: `cargo run --release -p tidegate-codec --example parse_cost`.
//!
//! Prints nanoseconds per head, the best and the median of many rounds, so that a busy machine disturbs little.

use std::hint::black_box;
use std::time::Instant;

use tidegate_codec::h1::{BodyTracker, HeadScratch, Limits, Method, RequestFraming, TrailerPolicy};
use tidegate_codec::h1::{parse_request, parse_response};

const EIGHT: &[u8] = b"GET /productpage?u=normal HTTP/1.1\r\n\
Host: productpage.default.svc.cluster.local:9080\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
Accept-Language: en-US,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate\r\n\
Connection: keep-alive\r\n\
Cookie: session=eyJ1c2VyIjoiamFzb24ifQ.YQ\r\n\
Cache-Control: max-age=0\r\n\r\n";

const ISTIO: &[u8] = b"GET /details/0 HTTP/1.1\r\n\
host: details.default.svc.cluster.local:9080\r\n\
user-agent: python-requests/2.32.3\r\n\
accept-encoding: gzip, deflate\r\n\
accept: */*\r\n\
x-request-id: 5a7c5d28-bc9a-4613-9d2c-9d2f5d2e9036\r\n\
cookie: session=eyJ1c2VyIjoiamFzb24ifQ.YQ\r\n\
x-forwarded-for: 10.244.0.5\r\n\
x-forwarded-proto: http\r\n\
x-envoy-internal: true\r\n\
x-envoy-decorator-operation: details.default.svc.cluster.local:9080/*\r\n\
x-envoy-expected-rq-timeout-ms: 15000\r\n\
x-envoy-attempt-count: 1\r\n\
x-envoy-peer-metadata-id: sidecar~10.244.0.7~productpage-v1-6b746f74dc-9rlmh.default~default.svc.cluster.local\r\n\
x-b3-traceid: 80f198ee56343ba864fe8b2a57d3eff7\r\n\
x-b3-spanid: e457b5a2e4d86bd1\r\n\
x-b3-parentspanid: 05e3ac9a4f6e3b90\r\n\
x-b3-sampled: 1\r\n\
end-user: jason\r\n\
accept-language: en-US,en;q=0.5\r\n\
content-type: application/json\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
server: istio-envoy\r\n\
date: Tue, 24 Nov 2026 04:00:00 GMT\r\n\
content-type: application/json\r\n\
content-length: 178\r\n\
x-envoy-upstream-service-time: 4\r\n\r\n";

fn measure(name: &str, bytes: usize, mut work: impl FnMut()) {
    const BATCH: u32 = 20_000;
    let mut rounds: Vec<f64> = (0..60)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..BATCH {
                work();
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    let best = rounds.first().copied().unwrap_or_default();
    let median = rounds.get(rounds.len() / 2).copied().unwrap_or_default();
    println!("{name:28} {bytes:6} B  best {best:7.1} ns  median {median:7.1} ns");
}

fn main() {
    let limits = Limits::default();
    let mut scratch = HeadScratch::new();
    for (name, bytes) in [
        ("request, 8 headers", EIGHT),
        ("request, Istio, 20 headers", ISTIO),
    ] {
        measure(name, bytes.len(), || {
            let head = parse_request(black_box(bytes), &mut scratch, &limits);
            assert!(black_box(head).is_ok_and(|head| head.is_some()));
        });
    }
    measure("response, 5 headers", RESPONSE.len(), || {
        let head = parse_response(black_box(RESPONSE), Method::Get, &mut scratch, &limits);
        assert!(black_box(head).is_ok_and(|head| head.is_some()));
    });
    let mut out = Vec::with_capacity(4096);
    measure("copy of 20 header lines", ISTIO.len(), || {
        let _ = parse_request(black_box(ISTIO), &mut scratch, &limits);
        out.clear();
        scratch.copy_lines(ISTIO, &mut out, |header| !header.hop_by_hop);
        black_box(&out);
    });
    let mut body = Vec::new();
    for _ in 0..63 {
        body.extend_from_slice(b"3e8\r\n");
        body.extend_from_slice(&[b'x'; 1000]);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    measure("63 chunks of 1000 B, raw", body.len(), || {
        let mut tracker =
            BodyTracker::request(RequestFraming::Chunked, TrailerPolicy::Drop, &limits);
        let mut total = 0;
        let fed = tracker.feed_raw(black_box(&body), |extent| total += extent.len());
        assert!(fed.is_ok_and(|fed| fed.finished) && total == body.len());
    });
}
