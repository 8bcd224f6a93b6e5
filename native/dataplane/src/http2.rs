//! From what is configured about HTTP/2 to what the codec is told, and from what it counts to statistics.

mod keepalive;
mod wire;

use std::cell::OnceCell;
use std::sync::Arc;

use tidegate_codec::h1::UnderscoreAction;
use tidegate_codec::h2::{Connection, Options, Overflow, Role, Stat};
use tidegate_model::http2::Http2Options;
use tidegate_stats::defs::http2 as stat;
use tidegate_stats::{Counter, Group, Local, Registry};

pub(crate) use self::keepalive::{Keepalive, Pulse};
pub(crate) use self::wire::Wire;

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

/// The statistics of the HTTP/2 codec, made for the first connection that speaks it.
pub(crate) struct LazyStats {
    prefix: String,
    made: OnceCell<(Group<stat::Http2>, Local<stat::Http2>)>,
}

impl LazyStats {
    pub(crate) const fn new(prefix: String) -> Self {
        Self {
            prefix,
            made: OnceCell::new(),
        }
    }

    /// To be called for each connection.
    pub(crate) fn make(&self, registry: &Registry, worker: usize) -> &Local<stat::Http2> {
        let (_, local) = self.made.get_or_init(|| {
            let group = registry.group(&self.prefix);
            let local = group.local(worker);
            (group, local)
        });
        local
    }

    /// Takes over what the codec has counted, and by how much its streams have become more or fewer.
    fn count(&self, codec: &mut Connection, streams: &mut u32) {
        let Some((_, stats)) = self.made.get() else {
            return;
        };
        let active = codec.active_streams();
        if active != *streams {
            stats.gauge_add(
                stat::STREAMS_ACTIVE,
                i64::from(active) - i64::from(*streams),
            );
            *streams = active;
        }
        if let Some(counts) = codec.take_counts() {
            let role = codec.role();
            for (counted, times) in counts.iter() {
                if let Some(counter) = counter(counted, role) {
                    stats.add(counter, u64::from(times));
                }
            }
        }
    }

    /// A connection is gone that had so many streams.
    fn forget(&self, streams: u32) {
        if let Some((_, stats)) = self.made.get() {
            stats.gauge_add(stat::STREAMS_ACTIVE, -i64::from(streams));
        }
    }

    pub(crate) fn inc(&self, counter: Counter<stat::Http2>) {
        if let Some((_, stats)) = self.made.get() {
            stats.inc(counter);
        }
    }
}

/// The counter for a head that is too large.
pub(crate) const fn overflow_counter(overflow: Overflow) -> Counter<stat::Http2> {
    match overflow {
        Overflow::TooManyHeaders => stat::HEADER_OVERFLOW,
        Overflow::HeadersTooLarge => stat::HEADER_LIST_SIZE_TOO_LARGE,
    }
}

/// `None`: Envoy does not count it.
fn counter(counted: Stat, role: Role) -> Option<Counter<stat::Http2>> {
    Some(match counted {
        Stat::DroppedHeadersWithUnderscores => stat::DROPPED_HEADERS_WITH_UNDERSCORES,
        Stat::HeadersCbNoStream => stat::HEADERS_CB_NO_STREAM,
        Stat::InboundEmptyFramesFlood => stat::INBOUND_EMPTY_FRAMES_FLOOD,
        Stat::InboundPriorityFramesFlood => stat::INBOUND_PRIORITY_FRAMES_FLOOD,
        Stat::InboundWindowUpdateFramesFlood => stat::INBOUND_WINDOW_UPDATE_FRAMES_FLOOD,
        Stat::KeepaliveTimeout => stat::KEEPALIVE_TIMEOUT,
        Stat::OutboundControlFlood => stat::OUTBOUND_CONTROL_FLOOD,
        Stat::OutboundFlood => stat::OUTBOUND_FLOOD,
        Stat::RequestsRejectedWithUnderscoresInHeaders => {
            stat::REQUESTS_REJECTED_WITH_UNDERSCORES_IN_HEADERS
        }
        Stat::RxMessagingError => stat::RX_MESSAGING_ERROR,
        Stat::RxReset => stat::RX_RESET,
        // GOAWAY is counted where it is asked for, not where the codec ends by itself.
        // Too large a head is counted by what was too large about it.
        Stat::StreamRefusedErrors
        | Stat::GoawaySent
        | Stat::GoawayGracefulSent
        | Stat::HeaderOverflow => return None,
        Stat::TooManyHeaderFrames => stat::HEADER_OVERFLOW,
        Stat::Trailers if role == Role::Client => return None,
        Stat::Trailers => stat::TRAILERS,
        Stat::TxReset => stat::TX_RESET,
    })
}
