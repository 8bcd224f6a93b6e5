//! From a listening socket to a connection whose filter chain is known.
//!
//! [`Acceptor`] is a listening socket in a worker's slot. What it accepts goes through the listener filters (see
//! `listener_filters`: still within the same event unless one waits for bytes), and then by the filter chain match to the
//! chain's network filters as a [`Downstream`]. Nothing here knows what those do.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate_model::Name;
use tidegate_rt::{Accepted, Errno, Listening, Moment, Socket};
use tidegate_snapshot::{ApplicationProtocols, Chain, ListenerId};
use tidegate_stats::defs::listener as stat;
use tidegate_stats::defs::ssl as ssl_stat;
use tidegate_tls::{Session, TlsInfo};

use crate::conn::{After, Conn, Event, Key};
use crate::filter_chain;
use crate::listener::{BalanceShare, ListenerPermit, ListenerRuntime};
use crate::listener_filters::{self, Arrival};
use crate::network;
use crate::network::read_filters::ReadFilters;
use crate::shared::Bound;
use crate::transport::Transport;
use crate::worker::Worker;

/// Connections accepted per event at most; the rest waits for the next pass, so that accepting cannot starve traffic.
const ACCEPTS_PER_EVENT: usize = 64;

/// How long accepting rests when the system is out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// The transport protocol of a connection that no inspector has seen another one in.
pub(crate) const RAW_BUFFER: &str = "raw_buffer";

/// The addresses and birth of a downstream connection, and what listener filters have found out about it.
#[derive(Debug, Clone)]
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
    /// `raw_buffer`, or `tls` where an inspector has seen a ClientHello.
    pub transport_protocol: &'static str,
    /// The server name of the ClientHello, in lower case (`%REQUESTED_SERVER_NAME%`).
    pub requested_server_name: Option<Name>,
    /// The client's ALPN list, or the version that its first line tells.
    pub application_protocols: ApplicationProtocols,
    /// What the TLS handshake has told, once it is done.
    pub tls: Option<Rc<TlsInfo>>,
    /// What is told of the client's certificate in `x-forwarded-client-cert`.
    pub(crate) client_cert: Option<Rc<[u8]>>,
}

impl ConnectionInfo {
    /// Just accepted.
    pub(crate) const fn new(
        id: u64,
        remote: SocketAddr,
        direct_local: SocketAddr,
        now: Moment,
    ) -> Self {
        Self {
            id,
            remote,
            local: direct_local,
            direct_local,
            local_restored: false,
            accepted_at: now,
            transport_protocol: RAW_BUFFER,
            requested_server_name: None,
            application_protocols: ApplicationProtocols::Unknown,
            tls: None,
            client_cert: None,
        }
    }
}

/// An accepted connection as its network filter gets it.
#[derive(Debug)]
pub struct Downstream {
    pub(crate) transport: Transport,
    pub info: ConnectionInfo,
    /// The listener that serves it (after the hand-off): configuration, draining state, statistics.
    pub listener: Rc<ListenerRuntime>,
    /// The filter chain that matched; held for the connection's life.
    pub chain: Arc<Chain>,
    /// Its place among the listener's connections; dropping it gives the place back.
    pub permit: ListenerPermit,
    /// The network filters before the terminal one; most chains have none.
    pub(crate) filters: Option<Box<ReadFilters>>,
}

/// A listening socket.
pub struct Acceptor {
    socket: Arc<Listening>,
    local: SocketAddr,
    listener: Rc<ListenerRuntime>,
    /// How many to accept at the next event. One as long as connections come one at a time: the socket is watched
    /// level-triggered, so the call that would find the queue empty is saved. Doubled while they queue up.
    burst: usize,
    same_socket: bool,
}

/// A connection that another worker accepted, for a listener with `exact_balance`.
#[derive(Debug)]
pub(crate) struct HandedOver {
    /// The one that serves it (after the hand-off).
    listener: ListenerId,
    socket: Socket,
    id: u64,
    remote: SocketAddr,
    local: SocketAddr,
    direct_local: SocketAddr,
    local_restored: bool,
    accepted_at: Moment,
    transport_protocol: &'static str,
    requested_server_name: Option<Name>,
    application_protocols: ApplicationProtocols,
    share: BalanceShare,
    /// The listener filter whose turn it is.
    next_filter: usize,
}

impl HandedOver {
    pub(crate) fn new(
        listener: ListenerId,
        socket: Socket,
        info: &ConnectionInfo,
        share: BalanceShare,
        next_filter: usize,
    ) -> Self {
        Self {
            listener,
            socket,
            id: info.id,
            remote: info.remote,
            local: info.local,
            direct_local: info.direct_local,
            local_restored: info.local_restored,
            accepted_at: info.accepted_at,
            transport_protocol: info.transport_protocol,
            requested_server_name: info.requested_server_name.clone(),
            application_protocols: info.application_protocols.clone(),
            share,
            next_filter,
        }
    }

    pub(crate) const fn worker(&self) -> usize {
        self.share.worker
    }

