//! `istio.stats` in one worker: the series that streams and connections count in.
//!
//! The labels of a stream are worked out once: what they depend on is put together as a key, under which the worker keeps
//! the series. Nothing is allocated or locked for a key that is known.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tidegate_model::istio::{METRICS, MetricKind, NodeMetadata, PeerField};
use tidegate_snapshot::istio_stats::{CompiledExpression, CompiledIstioStats, Label, Metric, Plan};
use tidegate_snapshot::{LogContext, ResponseFlags};
use tidegate_stats::defs::metadata_exchange::MetadataExchange as Exchange;
use tidegate_stats::{Group, Local, LocalSeries, SeriesKind};
use tidegate_telemetry::Peer;

use super::labels::{self, Facts, Labels, Reporter};
use crate::worker::Core;

/// Keys kept at most. What is forgotten is only found anew: the series stay.
const MOST: usize = 4096;

/// See the module. One per filter of a chain.
pub(crate) struct StatsFilter {
    /// Of the filter in its chain.
    pub(crate) place: usize,
    pub(crate) compiled: Arc<CompiledIstioStats>,
    pub(crate) reporter: Reporter,
    node: Arc<NodeMetadata>,
    known: RefCell<FxHashMap<Box<[u8]>, Rc<Set>>>,
}

/// The series of one set of labels.
pub(crate) struct Set {
    /// By place in [`METRICS`]; `None`: dropped, or not of this protocol.
    standard: [Option<LocalSeries>; METRICS.len()],
    pub(crate) own: Vec<(MetricKind, usize, LocalSeries)>,
}

impl Set {
    #[inline]
    pub(crate) fn of(&self, metric: Metric) -> Option<&LocalSeries> {
        self.standard.get(metric as usize)?.as_ref()
    }

    pub(crate) fn add(&self, metric: Metric, amount: u64) {
        if let Some(series) = self.of(metric) {
            series.add(amount);
        }
    }

    pub(crate) fn record(&self, metric: Metric, value: u64) {
        if let Some(series) = self.of(metric) {
            series.record(value);
        }
    }
}

/// How a stream or connection ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// `None`: TCP.
    pub(crate) http: Option<HttpOutcome>,
    pub(crate) flags: ResponseFlags,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct HttpOutcome {
    pub(crate) code: u16,
    pub(crate) grpc: bool,
    pub(crate) grpc_status: Option<i64>,
}

/// What tells the peers of a stream apart, beyond the texts in [`Facts`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PeerSerials {
    pub(crate) peer: u32,
    pub(crate) endpoint: u32,
    /// Of the cluster.
    pub(crate) incarnation: u64,
}

const HTTP: &[Metric] = &[
    Metric::RequestsTotal,
    Metric::RequestDuration,
    Metric::RequestBytes,
    Metric::ResponseBytes,
];
const MESSAGES: &[Metric] = &[Metric::RequestMessages, Metric::ResponseMessages];
const TCP: &[Metric] = &[
    Metric::ConnectionsOpened,
    Metric::ConnectionsClosed,
    Metric::SentBytes,
    Metric::ReceivedBytes,
];

impl StatsFilter {
    /// `outbound`: the listener's direction, which says who reports. Also tells Istio's version as a metric.
    pub(crate) fn new(
        core: &Core,
        place: usize,
        compiled: &Arc<CompiledIstioStats>,
        inbound: bool,
    ) -> Self {
        let node = Arc::clone(&core.shared.config.node.metadata);
        let version = match &*node.istio_version {
            "" => "unknown",
            version => version,
        };
        let labels = [("component", "proxy"), ("tag", version)];
        let labels: Arc<[_]> = labels
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        if core.id == 0 {
            core.shared
                .registry
                .series(
                    0,
                    "istiocustom.istio_build",
                    &labels,
                    SeriesKind::Gauge,
                    1.0,
                )
                .set(1);
        }
        Self {
            place,
            compiled: Arc::clone(compiled),
            reporter: match (compiled.config.gateway, inbound) {
                (true, _) => Reporter::Waypoint,
                (false, true) => Reporter::Destination,
                (false, false) => Reporter::Source,
            },
            node,
            known: RefCell::default(),
        }
    }

