//! Drives a plan on one thread, bounded by its time, and records every operation.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tidegate_rt::{ConnectOptions, Poller, Socket, Token};

use super::connection::{Connection, Progress};
use super::{Outcome, Plan, Work};

const BUFFER: usize = 256 * 1024;
const MIB: u64 = 1 << 20;
/// How often a connection that failed is opened anew before the run gives up.
const MAX_ERRORS: u64 = 10_000;

struct Slot {
    connection: Option<Connection>,
    generation: u32,
    /// When the operation at hand began: `None` while idle.
    began: Option<Instant>,
    /// Which request it sends.
    request: usize,
}

struct Driver<'p> {
    plan: &'p Plan,
    requests: Vec<Vec<u8>>,
    /// The request that comes next.
    next: usize,
    poller: Poller,
    slots: Vec<Slot>,
    /// Connections with nothing to do, hottest last (fixed rate only).
    idle: Vec<usize>,
    /// Operations that are due and found no connection.
    backlog: VecDeque<Instant>,
    expected: Option<u64>,
    outcome: Outcome,
    measuring: bool,
}

/// Runs the plan to its end.
pub fn run(plan: &Plan) -> Result<Outcome, String> {
    let latency =
        Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| error.to_string())?;
    let requests = match &plan.work {
        Work::Http { requests } => requests.clone(),
        Work::PingPong { size } => vec![vec![b'p'; *size]],
        Work::Connect => vec![vec![b'c']],
        Work::Bulk { .. } | Work::AcceptClose => vec![Vec::new()],
    };
    let mut driver = Driver {
        plan,
        requests,
        next: 0,
        poller: Poller::new(1024).map_err(|error| error.to_string())?,
        slots: Vec::new(),
        idle: Vec::new(),
        backlog: VecDeque::new(),
        expected: None,
        outcome: Outcome::new(latency),
        measuring: plan.warmup.is_zero(),
    };
    driver.run()?;
    Ok(driver.outcome)
}

