//! What can go wrong, how far it reaches, and what Envoy says and counts about it.

use super::stats::Stat;

/// An error code of RFC 9113 section 7; codes without a name are kept as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    pub const NO_ERROR: Self = Self(0x0);
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    pub const INTERNAL_ERROR: Self = Self(0x2);
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    pub const SETTINGS_TIMEOUT: Self = Self(0x4);
    pub const STREAM_CLOSED: Self = Self(0x5);
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    pub const REFUSED_STREAM: Self = Self(0x7);
    pub const CANCEL: Self = Self(0x8);
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    pub const CONNECT_ERROR: Self = Self(0xa);
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);
    pub const INADEQUATE_SECURITY: Self = Self(0xc);
    pub const HTTP_1_1_REQUIRED: Self = Self(0xd);
}

/// A message that breaks the rules of RFC 9113 section 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// Upper case, no token, empty, or an unknown pseudo header.
    HeaderName,
    /// A control character in a value.
    HeaderValue,
    /// A pseudo header that is repeated, comes after a header, or has no place in this kind of message.
    PseudoHeader,
    /// A pseudo header that must be there is not.
    MissingPseudoHeader,
    Method,
    Scheme,
    Path,
    /// A path that does not begin with a slash.
    RelativePath,
    Authority,
    /// `host` names another than `:authority`, or there are two.
    Host,
    Status,
    /// `connection` and what belongs to it.
    ConnectionHeader,
    /// `te` other than `trailers`.
    Te,
    ContentLength,
    /// DATA does not add up to `content-length`.
    BodyLength,
    /// Trailers that do not end the stream.
    Trailers,
    /// An interim response that ends the stream, or 101.
    Interim,
    /// DATA before the response head.
    DataBeforeHead,
    /// Extended CONNECT that was not offered, or without what it needs.
    Connect,
    /// `headers_with_underscores_action: REJECT_REQUEST`.
    Underscore,
}

impl Malformed {
    /// Envoy's `%RESPONSE_CODE_DETAILS%`.
    pub const fn details(self) -> &'static str {
        match self {
            Self::MissingPseudoHeader
            | Self::RelativePath
            | Self::BodyLength
            | Self::Trailers
            | Self::Interim
            | Self::DataBeforeHead
            | Self::Connect => "http2.violation.of.messaging.rule",
            Self::Underscore => "http2.unexpected_underscore",
            _ => "http2.invalid.header.field",
        }
    }

    /// For logs: ours.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::HeaderName => "malformed header name",
            Self::HeaderValue => "control character in a header value",
            Self::PseudoHeader => "repeated or misplaced pseudo header",
            Self::MissingPseudoHeader => "missing pseudo header",
            Self::Method => "malformed :method",
            Self::Scheme => "malformed :scheme",
            Self::Path => "malformed :path",
            Self::RelativePath => "relative :path",
            Self::Authority => "malformed :authority",
            Self::Host => "host differs from :authority",
            Self::Status => "malformed :status",
            Self::ConnectionHeader => "connection-specific header",
            Self::Te => "te other than trailers",
            Self::ContentLength => "malformed or repeated content-length",
            Self::BodyLength => "body length differs from content-length",
            Self::Trailers => "trailers that do not end the stream",
            Self::Interim => "interim response that ends the stream, or 101",
            Self::DataBeforeHead => "data before the head",
            Self::Connect => "malformed CONNECT",
            Self::Underscore => "underscore in header name",
        }
    }
}

/// A head that is too large: answered with 431 if it is a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Overflow {
    TooManyHeaders,
    HeadersTooLarge,
}

impl Overflow {
    /// Envoy's `%RESPONSE_CODE_DETAILS%`.
    pub const fn details(self) -> &'static str {
        match self {
            Self::TooManyHeaders => "http2.too_many_headers",
            Self::HeadersTooLarge => "http2.headers_too_large",
        }
    }
}

/// Why a stream ended before its time, by our own decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamFault {
    Malformed(Malformed),
    /// A response head or trailers beyond the limits.
    Overflow(Overflow),
    /// A frame after END_STREAM.
    Closed,
    /// More DATA than the window allows, or a window beyond 2^31-1.
    FlowControl,
    /// A window increment of 0, or a stream that depends on itself.
    Protocol,
    FrameSize,
}

impl StreamFault {
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Overflow(_) | Self::Malformed(Malformed::Underscore) => ErrorCode::INTERNAL_ERROR,
            Self::Malformed(_) | Self::Protocol => ErrorCode::PROTOCOL_ERROR,
            Self::Closed => ErrorCode::STREAM_CLOSED,
            Self::FlowControl => ErrorCode::FLOW_CONTROL_ERROR,
            Self::FrameSize => ErrorCode::FRAME_SIZE_ERROR,
        }
    }

    /// Envoy's `%RESPONSE_CODE_DETAILS%`.
    pub const fn details(self) -> &'static str {
        match self {
            Self::Malformed(why) => why.details(),
            Self::Overflow(why) => why.details(),
            _ => "http2.violation.of.messaging.rule",
        }
    }
}

