//! The TLS inspector.

use crate::def::group;

group! {
    /// `tls_inspector.`
    TlsInspector "tls_inspector" {
        counters {
            ALPN_FOUND "alpn_found",
            ALPN_NOT_FOUND "alpn_not_found",
            CLIENT_HELLO_TOO_LARGE "client_hello_too_large",
            SNI_FOUND "sni_found",
            SNI_NOT_FOUND "sni_not_found",
            TLS_FOUND "tls_found",
            TLS_NOT_FOUND "tls_not_found",
        }
        gauges {}
        histograms {
            BYTES_PROCESSED "bytes_processed",
        }
        codes {}
        texts {}
    }
}
