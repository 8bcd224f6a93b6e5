//! A minimal HTTP/2 server on the codec, for conformance suites: answers every request with a few bytes, large heads with
//! 431. `cargo run -p tidegate-codec --example h2_server -- 127.0.0.1:8081`.
//!
//! One thread a connection and blocking sockets: nothing here is how the proxy does it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_codec::h1::KnownHeader;
use tidegate_codec::h2::{Connection, Event, Input, Options, OutField, Role, Scratch, StreamRef};

const BODY: &[u8] = b"hello, conformance\n";

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:8081"))?;
    let options = Arc::new(Options {
        stream_error_on_invalid_http_messaging: std::env::args().nth(2).is_some(),
        ..Options::default()
    });
    for socket in listener.incoming() {
        let (socket, options) = (socket?, Arc::clone(&options));
        std::thread::spawn(move || serve(socket, options));
    }
    Ok(())
}

/// Sends what is left of the body.
fn send_body(conn: &mut Connection, stream: StreamRef) {
    let sent = conn.token(stream).unwrap_or(0) as usize;
    let rest = BODY.get(sent..).unwrap_or_default();
    if let Ok(count) = conn.send_data(stream, rest, true) {
        conn.set_token(stream, (sent + count) as u32);
    }
}

fn answer(conn: &mut Connection, stream: StreamRef, status: u16) {
    let fields = [OutField::known(KnownHeader::Server, b"tidegate")];
    if conn.send_response(stream, status, fields, false).is_ok() {
        send_body(conn, stream);
    }
}

/// Ends our side and reads on for a while: closing with bytes unread would reset the connection and take the GOAWAY from
/// under the peer's eyes.
fn linger(socket: &mut TcpStream, buffer: &mut [u8]) {
    const LINGER: Duration = Duration::from_secs(1);
    let start = Instant::now();
    let timed = socket.set_read_timeout(Some(LINGER));
    if timed.is_ok() && socket.shutdown(Shutdown::Write).is_ok() {
        while start.elapsed() < LINGER && socket.read(buffer).is_ok_and(|count| count > 0) {}
    }
}

fn serve(mut socket: TcpStream, options: Arc<Options>) {
    let start = Instant::now();
    let mut conn = Connection::new(Role::Server, options);
    let mut scratch = Scratch::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut read = 0;
    loop {
        let now = start.elapsed().as_millis() as u64;
        let mut input = Input::new(buffer.get(..read).unwrap_or_default());
        let ended = loop {
            match conn.next(&mut input, &mut scratch, now) {
                Ok(None) => break false,
                Err(_) => break true,
                Ok(Some(Event::Request { stream, end: true })) => {
                    conn.set_token(stream, 0);
                    answer(&mut conn, stream, 200);
                }
                Ok(Some(Event::Request { stream, .. })) => conn.set_token(stream, 0),
                Ok(Some(Event::TooLarge { stream, .. })) => {
                    conn.set_token(stream, 0);
                    answer(&mut conn, stream, 431);
                }
                Ok(Some(Event::Data {
                    stream, bytes, end, ..
                })) => {
                    conn.release(stream, bytes.len());
                    if end {
                        answer(&mut conn, stream, 200);
                    }
                }
                Ok(Some(Event::Trailers { stream, .. })) => answer(&mut conn, stream, 200),
                Ok(Some(Event::Writable { stream, .. })) => send_body(&mut conn, stream),
                Ok(Some(_)) => {}
            }
        };
        let written = conn.output().len();
        if socket.write_all(conn.output()).is_err() {
            return;
        }
        if ended {
            linger(&mut socket, &mut buffer);
            return;
        }
        conn.written(written);
        read = match socket.read(&mut buffer) {
            Ok(count) if count > 0 => count,
            _ => return,
        };
    }
}
