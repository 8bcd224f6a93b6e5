//! What upstream connections say to a call.

use std::rc::Rc;

use tidegate_codec::h1::{BodyTracker, KnownHeader, Span, TrailerPolicy, parse_response};

use super::super::http1::feed_payload;
use super::super::response;
use super::super::retry::{Ended, Head, decide, retry_of};
use super::super::upstream::put_answer;
use super::super::upstream_http1::Delivered;
use super::super::upstream_http2::Lost;
use super::{Call, CallFailure};
use crate::cluster::HostRuntime;
use crate::hcm::forward;
use crate::hcm::stream::{Token, Upstream};
use crate::hcm::streams::StreamKey;
use crate::pool::{ClientConnection, PoolFailure, Reading};
use crate::worker::{Core, Worker};
use tidegate_snapshot::retry::retries_response;

impl Call {
    /// A connection has become free. `false`: nobody wants it any more.
    pub(crate) fn on_connection_ready(
        &mut self,
        worker: &mut Worker,
        up: &mut ClientConnection,
    ) -> bool {
        let stream = &mut self.stream;
        let Some(host) = stream.pending_host.take().filter(|_| !self.over) else {
            return false;
        };
        stream.host = Some(Rc::clone(&host));
        let sent = forward::send_on(stream, &mut worker.core, up, &host, &[]);
        if !sent {
            self.lost(&mut worker.core, Ended::Reset, 502, "protocol error");
        }
        sent
    }

    pub(crate) fn on_pool_failure(
        &mut self,
        worker: &mut Worker,
        stream: StreamKey,
        host: &Rc<HostRuntime>,
        failure: PoolFailure,
    ) {
        if stream == self.stream.key && !self.over {
            self.pool_failed(&mut worker.core, host, failure);
            self.arm(&mut worker.core);
        }
    }

    /// A final head, whose headers have been received. `false`: another try follows.
    fn on_head(&mut self, core: &mut Core, status: u16) -> bool {
        let stream = &mut self.stream;
        put_answer(stream, status);
        let wanted = retry_of(&mut stream.tries).is_some_and(|retry| {
            let head = Head {
                status,
                headers: &stream.response.headers,
            };
            retries_response(retry.policy.as_deref(), &retry.requested, retry.on, &head)
        });
        if stream.tries.is_some() && decide(stream, core, wanted, None) {
            if let Some(cluster) = &stream.cluster {
                cluster
                    .stats
                    .code(tidegate_stats::defs::cluster::RETRY_UPSTREAM_RQ, status);
            }
            self.end_try(core);
            return false;
        }
        if let Some(tries) = &mut stream.tries {
            tries.give_up(&mut core.segments);
        }
        stream.response.status = status;
        if let Some(end) = stream.times.request_end {
            let mut buffer = itoa::Buffer::new();
            let millis = buffer.format(core.now().since(end).as_millis() as u64);
            stream
                .response
                .headers
                .set_known(KnownHeader::XEnvoyUpstreamServiceTime, millis.as_bytes());
        }
        if let Some(cluster) = &stream.cluster {
            response::count_code(cluster, true, status);
        }
        if let Some(host) = &stream.host {
            host.state.count(|cells| {
                if status >= 500 {
                    &cells.rq_error
                } else {
                    &cells.rq_success
                }
            });
        }
        true
    }

    /// Payload. `false`: there is too much of it.
    fn on_payload(&mut self, payload: &[u8]) -> bool {
        if self.owner.is_none() {
            // Nobody will read it.
            return true;
        }
        if self.body.len() + payload.len() > self.max_answer {
            self.failure = Some(CallFailure::TooLarge);
            return false;
        }
        self.body.extend_from_slice(payload);
        true
    }

    fn complete(&mut self, core: &mut Core) {
        self.stream.upstream = Upstream::None;
        if let Some(cluster) = self.stream.cluster.clone() {
            self.count_answer(&cluster, core.now());
        }
        self.finish(core);
    }

    /// Bytes of an HTTP/1 response.
    pub(crate) fn on_upstream_data(
        &mut self,
        worker: &mut Worker,
        up: &mut ClientConnection,
        bytes: &[u8],
    ) -> Delivered {
        if self.over {
            return Delivered::Broken;
        }
        let delivered = match up.reading {
            Reading::Head => self.on_http1_head(worker, up, bytes),
            Reading::Body(mut body) => {
                let delivered = self.on_http1_body(worker, up, &mut body, bytes);
                up.reading = Reading::Body(body);
                delivered
            }
            Reading::Tunnel => Delivered::Broken,
        };
        self.stream.upstream_bytes_received = up.received;
        if !matches!(delivered, Delivered::More { .. }) {
            self.stream.upstream = Upstream::None;
        }
        self.arm(&mut worker.core);
        delivered
    }

