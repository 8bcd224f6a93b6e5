//! Connections that are opened, used once each, and then only held: what they cost is measured from outside.
//!
//! One after the other and blocking: the proxy never has more than one of them in work, so that what it holds
//! afterwards is held for idle connections.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::h2::{END_HEADERS, END_STREAM, Kind, Link, PREFACE, next_frame, put, put_opening};
use crate::http::{self, Body};

const TIMEOUT: Duration = Duration::from_secs(10);

/// What is done with each connection before it is left alone.
#[derive(Debug)]
pub enum Use {
    /// A byte there and back.
    Byte,
    /// This request and its answer.
    Http(Vec<u8>),
    /// A request and its answer, by its header block; then so many streams that stay open, each once its answer began.
    Http2 {
        get: Vec<u8>,
        open: Vec<u8>,
        streams: u32,
    },
}

/// The connections held.
#[derive(Debug)]
pub struct Idle(Vec<TcpStream>);

impl Idle {
    /// Opens so many and uses each.
    pub fn open(address: SocketAddr, count: usize, use_once: &Use) -> Result<Self, String> {
        let mut held = Vec::with_capacity(count);
        for n in 0..count {
            let stream =
                one(address, use_once).map_err(|error| format!("connection {n}: {error}"))?;
            held.push(stream);
        }
        Ok(Self(held))
    }

    /// How many the other side has not closed.
    pub fn alive(&self) -> usize {
        self.0.iter().filter(|stream| is_open(stream)).count()
    }
}

fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    stream.set_nonblocking(true).is_ok()
        && match stream.peek(&mut byte) {
            Ok(count) => count > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
}

fn one(address: SocketAddr, use_once: &Use) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    match use_once {
        Use::Byte => {
            stream.write_all(b"i")?;
            stream.read_exact(&mut [0])?;
        }
        Use::Http(request) => http(&mut stream, request)?,
        Use::Http2 { get, open, streams } => http2(&mut stream, get, open, *streams)?,
    }
    Ok(stream)
}

fn http2(stream: &mut TcpStream, get: &[u8], open: &[u8], streams: u32) -> std::io::Result<()> {
    let mut link = Link::default();
    let mut out = PREFACE.to_vec();
    put_opening(&mut out);
    put(&mut out, Kind::Headers, END_HEADERS | END_STREAM, 1, get);
    let mut answered = 0;
    let mut buffer = [0; 16 * 1024];
    loop {
        stream.write_all(&out)?;
        out.clear();
        if answered > streams {
            return Ok(());
        }
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let received = buffer.get(..count).unwrap_or_default();
        let joined = link.join(received);
        let mut rest = joined.as_deref().unwrap_or(received);
        while let Some(frame) = next_frame(&mut rest) {
            link.hear(&frame, &mut out);
            if matches!(frame.kind, Kind::Reset | Kind::GoAway) {
                return Err(std::io::Error::other("reset"));
            }
            let carries = matches!(frame.kind, Kind::Data | Kind::Headers);
            if frame.stream == 1 && carries && frame.ends_stream() {
                answered = 1;
                for number in 0..streams {
                    put(&mut out, Kind::Headers, END_HEADERS, 3 + 2 * number, open);
                }
            } else if frame.stream > 1 && frame.kind == Kind::Headers {
                answered += 1;
            }
        }
        link.keep(rest);
    }
}

fn http(stream: &mut TcpStream, request: &[u8]) -> std::io::Result<()> {
    stream.write_all(request)?;
    let mut received = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        received.extend_from_slice(buffer.get(..count).unwrap_or_default());
        let Some(length) = http::head_length(&received) else {
            continue;
        };
        let (head, rest) = received.split_at(length);
        if head.get(9..12) != Some(b"200".as_slice()) {
            return Err(std::io::Error::other("not a 200"));
        }
        let mut body = Body::of(head);
        let fed = body.feed(rest);
        if fed.is_none() {
            return Err(ErrorKind::InvalidData.into());
        }
        if body.is_finished() {
            return Ok(());
        }
    }
}
