//! What fuzzers run: one function per engine, each a claim about all inputs. A violated claim panics.
//!
//! The fuzzers themselves are in `native/fuzz`; a test here replays their corpus. Must not know libFuzzer.

use std::sync::Arc;

use crate::h1::{
    BodyTracker, HeadResume, HeadScratch, Limits, Method, TrailerPolicy, parse_request,
    parse_response,
};
use crate::h2::{
    Connection, ErrorCode, Event, Input, Options, OutField, RequestLine, Role, Scratch, StreamRef,
};

pub use crate::h2::hpack_fuzzing::{hpack_decode, hpack_round_trip};

/// Most bytes that an honest reading may make us owe: beyond it an engine amplifies.
const MOST_OUTPUT: usize = 1 << 20;

/// Takes decisions out of the input, zeros when it is used up.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}

/// A request head and its body: what arrives in pieces is understood as what arrives at once.
pub fn h1_request(data: &[u8]) {
    let (Some(step), Some(bytes)) = (data.first(), data.get(1..)) else {
        return;
    };
    let limits = Limits {
        accept_http_10: step & 1 != 0,
        allow_chunked_length: step & 2 != 0,
        ..Limits::default()
    };
    let mut scratch = HeadScratch::new();
    let whole = parse_request(bytes, &mut scratch, &limits);
    let mut resume = HeadResume::default();
    for end in (0..=bytes.len()).step_by(usize::from(step >> 2) + 1) {
        let part = bytes.get(..end).unwrap_or_default();
        if !resume.worth_parsing(part) {
            continue;
        }
        match parse_request(part, &mut scratch, &limits) {
            Ok(Some(head)) => {
                assert_eq!(Ok(Some(head)), whole, "a head is a head");
                break;
            }
            Ok(None) => {}
            Err(_) => {
                assert!(whole.is_err(), "refused in part, accepted as a whole");
                break;
            }
        }
    }
    if let Ok(Some(head)) = whole {
        let rest = bytes.get(head.len as usize..).unwrap_or_default();
        let body = BodyTracker::request(head.framing, TrailerPolicy::Forward, &limits);
        follow(body, rest, usize::from(step >> 2) + 1);
    }
}

/// A response head and its body, as [`h1_request`].
pub fn h1_response(data: &[u8]) {
    let (Some(step), Some(bytes)) = (data.first(), data.get(1..)) else {
        return;
    };
    let limits = Limits::default();
    let method = match step & 3 {
        0 => Method::Head,
        1 => Method::Connect,
        _ => Method::Get,
    };
    let mut scratch = HeadScratch::new();
    if let Ok(Some(head)) = parse_response(bytes, method, &mut scratch, &limits) {
        let rest = bytes.get(head.len as usize..).unwrap_or_default();
        let body = BodyTracker::response(head.framing, TrailerPolicy::Forward, &limits);
        follow(body, rest, usize::from(step >> 2) + 1);
    }
}

/// Following a body in steps gives what following it at once gives.
fn follow(body: BodyTracker, bytes: &[u8], step: usize) {
    let mut at_once = body;
    let whole = at_once.feed_raw(bytes, |_| {});
    let mut stepwise = body;
    let (mut payload, mut at, mut end, mut failed) = (0, 0, 0, false);
    // What is not used up comes again with more behind it.
    while !stepwise.is_finished() && end < bytes.len() {
        end = (end + step).min(bytes.len());
        match stepwise.feed_raw(bytes.get(at..end).unwrap_or_default(), |_| {}) {
            Ok(fed) => {
                payload += fed.payload;
                at += fed.consumed;
            }
            Err(_) => {
                failed = true;
                break;
            }
        }
    }
    match whole {
        Ok(fed) => {
            assert!(!failed, "refused in steps, accepted at once");
            assert_eq!(fed.payload, payload);
            assert_eq!(fed.finished, stepwise.is_finished());
        }
        Err(_) => assert!(failed || stepwise.is_finished()),
    }
}

