//! Everything of a worker but its connections.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tidegate_buf::SegmentPool;
use tidegate_model::Name;
use tidegate_rt::{Clock, Errno, Moment, PipePool, Poller, Rng, TimerId, TimerWheel, Token};
use tidegate_snapshot::{ClusterId, Snapshot};
use tidegate_stats::defs::listener_manager::ListenerManager;
use tidegate_stats::{Def, Gauge, Group};

use super::{LogBuffers, own_timer};
use crate::cluster::{ClusterRuntime, Clusters};
use crate::conn::{Key, TimerKey};
use crate::hcm::HttpState;
use crate::istio::metrics::IstioState;
use crate::listener::Listeners;
use crate::pool::Pools;
use crate::shared::{Generation, Shared, WorkerContext};

/// Bytes read at once. 64 KiB responses cost half of what they cost with 16 KiB buffers; beyond 256 KiB nothing is won.
const READ_BUFFER: usize = 256 * 1024;

/// Pipes for splice per worker. Two directions of a transfer take one each, and only while bytes are moving.
const PIPES: usize = 16;

const WAKER: Token = Token {
    index: u32::MAX,
    generation: 1,
    side: 0,
};

/// The worker's read buffer, while a handler has it.
pub type ReadBuf = Box<[u8]>;

/// Everything of a worker but its connections. Handlers get it as `worker.core`.
pub struct Core {
    /// The worker's number, from 0: its cells in every statistics group.
    pub id: usize,
    pub poller: Poller,
    /// Read once per pass.
    pub clock: Clock,
    pub timers: TimerWheel<TimerKey>,
    pub rng: Rng,
    /// The configuration in force. A request takes it anew; a connection holds the chain that it matched.
    pub snapshot: Arc<Snapshot>,
    pub shared: Arc<Shared>,
    /// Balancers, host states and circuit breakers, by cluster.
    pub clusters: Clusters,
    pub listeners: Listeners,
    /// Upstream HTTP connection pools.
    pub pools: Pools,
    /// What the HTTP connections share.
    pub(crate) http: HttpState,
    /// What Istio's filters share.
    pub(crate) istio: IstioState,
    /// The connections of statistics sinks, open or not any more, by the sink's number.
    pub(crate) statsd: FxHashMap<usize, Key>,
    /// Free segments for `OutBuf`.
    pub segments: SegmentPool,
    pub pipes: PipePool,
    pub logs: LogBuffers,
    pub(crate) generation: Arc<Generation>,
    /// When draining connections have to be gone.
    pub(crate) drain_deadlines: Vec<(Moment, Key)>,
    /// Ciphertext on its way, within one call.
    pub(crate) tls_out: Vec<u8>,
    /// What is counted as draining, until when.
    pub(crate) draining: Vec<(Moment, Group<ListenerManager>, Gauge<ListenerManager>, i64)>,
    read_buf: Option<ReadBuf>,
    nudges: VecDeque<(Key, u8, u32)>,
    /// Connections with output that leaves at the end of the pass.
    flushes: Vec<Key>,
    connections: u64,
    pub(crate) original_dst_timer: bool,
}

impl Core {
    pub(crate) fn new(context: WorkerContext, events: usize) -> Result<Self, Errno> {
        let mut poller = Poller::new(events)?;
        poller.set_busy_poll(context.shared.config.busy_poll);
        poller.add_level(&context.waker, WAKER, false)?;
        let clock = Clock::new();
        let generation = context.shared.generation.load_full();
        let shared = context.shared;
        Ok(Self {
            id: context.id,
            timers: TimerWheel::new(clock.now()),
            clock,
            poller,
            rng: Rng::new(),
            snapshot: Arc::clone(&generation.snapshot),
            clusters: Clusters::new(),
            listeners: Listeners::new(),
            pools: Pools::default(),
            http: HttpState::new(),
            istio: IstioState::default(),
            statsd: FxHashMap::default(),
            segments: SegmentPool::new(),
            pipes: PipePool::new(PIPES),
            logs: LogBuffers::new(
                Arc::clone(&shared.log_sink),
                shared.config.log_flush_interval,
            ),
            generation,
            drain_deadlines: Vec::new(),
            tls_out: Vec::new(),
            draining: Vec::new(),
            read_buf: None,
            nudges: VecDeque::new(),
            flushes: Vec::new(),
            connections: 0,
            original_dst_timer: false,
            shared,
        })
    }

