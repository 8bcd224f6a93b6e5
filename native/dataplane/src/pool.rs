//! Upstream HTTP connection pools: one per host, priority and protocol in each worker.
//!
//! A free HTTP/1 connection is used again last in, first out, so that the hottest one works and the rest may time out; of
//! HTTP/2 connections with room the one with the fewest requests gets the next. What finds none free waits in the pool's
//! queue, in order, while connections are opened. The pool knows which stream waits, but not what for. Closing and opening
//! follow Envoy's `ConnPoolImplBase`.

mod connection;
mod http1;
mod http2;
mod wishes;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use rustc_hash::FxHashMap;
use slab::Slab;
use tidegate_model::route::RoutingPriority;
use tidegate_rt::Moment;
use tidegate_snapshot::HostAddress;
use tidegate_stats::defs::cluster as stat;

pub use self::connection::ClientConnection;
pub(crate) use self::connection::NUDGE_READ;
pub(crate) use self::http1::Reading;
pub(crate) use self::wishes::TlsWish;
use self::wishes::{WishId, Wishes};
use crate::cluster::{
    ActiveConnection, ClusterRuntime, GoneHost, HostRuntime, Permit, ResourceKind,
};
use crate::conn::{Conn, Conns, Key};
use crate::hcm::{Requester, StreamKey};
use crate::transport::TlsOptions;
use crate::worker::Worker;

/// A pool of this worker. Valid as long as something is in the pool or waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PoolId(usize);

/// Why a pool cannot serve a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PoolFailure {
    /// Too many requests wait already.
    Overflow,
    /// Too many requests are active already; a connection would have been there.
    RequestOverflow,
    /// Connecting failed at once, or was refused or reset later; the text is the system's.
    Local(&'static str),
    /// The address that connections are to come from could not be had.
    Bind(SocketAddr, &'static str),
    Remote(&'static str),
    /// There can be no TLS; the text is the access log's.
    LocalTls(Rc<str>),
    /// The TLS handshake failed, in the same words.
    Tls(Rc<str>),
    /// `connect_timeout`.
    Timeout,
}

/// The answer to a request for a connection.
pub(crate) enum Acquired {
    /// Take it out of its slot and send.
    Ready(Key),
    /// It will come, or fail.
    Queued(PoolId),
    Failed(PoolFailure),
}

struct Waiting {
    stream: StreamKey,
    _permit: Permit,
    stats: Rc<ClusterRuntime>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.stats.stats.gauge_dec(stat::UPSTREAM_RQ_PENDING_ACTIVE);
    }
}

/// The connections to one host for one priority, by one protocol.
struct Pool {
    cluster: Rc<ClusterRuntime>,
    host: Rc<HostRuntime>,
    id: Identity,
    /// What the requests want of TLS, if they want anything.
    tls: Option<Rc<TlsOptions>>,
    /// HTTP/1; the last one was used last.
    idle: Vec<Key>,
    /// HTTP/2: those that take requests, with or without room at the moment.
    ready: Vec<Key>,
    connecting: usize,
    /// Connections of any state.
    connections: usize,
    waiting: VecDeque<Waiting>,
}

/// What tells a host's pools apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    host: u64,
    high: bool,
    protocol: PoolProtocol,
    tls: Option<WishId>,
}

/// What the connections of a pool speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum PoolProtocol {
    Http1,
    Http2,
    /// Each what it agrees on by ALPN.
    Negotiated,
}

impl PoolProtocol {
    /// For ALPN where the configuration has no list, as Envoy's pools do.
    const fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Self::Http1 => &[b"http/1.1"],
            Self::Http2 => &[b"h2"],
            Self::Negotiated => &[b"h2", b"http/1.1"],
        }
    }
}

/// What a request wants of its connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) priority: RoutingPriority,
    pub(crate) protocol: PoolProtocol,
    pub(crate) tls: Option<TlsWish<'a>>,
}

impl Pool {
    const fn priority(&self) -> RoutingPriority {
        if self.id.high {
            RoutingPriority::High
        } else {
            RoutingPriority::Default
        }
    }

    /// Requests that a connection on its way will take.
    fn requests_per_connection(&self) -> usize {
        if self.id.protocol == PoolProtocol::Http2 {
            let of_connection = self.cluster.config.http.max_requests_per_connection;
            let streams = self.cluster.http2.max_concurrent_streams;
            streams.min(of_connection.unwrap_or(u32::MAX)).max(1) as usize
        } else {
            1
        }
    }
}

