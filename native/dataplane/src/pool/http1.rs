//! An upstream connection that speaks HTTP/1: one request at a time, free for the next when its response is complete.

use tidegate_codec::h1::{BodyTracker, HeadResume};
use tidegate_stats::defs::cluster as stat;

use super::connection::{ClientConnection, State};
use super::{Offered, offer};
use crate::conn::After;
use crate::hcm::{Delivered, Requester, StreamKey};
use crate::worker::Worker;

/// Where the response stands that the connection is reading.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reading {
    Head,
    Body(BodyTracker),
    Tunnel,
}

enum Verdict {
    More,
    Free,
    Close,
    /// In the middle of a response.
    GiveUp,
}

impl ClientConnection {
    /// Starts to serve this stream's request; `by_window`: the client takes only as much as its window lets pass.
    pub(crate) fn begin(&mut self, downstream: StreamKey, by_window: bool) {
        self.by_window = by_window;
        self.state = State::Busy(downstream);
        self.requests += 1;
        self.reading = Reading::Head;
        self.resume = HeadResume::default();
        self.received = 0;
        self.paused = false;
        self.deadline = None;
        self.timer.clear();
    }

    /// Its response is not wanted; `whole`: it has been read nevertheless, up to there.
    pub(crate) const fn give_up(&self, whole: bool, consumed: usize) -> Delivered {
        if whole {
            Delivered::Done {
                consumed,
                reusable: self.reusable,
            }
        } else {
            Delivered::Broken
        }
    }

    /// Free for the next request.
    pub(super) fn become_free(&mut self, worker: &mut Worker) -> After {
        self.state = State::Idle;
        let now = worker.core.now();
        let exhausted = self.is_exhausted();
        let too_old = super::is_past(self.max_duration, now);
        if exhausted || too_old {
            self.guard.cluster.stats.inc(if exhausted {
                stat::UPSTREAM_CX_MAX_REQUESTS
            } else {
                stat::UPSTREAM_CX_MAX_DURATION_REACHED
            });
            return self.finish(worker, true);
        }
        self.deadline = self
            .guard
            .cluster
            .config
            .http
            .idle_timeout
            .map(|timeout| now + timeout);
        match offer(worker, self) {
            Offered::Taken => {}
            Offered::Gone => return self.finish(worker, true),
            Offered::Nobody => {
                super::idle(worker, self.pool, self.key);
                self.arm(&mut worker.core);
            }
        }
        After::Keep
    }

    pub(super) fn on_http1_input(&mut self, worker: &mut Worker, bytes: &[u8]) -> After {
        let State::Busy(downstream) = self.state else {
            // Nobody asked for anything.
            self.guard
                .cluster
                .stats
                .inc(stat::UPSTREAM_CX_PROTOCOL_ERROR);
            return self.finish(worker, true);
        };
        let Some(mut requester) = Requester::take(worker, downstream.connection) else {
            return self.finish(worker, true);
        };
        let delivered = if self.input.is_empty() {
            let delivered = requester.on_upstream_data(worker, self, downstream, bytes);
            if let Delivered::More { consumed } = delivered
                && consumed < bytes.len()
            {
                self.input
                    .extend_from_slice(bytes.get(consumed..).unwrap_or_default());
            }
            self.judge(delivered, bytes.len())
        } else {
            let mut input = std::mem::take(&mut self.input);
            input.extend_from_slice(bytes);
            let delivered = requester.on_upstream_data(worker, self, downstream, &input);
            let total = input.len();
            if let Delivered::More { consumed } = delivered {
                input.drain(..consumed.min(total));
                self.input = input;
            }
            self.judge(delivered, total)
        };
        requester.put_back(worker);
        match delivered {
            Verdict::More => After::Keep,
            Verdict::Free => self.become_free(worker),
            Verdict::Close => self.finish(worker, true),
            Verdict::GiveUp => {
                let stats = &self.guard.cluster.stats;
                stats.inc(stat::UPSTREAM_CX_DESTROY_LOCAL_WITH_ACTIVE_RQ);
                stats.inc(stat::UPSTREAM_CX_DESTROY_WITH_ACTIVE_RQ);
                self.finish(worker, true)
            }
        }
    }

    fn judge(&self, delivered: Delivered, offered: usize) -> Verdict {
        match delivered {
            Delivered::More { .. } => Verdict::More,
            // Bytes behind a response belong to no request: the connection cannot be trusted any more.
            Delivered::Done { consumed, reusable }
                if reusable && consumed == offered && self.out.is_empty() =>
            {
                Verdict::Free
            }
            Delivered::Done { .. } => Verdict::Close,
            Delivered::Broken => Verdict::GiveUp,
        }
    }
}
