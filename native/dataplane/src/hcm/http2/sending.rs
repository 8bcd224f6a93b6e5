//! What an HTTP/2 connection says: responses, windows given back, resets, GOAWAY, and the write at the end of the pass.

use std::io::IoSlice;

use tidegate_codec::h1::Method;
use tidegate_codec::h2::{ErrorCode, Input, NO_TOKEN, StreamRef};
use tidegate_snapshot::ResponseFlags;
use tidegate_stats::defs::{http as stat, http2};

use super::super::stream::{Stream, Upstream};
use super::super::{Phase, ServerConnection};
use crate::pool;
use crate::worker::{Core, Worker};

impl ServerConnection {
    /// Lets the client send as much as the upstream side has taken.
    pub(in crate::hcm) fn release_request(&mut self, stream: &mut Stream, core: &mut Core) {
        if stream.request_held {
            return;
        }
        let kept = if stream.demands_body() {
            0
        } else {
            stream.request.pending.len().min(stream.request.unreleased)
        };
        let free = stream.request.unreleased - kept;
        if let Some(wire) = stream.wire
            && free > 0
        {
            stream.request.unreleased = kept;
            self.release(wire, free);
            if !self.is_flushed() {
                self.flush_later(core);
            }
        }
    }

    /// All that a stream has received counts for its connection until it is given back.
    pub(in crate::hcm) fn give_back(&mut self, stream: &mut Stream) {
        let count = std::mem::take(&mut stream.request.unreleased);
        if let Some(wire) = stream.wire
            && count > 0
        {
            self.release(wire, count);
        }
    }

    pub(in crate::hcm) fn release(&mut self, wire: StreamRef, count: usize) {
        if let Some(http2) = &mut self.http2 {
            http2.wire.codec.release(wire, count);
        }
    }

    pub(in crate::hcm) fn write_interim_http2(
        &mut self,
        core: &mut Core,
        wire: StreamRef,
        status: u16,
    ) {
        if let Some(http2) = &mut self.http2 {
            let _gone = http2.wire.codec.send_response(wire, status, [], false);
            self.flush_later(core);
        }
    }

    /// Sends the prepared head, if it has not left, and payload; what the windows keep back is kept with the stream.
    pub(in crate::hcm) fn write_http2(
        &mut self,
        stream: &mut Stream,
        core: &mut Core,
        body: &[u8],
        with_head: bool,
        last: bool,
    ) {
        let Some((http2, wire)) = self.http2.as_mut().zip(stream.wire) else {
            return;
        };
        let before = http2.wire.codec.output().len();
        let mut ended = false;
        let response = &mut stream.response;
        let last = last && response.trailers.is_empty();
        if with_head {
            ended = last && body.is_empty();
            response.headers.lower_names();
            // 101 has the form of the answer to an extended CONNECT.
            let status = if response.tunnel {
                200
            } else {
                response.status
            };
            let fields = response.headers.fields();
            let _gone = http2.wire.codec.send_response(wire, status, fields, ended);
            response.head_bytes = (http2.wire.codec.output().len() - before) as u64;
        }
        if !ended && (last || !body.is_empty()) {
            if response.pending.is_empty() {
                let sent = http2
                    .wire
                    .codec
                    .send_data(wire, body, last)
                    .unwrap_or(body.len());
                let rest = body.get(sent..).unwrap_or_default();
                response.pending.push(&mut core.segments, rest);
            } else {
                response.pending.push(&mut core.segments, body);
            }
        }
        self.flush_later(core);
    }

    /// The response has ended, and nothing of it waits: trailers may follow.
    pub(in crate::hcm) fn write_trailers_http2(&mut self, stream: &mut Stream, core: &mut Core) {
        let Some((http2, wire)) = self.http2.as_mut().zip(stream.wire) else {
            return;
        };
        stream.response.trailers.lower_names();
        let _gone = http2
            .wire
            .codec
            .send_trailers(wire, stream.response.trailers.fields());
        self.flush_later(core);
    }

