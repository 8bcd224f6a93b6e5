//! The client's socket: reading requests, in order, and writing responses.

use std::io::IoSlice;
use std::rc::Rc;

use tidegate_buf::Crossing;
use tidegate_codec::h1::{
    BodyTracker, Fed, KnownHeader, ParseError, Refusal, RequestHead, Version, encode, parse_request,
};
use tidegate_rt::{Received, Sent};
use tidegate_snapshot::ResponseFlags;
use tidegate_stats::defs::http as stat;
use tidegate_stats::defs::http1;

use super::stream::{Attached, Stream, Upstream};
use super::{NUDGE_READ, Phase, ServerConnection, request};
use crate::conn::Conn;
use crate::worker::{Core, Worker};

/// What following a body through received bytes came to: what to pass on, and how far it got.
pub(super) fn feed<'b>(
    tracker: &mut BodyTracker,
    bytes: &'b [u8],
    several: &'b mut Vec<u8>,
) -> Result<(&'b [u8], Fed), ParseError> {
    let mut first: &[u8] = &[];
    several.clear();
    let fed = tracker.feed_raw(bytes, |extent| {
        if several.is_empty() && first.is_empty() {
            first = extent;
        } else {
            if several.is_empty() {
                several.extend_from_slice(first);
            }
            several.extend_from_slice(extent);
        }
    })?;
    Ok((if several.is_empty() { first } else { several }, fed))
}

