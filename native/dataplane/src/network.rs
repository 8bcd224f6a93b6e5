//! Network filters: what a filter chain does with a connection.

pub(crate) mod connection_log;
mod istio_stats;
pub(crate) mod metadata_exchange;
#[allow(
    dead_code,
    reason = "what a filter may ask and say is a whole, used in parts"
)]
pub(crate) mod read_filters;
mod rbac;
mod sni_cluster;
pub mod tcp_proxy;

use tidegate_snapshot::ChainFilter;

use crate::accept::Downstream;
use crate::hcm::ServerConnection;
use crate::worker::Worker;

/// Gives a connection to its chain's network filter, which occupies a slot with it or closes it.
pub(crate) fn open(worker: &mut Worker, downstream: Downstream) {
    match &downstream.chain.filter {
        ChainFilter::TcpProxy(_) => tcp_proxy::open(worker, downstream),
        ChainFilter::Http(_) => ServerConnection::open(worker, downstream),
    }
}
