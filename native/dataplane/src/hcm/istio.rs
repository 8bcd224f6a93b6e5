//! Istio's filters on an HTTP stream: peer metadata, ALPN, statistics.
//!
//! ```text
//! request   run_filters ─▶ peer_metadata (reads and takes out the client's headers, adds our own), istio_alpn
//! response  encode_head ─▶ peer_metadata_response (the same with the upstream's)
//! end       finish ─▶ istio_stats
//! ```

use std::rc::Rc;

use tidegate_model::Name;
use tidegate_model::cluster::UpstreamProtocol;
use tidegate_model::hcm::{HttpConnectionManager, HttpFilterKind};
use tidegate_model::istio::{PeerDiscovery, PeerPropagation};
use tidegate_snapshot::CompiledHcm;
use tidegate_snapshot::grpc_status::grpc_status;
use tidegate_snapshot::istio_stats::Metric;

use super::ServerConnection;
use super::filters::Verdict;
use super::headers::HeaderList;
use super::runtime::{Filter, FilterKind};
use super::stream::{Protocol, Stream, StreamRoute};
use crate::cluster::ClusterRuntime;
use crate::istio::labels::{Facts, Reporter};
use crate::istio::metrics::{HttpOutcome, Outcome, PeerSerials, StatsFilter};
use crate::istio::{KnownPeer, peers, principals};
use crate::worker::Core;

const METADATA: &[u8] = b"x-envoy-peer-metadata";
const METADATA_ID: &[u8] = b"x-envoy-peer-metadata-id";

/// What Istio's filters of a connection manager need beyond their configuration, in one worker.
pub(super) struct IstioFilters {
    /// By place in the chain: the value of the header that tells of us.
    own: Vec<(usize, String)>,
    node_id: Name,
    pub(super) stats: Vec<StatsFilter>,
}

impl IstioFilters {
    /// `None`: there is none of them.
    pub(super) fn new(core: &Core, compiled: &CompiledHcm, inbound: bool) -> Option<Box<Self>> {
        let node = &core.shared.config.node;
        let mut filters = Self {
            own: Vec::new(),
            node_id: Name::clone(&node.id),
            stats: Vec::new(),
        };
        let mut any = false;
        for (place, filter) in compiled.filters.iter().enumerate() {
            match &filter.config.kind {
                HttpFilterKind::PeerMetadata(config) => {
                    let own = peers::own(&node.metadata, &config.additional_labels, true);
                    filters.own.push((place, own.to_header()));
                    any = true;
                }
                HttpFilterKind::IstioStats(_) => {
                    if let Some(compiled) = &filter.istio_stats {
                        let stats = StatsFilter::new(core, place, compiled, inbound);
                        filters.stats.push(stats);
                        any = true;
                    }
                }
                _ => {}
            }
        }
        any.then(|| Box::new(filters))
    }

    fn own(&self, place: usize) -> &str {
        let own = self.own.iter().find(|(known, _)| *known == place);
        own.map_or("", |(_, value)| value)
    }
}

/// The first method that finds something, and what it finds.
fn discover(
    methods: &[PeerDiscovery],
    headers: &HeaderList,
    labels: &[Name],
    peers: &mut peers::Peers,
    mut headers_seen: impl FnMut(bool, bool),
) -> Option<Rc<KnownPeer>> {
    methods.iter().find_map(|method| match method {
        PeerDiscovery::WorkloadDiscovery => None,
        PeerDiscovery::Baggage => peers.of_baggage(headers.get(b"baggage")?),
        PeerDiscovery::IstioHeaders => {
            let (id, value) = (headers.get(METADATA_ID), headers.get(METADATA));
            headers_seen(id.is_some(), value.is_some());
            let value = value.filter(|value| !value.is_empty())?;
            peers.of_header(id.unwrap_or_default(), value, labels)
        }
    })
}

fn remove(methods: &[PeerDiscovery], headers: &mut HeaderList) {
    if methods.contains(&PeerDiscovery::IstioHeaders) {
        headers.remove(METADATA_ID);
        headers.remove(METADATA);
    }
}

