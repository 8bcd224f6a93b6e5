//! Routing: which route, which filters, which cluster, which host, and what the request looks like when it leaves.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate_codec::h1::KnownHeader;
use tidegate_snapshot::routes::action::ClusterTarget;
use tidegate_snapshot::routes::rewrite::CompiledHostRewrite;
use tidegate_snapshot::routes::{CompiledAction, CompiledForward};
use tidegate_snapshot::{HeaderScratch, ResponseFlags, Routed};
use tidegate_stats::defs::http as stat;

use super::filters::Verdict;
use super::forward::rewrite_host;
use super::local_reply::Reply;
use super::log::RequestSide;
use super::request;
use super::runtime::FilterKind;
use super::stream::{Attached, Request, Stream, StreamRoute};
use super::{ServerConnection, grpc_timeout, retry, tracing, upgrade};
use crate::worker::{Core, Worker};

impl ServerConnection {
    /// A request's head (and maybe some body) is here: prepares, routes and forwards or answers it.
    pub(super) fn start(
        &mut self,
        mut stream: Box<Stream>,
        worker: &mut Worker,
        body: Attached<'_>,
    ) {
        let hcm = Rc::clone(&self.hcm);
        match request::prepare(
            &mut stream.request,
            &hcm,
            &self.downstream.info,
            &mut worker.core,
        ) {
            Ok(client) => stream.client = Some(client),
            Err(refused) => {
                let reply = Reply {
                    location: refused.location,
                    ..Reply::new(refused.status, b"", refused.details)
                };
                self.count_refusal(refused.details);
                self.reply(&mut stream, worker, reply);
                return self.settle(stream, worker);
            }
        }
        self.find_route(&mut stream, &worker.core);
        self.begin_span(&mut stream, &mut worker.core);
        if stream.request.upgrade && !upgrade::is_allowed(&hcm, &stream) {
            hcm.stats.inc(stat::DOWNSTREAM_RQ_WS_ON_NON_WS_ROUTE);
            stream.request.close = true;
            if self.is_http2() {
                self.start_drain_sequence(&mut worker.core);
            }
            self.choose_cluster(&mut stream, &mut worker.core);
            self.reply(&mut stream, worker, Reply::new(403, b"", "upgrade_failed"));
            return self.settle(stream, worker);
        }
        if stream.request.upgrade {
            stream.upgraded = true;
            hcm.stats.inc(stat::DOWNSTREAM_CX_UPGRADES_TOTAL);
            hcm.stats.gauge_inc(stat::DOWNSTREAM_CX_UPGRADES_ACTIVE);
        }
        self.run_filters(&mut stream, worker, body);
        // A client may leave no time at all (`grpc-timeout: 0m`).
        let now = worker.core.now();
        if !stream.response.started && stream.deadlines.max_duration.is_some_and(|end| end <= now) {
            self.end_of_life(&mut stream, worker);
        }
        self.settle(stream, worker);
    }

    fn count_refusal(&self, details: &str) {
        let stats = &self.hcm.stats;
        match details {
            "absolute_path_rejected" => stats.inc(stat::DOWNSTREAM_RQ_NON_RELATIVE_PATH),
            "path_normalization_failed" => stats.inc(stat::DOWNSTREAM_RQ_FAILED_PATH_NORMALIZATION),
            _ => {}
        }
    }

    pub(super) fn find_route(&self, stream: &mut Stream, core: &Core) {
        let snapshot = &core.snapshot;
        let Some(routes) = self.hcm.routes(snapshot) else {
            return;
        };
        if !stream.request.internal {
            for name in &routes.config.internal_only_headers {
                stream.request.headers.remove(name.as_bytes());
            }
        }
        let random = stream.random;
        let Some(Routed {
            virtual_host,
            route,
        }) = routes.find(&stream.request, random, snapshot.runtime())
        else {
            return;
        };
        stream.route = Some(StreamRoute {
            virtual_host: Arc::clone(virtual_host),
            position: route.position,
            random,
            routes,
        });
        self.set_route_timeouts(stream);
    }

