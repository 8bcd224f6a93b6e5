//! The upstream side of a TCP proxy connection: choosing the host, connecting, and what the cluster counts of it.

use std::net::SocketAddr;
use std::rc::Rc;

use tidegate_model::route::RoutingPriority;
use tidegate_rt::{Errno, Moment, Token};
use tidegate_snapshot::HostAddress;
use tidegate_snapshot::hash_policy::source_ip;
use tidegate_stats::defs::cluster as stat;

use crate::accept::ConnectionInfo;
use crate::balance::HashKey;
use crate::cluster::outlier::Outcome;
use crate::cluster::{
    ActiveConnection, ActiveRequest, ClusterRuntime, HostRuntime, LbContext, Permit, ResourceKind,
};
use crate::istio::negotiated;
use crate::splice::{End, Flow};
use crate::worker::{Core, Worker};

/// Why there is no connection.
pub(super) enum Refusal {
    /// The circuit breaker for connections is open.
    Overflow,
    NoHost,
    /// The circuit breaker for pending requests is open.
    PendingOverflow,
    /// There can be no TLS; counted as an attempt.
    Tls {
        host: Rc<HostRuntime>,
        reason: Rc<str>,
    },
    /// The connect failed at once; counted as an attempt.
    Connect {
        host: Rc<HostRuntime>,
        error: Errno,
    },
}

/// An upstream connection, connecting or connected.
pub(super) struct Upstream {
    pub(super) end: End,
    active: ActiveConnection,
    state: State,
    id: u64,
    /// The socket is connected, and TLS has begun if there is any.
    started: bool,
}

enum State {
    Connecting { _pending: PendingGuard },
    Connected { _request: ActiveRequest },
}

/// `upstream_rq_pending_active` and its circuit breaker while the connection is not there yet.
struct PendingGuard {
    cluster: Rc<ClusterRuntime>,
    _permit: Permit,
}

impl PendingGuard {
    fn new(cluster: &Rc<ClusterRuntime>) -> Option<Self> {
        let permit = Permit::try_take(
            cluster,
            RoutingPriority::Default,
            ResourceKind::PendingRequests,
        )?;
        cluster.stats.inc(stat::UPSTREAM_RQ_PENDING_TOTAL);
        cluster.stats.gauge_inc(stat::UPSTREAM_RQ_PENDING_ACTIVE);
        Some(Self {
            cluster: Rc::clone(cluster),
            _permit: permit,
        })
    }
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        self.cluster
            .stats
            .gauge_dec(stat::UPSTREAM_RQ_PENDING_ACTIVE);
    }
}

impl Upstream {
    /// Chooses a host and starts to connect.
    pub(super) fn open(
        worker: &mut Worker,
        token: Token,
        cluster: &Rc<ClusterRuntime>,
        downstream: &ConnectionInfo,
        hash_source_ip: bool,
    ) -> Result<Self, Refusal> {
        let core = &mut worker.core;
        let connections = cluster
            .breakers
            .resource(RoutingPriority::Default, ResourceKind::Connections);
        if !connections.can_create() {
            cluster.stats.inc(stat::UPSTREAM_CX_OVERFLOW);
            return Err(Refusal::Overflow);
        }
        let context = LbContext {
            original_dst: downstream.local_restored.then_some(downstream.local),
            named_dst: None,
            key: HashKey {
                hash: (hash_source_ip && cluster.hashes).then(|| source_ip(downstream.remote.ip())),
                attempt: 0,
            },
        };
        let now = core.now();
        let Some(host) = cluster.choose_host(&mut core.rng, now, &context) else {
            cluster.stats.inc(stat::UPSTREAM_CX_NONE_HEALTHY);
            return Err(Refusal::NoHost);
        };
        let Some(pending) = PendingGuard::new(cluster) else {
            cluster.stats.inc(stat::UPSTREAM_RQ_PENDING_OVERFLOW);
            return Err(Refusal::PendingOverflow);
        };
        let permit = Permit::force(cluster, RoutingPriority::Default, ResourceKind::Connections);
        let active = ActiveConnection::new(Rc::clone(cluster), Rc::clone(&host), permit, now);
        let id = core.next_connection_id();
        let started = cluster.connect(&host).map_err(|error| error.errno);
        let started = started.and_then(|(socket, _)| {
            core.poller.add(&socket, token)?;
            Ok(socket)
        });
        match started {
            Ok(socket) => {
                let transport = match cluster.transport(&host, socket, None, &[]) {
                    Ok(transport) => transport,
                    Err(reason) => {
                        count_failure(&active, false);
                        return Err(Refusal::Tls { host, reason });
                    }
                };
                let mut end = End::new(transport);
                end.writable = false;
                Ok(Self {
                    end,
                    active,
                    state: State::Connecting { _pending: pending },
                    id,
                    started: false,
                })
            }
            Err(error) => {
                count_failure(&active, false);
                Err(Refusal::Connect { host, error })
            }
        }
    }

