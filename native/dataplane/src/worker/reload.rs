//! Taking over a new generation: listeners, clusters and what drains because of it.

use std::rc::Rc;
use std::sync::Arc;

use tidegate_model::listener::TrafficDirection;
use tidegate_snapshot::Chain;
use tidegate_stats::Gauge;
use tidegate_stats::defs::listener_manager::{self as manager_stat, ListenerManager};

use super::{Core, Worker, own_timer};
use crate::accept::Acceptor;
use crate::cluster::GoneHost;
use crate::conn::{Conn, Event, Key};
use crate::drain::drains;
use crate::listener::{Entry, ListenerRuntime, ListenerShared};
use crate::pool;
use crate::shared::DrainScope;

impl Worker {
    /// Brings the worker in line with what is published. Unchanged listeners and clusters are not touched.
    pub(super) fn reload(&mut self) {
        let generation = self.core.shared.generation.load_full();
        if !Arc::ptr_eq(&generation, &self.core.generation)
            || self.core.listeners.entries.is_empty()
        {
            self.core.generation = Arc::clone(&generation);
            self.core.snapshot = Arc::clone(&generation.snapshot);
            let gone = self
                .core
                .clusters
                .update(&generation.snapshot, &mut self.core.rng);
            self.hosts_gone(gone);
            self.reload_listeners(&generation.listeners);
            self.core.http.forget_unused_managers();
            self.core.http.grpc.follow(&generation.snapshot);
        }
        for ejected in self.core.clusters.follow_health(&mut self.core.rng) {
            pool::drain_host(self, &ejected);
        }
        self.follow_drain();
    }

    fn hosts_gone(&mut self, gone: Vec<GoneHost>) {
        for host in gone {
            pool::host_gone(self, &host);
        }
    }

    pub(super) fn clean_original_dst(&mut self) {
        let now = self.core.now();
        let gone = self.core.clusters.clean_original_dst(now);
        self.hosts_gone(gone);
        self.core.original_dst_timer = false;
        self.core.arm_original_dst_timer();
    }

    fn reload_listeners(&mut self, listeners: &[Option<Arc<ListenerShared>>]) {
        let current: Vec<&Arc<ListenerShared>> = listeners.iter().flatten().collect();
        let ids: rustc_hash::FxHashSet<_> =
            current.iter().map(|shared| shared.compiled.id()).collect();
        let removed: Vec<_> = self
            .core
            .listeners
            .entries
            .keys()
            .filter(|id| !ids.contains(id))
            .copied()
            .collect();
        for id in removed {
            if let Some(entry) = self.core.listeners.entries.remove(&id) {
                self.close_acceptors(entry.acceptors.into_iter().map(|(_, key)| key));
                self.count_draining(manager_stat::TOTAL_LISTENERS_DRAINING, 1);
                self.drain_listener(&entry.runtime);
            }
        }
        for shared in current {
            self.reload_listener(shared);
        }
    }

    fn reload_listener(&mut self, shared: &ListenerShared) {
        let id = shared.compiled.id();
        let old = self.core.listeners.entries.remove(&id);
        let mut replaced = None;
        let (runtime, mut before) = match old {
            Some(entry) if Arc::ptr_eq(&entry.runtime.compiled, &shared.compiled) => {
                (entry.runtime, entry.acceptors)
            }
            Some(entry) => {
                replaced = Some(entry.runtime);
                (
                    Rc::new(ListenerRuntime::new(shared, self.core.id)),
                    entry.acceptors,
                )
            }
            None => (
                Rc::new(ListenerRuntime::new(shared, self.core.id)),
                Vec::new(),
            ),
        };
        let mut acceptors = Vec::with_capacity(shared.bound.len());
        for bound in &shared.bound {
            if let Some(position) = before.iter().position(|(old, _)| Arc::ptr_eq(old, bound)) {
                let (bound, key) = before.swap_remove(position);
                if let Some(Conn::Acceptor(acceptor)) = self.conns.get_mut(key) {
                    acceptor.set_listener(Rc::clone(&runtime));
                }
                acceptors.push((bound, key));
            } else if let Some(key) = Acceptor::open(self, &runtime, bound) {
                acceptors.push((Arc::clone(bound), key));
            }
        }
        self.close_acceptors(before.into_iter().map(|(_, key)| key));
        self.core.listeners.entries.insert(
            id,
            Entry {
                runtime: Rc::clone(&runtime),
                acceptors,
            },
        );
        if let Some(old) = replaced {
            self.drain_replaced(&old, &runtime);
        }
    }

