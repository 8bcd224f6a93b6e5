//! The request on its way out: a host, a connection, and the request sent on it.

use std::rc::Rc;

use tidegate_codec::h1::{KnownHeader, Method, encode};
use tidegate_codec::h2::RequestLine;
use tidegate_model::cluster::UpstreamProtocol;
use tidegate_model::route::RoutingPriority;
use tidegate_snapshot::ResponseFlags;
use tidegate_snapshot::hash_policy::set_cookie;
use tidegate_snapshot::routes::rewrite::CompiledHostRewrite;
use tidegate_stats::defs::cluster as cluster_stat;
use xxhash_rust::xxh64::xxh64;

use super::http1::feed_payload;
use super::local_reply::Reply;
use super::retry::{self, Ended};
use super::stream::{Attached, Protocol, Stream, StreamRoute, Token, Upstream};
use super::tracing::tried;
use super::upstream::put_lost;
use super::{ServerConnection, StreamKey};
use crate::balance::HashKey;
use crate::cluster::outlier::Outcome;
use crate::cluster::{ActiveRequest, ClusterRuntime, HostRuntime, LbContext};
use crate::conn::Conn;
use crate::pool::{self, Acquired, ClientConnection, PoolFailure, PoolProtocol, TlsWish, Wanted};
use crate::worker::{Core, Worker};

impl ServerConnection {
    /// Picks a host and a connection.
    pub(super) fn send_upstream(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        cluster: &Rc<ClusterRuntime>,
        body: Attached<'_>,
    ) {
        let key = if cluster.hashes {
            self.hash_key(stream, cluster)
        } else {
            HashKey::default()
        };
        let info = &self.downstream.info;
        let context = LbContext {
            original_dst: info.local_restored.then_some(info.local),
            named_dst: named_dst(cluster, stream),
            key,
        };
        if stream.attempts == 0 && self.drops_overload(stream, worker, cluster) {
            return;
        }
        stream.attempts = stream.attempts.max(1);
        let now = worker.core.now();
        let host = retry::choose_host(stream, &mut worker.core, cluster, &context);
        let Some(host) = host else {
            cluster.stats.inc(cluster_stat::UPSTREAM_CX_NONE_HEALTHY);
            stream.flags.insert(ResponseFlags::NO_HEALTHY_UPSTREAM);
            return self.reply_upstream(
                stream,
                worker,
                Reply::new(503, b"no healthy upstream", "no_healthy_upstream"),
            );
        };
        let forward = stream.route.as_ref().and_then(StreamRoute::forward);
        let priority = forward.map_or(RoutingPriority::Default, |forward| forward.config.priority);
        if let Some(forward) = forward
            && matches!(forward.host_rewrite, CompiledHostRewrite::Auto)
            && !host.host.hostname.is_empty()
        {
            let append = forward.config.append_x_forwarded_host;
            rewrite_host(stream, host.host.hostname.as_bytes(), append);
        }
        if stream.span.is_some() {
            tried::begin(stream, &mut worker.core, cluster, &host);
        }
        let wanted = Wanted {
            priority,
            protocol: match cluster.config.http.protocol {
                UpstreamProtocol::Http1 => PoolProtocol::Http1,
                UpstreamProtocol::Http2 => PoolProtocol::Http2,
                UpstreamProtocol::Downstream if self.is_http2() => PoolProtocol::Http2,
                UpstreamProtocol::Downstream => PoolProtocol::Http1,
                UpstreamProtocol::Negotiated => PoolProtocol::Negotiated,
            },
            tls: if cluster.is_secure(&host) {
                tls_wish(stream, cluster)
            } else {
                None
            },
        };
        match pool::acquire(worker, cluster, &host, &wanted, stream.key) {
            Acquired::Ready(key) => {
                stream.host = Some(Rc::clone(&host));
                stream.attach(body, now);
                if let Some(Conn::Upstream(mut up)) = worker.conns.take(key) {
                    let core = &mut worker.core;
                    let sent = self.send_request(stream, core, &mut up, &host, body.bytes);
                    worker.conns.put(key, Conn::Upstream(up));
                    if !sent {
                        self.on_protocol_error(stream, worker);
                    }
                }
            }
            Acquired::Queued(pool) => {
                stream.upstream = Upstream::Pending(pool);
                stream.pending_host = Some(host);
                stream.attach(body, now);
                stream
                    .request
                    .pending
                    .push(&mut worker.core.segments, body.bytes);
                if stream.request.complete {
                    self.request_sent(stream, now);
                }
            }
            Acquired::Failed(failure) => self.pool_failed(stream, worker, &host, failure),
        }
    }

