//! HTTP/2 towards the client: many streams, their heads, bodies and trailers both ways, and the end of the connection.
//!
//! What the codec has to say collects in its output and leaves once per pass of the loop ([`Event::Flush`]): the answers
//! to thirty requests are one write.
//!
//! [`Event::Flush`]: crate::conn::Event::Flush

mod sending;

use std::borrow::Cow;

use tidegate_codec::h1::{KnownHeader, Span};
use tidegate_codec::h2::{
    ConnectionError, ErrorCode, Event, Input, Malformed, Overflow, ResetBy, Role, StreamFault,
    StreamRef,
};
use tidegate_model::hcm::CodecType;
use tidegate_rt::Moment;
use tidegate_snapshot::ResponseFlags;
use tidegate_stats::defs::{http as stat, http2};

use super::stream::{Attached, Protocol, Stream};
use super::{Phase, ServerConnection, request};
use crate::http2::{Keepalive, Pulse, Wire, overflow_counter};
use crate::worker::{Core, Worker};

/// What the client of an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What an HTTP/2 connection has that one of HTTP/1 has not.
pub(super) struct Http2 {
    wire: Wire,
    /// GOAWAY has said that no later stream is served.
    goodbye: bool,
    /// Answered before their requests have ended: they are reset if that is still so at the end of the pass.
    unfinished: Vec<(StreamRef, ErrorCode)>,
    keepalive: Option<Keepalive>,
}

/// What the first bytes of a connection say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
    /// Too few bytes to tell.
    Unclear,
}

impl ServerConnection {
    /// Which protocol the client speaks, by the first bytes that it sends.
    pub(super) fn sniff(&self, bytes: &[u8]) -> Spoken {
        match self.hcm.config.codec_type {
            CodecType::Http1 => Spoken::Http1,
            CodecType::Http2 => Spoken::Http2,
            CodecType::Auto if let Some(protocol) = self.agreed_protocol() => {
                if protocol == b"h2" {
                    Spoken::Http2
                } else {
                    Spoken::Http1
                }
            }
            CodecType::Auto => {
                let seen = bytes.len().min(PREFACE.len());
                if bytes.get(..seen) != PREFACE.get(..seen) {
                    Spoken::Http1
                } else if seen < PREFACE.len() {
                    Spoken::Unclear
                } else {
                    Spoken::Http2
                }
            }
        }
    }

    /// The protocol of ALPN, if there was any.
    fn agreed_protocol(&self) -> Option<&[u8]> {
        let alpn = &self.downstream.info.tls.as_ref()?.alpn;
        (!alpn.is_empty()).then_some(alpn)
    }

    /// From here on the connection speaks HTTP/2.
    pub(super) fn speak_http2(&mut self, core: &mut Core) {
        let stats = &self.hcm.stats;
        stats.inc(stat::DOWNSTREAM_CX_HTTP2_TOTAL);
        stats.gauge_inc(stat::DOWNSTREAM_CX_HTTP2_ACTIVE);
        self.head_since = None;
        let settings = self.hcm.config.http2.connection_keepalive.as_ref();
        let now = core.now();
        let keepalive = settings.map(|settings| Keepalive::new(settings, now, &mut core.rng));
        self.http2 = Some(Box::new(Http2 {
            wire: Wire::new(Role::Server, &self.hcm.http2),
            goodbye: false,
            unfinished: Vec::new(),
            keepalive,
        }));
        let registry = &core.shared.registry;
        let stats = self.hcm.http2_stats.make(registry, core.id);
        stats.inc(http2::NGHTTP2_DOWNSTREAM_CONNECTIONS);
        self.flush_later(core);
    }

    /// The connection is gone.
    pub(super) fn forget_http2(&mut self) {
        if let Some(http2) = self.http2.take() {
            http2.wire.forget(&self.hcm.http2_stats);
            self.hcm.stats.gauge_dec(stat::DOWNSTREAM_CX_HTTP2_ACTIVE);
        }
    }

    pub(super) const fn is_http2(&self) -> bool {
        self.http2.is_some()
    }

    /// The output leaves at the end of the pass.
    fn flush_later(&mut self, core: &mut Core) {
        if let Some(http2) = &mut self.http2 {
            http2.wire.flush_later(core, self.key);
        }
    }

