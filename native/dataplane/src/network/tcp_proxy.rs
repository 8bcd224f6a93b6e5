//! `envoy.filters.network.tcp_proxy`: joins a downstream connection to an upstream one.
//!
//! ```text
//!  open ──> connecting ──connected──> flowing ──both ends passed on──> closed
//!              │  ▲ failed, attempts left   │
//!              └──┘                         └─ reset, idle, drained ──> closed
//! ```
//!
//! Bytes, ends (half-closes) and resets are carried through as they are; `splice.rs` moves the bytes. Counters, response
//! flags and the access-log line are Envoy's. The session owns both sockets, under one key, as sides 0 and 1.

mod exchanged;
mod filtered;
mod upstream;

use std::rc::Rc;
use std::sync::Arc;

use tidegate_model::Name;
use tidegate_rt::{Errno, LazyTimer, TimerId};
use tidegate_snapshot::{Chain, ChainFilter, ClusterRef, CompiledTcpProxy, ResponseFlags};
use tidegate_stats::{
    Local, defs::cluster as cluster_stat, defs::listener as listener_stat, defs::tcp as stat,
};

use self::upstream::{Refusal, Upstream};
use super::connection_log::{self, ConnectionLog, UpstreamLog};
use super::metadata_exchange::UpstreamExchange;
use super::read_filters::{NUDGE_FILTERS, ReadFilters};
use crate::accept::{ConnectionInfo, Downstream};
use crate::cluster::{ClusterRuntime, HostRuntime};
use crate::conn::{After, Conn, Event, Key, TimerKey};
use crate::listener::{ListenerPermit, ListenerRuntime};
use crate::splice::{End, Flow, Pumped};
use crate::worker::{Core, Worker};

const DOWNSTREAM: u8 = 0;
const UPSTREAM: u8 = 1;

mod timer {
    pub(super) const IDLE: u8 = 0;
    pub(super) const CONNECT: u8 = 1;
    pub(super) const DURATION: u8 = 2;
    pub(super) const HANDSHAKE: u8 = 5;
    pub(super) const SPILL: u8 = 3;
    pub(super) const REPORT: u8 = 4;
}

mod nudge {
    /// Go on pumping.
    pub(super) const CONTINUE: u8 = 0;
}

/// How long a flow may keep a pipe whose destination takes nothing.
const SPILL_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Both directions were passed on to their end, that of the upstream host last or not.
    Finished { upstream_last: bool },
    /// The downstream peer reset the connection.
    DownstreamReset,
    /// The upstream host reset the connection.
    UpstreamReset,
    /// We end it: a timeout, a drain, no upstream.
    Local,
}

/// A TCP proxy connection.
pub struct TcpProxySession {
    downstream: End,
    info: ConnectionInfo,
    listener: Rc<ListenerRuntime>,
    chain: Arc<Chain>,
    _permit: ListenerPermit,
    /// The network filters before this one.
    filters: Option<Box<ReadFilters>>,
    /// The metadata exchange with the host, of a cluster that has one.
    exchange: Option<Box<UpstreamExchange>>,
    /// The downstream socket is polled.
    watched: bool,
    stats: Local<stat::TcpProxy>,
    cluster: Option<ClusterRef>,
    upstream: Option<Upstream>,
    /// Downstream to upstream.
    up: Flow,
    /// Upstream to downstream.
    down: Flow,
    idle: LazyTimer,
    connect_timer: Option<TimerId>,
    duration_timer: Option<TimerId>,
    report_timer: Option<TimerId>,
    spill_timer: LazyTimer,
    attempts: u32,
    flags: ResponseFlags,
    last_failure: Option<Box<Failure>>,
}

/// The last failed attempt, for the access log.
struct Failure {
    host: Name,
    address: Option<std::net::SocketAddr>,
    reason: Option<String>,
}

