//! Header names as the tables hold them: lower case, with a small id for the well known ones.
//!
//! The id lets whoever implements [`crate::request::RequestView`] answer in constant time, from positions it noted while
//! parsing. This module must not know how headers are stored.

use std::fmt;

use tidegate_model::Name;

macro_rules! well_known {
    ($($variant:ident = $text:literal,)*) => {
        /// Header names (and pseudo headers) that matching, routing and logging ask for often.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum WellKnown { $($variant,)* }

        impl WellKnown {
            /// All, in the order of their discriminants.
            pub const ALL: &'static [WellKnown] = &[$(WellKnown::$variant,)*];

            /// Lower case.
            pub const fn as_str(self) -> &'static str {
                match self { $(WellKnown::$variant => $text,)* }
            }

            /// `name` must be in lower case.
            pub fn find(name: &str) -> Option<Self> {
                match name { $($text => Some(WellKnown::$variant),)* _ => None }
            }
        }
    };
}

well_known! {
    Method = ":method",
    Path = ":path",
    Authority = ":authority",
    Scheme = ":scheme",
    Status = ":status",
    Host = "host",
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    AccessControlRequestHeaders = "access-control-request-headers",
    AccessControlRequestMethod = "access-control-request-method",
    AccessControlRequestPrivateNetwork = "access-control-request-private-network",
    Authorization = "authorization",
    CacheControl = "cache-control",
    Connection = "connection",
    ContentLength = "content-length",
    ContentType = "content-type",
    Cookie = "cookie",
    Date = "date",
    EndUser = "end-user",
    Expect = "expect",
    GrpcStatus = "grpc-status",
    GrpcTimeout = "grpc-timeout",
    Location = "location",
    Origin = "origin",
    Referer = "referer",
    Server = "server",
    SetCookie = "set-cookie",
    Te = "te",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
    UserAgent = "user-agent",
    Via = "via",
    B3Sampled = "x-b3-sampled",
    ClientTraceId = "x-client-trace-id",
    EnvoyDecoratorOperation = "x-envoy-decorator-operation",
    EnvoyDownstreamServiceCluster = "x-envoy-downstream-service-cluster",
    EnvoyDownstreamServiceNode = "x-envoy-downstream-service-node",
    EnvoyExternalAddress = "x-envoy-external-address",
    EnvoyInternal = "x-envoy-internal",
    EnvoyOriginalPath = "x-envoy-original-path",
    EnvoyUpstreamServiceTime = "x-envoy-upstream-service-time",
    ForwardedClientCert = "x-forwarded-client-cert",
    ForwardedFor = "x-forwarded-for",
    ForwardedHost = "x-forwarded-host",
    ForwardedProto = "x-forwarded-proto",
    RequestId = "x-request-id",
    Traceparent = "traceparent",
}

/// A lower-case header name, compiled once from the configuration.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HeaderName {
    text: Name,
    known: Option<WellKnown>,
    joined: bool,
}

/// Headers that Envoy keeps one value of: further ones are joined to it with a comma as they arrive. All others are kept
/// apart, and a matcher looks at each.
const JOINED: &[&str] = &[
    "accept",
    "accept-encoding",
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-allow-private-network",
    "access-control-expose-headers",
    "access-control-max-age",
    "access-control-request-headers",
    "access-control-request-method",
    "access-control-request-private-network",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "etag",
    "grpc-accept-encoding",
    "grpc-message",
    "grpc-status",
    "grpc-timeout",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "location",
    "origin",
    "proxy-connection",
    "proxy-status",
    "referer",
    "server",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-client-trace-id",
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-external-address",
    "x-envoy-internal",
    "x-envoy-max-retries",
    "x-envoy-original-path",
    "x-envoy-retry-on",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-service-time",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
];

impl HeaderName {
    /// Lower-cases where needed.
    pub fn new(name: &str) -> Self {
        let text: Name = if name.bytes().any(|b| b.is_ascii_uppercase()) {
            Name::from(name.to_ascii_lowercase())
        } else {
            Name::from(name)
        };
        Self {
            known: WellKnown::find(&text),
            joined: JOINED.binary_search(&&*text).is_ok(),
            text,
        }
    }

    pub fn known_as(known: WellKnown) -> Self {
        Self::new(known.as_str())
    }

    /// Whether several values of this header count as one, joined with commas.
    #[inline]
    pub fn is_joined(&self) -> bool {
        self.joined
    }

    #[inline]
    pub fn known(&self) -> Option<WellKnown> {
        self.known
    }

    #[inline]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// `:method` and its like.
    #[inline]
    pub fn is_pseudo(&self) -> bool {
        self.text.starts_with(':')
    }
}

impl fmt::Debug for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl From<&Name> for HeaderName {
    fn from(name: &Name) -> Self {
        Self::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_well_known_name_finds_itself() {
        for (position, known) in WellKnown::ALL.iter().enumerate() {
            assert_eq!(WellKnown::find(known.as_str()), Some(*known));
            assert_eq!(*known as usize, position);
        }
        assert_eq!(
            HeaderName::new("X-Request-ID").known(),
            Some(WellKnown::RequestId)
        );
        assert_eq!(HeaderName::new("x-other").known(), None);
    }
}
