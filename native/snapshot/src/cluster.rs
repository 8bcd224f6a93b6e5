//! Clusters with their endpoints: what a worker's balancer and pools are built from.
//!
//! An endpoint update makes a new [`Endpoints`] and leaves everything else of the cluster as it was; a host that is present
//! before and after keeps its [`HostId`], so that workers keep its pools and counters. Nothing here knows sockets or workers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tidegate_model::cluster::{
    Address, Cluster, ClusterLoadAssignment, Discovery, HealthStatus, LbEndpoint, LbMetadata,
    Locality,
};
use tidegate_model::{Fraction, Name};

use crate::error::CompileError;
use crate::ids::{ClusterId, ClusterRef};
use crate::transport::{TransportIndex, UpstreamTransports};

/// One cluster of a snapshot.
#[derive(Debug, Clone)]
pub struct CompiledCluster {
    pub(crate) key: ClusterRef,
    pub config: Arc<Cluster>,
    /// The snapshot generation in which `config` became what it is. Pools of another incarnation drain.
    pub incarnation: u64,
    pub endpoints: Arc<Endpoints>,
    /// The load assignment that `endpoints` was built from, before DNS.
    pub(crate) assignment: Arc<ClusterLoadAssignment>,
    pub(crate) resolved: Arc<FxHashMap<(Name, u16), Vec<IpAddr>>>,
    pub(crate) next_host: u64,
    transports: Arc<UpstreamTransports>,
}

impl CompiledCluster {
    #[inline]
    pub fn id(&self) -> ClusterId {
        self.key.id()
    }

    /// Whether any of its connections is over TLS.
    pub fn has_tls(&self) -> bool {
        self.transports.has_tls()
    }

    /// The transport sockets of its hosts.
    #[inline]
    pub const fn transports(&self) -> &Arc<UpstreamTransports> {
        &self.transports
    }

    /// A reference that keeps the name in use.
    pub fn key(&self) -> &ClusterRef {
        &self.key
    }

    #[inline]
    pub fn name(&self) -> &Name {
        &self.config.name
    }

    /// The load assignment as configured or delivered, before DNS (for `/config_dump`).
    pub fn load_assignment(&self) -> &Arc<ClusterLoadAssignment> {
        &self.assignment
    }

    /// Whether its hosts have names that are resolved.
    pub fn is_resolved(&self) -> bool {
        matches!(
            self.config.discovery,
            Discovery::StrictDns(_) | Discovery::LogicalDns(_)
        )
    }

    /// What a name has last been resolved to.
    pub fn resolved(&self, host: &str, port: u16) -> Vec<IpAddr> {
        let known = self.resolved.get(&(Name::from(host), port));
        known.cloned().unwrap_or_default()
    }

    /// The names that DNS has to resolve for this cluster, each once.
    pub fn dns_targets(&self) -> Vec<(Name, u16)> {
        let mut targets = Vec::new();
        for locality in &self.assignment.localities {
            for endpoint in &locality.endpoints {
                if let Address::Dns { host, port } = &endpoint.address {
                    let target = (Name::clone(host), *port);
                    if !targets.contains(&target) {
                        targets.push(target);
                    }
                }
            }
        }
        targets
    }
}

/// Identifies a host within its cluster's lifetime; never reused for another address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub u64);

/// An upstream host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub id: HostId,
    pub address: HostAddress,
    /// As `%UPSTREAM_HOST%` prints it: `10.0.0.1:80`, `[::1]:80`, `/path`.
    pub address_text: Name,
    /// Configured hostname, or the DNS name it was resolved from; may be empty.
    pub hostname: Name,
    pub health: HealthStatus,
    /// 1 and up.
    pub weight: u32,
    pub locality: Arc<Locality>,
    pub priority: u32,
    /// Of its cluster's transport sockets.
    pub transport: TransportIndex,
    /// `istio.workload` of its metadata: what telemetry knows of it.
    pub workload: Option<Name>,
    /// `envoy.lb` of its metadata.
    pub lb_metadata: Option<Arc<LbMetadata>>,
}