/// Gives an accepted connection to a new session.
pub(crate) fn open(worker: &mut Worker, downstream: Downstream) {
    let Downstream {
        transport,
        info,
        listener,
        chain,
        permit,
        filters,
    } = downstream;
    let Some(stats) = listener.tcp_stats(&chain) else {
        return;
    };
    let key = worker.conns.reserve();
    stats.inc(stat::DOWNSTREAM_CX_TOTAL);
    let mut session = Box::new(TcpProxySession {
        downstream: End::new(transport),
        info,
        listener,
        chain,
        _permit: permit,
        filters,
        exchange: None,
        watched: false,
        stats,
        cluster: None,
        upstream: None,
        up: Flow::default(),
        down: Flow::default(),
        idle: LazyTimer::new(),
        connect_timer: None,
        duration_timer: None,
        report_timer: None,
        spill_timer: LazyTimer::new(),
        attempts: 0,
        flags: ResponseFlags::NONE,
        last_failure: None,
    });
    if let Some(limit) = session
        .proxy()
        .and_then(|proxy| proxy.config.max_downstream_connection_duration)
    {
        let when = worker.core.now() + limit;
        session.duration_timer = Some(worker.core.arm(when, key, timer::DURATION));
    }
    if let Some(limit) = session.chain.config.transport_socket_connect_timeout
        && session.downstream.transport.is_handshaking()
    {
        // It finds the handshake done, or the session gone, where there was no need for it.
        let when = worker.core.now() + limit;
        let _timer = worker.core.arm(when, key, timer::HANDSHAKE);
    }
    let after = if session.filters.is_some() {
        session.arm_report(worker, key);
        session.start_filters(worker, key)
    } else {
        session.establish(worker, key)
    };
    match after {
        After::Keep => worker.conns.put(key, Conn::TcpProxy(session)),
        After::Close => {
            worker.conns.remove(key);
        }
    }
}

impl TcpProxySession {
    pub(crate) const fn listener(&self) -> &Rc<ListenerRuntime> {
        &self.listener
    }

    pub(crate) const fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    fn proxy(&self) -> Option<&CompiledTcpProxy> {
        match &self.chain.filter {
            ChainFilter::TcpProxy(proxy) => Some(proxy),
            ChainFilter::Http(_) => None,
        }
    }

    pub(crate) fn on_event(&mut self, worker: &mut Worker, key: Key, event: Event) -> After {
        match event {
            Event::Ready { side, ready } => {
                if side == DOWNSTREAM {
                    self.downstream.ready(ready);
                    if ready.error() && self.up.eof {
                        // Nothing more is read there, so only the poller tells that the half-open peer is gone.
                        return self.finish(worker, Ending::DownstreamReset);
                    }
                } else if let Some(upstream) = &mut self.upstream {
                    upstream.end.ready(ready);
                    if !upstream.is_connected() {
                        if ready.hung_up() && !upstream.is_started() {
                            let error = upstream.end.transport.socket().take_error();
                            return self.connect_failed(worker, key, error);
                        }
                        if !ready.writable() && !upstream.is_started() {
                            return After::Keep;
                        }
                        let queued = self.down.buffered();
                        match upstream.shake_hands(&mut worker.core, &mut self.down) {
                            Ok(true) => {}
                            Ok(false) => return After::Keep,
                            Err(error) => return self.connect_failed(worker, key, Some(error)),
                        }
                        if self.connected(worker, key, queued).is_err() {
                            // The poller takes no more descriptors.
                            return self.finish(worker, Ending::Local);
                        }
                    } else if ready.error() && self.down.eof {
                        return self.finish(worker, Ending::UpstreamReset);
                    }
                }
                self.pump(worker, key)
            }
            Event::Nudge {
                why: NUDGE_FILTERS, ..
            } => self.resume_filters(worker, key),
            Event::Nudge { .. } => self.pump(worker, key),
            Event::Timer(kind) => self.on_timer(worker, key, kind),
            // Connections of the TCP proxy stay until the drain time is over.
            Event::Drain | Event::Flush => After::Keep,
            Event::DrainDeadline => {
                self.stats.inc(stat::DOWNSTREAM_CX_DRAIN_CLOSE);
                self.finish(worker, Ending::Local)
            }
        }
    }

    fn is_connected(&self) -> bool {
        self.upstream.as_ref().is_some_and(Upstream::is_connected)
    }

