//! The response's head on its way out: what is added, taken away and how the body is framed for the client.

use std::rc::Rc;

use tidegate_codec::h1::{
    KnownHeader, Method, ResponseFraming, ResponseHead, Version, encode, is_hop_by_hop,
};
use tidegate_model::hcm::ServerHeaderTransformation;
use tidegate_snapshot::HeaderScratch;
use tidegate_stats::defs::cluster as cluster_stat;
use tidegate_stats::defs::http as stat;

use super::ServerConnection;
use super::log::ResponseSide;
use super::runtime::HcmRuntime;
use super::stream::{BodyMode, Stream, StreamRoute};
use crate::cluster::ClusterRuntime;
use crate::drain::drain_close;
use crate::worker::{Core, Worker};

/// Takes a parsed head over into the stream's response, without what concerns the upstream connection only.
pub(super) fn receive(
    stream: &mut Stream,
    hcm: &HcmRuntime,
    head: &ResponseHead,
    bytes: &[u8],
    core: &Core,
) {
    let response = &mut stream.response;
    response.status = head.status;
    response.headers.receive(
        bytes.get(..head.len as usize).unwrap_or(bytes),
        &core.http.scratch,
    );
    response
        .headers
        .retain(|line, _| !line.hop_by_hop && !is_hop_by_hop(line.known));
    if stream.drop_length {
        response.headers.remove_known(KnownHeader::ContentLength);
    }
    if !hcm.suppress_envoy_headers
        && let Some(end) = stream.times.request_end
    {
        let mut buffer = itoa::Buffer::new();
        let millis = buffer.format(core.now().since(end).as_millis() as u64);
        response
            .headers
            .set_known(KnownHeader::XEnvoyUpstreamServiceTime, millis.as_bytes());
    }
    if let Some(route) = &stream.route
        && route.virtual_host.config.include_attempt_count_in_response
    {
        response
            .headers
            .set_known(KnownHeader::XEnvoyAttemptCount, b"1");
    }
}

/// `upstream_rq_*` of a cluster by status.
pub(super) fn count_code(cluster: &ClusterRuntime, internal: bool, status: u16) {
    let stats = &cluster.stats;
    stats.inc(cluster_stat::UPSTREAM_RQ_COMPLETED);
    stats.inc(if internal {
        cluster_stat::INTERNAL_UPSTREAM_RQ_COMPLETED
    } else {
        cluster_stat::EXTERNAL_UPSTREAM_RQ_COMPLETED
    });
    stats.code(cluster_stat::UPSTREAM_RQ, status);
    stats.code(
        if internal {
            cluster_stat::INTERNAL_UPSTREAM_RQ
        } else {
            cluster_stat::EXTERNAL_UPSTREAM_RQ
        },
        status,
    );
}

impl ServerConnection {
    /// Applies the response header changes of the route's levels, once.
    pub(super) fn mutate_response(&mut self, stream: &mut Stream, core: &mut Core) {
        if std::mem::replace(&mut stream.response_mutated, true) {
            return;
        }
        let Some(route) = stream
            .route
            .as_ref()
            .filter(|route| route.header_levels().has_response_changes())
        else {
            return;
        };
        let route = StreamRoute::clone(route);
        let mut scratch = HeaderScratch::default();
        let mut side = ResponseSide::new(self, stream, &core.clock);
        route
            .header_levels()
            .apply_response(&mut side, &mut scratch);
    }

    /// Finishes an upstream's response head; it is left in the worker's head buffer.
    pub(super) fn finish_response_head(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        framing: ResponseFraming,
        ends: bool,
    ) {
        stream.details = std::borrow::Cow::Borrowed("via_upstream");
        self.mutate_response(stream, &mut worker.core);
        self.encode_head(stream, worker, framing, ends);
    }