    /// Sends what waited for the client's window; the end follows if the upstream has come to it.
    pub(in crate::hcm) fn send_pending(&mut self, stream: &mut Stream, core: &mut Core) {
        let Some((http2, wire)) = self.http2.as_mut().zip(stream.wire) else {
            return;
        };
        let response = &mut stream.response;
        let end = response.ended && response.trailers.is_empty();
        while !response.pending.is_empty() {
            let mut slices = [IoSlice::new(&[]); 1];
            response.pending.slices(&mut slices);
            let [first] = &slices;
            let last = end && first.len() == response.pending.len();
            let sent = http2
                .wire
                .codec
                .send_data(wire, first, last)
                .unwrap_or(first.len());
            let whole = sent == first.len();
            response.pending.consume(&mut core.segments, sent);
            if !whole {
                break;
            }
        }
        if response.pending.is_empty() && response.ended {
            if !response.trailers.is_empty() {
                self.write_trailers_http2(stream, core);
            }
            stream.times.downstream_tx_end = Some(core.now());
            stream.response.complete = true;
        }
        self.flush_later(core);
    }

    /// The stream is over for us: if it is not for the client, it is told.
    pub(in crate::hcm) fn end_http2_stream(&mut self, stream: &mut Stream, core: &mut Core) {
        self.give_back(stream);
        if !self.is_flushed() {
            self.flush_later(core);
        }
        stream.response.pending.clear(&mut core.segments);
        let Some((http2, wire)) = self.http2.as_mut().zip(stream.wire) else {
            return;
        };
        if http2.wire.codec.is_live(wire) {
            let is_connect = stream.request.upgrade || stream.request.method == Method::Connect;
            let failed = ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
            let code = if stream.cut {
                ErrorCode::INTERNAL_ERROR
            } else if is_connect && stream.flags.contains(failed) {
                ErrorCode::CONNECT_ERROR
            } else if stream
                .flags
                .contains(ResponseFlags::UPSTREAM_PROTOCOL_ERROR)
            {
                ErrorCode::PROTOCOL_ERROR
            } else {
                ErrorCode::NO_ERROR
            };
            if stream.cut {
                http2.wire.codec.reset(wire, code);
            } else {
                // The rest of the request may be in what has been read already.
                http2.wire.codec.set_token(wire, NO_TOKEN);
                http2.unfinished.push((wire, code));
            }
            self.flush_later(core);
        }
    }

    /// GOAWAY, first step: no more streams, please.
    pub(in crate::hcm) fn announce_end(&mut self, core: &mut Core) {
        if let Some(http2) = &mut self.http2 {
            http2.wire.codec.shutdown();
            self.flush_later(core);
        }
    }

    /// GOAWAY, second step: what comes later is not served.
    pub(in crate::hcm) fn say_goodbye(&mut self, core: &mut Core) {
        if let Some(http2) = &mut self.http2 {
            http2.wire.codec.goaway(ErrorCode::NO_ERROR);
            http2.goodbye = true;
            self.hcm.http2_stats.inc(http2::GOAWAY_SENT);
            self.flush_later(core);
        }
    }

    /// The end of the pass, or the socket takes more: writes the output.
    pub(in crate::hcm) fn flush_http2(&mut self, worker: &mut Worker) {
        let Some(http2) = &mut self.http2 else {
            return;
        };
        for (wire, code) in http2.unfinished.drain(..) {
            http2.wire.codec.reset(wire, code);
        }
        let mut wrote = 0;
        if !self.broken {
            let written = http2.wire.write(&self.downstream.socket);
            wrote = written.count;
            self.broken = written.error.is_some();
        }
        http2.wire.count(&self.hcm.http2_stats);
        http2.wire.reclaim_output(&mut worker.core);
        if wrote > 0 {
            self.hcm
                .stats
                .add(stat::DOWNSTREAM_CX_TX_BYTES_TOTAL, wrote as u64);
            self.bytes.1 += wrote as u64;
        }
        if wrote > 0 && self.phase == Phase::Open {
            self.pump_http2(worker, &mut Input::empty());
        }
    }

    /// The upstream may go on, for the client has taken what there was.
    pub(in crate::hcm) fn resume_upstream(&self, stream: &mut Stream, worker: &mut Worker) {
        if let Upstream::Active(key, token) = stream.upstream {
            let count = std::mem::take(&mut stream.upstream_unreleased);
            pool::resume(worker, key, token, stream.key, count);
        }
    }
}