    /// Chooses a cluster and a host and starts to connect; Envoy's `establishUpstreamConnection`.
    fn establish(&mut self, worker: &mut Worker, key: Key) -> After {
        let Some(proxy) = self.proxy() else {
            return After::Close;
        };
        let max_attempts = proxy.config.max_connect_attempts;
        let hash_source_ip = proxy.config.hash_source_ip;
        let of_filters = self.filters.as_ref().and_then(|f| f.state.cluster.as_ref());
        let cluster = match of_filters {
            None => proxy.pick(worker.core.rng.next_u64()).cloned(),
            Some(name) => {
                let cluster = worker.core.snapshot.cluster_by_name(name);
                cluster.map(|cluster| cluster.key().clone())
            }
        };
        let runtime = cluster
            .as_ref()
            .and_then(|cluster| worker.core.cluster(cluster.id()));
        self.cluster = cluster;
        let Some(runtime) = runtime else {
            self.stats.inc(stat::DOWNSTREAM_CX_NO_ROUTE);
            self.flags.insert(ResponseFlags::NO_CLUSTER_FOUND);
            return self.finish(worker, Ending::Local);
        };
        if self.attempts > 0 && self.attempts >= max_attempts {
            runtime
                .stats
                .inc(cluster_stat::UPSTREAM_CX_CONNECT_ATTEMPTS_EXCEEDED);
            self.flags
                .insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
            return self.finish(worker, Ending::Local);
        }
        match Upstream::open(
            worker,
            key.token(UPSTREAM),
            &runtime,
            &self.info,
            hash_source_ip,
        ) {
            Ok(upstream) => {
                self.attempts += 1;
                self.upstream = Some(upstream);
                let when = worker.core.now() + runtime.config.connect_timeout;
                self.connect_timer = Some(worker.core.arm(when, key, timer::CONNECT));
                After::Keep
            }
            Err(Refusal::Overflow) => {
                self.flags.insert(ResponseFlags::UPSTREAM_OVERFLOW);
                self.finish(worker, Ending::Local)
            }
            Err(Refusal::PendingOverflow) => {
                // A failed attempt as any other, as in Envoy: the flag is that of the attempts having run out.
                self.attempts += 1;
                self.establish(worker, key)
            }
            Err(Refusal::NoHost) => {
                self.flags.insert(ResponseFlags::NO_HEALTHY_UPSTREAM);
                self.finish(worker, Ending::Local)
            }
            Err(Refusal::Tls { host, reason }) => {
                self.attempts += 1;
                self.flags
                    .insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
                self.remember_failure(&host, None);
                if let Some(failure) = &mut self.last_failure {
                    failure.reason = Some(reason.as_ref().to_owned());
                }
                self.establish(worker, key)
            }
            Err(Refusal::Connect { host, error }) => {
                self.attempts += 1;
                self.flags
                    .insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
                self.remember_failure(&host, Some(error));
                self.establish(worker, key)
            }
        }
    }

    /// Only now is the downstream socket watched: until there is an upstream nothing is read from it, an end or a reset
    /// included, as in Envoy.
    /// `queued`: what waited for the client before the host could say anything.
    fn connected(&mut self, worker: &mut Worker, key: Key, queued: usize) -> Result<(), Errno> {
        if let Some(timer) = self.connect_timer.take() {
            worker.core.timers.cancel(timer);
        }
        let now = worker.core.now();
        if let Some(upstream) = &mut self.upstream {
            upstream.connected(now);
        }
        self.begin_exchange(worker, queued);
        self.watch_downstream(worker, key)?;
        // Most clients speak first, and have spoken by now.
        self.downstream.readable = true;
        self.touch_idle(worker, key);
        Ok(())
    }

    fn watch_downstream(&mut self, worker: &mut Worker, key: Key) -> Result<(), Errno> {
        if std::mem::replace(&mut self.watched, true) {
            return Ok(());
        }
        worker
            .core
            .poller
            .add(self.downstream.transport.socket(), key.token(DOWNSTREAM))
    }

