//! `envoy.filters.network.sni_cluster`: the server name that the client asked for is the TCP proxy's cluster.

use super::read_filters::{FilterContext, FilterState, ReadFilter, Verdict};

/// Keeps nothing.
pub(crate) struct SniCluster;

impl ReadFilter for SniCluster {
    fn on_new_connection(
        &mut self,
        context: &mut FilterContext<'_>,
        state: &mut FilterState,
    ) -> Verdict {
        if let Some(name) = &context.info.requested_server_name {
            state.cluster = Some(name.clone());
        }
        Verdict::Continue
    }
}
