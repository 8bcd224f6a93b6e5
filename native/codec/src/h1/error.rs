//! Why a message was refused, and what Envoy says and counts about it.

use std::fmt;

/// What is wrong with a head or a body's framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Not an HTTP/1 request or status line.
    StartLine,
    /// HTTP/1.0 without `accept_http_10`, or any version that is neither 1.0 nor 1.1: 426.
    LowVersion,
    Method,
    Target,
    /// An absolute target whose scheme is neither http nor https.
    Scheme,
    /// `https://` on a listener without TLS.
    HttpsOnPlaintext,
    HeaderName,
    /// NUL, another control character or DEL, wherever in the head it stands.
    InvalidCharacter,
    /// A line that begins with white space.
    ObsoleteFold,
    /// LF without CR, or CR without LF.
    LineEnding,
    HeadersTooLarge,
    TooManyHeaders,
    UnderscoreInName,
    DuplicateHost,
    /// `Host` or an authority that RFC 3986 does not allow.
    InvalidAuthority,
    ContentLength,
    DuplicateContentLength,
    ContentLengthAndTransferEncoding,
    TransferEncoding,
    /// `Transfer-Encoding` in a 1xx or 204 response, or in an HTTP/1.0 message.
    TransferEncodingNotAllowed,
    /// `Content-Length` other than 0 in a 1xx or 204 response.
    ContentLengthNotAllowed,
    /// `Content-Length` other than 0 beside CONNECT.
    BodyDisallowed,
    /// `Connection` nominates a header that must reach the other side.
    ConnectionNominates,
    /// A chunk's size line.
    ChunkSize,
    ChunkExtension,
    /// Payload not followed by CRLF.
    ChunkEnd,
    Trailer,
    TrailersTooLarge,
    TooManyTrailers,
}

/// A request or response that the codec refuses.
///
/// A request is answered with [`ParseError::status`] and [`ParseError::body`] as `text/plain` with `connection: close`,
/// logged with flag DPE and [`ParseError::details`] but without method, path and authority, and counted in
/// `downstream_cx_protocol_error`. A response becomes 502 `UPE`, `upstream_reset_before_response_started{protocol_error}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct ParseError {
    pub kind: ErrorKind,
}

/// An error within a body; the same type, for the verdict is the same.
pub type BodyError = ParseError;

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl From<ErrorKind> for ParseError {
    #[inline]
    fn from(kind: ErrorKind) -> Self {
        Self { kind }
    }
}

impl ParseError {
    /// The status of the local reply to a request: 400, 426, 431 or 501.
    pub const fn status(self) -> u16 {
        match self.kind {
            ErrorKind::HeadersTooLarge
            | ErrorKind::TooManyHeaders
            | ErrorKind::TrailersTooLarge
            | ErrorKind::TooManyTrailers => 431,
            ErrorKind::TransferEncoding => 501,
            ErrorKind::LowVersion => 426,
            _ => 400,
        }
    }

    /// Envoy's `%RESPONSE_CODE_DETAILS%`.
    pub const fn details(self) -> &'static str {
        match self.kind {
            ErrorKind::LowVersion => "low_version",
            ErrorKind::InvalidAuthority => "http.invalid_authority",
            ErrorKind::BodyDisallowed => "http1.body_disallowed",
            // Trailers count as headers.
            ErrorKind::HeadersTooLarge | ErrorKind::TrailersTooLarge => "http1.headers_too_large",
            ErrorKind::TooManyHeaders | ErrorKind::TooManyTrailers => "http1.too_many_headers",
            ErrorKind::TransferEncoding => "http1.invalid_transfer_encoding",
            ErrorKind::TransferEncodingNotAllowed => "http1.transfer_encoding_not_allowed",
            ErrorKind::ContentLengthNotAllowed => "http1.content_length_not_allowed",
            ErrorKind::ContentLengthAndTransferEncoding => {
                "http1.content_length_and_chunked_not_allowed"
            }
            ErrorKind::ConnectionNominates => "http1.connection_header_rejected",
            ErrorKind::UnderscoreInName => "http1.unexpected_underscore",
            ErrorKind::InvalidCharacter => "http1.invalid_characters",
            ErrorKind::Target => "http1.invalid_url",
            ErrorKind::Scheme => "http1.invalid_scheme",
            ErrorKind::HttpsOnPlaintext => "http1.https_url_on_plaintext_connection",
            _ => "http1.codec_error",
        }
    }

    /// The body of the local reply, Envoy's own: the reason phrase.
    pub const fn body(self) -> &'static str {
        match self.status() {
            426 => "Upgrade Required",
            431 => "Request Header Fields Too Large",
            501 => "Not Implemented",
            _ => "Bad Request",
        }
    }

    /// The counter under `http1.` that Envoy bumps besides `downstream_cx_protocol_error`, if any.
    pub const fn stat(self) -> Option<&'static str> {
        match self.kind {
            ErrorKind::UnderscoreInName => Some("requests_rejected_with_underscores_in_headers"),
            _ => None,
        }
    }

    /// For logs and debugging: ours.
    pub const fn reason(self) -> &'static str {
        match self.kind {
            ErrorKind::StartLine => "malformed start line",
            ErrorKind::Method => "unknown method",
            ErrorKind::Target => "malformed request target",
            ErrorKind::LowVersion => "protocol version not accepted",
            ErrorKind::Scheme => "scheme is neither http nor https",
            ErrorKind::HttpsOnPlaintext => "https target on a plaintext connection",
            ErrorKind::HeaderName => "malformed header name",
            ErrorKind::InvalidCharacter => "control character in the head",
            ErrorKind::ObsoleteFold => "header continuation line",
            ErrorKind::LineEnding => "line not ended by CRLF",
            ErrorKind::HeadersTooLarge => "headers too large",
            ErrorKind::TooManyHeaders => "too many headers",
            ErrorKind::UnderscoreInName => "underscore in header name",
            ErrorKind::InvalidAuthority => "malformed host or authority",
            ErrorKind::BodyDisallowed => "body beside CONNECT",
            ErrorKind::DuplicateHost => "more than one host header",
            ErrorKind::ContentLength => "malformed content-length",
            ErrorKind::DuplicateContentLength => "more than one content-length header",
            ErrorKind::ContentLengthAndTransferEncoding => {
                "content-length beside transfer-encoding"
            }
            ErrorKind::TransferEncoding => "transfer-encoding other than chunked",
            ErrorKind::TransferEncodingNotAllowed => "transfer-encoding not allowed here",
            ErrorKind::ContentLengthNotAllowed => "content-length not allowed here",
            ErrorKind::ConnectionNominates => "connection header nominates a protected header",
            ErrorKind::ChunkSize => "malformed chunk size",
            ErrorKind::ChunkExtension => "malformed or oversized chunk extension",
            ErrorKind::ChunkEnd => "chunk not ended by CRLF",
            ErrorKind::Trailer => "malformed trailer",
            ErrorKind::TrailersTooLarge => "trailers too large",
            ErrorKind::TooManyTrailers => "too many trailers",
        }
    }
}

/// A request that reads well but that Envoy's connection manager refuses before routing, with an ordinary local reply
/// (empty body, `connection: close`) and an access-log line that shows the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No `Host`.
    MissingHost,
    /// QUERY without `Content-Type`.
    QueryWithoutContentType,
}

impl Refusal {
    pub const fn status(self) -> u16 {
        400
    }

    pub const fn details(self) -> &'static str {
        match self {
            Self::MissingHost => "missing_host_header",
            Self::QueryWithoutContentType => "query_missing_content_type",
        }
    }
}
