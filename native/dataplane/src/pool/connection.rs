//! One upstream connection: connecting, idle in its pool, or serving a request (HTTP/1) or many (HTTP/2, see `http2.rs`).
//!
//! It reads and writes its socket and knows which stream it serves; what the bytes mean is told by
//! `hcm/upstream_http1.rs`.

use std::io::IoSlice;
use std::net::SocketAddr;

use tidegate_buf::{Crossing, OutBuf, Watermark};
use tidegate_codec::h1::{HeadResume, Limits};
use tidegate_rt::{Errno, LazyTimer, Moment, Received, Sent, Socket};
use tidegate_stats::defs::cluster as stat;

use super::http1::Reading;
use super::http2::Http2;
use super::{PoolFailure, PoolId, closed};
use crate::cluster::ActiveConnection;
use crate::conn::{After, Event, Key, TimerKey};
use crate::hcm::{self, Lost, Requester, StreamKey};
use crate::worker::{Core, Worker};

/// Bytes that are read of a response before it is known whether an HTTP/2 client takes any: what thirty clients with closed
/// windows can make us hold stays below a few megabytes.
const READ_AHEAD: usize = 64 * 1024;

/// There may be something to read after all.
pub(crate) const NUDGE_READ: u8 = 1;
/// The socket failed while a downstream connection wrote to it.
const NUDGE_BROKEN: u8 = 2;
/// It may have room for requests that wait, or be of no more use.
pub(super) const NUDGE_OFFER: u8 = 3;
/// A stream that it serves was given up while the connection was busy.
pub(super) const NUDGE_ORPHAN: u8 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Connecting,
    Idle,
    Busy(StreamKey),
    /// HTTP/2, connected: serves any number of requests, or none.
    Shared,
}

/// An upstream HTTP connection.
pub struct ClientConnection {
    pub(super) key: Key,
    pub(super) socket: Socket,
    pub(super) guard: ActiveConnection,
    pub(super) pool: PoolId,
    pub(super) state: State,
    /// `None`: HTTP/1.
    pub(super) http2: Option<Box<Http2>>,
    id: u64,
    pub(super) out: OutBuf,
    mark: Watermark,
    /// Received, but not enough of it to act upon.
    pub(super) input: Vec<u8>,
    pub(crate) resume: HeadResume,
    pub(crate) reading: Reading,
    pub(crate) limits: Limits,
    readable: bool,
    /// The upstream has closed its side; there may be bytes before the end.
    closing: bool,
    /// The downstream side cannot take more just now.
    pub(crate) paused: bool,
    /// The client may be one that takes nothing: no more than a little is read ahead of knowing.
    pub(super) by_window: bool,
    /// More is about to be written: what there is waits for the end of the pass.
    corked: bool,
    pub(super) broken: Option<Errno>,
    /// The response at hand lets the connection live on.
    pub(crate) reusable: bool,
    pub(super) requests: u32,
    pub(super) timer: LazyTimer,
    /// While connecting: the connect timeout; while idle: the idle timeout.
    pub(super) deadline: Option<Moment>,
    pub(super) max_duration: Option<Moment>,
    /// Bytes of the response so far, for `%UPSTREAM_WIRE_BYTES_RECEIVED%`.
    pub(crate) received: u64,
    pub(crate) connect_begin: Moment,
    pub(crate) connect_end: Option<Moment>,
    local: Option<SocketAddr>,
}

impl ClientConnection {
    pub(super) fn new(
        key: Key,
        socket: Socket,
        guard: ActiveConnection,
        pool: PoolId,
        id: u64,
        http2: bool,
        core: &mut Core,
    ) -> Self {
        let config = &guard.cluster.config;
        let now = core.now();
        let deadline = now + config.connect_timeout;
        let mut connection = Self {
            mark: Watermark::new(config.per_connection_buffer_limit_bytes),
            limits: Limits {
                max_head_bytes: config.http.max_response_headers_bytes,
                max_headers: config.http.max_headers_count,
                ..Limits::default()
            },
            max_duration: config
                .http
                .max_connection_duration
                .map(|duration| now + duration),
            key,
            socket,
            guard,
            pool,
            state: State::Connecting,
            http2: None,
            id,
            out: OutBuf::new(),
            input: Vec::new(),
            resume: HeadResume::default(),
            reading: Reading::Head,
            readable: false,
            closing: false,
            reusable: true,
            paused: false,
            by_window: false,
            corked: false,
            broken: None,
            requests: 0,
            timer: LazyTimer::new(),
            deadline: Some(deadline),
            received: 0,
            connect_begin: now,
            connect_end: None,
            local: None,
        };
        if http2 {
            connection.speak_http2(core);
        }
        connection.arm(core);
        connection
    }

