//! Upstream HTTP connection pools.

use crate::cluster::GoneHost;
use crate::conn::{After, Event, Key};
use crate::worker::Worker;

/// A worker's pools.
#[derive(Default)]
pub struct Pools {}

/// An upstream HTTP connection.
pub struct ClientConnection {}

impl ClientConnection {
    pub fn on_event(&mut self, _worker: &mut Worker, _key: Key, _event: Event) -> After {
        After::Close
    }
}

/// A host is gone from its cluster (key of its pools: `host.host.state.uid()`): idle connections close now, busy ones
/// when their request is done.
pub fn host_gone(_worker: &mut Worker, _host: &GoneHost) {}