    /// What consistent hashing goes by: the cluster's own policies, else the route's.
    fn hash_key(&self, stream: &mut Stream, cluster: &ClusterRuntime) -> HashKey {
        let forward = stream.route.as_ref().and_then(StreamRoute::forward);
        let of_route = || forward.and_then(|forward| forward.hash_policy.as_deref());
        let Some(policy) = cluster.hash_policy.as_ref().or_else(of_route) else {
            return HashKey::default();
        };
        let info = &self.downstream.info;
        let mut cookies = Vec::new();
        let client = stream.client.map(|client| client.ip());
        let hash = policy.hash(&stream.request, client, &mut |cookie| {
            // One connection's requests get one value.
            let ends = format!("{}{}", info.remote, info.local);
            let value = format!("{:016x}", xxh64(ends.as_bytes(), 0));
            cookies.push(set_cookie(cookie, &value));
            value
        });
        stream.set_cookies.append(&mut cookies);
        HashKey { hash, attempt: 0 }
    }

    /// `drop_overloads` of the cluster's endpoints.
    fn drops_overload(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        cluster: &Rc<ClusterRuntime>,
    ) -> bool {
        let endpoints = cluster.endpoints();
        if endpoints.drop_overloads.is_empty()
            || !endpoints
                .drop_overloads
                .iter()
                .any(|(_, share)| share.hits(worker.core.rng.next_u64()))
        {
            return false;
        }
        stream.flags.insert(ResponseFlags::DROP_OVERLOAD);
        self.reply_upstream(
            stream,
            worker,
            Reply::new(503, b"drop overload", "drop_overload"),
        );
        true
    }

    /// A connection has become free for a request that waited. `false`: the request is gone.
    pub(crate) fn on_connection_ready(
        &mut self,
        worker: &mut Worker,
        up: &mut ClientConnection,
        stream: StreamKey,
    ) -> bool {
        let Some(mut stream) = self.streams.take_key(stream) else {
            return false;
        };
        let Some(host) = stream.pending_host.take() else {
            self.streams.put(stream);
            return false;
        };
        stream.host = Some(Rc::clone(&host));
        let sent = self.send_request(&mut stream, &mut worker.core, up, &host, &[]);
        if !sent {
            self.on_protocol_error(&mut stream, worker);
        }
        self.settle(stream, worker);
        sent
    }

    /// Sends the head and what there is of the body on a connection that is now ours. `false`: it would not take it.
    fn send_request(
        &mut self,
        stream: &mut Stream,
        core: &mut Core,
        up: &mut ClientConnection,
        host: &Rc<HostRuntime>,
        body: &[u8],
    ) -> bool {
        if stream.request.upgrade && up.hold_upgrade(stream.key) {
            stream.upstream = Upstream::Pending(up.pool());
            stream.pending_host = Some(Rc::clone(host));
            stream.request.pending.push(&mut core.segments, body);
            return true;
        }
        if !send_on(stream, core, up, host, body) {
            return false;
        }
        let now = core.now();
        if stream.request.complete {
            self.request_sent(stream, now);
            stream.times.upstream_tx_end = Some(now);
        } else if !self.is_http2() {
            // Reading may have paused while the request waited.
            core.nudge(self.key, super::NUDGE_READ);
        }
        self.release_request(stream, core);
        true
    }

