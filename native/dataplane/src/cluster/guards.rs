//! What is counted while something is active, and undone when it is dropped, whichever way that happens.

use std::rc::Rc;

use tidegate_model::route::RoutingPriority;
use tidegate_rt::{Clock, Moment};
use tidegate_stats::defs::cluster as stat;

use super::{ClusterRuntime, HostRuntime, Permit, ResourceKind};

/// An upstream connection, from the start of its connect: the circuit breaker's unit, `upstream_cx_total`,
/// `upstream_cx_active`, the host's `cx_*`; at the end `upstream_cx_destroy` and `upstream_cx_length_ms`.
pub struct ActiveConnection {
    pub cluster: Rc<ClusterRuntime>,
    pub host: Rc<HostRuntime>,
    since: Moment,
    _permit: Permit,
}

impl ActiveConnection {
    pub fn new(
        cluster: Rc<ClusterRuntime>,
        host: Rc<HostRuntime>,
        permit: Permit,
        now: Moment,
    ) -> Self {
        cluster.stats.inc(stat::UPSTREAM_CX_TOTAL);
        cluster.stats.gauge_inc(stat::UPSTREAM_CX_ACTIVE);
        host.state.connection_started();
        Self {
            cluster,
            host,
            since: now,
            _permit: permit,
        }
    }

    /// When the connect was started.
    pub const fn since(&self) -> Moment {
        self.since
    }

    /// Counts a connect that failed, or did not end in time.
    pub fn connect_failed(&self, timed_out: bool) {
        let stats = &self.cluster.stats;
        stats.inc(stat::UPSTREAM_CX_CONNECT_FAIL);
        if timed_out {
            stats.inc(stat::UPSTREAM_CX_CONNECT_TIMEOUT);
        }
        self.host.state.count(|cells| &cells.cx_connect_fail);
    }

    /// Counts who ended the connection, and whether a request was under way.
    pub fn closed(&self, by_remote: bool, with_active_request: bool) {
        let stats = &self.cluster.stats;
        let (who, who_active) = if by_remote {
            (
                stat::UPSTREAM_CX_DESTROY_REMOTE,
                stat::UPSTREAM_CX_DESTROY_REMOTE_WITH_ACTIVE_RQ,
            )
        } else {
            (
                stat::UPSTREAM_CX_DESTROY_LOCAL,
                stat::UPSTREAM_CX_DESTROY_LOCAL_WITH_ACTIVE_RQ,
            )
        };
        stats.inc(who);
        if with_active_request {
            stats.inc(stat::UPSTREAM_CX_DESTROY_WITH_ACTIVE_RQ);
            stats.inc(who_active);
        }
    }
}

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        let stats = &self.cluster.stats;
        stats.inc(stat::UPSTREAM_CX_DESTROY);
        stats.gauge_dec(stat::UPSTREAM_CX_ACTIVE);
        stats.record(
            stat::UPSTREAM_CX_LENGTH_MS,
            Clock::precise().since(self.since).as_millis() as u64,
        );
        self.host.state.connection_ended();
    }
}

/// A request at a host (the TCP proxy counts its connection as one): the circuit breaker's unit, `upstream_rq_total`,
/// `upstream_rq_active`, the host's `rq_total` and `rq_active`, by which least request chooses.
pub struct ActiveRequest {
    cluster: Rc<ClusterRuntime>,
    host: Rc<HostRuntime>,
    _permit: Permit,
}

impl ActiveRequest {
    pub fn new(
        cluster: Rc<ClusterRuntime>,
        host: Rc<HostRuntime>,
        priority: RoutingPriority,
    ) -> Self {
        let permit = Permit::force(&cluster, priority, ResourceKind::Requests);
        cluster.stats.inc(stat::UPSTREAM_RQ_TOTAL);
        cluster.stats.gauge_inc(stat::UPSTREAM_RQ_ACTIVE);
        host.state.request_started();
        Self {
            cluster,
            host,
            _permit: permit,
        }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.cluster.stats.gauge_dec(stat::UPSTREAM_RQ_ACTIVE);
        self.host.state.request_ended();
    }
}
