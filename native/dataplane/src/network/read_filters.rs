//! The network filters before the terminal one.
//!
//! A chain that has some gives each of its connections [`ReadFilters`], which asks every filter in turn when the connection
//! is new and when bytes have come, until no filter wants to see more; from then on, and in chains that have none, bytes
//! go the short way. The owner of the connection (TCP proxy or HTTP connection manager) reads; what it gets goes through
//! [`ReadFilters::feed`] as plaintext, and what that returns to itself.
//!
//! A filter is a [`ReadFilter`], made by [`make`] for each connection out of what its chain has compiled. It must not know
//! which terminal filter comes behind it.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate_model::Name;
use tidegate_snapshot::{Chain, CompiledReadFilter, ResponseFlags};

use super::connection_log::ConnectionLog;
use super::istio_stats::IstioStats;
use super::metadata_exchange::MetadataExchange;
use super::rbac::NetworkRbac;
use super::sni_cluster::SniCluster;
use crate::accept::ConnectionInfo;
use crate::conn::Key;
use crate::istio::Told;
use crate::listener::ListenerRuntime;
use crate::worker::Core;

/// Reason of the nudge that a filter sends its connection ([`Core::nudge`]) when it need not wait any more.
pub(crate) const NUDGE_FILTERS: u8 = 255;

/// What a filter says to a new connection or to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The next filter may see it.
    Continue,
    /// Not before more bytes have come: it will be asked again with all of them.
    NeedData,
    /// Not before an answer from elsewhere: nothing is read until the filter nudges the connection; that says `Continue`.
    Wait,
    /// The connection is closed at once. The filter has left its reason in [`FilterState`].
    Close,
}

/// Received bytes on their way through the filters.
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
    /// The client sends no more.
    pub(crate) end: bool,
}

impl<'a> Input<'a> {
    pub(crate) const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Takes the first bytes out: no later filter sees them.
    pub(crate) fn consume(&mut self, count: usize) {
        self.bytes = self.bytes.get(count..).unwrap_or_default();
    }
}

/// What filters tell the rest of the connection.
#[derive(Debug, Default)]
pub(crate) struct FilterState {
    /// The cluster for the TCP proxy, whatever its configuration says (`envoy.tcp_proxy.cluster`).
    pub(crate) cluster: Option<Name>,
    /// `%CONNECTION_TERMINATION_DETAILS%`.
    pub(crate) termination_details: Option<Name>,
    pub(crate) flags: ResponseFlags,
    /// Bytes for the client, ahead of whatever else is written to it.
    pub(crate) reply: Vec<u8>,
    /// Who the client's proxy is.
    pub(crate) peer: Told,
}

/// What a filter may use.
pub(crate) struct FilterContext<'a> {
    pub(crate) core: &'a mut Core,
    /// The connection, for nudges and timers.
    pub(crate) key: Key,
    pub(crate) info: &'a ConnectionInfo,
    pub(crate) listener: &'a Rc<ListenerRuntime>,
    pub(crate) chain: &'a Arc<Chain>,
}

/// A filter's part in one connection. What it does not override lets everything pass.
pub(crate) trait ReadFilter {
    /// Called once, before any bytes; with TLS before the handshake.
    fn on_new_connection(&mut self, _: &mut FilterContext<'_>, _: &mut FilterState) -> Verdict {
        Verdict::Continue
    }

    /// Whether it wants to see what comes. Asked after each call; a filter that has seen enough says no.
    fn wants_data(&self) -> bool {
        false
    }

    /// All bytes that have not gone on yet, or the end without any.
    fn on_data(
        &mut self,
        _: &mut FilterContext<'_>,
        _: &mut FilterState,
        _: &mut Input<'_>,
    ) -> Verdict {
        Verdict::Continue
    }