    /// In the worker it was handed to. If the listener has just gone, the connection is closed.
    pub(crate) fn take_over(self, worker: &mut Worker) {
        let Some(listener) = worker.core.listeners.get(self.listener) else {
            return;
        };
        let info = ConnectionInfo {
            id: self.id,
            remote: self.remote,
            local: self.local,
            direct_local: self.direct_local,
            local_restored: self.local_restored,
            accepted_at: self.accepted_at,
            transport_protocol: self.transport_protocol,
            requested_server_name: self.requested_server_name,
            application_protocols: self.application_protocols,
            tls: None,
            client_cert: None,
        };
        let listener = Rc::clone(listener);
        let arrival =
            Arrival::handed_over(listener, self.socket, info, self.share, self.next_filter);
        listener_filters::proceed(worker, arrival);
    }
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
                same_socket: bound.same_socket,
            })),
        );
        Some(key)
    }

    /// Connections accepted from now on belong to this version of the listener.
    pub(crate) fn set_listener(&mut self, listener: Rc<ListenerRuntime>) {
        self.listener = listener;
    }

    pub(crate) fn on_event(&mut self, worker: &mut Worker, key: Key, event: Event) -> After {
        match event {
            Event::Ready { .. } => match self.accept(worker, self.burst) {
                Ok(accepted) => {
                    self.listener
                        .stats
                        .record(stat::CONNECTIONS_ACCEPTED_PER_SOCKET_EVENT, accepted as u64);
                    self.burst = if accepted == self.burst {
                        (self.burst * 2).min(self.most())
                    } else {
                        1
                    };
                }
                // Out of descriptors or memory. The connection stays queued and the socket stays ready: without a pause
                // the loop would spin on it.
                Err(_) => {
                    let _already_gone = worker.core.poller.remove(&*self.socket);
                    worker.core.arm(worker.core.now() + PAUSE, key, 0);
                }
            },
            Event::Timer(_) => {
                let token = key.token(0);
                let _again_later =
                    worker
                        .core
                        .poller
                        .add_level(&*self.socket, token, self.same_socket);
            }
            Event::Nudge { .. } | Event::Flush | Event::Drain | Event::DrainDeadline => {}
        }
        After::Keep
    }

    /// Connections per event.
    fn most(&self) -> usize {
        let config = &self.listener.compiled.config;
        config
            .max_accepts_per_event
            .map_or(ACCEPTS_PER_EVENT, |most| {
                (most as usize).clamp(1, ACCEPTS_PER_EVENT)
            })
    }

    /// Accepts what is queued and stops listening.
    pub(crate) fn close(&mut self, worker: &mut Worker) {
        let _all = self.accept(worker, usize::MAX);
        let _already_gone = worker.core.poller.remove(&*self.socket);
    }

    /// Returns how many were accepted, fewer than asked for when no more were queued.
    fn accept(&mut self, worker: &mut Worker, at_most: usize) -> Result<usize, Errno> {
        for count in 0..at_most {
            let Accepted { socket, remote } = match self.socket.accept() {
                Ok(accepted) => accepted,
                Err(Errno::AGAIN) => return Ok(count),
                Err(error) => return Err(error),
            };
            let info = self.info(worker, &socket, remote);
            if let Some(arrival) = Arrival::accepted(worker, &self.listener, socket, info) {
                listener_filters::proceed(worker, arrival);
            }
        }
        Ok(at_most)
    }

    fn info(&self, worker: &mut Worker, socket: &Socket, remote: SocketAddr) -> ConnectionInfo {
        let config = &self.listener.compiled.config;
        // A socket that listens on one address has that address; only a wildcard needs to be asked.
        let direct_local = if self.local.ip().is_unspecified() || config.transparent {
            socket.local_addr().unwrap_or(self.local)
        } else {
            self.local
        };
        let id = worker.core.next_connection_id();
        ConnectionInfo::new(id, remote, direct_local, worker.core.now())
    }
}

/// Filter chain match and the network filter for a connection that is through the listener filters.
pub(crate) fn admit(worker: &mut Worker, arrival: Arrival) {
    let Arrival {
        socket,
        info,
        mut listener,
        share,
        ..
    } = arrival;
    // It may have waited while the listener was updated.
    if let Some(current) = worker.core.listeners.get(listener.compiled.id()) {
        listener = Rc::clone(current);
    }
    let Some(chain) = filter_chain::find(&listener, &info) else {
        filter_chain::not_found(worker, &listener, &info);
        return;
    };
    let Some(permit) = listener.admit(worker.core.now(), share) else {
        return;
    };
    let Some(transport) = transport(&listener, &chain, socket) else {
        return;
    };
    let downstream = Downstream {
        filters: ReadFilters::of(&chain),
        transport,
        info,
        listener,
        chain,
        permit,
    };
    network::open(worker, downstream);
}

/// The transport socket of a connection's filter chain. `None`: it cannot serve yet, and the connection is closed.
fn transport(listener: &ListenerRuntime, chain: &Chain, socket: Socket) -> Option<Transport> {
    let Some(slot) = &chain.tls else {
        return Some(Transport::plain(socket));
    };
    let stats = listener.tls_stats()?;
    let Some(context) = slot.load() else {
        stats
            .factory
            .inc(ssl_stat::DOWNSTREAM_CONTEXT_SECRETS_NOT_READY);
        return None;
    };
    let session = Session::server(&context);
    Some(Transport::tls(socket, session, Rc::clone(stats)))
}
