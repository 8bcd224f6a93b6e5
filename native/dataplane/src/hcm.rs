//! The HTTP connection manager: one downstream connection and the requests it carries.
//!
//! The files of this folder follow a request: `downstream` reads and writes the client's socket, `request` prepares the
//! head, `router` runs the filters, matches and picks an upstream, `retry` tries again, `upstream` takes the answer, `response` prepares its
//! head, `paused` lets filters wait, `async_client` sends requests of our own, `requester` tells them from clients' to the pools, `local_reply` answers instead of an upstream, `upgrade` is the tunnel after 101, `timeouts` the clock, `log` what
//! is written at the end.
//!
//! A stream is taken out of its connection while something happens to it, and put back by [`ServerConnection::settle`],
//! which ends it when it is over.

pub(crate) mod async_client;
mod client_cert;
mod compressor;
mod downstream;
mod ext_authz;
mod filtered;
mod filters;
mod finish;
mod forward;
mod grpc;
mod grpc_timeout;
mod header_mutation;
mod headers;
mod http1;
mod http2;
mod jwt_authn;
mod istio;
mod local_ratelimit;
mod local_reply;
mod lua;
mod log;
mod mirror;
mod path;
mod paused;
mod rbac;
mod request;
mod request_id;
mod requester;
mod response;
mod retry;
mod router;
mod runtime;
mod stream;
mod streams;
mod timeouts;
pub(crate) mod tracing;
mod upgrade;
mod upstream;
mod upstream_http1;
mod upstream_http2;
mod worker_state;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate_buf::{OutBuf, Watermark};
use tidegate_codec::h1::HeadResume;
use tidegate_rt::{LazyTimer, Moment};
use tidegate_snapshot::{Chain, ResponseFlags};
use tidegate_stats::defs::http as stat;

use self::http2::Http2;
pub(crate) use self::requester::Requester;
pub(crate) use self::runtime::HcmGroups;
use self::runtime::HcmRuntime;
use self::stream::Stream;
pub(crate) use self::streams::StreamKey;
use self::streams::Streams;
pub(crate) use self::upstream_http1::Delivered;
pub(crate) use self::upstream_http2::Lost;
pub(crate) use self::worker_state::HttpState;
use crate::accept::Downstream;
use crate::conn::{After, Conn, Event, Key};
use crate::listener::ListenerRuntime;
use crate::network::read_filters::NUDGE_FILTERS;
use crate::worker::{Core, Worker};

/// Go on reading: input was left over, or the upstream side can take more.
pub(crate) const NUDGE_READ: u8 = 1;
/// A pool has bad news for some of the connection's streams.
pub(crate) const NUDGE_FAILED: u8 = 2;

/// What the connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Requests are taken.
    Open,
    /// What is queued goes out, then the connection lingers (`true`) or closes.
    Flushing {
        linger: bool,
    },
    /// All is said; the client may take this long to read it and close. As in Envoy our end stays open meanwhile: closing
    /// with unread input would reset the connection and take the answer with it.
    Lingering,
    Closed,
}

/// A downstream HTTP connection.
pub struct ServerConnection {
    key: Key,
    downstream: Downstream,
    hcm: Rc<HcmRuntime>,
    /// `None`: HTTP/1, or nothing has been said yet.
    http2: Option<Box<Http2>>,
    /// The first bytes have told the protocol.
    spoken: bool,
    /// Received, but not used yet: an incomplete head, or requests behind the present one.
    input: Vec<u8>,
    resume: HeadResume,
    out: OutBuf,
    mark: Watermark,
    streams: Streams,
    timer: LazyTimer,
    phase: Phase,
    /// The socket may have more to read.
    readable: bool,
    /// The client has closed its side; there may be bytes before the end.
    closing: bool,
    /// The end of the client's side has been read.
    peer_closed: bool,
    /// More is about to be written: what there is waits for the end of the pass.
    corked: bool,
    /// The socket has failed.
    broken: bool,
    requests: u32,
    /// Read and written.
    bytes: (u64, u64),
    /// The client has broken the protocol.
    protocol_error: bool,
    /// Since when no stream is active.
    idle_since: Moment,
    /// Since when a head is being received.
    head_since: Option<Moment>,
    linger_until: Option<Moment>,
    max_duration: Option<Moment>,
    /// The next response says `connection: close`.
    draining: bool,
    /// As `draining`, once the response that may be on its way has ended.
    leaving: bool,
    /// When the client has had the time that an idle connection gets to be used once more.
    drain_until: Option<Moment>,
}

