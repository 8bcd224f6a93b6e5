//! What a head may cost and which leniencies are on: the HTTP/1 part of the connection manager's and cluster's options.

/// `headers_with_underscores_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnderscoreAction {
    #[default]
    Allow,
    /// 400, `http1.unexpected_underscore`.
    Reject,
    /// The header is left out of the scratch and counted in [`super::HeadScratch::dropped`].
    Drop,
}

/// Limits and options of one side of one listener or cluster. Cheap to copy; lives in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `max_request_headers_kb` in bytes. The head may be at most this long.
    pub max_head_bytes: u32,
    /// `max_headers_count`: 100 pass, 101 do not.
    pub max_headers: u32,
    pub underscores: UnderscoreAction,
    /// `allow_chunked_length`: `Content-Length` beside `Transfer-Encoding: chunked` is dropped instead of refused.
    pub allow_chunked_length: bool,
    /// `accept_http_10`; otherwise [`super::ErrorKind::LowVersion`].
    pub accept_http_10: bool,
    /// `allow_absolute_url`, on unless the configuration turns it off.
    pub allow_absolute_url: bool,
    /// `https://` targets are in order. Envoy takes them on plaintext listeners too, unless its runtime says otherwise.
    pub over_tls: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_head_bytes: 60 * 1024,
            max_headers: 100,
            underscores: UnderscoreAction::Allow,
            allow_chunked_length: false,
            accept_http_10: false,
            allow_absolute_url: true,
            over_tls: true,
        }
    }
}
