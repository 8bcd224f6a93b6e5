//! What the codec's share of one proxied HTTP/2 exchange costs: `cargo run --release -p tidegate-codec --example h2_cost`.
//!
//! A client and an origin, whose work is not counted, talk through the two connections of a proxy. The bytes of one
//! exchange in the steady state are recorded and played again and again with new stream identifiers. Prints nanoseconds,
//! the best and the median of many rounds (how many may be said), so that a busy machine disturbs little; and what an
//! idle connection holds.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use tidegate_codec::h2::{
    Connection, Event, Input, NO_TOKEN, Options, OutField, RequestLine, Role, Scratch, StreamRef,
};

type Lines = &'static [(&'static str, &'static str)];

const SMALL: Lines = &[("user-agent", "h2load nghttp2/1.52.0")];

const BROWSER: Lines = &[
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate"),
    ("cookie", "session=eyJ1c2VyIjoiamFzb24ifQ.YQ"),
    ("cache-control", "max-age=0"),
];

const ISTIO: Lines = &[
    ("user-agent", "python-requests/2.32.3"),
    ("accept-encoding", "gzip, deflate"),
    ("accept", "*/*"),
    ("x-request-id", "5a7c5d28-bc9a-4613-9d2c-9d2f5d2e9036"),
    ("cookie", "session=eyJ1c2VyIjoiamFzb24ifQ.YQ"),
    ("x-forwarded-for", "10.244.0.5"),
    ("x-forwarded-proto", "http"),
    ("x-envoy-internal", "true"),
    (
        "x-envoy-decorator-operation",
        "details.default.svc.cluster.local:9080/*",
    ),
    ("x-envoy-expected-rq-timeout-ms", "15000"),
    ("x-envoy-attempt-count", "1"),
    (
        "x-envoy-peer-metadata-id",
        "sidecar~10.244.0.7~productpage-v1-6b746f74dc-9rlmh.default~default.svc.cluster.local",
    ),
    ("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"),
    ("x-b3-spanid", "e457b5a2e4d86bd1"),
    ("x-b3-parentspanid", "05e3ac9a4f6e3b90"),
    ("x-b3-sampled", "1"),
    ("end-user", "jason"),
    ("accept-language", "en-US,en;q=0.5"),
];

const RESPONSE: Lines = &[
    ("server", "istio-envoy"),
    ("date", "Tue, 24 Nov 2026 04:00:00 GMT"),
    ("content-type", "application/json"),
    ("content-length", "100"),
    ("x-envoy-upstream-service-time", "4"),
];

const GRPC: Lines = &[
    ("content-type", "application/grpc"),
    ("user-agent", "grpc-go/1.66.0"),
    ("te", "trailers"),
    ("grpc-timeout", "998m"),
];

const GRPC_RESPONSE: Lines = &[("content-type", "application/grpc")];

const GRPC_TRAILERS: Lines = &[("grpc-status", "0"), ("grpc-message", "")];

const BODY: [u8; 100] = [b'x'; 100];

/// A million bytes for the connection.
const WINDOW_UPDATE: [u8; 13] = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0x0f, 0x42, 0x40];

fn fields(lines: Lines) -> impl Iterator<Item = OutField<'static>> {
    lines
        .iter()
        .map(|(name, value)| OutField::named(name.as_bytes(), value.as_bytes()))
}

/// What the connection manager would pass on.
fn passed(scratch: &Scratch) -> impl Iterator<Item = OutField<'_>> {
    scratch.fields().iter().map(|field| OutField {
        name: scratch.of(field.name),
        value: scratch.of(field.value),
        known: field.known,
        sensitive: field.sensitive,
    })
}

/// The proxy in the middle: what a worker would hold.
struct Proxy {
    down: Connection,
    up: Connection,
    scratch: Scratch,
    /// The downstream stream of each upstream token.
    waiting: Vec<Option<StreamRef>>,
    /// The upstream stream of each downstream token.
    sent: Vec<Option<StreamRef>>,
}

impl Proxy {
    fn new() -> Self {
        let options = Arc::new(Options::default());
        Self {
            down: Connection::new(Role::Server, Arc::clone(&options)),
            up: Connection::new(Role::Client, options),
            scratch: Scratch::new(),
            waiting: vec![None; 1024],
            sent: vec![None; 1024],
        }
    }

    #[inline(never)]
    fn downstream_sent(&mut self, bytes: &[u8]) {
        let mut input = Input::new(bytes);
        while let Ok(Some(event)) = self.down.next(&mut input, &mut self.scratch, 0) {
            match event {
                Event::Request { stream, end } => self.request(stream, end),
                Event::Data {
                    stream,
                    token,
                    bytes,
                    end,
                } => {
                    if let Some(up) = self.sent.get(token as usize).copied().flatten() {
                        let _ = self.up.send_data(up, bytes, end);
                    }
                    self.down.release(stream, bytes.len());
                }
                _ => {}
            }
        }
    }

