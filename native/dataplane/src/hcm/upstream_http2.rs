//! HTTP/2 from the upstream: a response's head, payload, trailers and end, event by event.

use std::borrow::Cow;

use tidegate_codec::h1::{KnownHeader, ResponseFraming, Span};
use tidegate_snapshot::ResponseFlags;

use super::local_reply::Reply;
use super::retry::Ended;
use super::stream::{Attached, Stream, Token, Upstream};
use super::tracing::tried;
use super::upstream::put_lost;
use super::{ServerConnection, StreamKey, forward, response};
use crate::pool::ClientConnection;
use crate::worker::Worker;

/// How a request lost its upstream before the response was complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// RST_STREAM.
    Reset,
    /// RST_STREAM with REFUSED_STREAM.
    Refused,
    /// RST_STREAM with CONNECT_ERROR.
    ConnectError,
    /// GOAWAY left the stream out: the upstream has not looked at it.
    GoneAway,
    ConnectionTermination,
    ProtocolError,
}

impl Lost {
    /// The response flag, and the reason as details and bodies have it.
    const fn told(self) -> (ResponseFlags, &'static str, &'static str) {
        match self {
            Self::Reset => (
                ResponseFlags::UPSTREAM_REMOTE_RESET,
                "remote_reset",
                "remote reset",
            ),
            Self::Refused | Self::GoneAway => (
                ResponseFlags::UPSTREAM_REMOTE_RESET,
                "remote_refused_stream_reset",
                "remote refused stream reset",
            ),
            Self::ConnectError => (
                ResponseFlags::UPSTREAM_REMOTE_RESET,
                "remote_error_with_CONNECT_request",
                "remote error with CONNECT request",
            ),
            Self::ConnectionTermination => (
                ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
                "connection_termination",
                "connection termination",
            ),
            Self::ProtocolError => (
                ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
                "protocol_error",
                "protocol error",
            ),
        }
    }
}

/// Requests are sent anew after a GOAWAY so often at most.
const MAX_ATTEMPTS: u32 = 4;

impl ServerConnection {
    /// A response's head, which is in the worker's scratch.
    pub(crate) fn on_upstream_head(
        &mut self,
        worker: &mut Worker,
        up: &mut ClientConnection,
        stream: StreamKey,
        status: u16,
        end: bool,
    ) {
        let Some(mut stream) = self.streams.take_key(stream) else {
            return;
        };
        let now = worker.core.now();
        stream.deadlines.active_at = now;
        if let Some(tries) = &mut stream.tries {
            tries.touch(now);
        }
        stream.times.upstream_rx_begin.get_or_insert(now);
        if status < 200 {
            if self.hcm.dynamic_stats {
                response::count_answer(&stream, status);
            }
            self.give_up_retries(&mut stream, &mut worker.core);
            if status == 100 && self.hcm.config.proxy_100_continue {
                self.write_interim(&stream, &mut worker.core, status);
            }
            self.settle(stream, worker);
            return;
        }
        let scratch = &worker.core.http.fields;
        stream.response.headers.receive_fields(scratch, Span::EMPTY);
        let head = stream.response.headers.byte_size();
        stream.upstream_header_bytes_received += head;
        stream.upstream_bytes_received += head;
        if stream.tries.is_some() && self.retries_head(&mut stream, worker, status) {
            let before = std::mem::take(&mut stream.upstream);
            if let Upstream::Active(_, token) = before
                && !(end && stream.request.complete)
            {
                tried::last_canceled(&mut stream);
                up.cancel(&mut worker.core, token, stream.key, 0);
            }
            return self.settle(stream, worker);
        }
        if stream.request.upgrade {
            self.on_upgrade_answer(&mut stream, worker, status, end);
        } else {
            self.receive_head(
                &mut stream,
                worker,
                status,
                ResponseFraming::UntilClose,
                end,
            );
        }
        if !end && !self.is_http2() {
            self.cork(&mut worker.core);
        }
        self.write_response(&mut stream, worker, &[], true, end);
        if end {
            stream.upstream = Upstream::None;
            self.response_done(&mut stream, worker);
        }
        self.settle(stream, worker);
    }

    /// The head of the answer to an extended CONNECT: in the words of HTTP/1.
    fn on_upgrade_answer(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        status: u16,
        end: bool,
    ) {
        if status != 200 {
            let framing = ResponseFraming::UntilClose;
            return self.receive_head(stream, worker, status, framing, end);
        }
        let protocol = stream.request.headers.known(KnownHeader::Upgrade);
        let protocol = protocol.unwrap_or_default().to_vec();
        self.switch(stream, worker, 101, &protocol, b"upgrade");
    }