    /// Runs the filters from where the stream stands; the router comes last. `body`: what was received with the head.
    pub(super) fn run_filters(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        mut body: Attached<'_>,
    ) {
        let hcm = Rc::clone(self.manager_of(stream));
        while let Some(filter) = hcm.filters.get(stream.next_filter) {
            stream.next_filter += 1;
            let verdict = match filter.kind {
                FilterKind::Router => {
                    if let Some(body) = self.filter_attached(stream, worker, body) {
                        self.forward(stream, worker, body);
                    }
                    return;
                }
                _ if self.is_disabled(stream, *filter) => Verdict::Continue,
                FilterKind::Cors => self.cors(stream, worker),
                FilterKind::Fault => self.fault(stream, worker, filter.index),
                FilterKind::GrpcStats => self.grpc_stats(stream, &mut worker.core, filter.index),
                FilterKind::JwtAuthn => self.jwt_authn(stream, worker, filter.index),
                FilterKind::ExtAuthz => self.ext_authz(stream, worker, filter.index),
                FilterKind::GrpcWeb => self.grpc_web(stream, &mut worker.core),
                FilterKind::HeaderMutation => {
                    self.header_mutation(stream, &worker.core, filter.index)
                }
                FilterKind::LocalRateLimit => self.local_ratelimit(stream, worker, filter.index),
                FilterKind::Lua => self.lua_request(stream, worker, filter.index),
                FilterKind::Rbac => self.rbac(stream, worker, filter.index),
                FilterKind::Compressor => self.compressor(stream, &worker.core, filter.index),
                FilterKind::PeerMetadata => {
                    self.peer_metadata(stream, &mut worker.core, filter.index)
                }
                FilterKind::Alpn => self.istio_alpn(stream, &mut worker.core, filter.index),
                FilterKind::IstioStats => Verdict::Continue,
                FilterKind::Missing => self.missing_filter(stream, worker),
            };
            let demand = match verdict {
                Verdict::Continue => continue,
                Verdict::Answered => return,
                Verdict::Wait => None,
                Verdict::WaitForBody(demand) => Some(demand),
            };
            match self.pause(stream, worker, std::mem::take(&mut body), demand) {
                Some(Verdict::Continue) => stream.pause = None,
                Some(Verdict::Answered | Verdict::Wait | Verdict::WaitForBody(_)) | None => return,
            }
        }
    }

    /// The router filter.
    fn forward(&mut self, stream: &mut Stream, worker: &mut Worker, body: Attached<'_>) {
        self.hcm.stats.inc(stat::RQ_TOTAL);
        let Some(route) = &stream.route else {
            self.hcm.stats.inc(stat::NO_ROUTE);
            stream.flags.insert(ResponseFlags::NO_ROUTE_FOUND);
            return self.reply(stream, worker, Reply::new(404, b"", "route_not_found"));
        };
        match &route.route().action {
            CompiledAction::Route(_) => {}
            CompiledAction::DirectResponse(direct) => {
                self.hcm.stats.inc(stat::RQ_DIRECT_RESPONSE);
                let body = direct.body.as_ref().map(|source| Arc::clone(&source.bytes));
                let body = body.as_deref().unwrap_or_default();
                let reply = Reply {
                    location: location_of(&stream.request, direct.status),
                    ..Reply::new(direct.status, body, "direct_response")
                };
                return self.reply(stream, worker, reply);
            }
            CompiledAction::Redirect(redirect) => {
                // Envoy counts redirects among the direct responses.
                self.hcm.stats.inc(stat::RQ_DIRECT_RESPONSE);
                let mut location = Vec::new();
                redirect.location(&stream.request, &mut location);
                let status = redirect.status();
                let reply = Reply {
                    location: Some(location),
                    ..Reply::new(status, b"", "direct_response")
                };
                return self.reply(stream, worker, reply);
            }
            CompiledAction::NonForwarding => {
                return self.reply(stream, worker, Reply::new(404, b"", "direct_response"));
            }
        }
        self.choose_cluster(stream, &mut worker.core);
        let Some(cluster) = stream.cluster.clone() else {
            let status = stream
                .route
                .as_ref()
                .and_then(StreamRoute::forward)
                .map_or(503, |forward| forward.config.cluster_not_found_status);
            self.hcm.stats.inc(stat::NO_CLUSTER);
            stream.flags.insert(ResponseFlags::NO_CLUSTER_FOUND);
            return self.reply(stream, worker, Reply::new(status, b"", "cluster_not_found"));
        };
        let per_try_timeout = self.finish_request_head(stream, worker);
        if stream
            .route
            .as_ref()
            .and_then(StreamRoute::forward)
            .is_some_and(|forward| !forward.mirrors.is_empty())
            && !stream.request.upgrade
        {
            let timeout = stream.deadlines.response_timeout;
            self.start_mirrors(stream, worker, &body, timeout);
        }
        self.begin_tries(stream, &mut worker.core, &cluster, per_try_timeout, &body);
        self.send_upstream(stream, worker, &cluster, body);
    }

