//! `tg-forward`: a TCP forwarder that burns a known CPU time per message, to test the bench's own honesty.
//!
//! `tg-forward --listen IP:PORT --upstream IP:PORT [--spin-us N] [--max-seconds S]`; one thread. What it burns is CPU
//! time of its thread, not time on the wall, so that a busy machine changes nothing. An end or error on either side
//! ends both.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tidegate_bench::arguments::Arguments;
use tidegate_bench::server::{self, Accepted};
use tidegate_rt::{ConnectOptions, Poller, Received, Sent, Socket, Token};

const DOWNSTREAM: u8 = 0;
const UPSTREAM: u8 = 1;
const LISTENER: u8 = 2;
const BUFFER: usize = 64 * 1024;

/// One side, and what is still to be written to it.
struct Side {
    socket: Socket,
    pending: Vec<u8>,
}

impl Side {
    fn flush(&mut self) -> bool {
        while !self.pending.is_empty() {
            match self.socket.send(&self.pending) {
                Sent::Bytes(count) => drop(self.pending.drain(..count)),
                Sent::WouldBlock => return true,
                Sent::Error(_) => return false,
            }
        }
        true
    }
}

struct Pair {
    down: Side,
    up: Side,
}

impl Pair {
    fn open(accepted: Socket, upstream: SocketAddr, poller: &Poller, id: u32) -> Option<Self> {
        let (socket, _) = Socket::connect(upstream, &ConnectOptions::default()).ok()?;
        let token = |side| Token {
            index: id,
            generation: 0,
            side,
        };
        let _ = accepted.set_nodelay(true);
        let _ = socket.set_nodelay(true);
        poller.add(&accepted, token(DOWNSTREAM)).ok()?;
        poller.add(&socket, token(UPSTREAM)).ok()?;
        let side = |socket| Side {
            socket,
            pending: Vec::new(),
        };
        Some(Self {
            down: side(accepted),
            up: side(socket),
        })
    }

    /// Carries on what a side's event allows; false when the pair is over.
    fn event(
        &mut self,
        from: u8,
        readable: bool,
        writable: bool,
        spin: Duration,
        buffer: &mut [u8],
    ) -> bool {
        let (from, to) = match from {
            DOWNSTREAM => (&mut self.down, &mut self.up),
            _ => (&mut self.up, &mut self.down),
        };
        if writable && !from.flush() {
            return false;
        }
        if !readable {
            return true;
        }
        loop {
            match from.socket.recv(buffer) {
                Received::Data(count) => {
                    burn(spin);
                    to.pending
                        .extend_from_slice(buffer.get(..count).unwrap_or_default());
                    if !to.flush() {
                        return false;
                    }
                    if count < buffer.len() {
                        return true;
                    }
                }
                Received::WouldBlock => return true,
                Received::Eof | Received::Error(_) => return false,
            }
        }
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

fn burn(spin: Duration) {
    if spin.is_zero() {
        return;
    }
    let end = thread_time() + spin;
    while thread_time() < end {
        std::hint::spin_loop();
    }
}

fn forward(
    listen: SocketAddr,
    upstream: SocketAddr,
    spin: Duration,
    max: Duration,
) -> Result<(), String> {
    let mut poller = Poller::new(1024).map_err(|error| error.to_string())?;
    let token = Token {
        index: 0,
        generation: 0,
        side: LISTENER,
    };
    let listening = server::listen(&poller, listen, token)?;
    let mut pairs = Accepted::default();
    let mut buffer = vec![0; BUFFER];
    let end = Instant::now() + max;
    while Instant::now() < end {
        let count = poller
            .wait(Some(Duration::from_secs(1)))
            .map_err(|error| error.to_string())?;
        for i in 0..count {
            let Some((token, readiness)) = poller.event(i) else {
                break;
            };
            if token.side == LISTENER {
                pairs.take_in(&listening, |socket, number| {
                    Pair::open(socket, upstream, &poller, number)
                });
                continue;
            }
            let Some(pair) = pairs.get_mut(token.index) else {
                continue;
            };
            let (readable, writable) = (readiness.readable(), readiness.writable());
            if !pair.event(token.side, readable, writable, spin, &mut buffer) {
                pairs.remove(token.index);
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let run = || {
        let mut arguments = Arguments::read(std::env::args().skip(1))?;
        let listen = arguments.need("listen")?;
        let upstream = arguments.need("upstream")?;
        let spin = Duration::from_micros(arguments.take("spin-us", 0)?);
        let max = Duration::from_secs(arguments.take("max-seconds", 3600)?);
        arguments.finish()?;
        forward(listen, upstream, spin, max)
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tg-forward: {error}");
            ExitCode::FAILURE
        }
    }
}
