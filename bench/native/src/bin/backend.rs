//! `tg-backend`: the server behind every proxy under test, on one thread.
//!
//! HTTP/1.1 with fixed answers by the path's last segment (`/100`, `/64k`, `/chunked`, `/post`; `/echo` gives the body
//! back; two ports, so that an endpoint can come and go; `--http IP:PORT` puts the first somewhere), HTTP/2 by prior knowledge with one answer per port (`h2_100`,
//! `h2_64k`, a gRPC message, gRPC messages back as they come), and TCP ports that echo, swallow, pour and close at once. Prints its ports as one line of JSON; ends when standard input does, or after `--max-seconds`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tidegate_bench::arguments::Arguments;
use tidegate_bench::h2::server as h2;
use tidegate_bench::http::{self, Body};
use tidegate_bench::server::{self, Accepted};
use tidegate_rt::{Poller, Received, Sent, Socket, Token};

const LISTENER: u8 = 0;
const CONNECTION: u8 = 1;
const INPUT: u8 = 2;
const READ_BUFFER: usize = 256 * 1024;
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Http,
    Http2(h2::Service),
    Echo,
    Sink,
    Source,
    Close,
}

const SERVICES: [(Service, &str); 10] = [
    (Service::Http, "http"),
    (Service::Http, "http_other"),
    (Service::Http2(h2::Service::Fixed(100)), "h2_100"),
    (Service::Http2(h2::Service::Fixed(64 * 1024)), "h2_64k"),
    (Service::Http2(h2::Service::Unary(64)), "h2_unary"),
    (Service::Http2(h2::Service::Echo), "h2_echo"),
    (Service::Echo, "echo"),
    (Service::Sink, "sink"),
    (Service::Source, "source"),
    (Service::Close, "close"),
];

struct Connection {
    socket: Socket,
    service: Service,
    http2: h2::Connection,
    /// The body of the request being read.
    body: Option<(Body, usize)>,
    /// What HTTP/2 sends next; kept for its memory.
    out: Vec<u8>,
    /// What `/echo` will give back.
    echo: Vec<u8>,
    /// A head that has not come whole yet.
    partial: Vec<u8>,
    pending: Vec<u8>,
    sent: usize,
}

/// The fixed answers: by path, with the number of the answer as their name.
struct Answers {
    http: Vec<(&'static [u8], Vec<u8>)>,
    http2: Vec<h2::Answers>,
}

/// Where `/echo` stands among the answers.
const ECHO: usize = 0;

impl Answers {
    fn new() -> Self {
        let fixed = |length: usize| {
            let mut answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n"
            )
            .into_bytes();
            answer.resize(answer.len() + length, b'x');
            answer
        };
        let mut chunked =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_vec();
        for _ in 0..63 {
            chunked.extend_from_slice(b"3e8\r\n");
            chunked.resize(chunked.len() + 1000, b'x');
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        let missing = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec();
        let http2 = SERVICES.iter().filter_map(|(service, _)| match service {
            Service::Http2(service) => Some(h2::Answers::new(*service)),
            _ => None,
        });
        let http = vec![
            (&b"/echo"[..], Vec::new()),
            (b"/100", fixed(100)),
            (b"/64k", fixed(64 * 1024)),
            (b"/chunked", chunked),
            (b"/post", fixed(2)),
            (b"/", fixed(0)),
            (b"", missing),
        ];
        Self {
            http,
            http2: http2.collect(),
        }
    }

    /// The answer to a head.
    fn index(&self, head: &[u8]) -> usize {
        let mut words = head.split(|byte| *byte == b' ');
        let target = words.nth(1).unwrap_or_default();
        let path = target
            .split(|byte| *byte == b'?')
            .next()
            .unwrap_or_default();
        // The last segment decides, so that `/any/table/entry/100` is answered as `/100`.
        let path = memchr::memrchr(b'/', path).map_or(path, |at| path.get(at..).unwrap_or(path));
        self.http
            .iter()
            .position(|(name, _)| *name == path)
            .unwrap_or(self.http.len() - 1)
    }

    fn bytes(&self, index: usize) -> &[u8] {
        self.http.get(index).map_or(&[], |(_, answer)| answer)
    }
}

impl Connection {
    /// Nothing for a service that closes at once.
    fn open(socket: Socket, service: Service, poller: &Poller, number: u32) -> Option<Self> {
        if service == Service::Close {
            return None;
        }
        let token = Token {
            index: number,
            generation: 0,
            side: CONNECTION,
        };
        poller.add(&socket, token).ok()?;
        Some(Self {
            socket,
            service,
            http2: h2::Connection::default(),
            body: None,
            out: Vec::new(),
            echo: Vec::new(),
            partial: Vec::new(),
            pending: Vec::new(),
            sent: 0,
        })
    }

    /// Sends now if nothing waits, keeps the rest; false when the connection is gone.
    fn send(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        if self.pending.is_empty() {
            match self.socket.send(rest) {
                Sent::Bytes(count) => rest = rest.get(count..).unwrap_or_default(),
                Sent::WouldBlock => {}
                Sent::Error(_) => return false,
            }
        }
        self.pending.extend_from_slice(rest);
        true
    }

    fn flush(&mut self) -> bool {
        while self.sent < self.pending.len() {
            match self
                .socket
                .send(self.pending.get(self.sent..).unwrap_or_default())
            {
                Sent::Bytes(count) => self.sent += count,
                Sent::WouldBlock => return true,
                Sent::Error(_) => return false,
            }
        }
        self.pending.clear();
        self.sent = 0;
        true
    }

