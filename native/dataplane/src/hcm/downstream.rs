//! The client's socket: reading requests, in order, and writing responses.

use std::io::IoSlice;
use tidegate_buf::Crossing;
use tidegate_rt::{Received, Sent};
use tidegate_snapshot::ResponseFlags;
use tidegate_stats::defs::http as stat;

use super::http2::Spoken;
use super::stream::{Stream, Upstream};
use super::{NUDGE_READ, Phase, ServerConnection, forward};
use crate::conn::Conn;
use crate::worker::{Core, Worker};

impl ServerConnection {
    /// Whether anything that might be read could be used now.
    pub(super) fn wants_input(&self) -> bool {
        if let Some(filters) = &self.downstream.filters
            && filters.is_waiting()
        {
            return false;
        }
        match (&self.phase, self.streams.first()) {
            // Windows say how much comes.
            (Phase::Open, _) if self.is_http2() => true,
            // A client that asks without reading the answers is not asked for more.
            (Phase::Open, None) => !self.mark.is_above(),
            (Phase::Open, Some(stream)) => {
                (!stream.request.complete) && !self.is_request_held(stream)
            }
            (Phase::Flushing { linger: true } | Phase::Lingering, _) => true,
            _ => false,
        }
    }

    /// The upstream side has as much of the request as it may have.
    fn is_request_held(&self, stream: &Stream) -> bool {
        let limit = self.downstream.listener.buffer_limit() as usize;
        match stream.upstream {
            Upstream::Active(..) => {
                stream.request_held || (stream.upstream_http2 && !stream.request.pending.is_empty())
            }
            Upstream::None if stream.response.tunnel => false,
            _ if stream.demands_body() => false,
            _ => limit > 0 && stream.request.pending.len() > limit,
        }
    }

    pub(super) fn read(&mut self, worker: &mut Worker) {
        while self.readable && self.wants_input() && !self.broken {
            let mut buf = worker.core.lend_read_buf();
            match self.downstream.socket.recv(&mut buf) {
                Received::Data(count) => {
                    self.readable = self.closing || count == buf.len();
                    self.hcm
                        .stats
                        .add(stat::DOWNSTREAM_CX_RX_BYTES_TOTAL, count as u64);
                    self.bytes.0 += count as u64;
                    self.on_input(worker, buf.get(..count).unwrap_or_default());
                }
                Received::WouldBlock => self.readable = false,
                Received::Eof => {
                    self.readable = false;
                    self.peer_closed = true;
                    self.on_peer_gone(worker, false);
                }
                Received::Error(_) => {
                    self.readable = false;
                    self.broken = true;
                }
            }
            worker.core.return_read_buf(buf);
        }
    }

    fn on_input(&mut self, worker: &mut Worker, bytes: &[u8]) {
        match &self.downstream.filters {
            Some(filters) if filters.is_watching() => self.filter_input(worker, bytes),
            _ => self.take_input(worker, bytes),
        }
    }

    /// As [`Self::on_input`], behind the other network filters.
    pub(super) fn take_input(&mut self, worker: &mut Worker, bytes: &[u8]) {
        if self.http2.is_some() {
            if self.phase == Phase::Open {
                self.on_http2_input(worker, bytes);
            }
            return;
        }
        if !self.spoken && !self.learn_protocol(worker, bytes) {
            return;
        }
        if self.input.is_empty() {
            let used = self.process(worker, bytes);
            if used < bytes.len() && self.phase == Phase::Open {
                self.input
                    .extend_from_slice(bytes.get(used..).unwrap_or_default());
            }
        } else {
            self.input.extend_from_slice(bytes);
            self.resume_input(worker);
        }
    }

    /// The first bytes tell the protocol. `true`: they are HTTP/1's, and for the caller to go on with.
    #[cold]
    fn learn_protocol(&mut self, worker: &mut Worker, bytes: &[u8]) -> bool {
        let spoken = if self.input.is_empty() {
            self.sniff(bytes)
        } else {
            self.input.extend_from_slice(bytes);
            self.sniff(&self.input)
        };
        match spoken {
            Spoken::Unclear => {
                self.head_since.get_or_insert(worker.core.now());
                if self.input.is_empty() {
                    self.input.extend_from_slice(bytes);
                }
                false
            }
            Spoken::Http2 => {
                self.spoken = true;
                let before = std::mem::take(&mut self.input);
                self.speak_http2(&mut worker.core);
                let bytes = if before.is_empty() { bytes } else { &before };
                self.on_http2_input(worker, bytes);
                false
            }
            Spoken::Http1 => {
                self.spoken = true;
                let stats = &self.hcm.stats;
                stats.inc(stat::DOWNSTREAM_CX_HTTP1_TOTAL);
                stats.gauge_inc(stat::DOWNSTREAM_CX_HTTP1_ACTIVE);
                if self.input.is_empty() {
                    return true;
                }
                self.resume_input(worker);
                false
            }
        }
    }

