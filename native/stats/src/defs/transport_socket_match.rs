//! The endpoint transport socket selector.

use crate::def::group;

group! {
    /// `cluster.NAME.default.`: the endpoint selector that Envoy calls transport socket match, here always the default one.
    TransportSocketMatch "transport_socket_match" {
        counters {
            TOTAL_MATCH_COUNT "total_match_count",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}
