//! Byte transcripts between a connection and a peer that writes frames by hand, and between two connections.

mod exchange;
mod flow;
mod hpack;
mod limits;
mod messages;
mod model;
mod pieces;
mod protocol;
mod transfer;
mod wire;

use std::sync::Arc;

use super::*;

/// Bytes from hexadecimal digits, white space left out.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(u8::is_ascii_hexdigit)
        .map(|digit| (digit as char).to_digit(16).unwrap() as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// An event with everything it refers to copied out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Request(u32, Vec<String>, bool),
    TooLarge(u32, Overflow),
    Response(u32, u16, Vec<String>, bool),
    Data(u32, Vec<u8>, bool),
    Trailers(u32, Vec<String>),
    Reset(u32, ErrorCode, ResetBy),
    Writable(u32),
    GoAway(u32, ErrorCode),
    Settings,
    Pong([u8; 8]),
}

fn lines(scratch: &Scratch) -> Vec<String> {
    let text = |span| String::from_utf8_lossy(scratch.of(span)).into_owned();
    scratch
        .fields()
        .iter()
        .map(|field| format!("{}: {}", text(field.name), text(field.value)))
        .collect()
}

fn request_lines(scratch: &Scratch) -> Vec<String> {
    let head = scratch.request();
    let text = |span| String::from_utf8_lossy(scratch.of(span)).into_owned();
    let mut all = vec![format!(
        "{} {}://{}{}",
        text(head.method_span),
        text(head.scheme),
        text(head.authority),
        text(head.path)
    )];
    all.extend(lines(scratch));
    all
}

/// One side with its scratch.
struct Side {
    conn: Connection,
    scratch: Scratch,
    now: u64,
    last: Option<StreamRef>,
}

impl Side {
    fn new(role: Role, options: Options) -> Self {
        Self {
            conn: Connection::new(role, Arc::new(options)),
            scratch: Scratch::new(),
            now: 0,
            last: None,
        }
    }

    fn server() -> Self {
        Self::new(Role::Server, Options::default())
    }

    fn client() -> Self {
        Self::new(Role::Client, Options::default())
    }

    /// Feeds bytes; what was seen, and the error that ended it.
    fn feed(&mut self, bytes: &[u8]) -> (Vec<Seen>, Option<ConnectionError>) {
        let mut input = Input::new(bytes);
        let mut all = Vec::new();
        loop {
            match self.conn.next(&mut input, &mut self.scratch, self.now) {
                Ok(None) => {
                    assert!(input.is_empty());
                    return (all, None);
                }
                Ok(Some(event)) => {
                    let seen = self.see(event);
                    all.push(seen);
                }
                Err(error) => return (all, Some(error)),
            }
        }
    }

    /// Feeds bytes that end nothing.
    fn fine(&mut self, bytes: &[u8]) -> Vec<Seen> {
        let (seen, error) = self.feed(bytes);
        assert_eq!(error, None, "{seen:?}");
        seen
    }

    fn see(&mut self, event: Event<'_>) -> Seen {
        match event {
            Event::Request { stream, end } => {
                self.last = Some(stream);
                Seen::Request(stream.id(), request_lines(&self.scratch), end)
            }
            Event::TooLarge {
                stream, overflow, ..
            } => {
                self.last = Some(stream);
                Seen::TooLarge(stream.id(), overflow)
            }
            Event::Response {
                stream,
                status,
                end,
                ..
            } => Seen::Response(stream.id(), status, lines(&self.scratch), end),
            Event::Data {
                stream, bytes, end, ..
            } => {
                self.conn.release(stream, bytes.len());
                Seen::Data(stream.id(), bytes.to_vec(), end)
            }
            Event::Trailers { stream, .. } => Seen::Trailers(stream.id(), lines(&self.scratch)),
            Event::Reset {
                stream, code, by, ..
            } => Seen::Reset(stream.id(), code, by),
            Event::Writable { stream, .. } => Seen::Writable(stream.id()),
            Event::GoAway { last, code } => Seen::GoAway(last, code),
            Event::Settings => Seen::Settings,
            Event::Pong { payload } => Seen::Pong(payload),
        }
    }

    /// Takes the output.
    fn take(&mut self) -> Vec<u8> {
        let bytes = self.conn.output().to_vec();
        self.conn.written(bytes.len());
        bytes
    }
}

/// Carries output both ways until there is none.
fn pump(a: &mut Side, b: &mut Side) -> (Vec<Seen>, Vec<Seen>) {
    let (mut at_a, mut at_b) = (Vec::new(), Vec::new());
    loop {
        let to_b = a.take();
        let to_a = b.take();
        if to_a.is_empty() && to_b.is_empty() {
            return (at_a, at_b);
        }
        at_b.extend(b.fine(&to_b));
        at_a.extend(a.fine(&to_a));
    }
}
