//! How far the process has come: clusters first, then listeners, then traffic.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tidegate_model::bootstrap::DynamicResources;
use tidegate_stats::Shared;
use tidegate_stats::defs::server;

/// `server_info.state`, with the values of the `server.state` gauge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    Live = 0,
    Draining = 1,
    /// Waiting for the clusters.
    PreInitializing = 2,
    /// Waiting for the listeners.
    Initializing = 3,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
            Self::PreInitializing => "PRE_INITIALIZING",
            Self::Initializing => "INITIALIZING",
        }
    }
}

/// The state for threads that must not wait for the configuration lock (`/ready`).
#[derive(Debug)]
pub(crate) struct ServerState {
    progress: AtomicU8,
    /// `/healthcheck/fail` or a drain of the process.
    failing: AtomicBool,
    /// `server.state` is told at once: pilot-agent's readiness reads it, and does not wait for a flush.
    told: OnceLock<Shared<server::Server>>,
}

impl ServerState {
    pub(crate) fn new() -> Self {
        Self {
            progress: AtomicU8::new(State::PreInitializing as u8),
            failing: AtomicBool::new(false),
            told: OnceLock::new(),
        }
    }

    /// Where the state is told from now on.
    pub(crate) fn tell(&self, stats: Shared<server::Server>) {
        let _first = self.told.set(stats);
        self.say();
    }

    fn say(&self) {
        if let Some(stats) = self.told.get() {
            stats.gauge_set(server::STATE, self.get() as i64);
        }
    }

    pub(crate) fn get(&self) -> State {
        match self.progress.load(Ordering::Relaxed) {
            0 if self.failing.load(Ordering::Relaxed) => State::Draining,
            0 => State::Live,
            2 => State::PreInitializing,
            _ => State::Initializing,
        }
    }

    pub(crate) fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
        self.say();
    }

    fn set(&self, state: State) {
        self.progress.store(state as u8, Ordering::Relaxed);
        self.say();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wildcard {
    NotConfigured,
    Waiting,
    /// A first response came (or was refused), or the time for it is over.
    Answered,
}

/// What initialisation still waits for.
#[derive(Debug)]
pub(crate) struct Init {
    cds: Wildcard,
    lds: Wildcard,
    clusters_ready: bool,
    done: bool,
}

impl Init {
    pub(crate) fn new(dynamic: &DynamicResources) -> Self {
        let waiting = |configured: bool| {
            if configured {
                Wildcard::Waiting
            } else {
                Wildcard::NotConfigured
            }
        };
        Self {
            cds: waiting(dynamic.cds.is_some()),
            lds: waiting(dynamic.lds.is_some()),
            clusters_ready: false,
            done: false,
        }
    }

    pub(crate) fn cds_answered(&mut self) {
        self.cds = Wildcard::Answered;
    }

    pub(crate) fn lds_answered(&mut self) {
        self.lds = Wildcard::Answered;
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    pub(crate) fn listeners_may_be_asked_for(&self) -> bool {
        self.clusters_ready
    }
}

impl super::Manager {
    /// True when a stage was completed.
    pub(super) fn advance_init(&mut self) -> bool {
        if self.init.done || self.dataplane.is_none() || !self.runtime_is_settled() {
            return false;
        }
        let init = &mut self.init;
        if !init.clusters_ready {
            if init.cds == Wildcard::Waiting || !self.clusters.warming.is_empty() {
                return false;
            }
            init.clusters_ready = true;
            self.subscriptions_stale = true;
            self.context.state.set(State::Initializing);
            self.count_asking(self.dynamic.lds.as_ref(), self.stats.lds.as_ref());
            return true;
        }
        if init.lds == Wildcard::Waiting
            || !self
                .listeners
                .are_warm(&self.routes, &self.secrets, &self.extensions)
        {
            return false;
        }
        init.done = true;
        self.context.state.set(State::Live);
        true
    }
}