    /// The request has left (or waits, complete, to leave): the route's timeout begins.
    pub(super) fn request_sent(&self, stream: &mut Stream, now: tidegate_rt::Moment) {
        if stream.times.upstream_tx_begin.is_some() {
            stream.times.upstream_tx_end = Some(now);
        }
        if stream.deadlines.response.is_none()
            && let Some(timeout) = stream.deadlines.response_timeout
        {
            stream.deadlines.response = Some(now + timeout);
        }
        if let Some(tries) = &mut stream.tries
            && matches!(stream.upstream, Upstream::Active(..))
        {
            tries.start(now);
        }
    }

    /// The pool could not provide a connection.
    pub(crate) fn on_pool_failure(
        &mut self,
        worker: &mut Worker,
        stream: StreamKey,
        host: &Rc<HostRuntime>,
        failure: PoolFailure,
    ) {
        let Some(mut stream) = self.streams.take_key(stream) else {
            return;
        };
        self.pool_failed(&mut stream, worker, host, failure);
        self.settle(stream, worker);
    }

    fn pool_failed(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        host: &Rc<HostRuntime>,
        failure: PoolFailure,
    ) {
        stream.upstream = Upstream::None;
        stream.pending_host = None;
        if failure != PoolFailure::Overflow {
            stream.host = Some(Rc::clone(host));
        }
        if !matches!(
            failure,
            PoolFailure::Overflow | PoolFailure::RequestOverflow
        ) {
            put_lost(stream);
        }
        tried::not_connected(stream, &failure);
        let ended = match failure {
            PoolFailure::Overflow | PoolFailure::RequestOverflow => Ended::Overflow,
            _ => Ended::NotConnected,
        };
        if !self.retries_reset(stream, &mut worker.core, ended) {
            self.reply_pool_failure(stream, worker, failure);
        }
    }
}

/// Sends the head and what there is of the body on a connection that is the stream's now. `false`: it would not take it.
pub(super) fn send_on(
    stream: &mut Stream,
    core: &mut Core,
    up: &mut ClientConnection,
    host: &Rc<HostRuntime>,
    body: &[u8],
) -> bool {
    let now = core.now();
    host.state.put_result(Outcome::LocalConnectSuccess, None);
    if let Some(cluster) = &stream.cluster {
        let priority = stream
            .route
            .as_ref()
            .and_then(StreamRoute::forward)
            .map_or(RoutingPriority::Default, |forward| forward.config.priority);
        stream.active = Some(ActiveRequest::new(
            Rc::clone(cluster),
            Rc::clone(host),
            priority,
        ));
    }
    stream.upstream_connection_id = Some(up.id());
    stream.upstream_http2 = up.is_http2();
    stream.times.connect_begin = Some(up.connect_begin);
    stream.times.connect_end = up.connect_end;
    stream.upstream_local = up.local_address();
    stream.upstream_tls = up.tls().map(Rc::clone);
    stream.times.upstream_tx_begin = Some(now);
    if up.is_http2() {
        return send_http2(stream, core, up, body);
    }
    send_http1(stream, core, up, body);
    true
}

/// The upstream's window is open again: sends what waited for it.
pub(super) fn send_pending_request(
    stream: &mut Stream,
    core: &mut Core,
    up: &mut ClientConnection,
    token: Token,
) {
    let request = &mut stream.request;
    let end = request.complete && request.trailers.is_empty();
    while !request.pending.is_empty() {
        let mut slices = [std::io::IoSlice::new(&[]); 1];
        request.pending.slices(&mut slices);
        let [first] = &slices;
        let last = end && first.len() == request.pending.len();
        let sent = up.send_data(core, token, first, last);
        let whole = sent == first.len();
        request.pending.consume(&mut core.segments, sent);
        if !whole {
            return;
        }
    }
    if request.complete && !request.trailers.is_empty() {
        up.send_trailers(core, token, request.trailers.fields());
    }
}

