//! Answers that no upstream gave: their status, body and headers, byte for byte as Envoy writes them.

use std::borrow::Cow;
use std::rc::Rc;

use tidegate_codec::h1::{
    KnownHeader, Method, ParseError, Refusal, RequestHead, ResponseFraming, reason_phrase,
};
use tidegate_snapshot::grpc_status::of_http;
use tidegate_snapshot::headers::HeaderOps;
use tidegate_snapshot::{HeaderScratch, ResponseFlags};
use tidegate_stats::defs::http as stat;

use super::headers::HeaderList;
use super::log::ResponseSide;
use super::stream::{Stream, StreamRoute};
use super::{Phase, ServerConnection, response};
use crate::pool::PoolFailure;
use crate::worker::Worker;

/// What to answer.
pub(super) struct Reply<'a> {
    pub(super) status: u16,
    pub(super) body: &'a [u8],
    /// `%RESPONSE_CODE_DETAILS%`.
    pub(super) details: Cow<'static, str>,
    pub(super) location: Option<Vec<u8>>,
    /// Further headers, instead of any of that name.
    pub(super) headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// They come before what the route changes.
    pub(super) headers_first: bool,
    pub(super) grpc_status: Option<i64>,
    /// `x-envoy-overloaded: true`
    pub(super) overloaded: bool,
    /// Changes to the headers on the filter's part.
    pub(super) changes: Option<&'a HeaderOps>,
    /// Says how often the request was tried, if the virtual host wants that.
    pub(super) attempts: bool,
}

impl<'a> Reply<'a> {
    pub(super) const fn new(status: u16, body: &'a [u8], details: &'static str) -> Self {
        Self {
            status,
            body,
            details: Cow::Borrowed(details),
            location: None,
            headers: Vec::new(),
            headers_first: false,
            grpc_status: None,
            overloaded: false,
            changes: None,
            attempts: false,
        }
    }
}

impl ServerConnection {
    /// As [`Self::reply`] for what went wrong with a cluster's host or connection, which the cluster counts.
    pub(super) fn reply_upstream(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        reply: Reply<'_>,
    ) {
        if stream.cluster.is_some() && self.hcm.dynamic_stats && !stream.response.started {
            response::count_answer(stream, reply.status);
            if let Some(host) = &stream.host {
                host.state.count(|cells| &cells.rq_error);
            }
        }
        let reply = Reply {
            attempts: true,
            ..reply
        };
        self.reply(stream, worker, reply);
    }

    /// As [`Self::reply`], on behalf of a filter before the router: routes that answer themselves change no headers of it.
    pub(super) fn reply_by_filter(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        reply: Reply<'_>,
    ) {
        self.choose_cluster(stream, &mut worker.core);
        let forwards = |route: &StreamRoute| route.forward().is_some();
        stream.response_mutated |= !stream.route.as_ref().is_some_and(forwards);
        self.reply(stream, worker, reply);
    }

