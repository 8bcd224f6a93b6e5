//! Outlier detection: hosts that fail more than others are left out for a while.
//!
//! What comes of requests and connections is told to a host's [`Monitor`] by the workers; a run of failures that has become
//! too long is judged there and then, rates are judged once per interval by whoever calls [`Detector::tick`]. Arithmetic,
//! order and counters are those of Envoy's `DetectorImpl`. The path costs one branch without outlier detection; with it a
//! few stores into cells of the worker's own. Only a judgement takes the lock.

mod judge;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustc_hash::{FxHashMap, FxHashSet};
use tidegate_model::cluster::{HealthStatus, OutlierDetection};
use tidegate_rt::{Clock, Moment, Rng, Waker};
use tidegate_snapshot::{Host, HostId};
use tidegate_stats::Group;
use tidegate_stats::defs::{cluster as cluster_stat, outlier as stat};

use self::judge::Watched;
use super::host::{HostCells, HostTable};
use crate::balance::is_healthy;

/// What came of a try, Envoy's `Outlier::Result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No answer in time.
    LocalTimeout,
    /// No connection, or it was lost before the answer.
    LocalConnectFailed,
    /// A connection over which more will be heard.
    LocalConnectSuccess,
    /// A connection, which is all there is to learn.
    LocalConnectSuccessFinal,
    ExternalFailed,
    ExternalSuccess,
}

/// Why a host is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ejection {
    Consecutive5xx,
    ConsecutiveGatewayFailure,
    ConsecutiveLocalOriginFailure,
    SuccessRate,
    SuccessRateLocalOrigin,
    FailurePercentage,
    FailurePercentageLocalOrigin,
}

/// What is watched of one host.
#[derive(Debug)]
pub struct Monitor {
    host: HostId,
    detector: Weak<Detector>,
    config: Arc<OutlierDetection>,
    ejected: AtomicBool,
    consecutive_5xx: AtomicU32,
    consecutive_gateway_failure: AtomicU32,
    consecutive_local_origin_failure: AtomicU32,
    /// In percent, as bits of `f64`; -1: unknown.
    success_rate: AtomicU64,
    local_origin_success_rate: AtomicU64,
}

/// Resets a counter that most of the time is zero already.
fn clear(counter: &AtomicU32) {
    if counter.load(Ordering::Relaxed) != 0 {
        counter.store(0, Ordering::Relaxed);
    }
}

/// Whether the run of failures has just come to its limit.
fn counts_up_to(counter: &AtomicU32, limit: u32) -> bool {
    counter.fetch_add(1, Ordering::Relaxed).wrapping_add(1) == limit
}

impl Monitor {
    fn new(host: HostId, detector: Weak<Detector>, config: &Arc<OutlierDetection>) -> Self {
        let unknown = (-1.0_f64).to_bits();
        Self {
            host,
            detector,
            config: Arc::clone(config),
            ejected: AtomicBool::new(false),
            consecutive_5xx: AtomicU32::new(0),
            consecutive_gateway_failure: AtomicU32::new(0),
            consecutive_local_origin_failure: AtomicU32::new(0),
            success_rate: AtomicU64::new(unknown),
            local_origin_success_rate: AtomicU64::new(unknown),
        }
    }

    /// The host is left out at the moment.
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Success rates of the last interval in percent, of answers and of connections; -1: unknown.
    pub fn success_rates(&self) -> (f64, f64) {
        let read = |cell: &AtomicU64| f64::from_bits(cell.load(Ordering::Relaxed));
        (
            read(&self.success_rate),
            read(&self.local_origin_success_rate),
        )
    }