/// Head and body over HTTP/1, in one piece if they are there together.
fn send_http1(stream: &mut Stream, core: &mut Core, up: &mut ClientConnection, body: &[u8]) {
    up.begin(stream.key, stream.wire.is_some());
    up.received = stream.upstream_bytes_received;
    stream.upstream = Upstream::Active(up.key(), 0);
    let mut head = std::mem::take(&mut core.http.head);
    head.clear();
    write_head(stream, &mut head);
    stream.upstream_header_bytes_sent += head.len() as u64;
    stream.upstream_bytes_sent += (head.len() + body.len()) as u64;
    if stream.request.is_payload() {
        if !stream.request.complete || !stream.request.pending.is_empty() {
            // What comes with it, or right behind, leaves with it.
            up.cork(core);
        }
        up.write(core, &[&head]);
        core.http.head = head;
        let mut pending = std::mem::take(&mut stream.request.pending);
        if pending.is_empty() {
            if stream.request.complete && stream.request.chunked {
                send_body(stream, core, up, 0, &[]);
            }
            return;
        }
        while !pending.is_empty() {
            let mut slices = [std::io::IoSlice::new(&[]); 1];
            pending.slices(&mut slices);
            let [first] = &slices;
            let count = first.len();
            let last = count == pending.len() && stream.request.complete;
            write_payload(stream, core, up, first, last);
            pending.consume(&mut core.segments, count);
        }
        return;
    }
    if stream.request.pending.is_empty() {
        up.write(core, &[&head, body]);
    } else {
        up.write(core, &[&head]);
        stream.upstream_bytes_sent += stream.request.pending.len() as u64;
        up.write_queued(core, &mut stream.request.pending);
        up.write(core, &[body]);
    }
    core.http.head = head;
    stream.request_held = up.is_backed_up();
}

/// Payload that came by HTTP/2, framed for HTTP/1.
fn write_payload(
    stream: &mut Stream,
    core: &mut Core,
    up: &mut ClientConnection,
    payload: &[u8],
    last: bool,
) {
    let request = &stream.request;
    stream.upstream_bytes_sent += payload.len() as u64;
    if request.chunked {
        let mut size = std::mem::take(&mut core.http.value);
        size.clear();
        if !payload.is_empty() {
            encode::chunk_header(&mut size, payload.len() as u64);
        }
        let mut end = std::mem::take(&mut core.http.head);
        end.clear();
        if !payload.is_empty() {
            end.extend_from_slice(encode::CRLF);
        }
        if last {
            end.extend_from_slice(b"0\r\n");
            if up.sends_trailers() {
                request.trailers.write(&mut end);
            }
            end.extend_from_slice(encode::CRLF);
        }
        up.write(core, &[&size, payload, &end]);
        core.http.value = size;
        core.http.head = end;
    } else {
        up.write(core, &[payload]);
    }
    stream.request_held = up.is_backed_up();
}