    /// What every response goes through, the upstream's and our own: encoder filters, then the connection manager's headers.
    pub(super) fn encode_head(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        framing: ResponseFraming,
        ends: bool,
    ) {
        let hcm = Rc::clone(&self.hcm);
        let core = &mut worker.core;
        if stream.cors {
            self.annotate_cors(stream);
        }
        if !stream.grpc.is_empty() {
            self.grpc_response_head(stream, core, ends);
        }
        let headers = &mut stream.response.headers;
        if let Some(via) = &hcm.config.via {
            headers.append(b"via", b", ", via.as_bytes());
        }
        if !headers.has(KnownHeader::Date) {
            let date = core.http.date(&core.clock);
            headers.add_known(KnownHeader::Date, &date);
        }
        if let Some(server) = &hcm.server
            && (hcm.config.server_header_transformation == ServerHeaderTransformation::Overwrite
                || !headers.has(KnownHeader::Server))
        {
            headers.set_known(KnownHeader::Server, server.as_bytes());
        }
        if hcm.config.always_set_request_id_in_response
            && let Some(id) = stream.request.headers.known(KnownHeader::XRequestId)
        {
            headers.set_known(KnownHeader::XRequestId, id);
        }
        self.decide_close(stream, core);
        let mut out = std::mem::take(&mut worker.core.http.head);
        out.clear();
        self.write_head(stream, framing, ends, &mut out);
        stream.response.head_bytes = out.len() as u64;
        worker.core.http.head = out;
    }

    /// Whether this response is the connection's last.
    fn decide_close(&mut self, stream: &Stream, core: &mut Core) {
        if !self.draining
            && (self.leaving
                || core.shared.health_check_failed()
                || drain_close(
                    self.downstream.listener.draining_since(),
                    core.clock.now(),
                    core.shared.config.drain_time,
                    core.shared.config.drain_gradually,
                    &mut core.rng,
                ))
        {
            self.hcm.stats.inc(stat::DOWNSTREAM_CX_DRAIN_CLOSE);
            self.draining = true;
        }
        if stream.request.close {
            self.draining = true;
        }
        if !stream.request.complete && !stream.response.tunnel {
            self.hcm
                .stats
                .inc(stat::DOWNSTREAM_RQ_RESPONSE_BEFORE_RQ_COMPLETE);
            self.draining = true;
        }
    }

    /// Status line, headers and framing, as Envoy's HTTP/1 encoder decides about them.
    fn write_head(
        &mut self,
        stream: &mut Stream,
        framing: ResponseFraming,
        ends: bool,
        out: &mut Vec<u8>,
    ) {
        let response = &mut stream.response;
        let request = &stream.request;
        let old_client = request.version == Version::Http10 && self.hcm.limits.accept_http_10;
        let version = if old_client {
            Version::Http10
        } else {
            Version::Http11
        };
        let has_length = response.headers.has(KnownHeader::ContentLength);
        let bodiless_status = matches!(response.status, 100..=199 | 204);
        let no_length = bodiless_status || response.status == 304;
        if bodiless_status && has_length {
            response.headers.remove_known(KnownHeader::ContentLength);
        }
        encode::status_line(out, version, response.status);
        let mut framing_line: &[u8] = b"";
        response.mode = match framing {
            ResponseFraming::Chunked if has_length || old_client => BodyMode::Payload,
            ResponseFraming::Length(_) | ResponseFraming::UntilClose if !has_length && !ends => {
                BodyMode::Chunk
            }
            _ => BodyMode::Raw,
        };
        if old_client && !has_length {
            self.draining = true;
        }
        if has_length || response.tunnel || no_length {
        } else if ends && request.method != Method::Head {
            framing_line = b"content-length: 0\r\n";
        } else if old_client {
            response.mode = BodyMode::Payload;
        } else {
            framing_line = b"transfer-encoding: chunked\r\n";
        }
        response.headers.write(out);
        if !response.tunnel {
            if self.draining {
                out.extend_from_slice(b"connection: close\r\n");
            } else if old_client {
                out.extend_from_slice(b"connection: keep-alive\r\n");
            }
        }
        out.extend_from_slice(framing_line);
        out.extend_from_slice(encode::CRLF);
    }
}