    fn request(&mut self, stream: StreamRef, end: bool) {
        let scratch = &self.scratch;
        let head = scratch.request();
        let line = RequestLine {
            method: scratch.of(head.method_span),
            scheme: scratch.of(head.scheme),
            authority: scratch.of(head.authority),
            path: scratch.of(head.path),
            protocol: None,
        };
        let token = stream.id() >> 1 & 1023;
        self.down.set_token(stream, token);
        let sent = self.up.start_request(token, &line, passed(scratch), end, 0);
        if let Some(place) = self.waiting.get_mut(token as usize) {
            *place = Some(stream);
        }
        if let Some(place) = self.sent.get_mut(token as usize) {
            *place = sent.ok();
        }
    }

    #[inline(never)]
    fn upstream_sent(&mut self, bytes: &[u8]) {
        let mut input = Input::new(bytes);
        while let Ok(Some(event)) = self.up.next(&mut input, &mut self.scratch, 0) {
            match event {
                Event::Response {
                    token, status, end, ..
                } => {
                    if let Some(stream) = self.stream(token) {
                        let fields = passed(&self.scratch);
                        let _ = self.down.send_response(stream, status, fields, end);
                    }
                }
                Event::Data {
                    stream,
                    token,
                    bytes,
                    end,
                } => {
                    if let Some(down) = self.stream(token) {
                        let _ = self.down.send_data(down, bytes, end);
                    }
                    self.up.release(stream, bytes.len());
                }
                Event::Trailers { token, .. } => {
                    if let Some(down) = self.stream(token) {
                        let _ = self.down.send_trailers(down, passed(&self.scratch));
                    }
                }
                _ => {}
            }
        }
    }

    fn stream(&self, token: u32) -> Option<StreamRef> {
        self.waiting.get(token as usize).copied().flatten()
    }
}

fn take(conn: &mut Connection) -> Vec<u8> {
    let bytes = conn.output().to_vec();
    conn.written(bytes.len());
    bytes
}

/// Feeds `bytes`; the streams of requests.
fn feed(conn: &mut Connection, scratch: &mut Scratch, bytes: &[u8]) -> Vec<StreamRef> {
    let mut input = Input::new(bytes);
    let mut streams = Vec::new();
    while let Ok(Some(event)) = conn.next(&mut input, scratch, 0) {
        match event {
            Event::Request { stream, .. } => streams.push(stream),
            Event::Data { stream, bytes, .. } => conn.release(stream, bytes.len()),
            _ => {}
        }
    }
    streams
}

/// Puts `id` into every frame.
fn renumber(bytes: &mut [u8], id: u32) {
    let mut rest = bytes;
    while let Some((head, after)) = rest.split_first_chunk_mut::<9>() {
        let [a, b, c, _, _, s0, s1, s2, s3] = head;
        let length = u32::from_be_bytes([0, *a, *b, *c]);
        [*s0, *s1, *s2, *s3] = id.to_be_bytes();
        rest = after.get_mut(length as usize..).unwrap_or_default();
    }
}

