//! The stream to the management server.

use crate::def::group;

group! {
    /// `control_plane.`
    ControlPlane "control_plane" {
        counters {
            RATE_LIMIT_ENFORCED "rate_limit_enforced",
        }
        gauges {
            CONNECTED_STATE "connected_state",
            PENDING_REQUESTS "pending_requests",
        }
        histograms {}
        codes {}
        texts {
            IDENTIFIER "identifier",
        }
    }
}
