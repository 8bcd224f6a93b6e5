//! Requests on an upstream HTTP/2 connection, as the connection manager sends them.

use tidegate_codec::h2::{ErrorCode, OutField, RequestLine};
use tidegate_stats::defs::cluster as stat;

use super::super::connection::{ClientConnection, NUDGE_OFFER};
use super::Request;
use crate::hcm::{Requester, StreamKey};
use crate::http2::Pulse;
use crate::worker::{Core, Worker};

impl ClientConnection {
    /// Sends a request's head; the token that it is known by, or nothing if the connection takes no more.
    pub(crate) fn start_request<'a>(
        &mut self,
        core: &mut Core,
        stream: StreamKey,
        line: &RequestLine<'_>,
        fields: impl IntoIterator<Item = OutField<'a>>,
        end: bool,
    ) -> Option<u32> {
        self.lend_output(core);
        let now = core.now_millis();
        let moment = core.now();
        let http2 = self.http2.as_mut()?;
        if let Some(keepalive) = &mut http2.keepalive
            && keepalive.before_request(moment, http2.heard) == Pulse::Ping
        {
            http2.wire.codec.ping(moment.nanos().to_be_bytes());
        }
        let token = match http2.free.last() {
            Some(token) => *token,
            None => http2.requests.len() as u32,
        };
        let wire = http2
            .wire
            .codec
            .start_request(token, line, fields, end, now)
            .ok()?;
        let request = Some(Request { stream, wire });
        match http2.free.pop() {
            Some(token) => {
                if let Some(place) = http2.requests.get_mut(token as usize) {
                    *place = request;
                }
            }
            None => http2.requests.push(request),
        }
        self.requests += 1;
        self.deadline = None;
        self.flush_later(core);
        Some(token)
    }

    /// Whether an upgrade has to wait until the upstream's SETTINGS have come; it is sent then.
    pub(crate) fn hold_upgrade(&mut self, stream: StreamKey) -> bool {
        match &mut self.http2 {
            Some(http2) if !http2.wire.codec.is_established() => {
                http2.upgrades.push(stream);
                true
            }
            _ => false,
        }
    }

    /// The upgrades that wait, no longer doing so.
    pub(in crate::pool) fn take_upgrades(&mut self) -> Vec<StreamKey> {
        let upgrades = self.http2.as_mut().map(|http2| &mut http2.upgrades);
        upgrades.map(std::mem::take).unwrap_or_default()
    }

    pub(in crate::pool) fn send_upgrades(&mut self, worker: &mut Worker) {
        for stream in self.take_upgrades() {
            if let Some(mut requester) = Requester::take(worker, stream.connection) {
                let _sent = requester.on_connection_ready(worker, self, stream);
                requester.put_back(worker);
            }
        }
    }

    /// Bytes of output that wait, to tell what a head came to.
    pub(crate) fn output_len(&self) -> usize {
        self.http2
            .as_ref()
            .map_or(0, |http2| http2.wire.codec.output().len())
    }

    /// Sends as much payload as the windows let pass; `end` ends the request if it is all.
    pub(crate) fn send_data(
        &mut self,
        core: &mut Core,
        token: u32,
        bytes: &[u8],
        end: bool,
    ) -> usize {
        let Some(http2) = &mut self.http2 else {
            return bytes.len();
        };
        let Some(request) = http2.request(token) else {
            return bytes.len();
        };
        let sent = http2.wire.codec.send_data(request.wire, bytes, end);
        self.flush_later(core);
        sent.unwrap_or(bytes.len())
    }

    pub(crate) fn send_trailers<'a>(
        &mut self,
        core: &mut Core,
        token: u32,
        fields: impl IntoIterator<Item = OutField<'a>>,
    ) {
        if let Some(http2) = &mut self.http2
            && let Some(request) = http2.request(token)
        {
            let _gone = http2.wire.codec.send_trailers(request.wire, fields);
            self.flush_later(core);
        }
    }

    /// The downstream side has taken so much payload.
    pub(crate) fn release(&mut self, core: &mut Core, token: u32, stream: StreamKey, count: usize) {
        if let Some(http2) = &mut self.http2
            && let Some(request) = http2.request_of(token, stream)
            && count > 0
        {
            http2.wire.codec.release(request.wire, count);
            if !http2.wire.codec.output().is_empty() {
                self.flush_later(core);
            }
        }
    }

    /// A request is over before its response is.
    pub(crate) fn cancel(
        &mut self,
        core: &mut Core,
        token: u32,
        stream: StreamKey,
        unreleased: usize,
    ) {
        let Some(http2) = &mut self.http2 else {
            return;
        };
        let Some(request) = http2.request_of(token, stream) else {
            return;
        };
        http2.wire.codec.release(request.wire, unreleased);
        http2
            .wire
            .codec
            .reset(request.wire, ErrorCode::INTERNAL_ERROR);
        http2.forget(token);
        self.guard.cluster.stats.inc(stat::UPSTREAM_RQ_TX_RESET);
        self.flush_later(core);
        // It may have become idle, or free for a request that waits.
        core.nudge(self.key, NUDGE_OFFER);
    }
}