fn measure(name: &str, request: Lines, grpc: bool, at_once: u32, sample_count: usize) {
    const WARM: u32 = 8;
    let options = Arc::new(Options::default());
    let mut client = Connection::new(Role::Client, Arc::clone(&options));
    let mut origin = Connection::new(Role::Server, options);
    let mut scratch = Scratch::new();
    let mut proxy = Proxy::new();
    let line = RequestLine {
        method: if grpc { b"POST" } else { b"GET" },
        scheme: b"http",
        authority: b"details.default.svc.cluster.local:9080",
        path: b"/bookinfo.Details/Get",
        protocol: None,
    };
    let (mut to_proxy, mut from_origin) = (Vec::new(), Vec::new());
    for round in 0..WARM {
        if round > 0 {
            let sent = client.start_request(NO_TOKEN, &line, fields(request), !grpc, 0);
            let sent = sent.map(|stream| grpc && client.send_data(stream, &BODY, true).is_ok());
            assert_eq!(sent, Ok(grpc));
        }
        to_proxy = take(&mut client);
        proxy.downstream_sent(&to_proxy);
        let to_origin = take(&mut proxy.up);
        for stream in feed(&mut origin, &mut scratch, &to_origin) {
            let head = if grpc { GRPC_RESPONSE } else { RESPONSE };
            let answered = origin.send_response(stream, 200, fields(head), false);
            assert!(answered.is_ok());
            assert_eq!(origin.send_data(stream, &BODY, !grpc), Ok(BODY.len()));
            if grpc {
                assert!(origin.send_trailers(stream, fields(GRPC_TRAILERS)).is_ok());
            }
        }
        from_origin = take(&mut origin);
        proxy.upstream_sent(&from_origin);
        let to_client = take(&mut proxy.down);
        feed(&mut client, &mut scratch, &to_client);
    }
    let (request_len, response_len) = (to_proxy.len(), from_origin.len());
    let mut requests: Vec<u8> = (0..at_once).flat_map(|_| to_proxy.clone()).collect();
    let mut responses: Vec<u8> = (0..at_once).flat_map(|_| from_origin.clone()).collect();
    // Both sides of the proxy number alike.
    let mut id = 2 * WARM - 1;
    let rounds = 2_000 / at_once;
    let mut samples = Vec::new();
    for _ in 0..sample_count {
        let mut spent = 0.0;
        proxy.downstream_sent(&WINDOW_UPDATE);
        proxy.upstream_sent(&WINDOW_UPDATE);
        for _ in 0..rounds {
            for number in 0..at_once as usize {
                let piece = requests.get_mut(number * request_len..(number + 1) * request_len);
                renumber(piece.unwrap_or_default(), id + 2 * number as u32);
                let piece = responses.get_mut(number * response_len..(number + 1) * response_len);
                renumber(piece.unwrap_or_default(), id + 2 * number as u32);
            }
            id += 2 * at_once;
            let start = Instant::now();
            proxy.downstream_sent(black_box(&requests));
            let sent = black_box(proxy.up.output()).len();
            proxy.up.written(sent);
            proxy.upstream_sent(black_box(&responses));
            let sent = black_box(proxy.down.output()).len();
            proxy.down.written(sent);
            spent += start.elapsed().as_secs_f64();
        }
        samples.push(spent * 1e9 / f64::from(rounds * at_once));
        assert_eq!(
            proxy.down.active_streams() + proxy.up.active_streams(),
            0,
            "an exchange was not carried"
        );
    }
    samples.sort_by(f64::total_cmp);
    let best = samples.first().copied().unwrap_or_default();
    let median = samples.get(samples.len() / 2).copied().unwrap_or_default();
    println!(
        "{name:24} x{at_once:3}  {request_len:4} B + {response_len:4} B  best {best:7.1} ns  median {median:7.1} ns"
    );
}

/// Memory that the process holds, in bytes, as far as the system tells.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|text| text.parse().ok());
    pages.unwrap_or(0usize) * 4096
}

/// What idle connections hold: new ones, and those that have carried so many requests.
fn measure_memory(requests: usize) {
    const COUNT: usize = 5_000;
    let options = Arc::new(Options::default());
    let mut scratch = Scratch::new();
    let line = RequestLine {
        method: b"GET",
        scheme: b"http",
        authority: b"details.default.svc.cluster.local:9080",
        path: b"/details/0",
        protocol: None,
    };
    // The same bytes for all of them.
    let mut client = Connection::new(Role::Client, Arc::clone(&options));
    let mut hello = take(&mut client);
    for _ in 0..requests {
        let sent = client.start_request(NO_TOKEN, &line, fields(ISTIO), true, 0);
        assert!(sent.is_ok());
        hello.extend(take(&mut client));
    }
    let mut connections = Vec::with_capacity(COUNT);
    let before = resident();
    for _ in 0..COUNT {
        let mut conn = Connection::new(Role::Server, Arc::clone(&options));
        for stream in feed(&mut conn, &mut scratch, &hello) {
            let answered = conn.send_response(stream, 200, fields(RESPONSE), true);
            assert!(answered.is_ok());
        }
        let pending = conn.output().len();
        conn.written(pending);
        drop(conn.reclaim_output());
        conn.trim();
        connections.push(conn);
    }
    println!(
        "idle connection after {requests} requests: {} B, of which the connection itself {} B",
        (resident() - before) / COUNT,
        size_of::<Connection>()
    );
}

fn main() {
    let samples = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let samples = samples.unwrap_or(200);
    for requests in [0, 1, 10] {
        measure_memory(requests);
    }
    for (name, lines, grpc) in [
        ("small GET", SMALL, false),
        ("browser GET", BROWSER, false),
        ("Istio GET, 18 headers", ISTIO, false),
        ("gRPC unary", GRPC, true),
    ] {
        for at_once in [1, 32] {
            measure(name, lines, grpc, at_once, samples);
        }
    }
}
