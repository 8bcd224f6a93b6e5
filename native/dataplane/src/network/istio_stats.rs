//! `istio.stats` on a connection that carries no HTTP: opened and closed connections, and bytes, by who is on both ends.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate_model::listener::TrafficDirection;
use tidegate_snapshot::istio_stats::{CompiledIstioStats, Metric};

use super::connection_log::ConnectionLog;
use super::read_filters::{FilterState, ReadFilter};
use crate::istio::labels::{Facts, Reporter};
use crate::istio::metrics::{Outcome, PeerSerials, Set, StatsFilter};
use crate::istio::{KnownPeer, Told, principals};
use crate::worker::Core;

/// One connection's part.
pub(crate) struct IstioStats {
    compiled: Arc<CompiledIstioStats>,
    /// Found when the connection is first counted.
    counted: Option<(Rc<StatsFilter>, Rc<Set>)>,
    sent: u64,
    received: u64,
}

impl IstioStats {
    pub(crate) fn new(compiled: &Arc<CompiledIstioStats>) -> Self {
        Self {
            compiled: Arc::clone(compiled),
            counted: None,
            sent: 0,
            received: 0,
        }
    }

    fn count(&mut self, core: &mut Core, state: &FilterState, log: &ConnectionLog<'_>, end: bool) {
        let inbound = log.listener.compiled.config.traffic_direction == TrafficDirection::Inbound;
        let (filter, set) = match &self.counted {
            Some(counted) => counted.clone(),
            None => {
                let filter = core.tcp_stats_filter(&self.compiled, inbound);
                let upstream = log.upstream.as_ref();
                let told = match filter.reporter {
                    Reporter::Source => upstream.and_then(|upstream| upstream.peer),
                    Reporter::Destination | Reporter::Waypoint => Some(&state.peer),
                };
                if !end && !told.is_some_and(Told::is_over) {
                    return;
                }
                let set = find(core, &filter, told.and_then(Told::peer), state, log);
                set.add(Metric::ConnectionsOpened, 1);
                self.counted = Some((Rc::clone(&filter), Rc::clone(&set)));
                (filter, set)
            }
        };
        set.add(Metric::SentBytes, log.bytes_sent - self.sent);
        set.add(Metric::ReceivedBytes, log.bytes_received - self.received);
        self.sent = log.bytes_sent;
        self.received = log.bytes_received;
        if end {
            set.add(Metric::ConnectionsClosed, 1);
            filter.count_own(&set, log, [None, None]);
        }
    }
}

fn find(
    core: &mut Core,
    filter: &StatsFilter,
    peer: Option<&Rc<KnownPeer>>,
    state: &FilterState,
    log: &ConnectionLog<'_>,
) -> Rc<Set> {
    let upstream = log.upstream.as_ref();
    let of_endpoint = upstream
        .filter(|_| filter.reporter == Reporter::Source && peer.is_none())
        .and_then(|upstream| core.istio.peers.of_endpoint(upstream.workload?));
    let peer = peer.or(of_endpoint.as_ref());
    let endpoint = upstream
        .filter(|_| filter.reporter == Reporter::Waypoint)
        .and_then(|upstream| upstream.peer?.peer());
    let (peer_principal, own_principal) = principals(if filter.reporter.is_server() {
        log.info.tls.as_deref()
    } else {
        upstream.and_then(|upstream| upstream.tls)
    });
    let facts = Facts {
        peer: peer.map(|known| &known.peer),
        endpoint: endpoint.map(|known| &known.peer),
        route_name: "",
        cluster: upstream.map(|upstream| &*upstream.config.config),
        host: "",
        peer_principal,
        own_principal,
    };
    let serial = |known: Option<&Rc<KnownPeer>>| known.map_or(0, |known| known.serial);
    let serials = PeerSerials {
        peer: serial(peer),
        endpoint: serial(endpoint),
        incarnation: upstream.map_or(0, |upstream| upstream.config.incarnation),
    };
    let outcome = Outcome {
        http: None,
        flags: log.flags,
    };
    let peers = [
        state.peer.peer(),
        upstream.and_then(|upstream| upstream.peer?.peer()),
    ];
    let peers = peers.map(|known| known.map(|known| &known.peer));
    filter.set(core, &facts, serials, outcome, log, peers)
}

impl ReadFilter for IstioStats {
    fn report_interval(&self) -> Option<Duration> {
        self.compiled.config.reporting_interval
    }

    fn on_report(&mut self, core: &mut Core, state: &FilterState, log: &ConnectionLog<'_>) {
        self.count(core, state, log, false);
    }

    fn on_end(&mut self, core: &mut Core, state: &FilterState, log: &ConnectionLog<'_>) {
        self.count(core, state, log, true);
    }
}
