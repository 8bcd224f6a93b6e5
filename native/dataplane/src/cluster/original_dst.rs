//! ORIGINAL_DST: hosts made on demand from where a connection was headed, and dropped when unused.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tidegate_model::Name;
use tidegate_model::cluster::{HealthStatus, Locality, OriginalDst};
use tidegate_rt::Moment;
use tidegate_snapshot::{Host, HostAddress, HostId};

use super::LbContext;
use super::host::HostRuntime;

/// Ids of such hosts are above all ids that snapshots give out.
const ON_DEMAND: u64 = 1 << 63;

struct Entry {
    host: Rc<HostRuntime>,
    used: Cell<bool>,
}

/// The hosts of one ORIGINAL_DST cluster in one worker.
pub(super) struct OriginalDstHosts {
    config: OriginalDst,
    hosts: FxHashMap<SocketAddr, Entry>,
    next_id: u64,
    cleaned: Moment,
}

impl OriginalDstHosts {
    pub(super) fn new(config: OriginalDst) -> Self {
        Self {
            config,
            hosts: FxHashMap::default(),
            next_id: ON_DEMAND,
            cleaned: Moment::default(),
        }
    }

    pub(super) fn choose(
        &mut self,
        context: &LbContext,
        now: Moment,
        worker: usize,
    ) -> Option<Rc<HostRuntime>> {
        let mut address = match context.header_dst {
            Some(address) if self.config.use_http_header => address,
            _ => context.original_dst?,
        };
        if let Some(port) = self.config.upstream_port_override {
            address.set_port(port);
        }
        if self.hosts.is_empty() {
            self.cleaned = now;
        }
        let next_id = &mut self.next_id;
        let entry = self.hosts.entry(address).or_insert_with(|| {
            *next_id += 1;
            let text = Name::from(address.to_string());
            let host = Arc::new(Host {
                id: HostId(*next_id),
                address: HostAddress::Socket(address),
                hostname: Name::clone(&text),
                address_text: text,
                health: HealthStatus::Unknown,
                weight: 1,
                locality: Arc::new(Locality::default()),
                priority: 0,
                workload: None,
            });
            Entry {
                host: Rc::new(HostRuntime::on_demand(host, worker)),
                used: Cell::new(true),
            }
        });
        entry.used.set(true);
        Some(Rc::clone(&entry.host))
    }

    pub(super) fn hosts(&self) -> Vec<Rc<HostRuntime>> {
        self.hosts
            .values()
            .map(|entry| Rc::clone(&entry.host))
            .collect()
    }

    /// Once per cleanup interval: hosts that were not chosen since the last time and carry nothing go.
    pub(super) fn clean(&mut self, now: Moment) -> Vec<Rc<HostRuntime>> {
        if now.since(self.cleaned) < self.config.cleanup_interval {
            return Vec::new();
        }
        self.cleaned = now;
        let mut gone = Vec::new();
        self.hosts.retain(|_, entry| {
            // A host that is in use has other owners: its connections hold it.
            let keep = entry.used.replace(false) || Rc::strong_count(&entry.host) > 1;
            if !keep {
                entry.host.state.set_gone();
                gone.push(Rc::clone(&entry.host));
            }
            keep
        });
        gone
    }
}
