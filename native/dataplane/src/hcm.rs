//! The HTTP connection manager.

use std::rc::Rc;
use std::sync::Arc;

use tidegate_snapshot::Chain;

use crate::accept::Downstream;
use crate::conn::{After, Event, Key};
use crate::listener::ListenerRuntime;
use crate::worker::Worker;

/// A downstream HTTP connection.
pub struct ServerConnection {
    downstream: Downstream,
}

impl ServerConnection {
    /// Occupies a slot with an accepted connection.
    pub fn open(worker: &mut Worker, downstream: Downstream) {
        let _ = worker;
        drop(downstream);
    }

    pub fn listener(&self) -> &Rc<ListenerRuntime> {
        &self.downstream.listener
    }

    pub fn chain(&self) -> &Arc<Chain> {
        &self.downstream.chain
    }

    pub fn on_event(&mut self, _worker: &mut Worker, _key: Key, _event: Event) -> After {
        After::Close
    }
}
