//! The response's head on its way out: what is added, taken away and how the body is framed for the client.

use std::rc::Rc;

use tidegate_codec::h1::{KnownHeader, ResponseFraming, ResponseHead, encode, is_hop_by_hop};
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

/// Takes a head over that came by HTTP/1, without what concerns the upstream connection only.
pub(super) fn receive_http1(stream: &mut Stream, head: &ResponseHead, bytes: &[u8], core: &Core) {
    let headers = &mut stream.response.headers;
    headers.receive(
        bytes.get(..head.len as usize).unwrap_or(bytes),
        &core.http.scratch,
    );
    // Envoy passes `te` on, whatever it may mean in a response.
    headers.retain(|line, _| {
        line.known == KnownHeader::Te || (!line.hop_by_hop && !is_hop_by_hop(line.known))
    });
}

/// What becomes of a head that has been received, whatever it came by.
pub(super) fn receive(stream: &mut Stream, hcm: &HcmRuntime, status: u16, core: &Core) {
    let response = &mut stream.response;
    response.status = status;
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
    for cookie in &stream.set_cookies {
        stream.response.headers.add(b"set-cookie", cookie);
    }
    tell_attempts(stream);
}

/// How often the request was sent, if the virtual host wants that to be told.
pub(super) fn tell_attempts(stream: &mut Stream) {
    if stream.attempts > 0
        && let Some(route) = &stream.route
        && route.virtual_host.include_attempt_count_in_response
    {
        let mut buffer = itoa::Buffer::new();
        let count = buffer.format(stream.attempts);
        let headers = &mut stream.response.headers;
        headers.set_known(KnownHeader::XEnvoyAttemptCount, count.as_bytes());
    }
}

/// Cookies that a balancer's own hash policies have made up come with any answer of the router's.
pub(super) fn tell_own_cookies(stream: &mut Stream) {
    let own = |cluster: &std::rc::Rc<ClusterRuntime>| cluster.hash_policy.is_some();
    if !stream.set_cookies.is_empty() && stream.cluster.as_ref().is_some_and(own) {
        for cookie in &stream.set_cookies {
            stream.response.headers.add(b"set-cookie", cookie);
        }
    }
}

/// Counts an answer to a request: for its cluster, and for the cluster's canaries if one gave it.
pub(super) fn count_answer(stream: &Stream, status: u16) {
    let Some(cluster) = &stream.cluster else {
        return;
    };
    count_code(cluster, stream.request.internal, status);
    if is_canary(stream) {
        cluster
            .stats
            .inc(cluster_stat::CANARY_UPSTREAM_RQ_COMPLETED);
        cluster.stats.code(cluster_stat::CANARY_UPSTREAM_RQ, status);
    }
}

/// The host says of itself that it is one, or its configuration does.
#[inline]
pub(super) fn is_canary(stream: &Stream) -> bool {
    let headers = &stream.response.headers;
    stream
        .host
        .as_ref()
        .is_some_and(|host| host.host.is_canary())
        || headers.known(KnownHeader::XEnvoyUpstreamCanary) == Some(b"true")
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
        let core = &mut worker.core;
        if stream.authz.is_some() {
            Self::authz_response_head(stream);
        }
        if stream.cors {
            self.annotate_cors(stream);
        }
        self.decorate_response(stream);
        if !stream.grpc.is_empty() {
            self.grpc_response_head(stream, core, ends);
        }
        let mut ends = ends;
        if !self.manager_of(stream).encoders.is_empty() {
            if let Some(next) = self.run_encoders(stream, worker, 0, ends) {
                return Self::lua_hold_head(stream, framing, ends, next);
            }
            ends &= !Self::lua_has_added(stream);
        }
        self.finish_encoding(stream, worker, framing, ends);
    }

    /// What follows when the filters have let the head go on.
    pub(super) fn finish_encoding(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        framing: ResponseFraming,
        ends: bool,
    ) {
        let hcm = Rc::clone(self.manager_of(stream));
        let core = &mut worker.core;
        if hcm.istio.is_some() {
            self.peer_metadata_response(stream, core);
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
        if self.is_http2() {
            // It is encoded when it is sent.
            stream.response.mode = BodyMode::Payload;
            return;
        }
        let mut out = std::mem::take(&mut worker.core.http.head);
        out.clear();
        self.write_head(stream, framing, ends, &mut out);
        stream.response.head_bytes = out.len() as u64;
        worker.core.http.head = out;
    }

    /// Sends the prepared head, if it has not left, and a piece of the body.
    pub(super) fn write_response(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        body: &[u8],
        with_head: bool,
        last: bool,
    ) {
        if stream.is_response_filtered() {
            self.write_filtered(stream, worker, body, with_head, last);
        } else {
            self.write_on(stream, worker, body, with_head, last);
        }
    }

    /// As [`Self::write_response`], behind the filters.
    pub(super) fn write_on(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        body: &[u8],
        with_head: bool,
        last: bool,
    ) {
        if self.is_http2() {
            self.write_http2(stream, &mut worker.core, body, with_head, last);
        } else {
            self.write_http1(stream, worker, body, with_head, last);
        }
        if with_head {
            stream.response.started = true;
            stream.times.downstream_tx_begin = Some(worker.core.now());
        }
    }

    /// The response ends with trailers. Nothing of it has been said to be the last.
    pub(super) fn write_trailers(&mut self, stream: &mut Stream, worker: &mut Worker) {
        if !stream.grpc.is_empty() && self.filter_trailers(stream, worker) {
            return;
        }
        if stream.is_lua_holding() {
            return self.lua_hold(stream, worker, &[], true);
        }
        self.lua_trailers(stream, worker);
        self.write_trailers_past_lua(stream, worker);
    }

    /// As [`Self::write_trailers`], behind the scripts.
    pub(super) fn write_trailers_past_lua(&mut self, stream: &mut Stream, worker: &mut Worker) {
        self.end_encoded(stream, worker);
        if !self.is_http2() {
            self.write_trailers_http1(stream, worker);
        } else if stream.response.pending.is_empty() {
            self.write_trailers_http2(stream, &mut worker.core);
        }
    }

    /// 1xx.
    pub(super) fn write_interim(&mut self, stream: &Stream, core: &mut Core, status: u16) {
        match stream.wire {
            Some(wire) => self.write_interim_http2(core, wire, status),
            None => self.write(core, &[encode::CONTINUE]),
        }
    }

    /// The client has not taken what it was given: the upstream shall wait.
    pub(super) fn is_held(&self, stream: &Stream) -> bool {
        self.is_backed_up() || !stream.response.pending.is_empty()
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
            if self.is_http2() {
                self.start_drain_sequence(core);
            }
            self.draining = true;
        }
        if self.is_http2() {
            if !stream.request.complete && !stream.response.tunnel && !stream.request.upgrade {
                self.hcm
                    .stats
                    .inc(stat::DOWNSTREAM_RQ_RESPONSE_BEFORE_RQ_COMPLETE);
            }
            return;
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
}
