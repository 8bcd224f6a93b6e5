//! ORIGINAL_DST: hosts made on demand from where a connection was headed, and dropped when unused.
//!
//! A host is one for all workers: its counters and what outlier detection knows of it. It is theirs to share under a lock
//! ([`OnDemandHosts`]) that a worker takes when it first meets an address, and when it drops it; what a worker chooses from
//! is its own ([`OriginalDstHosts`]). Health is not looked at, as in Envoy: an ejected host loses its connections, and is
//! chosen again.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tidegate_model::Name;
use tidegate_model::cluster::{HealthStatus, Locality, OriginalDst};
use tidegate_rt::Moment;
use tidegate_snapshot::{Host, HostAddress, HostId, TransportIndex};
use tidegate_stats::{Group, defs::cluster as stat};

use super::LbContext;
use super::host::{HostRuntime, HostTable};
use super::outlier::Detector;

/// Ids of such hosts are above all ids that snapshots give out.
const ON_DEMAND: u64 = 1 << 63;

/// What the workers share of the hosts of one incarnation of a cluster.
pub(crate) struct OnDemandHosts {
    /// Of hosts without metadata.
    transport: TransportIndex,
    counters: Arc<HostTable>,
    detector: Option<Arc<Detector>>,
    membership: Group<stat::Membership>,
    known: Mutex<FxHashMap<SocketAddr, Known>>,
}

struct Known {
    host: Arc<Host>,
    workers: usize,
}

impl OnDemandHosts {
    pub(crate) fn new(
        transport: TransportIndex,
        counters: Arc<HostTable>,
        detector: Option<Arc<Detector>>,
        membership: Group<stat::Membership>,
    ) -> Self {
        Self {
            transport,
            counters,
            detector,
            membership,
            known: Mutex::new(FxHashMap::default()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<SocketAddr, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All hosts, in the order of their coming.
    pub(crate) fn hosts(&self) -> Vec<Arc<Host>> {
        in_order(&self.lock())
    }

    /// One more worker has a host for the address.
    fn join(&self, address: SocketAddr) -> Arc<Host> {
        static MADE: AtomicU64 = AtomicU64::new(ON_DEMAND);
        let mut known = self.lock();
        if let Some(known) = known.get_mut(&address) {
            known.workers += 1;
            return Arc::clone(&known.host);
        }
        let text = Name::from(address.to_string());
        let host = Arc::new(Host {
            id: HostId(MADE.fetch_add(1, Ordering::Relaxed)),
            address: HostAddress::Socket(address),
            hostname: Name::clone(&text),
            address_text: text,
            health: HealthStatus::Unknown,
            weight: 1,
            locality: Arc::new(Locality::default()),
            priority: 0,
            transport: self.transport,
            workload: None,
            lb_metadata: None,
        });
        known.insert(
            address,
            Known {
                host: Arc::clone(&host),
                workers: 1,
            },
        );
        self.changed(&known);
        host
    }

    /// A worker has dropped its host for the address; with the last one it goes.
    fn leave(&self, address: SocketAddr) {
        let mut known = self.lock();
        match known.get_mut(&address) {
            Some(entry) if entry.workers > 1 => entry.workers -= 1,
            _ => {
                if let Some(gone) = known.remove(&address) {
                    self.counters.remove(gone.host.id);
                    self.changed(&known);
                }
            }
        }
    }

    fn changed(&self, known: &FxHashMap<SocketAddr, Known>) {
        let stats = self.membership.shared();
        stats.inc(stat::MEMBERSHIP_CHANGE);
        stats.gauge_set(stat::MEMBERSHIP_TOTAL, known.len() as i64);
        if let Some(detector) = &self.detector {
            detector.set_hosts(in_order(known));
        }
        // All of them, ejected or not, until the next ejection: as Envoy counts.
        stats.gauge_set(stat::MEMBERSHIP_HEALTHY, known.len() as i64);
    }
}

fn in_order(known: &FxHashMap<SocketAddr, Known>) -> Vec<Arc<Host>> {
    let mut hosts: Vec<_> = known
        .values()
        .map(|known| Arc::clone(&known.host))
        .collect();
    hosts.sort_unstable_by_key(|host| host.id);
    hosts
}

struct Entry {
    host: Rc<HostRuntime>,
    used: Cell<bool>,
}

/// The hosts of one ORIGINAL_DST cluster in one worker.
pub(super) struct OriginalDstHosts {
    upstream_port_override: Option<u16>,
    cleanup_interval: Duration,
    shared: Arc<OnDemandHosts>,
    hosts: FxHashMap<SocketAddr, Entry>,
    cleaned: Moment,
}

impl OriginalDstHosts {
    pub(super) fn new(config: &OriginalDst, shared: &Arc<OnDemandHosts>) -> Self {
        Self {
            upstream_port_override: config.upstream_port_override,
            cleanup_interval: config.cleanup_interval,
            shared: Arc::clone(shared),
            hosts: FxHashMap::default(),
            cleaned: Moment::default(),
        }
    }

    pub(super) fn choose(
        &mut self,
        context: &LbContext,
        now: Moment,
        worker: usize,
    ) -> Option<Rc<HostRuntime>> {
        let mut address = context.named_dst.or(context.original_dst)?;
        if let Some(port) = self.upstream_port_override {
            address.set_port(port);
        }
        if self.hosts.is_empty() {
            self.cleaned = now;
        }
        let shared = &self.shared;
        let entry = self.hosts.entry(address).or_insert_with(|| {
            let host = shared.join(address);
            let counters = shared.counters.get(host.id);
            let detector = shared.detector.as_ref();
            let monitor = detector.and_then(|detector| detector.monitor(host.id));
            Entry {
                host: Rc::new(HostRuntime::new(host, counters, monitor, worker)),
                used: Cell::new(true),
            }
        });
        entry.used.set(true);
        Some(Rc::clone(&entry.host))
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &Rc<HostRuntime>> {
        self.hosts.values().map(|entry| &entry.host)
    }

    /// Once per cleanup interval: hosts that were not chosen since the last time and carry nothing go.
    pub(super) fn clean(&mut self, now: Moment) -> Vec<Rc<HostRuntime>> {
        if now.since(self.cleaned) < self.cleanup_interval {
            return Vec::new();
        }
        self.cleaned = now;
        let mut gone = Vec::new();
        let shared = &self.shared;
        self.hosts.retain(|address, entry| {
            // A host that is in use has other owners: its connections hold it.
            let keep = entry.used.replace(false) || Rc::strong_count(&entry.host) > 1;
            if !keep {
                entry.host.state.set_gone();
                shared.leave(*address);
                gone.push(Rc::clone(&entry.host));
            }
            keep
        });
        gone
    }
}