    /// A connect attempt failed (refused, unreachable or, with no error, timed out): the next one, if any is left.
    fn connect_failed(&mut self, worker: &mut Worker, key: Key, error: Option<Errno>) -> After {
        if let Some(timer) = self.connect_timer.take() {
            worker.core.timers.cancel(timer);
        }
        self.flags
            .insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
        if let Some(upstream) = self.upstream.take() {
            upstream.failed(error);
            self.remember_failure(upstream.host(), error);
            if let Some(failure) = &mut self.last_failure
                && let Some(reason) = upstream.end.transport.failure()
            {
                failure.reason = Some(reason.to_owned());
            }
        }
        self.establish(worker, key)
    }

    fn remember_failure(&mut self, host: &HostRuntime, error: Option<Errno>) {
        self.last_failure = Some(Box::new(Failure {
            host: Name::clone(&host.host.address_text),
            address: upstream::socket_address(host),
            reason: upstream::failure_reason(error),
        }));
    }

    fn touch_idle(&mut self, worker: &mut Worker, key: Key) {
        let timeout = match &self.chain.filter {
            ChainFilter::TcpProxy(proxy) => proxy.config.idle_timeout,
            ChainFilter::Http(_) => None,
        };
        if let Some(timeout) = timeout {
            let deadline = worker.core.now() + timeout;
            self.idle.set(
                &mut worker.core.timers,
                deadline,
                TimerKey {
                    key,
                    kind: timer::IDLE,
                },
            );
        }
    }

    /// Moves bytes in both directions as far as the sockets allow.
    #[inline]
    fn pump(&mut self, worker: &mut Worker, key: Key) -> After {
        if self.filters.is_some()
            && let Some(after) = self.pump_filters(worker, key)
        {
            return after;
        }
        if self.filters.is_some() {
            self.before_first_write(worker, key);
        }
        if self.exchange.is_some()
            && let Some(after) = self.pump_exchange(worker)
        {
            return after;
        }
        let core = &mut worker.core;
        let Some(upstream) = &mut self.upstream else {
            return After::Keep;
        };
        let before = (
            self.up.bytes_in,
            self.up.bytes_out,
            self.down.bytes_in,
            self.down.bytes_out,
        );
        let paused = (self.up.paused, self.down.paused);
        let up_was_done = self.up.is_done();
        let (up_limit, down_limit) = (upstream.buffer_limit(), self.listener.buffer_limit());
        let held_back = self
            .filters
            .as_ref()
            .is_some_and(|filters| filters.is_watching() && !(self.up.eof && filters.has_all()));
        let up = if held_back {
            self.up.pump_out(core, &mut upstream.end)
        } else {
            self.up.pump(
                core,
                &mut self.downstream,
                &mut upstream.end,
                up_limit,
                self.down.is_done(),
            )
        };
        let down = self.down.pump(
            core,
            &mut upstream.end,
            &mut self.downstream,
            down_limit,
            self.up.is_done(),
        );
        let moved = (
            self.up.bytes_in - before.0,
            self.up.bytes_out - before.1,
            self.down.bytes_in - before.2,
            self.down.bytes_out - before.3,
        );
        if moved != (0, 0, 0, 0) {
            let cluster = &upstream.cluster().stats;
            self.stats.add(stat::DOWNSTREAM_CX_RX_BYTES_TOTAL, moved.0);
            cluster.add(cluster_stat::UPSTREAM_CX_TX_BYTES_TOTAL, moved.1);
            cluster.add(cluster_stat::UPSTREAM_CX_RX_BYTES_TOTAL, moved.2);
            self.stats.add(stat::DOWNSTREAM_CX_TX_BYTES_TOTAL, moved.3);
        }
        if paused != (self.up.paused, self.down.paused) {
            let cluster = &upstream.cluster().stats;
            self.stats.add(
                stat::DOWNSTREAM_FLOW_CONTROL_PAUSED_READING_TOTAL,
                self.up.paused - paused.0,
            );
            cluster.add(
                cluster_stat::UPSTREAM_FLOW_CONTROL_PAUSED_READING_TOTAL,
                self.down.paused - paused.1,
            );
        }
        if std::mem::take(&mut self.downstream.established) {
            self.info.tls = self.downstream.transport.info().map(Rc::clone);
        }
        match (up, down) {
            (Pumped::SourceError(_), _) | (_, Pumped::SinkError(_)) => {
                return self.finish(worker, Ending::DownstreamReset);
            }
            (_, Pumped::SourceError(_)) | (Pumped::SinkError(_), _) => {
                return self.finish(worker, Ending::UpstreamReset);
            }
            (Pumped::Yielded, _) | (_, Pumped::Yielded) => core.nudge(key, nudge::CONTINUE),
            (Pumped::Waiting, Pumped::Waiting) if held_back && self.is_worth_filtering() => {
                core.nudge(key, nudge::CONTINUE);
            }
            (Pumped::Waiting, Pumped::Waiting) => {}
        }
        if self.up.is_done() && self.down.is_done() {
            let upstream_last = up_was_done;
            return self.finish(worker, Ending::Finished { upstream_last });
        }
        if moved != (0, 0, 0, 0) {
            self.touch_idle(worker, key);
        }
        if self.up.holds_pipe() || self.down.holds_pipe() {
            let deadline = worker.core.now() + SPILL_AFTER;
            self.spill_timer.set(
                &mut worker.core.timers,
                deadline,
                TimerKey {
                    key,
                    kind: timer::SPILL,
                },
            );
        }
        After::Keep
    }

