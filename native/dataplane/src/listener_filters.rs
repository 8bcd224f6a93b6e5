//! Between accepting a connection and choosing its filter chain: the listener filters.
//!
//! [`Arrival::advance`] runs them in order, hands a redirected connection to the listener of its original destination, whose
//! filters run then, and gives it to the worker that is to have it. The inspectors peek: what they have seen is still in the
//! socket for whoever reads it. A connection that they cannot judge yet waits in a slot as [`Waiting`], for more bytes,
//! its end, or `listener_filters_timeout`. It is polled edge-triggered, so that a part of a ClientHello that stays in the
//! socket wakes nobody.
//!
//! This module must not know filter chains.

use std::rc::Rc;

use tidegate_codec::client_hello::{self, ClientHello, Inspected};
use tidegate_codec::h1::{FirstLine, first_line};
use tidegate_model::Name;
use tidegate_model::listener::ListenerFilterKind;
use tidegate_rt::{Received, Socket, TimerId};
use tidegate_snapshot::ApplicationProtocols;
use tidegate_stats::defs::{
    http_inspector as http_stat, listener as stat, tls_inspector as tls_stat,
};

use crate::accept::{self, ConnectionInfo, HandedOver, RAW_BUFFER};
use crate::conn::{After, Conn, Event, Key};
use crate::listener::{BalanceShare, ListenerRuntime};
use crate::network::connection_log::{self, ConnectionLog};
use crate::original_dst;
use crate::worker::{Core, Worker};

/// The transport protocol of a connection that begins with a ClientHello.
const TLS: &str = "tls";

/// The longest first line that is waited for.
const MAX_FIRST_LINE: usize = 64 * 1024;

/// A connection that no filter chain has yet.
pub(crate) struct Arrival {
    pub(crate) socket: Socket,
    pub(crate) info: ConnectionInfo,
    /// The one that accepted it, after the hand-off the one that serves it.
    pub(crate) listener: Rc<ListenerRuntime>,
    pub(crate) share: Option<BalanceShare>,
    /// It has not been handed on yet.
    may_move: bool,
    /// The listener filter whose turn it is.
    next: usize,
    /// Bytes that it has seen.
    seen: usize,
}

/// How far a connection has got.
enum Progress {
    /// To a filter that wants to see more.
    Wait(Arrival),
    /// Through all.
    Ready(Arrival),
    /// To another worker.
    Gone,
    /// To its end.
    Refused(Arrival),
}

enum Verdict {
    Continue,
    Wait,
    Close,
}

impl Arrival {
    /// Just accepted. `None`: another worker has it.
    pub(crate) fn accepted(
        worker: &Worker,
        listener: &Rc<ListenerRuntime>,
        socket: Socket,
        info: ConnectionInfo,
    ) -> Option<Self> {
        let arrival = Self {
            socket,
            info,
            listener: Rc::clone(listener),
            share: None,
            may_move: listener.compiled.config.use_original_dst,
            next: 0,
            seen: 0,
        };
        if arrival.may_move {
            Some(arrival)
        } else {
            arrival.balance(&worker.core, listener)
        }
    }

    /// As another worker has handed it over.
    pub(crate) const fn handed_over(
        listener: Rc<ListenerRuntime>,
        socket: Socket,
        info: ConnectionInfo,
        share: BalanceShare,
        next: usize,
    ) -> Self {
        Self {
            socket,
            info,
            listener,
            share: Some(share),
            may_move: false,
            next,
            seen: 0,
        }
    }

    /// With `exact_balance` of the listener that serves it, else of the one that accepted it, the worker with the fewest
    /// connections has it.
    fn balance(mut self, core: &Core, accepted_by: &Rc<ListenerRuntime>) -> Option<Self> {
        match self.listener.balance().or_else(|| accepted_by.balance()) {
            Some(share) if share.worker != core.id => {
                core.shared.hand_over(HandedOver::new(
                    self.listener.compiled.id(),
                    self.socket,
                    &self.info,
                    share,
                    self.next,
                ));
                None
            }
            share => {
                self.share = share;
                Some(self)
            }
        }
    }