impl ServerConnection {
    /// Whether anything that might be read could be used now.
    fn wants_input(&self) -> bool {
        match (&self.phase, self.streams.first()) {
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
            Upstream::Active(_) => stream.request_held,
            Upstream::None if stream.response.tunnel => false,
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

    /// Goes on with input that was left over.
    pub(super) fn resume_input(&mut self, worker: &mut Worker) {
        if self.input.is_empty() || !self.wants_input() {
            return;
        }
        let mut input = std::mem::take(&mut self.input);
        let used = self.process(worker, &input);
        if used >= input.len() || self.phase != Phase::Open {
            // The memory goes too: an idle connection holds none.
            return;
        }
        input.drain(..used);
        self.input = input;
    }

    /// Uses up as much of the received bytes as possible.
    fn process(&mut self, worker: &mut Worker, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.phase {
                Phase::Open => {}
                // What comes after the last response is of no interest.
                _ => return bytes.len(),
            }
            let used = match self.streams.take(0) {
                None => self.begin(worker, rest),
                Some(stream) if stream.request.complete => {
                    self.streams.put(stream);
                    0
                }
                Some(stream) => self.on_body(stream, worker, rest),
            };
            if used == 0 {
                break;
            }
            at += used;
        }
        at
    }

    /// Reads a head and starts its stream; the body bytes behind it leave together with it.
    fn begin(&mut self, worker: &mut Worker, bytes: &[u8]) -> usize {
        let now = worker.core.now();
        if self.head_since.is_none() {
            self.head_since = Some(now);
        }
        if !self.resume.worth_parsing(bytes) {
            return 0;
        }
        let hcm = Rc::clone(&self.hcm);
        let parsed = parse_request(bytes, &mut worker.core.http.scratch, &hcm.limits);
        let head = match parsed {
            Ok(Some(head)) => head,
            Ok(None) => return 0,
            Err(error) => {
                self.refuse_bytes(worker, error);
                return bytes.len();
            }
        };
        self.resume = tidegate_codec::h1::HeadResume::default();
        let dropped = worker.core.http.scratch.dropped();
        if dropped > 0 {
            hcm.http1_stats
                .add(http1::DROPPED_HEADERS_WITH_UNDERSCORES, u64::from(dropped));
        }
        let mut stream = self.open_stream(&mut worker.core);
        stream.times.start = self.head_since.take().unwrap_or(now);
        if let Some(refusal) = head.refusal
            && (refusal != Refusal::MissingHost || !self.has_default_host(&head))
        {
            self.refuse_head(stream, worker, refusal, &head, bytes);
            return bytes.len();
        }
        self.receive(&mut stream, &head, bytes, &worker.core);
        if head.refusal.is_some()
            && let Some(host) = &hcm.config.http1.default_host_for_http_10
        {
            stream
                .request
                .headers
                .set_known(KnownHeader::Host, host.as_bytes());
        }
        if head.expect_continue && !hcm.config.proxy_100_continue {
            stream.request.headers.remove_known(KnownHeader::Expect);
            self.write(&mut worker.core, &[encode::CONTINUE]);
            stream.response.status = 100;
        }
        let head_len = head.len as usize;
        let rest = bytes.get(head_len..).unwrap_or_default();
        if stream.request.body.is_finished() {
            if stream.request.complete {
                stream.times.request_end = Some(now);
            }
            self.start(stream, worker, Attached::default());
            return head_len;
        }
        let mut several = std::mem::take(&mut worker.core.http.body);
        let mut consumed = head_len;
        match feed(&mut stream.request.body, rest, &mut several) {
            Ok((body, fed)) => {
                consumed += fed.consumed;
                let attached = Attached {
                    bytes: body,
                    payload: fed.payload,
                    last: fed.finished,
                };
                self.start(stream, worker, attached);
            }
            Err(error) => {
                self.refuse_body(stream, worker, error);
                consumed = bytes.len();
            }
        }
        worker.core.http.body = several;
        consumed
    }

    pub(super) fn receive(
        &self,
        stream: &mut Stream,
        head: &RequestHead,
        bytes: &[u8],
        core: &Core,
    ) {
        request::receive(
            &mut stream.request,
            head,
            bytes,
            &core.http.scratch,
            &self.hcm,
        );
    }

    /// `default_host_for_http_10` stands in for a host that is not there.
    fn has_default_host(&self, head: &RequestHead) -> bool {
        head.version == Version::Http10 && self.hcm.config.http1.default_host_for_http_10.is_some()
    }

    pub(super) fn open_stream(&mut self, core: &mut Core) -> Box<Stream> {
        let mut stream = core.http.take_stream();
        stream.key = self.streams.reserve(self.key);
        let hcm = &self.hcm;
        let now = core.now();
        hcm.stats.inc(stat::DOWNSTREAM_RQ_TOTAL);
        hcm.stats.inc(stat::DOWNSTREAM_RQ_HTTP1_TOTAL);
        hcm.stats.gauge_inc(stat::DOWNSTREAM_RQ_ACTIVE);
        self.requests += 1;
        if hcm
            .config
            .max_requests_per_connection
            .is_some_and(|max| self.requests >= max)
        {
            hcm.stats.inc(stat::DOWNSTREAM_CX_MAX_REQUESTS_REACHED);
            self.draining = true;
        }
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

    /// More of the request's body, or of a tunnel.
    fn on_body(&mut self, mut stream: Box<Stream>, worker: &mut Worker, bytes: &[u8]) -> usize {
        let now = worker.core.now();
        stream.deadlines.active_at = now;
        if stream.request.upgrade {
            let used = self.on_tunnel_input(&mut stream, worker, bytes);
            self.settle(stream, worker);
            return used;
        }
        let mut several = std::mem::take(&mut worker.core.http.body);
        let consumed = match feed(&mut stream.request.body, bytes, &mut several) {
            Ok((body, fed)) => {
                stream.request.bytes += fed.payload;
                if fed.finished {
                    stream.request.complete = true;
                    stream.times.request_end = Some(now);
                }
                self.pass_body(&mut stream, worker, body);
                self.settle(stream, worker);
                fed.consumed
            }
            Err(error) => {
                self.refuse_body(stream, worker, error);
                bytes.len()
            }
        };
        worker.core.http.body = several;
        consumed
    }

    /// Hands body bytes to the upstream, or keeps them until there is one.
    fn pass_body(&mut self, stream: &mut Stream, worker: &mut Worker, body: &[u8]) {
        match stream.upstream {
            Upstream::Active(key) => {
                if let Some(Conn::Upstream(mut up)) = worker.conns.take(key) {
                    up.write(&mut worker.core, &[body]);
                    stream.request_held = up.is_backed_up();
                    stream.upstream_bytes_sent += body.len() as u64;
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
    pub(super) fn unhold_request(&mut self, slot: u32) {
        if let Some(stream) = self.streams.get_mut(slot) {
            stream.request_held = false;
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
        if self.out.is_empty() {
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
            match self.streams.first() {
                Some(stream) => {
                    if let Upstream::Active(key) = stream.upstream
                        && let Some(Conn::Upstream(up)) = worker.conns.get_mut(key)
                    {
                        up.paused = false;
                        worker.core.nudge(key, crate::pool::NUDGE_READ);
                    }
                }
                None => self.next_request(&mut worker.core),
            }
        }
    }

    /// The client will send no more (`reset`: nor read). Envoy takes either for the end of the connection.
    pub(super) fn on_peer_gone(&mut self, worker: &mut Worker, reset: bool) {
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
                self.abort(
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
                self.abort(
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
