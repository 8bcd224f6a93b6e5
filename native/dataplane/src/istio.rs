//! Istio's own filters: who the peer is ([`peers`]), and the standard metrics ([`labels`], [`metrics`]).
//!
//! What is the same for HTTP and TCP is here; how a stream or a connection gets to it is told in `hcm/istio.rs` and
//! `network/istio_stats.rs`, `network/metadata_exchange.rs`.

pub(crate) mod labels;
pub(crate) mod metrics;
pub(crate) mod peers;

use std::sync::Arc;

use tidegate_model::Name;
use tidegate_tls::{CertificateInfo, TlsInfo};

pub(crate) use self::peers::KnownPeer;

/// What Istio's filters leave with a stream or a connection.
#[derive(Debug, Default)]
pub(crate) struct Exchanged {
    pub(crate) downstream: Option<std::rc::Rc<KnownPeer>>,
    pub(crate) upstream: Option<std::rc::Rc<KnownPeer>>,
    /// The client has sent `x-envoy-peer-metadata-id`, and `x-envoy-peer-metadata`.
    pub(crate) id_received: bool,
    pub(crate) metadata_received: bool,
    /// The ALPN protocols that the upstream connection shall offer, whatever its cluster says.
    pub(crate) alpn: Option<Arc<[Name]>>,
}

/// What the other end of a connection has told of itself.
#[derive(Debug, Clone, Default)]
pub(crate) enum Told {
    /// It may still do so.
    #[default]
    NotYet,
    Nothing,
    Peer(std::rc::Rc<KnownPeer>),
}

impl Told {
    pub(crate) const fn peer(&self) -> Option<&std::rc::Rc<KnownPeer>> {
        match self {
            Self::Peer(peer) => Some(peer),
            Self::NotYet | Self::Nothing => None,
        }
    }

    pub(crate) const fn is_over(&self) -> bool {
        !matches!(self, Self::NotYet)
    }

    /// It was not to tell anything.
    pub(crate) fn give_up(&mut self) {
        if !self.is_over() {
            *self = Self::Nothing;
        }
    }
}

impl From<Option<std::rc::Rc<KnownPeer>>> for Told {
    fn from(peer: Option<std::rc::Rc<KnownPeer>>) -> Self {
        peer.map_or(Self::Nothing, Self::Peer)
    }
}

/// The first URI SANs of the other side's certificate and of our own; empty: none.
pub(crate) fn principals(tls: Option<&TlsInfo>) -> (&str, &str) {
    fn first(certificate: &CertificateInfo) -> Option<&str> {
        certificate.uri_sans.first().map(|san| &**san)
    }
    let peer = tls.and_then(|tls| first(tls.peer.as_deref()?));
    let own = tls.and_then(|tls| first(tls.local.as_deref()?));
    (peer.unwrap_or_default(), own.unwrap_or_default())
}

/// The protocol that ALPN has agreed on; empty: none, or no TLS.
pub(crate) fn negotiated(tls: Option<&TlsInfo>) -> &str {
    tls.and_then(|tls| std::str::from_utf8(&tls.alpn).ok())
        .unwrap_or_default()
}