impl Host {
    /// It says so of itself.
    #[inline]
    pub fn is_canary(&self) -> bool {
        let metadata = self.lb_metadata.as_ref();
        metadata.is_some_and(|metadata| metadata.canary)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostAddress {
    Socket(SocketAddr),
    Pipe(Name),
}

/// All hosts of a cluster, by priority and locality.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Endpoints {
    /// Counts the changes of this cluster's endpoints.
    pub version: u64,
    /// Whether anything has been delivered (EDS) or resolved (DNS) yet; true from the start for the other types.
    pub ready: bool,
    pub hosts: Vec<Arc<Host>>,
    /// By priority; index is the priority; may hold empty ones.
    pub priorities: Vec<Priority>,
    /// Percent; default 140.
    pub overprovisioning_factor: u32,
    pub weighted_priority_health: bool,
    pub drop_overloads: Vec<(Name, Fraction)>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Priority {
    /// Indices into [`Endpoints::hosts`].
    pub hosts: Vec<u32>,
    pub localities: Vec<LocalityHosts>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LocalityHosts {
    pub locality: Arc<Locality>,
    /// `None`: not set, gets no load in locality weighted balancing.
    pub weight: Option<u32>,
    /// Indices into [`Endpoints::hosts`].
    pub hosts: Vec<u32>,
}

impl CompiledCluster {
    pub(crate) fn new(
        key: ClusterRef,
        config: Arc<Cluster>,
        incarnation: u64,
    ) -> Result<Self, CompileError> {
        let assignment = match &config.discovery {
            Discovery::Static(assignment) => Arc::clone(assignment),
            Discovery::StrictDns(dns) | Discovery::LogicalDns(dns) => {
                Arc::clone(&dns.load_assignment)
            }
            Discovery::Eds { .. } | Discovery::OriginalDst(_) => {
                Arc::new(ClusterLoadAssignment::empty(Name::clone(&config.name)))
            }
        };
        let ready = !matches!(
            &config.discovery,
            Discovery::Eds { .. } | Discovery::StrictDns(_) | Discovery::LogicalDns(_)
        );
        let mut cluster = Self {
            transports: Arc::new(UpstreamTransports::compile(&config)?),
            key,
            config,
            incarnation,
            endpoints: Arc::new(Endpoints {
                ready,
                overprovisioning_factor: 140,
                ..Endpoints::default()
            }),
            assignment,
            resolved: Arc::default(),
            next_host: 0,
        };
        cluster.rebuild();
        Ok(cluster)
    }

    /// Carries endpoints over from the cluster this one replaces, so that a change of, say, a timeout never empties it.
    pub(crate) fn inherit(&mut self, old: &CompiledCluster) {
        match (&self.config.discovery, &old.config.discovery) {
            (
                Discovery::Eds { service_name, .. },
                Discovery::Eds {
                    service_name: before,
                    ..
                },
            ) if service_name == before => {
                self.assignment = Arc::clone(&old.assignment);
            }
            (
                Discovery::StrictDns(_) | Discovery::LogicalDns(_),
                Discovery::StrictDns(_) | Discovery::LogicalDns(_),
            ) => self.resolved = Arc::clone(&old.resolved),
            _ => {}
        }
        self.next_host = old.next_host;
        self.endpoints = Arc::new(Endpoints {
            ready: self.endpoints.ready || old.endpoints.ready,
            ..(*old.endpoints).clone()
        });
        self.rebuild();
    }

    pub(crate) fn set_assignment(&mut self, assignment: Arc<ClusterLoadAssignment>) -> bool {
        if self.endpoints.ready && *self.assignment == *assignment {
            return false;
        }
        self.assignment = assignment;
        self.mark_ready();
        self.rebuild();
        true
    }

    pub(crate) fn set_resolved(&mut self, host: &Name, port: u16, addresses: Vec<IpAddr>) -> bool {
        let key = (Name::clone(host), port);
        if self.endpoints.ready && self.resolved.get(&key) == Some(&addresses) {
            return false;
        }
        Arc::make_mut(&mut self.resolved).insert(key, addresses);
        self.mark_ready();
        self.rebuild();
        true
    }

    fn mark_ready(&mut self) {
        if !self.endpoints.ready {
            self.endpoints = Arc::new(Endpoints {
                ready: true,
                ..(*self.endpoints).clone()
            });
        }
    }

    /// Builds the host list anew out of `assignment` and `resolved`, keeping the identity of hosts that stay.
    fn rebuild(&mut self) {
        let old = Arc::clone(&self.endpoints);
        let mut before: FxHashMap<(&HostAddress, &str), &Arc<Host>> = FxHashMap::default();
        for host in &old.hosts {
            before.insert((&host.address, &host.hostname), host);
        }
        let logical = matches!(&self.config.discovery, Discovery::LogicalDns(_));
        let assignment = Arc::clone(&self.assignment);
        // Of the sizes that are needed, for most clusters have one host, one locality, one priority.
        let count = assignment
            .localities
            .iter()
            .map(|group| group.endpoints.len());
        let last = assignment
            .localities
            .iter()
            .map(|group| group.priority)
            .max();
        let mut next = Endpoints {
            version: old.version + 1,
            ready: old.ready,
            hosts: Vec::with_capacity(count.sum()),
            priorities: vec![Priority::default(); last.map_or(0, |last| last as usize + 1)],
            overprovisioning_factor: assignment.overprovisioning_factor,
            weighted_priority_health: assignment.weighted_priority_health,
            drop_overloads: assignment.drop_overloads.clone(),
        };
        let mut seen: FxHashMap<(HostAddress, u32), u32> = FxHashMap::default();
        for group in &assignment.localities {
            let locality = Arc::new(group.locality.clone());
            let mut members = Vec::with_capacity(group.endpoints.len());
            for endpoint in &group.endpoints {
                for (address, hostname) in self.addresses(endpoint, logical) {
                    // Envoy keeps the first of two endpoints with one address within a priority.
                    if seen.contains_key(&(address.clone(), group.priority)) {
                        continue;
                    }
                    let kept = before.get(&(&address, &*hostname)).copied();
                    let id = if let Some(host) = kept {
                        host.id
                    } else {
                        self.next_host += 1;
                        HostId(self.next_host)
                    };
                    let host = Host {
                        id,
                        address_text: match kept {
                            Some(host) => Name::clone(&host.address_text),
                            None => address_text(&address),
                        },
                        address: address.clone(),
                        hostname,
                        health: endpoint.health,
                        weight: endpoint.load_balancing_weight.max(1),
                        locality: Arc::clone(&locality),
                        priority: group.priority,
                        transport: self.transports.choose(&endpoint.transport_socket_match),
                        workload: endpoint.workload.clone(),
                        lb_metadata: endpoint.lb_metadata.clone(),
                    };
                    let index = next.hosts.len() as u32;
                    seen.insert((address, group.priority), index);
                    next.hosts.push(match kept {
                        Some(old_host) if **old_host == host => Arc::clone(old_host),
                        _ => Arc::new(host),
                    });
                    members.push(index);
                }
            }
            if let Some(priority) = next.priorities.get_mut(group.priority as usize) {
                priority.hosts.extend_from_slice(&members);
                if priority.localities.is_empty() {
                    priority.localities.reserve_exact(1);
                }
                priority.localities.push(LocalityHosts {
                    locality,
                    weight: group.load_balancing_weight,
                    hosts: members,
                });
            }
        }
        self.endpoints = Arc::new(next);
    }

    fn addresses(&self, endpoint: &LbEndpoint, logical: bool) -> Vec<(HostAddress, Name)> {
        match &endpoint.address {
            Address::Socket(address) => {
                // Where names are resolved an address is the name of its host.
                let hostname = if endpoint.hostname.is_empty() && self.is_resolved() {
                    Name::from(address.ip().to_string())
                } else {
                    Name::clone(&endpoint.hostname)
                };
                vec![(HostAddress::Socket(*address), hostname)]
            }
            Address::Pipe(path) => vec![(
                HostAddress::Pipe(Name::clone(path)),
                Name::clone(&endpoint.hostname),
            )],
            Address::Dns { host, port } => {
                let hostname = if endpoint.hostname.is_empty() {
                    host
                } else {
                    &endpoint.hostname
                };
                let found = self
                    .resolved
                    .get(&(Name::clone(host), *port))
                    .map_or(&[][..], Vec::as_slice);
                let take = if logical { 1 } else { found.len() };
                found
                    .iter()
                    .take(take)
                    .map(|ip| {
                        (
                            HostAddress::Socket(SocketAddr::new(*ip, *port)),
                            Name::clone(hostname),
                        )
                    })
                    .collect()
            }
        }
    }
}

fn address_text(address: &HostAddress) -> Name {
    match address {
        HostAddress::Socket(socket) => Name::from(socket.to_string()),
        HostAddress::Pipe(path) => Name::clone(path),
    }
}
