//! The upstream's answer: its head, its body, its end, and what it means when the end comes too early.

use std::borrow::Cow;
use std::rc::Rc;

use tidegate_codec::h1::{
    BodyTracker, KnownHeader, ResponseHead, TrailerPolicy, encode, parse_response,
};
use tidegate_snapshot::ResponseFlags;
use tidegate_stats::defs::cluster as stat;

use super::downstream::feed;
use super::local_reply::Reply;
use super::stream::{BodyMode, Stream, Upstream};
use super::{ServerConnection, StreamKey, response};
use crate::pool::{ClientConnection, Reading};
use crate::worker::Worker;

/// What became of bytes that an upstream connection delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// The response goes on; the rest of the bytes is to be offered again with more behind it.
    More { consumed: usize },
    /// The response is complete.
    Done { consumed: usize, reusable: bool },
    /// The connection is of no more use.
    Broken,
}

fn is_websocket(stream: &Stream) -> bool {
    let protocol = stream.request.headers.known(KnownHeader::Upgrade);
    protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
}

impl ServerConnection {
    /// Bytes of the response.
    pub(crate) fn on_upstream_data(
        &mut self,
        worker: &mut Worker,
        up: &mut ClientConnection,
        stream: StreamKey,
        bytes: &[u8],
    ) -> Delivered {
        let Some(mut stream) = self.streams.take_key(stream) else {
            return Delivered::Broken;
        };
        stream.deadlines.active_at = worker.core.now();
        let delivered = match up.reading {
            Reading::Head => self.on_response_head(&mut stream, worker, up, bytes),
            Reading::Body(mut body) => {
                let delivered =
                    self.on_response_body(&mut stream, worker, up, &mut body, bytes, false);
                up.reading = Reading::Body(body);
                delivered
            }
            Reading::Tunnel => self.on_tunnel_output(&mut stream, worker, bytes),
        };
        stream.upstream_bytes_received = up.received;
        if !matches!(delivered, Delivered::More { .. }) {
            stream.upstream = Upstream::None;
        } else if self.is_backed_up() {
            up.paused = true;
        }
        self.settle(stream, worker);
        delivered
    }

