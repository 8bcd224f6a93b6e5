//! The counters of gRPC methods, made when a method is first called.

use std::rc::Rc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tidegate_model::Name;
use tidegate_model::cluster::Cluster;
use tidegate_snapshot::Snapshot;
use tidegate_stats::defs::grpc;
use tidegate_stats::{Group, Local, Registry};

/// `cluster.NAME.grpc.SERVICE.METHOD.`, in one worker.
pub(crate) struct MethodCounters {
    stats: Local<grpc::Grpc>,
    cluster: Name,
    /// Keeps the counters when the last call is over.
    _group: Group<grpc::Grpc>,
}

impl MethodCounters {
    pub(super) fn of(group: Group<grpc::Grpc>, worker: usize, cluster: Name) -> Self {
        Self {
            stats: group.local(worker),
            cluster,
            _group: group,
        }
    }

    pub(super) fn request_messages(&self, count: u64) {
        self.stats.add(grpc::REQUEST_MESSAGE_COUNT, count);
    }

    pub(super) fn response_messages(&self, count: u64) {
        self.stats.add(grpc::RESPONSE_MESSAGE_COUNT, count);
    }

    /// A call is over; 0 is success.
    pub(super) fn status(&self, status: &[u8]) {
        let code = std::str::from_utf8(status)
            .ok()
            .and_then(|status| status.parse::<u64>().ok());
        if let Some(code) = code
            && let Some(counter) = grpc::STATUSES.get(code as usize)
        {
            self.stats.inc(*counter);
        }
        self.stats.inc(if code == Some(0) {
            grpc::SUCCESS
        } else {
            grpc::FAILURE
        });
        self.stats.inc(grpc::TOTAL);
    }

    pub(super) fn upstream_time(&self, elapsed: Duration) {
        self.stats
            .record(grpc::UPSTREAM_RQ_TIME, elapsed.as_millis() as u64);
    }
}

/// All of a worker's, by prefix.
#[derive(Default)]
pub(crate) struct GrpcCounters {
    by_prefix: FxHashMap<Box<str>, Rc<MethodCounters>>,
    prefix: String,
    name: String,
}

impl GrpcCounters {
    /// Those of a cluster and method. `family`: `grpc` or `grpc-web`; `name` writes what stands behind it, and says whether the
    /// call is counted.
    pub(super) fn find(
        &mut self,
        registry: &Registry,
        worker: usize,
        cluster: &Cluster,
        family: &str,
        name: impl FnOnce(&mut String) -> bool,
    ) -> Option<Rc<MethodCounters>> {
        if !name(&mut self.name) {
            return None;
        }
        self.prefix.clear();
        for part in [
            "cluster.",
            &cluster.alt_stat_name,
            ".",
            family,
            ".",
            &self.name,
        ] {
            self.prefix.push_str(part);
        }
        if let Some(known) = self.by_prefix.get(self.prefix.as_str()) {
            return Some(Rc::clone(known));
        }
        let group = registry.group(&self.prefix);
        let made = Rc::new(MethodCounters::of(
            group,
            worker,
            Name::clone(&cluster.name),
        ));
        self.by_prefix
            .insert(self.prefix.as_str().into(), Rc::clone(&made));
        Some(made)
    }

    /// Forgets what belongs to clusters that are gone.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot) {
        self.by_prefix
            .retain(|_, counters| snapshot.cluster_by_name(&counters.cluster).is_some());
    }
}
