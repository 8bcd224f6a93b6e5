//! From what is configured about HTTP/2 to what the codec is told.

use std::sync::Arc;

use tidegate_codec::h1::UnderscoreAction;
use tidegate_codec::h2::Options;
use tidegate_model::http2::Http2Options;

/// The codec's options. `head_bytes` and `headers` limit what is received.
pub(crate) fn options(
    config: &Http2Options,
    head_bytes: u32,
    headers: u32,
    underscores: UnderscoreAction,
    buffer_limit: u32,
) -> Arc<Options> {
    let clamp = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Arc::new(Options {
        hpack_table_size: config.hpack_table_size,
        max_concurrent_streams: config.max_concurrent_streams,
        initial_stream_window_size: config.initial_stream_window_size,
        initial_connection_window_size: config.initial_connection_window_size,
        allow_connect: config.allow_connect,
        max_outbound_frames: config.max_outbound_frames,
        max_outbound_control_frames: config.max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload: config
            .max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream: config.max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent: config
            .max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging: config.stream_error_on_invalid_http_message,
        max_header_field_size_kb: config
            .max_header_field_size_bytes
            .unwrap_or(head_bytes)
            .div_ceil(1024),
        max_headers_kb: head_bytes.div_ceil(1024),
        max_headers_count: headers,
        underscores,
        reset_burst: clamp(config.stream_reset_burst),
        reset_rate: clamp(config.stream_reset_rate),
        max_pending_output: if buffer_limit == 0 {
            Options::default().max_pending_output
        } else {
            buffer_limit.clamp(16 * 1024, Options::default().max_pending_output)
        },
        ..Options::default()
    })
}