/// Head and body over HTTP/2. `false`: the upstream does not offer extended CONNECT.
fn send_http2(
    stream: &mut Stream,
    core: &mut Core,
    up: &mut ClientConnection,
    body: &[u8],
) -> bool {
    let framed = std::mem::take(&mut stream.request.pending);
    let request = &mut stream.request;
    let from_http1 = request.protocol != Protocol::Http2;
    if from_http1 {
        request.headers.lower_names();
    }
    let ends = request.complete
        && body.is_empty()
        && framed.is_empty()
        && request.trailers.is_empty()
        && !request.upgrade;
    let protocol = request
        .upgrade
        .then(|| request.headers.known(KnownHeader::Upgrade))
        .flatten();
    let line = RequestLine {
        method: if protocol.is_some() {
            b"CONNECT"
        } else {
            request.method_bytes()
        },
        scheme: request.headers.text(request.scheme),
        authority: request.authority_bytes(),
        path: request.path_bytes(),
        protocol,
    };
    let line = if request.method == Method::Connect {
        RequestLine {
            scheme: b"",
            path: b"",
            ..line
        }
    } else {
        line
    };
    let fields = request.headers.fields().filter(|field| {
        protocol.is_none() || !matches!(field.known, KnownHeader::Upgrade | KnownHeader::Connection)
    });
    let before = up.output_len();
    let token = up.start_request(core, stream.key, &line, fields, ends);
    let Some(token) = token else {
        return false;
    };
    stream.upstream = Upstream::Active(up.key(), token);
    let head = (up.output_len() - before) as u64;
    stream.upstream_header_bytes_sent += head;
    stream.upstream_bytes_sent += head;
    if ends {
        return true;
    }
    let mut framed = framed;
    while !framed.is_empty() {
        let mut slices = [std::io::IoSlice::new(&[]); 1];
        framed.slices(&mut slices);
        let [first] = &slices;
        let count = first.len();
        let last = count == framed.len() && body.is_empty();
        send_piece(stream, core, up, token, first, last);
        framed.consume(&mut core.segments, count);
    }
    if !body.is_empty() || (stream.request.complete && !stream.request.trailers.is_empty()) {
        send_piece(stream, core, up, token, body, true);
    }
    true
}

/// A piece of the request's body as it came, to whatever the upstream speaks.
pub(super) fn send_body(
    stream: &mut Stream,
    core: &mut Core,
    up: &mut ClientConnection,
    token: Token,
    bytes: &[u8],
) {
    if up.is_http2() {
        send_piece(stream, core, up, token, bytes, true);
    } else if stream.request.is_payload() {
        let last = stream.request.complete;
        write_payload(stream, core, up, bytes, last);
    } else {
        up.write(core, &[bytes]);
        stream.request_held = up.is_backed_up();
        stream.upstream_bytes_sent += bytes.len() as u64;
    }
}

/// A piece of the body as it came, to an HTTP/2 upstream; `last`: of what has been received.
fn send_piece(
    stream: &mut Stream,
    core: &mut Core,
    up: &mut ClientConnection,
    token: Token,
    bytes: &[u8],
    last: bool,
) {
    let is_chunked = stream.request.chunked && !stream.request.is_payload();
    if !is_chunked {
        return send_payload(stream, core, up, token, bytes, last);
    }
    let mut several = std::mem::take(&mut core.http.value);
    let request = &mut stream.request;
    let mut unframe = request.unframe;
    let mut trailers = std::mem::take(&mut request.trailers);
    let wanted = request.takes_trailers.then_some(&mut trailers);
    // It has been checked on its way in.
    if let Ok((payload, _)) = feed_payload(&mut unframe, bytes, &mut several, wanted) {
        request.unframe = unframe;
        request.trailers = trailers;
        send_payload(stream, core, up, token, payload, last);
    }
    core.http.value = several;
}

/// Payload to an HTTP/2 upstream; what its windows keep back waits with the stream.
fn send_payload(
    stream: &mut Stream,
    core: &mut Core,
    up: &mut ClientConnection,
    token: Token,
    payload: &[u8],
    last: bool,
) {
    let request = &mut stream.request;
    let complete = last && request.complete;
    let end = complete && request.trailers.is_empty();
    stream.upstream_bytes_sent += payload.len() as u64;
    if !request.pending.is_empty() {
        request.pending.push(&mut core.segments, payload);
        return;
    }
    let sent = if payload.is_empty() && !end {
        0
    } else {
        up.send_data(core, token, payload, end)
    };
    let rest = payload.get(sent..).unwrap_or_default();
    request.pending.push(&mut core.segments, rest);
    if rest.is_empty() && complete && !request.trailers.is_empty() {
        up.send_trailers(core, token, request.trailers.fields());
    }
}

