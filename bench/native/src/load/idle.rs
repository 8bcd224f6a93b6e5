//! Connections that are opened, used once each, and then only held: what they cost is measured from outside.
//!
//! One after the other and blocking: the proxy never has more than one of them in work, so that what it holds
//! afterwards is held for idle connections.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::http::{self, Body};

const TIMEOUT: Duration = Duration::from_secs(10);

/// The connections held.
#[derive(Debug)]
pub struct Idle(Vec<TcpStream>);

impl Idle {
    /// Opens so many and does one operation on each: `request` and its answer, or without one a byte there and back.
    pub fn open(address: SocketAddr, count: usize, request: Option<&[u8]>) -> Result<Self, String> {
        let mut held = Vec::with_capacity(count);
        for n in 0..count {
            let stream =
                one(address, request).map_err(|error| format!("connection {n}: {error}"))?;
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
        && matches!(stream.peek(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn one(address: SocketAddr, request: Option<&[u8]>) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    let Some(request) = request else {
        stream.write_all(b"i")?;
        stream.read_exact(&mut [0])?;
        return Ok(stream);
    };
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
            return Ok(stream);
        }
    }
}
