//! Listeners.

use crate::def::group;

group! {
    /// `listener.ADDRESS.`
    Listener "listener" {
        counters {
            DOWNSTREAM_CX_DESTROY "downstream_cx_destroy",
            DOWNSTREAM_CX_OVERFLOW "downstream_cx_overflow",
            DOWNSTREAM_CX_OVERLOAD_REJECT "downstream_cx_overload_reject",
            DOWNSTREAM_CX_TOTAL "downstream_cx_total",
            DOWNSTREAM_CX_TRANSPORT_SOCKET_CONNECT_TIMEOUT "downstream_cx_transport_socket_connect_timeout",
            DOWNSTREAM_GLOBAL_CX_OVERFLOW "downstream_global_cx_overflow",
            DOWNSTREAM_LISTENER_FILTER_ERROR "downstream_listener_filter_error",
            DOWNSTREAM_LISTENER_FILTER_REMOTE_CLOSE "downstream_listener_filter_remote_close",
            DOWNSTREAM_PRE_CX_TIMEOUT "downstream_pre_cx_timeout",
            EXTENSION_CONFIG_MISSING "extension_config_missing",
            NETWORK_EXTENSION_CONFIG_MISSING "network_extension_config_missing",
            NO_FILTER_CHAIN_MATCH "no_filter_chain_match",
        }
        gauges {
            DOWNSTREAM_CX_ACTIVE "downstream_cx_active",
            DOWNSTREAM_PRE_CX_ACTIVE "downstream_pre_cx_active",
        }
        histograms {
            CONNECTIONS_ACCEPTED_PER_SOCKET_EVENT "connections_accepted_per_socket_event",
            DOWNSTREAM_CX_LENGTH_MS "downstream_cx_length_ms",
        }
        codes {}
        texts {}
    }
}