/// A stream that was given up while its upstream connection was in somebody's hands.
#[derive(Debug, Clone, Copy)]
struct Orphan {
    connection: Key,
    token: u32,
    stream: StreamKey,
    unreleased: usize,
}

/// A stream that could not be told of its failure, because its connection was in somebody's hands.
struct Failed {
    stream: StreamKey,
    host: Rc<HostRuntime>,
    failure: PoolFailure,
}

/// A worker's pools.
#[derive(Default)]
pub struct Pools {
    by_host: FxHashMap<Identity, usize>,
    /// What the requests of some pools want of TLS.
    wishes: Wishes,
    slots: Slab<Pool>,
    next_connection_id: u64,
    orphans: Vec<Orphan>,
    failed: Vec<Failed>,
}

impl Pools {
    fn find(
        &mut self,
        cluster: &Rc<ClusterRuntime>,
        host: &Rc<HostRuntime>,
        wanted: &Wanted<'_>,
    ) -> PoolId {
        let mut id = Identity {
            host: host.state.uid(),
            high: wanted.priority == RoutingPriority::High,
            protocol: wanted.protocol,
            tls: None,
        };
        let known = match &wanted.tls {
            None => true,
            Some(wish) => {
                id.tls = self.wishes.find(wish);
                id.tls.is_some()
            }
        };
        if known && let Some(index) = self.by_host.get(&id) {
            return PoolId(*index);
        }
        let kept = wanted.tls.as_ref().map(|wish| self.wishes.keep(wish));
        id.tls = kept.as_ref().map(|(wish, _)| *wish);
        let index = self.slots.insert(Pool {
            cluster: Rc::clone(cluster),
            host: Rc::clone(host),
            id,
            tls: kept.map(|(_, options)| options),
            idle: Vec::new(),
            ready: Vec::new(),
            connecting: 0,
            connections: 0,
            waiting: VecDeque::new(),
        });
        self.by_host.insert(id, index);
        PoolId(index)
    }

    /// The pools of a host. Those that requests have wishes for, which are few, must be looked for.
    fn of_host(&self, host: u64) -> impl Iterator<Item = usize> {
        use PoolProtocol::{Http1, Http2, Negotiated};
        let plain = [false, true].into_iter().flat_map(move |high| {
            [Http1, Http2, Negotiated]
                .into_iter()
                .filter_map(move |protocol| {
                    let tls = None;
                    let id = Identity {
                        host,
                        high,
                        protocol,
                        tls,
                    };
                    self.by_host.get(&id).copied()
                })
        });
        let of_wishes = self
            .by_host
            .iter()
            .filter(|_| !self.wishes.is_empty())
            .filter(move |(id, _)| id.host == host && id.tls.is_some())
            .map(|(_, index)| *index);
        plain.chain(of_wishes)
    }

    /// Forgets a pool in which nothing is left.
    fn tidy(&mut self, id: PoolId) {
        let Some(pool) = self.slots.get(id.0) else {
            return;
        };
        if pool.connections == 0 && pool.waiting.is_empty() {
            if let (Some(wish), Some(options)) = (pool.id.tls, &pool.tls) {
                self.wishes.release(wish, options);
            }
            self.by_host.remove(&pool.id);
            self.slots.remove(id.0);
        }
    }

    fn forget(&mut self, id: PoolId, key: Key) {
        if let Some(pool) = self.slots.get_mut(id.0) {
            pool.idle.retain(|idle| *idle != key);
            pool.ready.retain(|ready| *ready != key);
        }
    }

    fn take_orphans(&mut self, connection: Key) -> Vec<Orphan> {
        let (mine, others) = std::mem::take(&mut self.orphans)
            .into_iter()
            .partition(|orphan| orphan.connection == connection);
        self.orphans = others;
        mine
    }

    /// Streams of this downstream connection whose failure it has not been told yet.
    pub(crate) fn take_failed(
        &mut self,
        connection: Key,
    ) -> Vec<(StreamKey, Rc<HostRuntime>, PoolFailure)> {
        let (mine, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.failed)
            .into_iter()
            .partition(|failed| failed.stream.connection == connection);
        self.failed = others;
        mine.into_iter()
            .map(|failed| (failed.stream, failed.host, failed.failure))
            .collect()
    }
}

