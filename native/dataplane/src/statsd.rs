//! Statistics on their way to a statsd server, over a TCP connection through a cluster.
//!
//! The engine gives lines to [`Shared::send_statsd`](crate::Shared::send_statsd) at every flush; the first worker sends
//! them. Each sink has one connection, made when there are lines and none is open. As in Envoy such a connection counts
//! bytes and nothing else of its cluster, and lines are lost when there is no host, when the connection is lost, and when
//! the server takes so little that [`MAX_BUFFERED`] bytes wait: then the connection is given up, too, and
//! `statsd.cx_overflow` counts. Knows nothing of what a line says.

use std::rc::Rc;

use tidegate_buf::OutBuf;
use tidegate_model::Name;
use tidegate_rt::{Errno, Sent};
use tidegate_stats::defs::{cluster as stat, statsd};

use crate::cluster::{ClusterRuntime, LbContext};
use crate::conn::{After, Conn, Event, Key};
use crate::transport::{Input, Transport};
use crate::worker::{Core, Worker};

/// Bytes that may wait, here or on the way from the engine.
pub(crate) const MAX_BUFFERED: usize = 16 * 1024 * 1024;

/// What one sink sends at one flush.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The sink, by its number.
    pub(crate) sink: usize,
    pub(crate) cluster: Name,
    pub(crate) lines: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Handshaking,
    Open,
}

/// See the module.
pub struct StatsdConnection {
    transport: Transport,
    cluster: Rc<ClusterRuntime>,
    state: State,
    out: OutBuf,
    /// Of `out`, as the cluster's gauge has it: what waits on a connected socket.
    buffered: usize,
}

/// Sends what a sink has to say.
pub(crate) fn send(worker: &mut Worker, batch: &Batch) {
    let known = worker.core.statsd.get(&batch.sink).copied();
    let open = known.and_then(|key| Some((key, take(worker, key)?)));
    let Some((key, mut connection)) = open.or_else(|| StatsdConnection::open(worker, batch)) else {
        return;
    };
    if connection.out.len() + connection.transport.backlog() > MAX_BUFFERED {
        worker
            .core
            .group::<statsd::Statsd>("statsd.")
            .shared()
            .inc(statsd::CX_OVERFLOW);
        connection.close(&mut worker.core);
        worker.conns.remove(key);
        return;
    }
    connection.out.push(&mut worker.core.segments, &batch.lines);
    match connection.flush(&mut worker.core) {
        Ok(()) => worker.conns.put(key, Conn::Statsd(connection)),
        Err(_) => {
            connection.close(&mut worker.core);
            worker.conns.remove(key);
        }
    }
}

fn take(worker: &mut Worker, key: Key) -> Option<Box<StatsdConnection>> {
    match worker.conns.take(key)? {
        Conn::Statsd(connection) => Some(connection),
        other => {
            worker.conns.put(key, other);
            None
        }
    }
}

impl StatsdConnection {
    /// Chooses a host and starts to connect.
    fn open(worker: &mut Worker, batch: &Batch) -> Option<(Key, Box<Self>)> {
        let core = &mut worker.core;
        let id = core.snapshot.cluster_by_name(&batch.cluster)?.id();
        let cluster = core.cluster(id)?;
        let now = core.now();
        let Some(host) = cluster.choose_host(&mut core.rng, now, &LbContext::default()) else {
            cluster.stats.inc(stat::UPSTREAM_CX_NONE_HEALTHY);
            return None;
        };
        let (socket, _) = cluster.connect(&host).ok()?;
        let transport = cluster.transport(&host, socket, None, &[]).ok()?;
        let key = worker.conns.reserve();
        let polled = core.poller.add(transport.socket(), key.token(0));
        if polled.is_err() {
            worker.conns.remove(key);
            return None;
        }
        core.statsd.insert(batch.sink, key);
        let connection = Self {
            transport,
            cluster,
            state: State::Connecting,
            out: OutBuf::new(),
            buffered: 0,
        };
        Some((key, Box::new(connection)))
    }

    pub(crate) fn on_event(&mut self, worker: &mut Worker, event: Event) -> After {
        let after = match event {
            Event::Ready { ready, .. } => {
                let core = &mut worker.core;
                let went = match self.state {
                    State::Connecting if !ready.writable() && !ready.hung_up() => Ok(()),
                    State::Connecting => self.connected(core),
                    State::Handshaking | State::Open => Ok(()),
                };
                let went = match went {
                    Ok(()) if self.state != State::Connecting => self.read(core),
                    other => other,
                };
                went.and_then(|()| self.flush(core))
            }
            Event::DrainDeadline => Err(Errno::CANCELED),
            _ => Ok(()),
        };
        if after.is_ok() {
            return After::Keep;
        }
        self.close(&mut worker.core);
        After::Close
    }

    fn connected(&mut self, core: &mut Core) -> Result<(), Errno> {
        if let Some(error) = self.transport.socket().take_error() {
            return Err(error);
        }
        if self.transport.is_plain() {
            self.state = State::Open;
            return Ok(());
        }
        self.state = State::Handshaking;
        self.transport.start(core)
    }

    /// What the server says is for nobody, but for its end.
    fn read(&mut self, core: &mut Core) -> Result<(), Errno> {
        loop {
            let mut buf = core.lend_read_buf();
            let received = self.transport.recv(core, &mut buf);
            core.return_read_buf(buf);
            if self.state == State::Handshaking && !self.transport.is_handshaking() {
                self.state = State::Open;
            }
            match received {
                Input::Data { count, .. } => {
                    let count = count as u64;
                    self.cluster
                        .stats
                        .add(stat::UPSTREAM_CX_RX_BYTES_TOTAL, count);
                }
                Input::WouldBlock => return Ok(()),
                Input::Eof => return Err(Errno::CONNRESET),
                Input::Error(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self, core: &mut Core) -> Result<(), Errno> {
        if self.state != State::Connecting {
            self.transport.flush(core)?;
        }
        let mut outcome = Ok(());
        while self.state == State::Open && !self.out.is_empty() {
            match self.transport.send_queued(core, &self.out) {
                Sent::Bytes(count) => {
                    self.out.consume(&mut core.segments, count);
                    self.cluster
                        .stats
                        .add(stat::UPSTREAM_CX_TX_BYTES_TOTAL, count as u64);
                }
                Sent::WouldBlock => break,
                Sent::Error(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        if self.state != State::Connecting {
            self.count_buffered();
        }
        outcome
    }

    fn count_buffered(&mut self) {
        let before = std::mem::replace(&mut self.buffered, self.out.len());
        if self.buffered != before {
            let change = self.buffered as i64 - before as i64;
            let stats = &self.cluster.stats;
            stats.gauge_add(stat::UPSTREAM_CX_TX_BYTES_BUFFERED, change);
        }
    }

    /// What waits is lost.
    fn close(&mut self, core: &mut Core) {
        self.out.clear(&mut core.segments);
        self.count_buffered();
    }
}
