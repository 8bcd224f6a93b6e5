//! Which filter chain takes a connection: the driver of the snapshot's pure match.

use std::rc::Rc;
use std::sync::Arc;

use tidegate_snapshot::{Chain, ConnMeta, ResponseFlags};
use tidegate_stats::defs::listener as stat;

use crate::accept::ConnectionInfo;
use crate::listener::ListenerRuntime;
use crate::network::connection_log::{self, ConnectionLog};
use crate::worker::Worker;

pub(crate) fn find(listener: &ListenerRuntime, info: &ConnectionInfo) -> Option<Arc<Chain>> {
    listener
        .compiled
        .filter_chains
        .find(&ConnMeta {
            server_name: info.requested_server_name.as_deref().unwrap_or_default(),
            transport_protocol: info.transport_protocol,
            application_protocols: &info.application_protocols,
            ..ConnMeta::plain(info.local, info.remote)
        })
        .map(Arc::clone)
}

/// No chain took the connection: it is counted, logged with `NR filter_chain_not_found`, and closed by being dropped.
pub(crate) fn not_found(
    worker: &mut Worker,
    listener: &Rc<ListenerRuntime>,
    info: &ConnectionInfo,
) {
    listener.stats.inc(stat::NO_FILTER_CHAIN_MATCH);
    if listener.compiled.access_log.is_empty() {
        return;
    }
    let mut log = ConnectionLog::new(&worker.core, listener, info);
    log.flags = ResponseFlags::NO_ROUTE_FOUND;
    log.details = Some("filter_chain_not_found");
    connection_log::write(&mut worker.core, &listener.compiled.access_log, &log);
}
