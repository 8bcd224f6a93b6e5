//! The labels of Istio's standard metrics, as its proxy gives them: who called whom, by what both sides have told.

use std::borrow::Cow;

use tidegate_model::cluster::Cluster;
use tidegate_model::istio::NodeMetadata;
use tidegate_telemetry::Peer;

const UNKNOWN: &str = "unknown";

/// Which side reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reporter {
    Source,
    Destination,
    /// A gateway in front of services, which reports for them.
    Waypoint,
}

impl Reporter {
    const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Waypoint => "waypoint",
        }
    }

    pub(crate) const fn is_server(self) -> bool {
        !matches!(self, Self::Source)
    }
}

/// What is known of a stream or connection. Empty texts: nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Facts<'a> {
    /// The other side: the client for a server, the server for a client.
    pub(crate) peer: Option<&'a Peer>,
    /// For a waypoint: the server.
    pub(crate) endpoint: Option<&'a Peer>,
    pub(crate) route_name: &'a str,
    pub(crate) cluster: Option<&'a Cluster>,
    /// Of the request, where it may stand in for a service that the control plane does not tell.
    pub(crate) host: &'a str,
    /// The first URI SAN of the other side's certificate, and of our own.
    pub(crate) peer_principal: &'a str,
    pub(crate) own_principal: &'a str,
}

/// A label and its value.
pub(crate) type Labels<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// The destination service: host, name and namespace.
struct Service<'a> {
    host: &'a str,
    name: &'a str,
    namespace: &'a str,
}

impl<'a> Service<'a> {
    fn of(facts: &Facts<'a>) -> Self {
        let mut service = Self {
            host: facts.host,
            name: facts.host,
            namespace: "",
        };
        match facts.route_name {
            "block_all" => service.name = "BlackHoleCluster",
            "allow_any" => service.name = "PassthroughCluster",
            _ => {
                if let Some(cluster) = facts.cluster {
                    service.of_cluster(cluster);
                }
            }
        }
        service
    }

    fn of_cluster(&mut self, cluster: &'a Cluster) {
        if matches!(
            &*cluster.name,
            "BlackHoleCluster"
                | "PassthroughCluster"
                | "InboundPassthroughCluster"
                | "InboundPassthroughClusterIpv4"
                | "InboundPassthroughClusterIpv6"
        ) {
            self.name = &cluster.name;
            return;
        }
        let Some(told) = cluster
            .istio
            .as_ref()
            .and_then(|istio| istio.service.as_ref())
        else {
            return;
        };
        if let Some(host) = &told.host {
            self.host = host;
        }
        self.namespace = &told.namespace;
        self.name = match &told.name {
            Some(name) => name,
            None => self.host.split('.').next().unwrap_or_default(),
        };
    }
}

/// `NAMESPACE` of `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
fn namespace_of(principal: &str) -> &str {
    let after = principal.split_once("/ns/").map(|(_, after)| after);
    after
        .and_then(|after| after.split('/').next())
        .unwrap_or_default()
}

fn or<'a>(value: &'a str, otherwise: &'a str) -> Cow<'a, str> {
    Cow::Borrowed(if value.is_empty() { otherwise } else { value })
}

fn label<'m>(node: &'m NodeMetadata, name: &str) -> &'m str {
    let found = node.labels.iter().find(|(key, _)| &**key == name);
    found.map_or("", |(_, value)| value)
}

