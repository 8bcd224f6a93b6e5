//! What a log line, or a header value with operators, may ask of a request or connection.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

pub use tidegate_model::format::{
    AddressField, DurationField, HeaderMap, NumberField, TextField, TimePoint,
};

use crate::header_name::HeaderName;
use crate::metadata::DynamicMetadata;
use crate::response_flags::ResponseFlags;

/// Implemented by the connection manager for requests and by the TCP proxy for connections. A method that has nothing to say
/// returns `None`, which prints as `-`. All are asked only for what a format uses.
pub trait LogContext {
    /// The first value of a header as it is now (after all changes), request pseudo headers included. `:status` is taken
    /// from the response code when there is no such header.
    fn header(&self, map: HeaderMap, name: &HeaderName) -> Option<&[u8]>;

    fn text(&self, field: TextField) -> Option<&[u8]>;

    fn number(&self, field: NumberField) -> Option<u64>;

    fn address(&self, field: AddressField) -> Option<SocketAddr>;

    /// The upstream host as text, where that is at hand (and for a pipe, which has no socket address).
    fn upstream_host_text(&self) -> Option<&[u8]> {
        None
    }

    /// When the request (or connection) began.
    fn start_time(&self) -> SystemTime;

    /// Now, as the loop sees it.
    fn now(&self) -> SystemTime;

    /// The distance of a moment from the start, once it has come.
    fn time_point(&self, point: TimePoint) -> Option<Duration>;

    /// `%DURATION%`: start to completion. Also `DOWNSTREAM_HANDSHAKE_DURATION` and its like.
    fn duration(&self, field: DurationField) -> Option<Duration> {
        match field {
            DurationField::Total => self.time_point(TimePoint::DownstreamTxEnd),
            DurationField::Request => self.time_point(TimePoint::DownstreamRxEnd),
            DurationField::RequestTx => self.time_point(TimePoint::UpstreamTxEnd),
            DurationField::Response => self.time_point(TimePoint::UpstreamRxBegin),
            DurationField::ResponseTx => self
                .time_point(TimePoint::DownstreamTxEnd)?
                .checked_sub(self.time_point(TimePoint::UpstreamRxBegin)?),
            DurationField::DownstreamHandshake
            | DurationField::Roundtrip
            | DurationField::UpstreamConnectionPoolReady => None,
        }
    }

    fn response_flags(&self) -> ResponseFlags;

    /// Messages of a gRPC call, of the request and of the response, where the statistics filter was told to keep them.
    fn grpc_message_counts(&self) -> Option<(u64, u64)> {
        None
    }

    /// What filters have told of the request.
    fn dynamic_metadata(&self) -> Option<&DynamicMetadata> {
        None
    }

    /// For filters: whether the request is a health check (`not_health_check_filter`).
    fn is_health_check(&self) -> bool {
        false
    }

    /// For filters: whether the request is being traced (`traceable_filter`).
    fn is_traced(&self) -> bool {
        false
    }

    /// A random number that stays the same for the request (`runtime_filter` takes it from the request id).
    fn request_random(&self) -> u64 {
        0
    }
}