    /// Answers the request, or cuts the response off if it has begun.
    pub(super) fn reply(&mut self, stream: &mut Stream, worker: &mut Worker, reply: Reply<'_>) {
        if stream.response.started {
            let details = reply.details;
            self.cut_with(stream, worker, details);
            return;
        }
        self.detach_upstream(stream, worker);
        stream.details = reply.details;
        stream.response.headers.clear();
        if let Some(location) = &reply.location {
            stream
                .response
                .headers
                .add_known(KnownHeader::Location, location);
        }
        if let Some(changes) = reply.changes {
            let mut side = ResponseSide::new(self, stream, &worker.core.clock);
            changes.apply(&mut side, &mut HeaderScratch::default());
        }
        if reply.attempts {
            response::tell_attempts(stream);
            response::tell_own_cookies(stream);
        }
        if reply.headers_first {
            set_all(&mut stream.response.headers, &reply.headers);
        }
        self.mutate_response(stream, &mut worker.core);
        let headers = &mut stream.response.headers;
        if reply.overloaded && !self.hcm.suppress_envoy_headers {
            headers.set_known(KnownHeader::XEnvoyOverloaded, b"true");
        }
        if !reply.headers_first {
            set_all(headers, &reply.headers);
        }
        stream.response.status = reply.status;
        let mut body = reply.body;
        if body.is_empty() && !reply.headers.is_empty() {
            headers.remove_known(KnownHeader::ContentLength);
            headers.remove_known(KnownHeader::ContentType);
        }
        let mut buffer = itoa::Buffer::new();
        if stream.request.grpc {
            stream.response.status = 200;
            headers.set_known(KnownHeader::ContentType, b"application/grpc");
            let status = reply
                .grpc_status
                .unwrap_or_else(|| of_http(u64::from(reply.status)));
            headers.set_known(KnownHeader::GrpcStatus, buffer.format(status).as_bytes());
            if !body.is_empty() {
                headers.set_known(KnownHeader::GrpcMessage, &percent_encode(body));
            }
            headers.remove_known(KnownHeader::ContentLength);
            body = &[];
        } else if !body.is_empty() {
            headers.set_known(
                KnownHeader::ContentLength,
                buffer.format(body.len()).as_bytes(),
            );
            if !headers.has(KnownHeader::ContentType) {
                headers.add_known(KnownHeader::ContentType, b"text/plain");
            }
        }
        if stream.grpc.answer(stream.response.status, headers, body) {
            body = &[];
        }
        if stream.response.status == 400 {
            // There has been a messaging error: whatever follows is not to be trusted.
            // Unread, it would reset the connection and take the answer with it.
            stream.request.close = true;
            stream.response.linger = true;
        }
        self.send_reply(stream, worker, body);
    }

    /// Encodes and sends a whole response of our own.
    pub(super) fn send_reply(&mut self, stream: &mut Stream, worker: &mut Worker, body: &[u8]) {
        let body = if stream.request.method == Method::Head {
            &[][..]
        } else {
            body
        };
        let ends = body.is_empty();
        self.encode_head(
            stream,
            worker,
            ResponseFraming::Length(body.len() as u64),
            ends,
        );
        stream.response.bytes = body.len() as u64;
        self.write_response(stream, worker, body, true, true);
        stream.response.ended = true;
        if stream.response.pending.is_empty() && !stream.is_lua_holding() {
            stream.response.complete = true;
            stream.times.downstream_tx_end = Some(worker.core.now());
        }
    }

    /// The response cannot be completed: the client learns it by the connection's end.
    pub(super) fn cut(&mut self, stream: &mut Stream, worker: &mut Worker, details: &'static str) {
        self.cut_with(stream, worker, Cow::Borrowed(details));
    }

    fn cut_with(&mut self, stream: &mut Stream, worker: &mut Worker, details: Cow<'static, str>) {
        self.hcm.stats.inc(stat::DOWNSTREAM_RQ_TX_RESET);
        self.detach_upstream(stream, worker);
        stream.details = details;
        stream.response.complete = true;
        if self.is_http2() {
            self.hcm.stats.inc(stat::DOWNSTREAM_RQ_RX_RESET);
            stream.cut = true;
        } else {
            self.phase = Phase::Flushing { linger: false };
        }
    }

    /// Bytes that are no request head: a stream is made for the answer and the log line.
    pub(super) fn refuse_bytes(&mut self, worker: &mut Worker, error: ParseError) {
        let mut stream = self.open_stream(&mut worker.core);
        stream.times.start = self.head_since.take().unwrap_or(worker.core.now());
        self.refuse_protocol(&mut stream, worker, error.status(), error.details());
        self.settle(stream, worker);
    }

    /// A head that reads well but may not be.
    pub(super) fn refuse_head(
        &mut self,
        mut stream: Box<Stream>,
        worker: &mut Worker,
        refusal: Refusal,
        head: &RequestHead,
        bytes: &[u8],
    ) {
        self.receive(&mut stream, head, bytes, &worker.core);
        self.reply(
            &mut stream,
            worker,
            Reply::new(refusal.status(), b"", refusal.details()),
        );
        self.settle(stream, worker);
    }

