//! The fault filter.

use crate::def::group;

group! {
    /// `http.PREFIX.fault.`
    Fault "fault" {
        counters {
            ABORTS_INJECTED "aborts_injected",
            DELAYS_INJECTED "delays_injected",
            FAULTS_OVERFLOW "faults_overflow",
            RESPONSE_RL_INJECTED "response_rl_injected",
        }
        gauges {
            ACTIVE_FAULTS "active_faults",
        }
        histograms {}
        codes {}
        texts {}
    }
}
