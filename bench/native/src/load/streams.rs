//! HTTP/2 load: so many streams at a time on each connection; one write per connection for all that an event brought.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tidegate_rt::{Received, Sent, Socket, Token};

use super::Outcome;
use super::run::{Phase, Run, following};
use crate::h2::blocks::Block;
use crate::h2::{
    END_HEADERS, END_STREAM, Frame, Heard, Kind, Link, MAX_FRAME, PREFACE, next_frame, put,
    put_opening,
};

const BUFFER: usize = 256 * 1024;

/// What is done on each stream.
#[derive(Debug, Clone)]
pub enum Work {
    /// A request and its answer, walked in turn; `body` belongs to each. An answer without a body is an error of a
    /// gRPC server.
    Requests {
        blocks: Vec<Block>,
        body: Vec<u8>,
        grpc: bool,
    },
    /// Streams that stay; an operation is a message there and back.
    Messages { block: Block, message: Vec<u8> },
}

/// How the work is driven: as fast as answers come.
#[derive(Debug, Clone)]
pub struct Plan {
    pub address: SocketAddr,
    pub work: Work,
    pub connections: usize,
    /// At a time, on each connection.
    pub streams: usize,
    /// Not measured.
    pub warmup: Duration,
    pub duration: Duration,
}

/// A stream in use.
struct Op {
    id: u32,
    began: Instant,
    window: i64,
    /// How much of the body has left.
    sent: usize,
    got: u64,
    status_seen: bool,
}

/// What became of the stream that a frame was for.
enum Progress {
    Waiting,
    Done,
    /// The stream is over, and not as it should be.
    Failed(String),
}

struct Connection {
    socket: Socket,
    link: Link,
    out: Vec<u8>,
    sent: usize,
    next_id: u32,
    /// The header table has been filled by a first block.
    filled: bool,
    /// No new stream is allowed.
    leaving: bool,
    ops: Vec<Op>,
    generation: u32,
}

struct Driver<'p> {
    plan: &'p Plan,
    connections: Vec<Option<Connection>>,
    generation: u32,
    /// The request that comes next.
    next: usize,
    expected: Option<u64>,
    run: Run,
}

/// Runs the plan to its end.
pub fn run(plan: &Plan) -> Result<Outcome, String> {
    let mut driver = Driver {
        plan,
        connections: Vec::new(),
        generation: 0,
        next: 0,
        expected: None,
        run: Run::new(plan.warmup)?,
    };
    driver.run()?;
    Ok(driver.run.outcome)
}

