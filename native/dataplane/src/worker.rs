//! A worker: one thread, one event loop, and everything that belongs to it.
//!
//! [`Worker`] is split in two so that borrows stay simple: [`Core`] (clock, poller, timers, clusters, pools, buffers,
//! statistics) and [`Conns`] (the connections). `conn.rs` explains how handlers use both. Nothing in here knows a
//! protocol; `dispatch.rs` is the only place that knows which handler an occupant has.

mod core;
mod dispatch;
mod log_buffers;
mod reload;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tidegate_rt::Errno;

pub use self::core::{Core, ReadBuf};
pub use self::log_buffers::{LogBuffers, LogSink, ScriptLevel};
use crate::conn::{Conns, Event, Key, TimerKey};
use crate::hcm::tracing::reporter::Reporter;
use crate::shared::WorkerContext;
use crate::statsd;

/// Events taken from the kernel per pass.
const EVENTS_PER_PASS: usize = 256;

/// Nudges handled per pass; more wait for the next, so that sockets are not starved.
const NUDGES_PER_PASS: usize = 4096;

/// Kinds of the worker's own timers (their key is [`Key::NONE`]).
pub(crate) mod own_timer {
    pub(crate) const FLUSH_LOGS: u8 = 0;
    pub(crate) const CLEAN_ORIGINAL_DST: u8 = 1;
    pub(crate) const DRAIN_DEADLINE: u8 = 2;
    pub(crate) const FLUSH_SPANS: u8 = 3;
}

/// One event loop with all that it owns.
pub struct Worker {
    pub core: Core,
    pub conns: Conns,
    fired: Vec<TimerKey>,
}

impl Worker {
    pub(crate) fn new(context: WorkerContext) -> Result<Self, Errno> {
        Ok(Self {
            core: Core::new(context, EVENTS_PER_PASS)?,
            conns: Conns::new(),
            fired: Vec::new(),
        })
    }

    /// Runs until the data plane is shut down.
    pub(crate) fn run(mut self) {
        self.reload();
        while !self.core.stopping() {
            // Handlers have a net of their own that costs one connection; this one catches the worker's own work.
            if catch_unwind(AssertUnwindSafe(|| self.pass())).is_err() {
                self.count_panic();
            }
        }
        // Connections end as they do when a drain is over, with their log lines.
        for key in self.conns.keys() {
            self.dispatch(key, Event::DrainDeadline);
        }
        self.core.logs.flush_all();
    }

    /// One pass: wait, handle events, timers and nudges, and write what they left to be written.
    fn pass(&mut self) {
        let timeout = if self.core.has_nudges() {
            Some(Duration::ZERO)
        } else {
            self.core.timers.next_timeout(self.core.clock.now())
        };
        let count = self.core.poller.wait(timeout).unwrap_or(0);
        self.core.clock.update();
        for i in 0..count {
            let Some((token, ready)) = self.core.poller.event(i) else {
                break;
            };
            if self.core.is_waker(token) {
                self.core.drain_waker();
                self.reload();
                for connection in self.core.shared.handed_over(self.core.id) {
                    connection.take_over(self);
                }
                if self.core.id == 0 {
                    for batch in self.core.shared.take_statsd() {
                        statsd::send(self, &batch);
                    }
                }
                continue;
            }
            let side = token.side;
            self.dispatch(Key::of(token), Event::Ready { side, ready });
        }
        self.fire_timers();
        for _ in 0..NUDGES_PER_PASS {
            let Some((key, why, stream)) = self.core.next_nudge() else {
                break;
            };
            self.dispatch(key, Event::Nudge { why, stream });
        }
        while let Some(key) = self.core.next_flush() {
            self.dispatch(key, Event::Flush);
        }
    }

    fn fire_timers(&mut self) {
        if self.core.timers.is_empty() {
            return;
        }
        let mut fired = std::mem::take(&mut self.fired);
        self.core.timers.advance(self.core.clock.now(), &mut fired);
        for timer in fired.drain(..) {
            if timer.key == Key::NONE {
                self.on_own_timer(timer.kind);
            } else {
                self.dispatch(timer.key, Event::Timer(timer.kind));
            }
        }
        self.fired = fired;
    }

    fn on_own_timer(&mut self, kind: u8) {
        match kind {
            own_timer::FLUSH_LOGS => self.core.logs.on_timer(),
            own_timer::CLEAN_ORIGINAL_DST => self.clean_original_dst(),
            own_timer::DRAIN_DEADLINE => self.on_drain_deadline(),
            own_timer::FLUSH_SPANS => Reporter::on_timer(self),
            _ => {}
        }
    }
}