    pub(super) fn open_stream(&mut self, core: &mut Core) -> Box<Stream> {
        let mut stream = core.http.take_stream();
        stream.key = self.streams.reserve(self.key);
        let hcm = &self.hcm;
        let now = core.now();
        hcm.stats.inc(stat::DOWNSTREAM_RQ_TOTAL);
        hcm.stats.inc(if self.is_http2() {
            stat::DOWNSTREAM_RQ_HTTP2_TOTAL
        } else {
            stat::DOWNSTREAM_RQ_HTTP1_TOTAL
        });
        hcm.stats.gauge_inc(stat::DOWNSTREAM_RQ_ACTIVE);
        self.requests += 1;
        if hcm
            .config
            .max_requests_per_connection
            .is_some_and(|max| self.requests >= max)
        {
            hcm.stats.inc(stat::DOWNSTREAM_CX_MAX_REQUESTS_REACHED);
            if self.http2.is_some() {
                self.start_drain_sequence(core);
            }
            self.draining = true;
        }
        let hcm = &self.hcm;
        stream.random = core.rng.next_u64();
        stream.times.start = now;
        stream.deadlines.active_at = now;
        stream.deadlines.idle_timeout = hcm.config.stream_idle_timeout;
        stream.deadlines.request = hcm.config.request_timeout.map(|timeout| now + timeout);
        stream.deadlines.max_duration = hcm
            .config
            .max_stream_duration
            .map(|duration| now + duration);
        stream.client = Some(self.downstream.info.remote);
        stream
    }

    /// Hands body bytes to the upstream, or keeps them until there is one.
    pub(super) fn pass_body(&mut self, stream: &mut Stream, worker: &mut Worker, body: &[u8]) {
        if stream.pause.is_some() {
            self.hold_body(stream, worker, body);
        } else if stream.request.filtered {
            self.filter_body(stream, worker, body);
        } else {
            self.pass_on(stream, worker, body);
        }
    }

    /// As [`Self::pass_body`], behind the filters.
    pub(super) fn pass_on(&mut self, stream: &mut Stream, worker: &mut Worker, body: &[u8]) {
        if stream.mirrors.is_some() {
            self.mirror_body(stream, worker, body);
        }
        if stream.tries.is_some() && !self.keep_body(stream, worker, body) {
            return;
        }
        match stream.upstream {
            Upstream::Active(key, token) => {
                if let Some(Conn::Upstream(mut up)) = worker.conns.take(key) {
                    forward::send_body(stream, &mut worker.core, &mut up, token, body);
                    worker.conns.put(key, Conn::Upstream(up));
                }
                if stream.request.complete {
                    self.request_sent(stream, worker.core.now());
                }
            }
            _ => stream.request.pending.push(&mut worker.core.segments, body),
        }
    }

    /// The upstream has taken what it was given: more may be read.
    pub(super) fn unhold_request(&mut self, slot: u32, core: &mut Core) {
        if let Some(stream) = self.streams.get_mut(slot) {
            stream.request_held = false;
            if stream.wire.is_some()
                && let Some(mut stream) = self.streams.take(slot)
            {
                self.release_request(&mut stream, core);
                self.streams.put(stream);
            }
        }
    }

    /// What is written from here on leaves at the end of the pass, in one piece.
    pub(super) fn cork(&mut self, core: &mut Core) {
        if !std::mem::replace(&mut self.corked, true) {
            core.flush_later(self.key);
        }
    }

