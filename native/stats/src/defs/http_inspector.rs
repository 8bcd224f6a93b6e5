//! The HTTP inspector.

use crate::def::group;

group! {
    /// `http_inspector.`
    HttpInspector "http_inspector" {
        counters {
            HTTP10_FOUND "http10_found",
            HTTP11_FOUND "http11_found",
            HTTP2_FOUND "http2_found",
            HTTP_NOT_FOUND "http_not_found",
            READ_ERROR "read_error",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}