    pub(super) const fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected { .. })
    }

    pub(super) const fn is_started(&self) -> bool {
        self.started
    }

    /// The socket is connected: goes on with the handshake, if there is one. `true`: it is done. What comes right behind it
    /// goes to `down`.
    pub(super) fn shake_hands(&mut self, core: &mut Core, down: &mut Flow) -> Result<bool, Errno> {
        if self.end.transport.is_plain() {
            return Ok(true);
        }
        if !std::mem::replace(&mut self.started, true) {
            self.end.transport.start(core)?;
        }
        self.end.transport.flush(core)?;
        while self.end.readable && self.end.transport.is_handshaking() {
            let mut buf = core.lend_read_buf();
            let received = down.receive(core, &mut self.end, &mut buf);
            if let Ok(count @ 1..) = received {
                down.queue(core, buf.get(..count).unwrap_or_default());
            }
            core.return_read_buf(buf);
            received?;
            if down.eof {
                return Err(Errno::CONNRESET);
            }
        }
        Ok(!self.end.transport.is_handshaking())
    }

    pub(super) fn cluster(&self) -> &Rc<ClusterRuntime> {
        &self.active.cluster
    }

    pub(super) fn host(&self) -> &Rc<HostRuntime> {
        &self.active.host
    }

    pub(super) const fn id(&self) -> u64 {
        self.id
    }

    /// The protocol that ALPN has agreed on with the host; nothing without TLS.
    pub(super) fn negotiated(&self) -> &str {
        negotiated(self.end.transport.info().map(|info| &**info))
    }

    /// The cluster's `per_connection_buffer_limit_bytes`.
    pub(super) fn buffer_limit(&self) -> u32 {
        self.cluster().config.per_connection_buffer_limit_bytes
    }

    /// Counts a connect that failed; `None`: it timed out.
    pub(super) fn failed(&self, error: Option<Errno>) {
        count_failure(&self.active, error.is_none());
        // A connection that never was is closed by the host when it was refused, by us when it timed out.
        self.active.closed(error.is_some(), false);
    }

    /// Counts the end of a connection.
    pub(super) fn ended(&self, by_remote: bool) {
        self.active.closed(by_remote, self.is_connected());
    }

    pub(super) fn connected(&mut self, now: Moment) {
        let cluster = Rc::clone(self.cluster());
        cluster.stats.record(
            stat::UPSTREAM_CX_CONNECT_MS,
            now.since(self.active.since()).as_millis() as u64,
        );
        self.host()
            .state
            .put_result(Outcome::LocalConnectSuccessFinal, None);
        let request = ActiveRequest::new(cluster, Rc::clone(self.host()), RoutingPriority::Default);
        self.state = State::Connected { _request: request };
    }
}

fn count_failure(active: &ActiveConnection, timed_out: bool) {
    active.connect_failed(timed_out);
    let outcome = if timed_out {
        Outcome::LocalTimeout
    } else {
        Outcome::LocalConnectFailed
    };
    active.host.state.put_result(outcome, None);
    active
        .cluster
        .stats
        .inc(stat::UPSTREAM_RQ_PENDING_FAILURE_EJECT);
}

pub(super) fn socket_address(host: &HostRuntime) -> Option<SocketAddr> {
    match &host.host.address {
        HostAddress::Socket(address) => Some(*address),
        HostAddress::Pipe(_) => None,
    }
}

/// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`; nothing for a timeout.
pub(super) fn failure_reason(error: Option<Errno>) -> Option<String> {
    let text = std::io::Error::from(error?).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    Some(format!("delayed_connect_error:_{}", text.replace(' ', "_")))
}