    /// Nothing waits to be written.
    pub(super) fn is_flushed(&self) -> bool {
        let is_written = match &self.http2 {
            Some(http2) => http2.wire.codec.output().is_empty(),
            None => self.out.is_empty(),
        };
        is_written && self.downstream.transport.backlog() == 0
    }

    pub(super) fn on_http2_input(&mut self, worker: &mut Worker, bytes: &[u8]) {
        let mut input = Input::new(bytes);
        self.pump_http2(worker, &mut input);
    }

    /// Handles what the client did, until there is no more to handle.
    fn pump_http2(&mut self, worker: &mut Worker, input: &mut Input<'_>) {
        let now = worker.core.now_millis();
        if let Some(http2) = &mut self.http2 {
            http2.wire.lend_output(&mut worker.core);
        }
        loop {
            let Some(http2) = &mut self.http2 else {
                return;
            };
            if self.phase == Phase::Closed {
                break;
            }
            match http2
                .wire
                .codec
                .next(input, &mut worker.core.http.fields, now)
            {
                Ok(Some(event)) => self.on_http2_event(worker, event),
                Ok(None) => break,
                Err(ConnectionError::Ended) => break,
                Err(error) => {
                    self.on_http2_error(worker, error);
                    break;
                }
            }
        }
        if !self.is_flushed() {
            self.flush_later(&mut worker.core);
        }
        self.head_since = match &self.http2 {
            Some(http2) if http2.wire.codec.is_amid_head() => {
                self.head_since.or(Some(worker.core.now()))
            }
            _ => None,
        };
        self.count_http2();
    }

    /// Takes over what the codec has counted.
    fn count_http2(&mut self) {
        if let Some(http2) = &mut self.http2 {
            http2.wire.count(&self.hcm.http2_stats);
        }
    }

    fn on_http2_event(&mut self, worker: &mut Worker, event: Event<'_>) {
        match event {
            Event::Request { stream, end } => self.begin_http2(worker, stream, end),
            Event::TooLarge {
                stream, overflow, ..
            } => {
                let flag = ResponseFlags::DOWNSTREAM_REMOTE_RESET;
                self.hcm.http2_stats.inc(overflow_counter(overflow));
                self.refuse_head_http2(worker, Some(stream), flag, overflow_details(overflow));
            }
            Event::Refused { why } => {
                let (flag, _) = fault(why);
                let details = match why {
                    StreamFault::Overflow(overflow) => overflow_details(overflow),
                    _ => why.details(),
                };
                self.refuse_head_http2(worker, None, flag, details);
            }
            Event::Data {
                stream,
                token,
                bytes,
                end,
            } => self.on_http2_data(worker, stream, token, bytes, end),
            Event::Trailers { token, .. } => self.on_http2_trailers(worker, token),
            Event::Reset {
                token, code, by, ..
            } => self.on_http2_reset(worker, token, code, by),
            Event::Writable { token, .. } => self.on_http2_writable(worker, token),
            // A client that goes away says so again by closing; a server gets no responses.
            Event::GoAway { .. } | Event::Settings | Event::Response { .. } => {}
            Event::Pong { .. } => {
                let now = worker.core.now();
                if let Some(keepalive) = self.keepalive() {
                    keepalive.on_pong(now, &mut worker.core.rng);
                }
            }
        }
    }

    fn begin_http2(&mut self, worker: &mut Worker, wire: StreamRef, end: bool) {
        let now = worker.core.now();
        let mut stream = self.open_http2_stream(&mut worker.core, wire);
        let scratch = &worker.core.http.fields;
        request::receive_http2(&mut stream.request, scratch, end);
        if stream.request.complete {
            stream.times.request_end = Some(now);
        }
        if stream
            .request
            .headers
            .known(KnownHeader::Expect)
            .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
            && !self.hcm.config.proxy_100_continue
        {
            stream.request.headers.remove_known(KnownHeader::Expect);
            self.write_interim(&stream, &mut worker.core, 100);
        }
        self.start(stream, worker, Attached::default());
    }