/// Asks for a connection to a host on behalf of a stream.
pub(crate) fn acquire(
    worker: &mut Worker,
    cluster: &Rc<ClusterRuntime>,
    host: &Rc<HostRuntime>,
    wanted: &Wanted<'_>,
    stream: StreamKey,
) -> Acquired {
    let priority = wanted.priority;
    let id = worker.core.pools.find(cluster, host, wanted);
    let Some(pool) = worker.core.pools.slots.get_mut(id.0) else {
        return Acquired::Failed(PoolFailure::Overflow);
    };
    let shared = match wanted.protocol {
        PoolProtocol::Http1 => None,
        _ => least_loaded(&worker.conns, &pool.ready),
    };
    if let Some(key) = shared.or_else(|| pool.idle.last().copied()) {
        if !cluster
            .breakers
            .resource(priority, ResourceKind::Requests)
            .can_create()
        {
            cluster.stats.inc(stat::UPSTREAM_RQ_ACTIVE_OVERFLOW);
            return Acquired::Failed(PoolFailure::RequestOverflow);
        }
        if shared.is_none() {
            pool.idle.pop();
        }
        return Acquired::Ready(key);
    }
    let Some(permit) = Permit::try_take(cluster, priority, ResourceKind::PendingRequests) else {
        cluster.stats.inc(stat::UPSTREAM_RQ_PENDING_OVERFLOW);
        worker.core.pools.tidy(id);
        return Acquired::Failed(PoolFailure::Overflow);
    };
    cluster.stats.inc(stat::UPSTREAM_RQ_PENDING_TOTAL);
    cluster.stats.gauge_inc(stat::UPSTREAM_RQ_PENDING_ACTIVE);
    pool.waiting.push_back(Waiting {
        stream,
        _permit: permit,
        stats: Rc::clone(cluster),
    });
    if let Err(failure) = open_connections(worker, id) {
        // The request that asked is told by the return value; any others are told one by one.
        cancel(worker, id, stream);
        fail_waiting(worker, id, &failure);
        return Acquired::Failed(failure);
    }
    Acquired::Queued(id)
}

/// Of the connections with room the one with the fewest requests.
fn least_loaded(conns: &Conns, ready: &[Key]) -> Option<Key> {
    let candidates = ready.iter().filter_map(|key| match conns.get(*key) {
        Some(Conn::Upstream(connection)) if connection.capacity() > 0 => {
            Some((connection.active_requests(), *key))
        }
        _ => None,
    });
    candidates
        .min_by_key(|(active, _)| *active)
        .map(|(_, key)| key)
}

/// Opens connections until as many are on their way as the requests that wait need, as far as the circuit breaker allows.
/// A host without any connection gets one whatever the breaker says.
fn open_connections(worker: &mut Worker, id: PoolId) -> Result<(), PoolFailure> {
    loop {
        let Some(pool) = worker.core.pools.slots.get_mut(id.0) else {
            return Ok(());
        };
        if pool.connecting * pool.requests_per_connection() >= pool.waiting.len() {
            return Ok(());
        }
        let (cluster, host, priority) = (
            Rc::clone(&pool.cluster),
            Rc::clone(&pool.host),
            pool.priority(),
        );
        let (protocol, tls) = (pool.id.protocol, pool.tls.clone());
        let permit = match Permit::try_take(&cluster, priority, ResourceKind::Connections) {
            Some(permit) => permit,
            None => {
                cluster.stats.inc(stat::UPSTREAM_CX_OVERFLOW);
                if pool.connections > 0 {
                    return Ok(());
                }
                Permit::force(&cluster, priority, ResourceKind::Connections)
            }
        };
        let now = worker.core.now();
        let guard = ActiveConnection::new(Rc::clone(&cluster), Rc::clone(&host), permit, now);
        match protocol {
            PoolProtocol::Http1 => cluster.stats.inc(stat::UPSTREAM_CX_HTTP1_TOTAL),
            PoolProtocol::Http2 => cluster.stats.inc(stat::UPSTREAM_CX_HTTP2_TOTAL),
            PoolProtocol::Negotiated => {}
        }
        match cluster.connect(&host) {
            Ok((socket, _)) => {
                let transport =
                    match cluster.transport(&host, socket, tls.as_deref(), protocol.alpn()) {
                        Ok(transport) => transport,
                        Err(reason) => {
                            cluster.stats.inc(stat::UPSTREAM_CX_CONNECT_FAIL);
                            host.state.count(|cells| &cells.cx_connect_fail);
                            return Err(PoolFailure::LocalTls(reason));
                        }
                    };
                worker.core.pools.next_connection_id += 1;
                let number = worker.core.pools.next_connection_id;
                let connection_id = number * worker.core.shared.config.workers.max(1) as u64
                    + worker.core.id as u64;
                let key = worker.conns.reserve();
                if worker
                    .core
                    .poller
                    .add(transport.socket(), key.token(0))
                    .is_err()
                {
                    worker.conns.remove(key);
                    return Err(PoolFailure::Local("Too many open files"));
                }
                let connection = ClientConnection::new(
                    key,
                    transport,
                    guard,
                    id,
                    connection_id,
                    protocol,
                    &mut worker.core,
                );
                worker.conns.put(key, Conn::Upstream(Box::new(connection)));
                if let Some(pool) = worker.core.pools.slots.get_mut(id.0) {
                    pool.connecting += 1;
                    pool.connections += 1;
                }
            }
            Err(error) => {
                cluster.stats.inc(stat::UPSTREAM_CX_CONNECT_FAIL);
                host.state.count(|cells| &cells.cx_connect_fail);
                let text = connection::describe(error.errno);
                let source = match &host.host.address {
                    HostAddress::Socket(address) if error.binding => {
                        cluster.source(address.is_ipv4())
                    }
                    _ => None,
                };
                return Err(match source {
                    Some(source) => PoolFailure::Bind(source, text),
                    None => PoolFailure::Local(text),
                });
            }
        }
    }
}