    /// The time of this pass.
    #[inline]
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// The same in milliseconds, as the HTTP/2 codec counts.
    #[inline]
    pub(crate) fn now_millis(&self) -> u64 {
        self.clock.now().millis()
    }

    /// The runtime of a cluster, made on first use. `None`: the snapshot has no such cluster.
    #[inline]
    pub fn cluster(&mut self, id: ClusterId) -> Option<Rc<ClusterRuntime>> {
        if let Some(cluster) = self.clusters.get(id) {
            return Some(Rc::clone(cluster));
        }
        let cluster = self
            .clusters
            .make(id, &self.generation.clusters, self.id, &mut self.rng)?;
        self.arm_original_dst_timer();
        Some(cluster)
    }

    /// While there are ORIGINAL_DST clusters, their unused hosts are looked for once per cleanup interval.
    pub(crate) fn arm_original_dst_timer(&mut self) {
        if !self.original_dst_timer
            && let Some(interval) = self.clusters.cleanup_interval()
        {
            self.original_dst_timer = true;
            self.arm_own(interval, own_timer::CLEAN_ORIGINAL_DST);
        }
    }

    /// Arms one of the worker's own timers.
    pub(crate) fn arm_own(&mut self, after: Duration, kind: u8) {
        self.arm(self.clock.now() + after, Key::NONE, kind);
    }

    /// A statistics group. Keep the handle and its `local(core.id)`: finding it hashes the prefix, and the group lives as
    /// long as some handle of it.
    pub fn group<G: Def>(&self, prefix: &str) -> Group<G> {
        self.shared.registry.group::<G>(prefix)
    }

    /// Lends the 256 KiB read buffer; give it back with [`Core::return_read_buf`]. Nested borrowers get a buffer of their
    /// own, which is dropped on return.
    #[inline]
    pub fn lend_read_buf(&mut self) -> ReadBuf {
        self.read_buf
            .take()
            .unwrap_or_else(|| vec![0; READ_BUFFER].into_boxed_slice())
    }

    #[inline]
    pub fn return_read_buf(&mut self, buf: ReadBuf) {
        self.read_buf = Some(buf);
    }

    /// Arms a timer for a connection: it gets `Event::Timer(kind)`.
    #[inline]
    pub fn arm(&mut self, when: Moment, key: Key, kind: u8) -> TimerId {
        self.timers.arm(when, TimerKey { key, kind })
    }

    /// A number for a new connection, downstream or upstream, unique in the process.
    #[inline]
    pub fn next_connection_id(&mut self) -> u64 {
        self.connections += 1;
        (self.connections - 1) * self.shared.wakers.len() as u64 + self.id as u64
    }

    /// Sends `Event::Nudge` to a connection after the present event, within this pass or the next. It is how a
    /// handler reaches a connection that is taken, itself included. A stale key is ignored.
    #[inline]
    pub fn nudge(&mut self, key: Key, why: u8) {
        self.nudges.push_back((key, why, 0));
    }

    /// As [`Core::nudge`], about one of the connection's streams.
    #[inline]
    pub fn nudge_stream(&mut self, key: Key, why: u8, stream: u32) {
        self.nudges.push_back((key, why, stream));
    }

    /// Sends `Event::Flush` to a connection at the end of this pass: what many events produce for one socket leaves in one
    /// write. The caller asks once per pass.
    #[inline]
    pub fn flush_later(&mut self, key: Key) {
        self.flushes.push(key);
    }

    /// Appends a line to an access log.
    #[inline]
    pub fn log(&mut self, path: &Name, write: impl FnOnce(&mut Vec<u8>)) {
        let now = self.clock.now();
        self.logs.append(&mut self.timers, now, path, write);
    }

    pub(crate) fn has_nudges(&self) -> bool {
        !self.nudges.is_empty()
    }

    pub(crate) fn next_nudge(&mut self) -> Option<(Key, u8, u32)> {
        self.nudges.pop_front()
    }

    pub(crate) fn next_flush(&mut self) -> Option<Key> {
        self.flushes.pop()
    }

    pub(crate) fn is_waker(&self, token: Token) -> bool {
        token == WAKER
    }

    pub(crate) fn drain_waker(&self) {
        if let Some(waker) = self.shared.wakers.get(self.id) {
            waker.drain();
        }
    }

    pub(crate) fn stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }
}