    fn open_http2_stream(&mut self, core: &mut Core, wire: StreamRef) -> Box<Stream> {
        let mut stream = self.open_stream(core);
        stream.wire = Some(wire);
        stream.request.protocol = Protocol::Http2;
        if let Some(http2) = &mut self.http2 {
            http2.wire.codec.set_token(wire, stream.key.slot);
        }
        stream
    }

    /// A head that is too large, or may not be: as in Envoy there is no answer, but a line in the log.
    fn refuse_head_http2(
        &mut self,
        worker: &mut Worker,
        wire: Option<StreamRef>,
        flag: ResponseFlags,
        details: &'static str,
    ) {
        let mut stream = self.open_stream(&mut worker.core);
        stream.request.protocol = Protocol::Http2;
        stream.wire = wire;
        stream.cut = true;
        stream.flags.insert(flag);
        stream.details = Cow::Borrowed(details);
        self.hcm.stats.inc(stat::DOWNSTREAM_RQ_RX_RESET);
        self.finish(stream, worker);
    }

    fn on_http2_data(
        &mut self,
        worker: &mut Worker,
        wire: StreamRef,
        slot: u32,
        bytes: &[u8],
        end: bool,
    ) {
        let Some(mut stream) = self.streams.take(slot) else {
            self.release(wire, bytes.len());
            return;
        };
        let now = worker.core.now();
        stream.deadlines.active_at = now;
        stream.request.unreleased += bytes.len();
        stream.request.bytes += bytes.len() as u64;
        if end {
            stream.request.complete = true;
            stream.times.request_end = Some(now);
        }
        self.pass_body(&mut stream, worker, bytes);
        if end && stream.request.upgrade {
            self.end_tunnel_request(&stream, worker);
        }
        self.release_request(&mut stream, &mut worker.core);
        self.settle(stream, worker);
    }

    fn on_http2_trailers(&mut self, worker: &mut Worker, slot: u32) {
        let Some(mut stream) = self.streams.take(slot) else {
            return;
        };
        let now = worker.core.now();
        stream.deadlines.active_at = now;
        stream.request.complete = true;
        stream.times.request_end = Some(now);
        stream
            .request
            .trailers
            .receive_fields(&worker.core.http.fields, Span::EMPTY);
        self.pass_body(&mut stream, worker, &[]);
        self.settle(stream, worker);
    }

    fn on_http2_reset(&mut self, worker: &mut Worker, slot: u32, code: ErrorCode, by: ResetBy) {
        let Some(mut stream) = self.streams.take(slot) else {
            return;
        };
        self.give_back(&mut stream);
        // The codec has forgotten it already.
        stream.wire = None;
        stream.host = stream.host.take().or(stream.pending_host.take());
        let (flag, details) = match by {
            ResetBy::Fault(why) => {
                if let StreamFault::Overflow(overflow) = why {
                    self.hcm.http2_stats.inc(overflow_counter(overflow));
                }
                fault(why)
            }
            _ if code == ErrorCode::NO_ERROR => (ResponseFlags::NONE, ""),
            _ if code == ErrorCode::PROTOCOL_ERROR => (
                ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
                "http2.remote_reset",
            ),
            _ if code == ErrorCode::REFUSED_STREAM => (
                ResponseFlags::DOWNSTREAM_REMOTE_RESET,
                "http2.remote_refuse",
            ),
            _ => (ResponseFlags::DOWNSTREAM_REMOTE_RESET, "http2.remote_reset"),
        };
        self.hcm.stats.inc(stat::DOWNSTREAM_RQ_RX_RESET);
        stream.flags.insert(flag);
        stream.details = Cow::Borrowed(details);
        self.finish(stream, worker);
    }

    /// A stream that had to wait may send again.
    fn on_http2_writable(&mut self, worker: &mut Worker, slot: u32) {
        let Some(mut stream) = self.streams.take(slot) else {
            return;
        };
        stream.deadlines.active_at = worker.core.now();
        self.send_pending(&mut stream, &mut worker.core);
        if stream.response.pending.is_empty() && !stream.response.complete {
            self.resume_upstream(&mut stream, worker);
        }
        self.settle(stream, worker);
    }

