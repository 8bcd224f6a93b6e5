//! The part of a run that does not depend on what is sent: its time, what came of it, opening connections, and how often
//! that may fail.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tidegate_rt::{ConnectOptions, Poller, Readiness, Socket, Token};

use super::Outcome;

/// How often a connection that failed is opened anew before the run gives up.
const MAX_ERRORS: u64 = 10_000;

pub(super) struct Run {
    poller: Poller,
    pub(super) outcome: Outcome,
    measuring: bool,
    measured_from: Instant,
    measure: Instant,
    end: Instant,
}

/// What the moment brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    GoesOn,
    /// The warm-up is over: what has been received so far does not count.
    Begins,
    Over,
}

impl Run {
    /// Its time begins with [`Run::start`].
    pub(super) fn new(warmup: Duration) -> Result<Self, String> {
        let latency =
            Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| error.to_string())?;
        let now = Instant::now();
        Ok(Self {
            poller: Poller::new(1024).map_err(|error| error.to_string())?,
            outcome: Outcome::new(latency),
            measuring: warmup.is_zero(),
            measured_from: now,
            measure: now,
            end: now,
        })
    }

    pub(super) fn start(&mut self, warmup: Duration, duration: Duration) -> Instant {
        let begin = Instant::now();
        self.measured_from = begin;
        self.measure = begin + warmup;
        self.end = self.measure + duration;
        begin
    }

    /// To be asked in each pass.
    pub(super) fn phase(&mut self, now: Instant) -> Result<Phase, String> {
        if now >= self.end {
            self.outcome.seconds = (now - self.measured_from).as_secs_f64();
            return Ok(Phase::Over);
        }
        let begins = !self.measuring && now >= self.measure;
        if begins {
            self.measuring = true;
            self.measured_from = now;
        }
        if self.gives_up() {
            return Err(self.outcome.first_error.clone().unwrap_or_default());
        }
        Ok(if begins { Phase::Begins } else { Phase::GoesOn })
    }

    /// How many events there are.
    pub(super) fn wait(&mut self, timeout: Duration) -> Result<usize, String> {
        let count = self.poller.wait(Some(timeout));
        count.map_err(|error| error.to_string())
    }

    pub(super) fn event(&self, number: usize) -> Option<(Token, Readiness)> {
        self.poller.event(number)
    }

    pub(super) fn connect(&self, address: SocketAddr, token: Token) -> Result<Socket, String> {
        let socket = Socket::connect(address, &ConnectOptions::default())
            .map_err(|error| error.errno)
            .and_then(|(socket, _)| self.poller.add(&socket, token).map(|()| socket))
            .map_err(|error| format!("connect: {error}"))?;
        let _ = socket.set_nodelay(true);
        Ok(socket)
    }

    /// An operation came to its end.
    pub(super) fn count(&mut self, took: Duration) {
        self.outcome.count(self.measuring, took);
    }

    pub(super) fn failed(&mut self, why: String) {
        self.outcome.errors += 1;
        self.outcome.first_error.get_or_insert(why);
    }

    /// Too much has failed.
    pub(super) const fn gives_up(&self) -> bool {
        self.outcome.errors > MAX_ERRORS
    }
}

/// Walks round so many: returns the one at hand and moves on.
pub(super) fn following(next: &mut usize, count: usize) -> usize {
    let at = *next;
    *next = if at + 1 < count { at + 1 } else { 0 };
    at
}
