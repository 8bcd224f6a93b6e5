//! Name resolution, under the names of Envoy's resolver, which dashboards know.

use crate::def::group;

group! {
    /// `dns.cares.`: the names of Envoy's resolver, which dashboards know.
    Dns "dns" {
        counters {
            GET_ADDR_FAILURE "get_addr_failure",
            NOT_FOUND "not_found",
            REINITS "reinits",
            RESOLVE_TOTAL "resolve_total",
            TIMEOUTS "timeouts",
        }
        gauges {
            PENDING_RESOLUTIONS "pending_resolutions",
        }
        histograms {}
        codes {}
        texts {}
    }
}