/// Whether nothing is told to this cluster.
fn keeps_silent(method: PeerPropagation, cluster: Option<&Rc<ClusterRuntime>>) -> bool {
    let Some(cluster) = cluster else {
        return false;
    };
    if method.skip_external_clusters && &*cluster.config.name == "PassthroughCluster" {
        return true;
    }
    cluster
        .config
        .istio
        .as_ref()
        .is_some_and(|istio| istio.disable_mx || (method.skip_external_clusters && istio.external))
}

impl ServerConnection {
    /// The peer metadata filter's request side.
    pub(super) fn peer_metadata(
        &self,
        stream: &mut Stream,
        core: &mut Core,
        place: usize,
    ) -> Verdict {
        let hcm = Rc::clone(self.manager_of(stream));
        let Some(HttpFilterKind::PeerMetadata(config)) = kind(&hcm.config, place) else {
            return Verdict::Continue;
        };
        let exchanged = &mut stream.istio;
        let headers = &mut stream.request.headers;
        let found = discover(
            &config.downstream_discovery,
            headers,
            &config.additional_labels,
            &mut core.istio.peers,
            |id, metadata| {
                exchanged.id_received = id;
                exchanged.metadata_received = metadata;
            },
        );
        if exchanged.downstream.is_none() {
            exchanged.downstream = found;
        }
        remove(&config.downstream_discovery, headers);
        if config.upstream_propagation.is_empty() {
            return Verdict::Continue;
        }
        self.choose_cluster(stream, core);
        if let Some(filters) = &hcm.istio {
            for method in &config.upstream_propagation {
                if !keeps_silent(*method, stream.cluster.as_ref()) {
                    let headers = &mut stream.request.headers;
                    headers.set(METADATA_ID, filters.node_id.as_bytes());
                    headers.set(METADATA, filters.own(place).as_bytes());
                }
            }
        }
        Verdict::Continue
    }

    /// The peer metadata filters' response side.
    pub(super) fn peer_metadata_response(&self, stream: &mut Stream, core: &mut Core) {
        let hcm = Rc::clone(self.manager_of(stream));
        let Some(filters) = &hcm.istio else {
            return;
        };
        for (place, own) in &filters.own {
            let Some(HttpFilterKind::PeerMetadata(config)) = kind(&hcm.config, *place) else {
                continue;
            };
            let filter = Filter {
                kind: FilterKind::PeerMetadata,
                index: *place,
            };
            if self.is_disabled(stream, filter) {
                continue;
            }
            let headers = &mut stream.response.headers;
            let found = discover(
                &config.upstream_discovery,
                headers,
                &config.additional_labels,
                &mut core.istio.peers,
                |_, _| {},
            );
            if stream.istio.upstream.is_none() {
                stream.istio.upstream = found;
            }
            remove(&config.upstream_discovery, headers);
            for method in &config.downstream_propagation {
                if keeps_silent(*method, stream.cluster.as_ref()) {
                    continue;
                }
                if stream.istio.id_received {
                    headers.set(METADATA_ID, filters.node_id.as_bytes());
                }
                if stream.istio.metadata_received {
                    headers.set(METADATA, own.as_bytes());
                }
            }
        }
    }

    /// The ALPN filter: what the upstream's TLS offers.
    pub(super) fn istio_alpn(&self, stream: &mut Stream, core: &mut Core, place: usize) -> Verdict {
        let hcm = Rc::clone(self.manager_of(stream));
        let Some(HttpFilterKind::Alpn(config)) = kind(&hcm.config, place) else {
            return Verdict::Continue;
        };
        self.choose_cluster(stream, core);
        let Some(cluster) = &stream.cluster else {
            return Verdict::Continue;
        };
        let istio = cluster.config.istio.as_ref();
        if istio.is_some_and(|istio| istio.keeps_alpn) {
            return Verdict::Continue;
        }
        let names = match (cluster.config.http.protocol, stream.request.protocol) {
            (UpstreamProtocol::Http1, _) => &config.http11,
            (UpstreamProtocol::Http2 | UpstreamProtocol::Negotiated, _) => &config.http2,
            (UpstreamProtocol::Downstream, Protocol::Http10) => &config.http10,
            (UpstreamProtocol::Downstream, Protocol::Http11) => &config.http11,
            (UpstreamProtocol::Downstream, Protocol::Http2) => &config.http2,
        };
        if !names.is_empty() {
            stream.istio.alpn = Some(std::sync::Arc::clone(names));
        }
        Verdict::Continue
    }