    /// The cluster that the route names for this request, if there is one.
    pub(super) fn choose_cluster(&self, stream: &mut Stream, core: &mut Core) {
        if stream.cluster.is_some() {
            return;
        }
        let Some(forward) = stream.route.as_ref().and_then(StreamRoute::forward) else {
            return;
        };
        let id = match forward.pick(stream.random).target {
            ClusterTarget::Cluster(cluster) => Some(cluster.id()),
            ClusterTarget::Header(name) => stream
                .request
                .header_named(name)
                .and_then(|value| std::str::from_utf8(value).ok())
                .and_then(|name| core.snapshot.cluster_by_name(name))
                .map(|cluster| cluster.id()),
        };
        stream.cluster = id.and_then(|id| core.cluster(id));
    }

    /// Everything that the route and the router say about the request's head.
    /// Returns the time that each try has.
    fn finish_request_head(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
    ) -> Option<Duration> {
        let per_try_timeout = self.set_timeouts(stream);
        if let Some(route) = stream
            .route
            .as_ref()
            .filter(|route| route.header_levels().has_request_changes())
        {
            let route = StreamRoute::clone(route);
            let mut scratch = HeaderScratch::default();
            let mut side = RequestSide::new(self, stream, &worker.core.clock);
            route.header_levels().apply_request(&mut side, &mut scratch);
        }
        let Some(route) = stream.route.take() else {
            return per_try_timeout;
        };
        let weighted_host = route
            .weighted()
            .and_then(|entry| entry.host_rewrite_literal.clone());
        if let Some(forward) = route.forward() {
            let value = &mut worker.core.http.value;
            value.clear();
            // The weighted cluster's host comes first, and leaves no trace of the old one; then the route's.
            if let Some(host) = weighted_host.filter(|host| !host.is_empty()) {
                let headers = &mut stream.request.headers;
                headers.set_known(KnownHeader::Host, host.as_bytes());
            }
            match &forward.host_rewrite {
                CompiledHostRewrite::None | CompiledHostRewrite::Auto => {}
                CompiledHostRewrite::Literal(host) => value.extend_from_slice(host.as_bytes()),
                CompiledHostRewrite::Header(name) => {
                    value.extend_from_slice(stream.request.header_named(name).unwrap_or_default());
                }
                CompiledHostRewrite::PathRegex(rewrite) => {
                    rewrite.apply(stream.request.path_bytes(), value);
                }
            }
            if !value.is_empty() {
                rewrite_host(stream, value, forward.config.append_x_forwarded_host);
            }
            value.clear();
            if forward
                .path_rewrite
                .apply(stream.request.path_bytes(), value)
            {
                if !self.hcm.suppress_envoy_headers {
                    let old = stream.request.path_bytes().to_vec();
                    stream
                        .request
                        .headers
                        .set_known(KnownHeader::XEnvoyOriginalPath, &old);
                }
                stream.request.path = stream.request.headers.keep(value);
            }
        }
        if route.virtual_host.include_request_attempt_count {
            stream
                .request
                .headers
                .set_known(KnownHeader::XEnvoyAttemptCount, b"1");
        }
        stream.route = Some(route);
        tracing::inject(stream);
        per_try_timeout
    }