    /// Takes note of an outcome. `code`: the HTTP status that stands for it, if there is one. `cells`: of the host, in the
    /// worker that calls.
    pub(crate) fn put(&self, cells: &HostCells, outcome: Outcome, code: Option<u16>) {
        if self.config.split_external_local_origin_errors {
            match outcome {
                Outcome::LocalConnectSuccess | Outcome::LocalConnectSuccessFinal => {
                    self.local_success(cells);
                }
                Outcome::LocalTimeout | Outcome::LocalConnectFailed => self.local_failure(cells),
                // With the status lost, as in Envoy.
                Outcome::ExternalFailed => self.put_code(cells, code.unwrap_or(503)),
                Outcome::ExternalSuccess => {
                    self.put_code(cells, code.unwrap_or(200));
                    self.local_success(cells);
                }
            }
            return;
        }
        let code = code.or(match outcome {
            Outcome::LocalConnectSuccess => None,
            Outcome::ExternalSuccess | Outcome::LocalConnectSuccessFinal => Some(200),
            Outcome::LocalTimeout => Some(504),
            Outcome::LocalConnectFailed => Some(503),
            Outcome::ExternalFailed => Some(500),
        });
        if let Some(code) = code {
            self.put_code(cells, code);
        }
    }

    fn put_code(&self, cells: &HostCells, code: u16) {
        cells.add(&cells.external_total);
        if !(500..600).contains(&code) {
            cells.add(&cells.external_success);
            clear(&self.consecutive_5xx);
            clear(&self.consecutive_gateway_failure);
            return;
        }
        if !matches!(code, 502..=504) {
            clear(&self.consecutive_gateway_failure);
        } else if counts_up_to(
            &self.consecutive_gateway_failure,
            self.config.consecutive_gateway_failure,
        ) {
            self.report(Ejection::ConsecutiveGatewayFailure);
        }
        if counts_up_to(&self.consecutive_5xx, self.config.consecutive_5xx) {
            self.report(Ejection::Consecutive5xx);
        }
    }

    fn local_success(&self, cells: &HostCells) {
        cells.add(&cells.local_total);
        cells.add(&cells.local_success);
        clear(&self.consecutive_local_origin_failure);
    }

    fn local_failure(&self, cells: &HostCells) {
        cells.add(&cells.local_total);
        if counts_up_to(
            &self.consecutive_local_origin_failure,
            self.config.consecutive_local_origin_failure,
        ) {
            self.report(Ejection::ConsecutiveLocalOriginFailure);
        }
    }

    #[cold]
    fn report(&self, why: Ejection) {
        // The cluster may have gone while its last requests end.
        if let Some(detector) = self.detector.upgrade() {
            detector.on_consecutive(self.host, why);
        }
    }

    fn reset_run(&self, why: Ejection) {
        match why {
            Ejection::Consecutive5xx => clear(&self.consecutive_5xx),
            Ejection::ConsecutiveGatewayFailure => clear(&self.consecutive_gateway_failure),
            Ejection::ConsecutiveLocalOriginFailure => {
                clear(&self.consecutive_local_origin_failure);
            }
            _ => {}
        }
    }
}

/// The outlier detection of one incarnation of a cluster, for all workers.
pub struct Detector {
    config: Arc<OutlierDetection>,
    stats: Group<stat::OutlierDetection>,
    membership: Group<cluster_stat::Membership>,
    counters: Arc<HostTable>,
    wakers: Vec<Waker>,
    /// Counts the changes of what is ejected; workers compare it with the version that they have taken over.
    version: AtomicU64,
    state: Mutex<State>,
}

struct State {
    /// In their order.
    members: Vec<Arc<Host>>,
    hosts: FxHashMap<HostId, Watched>,
    ejected: FxHashSet<HostId>,
    /// Mean and threshold of success rates in the last interval, of answers and of connections; -1: unknown.
    rates: [(f64, f64); 2],
    due: Moment,
    rng: Rng,
}

