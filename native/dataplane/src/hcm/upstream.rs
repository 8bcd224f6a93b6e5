//! The upstream's answer: its head, its body, its end, and what it means when the end comes too early.

use std::borrow::Cow;
use std::rc::Rc;

use tidegate_codec::h1::{BodyTracker, KnownHeader, ResponseFraming};
use tidegate_snapshot::ResponseFlags;
use tidegate_snapshot::grpc_status::to_http;
use tidegate_stats::defs::cluster as stat;

use super::local_reply::Reply;
use super::retry::Ended;
use super::stream::{BodyMode, Protocol, Stream, Upstream};
use super::tracing::tried;
use super::{ServerConnection, StreamKey, response};
use crate::cluster::outlier::Outcome;
use crate::pool::{ClientConnection, Reading};
use crate::worker::Worker;

impl ServerConnection {
    /// The whole response has been passed on.
    pub(super) fn response_done(&mut self, stream: &mut Stream, worker: &mut Worker) {
        let now = worker.core.now();
        stream.times.upstream_rx_end = Some(now);
        stream.response.ended = true;
        if stream.is_lua_holding() {
            // The upstream has done its part.
            stream.deadlines.response = None;
        } else if stream.response.pending.is_empty() {
            stream.times.downstream_tx_end = Some(now);
            stream.response.complete = true;
        }
        if let Some(cluster) = &stream.cluster {
            let since = stream.times.request_end.unwrap_or(stream.times.start);
            if stream.request.complete && self.hcm.dynamic_stats {
                let millis = now.since(since).as_millis() as u64;
                cluster.stats.record(stat::UPSTREAM_RQ_TIME, millis);
                cluster.stats.record(
                    if stream.request.internal {
                        stat::INTERNAL_UPSTREAM_RQ_TIME
                    } else {
                        stat::EXTERNAL_UPSTREAM_RQ_TIME
                    },
                    millis,
                );
                if response::is_canary(stream) {
                    cluster.stats.record(stat::CANARY_UPSTREAM_RQ_TIME, millis);
                }
            }
        }
        if stream.response.mode == BodyMode::Payload && stream.request.protocol != Protocol::Http2 {
            self.draining = true;
        }
    }

    /// The upstream has closed its connection, or the connection has failed.
    pub(crate) fn on_upstream_closed(
        &mut self,
        worker: &mut Worker,
        up: &ClientConnection,
        stream: StreamKey,
    ) {
        let Some(mut stream) = self.streams.take_key(stream) else {
            return;
        };
        stream.upstream = Upstream::None;
        if matches!(up.reading, Reading::Head) {
            put_lost(&stream);
            tried::reset(
                &mut stream,
                "connection termination",
                ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
            );
        }
        match up.reading {
            Reading::Body(BodyTracker::UntilClose) => {
                self.write_response(&mut stream, worker, &[], false, true);
                self.response_done(&mut stream, worker);
            }
            Reading::Body(_) => {
                // The codec sees an end within a message, so that Envoy calls it a protocol error.
                up.count_protocol_error();
                self.on_protocol_error(&mut stream, worker);
            }
            Reading::Tunnel => self.on_tunnel_closed(&mut stream, worker),
            Reading::Head if self.retries_reset(&mut stream, &mut worker.core, Ended::Reset) => {}
            Reading::Head => {
                let body = stream.reset_text("connection termination");
                stream
                    .flags
                    .insert(ResponseFlags::UPSTREAM_CONNECTION_TERMINATION);
                let reply = Reply {
                    details: Cow::Borrowed(
                        "upstream_reset_before_response_started{connection_termination}",
                    ),
                    ..Reply::new(503, body.as_bytes(), "")
                };
                self.reply_upstream(&mut stream, worker, reply);
            }
        }
        self.settle(stream, worker);
    }

    /// The upstream does not speak HTTP/1.
    pub(super) fn on_protocol_error(&mut self, stream: &mut Stream, worker: &mut Worker) {
        stream.upstream = Upstream::None;
        put_lost(stream);
        tried::reset(
            stream,
            "protocol error",
            ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
        );
        if self.retries_reset(stream, &mut worker.core, Ended::Reset) {
            return;
        }
        stream.flags.insert(ResponseFlags::UPSTREAM_PROTOCOL_ERROR);
        if stream.response.started {
            self.cut(
                stream,
                worker,
                "upstream_reset_after_response_started{protocol_error}",
            );
            return;
        }
        let body = stream.reset_text("protocol error");
        let reply = Reply {
            details: Cow::Borrowed("upstream_reset_before_response_started{protocol_error}"),
            ..Reply::new(502, body.as_bytes(), "")
        };
        self.reply_upstream(stream, worker, reply);
    }

    /// Edits a final response's head, whose headers have been received, and makes it ready to be sent.
    pub(super) fn receive_head(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        status: u16,
        framing: ResponseFraming,
        ends: bool,
    ) {
        let hcm = Rc::clone(&self.hcm);
        put_answer(stream, status);
        tried::answered(stream, status);
        response::receive(stream, &hcm, status, &worker.core);
        if stream.cluster.is_some() {
            if let Some(host) = &stream.host {
                host.state.count(|cells| {
                    if status >= 500 {
                        &cells.rq_error
                    } else {
                        &cells.rq_success
                    }
                });
            }
            if hcm.dynamic_stats {
                response::count_answer(stream, status);
            }
        }
        if !stream.grpc.holds(status, &stream.response.headers, ends) {
            self.finish_response_head(stream, worker, framing, ends);
        }
    }
}

/// Tells outlier detection of an answer, whose headers have been received.
pub(super) fn put_answer(stream: &Stream, status: u16) {
    let Some(host) = &stream.host else { return };
    let mut code = status;
    if stream.request.grpc
        && let Some(text) = stream.response.headers.known(KnownHeader::GrpcStatus)
    {
        // What is no number is no success.
        let status = std::str::from_utf8(text).ok();
        code = to_http(
            status
                .and_then(|text| text.parse().ok())
                .unwrap_or(u64::MAX),
        );
    }
    let outcome = if code >= 500 {
        Outcome::ExternalFailed
    } else {
        Outcome::ExternalSuccess
    };
    host.state.put_result(outcome, Some(code));
}

/// Tells outlier detection that the upstream was lost before its answer was complete.
pub(super) fn put_lost(stream: &Stream) {
    if let Some(host) = &stream.host {
        host.state.put_result(Outcome::LocalConnectFailed, None);
    }
}