    fn http(&mut self, received: &[u8], answers: &Answers) -> bool {
        let joined;
        let mut bytes = received;
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.partial);
            bytes = &joined;
        }
        loop {
            if let Some((mut body, answer)) = self.body.take() {
                let echo = &mut self.echo;
                let fed = body.feed_with(bytes, |data| {
                    if answer == ECHO {
                        echo.extend_from_slice(data);
                    }
                });
                let Some((taken, _)) = fed else {
                    return false;
                };
                bytes = bytes.get(taken..).unwrap_or_default();
                if !body.is_finished() {
                    self.body = Some((body, answer));
                    return true;
                }
                let sent = if answer == ECHO {
                    let body = std::mem::take(&mut self.echo);
                    let length = body.len();
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
                    self.send(&[head.as_bytes(), &body].concat())
                } else {
                    self.send(answers.bytes(answer))
                };
                if !sent {
                    return false;
                }
            }
            if bytes.is_empty() {
                return true;
            }
            let Some(length) = http::head_length(bytes) else {
                self.partial.extend_from_slice(bytes);
                return true;
            };
            let (head, rest) = bytes.split_at(length);
            bytes = rest;
            // A GET without a body is the common case: spare it the search for its length.
            let body = if head.starts_with(b"GET ") {
                Body::Length(0)
            } else {
                Body::of(head)
            };
            self.body = Some((body, answers.index(head)));
        }
    }

    fn http2(&mut self, received: &[u8], answers: &Answers, service: h2::Service) -> bool {
        let Some(answers) = answers.http2.iter().find(|a| a.service == service) else {
            return false;
        };
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        let alive = self.http2.receive(received, answers, &mut out) && self.send(&out);
        self.out = out;
        alive
    }

    /// Reads until the socket is empty; false when the connection is over.
    fn readable(&mut self, buffer: &mut [u8], answers: &Answers) -> bool {
        loop {
            let count = match self.socket.recv(buffer) {
                Received::Data(count) => count,
                Received::WouldBlock => return true,
                Received::Eof | Received::Error(_) => return false,
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            let alive = match self.service {
                Service::Http => self.http(bytes, answers),
                Service::Http2(service) => self.http2(bytes, answers, service),
                Service::Echo => self.send(bytes),
                Service::Sink | Service::Source | Service::Close => true,
            };
            if !alive {
                return false;
            }
            if count < buffer.len() {
                return true;
            }
        }
    }

    fn pour(&mut self, buffer: &[u8]) -> bool {
        loop {
            match self.socket.send(buffer) {
                Sent::Bytes(_) => {}
                Sent::WouldBlock => return true,
                Sent::Error(_) => return false,
            }
        }
    }
}

fn serve(max: Duration, http: SocketAddr) -> Result<(), String> {
    let mut poller = Poller::new(1024).map_err(|error| error.to_string())?;
    let mut listeners = Vec::new();
    let mut ports = serde_json::Map::new();
    for (index, (service, name)) in SERVICES.iter().enumerate() {
        let token = Token {
            index: index as u32,
            generation: 0,
            side: LISTENER,
        };
        let address = if index == 0 { http } else { ANYWHERE };
        let listening = server::listen(&poller, address, token)?;
        let address = listening.local_addr().map_err(|error| error.to_string())?;
        ports.insert((*name).to_owned(), address.port().into());
        listeners.push((listening, *service));
    }
    // Standard input is watched for its end only when it is a pipe: a file or a terminal cannot be, or says nothing.
    let input = Token {
        index: 0,
        generation: 0,
        side: INPUT,
    };
    let watched = poller.add_level(std::io::stdin(), input, false).is_ok();
    println!("{}", serde_json::Value::Object(ports));

    let answers = Answers::new();
    let mut connections: Accepted<Connection> = Accepted::default();
    let mut buffer = vec![b'x'; READ_BUFFER];
    let end = Instant::now() + max;
    while Instant::now() < end {
        let count = poller
            .wait(Some(Duration::from_secs(1)))
            .map_err(|error| error.to_string())?;
        for i in 0..count {
            let Some((token, readiness)) = poller.event(i) else {
                break;
            };
            match token.side {
                INPUT if watched => {
                    let mut byte = [0; 64];
                    if rustix::io::read(std::io::stdin(), &mut byte).unwrap_or(0) == 0 {
                        return Ok(());
                    }
                }
                LISTENER => {
                    let Some((listening, service)) = listeners.get(token.index as usize) else {
                        continue;
                    };
                    connections.take_in(listening, |socket, number| {
                        Connection::open(socket, *service, &poller, number)
                    });
                }
                _ => {
                    let Some(connection) = connections.get_mut(token.index) else {
                        continue;
                    };
                    let mut alive = true;
                    if readiness.readable() {
                        alive = connection.readable(&mut buffer, &answers);
                    }
                    if alive && readiness.writable() {
                        alive = if connection.service == Service::Source {
                            connection.pour(&buffer)
                        } else {
                            connection.flush()
                        };
                    }
                    if !alive {
                        connections.remove(token.index);
                    }
                }
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let run = || {
        let mut arguments = Arguments::read(std::env::args().skip(1))?;
        let seconds = arguments.take("max-seconds", 3600.0)?;
        let http = arguments.take("http", ANYWHERE)?;
        arguments.finish()?;
        serve(Duration::from_secs_f64(seconds), http)
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tg-backend: {error}");
            ExitCode::FAILURE
        }
    }
}