    /// The series for a stream or connection. `peers`: downstream's and upstream's, for expressions.
    pub(crate) fn set(
        &self,
        core: &mut Core,
        facts: &Facts<'_>,
        serials: PeerSerials,
        outcome: Outcome,
        context: &dyn LogContext,
        peers: [Option<&Peer>; 2],
    ) -> Rc<Set> {
        let mut key = std::mem::take(&mut core.istio.key);
        key.clear();
        self.write_key(&mut key, facts, serials, outcome);
        let mut values = Vec::new();
        if !self.compiled.expressions.is_empty() {
            values = self.evaluate(context, peers);
            for value in &values {
                key.extend_from_slice(value.as_bytes());
                key.push(0);
            }
        }
        let found = self.known.borrow().get(key.as_slice()).map(Rc::clone);
        let set = found.unwrap_or_else(|| {
            let set = Rc::new(self.make(core, facts, outcome, &values));
            let mut known = self.known.borrow_mut();
            if known.len() >= MOST {
                known.clear();
            }
            known.insert(key.as_slice().into(), Rc::clone(&set));
            set
        });
        core.istio.key = key;
        set
    }

    fn write_key(
        &self,
        key: &mut Vec<u8>,
        facts: &Facts<'_>,
        serials: PeerSerials,
        outcome: Outcome,
    ) {
        key.extend_from_slice(&serials.peer.to_ne_bytes());
        key.extend_from_slice(&serials.endpoint.to_ne_bytes());
        key.extend_from_slice(&serials.incarnation.to_ne_bytes());
        if let Some(http) = outcome.http {
            key.extend_from_slice(&http.code.to_ne_bytes());
            key.push(u8::from(http.grpc));
            if http.grpc {
                key.extend_from_slice(&http.grpc_status.unwrap_or(-1).to_ne_bytes());
            }
        }
        outcome.flags.write(false, key);
        let cluster = facts.cluster.map_or("", |cluster| &cluster.name);
        for text in [
            facts.route_name,
            cluster,
            facts.host,
            facts.peer_principal,
            facts.own_principal,
        ] {
            key.push(0);
            key.extend_from_slice(text.as_bytes());
        }
        key.push(0);
    }

    fn evaluate(&self, context: &dyn LogContext, peers: [Option<&Peer>; 2]) -> Vec<String> {
        let [downstream, upstream] = peers;
        let expressions = self.compiled.expressions.iter();
        expressions
            .map(|expression| match expression {
                CompiledExpression::Format(format) => {
                    let mut out = Vec::new();
                    format.format(context, &mut out);
                    if out == b"-" {
                        return "unknown".to_owned();
                    }
                    String::from_utf8_lossy(&out).into_owned()
                }
                CompiledExpression::Peer {
                    downstream: of_downstream,
                    field,
                } => {
                    let peer = if *of_downstream { downstream } else { upstream };
                    let value = peer.and_then(|peer| match field {
                        PeerField::Named(name) => peer.field(name),
                        PeerField::Label(name) => peer
                            .labels
                            .iter()
                            .find(|(key, _)| *key == **name)
                            .map(|(_, value)| &**value),
                    });
                    value.unwrap_or("unknown").to_owned()
                }
            })
            .collect()
    }