    /// Writes pieces in one system call; what the socket does not take is queued.
    pub(super) fn write(&mut self, core: &mut Core, pieces: &[&[u8]]) {
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        if total == 0 || self.broken {
            return;
        }
        self.hcm
            .stats
            .add(stat::DOWNSTREAM_CX_TX_BYTES_TOTAL, total as u64);
        self.bytes.1 += total as u64;
        if self.out.is_empty() && !self.corked {
            let mut slices = [IoSlice::new(&[]); 4];
            let mut used = 0;
            for (slice, piece) in slices
                .iter_mut()
                .zip(pieces.iter().filter(|piece| !piece.is_empty()))
            {
                *slice = IoSlice::new(piece);
                used += 1;
            }
            let sent = match slices.get(..used) {
                Some([only]) => self.downstream.socket.send(only),
                Some(several) => self.downstream.socket.send_vectored(several),
                None => Sent::WouldBlock,
            };
            match sent {
                Sent::Bytes(count) if count == total => return,
                Sent::Bytes(count) => self.out.push_rest(&mut core.segments, pieces, count),
                Sent::WouldBlock => self.out.push_rest(&mut core.segments, pieces, 0),
                Sent::Error(_) => {
                    self.broken = true;
                    return;
                }
            }
        } else {
            self.out.push_rest(&mut core.segments, pieces, 0);
        }
        if self.mark.update(self.out.len()) == Some(Crossing::High) {
            self.hcm
                .stats
                .inc(stat::DOWNSTREAM_FLOW_CONTROL_PAUSED_READING_TOTAL);
        }
    }

    /// The client is slower than the upstream: reading from the upstream shall pause.
    pub(super) const fn is_backed_up(&self) -> bool {
        self.mark.is_above()
    }

    /// Writes what was queued.
    pub(super) fn flush(&mut self, worker: &mut Worker) {
        while !self.out.is_empty() && !self.broken {
            let mut slices = [IoSlice::new(&[]); 16];
            let used = self.out.slices(&mut slices);
            match self
                .downstream
                .socket
                .send_vectored(slices.get(..used).unwrap_or_default())
            {
                Sent::Bytes(count) => {
                    self.out.consume(&mut worker.core.segments, count);
                    if let Some(stream) = self.streams.get_mut(0) {
                        stream.deadlines.active_at = worker.core.clock.now();
                    }
                }
                Sent::WouldBlock => break,
                Sent::Error(_) => self.broken = true,
            }
        }
        if self.mark.update(self.out.len()) == Some(Crossing::Low) {
            self.hcm
                .stats
                .inc(stat::DOWNSTREAM_FLOW_CONTROL_RESUMED_READING_TOTAL);
            match self.streams.take(0) {
                Some(mut stream) => {
                    self.resume_upstream(&mut stream, worker);
                    self.streams.put(stream);
                }
                None => self.next_request(&mut worker.core),
            }
        }
    }

    /// The client will send no more (`reset`: nor read). Envoy takes either for the end of the connection.
    pub(super) fn on_peer_gone(&mut self, worker: &mut Worker, reset: bool) {
        if self.is_http2() {
            return self.on_http2_peer_gone(worker, reset);
        }
        match (&self.phase, self.streams.first()) {
            (Phase::Open, Some(stream)) => {
                if stream.response.tunnel && !reset {
                    if self.peer_closed {
                        self.on_tunnel_eof(worker);
                    }
                    return;
                }
                // Input that is still in the socket belongs to the request: it is read first.
                if !stream.request.complete && self.readable && !reset {
                    return;
                }
                self.peer_closed = true;
                self.abort_all(
                    worker,
                    ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION,
                    "downstream_remote_disconnect",
                );
                self.phase = Phase::Closed;
            }
            (Phase::Open, None) if !reset && (self.readable || !self.peer_closed) => {}
            (Phase::Open, None) if self.head_since.is_some() => {
                let mut stream = self.open_stream(&mut worker.core);
                stream.times.start = self.head_since.take().unwrap_or(worker.core.now());
                self.streams.put(stream);
                self.abort_all(
                    worker,
                    ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION,
                    "downstream_remote_disconnect",
                );
                self.phase = Phase::Closed;
            }
            (Phase::Flushing { linger: false }, _) if !reset => {}
            (Phase::Flushing { .. }, _) if !reset && !self.out.is_empty() => {
                self.peer_closed = true;
            }
            _ => {
                self.peer_closed = true;
                self.phase = Phase::Closed;
            }
        }
    }

    /// Everything has been written that was to be: what next for a connection that is to end.
    pub(super) fn flushed(&mut self, core: &Core, linger: bool) {
        match self.hcm.config.delayed_close_timeout {
            Some(timeout) if linger && !self.peer_closed => {
                self.phase = Phase::Lingering;
                self.linger_until = Some(core.now() + timeout);
            }
            _ => self.phase = Phase::Closed,
        }
    }

    /// Continues with what the client sent after this request.
    pub(super) fn next_request(&mut self, core: &mut Core) {
        if self.phase == Phase::Open && (!self.input.is_empty() || self.readable) {
            core.nudge(self.key, NUDGE_READ);
        }
    }
}