    /// Istio's standard metrics of a stream that is over.
    pub(super) fn istio_stats(&self, stream: &Stream, core: &mut Core) {
        let Some(filters) = &self.manager_of(stream).istio else {
            return;
        };
        for filter in &filters.stats {
            let place = Filter {
                kind: FilterKind::IstioStats,
                index: filter.place,
            };
            if !self.is_disabled(stream, place) {
                self.count_istio(filter, stream, core);
            }
        }
    }

    fn count_istio(&self, filter: &StatsFilter, stream: &Stream, core: &mut Core) {
        let istio = &stream.istio;
        let of_endpoint = if filter.reporter == Reporter::Source && istio.upstream.is_none() {
            let host = stream.host.as_ref();
            host.and_then(|host| host.host.workload.as_ref())
                .and_then(|workload| core.istio.peers.of_endpoint(workload))
        } else {
            None
        };
        let peer = match filter.reporter {
            Reporter::Source => istio.upstream.as_ref().or(of_endpoint.as_ref()),
            Reporter::Destination | Reporter::Waypoint => istio.downstream.as_ref(),
        };
        let endpoint = istio
            .upstream
            .as_ref()
            .filter(|_| filter.reporter == Reporter::Waypoint);
        let cluster = stream.cluster.as_ref();
        let (peer_principal, own_principal) = self.principals(filter.reporter, stream);
        let host = if filter.compiled.config.disable_host_header_fallback {
            ""
        } else {
            std::str::from_utf8(stream.request.authority_bytes()).unwrap_or_default()
        };
        let facts = Facts {
            peer: peer.map(|known| &known.peer),
            endpoint: endpoint.map(|known| &known.peer),
            route_name: stream
                .route
                .as_ref()
                .map_or("", |route: &StreamRoute| route.route().name()),
            cluster: cluster.map(|cluster| &*cluster.config),
            host,
            peer_principal,
            own_principal,
        };
        let serial = |known: Option<&Rc<KnownPeer>>| known.map_or(0, |known| known.serial);
        let serials = PeerSerials {
            peer: serial(peer),
            endpoint: serial(endpoint),
            incarnation: cluster.map_or(0, |cluster| cluster.incarnation),
        };
        let view = self.view(stream, core);
        let grpc = stream.request.grpc;
        let outcome = Outcome {
            http: Some(HttpOutcome {
                code: stream.response.status,
                grpc,
                grpc_status: if grpc { grpc_status(&view) } else { None },
            }),
            flags: stream.flags,
        };
        let peers = [
            istio.downstream.as_ref().map(|known| &known.peer),
            istio.upstream.as_ref().map(|known| &known.peer),
        ];
        let set = filter.set(core, &facts, serials, outcome, &view, peers);
        if grpc && let Some((requests, responses)) = stream.grpc.message_counts() {
            set.add(Metric::RequestMessages, requests);
            set.add(Metric::ResponseMessages, responses);
        }
        set.add(Metric::RequestsTotal, 1);
        let age = core.now().since(stream.times.start);
        set.record(Metric::RequestDuration, age.as_millis() as u64);
        let request = &stream.request;
        set.record(Metric::RequestBytes, request.head_bytes + request.bytes);
        let response = &stream.response;
        set.record(Metric::ResponseBytes, response.head_bytes + response.bytes);
        filter.count_own(&set, &view, peers);
    }

    /// The principals of the other side and of our own, towards the side that the reporter looks at.
    fn principals<'s>(&'s self, reporter: Reporter, stream: &'s Stream) -> (&'s str, &'s str) {
        principals(if reporter.is_server() {
            self.downstream.info.tls.as_deref()
        } else {
            stream.upstream_tls.as_deref()
        })
    }
}

fn kind(config: &HttpConnectionManager, place: usize) -> Option<&HttpFilterKind> {
    Some(&config.http_filters.get(place)?.kind)
}
