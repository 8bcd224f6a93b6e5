//! Istio's TCP metadata exchange, on either side of the TCP proxy: where ALPN has agreed on it, both proxies begin with a
//! message that says who they are, and take out the other's.
//!
//! Downstream it is a network filter, upstream ([`UpstreamExchange`]) a filter of the cluster. A side that speaks first
//! finds the message ahead of its bytes. What comes without the magic number is traffic, and the peer stays unknown.

use std::rc::Rc;
use std::sync::Arc;

use tidegate_model::istio::MetadataExchange as Config;
use tidegate_stats::defs::metadata_exchange as stat;
use tidegate_telemetry::exchange::{self, Greeting, HEADER_LENGTH};

use super::read_filters::{FilterContext, FilterState, Input, ReadFilter, Verdict};
use crate::istio::{KnownPeer, Told, negotiated, peers};
use crate::worker::Core;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The protocol has not been looked at.
    New,
    /// Our message is said, the other's is awaited.
    Reading,
    Done,
}

/// What both sides do.
struct Exchange {
    config: Arc<Config>,
    phase: Phase,
}

/// What became of received bytes.
enum Heard {
    NeedData,
    /// So many bytes are not traffic; who the peer is.
    Over(usize, Option<Rc<KnownPeer>>),
}

impl Exchange {
    fn new(config: &Arc<Config>) -> Self {
        Self {
            config: Arc::clone(config),
            phase: Phase::New,
        }
    }

    /// Looks at the agreed protocol; says who we are, if it is the right one. `false`: there is nothing to exchange.
    fn begin(&mut self, core: &mut Core, protocol: &str, out: &mut Vec<u8>) -> bool {
        if self.phase != Phase::New {
            return self.phase == Phase::Reading;
        }
        if protocol != &*self.config.protocol {
            self.phase = Phase::Done;
            core.exchange_stats().inc(stat::ALPN_PROTOCOL_NOT_FOUND);
            return false;
        }
        self.phase = Phase::Reading;
        let shared = Arc::clone(&core.shared);
        let node = &shared.config.node;
        let own = peers::own(&node.metadata, &self.config.additional_labels, false);
        out.extend_from_slice(&exchange::greeting(&own, &node.id));
        let stats = core.exchange_stats();
        stats.inc(stat::ALPN_PROTOCOL_FOUND);
        stats.inc(stat::METADATA_ADDED);
        true
    }

    /// All that has been received and not passed on. `end`: no more comes.
    fn hear(&mut self, core: &mut Core, bytes: &[u8], end: bool) -> Heard {
        let heard = match exchange::read(bytes, &self.config.additional_labels) {
            Greeting::NeedHeader => {
                core.exchange_stats().inc(stat::INITIAL_HEADER_NOT_FOUND);
                if !end {
                    return Heard::NeedData;
                }
                Heard::Over(0, None)
            }
            // Announced and then cut off.
            Greeting::NeedData if end => Heard::Over(bytes.len(), None),
            Greeting::NeedData => return Heard::NeedData,
            Greeting::NoHeader => {
                core.exchange_stats().inc(stat::INITIAL_HEADER_NOT_FOUND);
                Heard::Over(0, None)
            }
            Greeting::Malformed => {
                core.exchange_stats().inc(stat::HEADER_NOT_FOUND);
                Heard::Over(HEADER_LENGTH, None)
            }
            Greeting::Peer(length, peer) => {
                let peer = peer.map(|peer| core.istio.peers.exchanged(*peer));
                Heard::Over(length, peer)
            }
        };
        self.phase = Phase::Done;
        heard
    }
}

/// The network filter.
pub(crate) struct MetadataExchange(Exchange);

impl MetadataExchange {
    pub(crate) fn new(config: &Arc<Config>) -> Self {
        Self(Exchange::new(config))
    }

    fn begin(&mut self, context: &mut FilterContext<'_>, state: &mut FilterState) -> bool {
        let protocol = negotiated(context.info.tls.as_deref());
        let begun = self.0.begin(context.core, protocol, &mut state.reply);
        if !begun {
            state.peer.give_up();
        }
        begun
    }
}

impl ReadFilter for MetadataExchange {
    fn wants_data(&self) -> bool {
        self.0.phase != Phase::Done
    }

    fn on_data(
        &mut self,
        context: &mut FilterContext<'_>,
        state: &mut FilterState,
        input: &mut Input<'_>,
    ) -> Verdict {
        if !self.begin(context, state) {
            return Verdict::Continue;
        }
        match self.0.hear(context.core, input.bytes(), input.end) {
            Heard::NeedData => Verdict::NeedData,
            Heard::Over(length, peer) => {
                input.consume(length);
                state.peer = peer.into();
                Verdict::Continue
            }
        }
    }

    fn on_first_write(&mut self, context: &mut FilterContext<'_>, state: &mut FilterState) {
        self.begin(context, state);
    }
}

/// The same towards a host.
pub(crate) struct UpstreamExchange {
    exchange: Exchange,
    held: Vec<u8>,
    /// Who the host's proxy is.
    pub(crate) peer: Told,
}

impl UpstreamExchange {
    pub(crate) fn new(config: &Arc<Config>) -> Self {
        Self {
            exchange: Exchange::new(config),
            held: Vec::new(),
            peer: Told::NotYet,
        }
    }

    /// The connection is there; what is left in `out` goes ahead of all else.
    pub(crate) fn begin(&mut self, core: &mut Core, protocol: &str, out: &mut Vec<u8>) {
        if !self.exchange.begin(core, protocol, out) {
            self.peer.give_up();
        }
    }

    /// Bytes from the host must go through [`Self::receive`].
    pub(crate) const fn is_reading(&self) -> bool {
        matches!(self.exchange.phase, Phase::Reading)
    }

    /// What is traffic of it.
    pub(crate) fn receive(&mut self, core: &mut Core, bytes: &[u8], end: bool) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        match self.exchange.hear(core, &self.held, end) {
            Heard::NeedData => Vec::new(),
            Heard::Over(length, peer) => {
                self.peer = peer.into();
                let mut rest = std::mem::take(&mut self.held);
                rest.drain(..length.min(rest.len()));
                rest
            }
        }
    }
}