/// Why a connection ends. The GOAWAY that tells the peer is in the output when this is returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.reason())]
pub enum ConnectionError {
    /// The first bytes are not those of an HTTP/2 client.
    Preface,
    /// The first frame is not SETTINGS.
    FirstFrame,
    FrameSize,
    /// A frame on a stream, or in a state, where it must not be.
    UnexpectedFrame,
    /// A stream identifier of the wrong parity, one used before, or none.
    StreamId,
    /// HEADERS on a stream that has ended.
    StreamClosed,
    /// Something other than the CONTINUATION that must follow.
    Continuation,
    Padding,
    Settings,
    /// A window size or sum of windows above 2^31-1, or DATA beyond the window.
    FlowControl,
    WindowIncrement,
    Compression,
    PushPromise,
    Malformed(Malformed),
    /// More CONTINUATION frames than a block may have.
    TooManyHeaderFrames,
    EmptyFramesFlood,
    PriorityFramesFlood,
    WindowUpdateFramesFlood,
    OutboundFlood,
    OutboundControlFlood,
    /// Most of the requests were reset at once (CVE-2023-44487).
    RapidReset,
    /// More stream resets than the bucket holds.
    ResetRate,
    /// The connection has already ended.
    Ended,
}

impl ConnectionError {
    /// What GOAWAY says.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::FrameSize => ErrorCode::FRAME_SIZE_ERROR,
            Self::StreamClosed => ErrorCode::STREAM_CLOSED,
            Self::FlowControl => ErrorCode::FLOW_CONTROL_ERROR,
            Self::Compression => ErrorCode::COMPRESSION_ERROR,
            Self::TooManyHeaderFrames
            | Self::EmptyFramesFlood
            | Self::PriorityFramesFlood
            | Self::WindowUpdateFramesFlood
            | Self::OutboundFlood
            | Self::OutboundControlFlood
            | Self::RapidReset
            | Self::ResetRate => ErrorCode::ENHANCE_YOUR_CALM,
            _ => ErrorCode::PROTOCOL_ERROR,
        }
    }

    /// The counter under `http2.` that this bumps, if any.
    pub const fn stat(self) -> Option<Stat> {
        match self {
            Self::Malformed(Malformed::Underscore) => {
                Some(Stat::RequestsRejectedWithUnderscoresInHeaders)
            }
            Self::Malformed(_) => Some(Stat::RxMessagingError),
            Self::TooManyHeaderFrames => Some(Stat::TooManyHeaderFrames),
            Self::EmptyFramesFlood => Some(Stat::InboundEmptyFramesFlood),
            Self::PriorityFramesFlood => Some(Stat::InboundPriorityFramesFlood),
            Self::WindowUpdateFramesFlood => Some(Stat::InboundWindowUpdateFramesFlood),
            Self::OutboundFlood => Some(Stat::OutboundFlood),
            Self::OutboundControlFlood => Some(Stat::OutboundControlFlood),
            _ => None,
        }
    }

    /// For logs: ours, but for the floods, which have Envoy's details.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Preface => "not an HTTP/2 connection preface",
            Self::FirstFrame => "first frame is not SETTINGS",
            Self::FrameSize => "frame of a wrong size",
            Self::UnexpectedFrame => "frame out of place",
            Self::StreamId => "invalid stream identifier",
            Self::StreamClosed => "frame on a closed stream",
            Self::Continuation => "header block interrupted",
            Self::Padding => "more padding than payload",
            Self::Settings => "invalid setting",
            Self::FlowControl => "flow control violated",
            Self::WindowIncrement => "window increment of zero",
            Self::Compression => "header block cannot be decoded",
            Self::PushPromise => "push promise",
            Self::Malformed(why) => why.reason(),
            Self::TooManyHeaderFrames => "http2.too_many_header_frames",
            Self::EmptyFramesFlood => "http2.inbound_empty_frames_flood",
            Self::PriorityFramesFlood => "http2.inbound_priority_frames_flood",
            Self::WindowUpdateFramesFlood => "http2.inbound_window_update_frames_flood",
            Self::OutboundFlood => "http2.outbound_frames_flood",
            Self::OutboundControlFlood => "http2.outbound_control_frames_flood",
            Self::RapidReset => "http2.premature_resets",
            Self::ResetRate => "http2.stream_reset_rate",
            Self::Ended => "connection has ended",
        }
    }
}

/// Why something cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SendError {
    #[error("no such stream, or it has ended")]
    Closed,
    #[error("the peer takes no more streams at a time")]
    TooManyStreams,
    #[error("the connection is draining")]
    Draining,
    #[error("stream identifiers are used up")]
    Exhausted,
    #[error("the peer does not offer extended CONNECT")]
    NoExtendedConnect,
    #[error("not at this point of the message")]
    OutOfOrder,
}
