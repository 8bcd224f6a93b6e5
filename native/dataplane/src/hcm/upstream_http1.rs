//! HTTP/1 from the upstream: the response's head and body out of the bytes of its connection.

use std::borrow::Cow;

use tidegate_codec::h1::{BodyTracker, KnownHeader, ResponseHead, TrailerPolicy, parse_response};

use super::http1::{feed, feed_payload};
use super::stream::{BodyMode, Stream, Upstream};
use super::tracing::tried;
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
        let now = worker.core.now();
        stream.deadlines.active_at = now;
        if let Some(tries) = &mut stream.tries {
            tries.touch(now);
        }
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
        } else if self.is_held(&stream) {
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
                if self.hcm.dynamic_stats {
                    response::count_answer(stream, head.status);
                }
                self.give_up_retries(stream, &mut worker.core);
                self.on_interim(stream, worker, &head);
                continue;
            }
            stream.upstream_header_bytes_received += length as u64;
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
            if stream.tries.is_some() {
                response::receive_http1(stream, &head, rest, &worker.core);
                if self.retries_head(stream, worker, head.status) {
                    let whole = body.is_finished() && stream.request.complete;
                    if !whole {
                        tried::last_canceled(stream);
                    }
                    return up.give_up(whole, at + length);
                }
            }
            if stream.request.upgrade && head.status < 400 && is_websocket(stream) {
                return self.on_handshake_refused(stream, worker, &head, rest);
            }
            let ends = body.is_finished();
            response::receive_http1(stream, &head, rest, &worker.core);
            self.receive_head(stream, worker, head.status, head.framing, ends);
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
    fn on_interim(&mut self, stream: &Stream, worker: &mut Worker, head: &ResponseHead) {
        if head.status == 100 && self.hcm.config.proxy_100_continue {
            self.write_interim(stream, &mut worker.core, head.status);
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
        let result = if stream.response.mode == BodyMode::Payload || stream.is_response_filtered() {
            let trailers = up.sends_trailers().then_some(&mut stream.response.trailers);
            feed_payload(body, bytes, &mut several, trailers)
        } else {
            feed(body, bytes, &mut several)
        };
        let delivered = match result {
            Ok((extent, fed)) => {
                stream.response.bytes += fed.payload;
                let finished = fed.finished || body.is_finished();
                self.write_response(stream, worker, extent, with_head, finished);
                if finished {
                    if !stream.response.trailers.is_empty()
                        && (self.is_http2() || stream.is_response_filtered())
                    {
                        self.write_trailers(stream, worker);
                    }
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
        response::receive_http1(stream, head, bytes, &worker.core);
        self.receive_head(stream, worker, head.status, head.framing, true);
        self.write_response(stream, worker, &[], true, true);
        self.response_done(stream, worker);
        stream.details = Cow::Borrowed("websocket_handshake_unsuccessful");
        Delivered::Done {
            consumed: bytes.len(),
            reusable: false,
        }
    }
}