/// The labels that are known once the peer is; what comes of the stream's end is put behind them.
pub(crate) fn of_peers<'a>(
    reporter: Reporter,
    node: &'a NodeMetadata,
    facts: &Facts<'a>,
) -> Labels<'a> {
    let nobody: &'a Peer = const {
        &Peer {
            instance: String::new(),
            cluster: String::new(),
            namespace: String::new(),
            workload: String::new(),
            canonical_name: String::new(),
            canonical_revision: String::new(),
            app: String::new(),
            version: String::new(),
            kind: tidegate_telemetry::WorkloadKind::Unknown,
            identity: String::new(),
            region: String::new(),
            zone: String::new(),
            labels: Vec::new(),
        }
    };
    let peer = facts.peer.unwrap_or(nobody);
    let service = Service::of(facts);
    let principal = if reporter == Reporter::Source && facts.peer_principal.is_empty() {
        &peer.identity
    } else {
        facts.peer_principal
    };
    let of_principal = namespace_of(principal);
    let namespace = if of_principal.is_empty() {
        &peer.namespace
    } else {
        of_principal
    };
    let canonical = label(node, "service.istio.io/canonical-name");
    let own = |side: [&'static str; 8]| {
        let values = [
            Cow::Borrowed(&*node.workload_name),
            Cow::Borrowed(canonical),
            Cow::Borrowed(label(node, "service.istio.io/canonical-revision")),
            Cow::Borrowed(&*node.namespace),
            or(facts.own_principal, UNKNOWN),
            Cow::Borrowed(label(node, "app")),
            Cow::Borrowed(label(node, "version")),
            Cow::Borrowed(&*node.cluster_id),
        ];
        side.into_iter().zip(values)
    };
    let others = |side: [&'static str; 8]| {
        let values = [
            or(&peer.workload, UNKNOWN),
            or(&peer.canonical_name, UNKNOWN),
            or(&peer.canonical_revision, "latest"),
            or(namespace, UNKNOWN),
            or(principal, UNKNOWN),
            or(&peer.app, UNKNOWN),
            or(&peer.version, UNKNOWN),
            or(&peer.cluster, UNKNOWN),
        ];
        side.into_iter().zip(values)
    };
    const SOURCE: [&str; 8] = [
        "source_workload",
        "source_canonical_service",
        "source_canonical_revision",
        "source_workload_namespace",
        "source_principal",
        "source_app",
        "source_version",
        "source_cluster",
    ];
    const DESTINATION: [&str; 8] = [
        "destination_workload",
        "destination_canonical_service",
        "destination_canonical_revision",
        "destination_workload_namespace",
        "destination_principal",
        "destination_app",
        "destination_version",
        "destination_cluster",
    ];
    let mut labels: Labels<'a> = Vec::with_capacity(26);
    labels.push(("reporter", Cow::Borrowed(reporter.name())));
    let (destination, services): (Vec<_>, [Cow<'a, str>; 3]) = match reporter {
        Reporter::Source => {
            labels.extend(own(SOURCE));
            let services = [
                or(service.host, UNKNOWN),
                or(service.name, UNKNOWN),
                match (service.namespace, namespace) {
                    ("", namespace) => or(namespace, UNKNOWN),
                    (told, _) => Cow::Borrowed(told),
                },
            ];
            (others(DESTINATION).collect(), services)
        }
        Reporter::Destination => {
            labels.extend(others(SOURCE));
            let services = [
                or(service.host, canonical),
                or(service.name, canonical),
                Cow::Borrowed(&*node.namespace),
            ];
            (own(DESTINATION).collect(), services)
        }
        Reporter::Waypoint => {
            labels.extend(others(SOURCE));
            let endpoint = facts.endpoint.unwrap_or(nobody);
            let values = [
                &endpoint.workload,
                &endpoint.canonical_name,
                &endpoint.canonical_revision,
                &endpoint.namespace,
                &endpoint.identity,
                &endpoint.app,
                &endpoint.version,
                &endpoint.cluster,
            ];
            let values = values.map(|value| or(value, UNKNOWN));
            let services = [service.host, service.name, service.namespace];
            (
                DESTINATION.into_iter().zip(values).collect(),
                services.map(|value| or(value, UNKNOWN)),
            )
        }
    };
    // In the order of Istio's proxy, which is that of the names in `/stats`.
    const ORDER: [&str; 11] = [
        "destination_workload",
        "destination_workload_namespace",
        "destination_principal",
        "destination_app",
        "destination_version",
        "destination_service",
        "destination_canonical_service",
        "destination_canonical_revision",
        "destination_service_name",
        "destination_service_namespace",
        "destination_cluster",
    ];
    let [host, name, service_namespace] = services;
    for wanted in ORDER {
        let value = match wanted {
            "destination_service" => Some(host.clone()),
            "destination_service_name" => Some(name.clone()),
            "destination_service_namespace" => Some(service_namespace.clone()),
            _ => destination
                .iter()
                .find(|(known, _)| *known == wanted)
                .map(|(_, value)| value.clone()),
        };
        labels.push((wanted, value.unwrap_or_default()));
    }
    labels
}

/// `connection_security_policy`: only a server says it.
pub(crate) fn security_policy(reporter: Reporter, facts: &Facts<'_>) -> &'static str {
    if !reporter.is_server() {
        return UNKNOWN;
    }
    if facts.peer_principal.is_empty() || facts.own_principal.is_empty() {
        "none"
    } else {
        "mutual_tls"
    }
}
