//! The secrets that listeners and clusters refer to, and where they go: slots of the snapshot.

use tidegate_model::cluster::Cluster;
use tidegate_model::listener::Listener;
use tidegate_model::tls::{DownstreamTransport, SecretRef, UpstreamTransport};
use tidegate_stats::Group;
use tidegate_stats::defs::ssl;
use tidegate_tls::{CertificateDetails, ClientSlot, ServerSlot, TlsError};

use super::Manager;
use super::listeners::filter_chains;

/// The certificates of one transport socket.
pub(crate) struct TlsContext {
    pub(crate) trusted_ca: Vec<CertificateDetails>,
    pub(crate) certificates: Vec<CertificateDetails>,
}

/// The secrets of all its filter chains, each once.
pub(super) fn listener_secrets(listener: &Listener) -> Vec<SecretRef> {
    let sockets = filter_chains(listener).map(|chain| &chain.transport_socket);
    each_once(sockets.flat_map(|socket| match socket {
        DownstreamTransport::RawBuffer => Vec::new(),
        DownstreamTransport::Tls(context) => context.secrets(),
    }))
}

/// The secrets of all its transport sockets, each once.
pub(super) fn cluster_secrets(cluster: &Cluster) -> Vec<SecretRef> {
    each_once(transports(cluster).flat_map(UpstreamTransport::secrets))
}

/// What is wrong with a transport socket by itself.
pub(super) fn check_transports(cluster: &Cluster) -> Result<(), String> {
    for transport in transports(cluster) {
        if let UpstreamTransport::Tls(context) = transport {
            ClientSlot::new(context.clone()).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

fn transports(cluster: &Cluster) -> impl Iterator<Item = &UpstreamTransport> {
    let matches = cluster.transport_socket_matches.iter();
    std::iter::once(&cluster.transport_socket).chain(matches.map(|entry| &entry.transport))
}

fn each_once(secrets: impl Iterator<Item = SecretRef>) -> Vec<SecretRef> {
    let mut found: Vec<SecretRef> = Vec::new();
    for secret in secrets {
        if !found.contains(&secret) {
            found.push(secret);
        }
    }
    found
}

/// Whether a slot holds one of certain secrets.
type Holds<'a> = &'a dyn Fn(&SecretRef) -> bool;

impl Manager {
    /// Tries the known secrets on those who wait and refer to one of these: what they could not use later is refused now.
    pub(super) fn try_warming(&self, holds: Holds<'_>) -> Result<(), TlsError> {
        let waiting = self.listeners.warming.values();
        for entry in waiting.filter(|entry| entry.secrets.iter().any(holds)) {
            for chain in filter_chains(&entry.config) {
                if let DownstreamTransport::Tls(context) = &chain.transport_socket {
                    ServerSlot::new(context.clone())?.refresh(&self.secrets)?;
                }
            }
        }
        let waiting = self.clusters.warming.values();
        for entry in waiting.filter(|entry| entry.secrets.iter().any(holds)) {
            for transport in transports(&entry.config) {
                if let UpstreamTransport::Tls(context) = transport {
                    ClientSlot::new(context.clone())?.refresh(&self.secrets)?;
                }
            }
        }
        Ok(())
    }

    /// Puts the known secrets into the slots that are new in the snapshot.
    pub(super) fn fill_slots(&self) {
        // They have been tried while it was warming.
        for (listener, slot) in self.server_slots() {
            if slot.load().is_none() && slot.refresh(&self.secrets) == Ok(true) {
                self.count_listener(listener, slot.secrets().len());
            }
        }
        for (cluster, slot) in self.client_slots() {
            if slot.load().is_none() && slot.refresh(&self.secrets) == Ok(true) {
                self.count_cluster(cluster, slot.secrets().len());
            }
        }
    }

    /// Puts the known secrets into the slots of the snapshot that hold one of these; an update is `counted`.
    pub(super) fn refresh_slots(&self, holds: Holds<'_>, counted: bool) -> Result<(), TlsError> {
        let updates = usize::from(counted);
        for (listener, slot) in self.server_slots() {
            if slot.secrets().iter().any(holds) {
                slot.refresh(&self.secrets)?;
                self.count_listener(listener, updates);
            }
        }
        for (cluster, slot) in self.client_slots() {
            if slot.secrets().iter().any(holds) {
                slot.refresh(&self.secrets)?;
                self.count_cluster(cluster, updates);
            }
        }
        Ok(())
    }

    fn count_listener(&self, listener: &Listener, updates: usize) {
        let entry = self.listeners.active.get(&listener.name);
        count(entry.and_then(|entry| entry.tls.as_ref()), updates);
    }

    fn count_cluster(&self, cluster: &Cluster, updates: usize) {
        let entry = self.clusters.active.get(&cluster.name);
        count(entry.and_then(|entry| entry.tls.as_ref()), updates);
    }

    fn server_slots(&self) -> impl Iterator<Item = (&Listener, &ServerSlot)> {
        self.snapshot().listeners().flat_map(|listener| {
            let chains = &listener.filter_chains;
            let all = chains.chains().iter().chain(chains.default_chain());
            all.filter_map(|chain| Some((&*listener.config, &**chain.tls.as_ref()?)))
        })
    }

    fn client_slots(&self) -> impl Iterator<Item = (&Cluster, &ClientSlot)> {
        self.snapshot().clusters().flat_map(|cluster| {
            let slots = cluster.transports().slots();
            slots.map(|slot| (&*cluster.config, &**slot))
        })
    }

    /// The certificates of all transport sockets that have theirs.
    pub(crate) fn tls_contexts(&self) -> Vec<TlsContext> {
        let servers = self.server_slots().filter_map(|(_, slot)| {
            let context = slot.load()?;
            Some(TlsContext {
                trusted_ca: context.trusted_ca(),
                certificates: context.certificates(),
            })
        });
        let clients = self.client_slots().filter_map(|(_, slot)| {
            let context = slot.load()?;
            Some(TlsContext {
                trusted_ca: context.trusted_ca(),
                certificates: context.certificates(),
            })
        });
        servers.chain(clients).collect()
    }
}

fn count(group: Option<&Group<ssl::SslSocketFactory>>, updates: usize) {
    if let Some(group) = group {
        let stats = group.shared();
        stats.add(ssl::SSL_CONTEXT_UPDATE_BY_SDS, updates as u64);
    }
}