    fn advance(mut self, worker: &mut Worker) -> Progress {
        loop {
            match self.run_filters(&mut worker.core) {
                Verdict::Continue => {}
                Verdict::Wait => return Progress::Wait(self),
                Verdict::Close => return Progress::Refused(self),
            }
            if !std::mem::replace(&mut self.may_move, false) {
                return Progress::Ready(self);
            }
            let accepted_by = Rc::clone(&self.listener);
            let moves = original_dst::target(&worker.core, &accepted_by, &self.info);
            if let Some(target) = moves {
                self.listener = target;
                self.next = 0;
            }
            self = match self.balance(&worker.core, &accepted_by) {
                Some(arrival) => arrival,
                None => return Progress::Gone,
            };
        }
    }

    #[inline]
    fn run_filters(&mut self, core: &mut Core) -> Verdict {
        let listener = Rc::clone(&self.listener);
        let config = &listener.compiled.config;
        while let Some(filter) = config.listener_filters.get(self.next) {
            let port = self.info.local.port();
            if filter
                .disabled
                .as_ref()
                .is_none_or(|rule| !rule.holds(port))
            {
                let verdict = match filter.kind {
                    ListenerFilterKind::OriginalDst => {
                        original_dst::restore(config, &self.socket, &mut self.info);
                        Verdict::Continue
                    }
                    ListenerFilterKind::TlsInspector {
                        max_client_hello_size,
                        close_on_parse_errors,
                    } => self.peek(core, max_client_hello_size, |arrival, bytes| {
                        arrival.inspect_tls(bytes, max_client_hello_size, close_on_parse_errors)
                    }),
                    ListenerFilterKind::HttpInspector
                        if self.info.transport_protocol != RAW_BUFFER =>
                    {
                        Verdict::Continue
                    }
                    ListenerFilterKind::HttpInspector => {
                        self.peek(core, MAX_FIRST_LINE, Self::inspect_http)
                    }
                };
                if !matches!(verdict, Verdict::Continue) {
                    return verdict;
                }
            }
            self.next += 1;
            self.seen = 0;
        }
        Verdict::Continue
    }

    /// Shows the first bytes to an inspector, if there are more than it has seen.
    fn peek(
        &mut self,
        core: &mut Core,
        at_most: usize,
        inspect: impl FnOnce(&mut Self, &[u8]) -> Verdict,
    ) -> Verdict {
        let mut buf = core.lend_read_buf();
        let verdict = match self.socket.peek(buf.get_mut(..at_most).unwrap_or_default()) {
            Received::Data(count) if count > self.seen => {
                self.seen = count;
                inspect(self, buf.get(..count).unwrap_or_default())
            }
            Received::Data(_) | Received::WouldBlock => Verdict::Wait,
            Received::Eof => {
                self.count_remote_close();
                Verdict::Close
            }
            Received::Error(_) => {
                self.listener
                    .stats
                    .inc(stat::DOWNSTREAM_LISTENER_FILTER_ERROR);
                Verdict::Close
            }
        };
        core.return_read_buf(buf);
        verdict
    }

    fn count_remote_close(&self) {
        self.listener
            .stats
            .inc(stat::DOWNSTREAM_LISTENER_FILTER_REMOTE_CLOSE);
    }

