//! What all workers of a process share: the published generation, the process's state and the statistics registry.
//!
//! Nothing in here is locked on the path of a connection or request. Workers read the generation when they are woken.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tidegate_model::Name;
use tidegate_model::bootstrap::Node;
use tidegate_model::cluster::BindConfig;
use tidegate_model::tracing::Provider;
use tidegate_rt::{Listening, Waker};
use tidegate_snapshot::Snapshot;
use tidegate_stats::Registry;
use tidegate_stats::defs::statsd;

use crate::accept::HandedOver;
use crate::cluster::ClusterShared;
use crate::listener::{GlobalLimit, ListenerShared};
use crate::statsd::{Batch, MAX_BUFFERED};
use crate::worker::LogSink;

/// What the engine decides before the workers start.
#[derive(Debug, Clone)]
pub struct DataplaneConfig {
    /// Threads (`--concurrency`).
    pub workers: usize,
    pub node: Node,
    /// `--drain-time-s`: how long a listener that changed, went away or is drained keeps its connections.
    pub drain_time: Duration,
    /// `--drain-strategy gradual` (the default): connections are asked to close with a probability that grows over the
    /// drain time; else at once.
    pub drain_gradually: bool,
    /// `--file-flush-interval-msec`.
    pub log_flush_interval: Duration,
    /// As spans tell it.
    pub version: String,
    /// Where spans go of connection managers that do not say it.
    pub tracing: Option<Provider>,
    /// Downstream connections of the whole process at most; `None`: no limit, and nothing is counted.
    pub max_downstream_connections: Option<u64>,
    /// `--busy-poll-us`: a worker with nothing to do polls so long before it sleeps.
    pub busy_poll: Duration,
    /// Of clusters that say nothing of their own.
    pub upstream_bind: Option<BindConfig>,
}

impl Default for DataplaneConfig {
    fn default() -> Self {
        Self {
            workers: 1,
            node: Node {
                zone: "".into(),
                id: "".into(),
                cluster: "".into(),
                metadata: Arc::default(),
            },
            drain_time: Duration::from_mins(10),
            drain_gradually: true,
            log_flush_interval: Duration::from_secs(1),
            max_downstream_connections: None,
            version: String::new(),
            tracing: None,
            busy_poll: Duration::ZERO,
            upstream_bind: None,
        }
    }
}

/// Which listeners a drain concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum DrainScope {
    None = 0,
    /// Those with `traffic_direction: INBOUND`.
    InboundOnly = 1,
    All = 2,
}

/// One consistent state of configuration, with the process-wide companions of its parts.
pub struct Generation {
    pub snapshot: Arc<Snapshot>,
    /// By `ClusterId::index()`.
    pub(crate) clusters: Vec<Option<Arc<ClusterShared>>>,
    /// By `ListenerId::index()`.
    pub(crate) listeners: Vec<Option<Arc<ListenerShared>>>,
}

/// A listener's bound address: a socket per worker.
#[derive(Debug)]
pub(crate) struct Bound {
    /// With the port the kernel chose, if the configuration said 0.
    pub(crate) local: SocketAddr,
    pub(crate) sockets: Vec<Arc<Listening>>,
    /// All workers poll the same socket.
    pub(crate) same_socket: bool,
}

/// What all workers share.
pub struct Shared {
    pub config: DataplaneConfig,
    pub registry: Registry,
    pub(crate) log_sink: Arc<dyn LogSink>,
    pub(crate) generation: ArcSwap<Generation>,
    pub(crate) wakers: Vec<Waker>,
    pub(crate) stop: AtomicBool,
    pub(crate) drain: AtomicU8,
    /// The listeners have closed their sockets for good: whatever the strategy, connections are asked to close at once.
    pub(crate) drain_hurried: AtomicBool,
    /// Connections handed to each worker by others, for listeners with `exact_balance`; nobody else locks these.
    inboxes: Vec<Mutex<Vec<HandedOver>>>,
    /// Statistics for the first worker to send.
    statsd: Mutex<Vec<Batch>>,
    /// `/healthcheck/fail` was called: health checks fail and connections are asked to close.
    health_check_failed: AtomicBool,
    pub(crate) global_limit: Option<Arc<GlobalLimit>>,
    /// Panics caught in handlers; each has cost one connection.
    pub panics_total: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        config: DataplaneConfig,
        registry: Registry,
        log_sink: Arc<dyn LogSink>,
        wakers: Vec<Waker>,
    ) -> Self {
        let global_limit = config.max_downstream_connections.map(GlobalLimit::new);
        Self {
            global_limit: global_limit.map(Arc::new),
            config,
            registry,
            log_sink,
            inboxes: wakers.iter().map(|_| Mutex::default()).collect(),
            statsd: Mutex::default(),
            generation: ArcSwap::from_pointee(Generation {
                snapshot: Arc::new(Snapshot::default()),
                clusters: Vec::new(),
                listeners: Vec::new(),
            }),
            wakers,
            stop: AtomicBool::new(false),
            drain: AtomicU8::new(DrainScope::None as u8),
            drain_hurried: AtomicBool::new(false),
            health_check_failed: AtomicBool::new(false),
            panics_total: AtomicU64::new(0),
        }
    }

    pub fn health_check_failed(&self) -> bool {
        self.health_check_failed.load(Ordering::Relaxed)
    }

    pub fn set_health_check_failed(&self, failed: bool) {
        self.health_check_failed.store(failed, Ordering::Relaxed);
    }

    pub fn drain_scope(&self) -> DrainScope {
        match self.drain.load(Ordering::Acquire) {
            0 => DrainScope::None,
            1 => DrainScope::InboundOnly,
            _ => DrainScope::All,
        }
    }

    /// Gives a connection to the worker that its share names.
    pub(crate) fn hand_over(&self, connection: HandedOver) {
        let worker = connection.worker();
        if let (Some(inbox), Some(waker)) = (self.inboxes.get(worker), self.wakers.get(worker)) {
            inbox
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
            waker.wake();
        }
    }

    /// What was handed to a worker since it last asked.
    pub(crate) fn handed_over(&self, worker: usize) -> Vec<HandedOver> {
        self.inboxes.get(worker).map_or_else(Vec::new, |inbox| {
            std::mem::take(&mut *inbox.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }

    /// Sends lines to a statsd server, through a cluster; those of one sink by one connection, in order.
    pub fn send_statsd(&self, sink: usize, cluster: &Name, lines: Vec<u8>) {
        let Some(waker) = self.wakers.first() else {
            return;
        };
        let mut waiting = self.statsd.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: usize = waiting.iter().map(|batch| batch.lines.len()).sum();
        if bytes > MAX_BUFFERED {
            let stats = self.registry.group::<statsd::Statsd>("statsd.");
            return stats.shared().inc(statsd::CX_OVERFLOW);
        }
        waiting.push(Batch {
            sink,
            cluster: Name::clone(cluster),
            lines,
        });
        waker.wake();
    }

    pub(crate) fn take_statsd(&self) -> Vec<Batch> {
        std::mem::take(&mut *self.statsd.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn wake_all(&self) {
        for waker in &self.wakers {
            waker.wake();
        }
    }
}

/// What a worker thread starts with.
pub(crate) struct WorkerContext {
    pub(crate) id: usize,
    pub(crate) waker: Waker,
    pub(crate) shared: Arc<Shared>,
}
