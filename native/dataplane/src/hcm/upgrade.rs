//! After 101: both directions are passed on as they come, until both ends have closed.

use std::borrow::Cow;
use std::rc::Rc;

use tidegate_codec::h1::{KnownHeader, ResponseFraming, ResponseHead};
use tidegate_snapshot::ResponseFlags;

use super::runtime::HcmRuntime;
use super::stream::{Stream, StreamRoute, Upstream};
use super::upstream::put_answer;
use super::upstream_http1::Delivered;
use super::{Phase, ServerConnection, forward, response};
use crate::conn::Conn;
use crate::pool::{ClientConnection, Reading};
use crate::worker::Worker;

/// Whether route and connection manager let this request leave HTTP. Routes that answer themselves do not care.
pub(super) fn is_allowed(hcm: &HcmRuntime, stream: &Stream) -> bool {
    let protocol = stream
        .request
        .headers
        .known(KnownHeader::Upgrade)
        .unwrap_or_default();
    let of_route = stream
        .route
        .as_ref()
        .and_then(StreamRoute::forward)
        .map_or(&[][..], |forward| forward.config.upgrade_configs.as_slice());
    hcm.allows_upgrade(protocol, of_route)
}

impl ServerConnection {
    /// The upstream has switched protocols.
    pub(super) fn on_switch(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        up: &mut ClientConnection,
        head: &ResponseHead,
        bytes: &[u8],
        before: usize,
    ) -> Delivered {
        up.reading = Reading::Tunnel;
        up.reusable = false;
        let value = |known| {
            worker
                .core
                .http
                .scratch
                .value(known, bytes)
                .unwrap_or_default()
                .to_vec()
        };
        let (protocol, connection) = (value(KnownHeader::Upgrade), value(KnownHeader::Connection));
        response::receive_http1(stream, head, bytes, &worker.core);
        self.switch(stream, worker, head.status, &protocol, &connection);
        let rest = bytes.get(head.len as usize..).unwrap_or_default();
        self.write_response(stream, worker, rest, true, false);
        stream.response.bytes += rest.len() as u64;
        // Data that the client sent ahead of the answer waits in the socket.
        worker.core.nudge(self.key, super::NUDGE_READ);
        Delivered::More {
            consumed: before + head.len as usize + rest.len(),
        }
    }

    /// Prepares the head that tells the client of the switch; its headers have been received.
    pub(super) fn switch(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        status: u16,
        protocol: &[u8],
        connection: &[u8],
    ) {
        self.give_up_retries(stream, &mut worker.core);
        let hcm = Rc::clone(&self.hcm);
        put_answer(stream, status);
        response::receive(stream, &hcm, status, &worker.core);
        let headers = &mut stream.response.headers;
        headers.remove_known(KnownHeader::XEnvoyUpstreamServiceTime);
        if !self.is_http2() {
            if !protocol.is_empty() {
                headers.add_known(KnownHeader::Upgrade, protocol);
            }
            let connection = if connection.is_empty() {
                b"upgrade"
            } else {
                connection
            };
            headers.add_known(KnownHeader::Connection, connection);
        }
        if hcm.dynamic_stats {
            response::count_answer(stream, status);
        }
        stream.response.tunnel = true;
        self.finish_response_head(stream, worker, ResponseFraming::None, false);
        stream.deadlines.response = None;
    }

    /// Bytes from the client: on their way at once, or kept while the upstream has not answered the upgrade.
    pub(super) fn on_tunnel_input(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        bytes: &[u8],
    ) -> usize {
        stream.request.bytes += bytes.len() as u64;
        if stream.tries.is_some() && !self.keep_body(stream, worker, bytes) {
            return bytes.len();
        }
        match stream.upstream {
            Upstream::Active(key, token) => {
                if let Some(Conn::Upstream(mut up)) = worker.conns.take(key) {
                    forward::send_body(stream, &mut worker.core, &mut up, token, bytes);
                    worker.conns.put(key, Conn::Upstream(up));
                }
            }
            _ => stream
                .request
                .pending
                .push(&mut worker.core.segments, bytes),
        }
        bytes.len()
    }

    /// Bytes from the upstream.
    pub(super) fn on_tunnel_output(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        bytes: &[u8],
    ) -> Delivered {
        stream.response.bytes += bytes.len() as u64;
        self.write_response(stream, worker, bytes, false, false);
        Delivered::More {
            consumed: bytes.len(),
        }
    }

    /// The client sends no more: the upstream is told, and may go on.
    pub(super) fn on_tunnel_eof(&mut self, worker: &mut Worker) {
        let Some(mut stream) = self.streams.take(0) else {
            return;
        };
        stream.request.complete = true;
        // Envoy, which knows no half-closed HTTP connections, ends here; the line in the log is the same.
        stream
            .flags
            .insert(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
        stream.details = Cow::Borrowed("downstream_remote_disconnect");
        stream.times.request_end = Some(worker.core.now());
        self.end_tunnel_request(&stream, worker);
        self.streams.put(stream);
    }

    /// Passes the end of what the client sends on.
    pub(super) fn end_tunnel_request(&self, stream: &Stream, worker: &mut Worker) {
        if let Upstream::Active(key, token) = stream.upstream
            && let Some(Conn::Upstream(up)) = worker.conns.get_mut(key)
        {
            up.end_request(&mut worker.core, token);
        }
    }

    /// The upstream has closed: what it sent is flushed, then the client's connection ends.
    pub(super) fn on_tunnel_closed(&mut self, stream: &mut Stream, worker: &mut Worker) {
        if !stream.request.complete {
            stream
                .flags
                .insert(ResponseFlags::UPSTREAM_CONNECTION_TERMINATION);
            stream.details =
                Cow::Borrowed("upstream_reset_after_response_started{connection_termination}");
        }
        if self.is_http2() {
            self.write_response(stream, worker, &[], false, true);
            stream.response.ended = true;
            stream.response.complete = stream.response.pending.is_empty();
            return;
        }
        stream.response.complete = true;
        stream.times.downstream_tx_end = Some(worker.core.now());
        self.phase = Phase::Flushing {
            linger: !stream.request.complete,
        };
        if self.out.is_empty() {
            self.downstream.transport.shutdown_write(&mut worker.core);
        }
    }
}
