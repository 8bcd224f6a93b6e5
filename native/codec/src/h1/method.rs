//! Request methods: those Envoy's HTTP/1 codec knows by name. Others are refused, as Envoy refuses them.

/// The method; the token itself is in [`super::RequestHead::method_span`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    /// A registered method without a meaning of its own for a proxy (WebDAV and the like).
    Other,
}

impl Method {
    /// Methods are case-sensitive. `None`: not one that Envoy accepts.
    #[inline]
    pub fn from_token(token: &[u8]) -> Option<Self> {
        Some(match token {
            b"GET" => Self::Get,
            b"POST" => Self::Post,
            b"HEAD" => Self::Head,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"PATCH" => Self::Patch,
            b"CONNECT" => Self::Connect,
            b"TRACE" => Self::Trace,
            b"ACL" | b"BIND" | b"CHECKOUT" | b"COPY" | b"LINK" | b"LOCK" | b"MERGE"
            | b"MKACTIVITY" | b"MKCALENDAR" | b"MKCOL" | b"MOVE" | b"MSEARCH" | b"NOTIFY"
            | b"PROPFIND" | b"PROPPATCH" | b"PURGE" | b"QUERY" | b"REBIND" | b"REPORT"
            | b"SEARCH" | b"SOURCE" | b"SUBSCRIBE" | b"UNBIND" | b"UNLINK" | b"UNLOCK"
            | b"UNSUBSCRIBE" => Self::Other,
            _ => return None,
        })
    }

    /// Whether Envoy sends no `content-length: 0` with a request of this method that has no body.
    #[inline]
    pub const fn is_bodiless(self) -> bool {
        matches!(
            self,
            Self::Get | Self::Head | Self::Delete | Self::Trace | Self::Connect
        )
    }
}
