//! The workloads that this worker has heard of. Reading what a peer says of itself costs more than a request; so it is read
//! once per peer.

use std::rc::Rc;

use rustc_hash::FxHashMap;
use tidegate_model::Name;
use tidegate_model::istio::NodeMetadata;
use tidegate_telemetry::Peer;

/// As many as Istio's proxy remembers.
const MOST: usize = 500;

/// A workload, with a number that no other has in this worker.
#[derive(Debug)]
pub(crate) struct KnownPeer {
    pub(crate) serial: u32,
    pub(crate) peer: Peer,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    known: FxHashMap<Box<[u8]>, Option<Rc<KnownPeer>>>,
    next: u32,
    key: Vec<u8>,
}

/// How a peer was told.
#[derive(Debug, Clone, Copy)]
enum Told {
    Header = 1,
    Baggage = 2,
    Endpoint = 3,
}

impl Peers {
    /// From `x-envoy-peer-metadata` and, if there is one, `x-envoy-peer-metadata-id`, by which it is remembered.
    pub(crate) fn of_header(
        &mut self,
        id: &[u8],
        value: &[u8],
        labels: &[Name],
    ) -> Option<Rc<KnownPeer>> {
        let name = if id.is_empty() { value } else { id };
        self.find(Told::Header, name, labels, || {
            Peer::of_header(value, labels)
        })
    }

    /// From `baggage`.
    pub(crate) fn of_baggage(&mut self, value: &[u8]) -> Option<Rc<KnownPeer>> {
        self.find(Told::Baggage, value, &[], || {
            let text = std::str::from_utf8(value).ok()?;
            Some(Peer::of_baggage(text))
        })
    }

    /// From an endpoint's metadata.
    pub(crate) fn of_endpoint(&mut self, workload: &Name) -> Option<Rc<KnownPeer>> {
        self.find(Told::Endpoint, workload.as_bytes(), &[], || {
            Peer::of_endpoint(workload)
        })
    }

    /// From a TCP connection; it is not remembered.
    pub(crate) fn exchanged(&mut self, peer: Peer) -> Rc<KnownPeer> {
        self.next = self.next.wrapping_add(1);
        Rc::new(KnownPeer {
            serial: self.next,
            peer,
        })
    }

    fn find(
        &mut self,
        told: Told,
        name: &[u8],
        labels: &[Name],
        read: impl FnOnce() -> Option<Peer>,
    ) -> Option<Rc<KnownPeer>> {
        self.key.clear();
        self.key.push(told as u8);
        for label in labels {
            self.key.extend_from_slice(label.as_bytes());
            self.key.push(0);
        }
        self.key.extend_from_slice(name);
        if let Some(known) = self.known.get(self.key.as_slice()) {
            return known.clone();
        }
        if self.known.len() >= MOST {
            let mut place = 0_usize;
            self.known.retain(|_, _| {
                place += 1;
                place > MOST / 4
            });
        }
        let found = read().map(|peer| self.exchanged(peer));
        self.known.insert(self.key.as_slice().into(), found.clone());
        found
    }
}

/// What this node tells of itself. The locality goes along in headers only.
pub(crate) fn own(node: &NodeMetadata, additional: &[Name], locality: bool) -> Peer {
    let fields = [
        ("NAME", &node.name),
        ("NAMESPACE", &node.namespace),
        ("OWNER", &node.owner),
        ("WORKLOAD_NAME", &node.workload_name),
        ("CLUSTER_ID", &node.cluster_id),
        ("IDENTITY", &node.identity),
    ];
    let place = [("REGION", &node.region), ("AVAILABILITY_ZONE", &node.zone)];
    Peer::of_metadata(
        fields
            .into_iter()
            .chain(place.into_iter().filter(|_| locality))
            .map(|(key, value)| (key, &**value)),
        node.labels.iter().map(|(key, value)| (&**key, &**value)),
        additional,
    )
}