impl Driver<'_> {
    fn run(&mut self) -> Result<(), String> {
        for index in 0..self.plan.connections {
            self.slots.push(Slot {
                connection: None,
                generation: 0,
                began: None,
                request: 0,
            });
            self.open(index);
        }
        let begin = Instant::now();
        let measure = begin + self.plan.warmup;
        let end = measure + self.plan.duration;
        let mut measured_from = begin;
        let mut due = begin;
        let mut buffer = vec![b'x'; BUFFER];
        loop {
            let now = Instant::now();
            if now >= end {
                self.outcome.seconds = (now - measured_from).as_secs_f64();
                break;
            }
            if !self.measuring && now >= measure {
                self.measuring = true;
                measured_from = now;
                self.drain_bytes();
                self.outcome.bytes = 0;
            }
            if self.outcome.errors > MAX_ERRORS {
                return Err(self.outcome.first_error.clone().unwrap_or_default());
            }
            let mut timeout = Duration::from_millis(20);
            if let Some(rate) = self.plan.rate {
                while due <= now {
                    self.backlog.push_back(due);
                    due += Duration::from_secs_f64(1.0 / rate);
                }
                self.start_due();
                timeout = timeout.min(due.saturating_duration_since(now));
            }
            let count = self
                .poller
                .wait(Some(timeout))
                .map_err(|error| error.to_string())?;
            for i in 0..count {
                let Some((token, readiness)) = self.poller.event(i) else {
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
        self.drain_bytes();
        if matches!(self.plan.work, Work::Bulk { .. }) {
            self.outcome.ops = self.outcome.bytes / MIB;
        }
        Ok(())
    }

    fn drain_bytes(&mut self) {
        for connection in self
            .slots
            .iter_mut()
            .filter_map(|slot| slot.connection.as_mut())
        {
            self.outcome.bytes += std::mem::take(&mut connection.bytes);
        }
    }

    fn open(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        slot.generation = (slot.generation + 1) & Token::GENERATION_MASK;
        slot.began = None;
        let token = Token {
            index: index as u32,
            generation: slot.generation,
            side: 0,
        };
        let opened = Socket::connect(self.plan.address, &ConnectOptions::default())
            .and_then(|(socket, _)| self.poller.add(&socket, token).map(|()| socket));
        match opened {
            Ok(socket) => {
                let _ = socket.set_nodelay(true);
                slot.connection = Some(Connection::new(socket));
                match self.plan.work {
                    Work::Bulk { .. } => {}
                    _ if self.plan.rate.is_some() => self.idle.push(index),
                    // The latency of a new connection includes the connecting.
                    _ => slot.began = Some(Instant::now()),
                }
            }
            Err(error) => self.fail(index, format!("connect: {error}")),
        }
    }

    fn fail(&mut self, index: usize, why: String) {
        self.outcome.errors += 1;
        self.outcome.first_error.get_or_insert(why);
        self.idle.retain(|other| *other != index);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.connection = None;
        }
        if self.outcome.errors <= MAX_ERRORS {
            self.open(index);
        }
    }

    fn start_due(&mut self) {
        while !self.backlog.is_empty() {
            let Some(index) = self.idle.pop() else { return };
            let Some(scheduled) = self.backlog.pop_front() else {
                return;
            };
            // Late by the poller's resolution only: count from now; late for want of a connection: from when it was due.
            let now = Instant::now();
            let late = now.saturating_duration_since(scheduled);
            let began = if late > Duration::from_millis(2) {
                scheduled
            } else {
                now
            };
            self.begin(index, began);
        }
    }

    fn begin(&mut self, index: usize, began: Instant) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        slot.began = Some(began);
        let Some(connection) = slot.connection.as_mut() else {
            return;
        };
        slot.request = following(&mut self.next, self.requests.len());
        let request = self.requests.get(slot.request).map_or(&[][..], |r| r);
        if let Progress::Failed(why) = connection.begin(request) {
            self.fail(index, why);
        }
    }

    fn event(&mut self, token: Token, readable: bool, writable: bool, buffer: &mut [u8]) {
        let index = token.index as usize;
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if slot.generation != token.generation {
            return;
        }
        let idle_before = slot.began;
        let Some(connection) = slot.connection.as_mut() else {
            return;
        };
        let mut progress = Progress::Waiting;
        if writable {
            if idle_before.is_some() && !connection.is_busy() {
                slot.request = following(&mut self.next, self.requests.len());
            }
            let request = self.requests.get(slot.request).map_or(&[][..], |r| r);
            progress = match (&self.plan.work, idle_before) {
                (Work::Bulk { up: true }, _) => connection.pour(buffer),
                (Work::Bulk { up: false }, _) | (_, None) => Progress::Waiting,
                // The first writable event of a connection begins its first operation; later ones continue a send.
                (_, Some(_)) if !connection.is_busy() => connection.begin(request),
                (_, Some(_)) => connection.send(request),
            };
        }
        if readable && progress == Progress::Waiting {
            progress = connection.receive(&self.plan.work, buffer, &mut self.expected);
        }
        match progress {
            Progress::Waiting => {}
            Progress::Failed(why) => self.fail(index, why),
            Progress::Done => self.done(index, false),
            Progress::DoneAndClosed => self.done(index, true),
        }
    }

    fn done(&mut self, index: usize, closed: bool) {
        let now = Instant::now();
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if let Some(began) = slot.began.take() {
            self.outcome.count(self.measuring, now - began);
        }
        match (&self.plan.work, self.plan.rate) {
            (Work::Connect | Work::AcceptClose, _) => self.open(index),
            _ if closed => {
                self.idle.retain(|other| *other != index);
                self.open(index);
            }
            (_, Some(_)) => {
                self.idle.push(index);
                self.start_due();
            }
            (_, None) => self.begin(index, now),
        }
    }
}

/// Walks round the requests: returns the one at hand and moves on.
fn following(next: &mut usize, count: usize) -> usize {
    let at = *next;
    *next = if at + 1 < count { at + 1 } else { 0 };
    at
}