/// A waiting request is gone.
pub(crate) fn cancel(worker: &mut Worker, id: PoolId, stream: StreamKey) {
    if let Some(pool) = worker.core.pools.slots.get_mut(id.0) {
        pool.waiting.retain(|waiting| waiting.stream != stream);
    }
    worker.core.pools.tidy(id);
}

/// What became of a connection's offer to take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offered {
    /// It has one more.
    Taken,
    /// No request waits.
    Nobody,
    /// Its host is gone, and no request waits; or it is to take no more.
    Gone,
}

/// A connection can take a request: the oldest that waits, if any.
fn offer(worker: &mut Worker, connection: &mut ClientConnection) -> Offered {
    loop {
        let id = connection.pool();
        let Some(pool) = worker.core.pools.slots.get_mut(id.0) else {
            return Offered::Gone;
        };
        if pool.host.state.has_drained(connection.connect_begin) {
            return Offered::Gone;
        }
        let Some(waiting) = pool.waiting.pop_front() else {
            return if pool.host.state.is_gone() {
                Offered::Gone
            } else {
                Offered::Nobody
            };
        };
        let stream = waiting.stream;
        let admitted = pool
            .cluster
            .breakers
            .resource(pool.priority(), ResourceKind::Requests)
            .can_create();
        let (cluster, host) = (Rc::clone(&pool.cluster), Rc::clone(&pool.host));
        let Some(mut requester) = Requester::take(worker, stream.connection) else {
            if worker.conns.contains(stream.connection) {
                // In somebody's hands: later in this pass.
                if let Some(pool) = worker.core.pools.slots.get_mut(id.0) {
                    pool.waiting.push_front(waiting);
                }
                worker.core.nudge(connection.key(), connection::NUDGE_OFFER);
                return Offered::Nobody;
            }
            continue;
        };
        if !admitted {
            cluster.stats.inc(stat::UPSTREAM_RQ_ACTIVE_OVERFLOW);
        }
        drop(waiting);
        let sent = if admitted {
            requester.on_connection_ready(worker, connection, stream)
        } else {
            requester.on_pool_failure(worker, stream, &host, PoolFailure::RequestOverflow);
            false
        };
        requester.put_back(worker);
        if sent {
            return Offered::Taken;
        }
    }
}

/// An HTTP/1 connection has nothing to do.
fn idle(worker: &mut Worker, id: PoolId, key: Key) {
    if let Some(pool) = worker.core.pools.slots.get_mut(id.0) {
        pool.idle.push(key);
    }
}

/// An HTTP/2 connection takes requests.
fn ready(worker: &mut Worker, id: PoolId, key: Key) {
    if let Some(pool) = worker.core.pools.slots.get_mut(id.0) {
        pool.ready.push(key);
    }
}

/// It takes no more.
fn not_ready(worker: &mut Worker, id: PoolId, key: Key) {
    worker.core.pools.forget(id, key);
    if let Err(failure) = open_connections(worker, id) {
        fail_waiting(worker, id, &failure);
    }
}

/// A connect has succeeded.
fn connected(worker: &mut Worker, id: PoolId) {
    if let Some(pool) = worker.core.pools.slots.get_mut(id.0) {
        pool.connecting = pool.connecting.saturating_sub(1);
    }
}