    /// Payload of a response.
    pub(crate) fn on_upstream_body(
        &mut self,
        worker: &mut Worker,
        up: &mut ClientConnection,
        key: StreamKey,
        token: Token,
        bytes: &[u8],
        end: bool,
    ) {
        let Some(mut stream) = self.streams.take_key(key) else {
            up.release(&mut worker.core, token, key, bytes.len());
            return;
        };
        let now = worker.core.now();
        stream.deadlines.active_at = now;
        if let Some(tries) = &mut stream.tries {
            tries.touch(now);
        }
        stream.response.bytes += bytes.len() as u64;
        stream.upstream_bytes_received += bytes.len() as u64;
        stream.upstream_unreleased += bytes.len();
        self.write_response(&mut stream, worker, bytes, false, end);
        if end {
            self.end_of_upstream(&mut stream, worker);
        }
        if end || !self.is_held(&stream) {
            let count = std::mem::take(&mut stream.upstream_unreleased);
            up.release(&mut worker.core, token, key, count);
        }
        self.settle(stream, worker);
    }

    pub(crate) fn on_upstream_trailers(
        &mut self,
        worker: &mut Worker,
        up: &mut ClientConnection,
        key: StreamKey,
    ) {
        let Some(mut stream) = self.streams.take_key(key) else {
            return;
        };
        stream.deadlines.active_at = worker.core.now();
        let scratch = &worker.core.http.fields;
        stream
            .response
            .trailers
            .receive_fields(scratch, Span::EMPTY);
        self.write_trailers(&mut stream, worker);
        if let Upstream::Active(_, token) = stream.upstream {
            let count = std::mem::take(&mut stream.upstream_unreleased);
            up.release(&mut worker.core, token, key, count);
        }
        self.end_of_upstream(&mut stream, worker);
        self.settle(stream, worker);
    }

    fn end_of_upstream(&mut self, stream: &mut Stream, worker: &mut Worker) {
        stream.upstream = Upstream::None;
        if stream.response.tunnel {
            self.on_tunnel_closed(stream, worker);
        } else {
            self.response_done(stream, worker);
        }
    }

    /// The upstream's window is open again for this request.
    pub(crate) fn on_upstream_writable(
        &mut self,
        worker: &mut Worker,
        up: &mut ClientConnection,
        key: StreamKey,
        token: Token,
    ) {
        let Some(mut stream) = self.streams.take_key(key) else {
            return;
        };
        stream.deadlines.active_at = worker.core.now();
        forward::send_pending_request(&mut stream, &mut worker.core, up, token);
        if self.is_http2() {
            self.release_request(&mut stream, &mut worker.core);
        } else if stream.request.pending.is_empty() {
            worker
                .core
                .nudge_stream(key.connection, super::NUDGE_READ, key.slot);
        }
        self.settle(stream, worker);
    }

    /// The upstream side is gone before the response was complete.
    pub(crate) fn on_upstream_lost(&mut self, worker: &mut Worker, key: StreamKey, lost: Lost) {
        let Some(mut stream) = self.streams.take_key(key) else {
            return;
        };
        stream.upstream = Upstream::None;
        stream.upstream_unreleased = 0;
        stream.request_held = false;
        let ended = match lost {
            Lost::Refused | Lost::GoneAway => Ended::Refused,
            _ => Ended::Reset,
        };
        if lost != Lost::ProtocolError {
            put_lost(&stream);
        }
        let has_policy = stream.may_retry();
        let (flag, reason, text) = lost.told();
        tried::reset(&mut stream, text, flag);
        if self.retries_reset(&mut stream, &mut worker.core, ended) {
            return self.settle(stream, worker);
        }
        if lost == Lost::GoneAway && !has_policy && self.resend(&mut stream, worker) {
            return self.settle(stream, worker);
        }
        if stream.response.tunnel {
            self.on_tunnel_closed(&mut stream, worker);
            return self.settle(stream, worker);
        }
        if lost == Lost::ProtocolError {
            self.on_protocol_error(&mut stream, worker);
            return self.settle(stream, worker);
        }
        stream.flags.insert(flag);
        let when = if stream.response.started {
            "after"
        } else {
            "before"
        };
        let details = format!("upstream_reset_{when}_response_started{{{reason}}}");
        let body = stream.reset_text(text);
        let reply = Reply {
            details: Cow::Owned(details),
            ..Reply::new(503, body.as_bytes(), "")
        };
        self.reply_upstream(&mut stream, worker, reply);
        self.settle(stream, worker);
    }

    /// Sends a request once more that the upstream has not looked at; not if part of its body is gone.
    fn resend(&mut self, stream: &mut Stream, worker: &mut Worker) -> bool {
        if stream.response.started || stream.request.bytes > 0 || stream.attempts >= MAX_ATTEMPTS {
            return false;
        }
        let Some(cluster) = stream.cluster.clone() else {
            return false;
        };
        stream.active = None;
        let attempts = stream.attempts;
        self.send_upstream(stream, worker, &cluster, Attached::default());
        stream.attempts = attempts + 1;
        true
    }
}
