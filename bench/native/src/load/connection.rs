//! One connection of the load generator: sends its request, follows the answer to its end, checks it.

use tidegate_rt::{Received, Sent, Socket};

use super::Work;
use super::tls::Session;
use crate::http::{self, Body};

/// What a connection came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// More has to come.
    Waiting,
    /// The operation is complete.
    Done,
    /// It is complete, or none was under way, and the other side closes the connection, as it may.
    DoneAndClosed,
    /// Not as it should be; the connection is of no more use.
    Failed(String),
}

/// A connection and the operation on it.
#[derive(Debug)]
pub struct Connection {
    pub socket: Socket,
    tls: Option<Box<Session>>,
    /// Bytes of the request that have not left yet.
    unsent: usize,
    /// An operation has begun and its answer is not complete.
    busy: bool,
    partial: Vec<u8>,
    body: Option<(Body, u64)>,
    received: usize,
    /// The answer at hand says that the connection ends with it.
    closes: bool,
    pub bytes: u64,
}

impl Connection {
    pub fn new(socket: Socket, tls: Option<Box<Session>>) -> Self {
        Self {
            socket,
            tls,
            unsent: 0,
            busy: false,
            partial: Vec::new(),
            body: None,
            received: 0,
            closes: false,
            bytes: 0,
        }
    }

    /// Begins an operation with `request`.
    pub fn begin(&mut self, request: &[u8]) -> Progress {
        self.busy = true;
        self.received = 0;
        self.body = None;
        match &mut self.tls {
            None => self.unsent = request.len(),
            Some(session) => {
                if let Err(why) = session.begin(request) {
                    return Progress::Failed(why);
                }
            }
        }
        self.send(request)
    }

    /// Says goodbye, where the protocol has a word for it; what cannot leave at once is dropped.
    pub fn finish(&mut self) {
        if let Some(session) = &mut self.tls
            && session.close_notify().is_ok()
        {
            let _ = session.flush(&self.socket);
        }
    }

    /// Sends what is left of the request.
    pub fn send(&mut self, request: &[u8]) -> Progress {
        if let Some(session) = &mut self.tls {
            return match session.flush(&self.socket) {
                Ok(()) => Progress::Waiting,
                Err(why) => Progress::Failed(why),
            };
        }
        while self.unsent > 0 {
            let rest = request
                .get(request.len() - self.unsent..)
                .unwrap_or_default();
            match self.socket.send(rest) {
                Sent::Bytes(count) => self.unsent -= count,
                Sent::WouldBlock => return Progress::Waiting,
                Sent::Error(error) => return Progress::Failed(format!("send: {error}")),
            }
        }
        Progress::Waiting
    }

    /// Whether an operation is under way.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Sends without end; the bytes are counted.
    pub fn pour(&mut self, buffer: &[u8]) -> Progress {
        loop {
            match self.socket.send(buffer) {
                Sent::Bytes(count) => self.bytes += count as u64,
                Sent::WouldBlock => return Progress::Waiting,
                Sent::Error(error) => return Progress::Failed(format!("send: {error}")),
            }
        }
    }

    /// Reads what is there. `expected` is the body length of the first answer, set by it.
    pub fn receive(
        &mut self,
        work: &Work,
        buffer: &mut [u8],
        expected: &mut Option<u64>,
    ) -> Progress {
        if let Some(mut session) = self.tls.take() {
            let progress = self.receive_records(&mut session, buffer, expected);
            self.tls = Some(session);
            self.busy &= progress == Progress::Waiting;
            return progress;
        }
        loop {
            let count = match self.socket.recv(buffer) {
                Received::Data(count) => count,
                Received::WouldBlock => return Progress::Waiting,
                Received::Eof if matches!(work, Work::AcceptClose) => return Progress::Done,
                Received::Eof if matches!(work, Work::Http { .. }) && !self.busy => {
                    return Progress::DoneAndClosed;
                }
                Received::Eof => return Progress::Failed("closed by the peer".to_owned()),
                Received::Error(error) => return Progress::Failed(format!("receive: {error}")),
            };
            self.bytes += count as u64;
            let full = count == buffer.len();
            let bytes = buffer.get(..count).unwrap_or_default();
            let progress = match work {
                Work::Http { .. } => self.http(bytes, expected),
                Work::PingPong { size } => self.count(count, *size),
                Work::Connect => self.count(count, 1),
                Work::Bulk { .. } => Progress::Waiting,
                Work::AcceptClose => Progress::Failed("bytes before the close".to_owned()),
            };
            if progress != Progress::Waiting || !full {
                self.busy &= progress == Progress::Waiting;
                return progress;
            }
        }
    }