impl Detector {
    pub(crate) fn new(
        config: &OutlierDetection,
        stats: Group<stat::OutlierDetection>,
        membership: Group<cluster_stat::Membership>,
        counters: Arc<HostTable>,
        wakers: Vec<Waker>,
    ) -> Arc<Self> {
        // Looked at, so that it shows as Envoy's does.
        stats.shared().gauge_add(stat::EJECTIONS_ACTIVE, 0);
        Arc::new(Self {
            config: Arc::new(config.clone()),
            stats,
            membership,
            counters,
            wakers,
            version: AtomicU64::new(0),
            state: Mutex::new(State {
                members: Vec::new(),
                hosts: FxHashMap::default(),
                ejected: FxHashSet::default(),
                rates: [(-1.0, -1.0); 2],
                due: Clock::precise() + config.interval,
                rng: Rng::new(),
            }),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts up with every change of [`Detector::ejected`].
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The hosts that are left out.
    pub fn ejected(&self) -> FxHashSet<HostId> {
        self.lock().ejected.clone()
    }

    /// Success rates below which hosts are ejected, of answers and of connections, in percent; -1: unknown.
    pub fn thresholds(&self) -> (f64, f64) {
        let [external, local] = self.lock().rates;
        (external.1, local.1)
    }

    /// What `/clusters` tells of it.
    pub fn texts(&self) -> [(&'static str, f64); 4] {
        let [external, local] = self.lock().rates;
        [
            ("outlier::success_rate_average", external.0),
            ("outlier::success_rate_ejection_threshold", external.1),
            ("outlier::local_origin_success_rate_average", local.0),
            (
                "outlier::local_origin_success_rate_ejection_threshold",
                local.1,
            ),
        ]
    }

    /// `None`: the host is not (or no longer) one of the cluster's.
    pub fn monitor(&self, host: HostId) -> Option<Arc<Monitor>> {
        let state = self.lock();
        state.hosts.get(&host).map(|host| Arc::clone(&host.monitor))
    }

    /// Follows a change of the cluster's hosts.
    pub(crate) fn set_hosts(self: &Arc<Self>, members: Vec<Arc<Host>>) {
        let mut state = self.lock();
        let mut before = std::mem::take(&mut state.hosts);
        state.hosts = members
            .iter()
            .map(|host| {
                let watched = before.remove(&host.id).unwrap_or_else(|| {
                    let monitor = Monitor::new(host.id, Arc::downgrade(self), &self.config);
                    Watched::new(Arc::new(monitor), self.counters.get(host.id))
                });
                (host.id, watched)
            })
            .collect();
        for gone in before.keys() {
            if state.ejected.remove(gone) {
                self.stats.shared().gauge_add(stat::EJECTIONS_ACTIVE, -1);
            }
        }
        state.members = members;
        self.count_members(&state);
    }

    /// The gauges that ejections change.
    fn count_members(&self, state: &State) {
        let count = |wanted: fn(HealthStatus) -> bool| {
            let hosts = state.members.iter();
            hosts
                .filter(|host| wanted(host.health) && !state.ejected.contains(&host.id))
                .count() as i64
        };
        if state.members.is_empty() {
            return;
        }
        let stats = self.membership.shared();
        stats.gauge_set(cluster_stat::MEMBERSHIP_HEALTHY, count(is_healthy));
        let degraded = count(|health| health == HealthStatus::Degraded);
        stats.gauge_set(cluster_stat::MEMBERSHIP_DEGRADED, degraded);
    }

    /// What is ejected has changed: the workers shall know.
    fn changed(&self, state: &State) {
        self.count_members(state);
        self.version.fetch_add(1, Ordering::Release);
        for waker in &self.wakers {
            waker.wake();
        }
    }
}

impl Drop for Detector {
    fn drop(&mut self) {
        let active = self.lock().ejected.len() as i64;
        self.stats
            .shared()
            .gauge_add(stat::EJECTIONS_ACTIVE, -active);
    }
}

/// A host's health as a balancer is to see it.
pub(crate) fn effective_health(ejected: &FxHashSet<HostId>, host: &Host) -> HealthStatus {
    if ejected.contains(&host.id) {
        HealthStatus::Unhealthy
    } else {
        host.health
    }
}