impl ServerConnection {
    /// Occupies a slot with an accepted connection.
    pub fn open(worker: &mut Worker, mut downstream: Downstream) {
        let Some(hcm) =
            HttpState::manager(&mut worker.core, &downstream.chain, &downstream.listener)
        else {
            return;
        };
        if hcm.discovers
            && let Some(chain) = worker
                .core
                .successor(&downstream.listener, &downstream.chain)
        {
            // It came while ECDS delivered something.
            downstream.chain = chain;
            return Self::open(worker, downstream);
        }
        let key = worker.conns.reserve();
        if worker
            .core
            .poller
            .add(downstream.transport.socket(), key.token(0))
            .is_err()
        {
            worker.conns.remove(key);
            return;
        }
        let now = worker.core.now();
        let stats = &hcm.stats;
        stats.inc(stat::DOWNSTREAM_CX_TOTAL);
        stats.gauge_inc(stat::DOWNSTREAM_CX_ACTIVE);
        if !downstream.transport.is_plain() {
            stats.inc(stat::DOWNSTREAM_CX_SSL_TOTAL);
            stats.gauge_inc(stat::DOWNSTREAM_CX_SSL_ACTIVE);
        }
        let mut connection = Box::new(Self {
            key,
            mark: Watermark::new(downstream.listener.buffer_limit()),
            max_duration: hcm
                .config
                .max_connection_duration
                .map(|duration| now + duration),
            draining: false,
            leaving: false,
            drain_until: None,
            downstream,
            hcm,
            http2: None,
            spoken: false,
            corked: false,
            input: Vec::new(),
            resume: HeadResume::default(),
            out: OutBuf::new(),
            streams: Streams::default(),
            timer: LazyTimer::new(),
            phase: Phase::Open,
            readable: false,
            closing: false,
            peer_closed: false,
            broken: false,
            requests: 0,
            bytes: (0, 0),
            protocol_error: false,
            idle_since: now,
            head_since: None,
            linger_until: None,
        });
        if connection.downstream.filters.is_some() {
            connection.start_filters(worker);
            return put_back(worker, connection);
        }
        connection.arm(&mut worker.core);
        worker.conns.put(key, Conn::Http(connection));
    }

    pub fn listener(&self) -> &Rc<ListenerRuntime> {
        &self.downstream.listener
    }

    pub fn chain(&self) -> &Arc<Chain> {
        &self.downstream.chain
    }

    /// Goes over to a chain that differs only by what ECDS has delivered; requests under way end as they began.
    pub(crate) fn adopt(&mut self, core: &mut Core, chain: &Arc<Chain>) {
        let Some(hcm) = HttpState::manager(core, chain, &self.downstream.listener) else {
            return;
        };
        let former = std::mem::replace(&mut self.hcm, hcm);
        for stream in self.streams.all_mut() {
            stream.hcm.get_or_insert_with(|| Rc::clone(&former));
        }
        self.downstream.chain = Arc::clone(chain);
    }

    /// The manager under which a stream began.
    #[inline]
    fn manager_of<'a>(&'a self, stream: &'a Stream) -> &'a Rc<HcmRuntime> {
        stream.hcm.as_ref().unwrap_or(&self.hcm)
    }