    fn on_http1_head(
        &mut self,
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
            let core = &mut worker.core;
            let method = self.stream.request.method;
            let head = match parse_response(rest, method, &mut core.http.scratch, &up.limits) {
                Ok(Some(head)) => head,
                Ok(None) => return Delivered::More { consumed: at },
                Err(_) => {
                    up.count_protocol_error();
                    self.lost(core, Ended::Reset, 502, "protocol error");
                    return Delivered::Broken;
                }
            };
            up.resume = tidegate_codec::h1::HeadResume::default();
            let length = head.len as usize;
            if (100..200).contains(&head.status) {
                at += length;
                continue;
            }
            let mut body = BodyTracker::response(head.framing, TrailerPolicy::Forward, &up.limits);
            up.reusable = head.keep_alive;
            response::receive_http1(&mut self.stream, &head, rest, core);
            if !self.on_head(core, head.status) {
                let whole = body.is_finished() && self.stream.request.complete;
                return up.give_up(whole, at + length);
            }
            let rest = rest.get(length..).unwrap_or_default();
            let delivered = self.on_http1_body(worker, up, &mut body, rest);
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

    fn on_http1_body(
        &mut self,
        worker: &mut Worker,
        up: &ClientConnection,
        body: &mut BodyTracker,
        bytes: &[u8],
    ) -> Delivered {
        let mut several = std::mem::take(&mut worker.core.http.body);
        let mut trailers = std::mem::take(&mut self.stream.response.trailers);
        let result = feed_payload(body, bytes, &mut several, Some(&mut trailers));
        self.stream.response.trailers = trailers;
        let delivered = match result {
            Ok((payload, fed)) => {
                if !self.on_payload(payload) {
                    self.finish(&mut worker.core);
                    Delivered::Broken
                } else if fed.finished || body.is_finished() {
                    self.complete(&mut worker.core);
                    Delivered::Done {
                        consumed: fed.consumed,
                        reusable: up.reusable && self.stream.request.complete,
                    }
                } else {
                    Delivered::More {
                        consumed: fed.consumed,
                    }
                }
            }
            Err(_) => {
                up.count_protocol_error();
                self.lost(&mut worker.core, Ended::Reset, 502, "protocol error");
                Delivered::Broken
            }
        };
        worker.core.http.body = several;
        delivered
    }

    /// The HTTP/1 connection is gone.
    pub(crate) fn on_upstream_closed(&mut self, worker: &mut Worker, up: &ClientConnection) {
        self.stream.upstream = Upstream::None;
        match up.reading {
            Reading::Body(BodyTracker::UntilClose) => self.complete(&mut worker.core),
            Reading::Body(_) => {
                up.count_protocol_error();
                self.lost(&mut worker.core, Ended::Reset, 502, "protocol error");
            }
            _ => self.lost(
                &mut worker.core,
                Ended::Reset,
                503,
                "connection termination",
            ),
        }
        self.arm(&mut worker.core);
    }

    /// A head by HTTP/2, which is in the worker's scratch.
    pub(crate) fn on_upstream_head(
        &mut self,
        worker: &mut Worker,
        up: &mut ClientConnection,
        status: u16,
        end: bool,
    ) {
        if status < 200 || self.over {
            return;
        }
        let core = &mut worker.core;
        let scratch = &core.http.fields;
        let headers = &mut self.stream.response.headers;
        headers.receive_fields(scratch, Span::EMPTY);
        if self.on_head(core, status) {
            if end {
                self.complete(core);
            }
        } else if let Upstream::Active(_, token) = std::mem::take(&mut self.stream.upstream)
            && !end
        {
            up.cancel(core, token, self.stream.key, 0);
        }
        self.arm(core);
    }

    pub(crate) fn on_upstream_body(
        &mut self,
        worker: &mut Worker,
        up: &mut ClientConnection,
        token: Token,
        bytes: &[u8],
        end: bool,
    ) {
        let core = &mut worker.core;
        up.release(core, token, self.stream.key, bytes.len());
        if self.over {
            return;
        }
        if !self.on_payload(bytes) {
            self.finish(core);
            if let Upstream::Active(_, token) = std::mem::take(&mut self.stream.upstream)
                && !end
            {
                up.cancel(core, token, self.stream.key, 0);
            }
        } else if end {
            self.complete(core);
        }
    }

    pub(crate) fn on_upstream_trailers(&mut self, worker: &mut Worker) {
        if self.over {
            return;
        }
        let scratch = &worker.core.http.fields;
        let trailers = &mut self.stream.response.trailers;
        trailers.receive_fields(scratch, Span::EMPTY);
        self.complete(&mut worker.core);
    }

    pub(crate) fn on_upstream_writable(
        &mut self,
        worker: &mut Worker,
        up: &mut ClientConnection,
        token: Token,
    ) {
        forward::send_pending_request(&mut self.stream, &mut worker.core, up, token);
    }

    pub(crate) fn on_upstream_lost(&mut self, worker: &mut Worker, lost: Lost) {
        let (ended, status, reason) = match lost {
            Lost::Reset => (Ended::Reset, 503, "remote reset"),
            Lost::Refused | Lost::GoneAway => (Ended::Refused, 503, "remote refused stream reset"),
            Lost::ConnectError => (Ended::Reset, 503, "remote error with CONNECT request"),
            Lost::ConnectionTermination => (Ended::Reset, 503, "connection termination"),
            Lost::ProtocolError => (Ended::Reset, 502, "protocol error"),
        };
        self.lost(&mut worker.core, ended, status, reason);
        self.arm(&mut worker.core);
    }
}