    /// Bytes are about to be written to the client for the first time; what is left in [`FilterState::reply`] goes ahead.
    fn on_first_write(&mut self, _: &mut FilterContext<'_>, _: &mut FilterState) {}

    /// How often it wants to hear of a connection that goes on.
    fn report_interval(&self) -> Option<Duration> {
        None
    }

    /// The connection goes on; the log line says how it stands.
    fn on_report(&mut self, _: &mut Core, _: &FilterState, _: &ConnectionLog<'_>) {}

    /// The connection has ended; the log line says how.
    fn on_end(&mut self, _: &mut Core, _: &FilterState, _: &ConnectionLog<'_>) {}
}

/// The filter for one connection.
fn make(compiled: &CompiledReadFilter) -> Box<dyn ReadFilter> {
    match compiled {
        CompiledReadFilter::SniCluster => Box::new(SniCluster),
        CompiledReadFilter::MetadataExchange(config) => Box::new(MetadataExchange::new(config)),
        CompiledReadFilter::IstioStats(compiled) => Box::new(IstioStats::new(compiled)),
        CompiledReadFilter::Rbac(rbac) => Box::new(NetworkRbac::new(rbac)),
    }
}

/// What came of asking the filters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Passed<'a> {
    /// All let it pass: these bytes go to the terminal filter.
    On(Cow<'a, [u8]>),
    /// Not yet; the bytes are kept.
    Stay,
    Close,
}

/// The filters of one connection.
pub(crate) struct ReadFilters {
    filters: Vec<Box<dyn ReadFilter>>,
    /// So many have been told of the connection.
    started: usize,
    /// The filter behind the one that stopped the kept bytes.
    resume_at: usize,
    waiting: bool,
    /// The terminal filter has the connection.
    passed: bool,
    /// Some filter wants to see bytes.
    watching: bool,
    /// Something has been written to the client.
    written: bool,
    held: Vec<u8>,
    held_end: bool,
    pub(crate) state: FilterState,
}

impl std::fmt::Debug for ReadFilters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadFilters")
            .field("filters", &self.filters.len())
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl ReadFilters {
    /// `None` for a chain that has only its terminal filter.
    #[inline]
    pub(crate) fn of(chain: &Chain) -> Option<Box<Self>> {
        (!chain.read_filters.is_empty())
            .then(|| Box::new(Self::new(chain.read_filters.iter().map(make).collect())))
    }

    fn new(filters: Vec<Box<dyn ReadFilter>>) -> Self {
        Self {
            filters,
            started: 0,
            resume_at: 0,
            waiting: false,
            passed: false,
            watching: false,
            written: false,
            held: Vec::new(),
            held_end: false,
            state: FilterState::default(),
        }
    }

    /// Bytes must go through [`Self::feed`].
    pub(crate) const fn is_watching(&self) -> bool {
        self.watching || !self.passed
    }

    /// A filter waits for an answer: nothing shall be read.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// No filter keeps bytes back.
    pub(crate) const fn has_all(&self) -> bool {
        self.held.is_empty() && !self.waiting && self.passed
    }

    /// So many bytes are kept.
    pub(crate) const fn held(&self) -> usize {
        self.held.len()
    }

    /// Tells the filters of the new connection.
    pub(crate) fn start(&mut self, context: &mut FilterContext<'_>) -> Passed<'static> {
        self.run(context, 0, &[], false)
    }

    /// Gives the filters what was received. `end`: the client sends no more.
    pub(crate) fn feed<'b>(
        &mut self,
        context: &mut FilterContext<'_>,
        bytes: &'b [u8],
        end: bool,
    ) -> Passed<'b> {
        if self.held.is_empty() {
            return self.run(context, 0, bytes, end);
        }
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(bytes);
        self.run_kept(context, 0, all, end)
    }

    /// After [`NUDGE_FILTERS`]: the filter that waited lets it pass.
    pub(crate) fn resume(&mut self, context: &mut FilterContext<'_>) -> Passed<'static> {
        if !std::mem::replace(&mut self.waiting, false) {
            return Passed::Stay;
        }
        let all = std::mem::take(&mut self.held);
        self.run_kept(context, self.resume_at, all, self.held_end)
    }

    fn run_kept(
        &mut self,
        context: &mut FilterContext<'_>,
        from: usize,
        mut all: Vec<u8>,
        end: bool,
    ) -> Passed<'static> {
        let left = match self.run(context, from, &all, end) {
            Passed::On(rest) => rest.len(),
            Passed::Stay => return Passed::Stay,
            Passed::Close => return Passed::Close,
        };
        all.drain(..all.len() - left);
        Passed::On(Cow::Owned(all))
    }

    fn run<'b>(
        &mut self,
        context: &mut FilterContext<'_>,
        from: usize,
        bytes: &'b [u8],
        end: bool,
    ) -> Passed<'b> {
        let mut input = Input { bytes, end };
        let mut stopped = None;
        for (at, filter) in self.filters.iter_mut().enumerate().skip(from) {
            let mut verdict = Verdict::Continue;
            if at >= self.started {
                self.started = at + 1;
                verdict = filter.on_new_connection(context, &mut self.state);
            }
            if verdict == Verdict::Continue
                && filter.wants_data()
                && (!input.bytes.is_empty() || end)
            {
                verdict = filter.on_data(context, &mut self.state, &mut input);
            }
            if verdict != Verdict::Continue {
                stopped = Some((at, verdict));
                break;
            }
        }
        self.watching = self.filters.iter().any(|filter| filter.wants_data());
        match stopped {
            None => {
                self.passed = true;
                Passed::On(Cow::Borrowed(input.bytes))
            }
            Some((_, Verdict::Close)) => Passed::Close,
            Some((at, verdict)) => {
                self.waiting = verdict == Verdict::Wait;
                self.resume_at = at + 1;
                self.held_end = end;
                self.held.clear();
                self.held.extend_from_slice(input.bytes);
                Passed::Stay
            }
        }
    }

    /// Before bytes are written to the client; `true`: the filters have something to say ahead of them.
    pub(crate) fn before_write(&mut self, context: &mut FilterContext<'_>) -> bool {
        if std::mem::replace(&mut self.written, true) {
            return false;
        }
        for filter in &mut self.filters {
            filter.on_first_write(context, &mut self.state);
        }
        !self.state.reply.is_empty()
    }

    /// How often [`Self::report`] shall be called.
    pub(crate) fn report_interval(&self) -> Option<Duration> {
        let intervals = self.filters.iter();
        intervals
            .filter_map(|filter| filter.report_interval())
            .min()
    }

    pub(crate) fn report(&mut self, core: &mut Core, log: &ConnectionLog<'_>) {
        for filter in &mut self.filters {
            filter.on_report(core, &self.state, log);
        }
    }

    pub(crate) fn end(&mut self, core: &mut Core, log: &ConnectionLog<'_>) {
        for filter in &mut self.filters {
            filter.on_end(core, &self.state, log);
        }
    }
}

#[cfg(test)]
mod tests;
