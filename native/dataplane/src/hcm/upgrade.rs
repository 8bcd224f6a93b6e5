//! After 101: both directions are passed on as they come, until both ends have closed.

use std::borrow::Cow;
use std::rc::Rc;

use tidegate_codec::h1::{KnownHeader, ResponseFraming, ResponseHead};
use tidegate_rt::ShutdownSide;
use tidegate_snapshot::ResponseFlags;

use super::runtime::HcmRuntime;
use super::stream::{Stream, StreamRoute, Upstream};
use super::upstream::Delivered;
use super::{Phase, ServerConnection, response};
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
        let hcm = Rc::clone(&self.hcm);
        up.reading = Reading::Tunnel;
        up.reusable = false;
        let value = |known| {
            worker
                .core
                .http
                .scratch
                .value(known, bytes)
                .map(<[u8]>::to_vec)
        };
        let (protocol, connection) = (value(KnownHeader::Upgrade), value(KnownHeader::Connection));
        response::receive(stream, &hcm, head, bytes, &worker.core);
        stream
            .response
            .headers
            .remove_known(KnownHeader::XEnvoyUpstreamServiceTime);
        if let Some(protocol) = protocol {
            stream
                .response
                .headers
                .add_known(KnownHeader::Upgrade, &protocol);
        }
        stream.response.headers.add_known(
            KnownHeader::Connection,
            connection.as_deref().unwrap_or(b"upgrade"),
        );
        if let Some(cluster) = &stream.cluster
            && hcm.dynamic_stats
        {
            response::count_code(cluster, stream.request.internal, head.status);
        }
        stream.response.tunnel = true;
        self.finish_response_head(stream, worker, ResponseFraming::None, false);
        stream.deadlines.response = None;
        let rest = bytes.get(head.len as usize..).unwrap_or_default();
        let out = std::mem::take(&mut worker.core.http.head);
        self.write(&mut worker.core, &[&out, rest]);
        worker.core.http.head = out;
        stream.response.started = true;
        stream.response.bytes += rest.len() as u64;
        stream.times.downstream_tx_begin = Some(worker.core.now());
        // Data that the client sent ahead of the answer waits in the socket.
        worker.core.nudge(self.key, super::NUDGE_READ);
        Delivered::More {
            consumed: before + head.len as usize + rest.len(),
        }
    }

    /// Bytes from the client: on their way at once, or kept while the upstream has not answered the upgrade.
    pub(super) fn on_tunnel_input(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        bytes: &[u8],
    ) -> usize {
        stream.request.bytes += bytes.len() as u64;
        match stream.upstream {
            Upstream::Active(key) => {
                if let Some(Conn::Upstream(mut up)) = worker.conns.take(key) {
                    up.write(&mut worker.core, &[bytes]);
                    stream.request_held = up.is_backed_up();
                    worker.conns.put(key, Conn::Upstream(up));
                }
                stream.upstream_bytes_sent += bytes.len() as u64;
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
        self.write(&mut worker.core, &[bytes]);
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
        if let Upstream::Active(key) = stream.upstream
            && let Some(Conn::Upstream(up)) = worker.conns.get_mut(key)
        {
            up.shutdown_write();
        }
        self.streams.put(stream);
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
        stream.response.complete = true;
        stream.times.downstream_tx_end = Some(worker.core.now());
        self.phase = Phase::Flushing {
            linger: !stream.request.complete,
        };
        if self.out.is_empty() {
            let _ = self.downstream.socket.shutdown(ShutdownSide::Write);
        }
    }
}
