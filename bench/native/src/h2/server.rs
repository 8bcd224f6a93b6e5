//! The HTTP/2 side of `tg-backend`, without sockets: what a port answers is fixed, so requests are not even decoded.

use std::collections::HashMap;

use super::blocks::{Block, Keep};
use super::{
    END_HEADERS, END_STREAM, Heard, Kind, Link, MAX_FRAME, PREFACE, next_frame, put, put_opening,
};

/// What a port does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// A body of so many bytes, once the request is whole.
    Fixed(usize),
    /// A gRPC message of so many bytes and the status in trailers, once the request is whole.
    Unary(usize),
    /// The head at once, every byte back as it comes, the status in trailers at the end.
    Echo,
}

/// The answers of one service, encoded once.
#[derive(Debug)]
pub struct Answers {
    pub service: Service,
    head: Block,
    /// The head of gRPC once the trailers' field is in the table: the one before it has moved on.
    behind: Vec<u8>,
    trailers: Block,
    body: Vec<u8>,
}

impl Answers {
    pub fn new(service: Service) -> Self {
        let (content_type, body) = match service {
            Service::Fixed(size) => ("text/plain", vec![b'x'; size]),
            Service::Unary(size) => ("application/grpc", message(size)),
            Service::Echo => ("application/grpc", Vec::new()),
        };
        let length = body.len().to_string();
        let mut fields = vec![
            (":status", "200", Keep::Indexed),
            ("content-type", content_type, Keep::Indexed),
        ];
        if matches!(service, Service::Fixed(_)) {
            fields.push(("content-length", &length, Keep::Indexed));
        }
        let head = Block::new(&fields);
        let trailers = Block::new(&[("grpc-status", "0", Keep::Indexed)]);
        Self {
            service,
            head,
            behind: vec![0x88, 0x80 | 63],
            trailers,
            body,
        }
    }
}

/// A gRPC message: uncompressed, its length, and so many bytes.
pub fn message(size: usize) -> Vec<u8> {
    let mut message = vec![0];
    message.extend_from_slice(&(size as u32).to_be_bytes());
    message.resize(5 + size, b'm');
    message
}

/// A stream with something left to do.
#[derive(Debug, Default)]
struct Stream {
    window: i64,
    /// Where in the fixed body it stands; for `Echo`, what has not been sent back.
    sent: usize,
    echo: Vec<u8>,
    answering: bool,
    over: bool,
}

/// One connection.
#[derive(Debug, Default)]
pub struct Connection {
    link: Link,
    greeted: bool,
    /// The table has been filled by a first answer.
    filled: bool,
    filled_trailers: bool,
    streams: HashMap<u32, Stream>,
    /// Streams that wait for a window, oldest first.
    waiting: Vec<u32>,
}

impl Connection {
    /// Takes bytes in and appends what is to be sent; false if the other side speaks something else.
    pub fn receive(&mut self, received: &[u8], answers: &Answers, out: &mut Vec<u8>) -> bool {
        let joined = self.link.join(received);
        let mut rest = joined.as_deref().unwrap_or(received);
        if !self.greeted {
            if rest.len() < PREFACE.len() {
                self.link.keep(rest);
                return true;
            }
            let Some(behind) = rest.strip_prefix(PREFACE) else {
                return false;
            };
            rest = behind;
            self.greeted = true;
            put_opening(out);
        }
        while let Some(frame) = next_frame(&mut rest) {
            match self.link.hear(&frame, out) {
                Heard::Nothing => {}
                Heard::Window(by) => {
                    for stream in self.streams.values_mut() {
                        stream.window += by;
                    }
                    self.resume(answers, out);
                }
                Heard::Stream => match frame.kind {
                    Kind::Headers => self.request(frame.stream, frame.ends_stream(), answers, out),
                    Kind::Data => self.data(&frame, answers, out),
                    Kind::Reset => {
                        self.streams.remove(&frame.stream);
                    }
                    Kind::WindowUpdate => {
                        if let Some(stream) = self.streams.get_mut(&frame.stream) {
                            stream.window += i64::from(frame.number());
                            self.resume(answers, out);
                        }
                    }
                    _ => {}
                },
            }
        }
        self.link.keep(rest);
        true
    }

    fn request(&mut self, id: u32, whole: bool, answers: &Answers, out: &mut Vec<u8>) {
        if self.streams.contains_key(&id) {
            // Trailers.
            if whole {
                self.whole(id, answers, out);
            }
            return;
        }
        let stream = Stream {
            window: self.link.initial_window,
            ..Stream::default()
        };
        self.streams.insert(id, stream);
        if answers.service == Service::Echo {
            self.head(id, answers, out);
        }
        if whole {
            self.whole(id, answers, out);
        }
    }

    fn data(&mut self, frame: &super::Frame<'_>, answers: &Answers, out: &mut Vec<u8>) {
        let Some(stream) = self.streams.get_mut(&frame.stream) else {
            return;
        };
        if answers.service == Service::Echo {
            stream.echo.extend_from_slice(frame.payload);
            if !frame.ends_stream() {
                self.advance(frame.stream, answers, out);
            }
        }
        if frame.ends_stream() {
            self.whole(frame.stream, answers, out);
        }
    }

    /// The request is whole: the answer, or its end.
    fn whole(&mut self, id: u32, answers: &Answers, out: &mut Vec<u8>) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.over = true;
        }
        if answers.service != Service::Echo {
            self.head(id, answers, out);
        }
        self.advance(id, answers, out);
    }

    fn head(&mut self, id: u32, answers: &Answers, out: &mut Vec<u8>) {
        let block = if self.filled_trailers && self.link.table {
            &answers.behind
        } else {
            self.form(&answers.head, self.filled)
        };
        put(out, Kind::Headers, END_HEADERS, id, block);
        self.filled = true;
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.answering = true;
        }
    }

    fn form<'b>(&self, block: &'b Block, filled: bool) -> &'b [u8] {
        if !self.link.table {
            &block.plain
        } else if filled {
            &block.later
        } else {
            &block.first
        }
    }

    fn resume(&mut self, answers: &Answers, out: &mut Vec<u8>) {
        for id in std::mem::take(&mut self.waiting) {
            self.advance(id, answers, out);
        }
    }

    /// Sends of a stream what its windows allow, and its end where it comes.
    fn advance(&mut self, id: u32, answers: &Answers, out: &mut Vec<u8>) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let echo = answers.service == Service::Echo;
        let body = if echo { &stream.echo } else { &answers.body };
        loop {
            let rest = body.get(stream.sent..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let room = stream.window.min(self.link.window).max(0) as usize;
            let size = rest.len().min(room).min(MAX_FRAME);
            if size == 0 {
                if !self.waiting.contains(&id) {
                    self.waiting.push(id);
                }
                return;
            }
            let last = size == rest.len() && matches!(answers.service, Service::Fixed(_));
            let part = rest.get(..size).unwrap_or_default();
            put(out, Kind::Data, u8::from(last), id, part);
            stream.sent += size;
            stream.window -= size as i64;
            self.link.window -= size as i64;
        }
        if echo {
            stream.echo.clear();
            stream.sent = 0;
        }
        if stream.over && stream.answering {
            self.streams.remove(&id);
            if !matches!(answers.service, Service::Fixed(_)) {
                let block = self.form(&answers.trailers, self.filled_trailers);
                put(out, Kind::Headers, END_HEADERS | END_STREAM, id, block);
                self.filled_trailers = true;
            } else if answers.body.is_empty() {
                put(out, Kind::Data, END_STREAM, id, &[]);
            }
        }
    }
}