/// An HTTP/2 server that meets anything at all behind the preface, and answers what it understands.
pub fn h2_server(data: &[u8]) {
    let (Some(step), Some(bytes)) = (data.first(), data.get(1..)) else {
        return;
    };
    let mut connection = Connection::new(Role::Server, Arc::new(Options::default()));
    let mut scratch = Scratch::new();
    let mut whole = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    whole.extend_from_slice(bytes);
    hostile(&mut connection, &mut scratch, &whole, *step);
}

/// An HTTP/2 client with requests under way, and a server that says anything at all.
pub fn h2_client(data: &[u8]) {
    let (Some(step), Some(bytes)) = (data.first(), data.get(1..)) else {
        return;
    };
    let mut connection = Connection::new(Role::Client, Arc::new(Options::default()));
    let mut scratch = Scratch::new();
    for token in 0..3 {
        let _ = start(&mut connection, token, token != 0);
    }
    hostile(&mut connection, &mut scratch, bytes, *step);
}

fn start(connection: &mut Connection, token: u32, end: bool) -> Option<StreamRef> {
    let line = RequestLine {
        method: if end { b"GET" } else { b"POST" },
        scheme: b"http",
        authority: b"a.example",
        path: b"/p",
        protocol: None,
    };
    let fields = [OutField::named(b"x-a", b"1")];
    connection.start_request(token, &line, fields, end, 0).ok()
}

/// Feeds bytes in steps; whatever they are, output and memory stay bounded and nothing panics.
fn hostile(connection: &mut Connection, scratch: &mut Scratch, bytes: &[u8], step: u8) {
    let size = usize::from(step >> 1) + 1;
    for (pass, piece) in bytes.chunks(size).enumerate() {
        let mut input = Input::new(piece);
        loop {
            match connection.next(&mut input, scratch, pass as u64) {
                Ok(Some(event)) => react(connection, event, step & 1 != 0),
                Ok(None) => break,
                Err(_) => {
                    assert!(!connection.output().is_empty(), "an error says goodbye");
                    return;
                }
            }
        }
        assert!(connection.output().len() < MOST_OUTPUT);
        if step & 2 == 0 {
            let count = connection.output().len();
            connection.written(count);
        }
    }
}

fn react(connection: &mut Connection, event: Event<'_>, reset: bool) {
    match event {
        Event::Request { stream, .. } | Event::TooLarge { stream, .. } => {
            connection.set_token(stream, stream.id());
            if reset {
                connection.reset(stream, ErrorCode::CANCEL);
                return;
            }
            let _ = connection.send_response(stream, 200, [OutField::named(b"x-b", b"2")], false);
            let _ = connection.send_data(stream, b"hello", true);
        }
        Event::Data { stream, bytes, .. } => connection.release(stream, bytes.len()),
        _ => {}
    }
}

/// Two honest ends, whatever they do and however their bytes are cut: neither finds fault with the other, and what one
/// sends the other receives.
pub fn h2_pair(data: &[u8]) {
    let mut choices = Choices(data);
    let options = Options {
        initial_stream_window_size: 65_535,
        initial_connection_window_size: 65_535,
        hpack_table_size: u32::from(choices.byte()) * 32,
        max_concurrent_streams: 8,
        ..Options::default()
    };
    let options = Arc::new(options);
    let mut client = End::new(Role::Client, &options);
    let mut server = End::new(Role::Server, &options);
    while !choices.is_done() {
        match choices.byte() % 8 {
            0 | 1 => client.open(choices.byte()),
            2 => client.send(choices.word(), choices.byte().is_multiple_of(4)),
            3 => server.send(choices.word(), choices.byte().is_multiple_of(4)),
            4 => client.abandon(choices.byte()),
            5 => server.abandon(choices.byte()),
            6 => transfer(&mut client, &mut server, choices.word()),
            _ => transfer(&mut server, &mut client, choices.word()),
        }
    }
    for _ in 0..64 {
        transfer(&mut client, &mut server, usize::MAX);
        transfer(&mut server, &mut client, usize::MAX);
    }
    assert!(client.connection.output().is_empty() && server.connection.output().is_empty());
    for (id, (sent, whole)) in &client.sent {
        let (received, _) = server.received.get(id).copied().unwrap_or_default();
        assert!(
            received == *sent || !*whole || server.is_abandoned(*id) || client.is_abandoned(*id)
        );
    }
}

