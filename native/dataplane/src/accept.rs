//! From a listening socket to a connection whose filter chain is known.
//!
//! [`Acceptor`] is a listening socket in a worker's slot. What it accepts goes, still within the same event, through
//! `original_dst`, the hand-off by `use_original_dst` and the filter chain match, and to the chain's network filter as
//! a [`Downstream`]. No listener filter waits for bytes yet, so `listener_filters_timeout` never starts. Nothing here
//! knows what the network filter does.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_rt::{Accepted, Listening, Moment, Socket};
use tidegate_snapshot::Chain;
use tidegate_stats::defs::listener as stat;

use crate::conn::{After, Conn, Event, Key};
use crate::filter_chain;
use crate::listener::{ListenerPermit, ListenerRuntime};
use crate::network;
use crate::original_dst;
use crate::shared::Bound;
use crate::worker::Worker;

/// Connections accepted per event at most; the rest waits for the next pass, so that accepting cannot starve traffic.
const ACCEPTS_PER_EVENT: usize = 64;

/// The addresses and birth of a downstream connection.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionInfo {
    /// Unique in the process (`%CONNECTION_ID%`).
    pub id: u64,
    /// The peer (`%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%`).
    pub remote: SocketAddr,
    /// Where the peer wanted to go: the original destination if it was looked up, else the socket's own address
    /// (`%DOWNSTREAM_LOCAL_ADDRESS%`).
    pub local: SocketAddr,
    /// The socket's own address (`%DOWNSTREAM_DIRECT_LOCAL_ADDRESS%`).
    pub direct_local: SocketAddr,
    /// `local` was restored from the kernel's NAT table.
    pub local_restored: bool,
    pub accepted_at: Moment,
}

/// An accepted connection as its network filter gets it.
#[derive(Debug)]
pub struct Downstream {
    pub socket: Socket,
    pub info: ConnectionInfo,
    /// The listener that serves it (after the hand-off): configuration, draining state, statistics.
    pub listener: Rc<ListenerRuntime>,
    /// The filter chain that matched; held for the connection's life.
    pub chain: Arc<Chain>,
    /// Its place among the listener's connections; dropping it gives the place back.
    pub permit: ListenerPermit,
}

/// A listening socket.
pub struct Acceptor {
    socket: Arc<Listening>,
    local: SocketAddr,
    listener: Rc<ListenerRuntime>,
    /// How many to accept at the next event. One as long as connections come one at a time: the socket is watched
    /// level-triggered, so the call that would find the queue empty is saved. Doubled while they queue up.
    burst: usize,
}

impl Acceptor {
    /// Starts to accept from this worker's socket of a bound address.
    pub(crate) fn open(
        worker: &mut Worker,
        listener: &Rc<ListenerRuntime>,
        bound: &Arc<Bound>,
    ) -> Option<Key> {
        let socket = Arc::clone(bound.sockets.get(worker.core.id)?);
        let key = worker.conns.reserve();
        if worker
            .core
            .poller
            .add_level(&*socket, key.token(0), bound.same_socket)
            .is_err()
        {
            worker.conns.remove(key);
            return None;
        }
        worker.conns.put(
            key,
            Conn::Acceptor(Box::new(Self {
                socket,
                local: bound.local,
                listener: Rc::clone(listener),
                burst: 1,
            })),
        );
        Some(key)
    }

    /// Connections accepted from now on belong to this version of the listener.
    pub(crate) fn set_listener(&mut self, listener: Rc<ListenerRuntime>) {
        self.listener = listener;
    }

    pub(crate) fn on_event(&mut self, worker: &mut Worker, event: Event) -> After {
        if let Event::Ready { .. } = event {
            let accepted = self.accept(worker, self.burst);
            self.burst = if accepted == self.burst {
                (self.burst * 2).min(ACCEPTS_PER_EVENT)
            } else {
                1
            };
        }
        After::Keep
    }

    /// Accepts what is queued and stops listening.
    pub(crate) fn close(&mut self, worker: &mut Worker) {
        let _all = self.accept(worker, usize::MAX);
        let _already_gone = worker.core.poller.remove(&*self.socket);
    }

    /// Returns how many were accepted. Out of descriptors or memory counts as none left: the connection stays queued and
    /// the socket stays ready, so the next pass tries again.
    fn accept(&mut self, worker: &mut Worker, at_most: usize) -> usize {
        for accepted in 0..at_most {
            let Ok(Accepted { socket, remote }) = self.socket.accept() else {
                return accepted;
            };
            let info = self.info(worker, &socket, remote);
            admit(worker, &self.listener, socket, info);
        }
        at_most
    }

    fn info(&self, worker: &mut Worker, socket: &Socket, remote: SocketAddr) -> ConnectionInfo {
        let config = &self.listener.compiled.config;
        // A socket that listens on one address has that address; only a wildcard needs to be asked.
        let direct_local = if self.local.ip().is_unspecified() || config.transparent {
            socket.local_addr().unwrap_or(self.local)
        } else {
            self.local
        };
        let mut info = ConnectionInfo {
            id: worker.core.next_connection_id(),
            remote,
            local: direct_local,
            direct_local,
            local_restored: false,
            accepted_at: worker.core.now(),
        };
        original_dst::restore(config, socket, &mut info);
        info
    }
}

/// Hand-off, filter chain match and the network filter for one accepted connection.
fn admit(
    worker: &mut Worker,
    accepted_by: &Rc<ListenerRuntime>,
    socket: Socket,
    mut info: ConnectionInfo,
) {
    // Nothing waits in listener filters; the gauge is marked as used, as Envoy's is.
    accepted_by
        .stats
        .gauge_add(stat::DOWNSTREAM_PRE_CX_ACTIVE, 0);
    let listener = original_dst::hand_off(&worker.core, accepted_by, &socket, &mut info);
    let Some(chain) = filter_chain::find(&listener, &info) else {
        filter_chain::not_found(worker, &listener, &info);
        return;
    };
    let Some(permit) = listener.admit(worker.core.now()) else {
        listener.count_overflow();
        return;
    };
    let downstream = Downstream {
        socket,
        info,
        listener,
        chain,
        permit,
    };
    network::open(worker, downstream);
}