/// Tells all that wait that their connection did not come about.
fn fail_waiting(worker: &mut Worker, id: PoolId, failure: &PoolFailure) {
    let Some(pool) = worker.core.pools.slots.get_mut(id.0) else {
        return;
    };
    let waiting = std::mem::take(&mut pool.waiting);
    let host = Rc::clone(&pool.host);
    for entry in waiting {
        let stream = entry.stream;
        entry
            .stats
            .stats
            .inc(stat::UPSTREAM_RQ_PENDING_FAILURE_EJECT);
        drop(entry);
        if let Some(mut requester) = Requester::take(worker, stream.connection) {
            requester.on_pool_failure(worker, stream, &host, failure.clone());
            requester.put_back(worker);
        } else if worker.conns.contains(stream.connection) {
            worker.core.pools.failed.push(Failed {
                stream,
                host: Rc::clone(&host),
                failure: failure.clone(),
            });
            worker
                .core
                .nudge(stream.connection, crate::hcm::NUDGE_FAILED);
        }
    }
    worker.core.pools.tidy(id);
}

/// The connection is being closed by its own handler: the pool forgets it.
fn closed(
    worker: &mut Worker,
    connection: &mut ClientConnection,
    was_connecting: bool,
    failure: Option<PoolFailure>,
) {
    let id = connection.pool();
    worker.core.pools.forget(id, connection.key());
    if let Some(pool) = worker.core.pools.slots.get_mut(id.0) {
        pool.connections = pool.connections.saturating_sub(1);
        if was_connecting {
            pool.connecting = pool.connecting.saturating_sub(1);
        }
    }
    if let Some(failure) = failure {
        fail_waiting(worker, id, &failure);
    } else if let Err(failure) = open_connections(worker, id) {
        fail_waiting(worker, id, &failure);
    }
    worker.core.pools.tidy(id);
}

/// A request is over before its response is: HTTP/1 closes the connection, HTTP/2 resets the stream.
pub(crate) fn discard(
    worker: &mut Worker,
    key: Key,
    token: u32,
    stream: StreamKey,
    unreleased: usize,
) {
    match worker.conns.take(key) {
        Some(Conn::Upstream(mut connection)) if connection.is_http2() => {
            connection.cancel(&mut worker.core, token, stream, unreleased);
            worker.conns.put(key, Conn::Upstream(connection));
        }
        Some(Conn::Upstream(mut connection)) => {
            connection.close_locally(worker);
            drop(connection);
            worker.conns.remove(key);
        }
        Some(other) => worker.conns.put(key, other),
        None if worker.conns.contains(key) => {
            worker.core.pools.orphans.push(Orphan {
                connection: key,
                token,
                stream,
                unreleased,
            });
            worker.core.nudge(key, connection::NUDGE_ORPHAN);
        }
        None => {}
    }
}

/// The downstream side can take more of a response; of HTTP/2 payload it has taken `count` bytes.
pub(crate) fn resume(worker: &mut Worker, key: Key, token: u32, stream: StreamKey, count: usize) {
    let Some(Conn::Upstream(connection)) = worker.conns.get_mut(key) else {
        return;
    };
    if connection.is_http2() {
        connection.release(&mut worker.core, token, stream, count);
    } else if std::mem::take(&mut connection.paused) {
        worker.core.nudge(key, NUDGE_READ);
    }
}

/// A host is gone from its cluster (key of its pools: `host.host.state.uid()`): idle connections close now, busy ones
/// when their requests are done. Requests that wait are served by connections on their way.
pub fn host_gone(worker: &mut Worker, gone: &GoneHost) {
    let host = gone.host.state.uid();
    let pools: Vec<usize> = worker.core.pools.of_host(host).collect();
    for index in pools {
        let Some(pool) = worker.core.pools.slots.get_mut(index) else {
            continue;
        };
        for key in std::mem::take(&mut pool.idle) {
            if let Some(Conn::Upstream(mut connection)) = worker.conns.take(key) {
                connection.close_locally(worker);
                drop(connection);
                worker.conns.remove(key);
            }
        }
        let shared = worker.core.pools.slots.get(index);
        for key in shared.map(|pool| pool.ready.clone()).unwrap_or_default() {
            if let Some(Conn::Upstream(mut connection)) = worker.conns.take(key) {
                connection.drain(worker);
                worker.conns.put(key, Conn::Upstream(connection));
            }
        }
    }
}

/// A host has been ejected: its connections close as those of a host that is gone do, though new ones may be opened.
pub(crate) fn drain_host(worker: &mut Worker, ejected: &GoneHost) {
    ejected.host.state.drain(worker.core.now());
    host_gone(worker, ejected);
}

/// When the idle connections of a pool were last used is their own affair; this is what they ask.
pub(crate) fn is_past(deadline: Option<Moment>, now: Moment) -> bool {
    deadline.is_some_and(|deadline| deadline <= now)
}
