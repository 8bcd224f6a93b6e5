//! The end of a stream: its upstream is let go, it is counted, logged, and its memory kept for the next.

use std::borrow::Cow;

use tidegate_rt::Moment;
use tidegate_snapshot::ResponseFlags;
use tidegate_stats::defs::cluster as cluster_stat;
use tidegate_stats::defs::http as stat;
use tidegate_stats::defs::listener_http;

use super::stream::{Stream, Upstream};
use super::tracing::tried;
use super::{Phase, ServerConnection};
use crate::pool;
use crate::worker::{Core, Worker};

impl ServerConnection {
    /// Lets go of whatever upstream the stream has or waits for, for good.
    pub(super) fn detach_upstream(&self, stream: &mut Stream, worker: &mut Worker) {
        if stream.pause.is_some() {
            Self::end_pause(stream, worker);
        }
        if stream.lua.is_some() {
            Self::end_lua(stream, worker);
        }
        self.abandon_upstream(stream, worker);
        stream.request.pending.clear(&mut worker.core.segments);
        if stream.tries.is_some() {
            self.end_tries(stream, &mut worker.core);
        }
    }

    /// Lets go of the upstream that the stream has or waits for, before its response is complete.
    pub(super) fn abandon_upstream(&self, stream: &mut Stream, worker: &mut Worker) {
        match std::mem::take(&mut stream.upstream) {
            Upstream::None => {}
            Upstream::Pending(id) => {
                tried::canceled(stream);
                if let Some(cluster) = &stream.cluster {
                    cluster.stats.inc(cluster_stat::UPSTREAM_RQ_CANCELLED);
                }
                pool::cancel(worker, id, stream.key);
            }
            Upstream::Active(key, token) => {
                tried::canceled(stream);
                stream.active = None;
                let unreleased = std::mem::take(&mut stream.upstream_unreleased);
                pool::discard(worker, key, token, stream.key, unreleased);
            }
        }
    }

    /// Ends all streams without an answer.
    pub(super) fn abort_all(
        &mut self,
        worker: &mut Worker,
        flag: ResponseFlags,
        details: &'static str,
    ) {
        for slot in 0..self.streams.slots() {
            self.abort(worker, slot, flag, details);
        }
    }

    /// Ends a stream, if there is one, without an answer.
    pub(super) fn abort(
        &mut self,
        worker: &mut Worker,
        slot: u32,
        flag: ResponseFlags,
        details: &'static str,
    ) {
        let Some(mut stream) = self.streams.take(slot) else {
            return;
        };
        let stats = &self.hcm.stats;
        if stream.request.complete || stream.response.tunnel || self.is_http2() {
            stats.inc(stat::DOWNSTREAM_RQ_RX_RESET);
        }
        stats.inc(stat::DOWNSTREAM_CX_DESTROY_ACTIVE_RQ);
        stats.inc(stat::DOWNSTREAM_CX_DESTROY_REMOTE_ACTIVE_RQ);
        stream.flags.insert(flag);
        stream.details = Cow::Borrowed(details);
        self.finish(stream, worker);
    }

    /// Counts, logs and forgets a stream; then the connection goes on or ends.
    pub(super) fn finish(&mut self, mut stream: Box<Stream>, worker: &mut Worker) {
        self.detach_upstream(&mut stream, worker);
        if stream.mirrors.is_some() {
            self.end_mirrors(&mut stream, worker);
        }
        self.end_fault(&mut stream);
        let core = &mut worker.core;
        let now = core.now();
        stream.times.downstream_tx_end.get_or_insert(now);
        stream.active = None;
        self.count(&stream, core);
        if self.manager_of(&stream).istio.is_some() {
            self.istio_stats(&stream, core);
        }
        self.write_logs(&stream, core);
        self.end_span(&mut stream, worker);
        let core = &mut worker.core;
        let (tunnel, complete) = (stream.response.tunnel, stream.request.complete);
        if !complete && !tunnel && !self.is_http2() {
            // Envoy resets a stream that is answered before it has been read.
            self.hcm.stats.inc(stat::DOWNSTREAM_RQ_RX_RESET);
        }
        let linger = !complete || stream.response.linger;
        if self.is_http2() {
            self.end_http2_stream(&mut stream, core);
        }
        if stream.upgraded {
            self.hcm
                .stats
                .gauge_dec(stat::DOWNSTREAM_CX_UPGRADES_ACTIVE);
        }
        self.streams.release(stream.key.slot);
        core.http.give_stream(stream);
        self.idle_since = now;
        if self.is_http2() {
            self.close_if_drained(now);
            return;
        }
        if self.phase == Phase::Open && (self.draining || !complete || tunnel) {
            self.flush_and_close(linger, now);
        }
        self.next_request(core);
    }

    /// The connection ends once what is queued has been written; `linger`: and the client has had time to read it.
    pub(super) fn flush_and_close(&mut self, linger: bool, now: Moment) {
        self.phase = Phase::Flushing { linger };
        let timeout = self.hcm.config.delayed_close_timeout;
        self.linger_until = timeout.map(|timeout| now + timeout);
    }

    fn count(&self, stream: &Stream, core: &Core) {
        let (stats, listener) = (&self.hcm.stats, &self.hcm.listener_stats);
        stats.gauge_dec(stat::DOWNSTREAM_RQ_ACTIVE);
        stats.record(
            stat::DOWNSTREAM_RQ_TIME,
            core.now().since(stream.times.start).as_millis() as u64,
        );
        let (class, of_listener) = match stream.response.status / 100 {
            1 => (stat::DOWNSTREAM_RQ_1XX, listener_http::DOWNSTREAM_RQ_1XX),
            2 => (stat::DOWNSTREAM_RQ_2XX, listener_http::DOWNSTREAM_RQ_2XX),
            3 => (stat::DOWNSTREAM_RQ_3XX, listener_http::DOWNSTREAM_RQ_3XX),
            4 => (stat::DOWNSTREAM_RQ_4XX, listener_http::DOWNSTREAM_RQ_4XX),
            5 => (stat::DOWNSTREAM_RQ_5XX, listener_http::DOWNSTREAM_RQ_5XX),
            _ => return,
        };
        stats.inc(stat::DOWNSTREAM_RQ_COMPLETED);
        stats.inc(class);
        listener.inc(listener_http::DOWNSTREAM_RQ_COMPLETED);
        listener.inc(of_listener);
    }
}