/// The head as it goes to the upstream.
fn write_head(stream: &Stream, out: &mut Vec<u8>) {
    let request = &stream.request;
    let path = if request.method == Method::Connect {
        request.authority_bytes()
    } else {
        request.path_bytes()
    };
    encode::request_line(out, request.method_bytes(), path);
    request.headers.write(out);
    if request.chunked {
        encode::transfer_encoding_chunked(out);
    } else if request.complete
        && !request.headers.has(KnownHeader::ContentLength)
        && !matches!(
            request.method,
            Method::Get | Method::Head | Method::Delete | Method::Trace | Method::Connect
        )
    {
        out.extend_from_slice(b"content-length: 0\r\n");
    }
    out.extend_from_slice(encode::CRLF);
}

pub(super) fn rewrite_host(stream: &mut Stream, host: &[u8], append_x_forwarded_host: bool) {
    let old = stream.request.authority_bytes().to_vec();
    if old == host {
        return;
    }
    let headers = &mut stream.request.headers;
    if append_x_forwarded_host {
        headers.append(b"x-forwarded-host", b",", &old);
    }
    headers.set_known(KnownHeader::XEnvoyOriginalHost, &old);
    headers.set_known(KnownHeader::Host, host);
}

/// The address that a request names for an ORIGINAL_DST cluster, if the cluster reads it.
fn named_dst(cluster: &ClusterRuntime, stream: &Stream) -> Option<std::net::SocketAddr> {
    let tidegate_model::cluster::Discovery::OriginalDst(config) = &cluster.config.discovery else {
        return None;
    };
    let parse = |text: &str| {
        let address = text.parse().ok();
        if address.is_none() {
            cluster.stats.inc(cluster_stat::ORIGINAL_DST_HOST_INVALID);
        }
        address
    };
    let metadata = config.metadata_key.as_ref().and_then(|key| {
        let value = stream.metadata.value(&key.key, &key.path)?;
        let first = value.as_array().and_then(|values| values.first());
        parse(first.unwrap_or(value).as_str()?)
    });
    metadata.or_else(|| {
        let value = match &**config.http_header_name.as_ref()? {
            ":authority" | "host" => stream.request.authority_bytes(),
            name => stream.request.headers.get(name.as_bytes())?,
        };
        parse(std::str::from_utf8(value).unwrap_or_default())
    })
}

/// What the request, or its cluster for it, wants of the TLS of its connection.
fn tls_wish<'a>(stream: &'a Stream, cluster: &ClusterRuntime) -> Option<TlsWish<'a>> {
    let http = &cluster.config.http;
    if http.auto_sni.is_none() && stream.istio.alpn.is_none() {
        return None;
    }
    let name = http.auto_sni.as_deref().and_then(|header| {
        let value = match header {
            ":authority" | "host" => stream.request.authority_bytes(),
            name => {
                let named = stream.request.headers.get(name.as_bytes());
                named.unwrap_or(stream.request.authority_bytes())
            }
        };
        let value = std::str::from_utf8(value).ok()?;
        // Addresses are no server names.
        let name = without_port(value);
        let is_address = name.starts_with('[') || name.parse::<std::net::IpAddr>().is_ok();
        (!name.is_empty()).then_some((name, is_address))
    });
    let alpn = stream.istio.alpn.as_deref().unwrap_or_default();
    let server_name = name.filter(|(_, is_address)| !is_address);
    let validated = name.filter(|_| http.auto_san_validation);
    if server_name.is_none() && validated.is_none() && alpn.is_empty() {
        return None;
    }
    Some(TlsWish {
        server_name: server_name.map(|(name, _)| name),
        subject_alt_name: validated.map(|(name, _)| name),
        alpn,
    })
}

/// The host of an authority.
fn without_port(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.split_inclusive(']').next().unwrap_or(authority);
    }
    authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host)
}