    fn inspect_tls(&mut self, bytes: &[u8], max_size: usize, close_on_errors: bool) -> Verdict {
        let listener = Rc::clone(&self.listener);
        let Some(stats) = listener.tls_inspector() else {
            return Verdict::Continue;
        };
        let mut scratch = Vec::new();
        let is_full = bytes.len() >= max_size;
        match client_hello::inspect(bytes, &mut scratch) {
            Inspected::Incomplete if is_full => {
                stats.inc(tls_stat::CLIENT_HELLO_TOO_LARGE);
                stats.record(tls_stat::BYTES_PROCESSED, bytes.len() as u64);
                Verdict::Close
            }
            Inspected::Incomplete => Verdict::Wait,
            Inspected::NotTls { processed } => {
                stats.record(tls_stat::BYTES_PROCESSED, processed as u64);
                stats.inc(if close_on_errors && is_full {
                    tls_stat::CLIENT_HELLO_TOO_LARGE
                } else {
                    tls_stat::TLS_NOT_FOUND
                });
                if close_on_errors {
                    Verdict::Close
                } else {
                    Verdict::Continue
                }
            }
            Inspected::Hello(hello) => {
                stats.record(tls_stat::BYTES_PROCESSED, hello.processed as u64);
                stats.inc(tls_stat::TLS_FOUND);
                stats.inc(match hello.alpn {
                    Some(_) => tls_stat::ALPN_FOUND,
                    None => tls_stat::ALPN_NOT_FOUND,
                });
                stats.inc(match hello.server_name {
                    Some(_) => tls_stat::SNI_FOUND,
                    None => tls_stat::SNI_NOT_FOUND,
                });
                self.take_hello(&hello);
                Verdict::Continue
            }
        }
    }

    fn take_hello(&mut self, hello: &ClientHello<'_>) {
        self.info.transport_protocol = TLS;
        self.info.requested_server_name = hello.server_name.map(|name| {
            let mut name = String::from_utf8_lossy(name).into_owned();
            name.make_ascii_lowercase();
            Name::from(name)
        });
        if let Some(list) = hello.alpn {
            self.info.application_protocols = ApplicationProtocols::Offered(Box::from(list));
        }
    }

    fn inspect_http(&mut self, bytes: &[u8]) -> Verdict {
        let listener = Rc::clone(&self.listener);
        let Some(stats) = listener.http_inspector() else {
            return Verdict::Continue;
        };
        let (counter, protocol) = match first_line(bytes) {
            FirstLine::Incomplete if bytes.len() >= MAX_FIRST_LINE => {
                stats.inc(http_stat::READ_ERROR);
                return Verdict::Close;
            }
            FirstLine::Incomplete => return Verdict::Wait,
            FirstLine::NotHttp => {
                stats.inc(http_stat::HTTP_NOT_FOUND);
                return Verdict::Continue;
            }
            FirstLine::Http10 => (http_stat::HTTP10_FOUND, "http/1.0"),
            FirstLine::Http11 => (http_stat::HTTP11_FOUND, "http/1.1"),
            FirstLine::Http2 => (http_stat::HTTP2_FOUND, "h2c"),
        };
        stats.inc(counter);
        self.info.application_protocols = ApplicationProtocols::Seen(protocol);
        Verdict::Continue
    }
}

/// Takes a connection as far as it goes: to its filter chain, or into a slot where it waits.
pub(crate) fn proceed(worker: &mut Worker, arrival: Arrival) {
    match arrival.advance(worker) {
        Progress::Ready(arrival) => {
            // Marked as used where nothing waits, as Envoy's is.
            let stats = &arrival.listener.stats;
            stats.gauge_add(stat::DOWNSTREAM_PRE_CX_ACTIVE, 0);
            accept::admit(worker, arrival);
        }
        Progress::Wait(arrival) => Waiting::open(worker, arrival),
        Progress::Refused(arrival) => log(worker, &arrival.listener, &arrival.info),
        Progress::Gone => {}
    }
}

/// The listener's access log has a line for what never became a connection.
fn log(worker: &mut Worker, listener: &Rc<ListenerRuntime>, info: &ConnectionInfo) {
    if !listener.compiled.access_log.is_empty() {
        let log = ConnectionLog::new(&worker.core, listener, info);
        connection_log::write(&mut worker.core, &listener.compiled.access_log, &log);
    }
}

/// A connection that waits for a listener filter.
pub struct Waiting {
    /// Always there but while an event is handled.
    arrival: Option<Arrival>,
    pre_cx: PreCx,
    timeout: Option<TimerId>,
}

