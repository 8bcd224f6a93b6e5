//! HTTP/2 options of a connection, downstream or upstream.

use std::time::Duration;

use crate::Fraction;

/// `config.core.v3.Http2ProtocolOptions` as far as it is honoured, with Envoy's defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Options {
    /// `SETTINGS_HEADER_TABLE_SIZE`, and the limit of the table used for what is sent; default 4096, 0: no dynamic table.
    pub hpack_table_size: u32,
    /// `SETTINGS_MAX_CONCURRENT_STREAMS`, 1 to 2^31 - 1, default 1024. Upstream it also caps the streams of a connection.
    pub max_concurrent_streams: u32,
    /// `SETTINGS_INITIAL_WINDOW_SIZE`, 65535 to 2^31 - 1, default 16 MiB; also the soft limit of what a stream buffers.
    pub initial_stream_window_size: u32,
    /// 65535 to 2^31 - 1, default 24 MiB.
    pub initial_connection_window_size: u32,
    /// `SETTINGS_ENABLE_CONNECT_PROTOCOL`: extended CONNECT (RFC 8441). Default false.
    pub allow_connect: bool,
    /// Frames of any type waiting to be written, at most; default 10,000.
    pub max_outbound_frames: u32,
    /// PING, SETTINGS and `RST_STREAM` frames waiting to be written, at most; default 1,000.
    pub max_outbound_control_frames: u32,
    /// HEADERS, CONTINUATION and DATA in a row without payload and without the end of the stream, at most; default 1.
    pub max_consecutive_inbound_frames_with_empty_payload: u32,
    /// At most this many times (1 + streams opened) in the life of a connection; default 100.
    pub max_inbound_priority_frames_per_stream: u32,
    /// At most 5 + 2 * (streams opened + this * DATA frames sent) in the life of a connection; 1 and up, default 10.
    pub max_inbound_window_update_frames_per_data_frame_sent: u32,
    /// An invalid message ends its stream only, not the connection. What wins is resolved already:
    /// `override_stream_error_on_invalid_http_message`, then the connection manager's
    /// `stream_error_on_invalid_http_message`, then `stream_error_on_invalid_http_messaging`. Default false.
    pub stream_error_on_invalid_http_message: bool,
    pub connection_keepalive: Option<KeepaliveSettings>,
    /// One header field as it arrives, at most: 64 KiB to 256 KiB, in bytes. `None`: the limit of all headers together.
    pub max_header_field_size_bytes: Option<u32>,
    /// Streams that the peer may reset at once (rapid reset), and how many more each second; defaults 1000 and 33.
    pub stream_reset_burst: u64,
    pub stream_reset_rate: u64,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            hpack_table_size: 4096,
            max_concurrent_streams: 1024,
            initial_stream_window_size: 16 << 20,
            initial_connection_window_size: 24 << 20,
            allow_connect: false,
            max_outbound_frames: 10_000,
            max_outbound_control_frames: 1_000,
            max_consecutive_inbound_frames_with_empty_payload: 1,
            max_inbound_priority_frames_per_stream: 100,
            max_inbound_window_update_frames_per_data_frame_sent: 10,
            stream_error_on_invalid_http_message: false,
            connection_keepalive: None,
            max_header_field_size_bytes: None,
            stream_reset_burst: 1000,
            stream_reset_rate: 33,
        }
    }
}

/// `config.core.v3.KeepaliveSettings`: PING frames, and the connection is closed when one is not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepaliveSettings {
    /// `None`: no periodic PING.
    pub interval: Option<Duration>,
    /// How long an answer may take; also for the PING of `connection_idle_interval`.
    pub timeout: Duration,
    /// Added to each interval: a random share of it up to this one; default 15 %.
    pub interval_jitter: Fraction,
    /// A PING goes ahead of a new stream when the connection was idle for this long; `None`: off.
    pub connection_idle_interval: Option<Duration>,
}
