//! Upstream HTTP connection pools: one per host and priority in each worker.
//!
//! A free connection is used again last in, first out, so that the hottest one works and the rest may time out. What
//! finds none free waits in the pool's queue, in order, while connections are opened. The pool knows which stream
//! waits, but not what for. Closing and opening follow Envoy's `ConnPoolImplBase`.

mod connection;

use std::collections::VecDeque;
use std::rc::Rc;

use rustc_hash::FxHashMap;
use slab::Slab;
use tidegate_model::route::RoutingPriority;
use tidegate_rt::Moment;
use tidegate_stats::defs::cluster as stat;

pub use self::connection::ClientConnection;
pub(crate) use self::connection::{NUDGE_READ, Reading};
use crate::cluster::{
    ActiveConnection, ClusterRuntime, GoneHost, HostRuntime, Permit, ResourceKind,
};
use crate::conn::{After, Conn, Key};
use crate::hcm::StreamKey;
use crate::worker::Worker;

/// A pool of this worker. Valid as long as something is in the pool or waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PoolId(usize);

/// Why a pool cannot serve a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PoolFailure {
    /// Too many requests wait already.
    Overflow,
    /// Too many requests are active already; a connection would have been there.
    RequestOverflow,
    /// Connecting failed at once, or was refused or reset later; the text is the system's.
    Local(&'static str),
    Remote(&'static str),
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

/// The connections to one host for one priority.
struct Pool {
    cluster: Rc<ClusterRuntime>,
    host: Rc<HostRuntime>,
    priority: RoutingPriority,
    /// The last one was used last.
    idle: Vec<Key>,
    connecting: usize,
    /// Connections of any state.
    connections: usize,
    waiting: VecDeque<Waiting>,
}

/// A worker's pools.
#[derive(Default)]
pub struct Pools {
    by_host: FxHashMap<(u64, bool), usize>,
    slots: Slab<Pool>,
    next_connection_id: u64,
}

impl Pools {
    fn find(
        &mut self,
        cluster: &Rc<ClusterRuntime>,
        host: &Rc<HostRuntime>,
        priority: RoutingPriority,
    ) -> PoolId {
        let key = (host.state.uid(), priority == RoutingPriority::High);
        if let Some(index) = self.by_host.get(&key) {
            return PoolId(*index);
        }
        let index = self.slots.insert(Pool {
            cluster: Rc::clone(cluster),
            host: Rc::clone(host),
            priority,
            idle: Vec::new(),
            connecting: 0,
            connections: 0,
            waiting: VecDeque::new(),
        });
        self.by_host.insert(key, index);
        PoolId(index)
    }

    /// Forgets a pool in which nothing is left.
    fn tidy(&mut self, id: PoolId) {
        let Some(pool) = self.slots.get(id.0) else {
            return;
        };
        if pool.connections == 0 && pool.waiting.is_empty() {
            self.by_host.remove(&(
                pool.host.state.uid(),
                pool.priority == RoutingPriority::High,
            ));
            self.slots.remove(id.0);
        }
    }

    fn forget_idle(&mut self, id: PoolId, key: Key) {
        if let Some(pool) = self.slots.get_mut(id.0) {
            pool.idle.retain(|idle| *idle != key);
        }
    }
}

/// Asks for a connection to a host on behalf of a stream.
pub(crate) fn acquire(
    worker: &mut Worker,
    cluster: &Rc<ClusterRuntime>,
    host: &Rc<HostRuntime>,
    priority: RoutingPriority,
    stream: StreamKey,
) -> Acquired {
    let id = worker.core.pools.find(cluster, host, priority);
    let Some(pool) = worker.core.pools.slots.get_mut(id.0) else {
        return Acquired::Failed(PoolFailure::Overflow);
    };
    if let Some(key) = pool.idle.pop() {
        if !cluster
            .breakers
            .resource(priority, ResourceKind::Requests)
            .can_create()
        {
            pool.idle.push(key);
            cluster.stats.inc(stat::UPSTREAM_RQ_ACTIVE_OVERFLOW);
            return Acquired::Failed(PoolFailure::RequestOverflow);
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
        fail_waiting(worker, id, failure);
        return Acquired::Failed(failure);
    }
    Acquired::Queued(id)
}

/// Opens connections until as many are on their way as requests wait, as far as the circuit breaker allows. A host
/// without any connection gets one whatever the breaker says.
fn open_connections(worker: &mut Worker, id: PoolId) -> Result<(), PoolFailure> {
    loop {
        let Some(pool) = worker.core.pools.slots.get_mut(id.0) else {
            return Ok(());
        };
        if pool.connecting >= pool.waiting.len() {
            return Ok(());
        }
        let (cluster, host, priority) = (
            Rc::clone(&pool.cluster),
            Rc::clone(&pool.host),
            pool.priority,
        );
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
        cluster.stats.inc(stat::UPSTREAM_CX_HTTP1_TOTAL);
        match cluster.connect(&host) {
            Ok((socket, _)) => {
                worker.core.pools.next_connection_id += 1;
                let number = worker.core.pools.next_connection_id;
                let connection_id = number * worker.core.shared.config.workers.max(1) as u64
                    + worker.core.id as u64;
                let key = worker.conns.reserve();
                if worker.core.poller.add(&socket, key.token(0)).is_err() {
                    worker.conns.remove(key);
                    return Err(PoolFailure::Local("Too many open files"));
                }
                let connection =
                    ClientConnection::new(key, socket, guard, id, connection_id, &mut worker.core);
                worker.conns.put(key, Conn::Upstream(Box::new(connection)));
                if let Some(pool) = worker.core.pools.slots.get_mut(id.0) {
                    pool.connecting += 1;
                    pool.connections += 1;
                }
            }
            Err(error) => {
                cluster.stats.inc(stat::UPSTREAM_CX_CONNECT_FAIL);
                host.state.count(|cells| &cells.cx_connect_fail);
                return Err(PoolFailure::Local(connection::describe(error)));
            }
        }
    }
}

/// A waiting request is gone.
pub(crate) fn cancel(worker: &mut Worker, id: PoolId, stream: StreamKey) {
    if let Some(pool) = worker.core.pools.slots.get_mut(id.0) {
        pool.waiting
            .retain(|waiting| waiting.stream != stream);
    }
    worker.core.pools.tidy(id);
}

/// A connection can take a request: the oldest that waits, if any; else it goes to the idle ones.
fn offer(worker: &mut Worker, connection: &mut ClientConnection) -> After {
    loop {
        let id = connection.pool();
        let Some(pool) = worker.core.pools.slots.get_mut(id.0) else {
            return After::Close;
        };
        let gone = pool.host.state.is_gone();
        let Some(waiting) = pool.waiting.pop_front() else {
            if gone {
                return After::Close;
            }
            pool.idle.push(connection.key());
            return After::Keep;
        };
        let stream = waiting.stream;
        drop(waiting);
        let admitted = pool
            .cluster
            .breakers
            .resource(pool.priority, ResourceKind::Requests)
            .can_create();
        let host = Rc::clone(&pool.host);
        if !admitted {
            pool.cluster.stats.inc(stat::UPSTREAM_RQ_ACTIVE_OVERFLOW);
        }
        let Some(Conn::Http(mut down)) = worker.conns.take(stream.connection) else {
            continue;
        };
        let sent = if admitted {
            down.on_connection_ready(worker, connection, stream)
        } else {
            down.on_pool_failure(worker, stream, &host, PoolFailure::RequestOverflow);
            false
        };
        crate::hcm::put_back(worker, down);
        if sent {
            return After::Keep;
        }
    }
}

/// A connect has succeeded.
fn connected(worker: &mut Worker, id: PoolId) {
    if let Some(pool) = worker.core.pools.slots.get_mut(id.0) {
        pool.connecting = pool.connecting.saturating_sub(1);
    }
}

/// Tells all that wait that their connection did not come about.
fn fail_waiting(worker: &mut Worker, id: PoolId, failure: PoolFailure) {
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
        if let Some(Conn::Http(mut down)) = worker.conns.take(stream.connection) {
            down.on_pool_failure(worker, stream, &host, failure);
            crate::hcm::put_back(worker, down);
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
    worker.core.pools.forget_idle(id, connection.key());
    if let Some(pool) = worker.core.pools.slots.get_mut(id.0) {
        pool.connections = pool.connections.saturating_sub(1);
        if was_connecting {
            pool.connecting = pool.connecting.saturating_sub(1);
        }
    }
    if let Some(failure) = failure {
        fail_waiting(worker, id, failure);
    } else if let Err(failure) = open_connections(worker, id) {
        fail_waiting(worker, id, failure);
    }
    worker.core.pools.tidy(id);
}

/// Closes a connection that serves a request which is over before its response is.
pub(crate) fn discard(worker: &mut Worker, key: Key) {
    if let Some(Conn::Upstream(mut connection)) = worker.conns.take(key) {
        connection.close_locally(worker);
        drop(connection);
        worker.conns.remove(key);
    }
}

/// A host is gone from its cluster (key of its pools: `host.host.state.uid()`): idle connections close now, busy ones
/// when their request is done. Requests that wait are served by connections on their way.
pub fn host_gone(worker: &mut Worker, gone: &GoneHost) {
    for high in [false, true] {
        let Some(index) = worker
            .core
            .pools
            .by_host
            .get(&(gone.host.state.uid(), high))
            .copied()
        else {
            continue;
        };
        let idle = worker
            .core
            .pools
            .slots
            .get_mut(index)
            .map(|pool| std::mem::take(&mut pool.idle));
        for key in idle.unwrap_or_default() {
            discard(worker, key);
        }
    }
}

/// When the idle connections of a pool were last used is their own affair; this is what they ask.
pub(crate) fn is_past(deadline: Option<Moment>, now: Moment) -> bool {
    deadline.is_some_and(|deadline| deadline <= now)
}