    #[cold]
    fn make(&self, core: &Core, facts: &Facts<'_>, outcome: Outcome, values: &[String]) -> Set {
        let of_peers = labels::of_peers(self.reporter, &self.node, facts);
        let mut all = of_peers.clone();
        let mut flags = Vec::new();
        outcome.flags.write(false, &mut flags);
        let flags = match flags.as_slice() {
            [] => "-".to_owned(),
            flags => String::from_utf8_lossy(flags).into_owned(),
        };
        let protocol = match outcome.http {
            Some(http) if http.grpc => "grpc",
            Some(_) => "http",
            None => "tcp",
        };
        all.push(("request_protocol", protocol.into()));
        if let Some(http) = outcome.http {
            all.push(("response_code", http.code.to_string().into()));
            let status = http.grpc_status.filter(|_| http.grpc);
            let status = status.map(|status| status.to_string());
            all.push(("grpc_response_status", status.unwrap_or_default().into()));
        }
        all.push(("response_flags", flags.into()));
        let policy = labels::security_policy(self.reporter, facts);
        all.push(("connection_security_policy", policy.into()));
        let mut set = Set {
            standard: [const { None }; METRICS.len()],
            own: Vec::new(),
        };
        let mut make = |metrics: &[Metric], labels: &Labels<'_>| {
            for metric in metrics {
                if let (Some(plan), Some(slot)) = (
                    self.compiled.plan(*metric),
                    set.standard.get_mut(*metric as usize),
                ) {
                    *slot = Some(self.series(core, *metric, plan, labels, values));
                }
            }
        };
        match outcome.http {
            Some(http) => {
                make(HTTP, &all);
                if http.grpc {
                    make(MESSAGES, &of_peers);
                }
            }
            None => make(TCP, &all),
        }
        for own in &self.compiled.own {
            let labels = own.labels.iter();
            let labels: Vec<_> = labels
                .map(|(name, value)| (Box::from(&**name), value_of(values, *value)))
                .collect();
            let kind = match own.kind {
                MetricKind::Counter => SeriesKind::Counter,
                MetricKind::Gauge => SeriesKind::Gauge,
                MetricKind::Histogram => SeriesKind::Histogram,
            };
            let name = format!("istiocustom.istio_{}", own.name);
            let registry = &core.shared.registry;
            let series = registry.series(core.id, &name, &labels.into(), kind, 1.0);
            set.own.push((own.kind, own.value, series));
        }
        set
    }

    fn series(
        &self,
        core: &Core,
        metric: Metric,
        plan: &Plan,
        labels: &Labels<'_>,
        values: &[String],
    ) -> LocalSeries {
        let mut out: Vec<(Box<str>, Box<str>)> = Vec::with_capacity(labels.len());
        for (name, value) in labels {
            match plan.label(name) {
                Label::Gone => {}
                Label::Own => out.push(((*name).into(), (&**value).into())),
                Label::Expression(at) => out.push(((*name).into(), value_of(values, at))),
            }
        }
        for (name, value) in &plan.added {
            out.push(((&**name).into(), value_of(values, *value)));
        }
        let kind = match metric {
            Metric::RequestDuration | Metric::RequestBytes | Metric::ResponseBytes => {
                SeriesKind::Histogram
            }
            _ => SeriesKind::Counter,
        };
        // Istio 1.0's duration was one of seconds.
        let old = self.node.old_metric_names && metric == Metric::RequestDuration;
        let (name, divisor) = if old {
            ("request_duration_seconds", 1000.0)
        } else {
            (
                METRICS.get(metric as usize).copied().unwrap_or_default(),
                1.0,
            )
        };
        let name = format!("istiocustom.istio_{name}");
        let registry = &core.shared.registry;
        registry.series(core.id, &name, &out.into(), kind, divisor)
    }

    /// The metrics of the configuration's own.
    pub(crate) fn count_own(&self, set: &Set, context: &dyn LogContext, peers: [Option<&Peer>; 2]) {
        if set.own.is_empty() {
            return;
        }
        let values = self.evaluate(context, peers);
        for (kind, at, series) in &set.own {
            let amount = values.get(*at).and_then(|value| value.parse().ok());
            let amount: u64 = amount.unwrap_or_default();
            match kind {
                MetricKind::Counter => series.add(amount),
                MetricKind::Gauge => series.set(i64::try_from(amount).unwrap_or(i64::MAX)),
                MetricKind::Histogram => series.record(amount),
            }
        }
    }
}

fn value_of(values: &[String], at: usize) -> Box<str> {
    values.get(at).map_or("unknown", |value| value).into()
}

/// What a worker keeps for Istio's filters.
#[derive(Default)]
pub(crate) struct IstioState {
    pub(crate) peers: super::peers::Peers,
    key: Vec<u8>,
    /// `metadata_exchange.`, kept from the first connection on.
    exchange: Option<(Group<Exchange>, Local<Exchange>)>,
    /// Those of network filters, which have no place of their own in a worker.
    tcp: Vec<Rc<StatsFilter>>,
}

impl Core {
    /// The counters of the TCP metadata exchange.
    pub(crate) fn exchange_stats(&mut self) -> &Local<Exchange> {
        let (registry, id) = (&self.shared.registry, self.id);
        let (_, local) = self.istio.exchange.get_or_insert_with(|| {
            let group = registry.group("metadata_exchange.");
            let local = group.local(id);
            (group, local)
        });
        local
    }

    /// The filter of a chain without HTTP, in this worker.
    pub(crate) fn tcp_stats_filter(
        &mut self,
        compiled: &Arc<CompiledIstioStats>,
        inbound: bool,
    ) -> Rc<StatsFilter> {
        let known = self.istio.tcp.iter().find(|filter| {
            Arc::ptr_eq(&filter.compiled, compiled)
                && (filter.reporter == Reporter::Destination)
                    == (inbound && !compiled.config.gateway)
        });
        if let Some(known) = known {
            return Rc::clone(known);
        }
        // Those of chains that are gone have no other holder.
        self.istio
            .tcp
            .retain(|filter| Arc::strong_count(&filter.compiled) > 1);
        let made = Rc::new(StatsFilter::new(self, 0, compiled, inbound));
        self.istio.tcp.push(Rc::clone(&made));
        made
    }
}