    fn on_timer(&mut self, worker: &mut Worker, key: Key, kind: u8) -> After {
        let now = worker.core.now();
        let payload = TimerKey { key, kind };
        match kind {
            timer::CONNECT => {
                self.connect_timer = None;
                if self.upstream.is_none() || self.is_connected() {
                    return After::Keep;
                }
                self.connect_failed(worker, key, None)
            }
            timer::IDLE => {
                if !self.idle.fired(&mut worker.core.timers, now, payload) {
                    return After::Keep;
                }
                self.stats.inc(stat::IDLE_TIMEOUT);
                self.finish(worker, Ending::Local)
            }
            timer::HANDSHAKE => {
                if !self.downstream.transport.is_handshaking() {
                    return After::Keep;
                }
                self.listener
                    .stats
                    .inc(listener_stat::DOWNSTREAM_CX_TRANSPORT_SOCKET_CONNECT_TIMEOUT);
                self.finish(worker, Ending::Local)
            }
            timer::DURATION => {
                self.duration_timer = None;
                self.stats.inc(stat::MAX_DOWNSTREAM_CONNECTION_DURATION);
                self.flags.insert(ResponseFlags::DURATION_TIMEOUT);
                self.finish(worker, Ending::Local)
            }
            timer::REPORT => {
                self.report(worker);
                self.arm_report(worker, key);
                After::Keep
            }
            timer::SPILL => {
                if self
                    .spill_timer
                    .fired(&mut worker.core.timers, now, payload)
                {
                    self.up.spill_pipe(&mut worker.core);
                    self.down.spill_pipe(&mut worker.core);
                }
                After::Keep
            }
            _ => After::Keep,
        }
    }

    /// The end: counts, carries a reset through, writes the access log. The caller drops the session.
    fn finish(&mut self, worker: &mut Worker, ending: Ending) -> After {
        let core = &mut worker.core;
        self.idle.cancel(&mut core.timers);
        self.spill_timer.cancel(&mut core.timers);
        for timer in [
            self.connect_timer.take(),
            self.duration_timer.take(),
            self.report_timer.take(),
        ]
        .into_iter()
        .flatten()
        {
            core.timers.cancel(timer);
        }
        match ending {
            Ending::DownstreamReset => {
                if let Some(upstream) = &self.upstream {
                    let _gone = upstream.end.transport.socket().reset_on_close();
                }
            }
            Ending::UpstreamReset => {
                self.flags.insert(ResponseFlags::UPSTREAM_REMOTE_RESET);
                let _gone = self.downstream.transport.socket().reset_on_close();
            }
            Ending::Finished { .. } | Ending::Local => {}
        }
        if let Some(upstream) = &self.upstream {
            // Nothing is ever left in a read buffer; touched, the gauges show as Envoy's do.
            if self.up.bytes_in > 0 {
                self.stats
                    .gauge_add(stat::DOWNSTREAM_CX_RX_BYTES_BUFFERED, 0);
            }
            if self.down.bytes_in > 0 {
                let cluster = &upstream.cluster().stats;
                cluster.gauge_add(cluster_stat::UPSTREAM_CX_RX_BYTES_BUFFERED, 0);
            }
            upstream.ended(matches!(
                ending,
                Ending::UpstreamReset
                    | Ending::Finished {
                        upstream_last: true
                    }
            ));
        }
        self.log(worker);
        self.up.close(&mut worker.core);
        self.down.close(&mut worker.core);
        After::Close
    }

