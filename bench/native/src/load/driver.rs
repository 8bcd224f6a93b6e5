//! Drives a plan on one thread, bounded by its time, and records every operation.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tidegate_rt::Token;

use super::connection::{Connection, Progress};
use super::run::{Phase, Run, following};
use super::{Outcome, Plan, Work, tls};

const BUFFER: usize = 256 * 1024;
const MIB: u64 = 1 << 20;

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
    tls: Option<tls::Client>,
    requests: Vec<Vec<u8>>,
    /// The request that comes next.
    next: usize,
    slots: Vec<Slot>,
    /// Connections with nothing to do, hottest last (fixed rate only).
    idle: Vec<usize>,
    /// Operations that are due and found no connection.
    backlog: VecDeque<Instant>,
    expected: Option<u64>,
    run: Run,
}

/// Runs the plan to its end.
pub fn run(plan: &Plan) -> Result<Outcome, String> {
    let requests = match &plan.work {
        Work::Http { requests, .. } => requests.clone(),
        Work::PingPong { size } => vec![vec![b'p'; *size]],
        Work::Connect => vec![vec![b'c']],
        Work::Bulk { .. } | Work::AcceptClose => vec![Vec::new()],
    };
    let mut driver = Driver {
        plan,
        tls: plan.tls.as_deref().map(tls::Client::new).transpose()?,
        requests,
        next: 0,
        slots: Vec::new(),
        idle: Vec::new(),
        backlog: VecDeque::new(),
        expected: None,
        run: Run::new(plan.warmup)?,
    };
    driver.run()?;
    Ok(driver.run.outcome)
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
        let mut due = self.run.start(self.plan.warmup, self.plan.duration);
        let mut buffer = vec![b'x'; BUFFER];
        loop {
            let now = Instant::now();
            match self.run.phase(now)? {
                Phase::Over => break,
                Phase::Begins => {
                    self.drain_bytes();
                    self.run.outcome.bytes = 0;
                }
                Phase::GoesOn => {}
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
            for i in 0..self.run.wait(timeout)? {
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
        self.drain_bytes();
        if matches!(self.plan.work, Work::Bulk { .. }) {
            self.run.outcome.ops = self.run.outcome.bytes / MIB;
        }
        Ok(())
    }

    fn drain_bytes(&mut self) {
        for connection in self
            .slots
            .iter_mut()
            .filter_map(|slot| slot.connection.as_mut())
        {
            self.run.outcome.bytes += std::mem::take(&mut connection.bytes);
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
        let opened = self.run.connect(self.plan.address, token);
        let session = self.tls.as_ref().map(tls::Client::session).transpose();
        match opened.and_then(|socket| Ok(Connection::new(socket, session?))) {
            Ok(connection) => {
                slot.connection = Some(connection);
                match self.plan.work {
                    Work::Bulk { .. } => {}
                    _ if self.plan.rate.is_some() => self.idle.push(index),
                    // The latency of a new connection includes the connecting.
                    _ => slot.began = Some(Instant::now()),
                }
            }
            Err(why) => self.fail(index, why),
        }
    }

    fn fail(&mut self, index: usize, why: String) {
        self.run.failed(why);
        self.idle.retain(|other| *other != index);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.connection = None;
        }
        if !self.run.gives_up() {
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
            self.run.count(now - began);
        }
        match (&self.plan.work, self.plan.rate) {
            (Work::Connect | Work::AcceptClose, _) => self.open(index),
            (Work::Http { once: true, .. }, _) => {
                if let Some(connection) = slot.connection.as_mut() {
                    connection.finish();
                }
                self.open(index);
            }
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