    /// The body's framing is broken.
    pub(super) fn refuse_body(
        &mut self,
        mut stream: Box<Stream>,
        worker: &mut Worker,
        error: ParseError,
    ) {
        self.refuse_protocol(&mut stream, worker, error.status(), error.details());
        self.settle(stream, worker);
    }

    fn refuse_protocol(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        status: u16,
        details: &'static str,
    ) {
        self.hcm.stats.inc(stat::DOWNSTREAM_CX_PROTOCOL_ERROR);
        self.protocol_error = true;
        stream
            .flags
            .insert(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
        stream.request.close = true;
        stream.request.grpc = false;
        self.reply(
            stream,
            worker,
            Reply::new(status, reason_phrase(status).as_bytes(), details),
        );
    }

    /// No connection could be had.
    pub(super) fn reply_pool_failure(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        failure: PoolFailure,
    ) {
        let mut tls = None;
        let (reason, code, detail) = match failure {
            PoolFailure::Overflow | PoolFailure::RequestOverflow => {
                stream.flags.insert(ResponseFlags::UPSTREAM_OVERFLOW);
                ("overflow", "overflow", None)
            }
            PoolFailure::Bind(source, text) => {
                stream
                    .flags
                    .insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
                (
                    "local connection failure",
                    "local_connection_failure",
                    Some((Cow::Owned(format!("failed to bind to {source}")), text)),
                )
            }
            PoolFailure::Local(text) => {
                stream
                    .flags
                    .insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
                (
                    "local connection failure",
                    "local_connection_failure",
                    Some((Cow::Borrowed("immediate connect error"), text)),
                )
            }
            PoolFailure::Remote(text) => {
                stream
                    .flags
                    .insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
                (
                    "remote connection failure",
                    "remote_connection_failure",
                    Some((Cow::Borrowed("delayed connect error"), text)),
                )
            }
            PoolFailure::Timeout => {
                stream
                    .flags
                    .insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
                ("connection timeout", "connection_timeout", None)
            }
            PoolFailure::LocalTls(ref why) | PoolFailure::Tls(ref why) => {
                stream
                    .flags
                    .insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
                tls = Some(Rc::clone(why));
                if matches!(failure, PoolFailure::Tls(_)) {
                    (
                        "remote connection failure",
                        "remote_connection_failure",
                        None,
                    )
                } else {
                    ("local connection failure", "local_connection_failure", None)
                }
            }
        };
        let mut details = format!("upstream_reset_before_response_started{{{code}");
        if let Some((kind, text)) = detail {
            let why = format!("{kind}: {text}").replace(' ', "_");
            details.push('|');
            details.push_str(&why);
            stream.failure_reason = Some(Cow::Owned(why));
        }
        if let Some(why) = tls.filter(|why| !why.is_empty()) {
            details.push('|');
            details.push_str(&why.replace(' ', "_"));
            stream.failure_reason = Some(Cow::Owned(String::from(&*why)));
        }
        details.push('}');
        let body = stream.reset_text(reason);
        let reply = Reply {
            details: Cow::Owned(details),
            overloaded: matches!(
                failure,
                PoolFailure::Overflow | PoolFailure::RequestOverflow
            ),
            ..Reply::new(503, body.as_bytes(), "")
        };
        self.reply_upstream(stream, worker, reply);
    }
}

/// The headers, instead of any of those names.
fn set_all(list: &mut HeaderList, headers: &[(Vec<u8>, Vec<u8>)]) {
    for (name, _) in headers {
        list.remove(name);
    }
    for (name, value) in headers {
        list.add(name, value);
    }
}

/// As gRPC wants messages in a header.
pub(super) fn percent_encode(text: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        if (b' '..=b'~').contains(byte) && *byte != b'%' {
            out.push(*byte);
        } else {
            out.push(b'%');
            for nibble in [byte >> 4, byte & 15] {
                out.extend(HEX.get(usize::from(nibble)));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_messages_are_encoded() {
        assert_eq!(percent_encode(b"a b%\n"), b"a b%25%0A");
        assert_eq!(of_http(503), 14);
    }
}