    pub fn on_event(&mut self, worker: &mut Worker, _key: Key, event: Event) -> After {
        match event {
            Event::Ready { ready, .. } => {
                if ready.writable() {
                    self.flush_http2(worker);
                    if !self.out.is_empty() || self.downstream.transport.backlog() > 0 {
                        self.flush(worker);
                    }
                }
                if ready.readable() {
                    self.readable = true;
                    self.closing |= ready.read_closed();
                    self.read(worker);
                    if ready.read_closed() {
                        self.on_peer_gone(worker, ready.hung_up());
                    }
                }
            }
            Event::Timer(_) => self.on_timer(worker),
            Event::Nudge {
                why: NUDGE_FAILED, ..
            } => {
                for (stream, host, failure) in worker.core.pools.take_failed(self.key) {
                    self.on_pool_failure(worker, stream, &host, failure);
                }
            }
            Event::Nudge {
                why: NUDGE_FILTERS, ..
            } => self.resume_filters(worker),
            Event::Nudge { stream, .. } => {
                self.unhold_request(stream, &mut worker.core);
                self.resume_input(worker);
                self.read(worker);
            }
            Event::Flush => {
                self.corked = false;
                self.flush_http2(worker);
                self.flush(worker);
            }
            Event::Drain => {
                // A draining listener asks by and by, as the strategy says; a chain that is gone does not wait.
                self.leaving |= self.downstream.listener.draining_since().is_none()
                    || worker.core.shared.drain_hurried.load(Ordering::Acquire);
            }
            Event::DrainDeadline => {
                self.abort_all(worker, ResponseFlags::NONE, "drain_timeout");
                self.phase = Phase::Closed;
            }
        }
        self.after(worker)
    }

    /// What is left to do when an event has been handled, by whichever way it came.
    fn after(&mut self, worker: &mut Worker) -> After {
        if self.broken && self.phase != Phase::Closed {
            self.abort_all(
                worker,
                ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION,
                "downstream_remote_disconnect",
            );
            self.phase = Phase::Closed;
        }
        if let Phase::Flushing { linger } = self.phase
            && self.is_flushed()
        {
            self.flushed(&worker.core, linger);
        }
        if self.phase == Phase::Closed {
            self.log_connection(&mut worker.core);
            self.timer.cancel(&mut worker.core.timers);
            self.out.clear(&mut worker.core.segments);
            return After::Close;
        }
        self.arm(&mut worker.core);
        After::Keep
    }

    /// Puts a stream back that something happened to, or ends it if it is over.
    fn settle(&mut self, stream: Box<Stream>, worker: &mut Worker) {
        if stream.response.complete {
            self.finish(stream, worker);
        } else {
            if self.is_http2() {
                self.streams.expect(stream.next_deadline());
            }
            self.streams.put(stream);
        }
    }
}

impl Drop for ServerConnection {
    fn drop(&mut self) {
        let was_http1 = self.spoken && self.http2.is_none();
        self.forget_http2();
        let stats = &self.hcm.stats;
        stats.inc(stat::DOWNSTREAM_CX_DESTROY);
        stats.inc(if self.peer_closed || self.broken {
            stat::DOWNSTREAM_CX_DESTROY_REMOTE
        } else {
            stat::DOWNSTREAM_CX_DESTROY_LOCAL
        });
        stats.gauge_dec(stat::DOWNSTREAM_CX_ACTIVE);
        if !self.downstream.transport.is_plain() {
            stats.gauge_dec(stat::DOWNSTREAM_CX_SSL_ACTIVE);
        }
        if was_http1 {
            stats.gauge_dec(stat::DOWNSTREAM_CX_HTTP1_ACTIVE);
        }
        let age = tidegate_rt::Clock::precise().since(self.downstream.info.accepted_at);
        stats.record(stat::DOWNSTREAM_CX_LENGTH_MS, age.as_millis() as u64);
        stats.gauge_add(stat::DOWNSTREAM_RQ_ACTIVE, -i64::from(self.streams.len()));
    }
}

/// Puts a downstream connection back into its slot after an upstream event touched it, or closes it.
pub(crate) fn put_back(worker: &mut Worker, mut connection: Box<ServerConnection>) {
    let key = connection.key;
    match connection.after(worker) {
        After::Keep => worker.conns.put(key, Conn::Http(connection)),
        After::Close => {
            drop(connection);
            worker.conns.remove(key);
        }
    }
}
