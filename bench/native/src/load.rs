//! The load generator: connections that send, wait for the whole answer, and send again (or at a fixed rate).

pub mod connection;
pub mod driver;
pub mod idle;
pub mod requests;
mod run;
pub mod streams;
pub mod tls;

use std::net::SocketAddr;
use std::time::Duration;

/// What is done on each connection.
#[derive(Debug, Clone)]
pub enum Work {
    /// The bytes of the requests, walked in turn; answers must be 200 and of the length of the first. With `once` each
    /// has a connection of its own, closed after the answer.
    Http { requests: Vec<Vec<u8>>, once: bool },
    /// So many bytes there and back.
    PingPong { size: usize },
    /// Connect, one byte each way, close.
    Connect,
    /// Connect and wait until the other side closes.
    AcceptClose,
    /// Send for ever (true) or receive for ever; an operation is a MiB.
    Bulk { up: bool },
}

/// How the work is driven.
#[derive(Debug, Clone)]
pub struct Plan {
    pub address: SocketAddr,
    pub work: Work,
    /// The name asked for in a TLS handshake; `None`: cleartext. HTTP only.
    pub tls: Option<String>,
    pub connections: usize,
    /// Not measured.
    pub warmup: Duration,
    pub duration: Duration,
    /// Operations a second over all connections; `None`: as fast as answers come.
    pub rate: Option<f64>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub ops: u64,
    pub warmup_ops: u64,
    pub errors: u64,
    pub bytes: u64,
    pub seconds: f64,
    /// Nanoseconds per operation.
    pub latency: hdrhistogram::Histogram<u64>,
    pub first_error: Option<String>,
}

impl Outcome {
    fn new(latency: hdrhistogram::Histogram<u64>) -> Self {
        Self {
            ops: 0,
            warmup_ops: 0,
            errors: 0,
            bytes: 0,
            seconds: 0.0,
            latency,
            first_error: None,
        }
    }

    /// An operation came to its end.
    fn count(&mut self, measuring: bool, took: Duration) {
        if measuring {
            self.ops += 1;
            self.latency.saturating_record(took.as_nanos() as u64);
        } else {
            self.warmup_ops += 1;
        }
    }
}
