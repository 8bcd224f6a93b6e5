//! The fault filter, by downstream cluster.

use crate::def::group;

group! {
    /// `http.PREFIX.fault.CLUSTER.`: faults by downstream cluster (`x-envoy-downstream-service-cluster`).
    FaultDownstream "fault_downstream" {
        counters {
            ABORTS_INJECTED ? "aborts_injected",
            DELAYS_INJECTED ? "delays_injected",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}