impl Driver<'_> {
    fn run(&mut self) -> Result<(), String> {
        for index in 0..self.plan.connections {
            self.connections.push(None);
            self.open(index);
        }
        self.run.start(self.plan.warmup, self.plan.duration);
        let mut buffer = vec![0; BUFFER];
        loop {
            match self.run.phase(Instant::now())? {
                Phase::Over => return Ok(()),
                Phase::Begins => self.run.outcome.bytes = 0,
                Phase::GoesOn => {}
            }
            for i in 0..self.run.wait(Duration::from_millis(20))? {
                let Some((token, readiness)) = self.run.event(i) else {
                    break;
                };
                self.event(
                    token,
                    readiness.readable(),
                    readiness.writable(),
                    &mut buffer,
                );
            }
        }
    }

    fn open(&mut self, index: usize) {
        self.generation = (self.generation + 1) & Token::GENERATION_MASK;
        let token = Token {
            index: index as u32,
            generation: self.generation,
            side: 0,
        };
        let socket = match self.run.connect(self.plan.address, token) {
            Ok(socket) => socket,
            Err(why) => return self.fail(index, why),
        };
        let mut connection = Connection {
            socket,
            link: Link::default(),
            out: PREFACE.to_vec(),
            sent: 0,
            next_id: 1,
            filled: false,
            leaving: false,
            ops: Vec::new(),
            generation: self.generation,
        };
        put_opening(&mut connection.out);
        if let Some(slot) = self.connections.get_mut(index) {
            *slot = Some(connection);
        }
    }

    fn fail(&mut self, index: usize, why: String) {
        self.run.failed(why);
        if let Some(slot) = self.connections.get_mut(index) {
            *slot = None;
        }
        if !self.run.gives_up() {
            self.open(index);
        }
    }

    fn event(&mut self, token: Token, readable: bool, writable: bool, buffer: &mut [u8]) {
        let index = token.index as usize;
        let Some(slot) = self.connections.get_mut(index) else {
            return;
        };
        if slot
            .as_ref()
            .is_none_or(|c| c.generation != token.generation)
        {
            return;
        }
        let Some(mut connection) = slot.take() else {
            return;
        };
        let now = Instant::now();
        let mut done = Ok(());
        if readable {
            done = self.receive(&mut connection, buffer, now);
        }
        if done.is_ok() && (readable || writable) {
            self.begin(&mut connection, now);
            done = connection.flush();
        }
        match done {
            Err(why) => self.fail(index, why),
            Ok(()) if connection.leaving && connection.ops.is_empty() => self.open(index),
            Ok(()) => {
                if let Some(slot) = self.connections.get_mut(index) {
                    *slot = Some(connection);
                }
            }
        }
    }

    /// Begins as many streams as there may be.
    fn begin(&mut self, connection: &mut Connection, now: Instant) {
        let most = self.plan.streams.min(connection.link.max_streams as usize);
        while connection.ops.len() < most && !connection.leaving {
            let id = connection.next_id;
            connection.next_id += 2;
            let (block, bare) = match &self.plan.work {
                Work::Requests { blocks, body, .. } => {
                    let at = following(&mut self.next, blocks.len());
                    (blocks.get(at), body.is_empty())
                }
                Work::Messages { block, .. } => (Some(block), false),
            };
            let Some(block) = block else { return };
            let form = if !connection.link.table {
                &block.plain
            } else if connection.filled {
                &block.later
            } else {
                &block.first
            };
            let flags = END_HEADERS | if bare { END_STREAM } else { 0 };
            put(&mut connection.out, Kind::Headers, flags, id, form);
            connection.filled = true;
            connection.ops.push(Op {
                id,
                began: now,
                window: connection.link.initial_window,
                sent: 0,
                got: 0,
                status_seen: false,
            });
            let at = connection.ops.len() - 1;
            connection.advance(at, &self.plan.work);
        }
    }

    fn receive(
        &mut self,
        connection: &mut Connection,
        buffer: &mut [u8],
        now: Instant,
    ) -> Result<(), String> {
        loop {
            let count = match connection.socket.recv(buffer) {
                Received::Data(count) => count,
                Received::WouldBlock => return Ok(()),
                Received::Eof if connection.ops.is_empty() => {
                    connection.leaving = true;
                    return Ok(());
                }
                Received::Eof => return Err("closed by the peer".to_owned()),
                Received::Error(error) => return Err(format!("receive: {error}")),
            };
            self.run.outcome.bytes += count as u64;
            let full = count == buffer.len();
            let bytes = buffer.get(..count).unwrap_or_default();
            let joined = connection.link.join(bytes);
            let mut rest = joined.as_deref().unwrap_or(bytes);
            while let Some(frame) = next_frame(&mut rest) {
                self.frame(connection, &frame, now)?;
            }
            connection.link.keep(rest);
            if !full {
                return Ok(());
            }
        }
    }

    fn frame(
        &mut self,
        connection: &mut Connection,
        frame: &Frame<'_>,
        now: Instant,
    ) -> Result<(), String> {
        match connection.link.hear(frame, &mut connection.out) {
            Heard::Nothing => return Ok(()),
            Heard::Window(by) => {
                for at in 0..connection.ops.len() {
                    if let Some(op) = connection.ops.get_mut(at) {
                        op.window += by;
                    }
                    connection.advance(at, &self.plan.work);
                }
                return Ok(());
            }
            Heard::Stream => {}
        }
        if frame.kind == Kind::GoAway {
            let code = frame
                .payload
                .get(4..8)
                .is_none_or(|code| code != [0, 0, 0, 0]);
            if code {
                return Err("GOAWAY with an error".to_owned());
            }
            connection.leaving = true;
            return Ok(());
        }
        let Some(at) = connection.ops.iter().position(|op| op.id == frame.stream) else {
            return Ok(());
        };
        match self.stream_frame(connection, at, frame) {
            Progress::Waiting => {}
            Progress::Done => {
                if let Some(op) = connection.ops.get_mut(at) {
                    self.run.count(now - op.began);
                    if matches!(self.plan.work, Work::Messages { .. }) {
                        (op.began, op.sent, op.got) = (now, 0, 0);
                        connection.advance(at, &self.plan.work);
                    } else {
                        connection.ops.swap_remove(at);
                    }
                }
            }
            Progress::Failed(why) => {
                connection.ops.swap_remove(at);
                self.run.failed(why);
            }
        }
        Ok(())
    }

    fn stream_frame(
        &mut self,
        connection: &mut Connection,
        at: usize,
        frame: &Frame<'_>,
    ) -> Progress {
        let Some(op) = connection.ops.get_mut(at) else {
            return Progress::Waiting;
        };
        match frame.kind {
            Kind::Headers if !op.status_seen => {
                // The status is first, and 200 has an index of its own in the static table.
                let block = frame.payload;
                let first = block.iter().position(|byte| byte & 0xe0 != 0x20);
                if first.and_then(|at| block.get(at)) != Some(&0x88) {
                    return Progress::Failed("not a 200".to_owned());
                }
                op.status_seen = true;
            }
            Kind::Data => op.got += frame.payload.len() as u64,
            Kind::Reset => {
                return Progress::Failed(format!("reset with code {}", frame.number()));
            }
            Kind::WindowUpdate => {
                op.window += i64::from(frame.number());
                connection.advance(at, &self.plan.work);
                return Progress::Waiting;
            }
            _ => {}
        }
        match &self.plan.work {
            Work::Messages { message, .. } => {
                if frame.kind != Kind::WindowUpdate && frame.ends_stream() {
                    Progress::Failed("a stream that was to stay has ended".to_owned())
                } else if op.got >= message.len() as u64 {
                    Progress::Done
                } else {
                    Progress::Waiting
                }
            }
            Work::Requests { grpc, .. } if frame.ends_stream() => {
                let length = *self.expected.get_or_insert(op.got);
                if length != op.got || (*grpc && (op.got == 0 || frame.kind != Kind::Headers)) {
                    return Progress::Failed(format!(
                        "a body of {} bytes instead of {length}, or no trailers",
                        op.got
                    ));
                }
                Progress::Done
            }
            Work::Requests { .. } => Progress::Waiting,
        }
    }
}

impl Connection {
    /// Sends of a stream's body what its windows allow.
    fn advance(&mut self, at: usize, work: &Work) {
        let Some(op) = self.ops.get_mut(at) else {
            return;
        };
        let (body, ends) = match work {
            Work::Requests { body, .. } => (body, true),
            Work::Messages { message, .. } => (message, false),
        };
        while op.sent < body.len() {
            let rest = body.get(op.sent..).unwrap_or_default();
            let room = op.window.min(self.link.window).max(0) as usize;
            let size = rest.len().min(room).min(MAX_FRAME);
            if size == 0 {
                return;
            }
            let flags = if ends && size == rest.len() {
                END_STREAM
            } else {
                0
            };
            let part = rest.get(..size).unwrap_or_default();
            put(&mut self.out, Kind::Data, flags, op.id, part);
            op.sent += size;
            op.window -= size as i64;
            self.link.window -= size as i64;
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        while self.sent < self.out.len() {
            match self
                .socket
                .send(self.out.get(self.sent..).unwrap_or_default())
            {
                Sent::Bytes(count) => self.sent += count,
                Sent::WouldBlock => return Ok(()),
                Sent::Error(error) => return Err(format!("send: {error}")),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }
}