    /// Returns the time that each try has.
    fn set_timeouts(&self, stream: &mut Stream) -> Option<Duration> {
        let forward = stream.route.as_ref().and_then(StreamRoute::forward)?;
        let is_grpc = is_grpc(stream);
        let request = &mut stream.request;
        let config = &forward.config;
        // A route with a limit for the whole stream has no other timeout.
        let old_ways = config.max_stream_duration.is_none();
        let grpc_cap = grpc_cap(forward, is_grpc);
        let mut timeout = match grpc_cap {
            _ if !old_ways => None,
            Some(cap) => grpc_timeout::of_route(grpc_timeout::asked(&request.headers), cap),
            None => config.timeout,
        };
        if self.hcm.respect_expected_rq_timeout
            && let Some(expected) = millis(
                request
                    .headers
                    .known(KnownHeader::XEnvoyExpectedRqTimeoutMs),
            )
        {
            timeout = expected;
        } else if let Some(asked) = millis(
            request
                .headers
                .known(KnownHeader::XEnvoyUpstreamRqTimeoutMs),
        ) {
            timeout = asked;
        }
        request
            .headers
            .remove_known(KnownHeader::XEnvoyUpstreamRqTimeoutMs);
        stream.deadlines.response_timeout = timeout.filter(|_| !request.upgrade);
        let per_try_timeout = retry::per_try_timeout(stream, timeout);
        self.tell_timeout(stream, per_try_timeout.or(timeout));
        per_try_timeout
    }

    /// Tells the upstream how much time it has.
    pub(super) fn tell_timeout(&self, stream: &mut Stream, timeout: Option<Duration>) {
        let Some(timeout) = timeout else {
            return;
        };
        let is_grpc = is_grpc(stream);
        let headers = &mut stream.request.headers;
        if !self.hcm.suppress_envoy_headers {
            let mut buffer = itoa::Buffer::new();
            let text = buffer.format(timeout.as_millis() as u64);
            headers.set_known(KnownHeader::XEnvoyExpectedRqTimeoutMs, text.as_bytes());
        }
        if let Some(forward) = stream.route.as_ref().and_then(StreamRoute::forward)
            && grpc_cap(forward, is_grpc).is_some()
        {
            grpc_timeout::tell(headers, timeout);
        }
    }
}

fn is_grpc(stream: &Stream) -> bool {
    stream.request.grpc || !stream.grpc.is_empty()
}

/// `max_grpc_timeout`, where it counts.
#[expect(clippy::option_option, reason = "none, no cap, or a cap")]
fn grpc_cap(forward: &CompiledForward, is_grpc: bool) -> Option<Option<Duration>> {
    let config = &forward.config;
    let counts = config.max_stream_duration.is_none() && is_grpc;
    config.max_grpc_timeout.filter(|_| counts)
}

/// Where a created or moved resource is, as Envoy tells of direct responses: where the request went.
fn location_of(request: &Request, status: u16) -> Option<Vec<u8>> {
    if status != 201 && status / 100 != 3 {
        return None;
    }
    let scheme = request.headers.text(request.scheme);
    let mut location = Vec::new();
    for part in [
        scheme,
        b"://",
        request.authority_bytes(),
        request.path_bytes(),
    ] {
        location.extend_from_slice(part);
    }
    Some(location)
}

/// A number of milliseconds in a header: `Some(None)` for 0, which means no timeout.
#[expect(clippy::option_option, reason = "absent, no timeout, or a timeout")]
fn millis(value: Option<&[u8]>) -> Option<Option<Duration>> {
    let millis: u64 = std::str::from_utf8(value?).ok()?.parse().ok()?;
    Some((millis > 0).then(|| Duration::from_millis(millis)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_in_headers() {
        assert_eq!(millis(Some(b"250")), Some(Some(Duration::from_millis(250))));
        assert_eq!(millis(Some(b"0")), Some(None));
        assert_eq!(millis(Some(b"x")), None);
        assert_eq!(millis(None), None);
    }
}