    fn on_response_head(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        up: &mut ClientConnection,
        bytes: &[u8],
    ) -> Delivered {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            if rest.is_empty() || !up.resume.worth_parsing(rest) {
                return Delivered::More { consumed: at };
            }
            let now = worker.core.now();
            stream.times.upstream_rx_begin.get_or_insert(now);
            let head = match parse_response(
                rest,
                stream.request.method,
                &mut worker.core.http.scratch,
                &up.limits,
            ) {
                Ok(Some(head)) => head,
                Ok(None) => return Delivered::More { consumed: at },
                Err(_) => {
                    up.count_protocol_error();
                    self.on_protocol_error(stream, worker);
                    return Delivered::Broken;
                }
            };
            up.resume = tidegate_codec::h1::HeadResume::default();
            let length = head.len as usize;
            if head.status == 101 && stream.request.upgrade {
                return self.on_switch(stream, worker, up, &head, rest, at);
            }
            if (100..200).contains(&head.status) {
                at += length;
                if let Some(cluster) = &stream.cluster
                    && self.hcm.dynamic_stats
                {
                    response::count_code(cluster, stream.request.internal, head.status);
                }
                self.on_interim(worker, &head);
                continue;
            }
            stream.upstream_header_bytes_received = length as u64;
            let trailers = if self.hcm.config.http1.enable_trailers {
                TrailerPolicy::Forward
            } else {
                TrailerPolicy::Drop
            };
            let mut body = BodyTracker::response(head.framing, trailers, &up.limits);
            up.reusable = head.keep_alive;
            if head.connection.close {
                up.count_close_notify();
            }
            if stream.request.upgrade && head.status < 400 && is_websocket(stream) {
                return self.on_handshake_refused(stream, worker, &head, rest);
            }
            let ends = body.is_finished();
            self.receive_head(stream, worker, &head, rest, ends);
            let rest = rest.get(length..).unwrap_or_default();
            let delivered = self.on_response_body(stream, worker, up, &mut body, rest, true);
            up.reading = Reading::Body(body);
            return match delivered {
                Delivered::More { consumed } => Delivered::More {
                    consumed: at + length + consumed,
                },
                Delivered::Done { consumed, reusable } => Delivered::Done {
                    consumed: at + length + consumed,
                    reusable,
                },
                Delivered::Broken => Delivered::Broken,
            };
        }
    }

    /// 1xx: only a 100 that the client asked the upstream for is passed on.
    fn on_interim(&mut self, worker: &mut Worker, head: &ResponseHead) {
        if head.status == 100 && self.hcm.config.proxy_100_continue {
            self.write(&mut worker.core, &[encode::CONTINUE]);
        }
    }

    /// Body bytes, right behind the head (`with_head`: it has been prepared and leaves with them) or later.
    fn on_response_body(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        up: &ClientConnection,
        body: &mut BodyTracker,
        bytes: &[u8],
        with_head: bool,
    ) -> Delivered {
        let mut several = std::mem::take(&mut worker.core.http.body);
        let result = if stream.response.mode == BodyMode::Payload {
            several.clear();
            body.feed_payload(bytes, |data| several.extend_from_slice(data), |_, _| {})
                .map(|fed| (several.as_slice(), fed))
        } else {
            feed(body, bytes, &mut several)
        };
        let delivered = match result {
            Ok((extent, fed)) => {
                stream.response.bytes += fed.payload;
                let finished = fed.finished || body.is_finished();
                self.write_response(stream, worker, extent, with_head, finished);
                if finished {
                    self.response_done(stream, worker);
                    let whole = stream.request.complete;
                    Delivered::Done {
                        consumed: fed.consumed,
                        reusable: up.reusable && whole,
                    }
                } else {
                    Delivered::More {
                        consumed: fed.consumed,
                    }
                }
            }
            Err(_) => {
                up.count_protocol_error();
                if with_head {
                    self.write_response(stream, worker, &[], true, false);
                }
                self.on_protocol_error(stream, worker);
                Delivered::Broken
            }
        };
        worker.core.http.body = several;
        delivered
    }

    /// Sends the prepared head, if it has not left, and body bytes in the response's mode.
    fn write_response(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        body: &[u8],
        with_head: bool,
        last: bool,
    ) {
        let head = std::mem::take(&mut worker.core.http.head);
        let first: &[u8] = if with_head { &head } else { &[] };
        if stream.response.mode == BodyMode::Chunk {
            let mut size = std::mem::take(&mut worker.core.http.value);
            size.clear();
            if !body.is_empty() {
                encode::chunk_header(&mut size, body.len() as u64);
            }
            let end: &[u8] = match (body.is_empty(), last) {
                (false, false) => encode::CRLF,
                (false, true) => b"\r\n0\r\n\r\n",
                (true, true) => encode::LAST_CHUNK,
                (true, false) => &[],
            };
            self.write(&mut worker.core, &[first, &size, body, end]);
            worker.core.http.value = size;
        } else {
            self.write(&mut worker.core, &[first, body]);
        }
        worker.core.http.head = head;
        if with_head {
            stream.response.started = true;
            stream.times.downstream_tx_begin = Some(worker.core.now());
        }
    }

    /// The whole response has been passed on.
    pub(super) fn response_done(&mut self, stream: &mut Stream, worker: &mut Worker) {
        let now = worker.core.now();
        stream.times.upstream_rx_end = Some(now);
        stream.times.downstream_tx_end = Some(now);
        stream.response.complete = true;
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
            }
        }
        if stream.response.mode == BodyMode::Payload {
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
            Reading::Head => {
                stream
                    .flags
                    .insert(ResponseFlags::UPSTREAM_CONNECTION_TERMINATION);
                let reply = Reply {
                    details: Cow::Borrowed("upstream_reset_before_response_started{connection_termination}"),
                    ..Reply::new(
                        503,
                        b"upstream connect error or disconnect/reset before headers. reset reason: connection termination",
                        "",
                    )
                };
                self.reply_upstream(&mut stream, worker, reply);
            }
        }
        self.settle(stream, worker);
    }

    /// The upstream does not speak HTTP/1.
    fn on_protocol_error(&mut self, stream: &mut Stream, worker: &mut Worker) {
        stream.upstream = Upstream::None;
        stream.flags.insert(ResponseFlags::UPSTREAM_PROTOCOL_ERROR);
        if stream.response.started {
            self.cut(
                stream,
                worker,
                "upstream_reset_after_response_started{protocol_error}",
            );
            return;
        }
        let reply = Reply {
            details: Cow::Borrowed("upstream_reset_before_response_started{protocol_error}"),
            ..Reply::new(
                502,
                b"upstream connect error or disconnect/reset before headers. reset reason: protocol error",
                "",
            )
        };
        self.reply_upstream(stream, worker, reply);
    }

    /// The upstream answers a websocket handshake with something else that is no error: its head is passed on, without a
    /// body.
    fn on_handshake_refused(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        head: &ResponseHead,
        bytes: &[u8],
    ) -> Delivered {
        stream.drop_length = true;
        self.receive_head(stream, worker, head, bytes, true);
        self.write_response(stream, worker, &[], true, true);
        self.response_done(stream, worker);
        stream.details = Cow::Borrowed("websocket_handshake_unsuccessful");
        Delivered::Done {
            consumed: bytes.len(),
            reusable: false,
        }
    }

    /// Takes over a final response's head: edits it and leaves it, ready to be sent, in the worker's head buffer.
    fn receive_head(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        head: &ResponseHead,
        bytes: &[u8],
        ends: bool,
    ) {
        let hcm = Rc::clone(&self.hcm);
        response::receive(stream, &hcm, head, bytes, &worker.core);
        if let Some(cluster) = &stream.cluster {
            if let Some(host) = &stream.host {
                host.state.count(|cells| {
                    if head.status >= 500 {
                        &cells.rq_error
                    } else {
                        &cells.rq_success
                    }
                });
            }
            if hcm.dynamic_stats {
                response::count_code(cluster, stream.request.internal, head.status);
            }
        }
        self.finish_response_head(stream, worker, head.framing, ends);
    }
}