/// A connection's part in `downstream_pre_cx_active`.
struct PreCx(Rc<ListenerRuntime>);

impl PreCx {
    fn new(listener: &Rc<ListenerRuntime>) -> Self {
        listener.stats.gauge_inc(stat::DOWNSTREAM_PRE_CX_ACTIVE);
        Self(Rc::clone(listener))
    }
}

impl Drop for PreCx {
    fn drop(&mut self) {
        self.0.stats.gauge_dec(stat::DOWNSTREAM_PRE_CX_ACTIVE);
    }
}

impl Waiting {
    fn open(worker: &mut Worker, arrival: Arrival) {
        let key = worker.conns.reserve();
        let polled = worker.core.poller.add(&arrival.socket, key.token(0));
        if polled.is_err() {
            worker.conns.remove(key);
            return;
        }
        let mut waiting = Box::new(Self {
            pre_cx: PreCx::new(&arrival.listener),
            arrival: Some(arrival),
            timeout: None,
        });
        waiting.arm(&mut worker.core, key);
        worker.conns.put(key, Conn::Waiting(waiting));
    }

    pub(crate) const fn listener(&self) -> &Rc<ListenerRuntime> {
        &self.pre_cx.0
    }

    fn arm(&mut self, core: &mut Core, key: Key) {
        self.disarm(core);
        let timeout = self.pre_cx.0.compiled.config.listener_filters_timeout;
        if let Some(timeout) = timeout {
            self.timeout = Some(core.arm(core.now() + timeout, key, 0));
        }
    }

    fn disarm(&mut self, core: &mut Core) {
        if let Some(timeout) = self.timeout.take() {
            core.timers.cancel(timeout);
        }
    }

    pub(crate) fn on_event(&mut self, worker: &mut Worker, key: Key, event: Event) -> After {
        match event {
            Event::Ready { ready, .. } => {
                let after = self.go_on(worker, key);
                if after == After::Keep && ready.read_closed() {
                    if let Some(arrival) = &self.arrival {
                        arrival.count_remote_close();
                    }
                    return self.end(worker);
                }
                after
            }
            Event::Timer(_) => {
                self.timeout = None;
                let listener = Rc::clone(self.listener());
                listener.stats.inc(stat::DOWNSTREAM_PRE_CX_TIMEOUT);
                let config = &listener.compiled.config;
                if !config.continue_on_listener_filters_timeout {
                    return self.end(worker);
                }
                if let Some(arrival) = &mut self.arrival {
                    arrival.next = config.listener_filters.len();
                }
                self.go_on(worker, key)
            }
            Event::DrainDeadline => self.end(worker),
            Event::Nudge { .. } | Event::Flush | Event::Drain => After::Keep,
        }
    }

    fn go_on(&mut self, worker: &mut Worker, key: Key) -> After {
        let Some(arrival) = self.arrival.take() else {
            return After::Close;
        };
        match arrival.advance(worker) {
            Progress::Wait(arrival) => {
                if !Rc::ptr_eq(&arrival.listener, self.listener()) {
                    self.pre_cx = PreCx::new(&arrival.listener);
                    self.arm(&mut worker.core, key);
                }
                self.arrival = Some(arrival);
                After::Keep
            }
            Progress::Ready(arrival) => {
                self.disarm(&mut worker.core);
                let _was_polled = worker.core.poller.remove(&arrival.socket);
                accept::admit(worker, arrival);
                After::Close
            }
            Progress::Refused(arrival) => {
                self.arrival = Some(arrival);
                self.end(worker)
            }
            Progress::Gone => {
                self.disarm(&mut worker.core);
                After::Close
            }
        }
    }

    /// Closes it.
    fn end(&mut self, worker: &mut Worker) -> After {
        self.disarm(&mut worker.core);
        if let Some(arrival) = self.arrival.take() {
            log(worker, &arrival.listener, &arrival.info);
        }
        After::Close
    }
}