    /// The client broke the rules; the codec has said goodbye.
    fn on_http2_error(&mut self, worker: &mut Worker, error: ConnectionError) {
        self.hcm.stats.inc(stat::DOWNSTREAM_CX_PROTOCOL_ERROR);
        if error == ConnectionError::RapidReset {
            self.hcm
                .stats
                .inc(stat::DOWNSTREAM_RQ_TOO_MANY_PREMATURE_RESETS);
        }
        let details: Cow<'static, str> = match error {
            ConnectionError::Malformed(why) => Cow::Borrowed(why.details()),
            error if error.reason().starts_with("http2.") => Cow::Borrowed(error.reason()),
            error => Cow::Owned(format!("codec_error:{}", error.reason()).replace(' ', "_")),
        };
        let in_head = self
            .http2
            .as_ref()
            .is_some_and(|http2| http2.wire.codec.failed_in_head());
        if in_head {
            let mut stream = self.open_stream(&mut worker.core);
            stream.request.protocol = Protocol::Http2;
            self.streams.put(stream);
        }
        for slot in 0..self.streams.slots() {
            if let Some(mut stream) = self.streams.take(slot) {
                // The codec says no more.
                stream.wire = None;
                stream.host = stream.host.take().or(stream.pending_host.take());
                stream
                    .flags
                    .insert(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
                stream.details.clone_from(&details);
                self.hcm.stats.inc(stat::DOWNSTREAM_RQ_RX_RESET);
                self.finish(stream, worker);
            }
        }
        let now = worker.core.now();
        self.flush_and_close(true, now);
    }

    fn keepalive(&mut self) -> Option<&mut Keepalive> {
        self.http2.as_mut()?.keepalive.as_mut()
    }

    pub(super) fn keepalive_deadline(&self) -> Option<Moment> {
        self.http2.as_ref()?.keepalive.as_ref()?.deadline()
    }

    /// A ping may be due, or the answer to one.
    pub(super) fn on_keepalive_timer(&mut self, worker: &mut Worker, now: Moment) {
        let Some(http2) = &mut self.http2 else {
            return;
        };
        let Some(keepalive) = &mut http2.keepalive else {
            return;
        };
        match keepalive.on_timer(now) {
            Pulse::Nothing => {}
            Pulse::Ping => {
                http2.wire.codec.ping(now.nanos().to_be_bytes());
                self.flush_later(&mut worker.core);
            }
            Pulse::Dead => {
                self.hcm.http2_stats.inc(http2::KEEPALIVE_TIMEOUT);
                self.abort_all(worker, ResponseFlags::NONE, "http2.ping_timeout");
                self.phase = Phase::Closed;
            }
        }
    }

    /// Once GOAWAY has said that no later stream is served, the last one ends the connection.
    pub(super) fn close_if_drained(&mut self, now: Moment) {
        if self.phase == Phase::Open
            && self.streams.is_empty()
            && self.http2.as_ref().is_some_and(|http2| http2.goodbye)
        {
            self.flush_and_close(true, now);
        }
    }

    /// The client has closed its side (`reset`: both): whatever it has asked for, nobody reads the answers.
    pub(super) fn on_http2_peer_gone(&mut self, worker: &mut Worker, reset: bool) {
        // Input that is still in the socket is read first.
        if self.phase == Phase::Open && self.readable && !reset {
            return;
        }
        if self.phase == Phase::Open && !self.peer_closed && !reset {
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
}

/// What Envoy says of a fault that ended a stream.
const fn fault(why: StreamFault) -> (ResponseFlags, &'static str) {
    match why {
        StreamFault::Overflow(overflow) => (
            ResponseFlags::DOWNSTREAM_REMOTE_RESET,
            overflow_details(overflow),
        ),
        StreamFault::Malformed(Malformed::BodyLength) => (
            ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
            "http2.remote_reset",
        ),
        StreamFault::Malformed(Malformed::Underscore) => {
            (ResponseFlags::DOWNSTREAM_REMOTE_RESET, why.details())
        }
        _ => (ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR, why.details()),
    }
}

const fn overflow_details(overflow: Overflow) -> &'static str {
    match overflow {
        Overflow::TooManyHeaders => overflow.details(),
        Overflow::HeadersTooLarge => "http2.header_list_size_too_large",
    }
}
