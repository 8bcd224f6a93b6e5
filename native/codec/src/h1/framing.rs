//! Where a message's body ends: RFC 9112 section 6, decided once, refused whenever two readings are possible.

use super::method::Method;

/// The body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFraming {
    /// Neither `Content-Length` nor `Transfer-Encoding`.
    None,
    Length(u64),
    Chunked,
}

/// The body of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFraming {
    /// 1xx, 204, 304, any response to HEAD and 2xx to CONNECT: no body, whatever the headers say.
    None,
    Length(u64),
    Chunked,
    /// Until the upstream closes.
    UntilClose,
}

impl ResponseFraming {
    /// `length` and `chunked` are what the headers say; `method` is that of the request.
    pub(super) fn decide(method: Method, status: u16, length: Option<u64>, chunked: bool) -> Self {
        let bodiless = method == Method::Head
            || (method == Method::Connect && (200..300).contains(&status))
            || matches!(status, 100..=199 | 204 | 304);
        if bodiless {
            Self::None
        } else if chunked {
            Self::Chunked
        } else if let Some(length) = length {
            Self::Length(length)
        } else {
            Self::UntilClose
        }
    }
}