/// One end of a pair, with what it sent and received by stream.
struct End {
    connection: Connection,
    scratch: Scratch,
    streams: Vec<StreamRef>,
    sent: std::collections::BTreeMap<u32, (u64, bool)>,
    received: std::collections::BTreeMap<u32, (u64, bool)>,
    abandoned: Vec<u32>,
    next: u32,
}

impl End {
    fn new(role: Role, options: &Arc<Options>) -> Self {
        Self {
            connection: Connection::new(role, Arc::clone(options)),
            scratch: Scratch::new(),
            streams: Vec::new(),
            sent: std::collections::BTreeMap::new(),
            received: std::collections::BTreeMap::new(),
            abandoned: Vec::new(),
            next: 0,
        }
    }

    fn is_abandoned(&self, id: u32) -> bool {
        self.abandoned.contains(&id)
    }

    fn open(&mut self, how: u8) {
        if self.connection.free_streams() == 0 {
            return;
        }
        self.next += 1;
        if let Some(stream) = start(&mut self.connection, self.next, how & 1 != 0)
            && how & 1 == 0
        {
            self.streams.push(stream);
        }
    }

    fn send(&mut self, count: usize, end: bool) {
        let Some(stream) = self.streams.last().copied() else {
            return;
        };
        let Ok(accepted) = self.connection.send_data(stream, &vec![7; count], end) else {
            return;
        };
        let entry = self.sent.entry(stream.id()).or_default();
        entry.0 += accepted as u64;
        if end && accepted == count {
            entry.1 = true;
            self.streams.pop();
        }
    }

    fn abandon(&mut self, which: u8) {
        if self.streams.is_empty() || self.abandoned.len() > 20 {
            return;
        }
        let stream = self.streams.remove(usize::from(which) % self.streams.len());
        self.abandoned.push(stream.id());
        self.connection.reset(stream, ErrorCode::CANCEL);
    }
}

/// Carries up to `count` bytes over.
fn transfer(from: &mut End, to: &mut End, count: usize) {
    let output = from.connection.output();
    let bytes = output
        .get(..count.min(output.len()))
        .unwrap_or_default()
        .to_vec();
    from.connection.written(bytes.len());
    let mut input = Input::new(&bytes);
    while let Some(event) = to
        .connection
        .next(&mut input, &mut to.scratch, 0)
        .unwrap_or_else(|error| unreachable!("an honest peer is blamed: {error:?}"))
    {
        match event {
            Event::Request { stream, .. } => {
                let fields = [OutField::named(b"x-b", b"2")];
                let _ = to.connection.send_response(stream, 200, fields, false);
                to.streams.push(stream);
            }
            Event::Data {
                stream, bytes, end, ..
            } => {
                to.connection.release(stream, bytes.len());
                let entry = to.received.entry(stream.id()).or_default();
                entry.0 += bytes.len() as u64;
                entry.1 |= end;
            }
            Event::Reset { stream, .. } => {
                to.streams.retain(|other| *other != stream);
                to.abandoned.push(stream.id());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Target = fn(&[u8]);

    const TARGETS: [(&str, Target); 7] = [
        ("h1_request", h1_request),
        ("h1_response", h1_response),
        ("h2_server", h2_server),
        ("h2_client", h2_client),
        ("h2_pair", h2_pair),
        ("hpack_decode", hpack_decode),
        ("hpack_round_trip", hpack_round_trip),
    ];

    #[test]
    fn the_corpus_still_holds() -> std::io::Result<()> {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (name, target) in TARGETS {
            let mut files = 0;
            for entry in std::fs::read_dir(root.join(name))? {
                target(&std::fs::read(entry?.path())?);
                files += 1;
            }
            assert!(files > 0, "{name} has no corpus");
        }
        Ok(())
    }
}
