//! Every limit and choice of a connection, by Envoy's names (`config.core.v3.Http2ProtocolOptions`) and with its
//! defaults. Immutable, shared by the connections of a listener or a cluster.

use crate::h1::UnderscoreAction;

/// `connection_keepalive`. The codec only sends and recognises pings; when is the caller's affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// `interval`; 0: none.
    pub interval_ms: u32,
    /// `timeout` after which `http2.keepalive_timeout` is counted and the connection closed.
    pub timeout_ms: u32,
    /// `interval_jitter` in per cent.
    pub interval_jitter_percent: u32,
    /// `connection_idle_interval`; 0: none.
    pub connection_idle_interval_ms: u32,
}

/// Limits and choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Of the table we decode with, and at most of the one we encode with.
    pub hpack_table_size: u32,
    /// Streams the peer may have open at a time (server), or that we open at most (client).
    pub max_concurrent_streams: u32,
    pub initial_stream_window_size: u32,
    pub initial_connection_window_size: u32,
    /// Extended CONNECT (RFC 8441) is offered by a server and may be used by a client whose peer offers it.
    pub allow_connect: bool,
    /// METADATA frames. They are ignored whether or not this is set.
    pub allow_metadata: bool,
    pub max_metadata_size: u32,
    /// Frames of any kind that wait to be written.
    pub max_outbound_frames: u32,
    /// PING, SETTINGS and RST_STREAM frames that wait to be written.
    pub max_outbound_control_frames: u32,
    /// HEADERS, CONTINUATION and DATA frames in a row without payload and END_STREAM.
    pub max_consecutive_inbound_frames_with_empty_payload: u32,
    pub max_inbound_priority_frames_per_stream: u32,
    pub max_inbound_window_update_frames_per_data_frame_sent: u32,
    /// `override_stream_error_on_invalid_http_message`: a malformed message ends its stream only, not the connection.
    pub stream_error_on_invalid_http_messaging: bool,
    pub connection_keepalive: Option<Keepalive>,
    /// The longest name or value.
    pub max_header_field_size_kb: u32,
    /// `max_request_headers_kb` of the connection manager, or the cluster's `max_response_headers_kb`: names and values
    /// of one head or of trailers.
    pub max_headers_kb: u32,
    /// `max_headers_count`, pseudo headers included: 100 pass, 101 do not.
    pub max_headers_count: u32,
    /// `headers_with_underscores_action`.
    pub underscores: UnderscoreAction,
    /// Frames that a header block may have beside its HEADERS frame.
    pub max_continuation_frames: u32,
    /// `overload.premature_reset_total_stream_count`: rapid resets are judged after so many requests; 0: never.
    pub premature_reset_total_stream_count: u32,
    /// `overload.premature_reset_min_stream_lifetime_seconds`, in milliseconds: what lives shorter is premature.
    pub premature_reset_min_stream_lifetime_ms: u32,
    /// Stream resets that a peer may send or cause at once.
    pub reset_burst: u32,
    /// How many of those it wins back in a second.
    pub reset_rate: u32,
    /// Bytes that may wait in the output before [`super::Connection::send_data`] takes no more.
    pub max_pending_output: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hpack_table_size: 4096,
            max_concurrent_streams: 1024,
            initial_stream_window_size: 16 * 1024 * 1024,
            initial_connection_window_size: 24 * 1024 * 1024,
            allow_connect: false,
            allow_metadata: false,
            max_metadata_size: 1024 * 1024,
            max_outbound_frames: 10_000,
            max_outbound_control_frames: 1_000,
            max_consecutive_inbound_frames_with_empty_payload: 1,
            max_inbound_priority_frames_per_stream: 100,
            max_inbound_window_update_frames_per_data_frame_sent: 10,
            stream_error_on_invalid_http_messaging: false,
            connection_keepalive: None,
            max_header_field_size_kb: 64,
            max_headers_kb: 60,
            max_headers_count: 100,
            underscores: UnderscoreAction::Allow,
            max_continuation_frames: 512,
            premature_reset_total_stream_count: 500,
            premature_reset_min_stream_lifetime_ms: 1_000,
            reset_burst: 1_000,
            reset_rate: 33,
            max_pending_output: 256 * 1024,
        }
    }
}
