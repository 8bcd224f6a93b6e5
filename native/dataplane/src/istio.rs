//! Istio's own filters: who the peer is ([`peers`]), and the standard metrics ([`labels`], [`metrics`]).
//!
//! What is the same for HTTP and TCP is here; how a stream or a connection gets to it is told in `hcm/istio.rs` and
//! `network/istio_stats.rs`, `network/metadata_exchange.rs`.

pub(crate) mod labels;
pub(crate) mod metrics;
pub(crate) mod peers;

use std::sync::Arc;

use tidegate_model::Name;

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
