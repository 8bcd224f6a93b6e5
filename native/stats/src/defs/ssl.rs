//! TLS connections.

use crate::def::group;

group! {
    /// `listener.ADDRESS.ssl.` and `cluster.NAME.ssl.`.
    Ssl "ssl" {
        counters {
            CONNECTION_ERROR "connection_error",
            FAIL_VERIFY_CERT_HASH "fail_verify_cert_hash",
            FAIL_VERIFY_ERROR "fail_verify_error",
            FAIL_VERIFY_NO_CERT "fail_verify_no_cert",
            FAIL_VERIFY_SAN "fail_verify_san",
            HANDSHAKE "handshake",
            NO_CERTIFICATE "no_certificate",
            OCSP_STAPLE_FAILED "ocsp_staple_failed",
            OCSP_STAPLE_OMITTED "ocsp_staple_omitted",
            OCSP_STAPLE_REQUESTS "ocsp_staple_requests",
            OCSP_STAPLE_RESPONSES "ocsp_staple_responses",
            SESSION_REUSED "session_reused",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}

group! {
    /// `listener.ADDRESS.server_ssl_socket_factory.` and `cluster.NAME.client_ssl_socket_factory.`.
    SslSocketFactory "ssl_socket_factory" {
        counters {
            DOWNSTREAM_CONTEXT_SECRETS_NOT_READY "downstream_context_secrets_not_ready",
            SSL_CONTEXT_UPDATE_BY_SDS "ssl_context_update_by_sds",
            UPSTREAM_CONTEXT_SECRETS_NOT_READY "upstream_context_secrets_not_ready",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}
