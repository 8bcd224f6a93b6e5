//! The timers of an upstream HTTP/2 connection: pings, the idle timeout, the longest duration.

use tidegate_rt::Moment;
use tidegate_stats::defs::{cluster as stat, http2};

use super::super::connection::ClientConnection;
use super::super::is_past;
use crate::conn::After;
use crate::hcm::Lost;
use crate::http2::{Keepalive, Pulse};
use crate::worker::{Core, Worker};

impl ClientConnection {
    /// The connection stands: from here on the upstream is asked for signs of life.
    pub(in crate::pool) fn start_keepalive(&mut self, core: &mut Core) {
        let now = core.now();
        let settings = &self.guard.cluster.config.http.http2.connection_keepalive;
        if let (Some(http2), Some(settings)) = (&mut self.http2, settings) {
            http2.heard = now;
            http2.keepalive = Some(Keepalive::new(settings, now, &mut core.rng));
        }
    }

    pub(in crate::pool) fn keepalive_deadline(&self) -> Option<Moment> {
        self.http2.as_ref()?.keepalive.as_ref()?.deadline()
    }

    /// A ping may be due, or the answer to one. `Close`: the upstream is gone.
    fn on_keepalive_timer(&mut self, worker: &mut Worker) -> After {
        let now = worker.core.now();
        let Some(http2) = &mut self.http2 else {
            return After::Keep;
        };
        let Some(keepalive) = &mut http2.keepalive else {
            return After::Keep;
        };
        match keepalive.on_timer(now) {
            Pulse::Nothing => After::Keep,
            Pulse::Ping => {
                http2.wire.codec.ping(now.nanos().to_be_bytes());
                self.flush_later(&mut worker.core);
                After::Keep
            }
            Pulse::Dead => {
                let stats = &self.guard.cluster.http2_stats;
                stats.inc(http2::KEEPALIVE_TIMEOUT);
                self.lose_all(worker, Lost::ConnectionTermination);
                self.finish(worker, true)
            }
        }
    }

    /// The idle timeout, the longest duration, or a ping.
    pub(in crate::pool) fn on_shared_timer(&mut self, worker: &mut Worker) -> After {
        let now = worker.core.now();
        if self.on_keepalive_timer(worker) == After::Close {
            return After::Close;
        }
        if is_past(self.max_duration, now) {
            self.max_duration = None;
            let stats = &self.guard.cluster.stats;
            stats.inc(stat::UPSTREAM_CX_MAX_DURATION_REACHED);
            self.drain(worker);
        } else if is_past(self.deadline, now) && self.active_requests() == 0 {
            self.guard.cluster.stats.inc(stat::UPSTREAM_CX_IDLE_TIMEOUT);
            return self.finish(worker, true);
        }
        self.arm(&mut worker.core);
        After::Keep
    }
}
