//! The HTTP/2 codec.

use crate::def::group;

group! {
    /// `cluster.NAME.http2.`, and `http2.` for the downstream side. Envoy makes it for the first HTTP/2 connection.
    Http2 "http2" {
        counters {
            COOKIES_TOTAL_BYTES_TOO_LARGE "cookies_total_bytes_too_large",
            DROPPED_HEADERS_WITH_UNDERSCORES "dropped_headers_with_underscores",
            GOAWAY_SENT "goaway_sent",
            HEADER_LIST_SIZE_TOO_LARGE "header_list_size_too_large",
            HEADER_OVERFLOW "header_overflow",
            HEADERS_CB_NO_STREAM "headers_cb_no_stream",
            INBOUND_EMPTY_FRAMES_FLOOD "inbound_empty_frames_flood",
            INBOUND_PRIORITY_FRAMES_FLOOD "inbound_priority_frames_flood",
            INBOUND_WINDOW_UPDATE_FRAMES_FLOOD "inbound_window_update_frames_flood",
            KEEPALIVE_TIMEOUT "keepalive_timeout",
            METADATA_EMPTY_FRAMES "metadata_empty_frames",
            // Envoy has two codecs, counted apart, and speaks by the first.
            NGHTTP2_DOWNSTREAM_CONNECTIONS "nghttp2_downstream_connections",
            NGHTTP2_UPSTREAM_CONNECTIONS "nghttp2_upstream_connections",
            OGHTTP2_DOWNSTREAM_CONNECTIONS "oghttp2_downstream_connections",
            OGHTTP2_UPSTREAM_CONNECTIONS "oghttp2_upstream_connections",
            OUTBOUND_CONTROL_FLOOD "outbound_control_flood",
            OUTBOUND_FLOOD "outbound_flood",
            REQUESTS_REJECTED_WITH_UNDERSCORES_IN_HEADERS "requests_rejected_with_underscores_in_headers",
            RX_MESSAGING_ERROR "rx_messaging_error",
            RX_RESET "rx_reset",
            STREAM_REFUSED_ERRORS "stream_refused_errors",
            TRAILERS "trailers",
            TX_FLUSH_TIMEOUT "tx_flush_timeout",
            TX_RESET "tx_reset",
        }
        gauges {
            DEFERRED_STREAM_CLOSE "deferred_stream_close",
            OUTBOUND_CONTROL_FRAMES_ACTIVE "outbound_control_frames_active",
            OUTBOUND_FRAMES_ACTIVE "outbound_frames_active",
            PENDING_SEND_BYTES "pending_send_bytes",
            STREAMS_ACTIVE "streams_active",
        }
        histograms {
            // Nothing is recorded in these by Envoy's defaults.
            COOKIE_COUNT "cookie_count",
            COOKIE_SIZE "cookie_size",
            HEADER_COUNT "header_count",
            HEADER_LIST_SIZE "header_list_size",
        }
        codes {}
        texts {}
    }
}
