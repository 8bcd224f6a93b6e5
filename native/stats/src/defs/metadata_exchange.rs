//! `metadata_exchange.`, Istio's TCP metadata exchange.

use crate::def::group;

group! {
    MetadataExchange "metadata_exchange" {
        counters {
            ALPN_PROTOCOL_FOUND "alpn_protocol_found",
            ALPN_PROTOCOL_NOT_FOUND "alpn_protocol_not_found",
            INITIAL_HEADER_NOT_FOUND "initial_header_not_found",
            HEADER_NOT_FOUND "header_not_found",
            METADATA_ADDED "metadata_added",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}
