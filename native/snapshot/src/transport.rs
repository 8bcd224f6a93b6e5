//! The transport sockets of a cluster: the one for all hosts, and those for hosts with certain metadata.
//!
//! Which one a host has is decided when the host is made, and is a number in it.

use std::sync::Arc;

use tidegate_model::Name;
use tidegate_model::cluster::Cluster;
use tidegate_model::tls::{TransportSocketMatch, UpstreamTransport};
use tidegate_tls::ClientSlot;

use crate::error::CompileError;

/// See the module. The first is that of hosts that match nothing.
#[derive(Debug)]
pub struct UpstreamTransports {
    sockets: Vec<Option<Arc<ClientSlot>>>,
    matches: Vec<TransportSocketMatch>,
}

/// Which of its cluster's transport sockets a host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TransportIndex(u16);

impl UpstreamTransports {
    pub(crate) fn compile(config: &Cluster) -> Result<Self, CompileError> {
        let mut sockets = vec![socket(&config.transport_socket, "transport_socket")?];
        for (index, entry) in config.transport_socket_matches.iter().enumerate() {
            let path = format!("transport_socket_matches[{index}].transport_socket");
            sockets.push(socket(&entry.transport, &path)?);
        }
        Ok(Self {
            sockets,
            matches: config.transport_socket_matches.clone(),
        })
    }

    /// Whether they can be made.
    ///
    /// # Errors
    /// The path of the one that cannot, and why in Envoy's words.
    pub fn check(config: &Cluster) -> Result<(), CompileError> {
        Self::compile(config).map(drop)
    }

    /// For a host with this `envoy.transport_socket_match` metadata: the first whose criteria it meets.
    pub fn choose(&self, metadata: &[(Name, Name)]) -> TransportIndex {
        let found = self.matches.iter().position(|entry| {
            entry
                .criteria
                .iter()
                .all(|criterion| metadata.contains(criterion))
        });
        TransportIndex(found.map_or(0, |index| index as u16 + 1))
    }

    /// `None`: plain.
    #[inline]
    pub fn get(&self, index: TransportIndex) -> Option<&Arc<ClientSlot>> {
        self.sockets.get(usize::from(index.0))?.as_ref()
    }

    /// Those with TLS.
    pub fn slots(&self) -> impl Iterator<Item = &Arc<ClientSlot>> {
        self.sockets.iter().flatten()
    }

    pub fn has_tls(&self) -> bool {
        self.slots().next().is_some()
    }
}

fn socket(config: &UpstreamTransport, path: &str) -> Result<Option<Arc<ClientSlot>>, CompileError> {
    match config {
        UpstreamTransport::RawBuffer => Ok(None),
        UpstreamTransport::Tls(context) => ClientSlot::new(Arc::clone(context))
            .map(Some)
            .map_err(|error| CompileError::new(path, error.to_string())),
    }
}