    fn log(&mut self, worker: &mut Worker) {
        let Some(proxy) = self.proxy() else { return };
        if proxy.access_log.is_empty()
            && self.listener.compiled.access_log.is_empty()
            && self.filters.is_none()
        {
            return;
        }
        self.with_log(worker, |session, core, filters, log| {
            connection_log::write(core, &session.listener.compiled.access_log, log);
            log.access_log_type = "TcpConnectionEnd";
            if let Some(proxy) = session.proxy() {
                connection_log::write(core, &proxy.access_log, log);
            }
            if let Some(filters) = filters {
                filters.end(core, log);
            }
        });
    }

    /// The filters hear how the connection stands.
    fn report(&mut self, worker: &mut Worker) {
        self.with_log(worker, |_, core, filters, log| {
            if let Some(filters) = filters {
                filters.report(core, log);
            }
        });
    }

    fn arm_report(&mut self, worker: &mut Worker, key: Key) {
        let interval = self
            .filters
            .as_ref()
            .and_then(|filters| filters.report_interval());
        self.report_timer = interval.map(|interval| {
            let when = worker.core.now() + interval;
            worker.core.arm(when, key, timer::REPORT)
        });
    }

    /// Does something with the filters and the facts of the connection.
    fn with_log(
        &mut self,
        worker: &mut Worker,
        then: impl FnOnce(&Self, &mut Core, Option<&mut ReadFilters>, &mut ConnectionLog<'_>),
    ) {
        let mut filters = self.filters.take();
        let runtime: Option<Rc<ClusterRuntime>> = match &self.upstream {
            Some(upstream) => Some(Rc::clone(upstream.cluster())),
            None => self
                .cluster
                .as_ref()
                .and_then(|cluster| worker.core.cluster(cluster.id())),
        };
        let details = filters
            .as_ref()
            .and_then(|filters| filters.state.termination_details.clone());
        if self.info.tls.is_none() {
            self.info.tls = self.downstream.transport.failed_info();
        }
        let mut log = ConnectionLog::new(&worker.core, &self.listener, &self.info);
        log.flags = self.flags;
        log.termination_details = details.as_ref();
        log.filter_chain = Some(&self.chain.config.name);
        log.transport_failure = self.downstream.transport.failure();
        log.attempts = self.attempts;
        log.bytes_received = self.up.bytes_in;
        log.bytes_sent = self.down.bytes_out;
        log.upstream_bytes_received = self.down.bytes_in;
        log.upstream_bytes_sent = self.up.bytes_out;
        if let Some(runtime) = &runtime {
            let failure = self.last_failure.as_deref();
            log.upstream = Some(UpstreamLog {
                config: runtime,
                workload: self
                    .upstream
                    .as_ref()
                    .and_then(|upstream| upstream.host().host.workload.as_ref()),
                peer: self.exchange.as_ref().map(|exchange| &exchange.peer),
                cluster: &runtime.config.name,
                cluster_alt_stat_name: &runtime.config.alt_stat_name,
                host: match &self.upstream {
                    Some(upstream) => Some((
                        &upstream.host().host.address_text,
                        upstream::socket_address(upstream.host()),
                    )),
                    None => failure.map(|failure| (&failure.host, failure.address)),
                },
                local: self
                    .upstream
                    .as_ref()
                    .and_then(|upstream| upstream.end.transport.socket().local_addr().ok()),
                connection_id: self.upstream.as_ref().map_or(0, Upstream::id),
                is_connected: self.is_connected(),
                failure_reason: failure.and_then(|failure| failure.reason.as_deref()),
                tls: self
                    .upstream
                    .as_ref()
                    .and_then(|upstream| upstream.end.transport.info())
                    .map(|info| &**info),
            });
        }
        then(self, &mut worker.core, filters.as_deref_mut(), &mut log);
        self.filters = filters;
    }
}