    /// As `receive`, for HTTP over TLS.
    fn receive_records(
        &mut self,
        session: &mut Session,
        buffer: &mut [u8],
        expected: &mut Option<u64>,
    ) -> Progress {
        loop {
            let held = session.restore(buffer);
            let room = buffer.get_mut(held..).unwrap_or_default();
            let size = room.len();
            let count = match self.socket.recv(room) {
                Received::Data(count) => count,
                Received::WouldBlock => {
                    session.keep(buffer.get(..held).unwrap_or_default());
                    return Progress::Waiting;
                }
                Received::Eof if !self.busy => return Progress::DoneAndClosed,
                Received::Eof => return Progress::Failed("closed by the peer".to_owned()),
                Received::Error(error) => return Progress::Failed(format!("receive: {error}")),
            };
            self.bytes += count as u64;
            let records = buffer.get_mut(..held + count).unwrap_or_default();
            let mut progress = Progress::Waiting;
            let read = session.receive(records, |data| {
                progress = match progress {
                    Progress::Waiting => self.http(data, expected),
                    _ => Progress::Failed("bytes behind the answer".to_owned()),
                };
            });
            if let Err(why) = read.and_then(|()| session.flush(&self.socket)) {
                return Progress::Failed(why);
            }
            match progress {
                Progress::Waiting if session.is_closed() && self.busy => {
                    return Progress::Failed("closed by the peer".to_owned());
                }
                Progress::Waiting | Progress::Done if session.is_closed() => {
                    return Progress::DoneAndClosed;
                }
                Progress::Waiting if count == size => {}
                _ => return progress,
            }
        }
    }

    fn count(&mut self, count: usize, size: usize) -> Progress {
        self.received += count;
        match self.received.cmp(&size) {
            std::cmp::Ordering::Less => Progress::Waiting,
            std::cmp::Ordering::Equal => Progress::Done,
            std::cmp::Ordering::Greater => {
                Progress::Failed("more came back than was sent".to_owned())
            }
        }
    }

    fn http(&mut self, received: &[u8], expected: &mut Option<u64>) -> Progress {
        let joined;
        let mut bytes = received;
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.partial);
            bytes = &joined;
        }
        if self.body.is_none() {
            let Some(length) = http::head_length(bytes) else {
                self.partial.extend_from_slice(bytes);
                return Progress::Waiting;
            };
            let (head, rest) = bytes.split_at(length);
            if head.get(9..12) != Some(b"200".as_slice()) {
                let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
                return Progress::Failed(String::from_utf8_lossy(line).into_owned());
            }
            self.body = Some((Body::of(head), 0));
            self.closes = http::says_close(head);
            bytes = rest;
        }
        let Some((body, payload)) = &mut self.body else {
            return Progress::Waiting;
        };
        let Some((taken, data)) = body.feed(bytes) else {
            return Progress::Failed("broken chunks".to_owned());
        };
        *payload += data;
        if !body.is_finished() {
            return Progress::Waiting;
        }
        if taken < bytes.len() {
            return Progress::Failed("bytes behind the answer".to_owned());
        }
        let length = *expected.get_or_insert(*payload);
        if length != *payload {
            return Progress::Failed(format!("a body of {payload} bytes instead of {length}"));
        }
        self.body = None;
        if self.closes {
            return Progress::DoneAndClosed;
        }
        Progress::Done
    }
}