    pub(crate) const fn key(&self) -> Key {
        self.key
    }

    pub(crate) const fn pool(&self) -> PoolId {
        self.pool
    }

    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    pub(crate) const fn local_address(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Bytes that the socket would not take yet are above the cluster's limit.
    pub(crate) const fn is_backed_up(&self) -> bool {
        self.mark.is_above()
    }

    pub(super) fn arm(&mut self, core: &mut Core) {
        let deadline = match (self.deadline, self.max_duration) {
            (Some(a), Some(b)) if self.state != State::Connecting => Some(a.min(b)),
            (None, Some(b)) if self.state == State::Shared => Some(b),
            (a, _) => a,
        };
        let deadline = match (deadline, self.keepalive_deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        match deadline {
            Some(deadline) => self.timer.set(
                &mut core.timers,
                deadline,
                TimerKey {
                    key: self.key,
                    kind: 0,
                },
            ),
            None => self.timer.clear(),
        }
    }

    pub(crate) fn count_close_notify(&self) {
        self.guard.cluster.stats.inc(stat::UPSTREAM_CX_CLOSE_NOTIFY);
    }

    pub(crate) fn count_protocol_error(&self) {
        self.guard
            .cluster
            .stats
            .inc(stat::UPSTREAM_CX_PROTOCOL_ERROR);
    }

    /// Whether this is the last request it may serve, by `max_requests_per_connection`.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.guard
            .cluster
            .config
            .http
            .max_requests_per_connection
            .is_some_and(|max| self.requests >= max)
    }

    /// Sends pieces in one system call, keeping what the socket would not take. A failure is handled in the
    /// connection's own event.
    pub(crate) fn write(&mut self, core: &mut Core, pieces: &[&[u8]]) {
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        if total == 0 || self.broken.is_some() {
            return;
        }
        self.guard
            .cluster
            .stats
            .add(stat::UPSTREAM_CX_TX_BYTES_TOTAL, total as u64);
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
                Some([only]) => self.socket.send(only),
                Some(several) => self.socket.send_vectored(several),
                None => Sent::WouldBlock,
            };
            match sent {
                Sent::Bytes(count) if count == total => return,
                Sent::Bytes(count) => self.out.push_rest(&mut core.segments, pieces, count),
                Sent::WouldBlock => self.out.push_rest(&mut core.segments, pieces, 0),
                Sent::Error(error) => return self.fail_later(core, error),
            }
        } else {
            self.out.push_rest(&mut core.segments, pieces, 0);
        }
        if self.mark.update(self.out.len()) == Some(Crossing::High) {
            self.guard
                .cluster
                .stats
                .inc(stat::UPSTREAM_FLOW_CONTROL_BACKED_UP_TOTAL);
        }
    }

    /// What is written from here on leaves at the end of the pass, in one piece.
    pub(crate) fn cork(&mut self, core: &mut Core) {
        if !std::mem::replace(&mut self.corked, true) {
            core.flush_later(self.key);
        }
    }

    /// Takes over what waited for this connection.
    pub(crate) fn write_queued(&mut self, core: &mut Core, queued: &mut OutBuf) {
        while !queued.is_empty() {
            let mut slices = [IoSlice::new(&[]); 1];
            if queued.slices(&mut slices) == 0 {
                break;
            }
            let [first] = &slices;
            let count = first.len();
            self.write(core, &[first]);
            queued.consume(&mut core.segments, count);
        }
    }

    fn fail_later(&mut self, core: &mut Core, error: Errno) {
        self.broken = Some(error);
        core.nudge(self.key, NUDGE_BROKEN);
    }

    fn flush(&mut self, core: &mut Core) {
        while !self.out.is_empty() && self.broken.is_none() {
            let mut slices = [IoSlice::new(&[]); 16];
            let used = self.out.slices(&mut slices);
            match self
                .socket
                .send_vectored(slices.get(..used).unwrap_or_default())
            {
                Sent::Bytes(count) => self.out.consume(&mut core.segments, count),
                Sent::WouldBlock => break,
                Sent::Error(error) => {
                    self.broken = Some(error);
                    break;
                }
            }
        }
        if self.mark.update(self.out.len()) == Some(Crossing::Low) {
            self.guard
                .cluster
                .stats
                .inc(stat::UPSTREAM_FLOW_CONTROL_DRAINED_TOTAL);
            if let State::Busy(downstream) = self.state {
                core.nudge_stream(downstream.connection, hcm::NUDGE_READ, downstream.slot);
            }
        }
    }

    pub fn on_event(&mut self, worker: &mut Worker, _key: Key, event: Event) -> After {
        match event {
            Event::Ready { ready, .. } => {
                if self.state == State::Connecting {
                    if !ready.writable() && !ready.hung_up() {
                        return After::Keep;
                    }
                    if let Some(error) = self.socket.take_error() {
                        return self
                            .on_connect_failure(worker, PoolFailure::Remote(describe(error)));
                    }
                    if self.on_connected(worker) == After::Close {
                        return After::Close;
                    }
                }
                if ready.writable() && !self.out.is_empty() {
                    self.flush(&mut worker.core);
                }
                if ready.writable()
                    && self.http2.is_some()
                    && self.flush_http2(worker) == After::Close
                {
                    return After::Close;
                }
                self.readable |= ready.readable();
                self.closing |= ready.read_closed();
                self.read(worker)
            }
            Event::Nudge {
                why: NUDGE_BROKEN, ..
            } => self.on_closed(worker),
            Event::Nudge {
                why: NUDGE_OFFER, ..
            } => self.serve(worker),
            Event::Nudge {
                why: NUDGE_ORPHAN, ..
            } => self.drop_orphans(worker),
            Event::Nudge { .. } => self.read(worker),
            Event::Flush if self.http2.is_some() => self.flush_http2(worker),
            Event::Flush => {
                self.corked = false;
                self.flush(&mut worker.core);
                match self.broken {
                    Some(_) => self.on_closed(worker),
                    None => After::Keep,
                }
            }
            Event::Timer(_) => self.on_timer(worker),
            // Upstream connections do not belong to a listener.
            Event::Drain | Event::DrainDeadline => After::Keep,
        }
    }

    fn on_connected(&mut self, worker: &mut Worker) -> After {
        let now = worker.core.now();
        self.state = State::Idle;
        self.connect_end = Some(now);
        self.local = self.socket.local_addr().ok();
        self.guard.cluster.stats.record(
            stat::UPSTREAM_CX_CONNECT_MS,
            now.since(self.guard.since()).as_millis() as u64,
        );
        super::connected(worker, self.pool);
        if self.http2.is_some() {
            self.state = State::Shared;
            self.deadline = None;
            self.start_keepalive(&mut worker.core);
            super::ready(worker, self.pool, self.key);
            return match self.serve(worker) {
                After::Keep => self.flush_http2(worker),
                After::Close => After::Close,
            };
        }
        self.become_free(worker)
    }

    fn on_connect_failure(&mut self, worker: &mut Worker, failure: PoolFailure) -> After {
        let stats = &self.guard.cluster.stats;
        stats.inc(stat::UPSTREAM_CX_CONNECT_FAIL);
        if failure == PoolFailure::Timeout {
            stats.inc(stat::UPSTREAM_CX_CONNECT_TIMEOUT);
            stats.inc(stat::UPSTREAM_CX_DESTROY_LOCAL);
        } else {
            stats.inc(stat::UPSTREAM_CX_DESTROY_REMOTE);
        }
        self.guard.host.state.count(|cells| &cells.cx_connect_fail);
        self.timer.cancel(&mut worker.core.timers);
        closed(worker, self, true, Some(failure));
        After::Close
    }

    /// Streams were given up while the connection was in somebody's hands.
    fn drop_orphans(&mut self, worker: &mut Worker) -> After {
        for orphan in worker.core.pools.take_orphans(self.key) {
            match self.state {
                State::Busy(stream) if stream == orphan.stream => {
                    self.close_locally(worker);
                    return After::Close;
                }
                State::Shared => self.cancel(
                    &mut worker.core,
                    orphan.token,
                    orphan.stream,
                    orphan.unreleased,
                ),
                _ => {}
            }
        }
        After::Keep
    }

    fn read(&mut self, worker: &mut Worker) -> After {
        if self.broken.is_some() {
            return self.on_closed(worker);
        }
        while self.readable && !self.paused {
            let mut buf = worker.core.lend_read_buf();
            let room = if self.by_window && matches!(self.reading, Reading::Head) {
                READ_AHEAD.min(buf.len())
            } else {
                buf.len()
            };
            let received = self.socket.recv(buf.get_mut(..room).unwrap_or_default());
            let after = match received {
                Received::Data(count) => {
                    self.readable = self.closing || count == room;
                    self.received += count as u64;
                    self.guard
                        .cluster
                        .stats
                        .add(stat::UPSTREAM_CX_RX_BYTES_TOTAL, count as u64);
                    let bytes = buf.get(..count).unwrap_or_default();
                    if self.http2.is_some() {
                        self.on_http2_input(worker, bytes)
                    } else {
                        self.on_http1_input(worker, bytes)
                    }
                }
                Received::WouldBlock => {
                    self.readable = false;
                    After::Keep
                }
                Received::Eof | Received::Error(_) => {
                    self.readable = false;
                    self.on_closed(worker)
                }
            };
            worker.core.return_read_buf(buf);
            if after == After::Close {
                return After::Close;
            }
        }
        After::Keep
    }

    /// The upstream has closed, or the socket failed.
    pub(super) fn on_closed(&mut self, worker: &mut Worker) -> After {
        if self.active_requests() > 0 && self.http2.is_some() {
            let stats = &self.guard.cluster.stats;
            stats.inc(stat::UPSTREAM_CX_DESTROY_REMOTE_WITH_ACTIVE_RQ);
            stats.inc(stat::UPSTREAM_CX_DESTROY_WITH_ACTIVE_RQ);
            self.lose_all(worker, Lost::ConnectionTermination);
        }
        if let State::Busy(downstream) = self.state
            && let Some(mut requester) = Requester::take(worker, downstream.connection)
        {
            self.guard
                .cluster
                .stats
                .inc(stat::UPSTREAM_CX_DESTROY_REMOTE_WITH_ACTIVE_RQ);
            self.guard
                .cluster
                .stats
                .inc(stat::UPSTREAM_CX_DESTROY_WITH_ACTIVE_RQ);
            requester.on_upstream_closed(worker, self, downstream);
            requester.put_back(worker);
        }
        self.finish(worker, false)
    }

    /// Takes leave of the pool; the caller drops the connection.
    pub(super) fn finish(&mut self, worker: &mut Worker, local: bool) -> After {
        self.guard.cluster.stats.inc(if local {
            stat::UPSTREAM_CX_DESTROY_LOCAL
        } else {
            stat::UPSTREAM_CX_DESTROY_REMOTE
        });
        self.guard
            .cluster
            .stats
            .record(stat::UPSTREAM_RQ_PER_CX, u64::from(self.requests));
        self.timer.cancel(&mut worker.core.timers);
        self.out.clear(&mut worker.core.segments);
        self.forget_http2();
        closed(worker, self, false, None);
        After::Close
    }

    /// Closed on behalf of a downstream connection or of the pool, outside an event of its own.
    pub(super) fn close_locally(&mut self, worker: &mut Worker) {
        if self.active_requests() > 0 {
            self.guard
                .cluster
                .stats
                .inc(stat::UPSTREAM_CX_DESTROY_LOCAL_WITH_ACTIVE_RQ);
            self.guard
                .cluster
                .stats
                .inc(stat::UPSTREAM_CX_DESTROY_WITH_ACTIVE_RQ);
        }
        let _close = self.finish(worker, true);
    }

    fn on_timer(&mut self, worker: &mut Worker) -> After {
        let now = worker.core.now();
        if !self.timer.fired(
            &mut worker.core.timers,
            now,
            TimerKey {
                key: self.key,
                kind: 0,
            },
        ) {
            return After::Keep;
        }
        if self.state == State::Shared {
            return self.on_shared_timer(worker);
        }
        match self.state {
            State::Connecting => self.on_connect_failure(worker, PoolFailure::Timeout),
            State::Idle => {
                self.guard
                    .cluster
                    .stats
                    .inc(if super::is_past(self.max_duration, now) {
                        stat::UPSTREAM_CX_MAX_DURATION_REACHED
                    } else {
                        stat::UPSTREAM_CX_IDLE_TIMEOUT
                    });
                self.finish(worker, true)
            }
            State::Busy(_) | State::Shared => After::Keep,
        }
    }

    /// Whether trailers may be sent over HTTP/1.
    pub(crate) fn sends_trailers(&self) -> bool {
        self.guard.cluster.config.http.enable_trailers
    }

    /// Half-closes towards the upstream once everything queued is gone; only tunnels need it.
    pub(crate) fn end_request(&mut self, core: &mut Core, token: u32) {
        if self.http2.is_some() {
            self.send_data(core, token, &[], true);
            return;
        }
        if self.out.is_empty() {
            let _ = self.socket.shutdown(tidegate_rt::ShutdownSide::Write);
        }
    }
}

/// The system's word for an error, as Envoy prints it.
pub(super) const fn describe(error: Errno) -> &'static str {
    match error {
        Errno::CONNREFUSED => "Connection refused",
        Errno::CONNRESET => "Connection reset by peer",
        Errno::HOSTUNREACH => "No route to host",
        Errno::NETUNREACH => "Network is unreachable",
        Errno::TIMEDOUT => "Connection timed out",
        Errno::ADDRNOTAVAIL => "Cannot assign requested address",
        Errno::MFILE | Errno::NFILE => "Too many open files",
        Errno::NOENT => "No such file or directory",
        Errno::ACCESS => "Permission denied",
        Errno::PIPE => "Broken pipe",
        Errno::AFNOSUPPORT => "Address family not supported by protocol",
        Errno::INVAL => "Invalid argument",
        _ => "Unknown error",
    }
}