    /// A listener has a new version. Where only filter chains have changed, whose connections leave are those whose chain is
    /// gone, by whichever version of the listener they came; else all leave.
    fn drain_replaced(&mut self, old: &Rc<ListenerRuntime>, new: &Rc<ListenerRuntime>) {
        let id = new.compiled.id();
        if !old
            .compiled
            .config
            .may_become_in_place(&new.compiled.config)
        {
            let now = self.core.now();
            old.start_drain(now);
            self.count_draining(manager_stat::TOTAL_LISTENERS_DRAINING, 1);
            return self.drain_connections(|listener, _| {
                let concerned = listener.compiled.id() == id && !Rc::ptr_eq(listener, new);
                if concerned {
                    listener.start_drain(now);
                }
                concerned
            });
        }
        let chains = &new.compiled.filter_chains;
        let lives = |chain: &Arc<Chain>| {
            chains
                .chains()
                .iter()
                .chain(chains.default_chain())
                .any(|other| Arc::ptr_eq(other, chain))
        };
        let next = |chain: &Arc<Chain>| {
            let mut all = chains.all();
            all.find(|new| chain.config.differs_by_discovery(&new.config))
        };
        let before = old.compiled.filter_chains.chains();
        let gone = before
            .iter()
            .filter(|chain| !lives(chain) && next(chain).is_none())
            .count();
        self.count_draining(manager_stat::TOTAL_FILTER_CHAINS_DRAINING, gone as i64);
        for key in self.conns.keys() {
            if let Some(Conn::Http(connection)) = self.conns.get_mut(key)
                && connection.listener().compiled.id() == id
                && !lives(connection.chain())
                && let Some(chain) = next(connection.chain())
            {
                connection.adopt(&mut self.core, chain);
            }
        }
        self.drain_connections(|listener, chain| {
            listener.compiled.id() == id && chain.is_some_and(|chain| !lives(chain))
        });
    }

    /// Counts what drains for the process, until the drain time is over: the first worker does it for all.
    fn count_draining(&mut self, gauge: Gauge<ListenerManager>, count: i64) {
        if self.core.id != 0 || count == 0 {
            return;
        }
        let stats = self.core.group("listener_manager.");
        stats.shared().gauge_add(gauge, count);
        let until = self.core.now() + self.core.shared.config.drain_time;
        self.core.draining.push((until, stats, gauge, count));
        self.core.arm_own(
            self.core.shared.config.drain_time,
            own_timer::DRAIN_DEADLINE,
        );
    }

    /// Drains a listener with all its connections, those accepted under earlier versions included.
    fn drain_listener(&mut self, runtime: &Rc<ListenerRuntime>) {
        let now = self.core.now();
        let id = runtime.compiled.id();
        runtime.start_drain(now);
        self.drain_connections(|listener, _| {
            let concerned = listener.compiled.id() == id;
            if concerned {
                listener.start_drain(now);
            }
            concerned
        });
    }

    /// What is queued in a listening socket is accepted before the socket goes: the kernel would reset it.
    fn close_acceptors(&mut self, keys: impl Iterator<Item = Key>) {
        for key in keys {
            if let Some(Conn::Acceptor(mut acceptor)) = self.conns.take(key) {
                acceptor.close(self);
            }
            self.conns.remove(key);
        }
    }

    /// Sends `Event::Drain` to the connections of a listener and chain, and sees to it that none stays for ever.
    fn drain_connections(
        &mut self,
        concerned: impl Fn(&Rc<ListenerRuntime>, Option<&Arc<Chain>>) -> bool,
    ) {
        let keys: Vec<Key> = self
            .conns
            .keys()
            .into_iter()
            .filter(|key| {
                self.conns
                    .get(*key)
                    .and_then(drains)
                    .is_some_and(|(listener, chain)| concerned(listener, chain))
            })
            .collect();
        if keys.is_empty() {
            return;
        }
        let deadline = self.core.now() + self.core.shared.config.drain_time;
        for key in keys {
            self.core.drain_deadlines.push((deadline, key));
            self.dispatch(key, Event::Drain);
        }
        self.core.arm_own(
            self.core.shared.config.drain_time,
            own_timer::DRAIN_DEADLINE,
        );
    }

    pub(super) fn on_drain_deadline(&mut self) {
        let now = self.core.now();
        self.core.draining.retain(|(until, stats, gauge, count)| {
            if *until <= now {
                stats.shared().gauge_add(*gauge, -count);
            }
            *until > now
        });
        let due: Vec<Key> = {
            let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.core.drain_deadlines)
                .into_iter()
                .partition(|(deadline, _)| *deadline <= now);
            self.core.drain_deadlines = later;
            due.into_iter().map(|(_, key)| key).collect()
        };
        for key in due {
            self.dispatch(key, Event::DrainDeadline);
        }
    }

    /// Follows the process-wide drain: listeners in its scope ask their connections to leave.
    fn follow_drain(&mut self) {
        let scope = self.core.shared.drain_scope();
        if scope == DrainScope::None {
            return;
        }
        let concerned: Vec<_> = self
            .core
            .listeners
            .entries
            .iter()
            .filter(|(_, entry)| {
                scope == DrainScope::All || entry.runtime.direction() == TrafficDirection::Inbound
            })
            .map(|(_, entry)| Rc::clone(&entry.runtime))
            .collect();
        for runtime in concerned {
            if runtime.draining_since().is_none() {
                self.drain_listener(&runtime);
            }
        }
    }
}

impl Core {
    /// The chain that has taken another's place since ECDS delivered something; `None`: it is in force, or gone.
    pub(crate) fn successor(
        &self,
        listener: &Rc<ListenerRuntime>,
        chain: &Arc<Chain>,
    ) -> Option<Arc<Chain>> {
        let current = &self.listeners.entries.get(&listener.compiled.id())?.runtime;
        if Rc::ptr_eq(current, listener) {
            return None;
        }
        let chains = &current.compiled.filter_chains;
        if chains.all().any(|other| Arc::ptr_eq(other, chain)) {
            return None;
        }
        let mut all = chains.all();
        all.find(|new| chain.config.differs_by_discovery(&new.config))
            .map(Arc::clone)
    }
}
