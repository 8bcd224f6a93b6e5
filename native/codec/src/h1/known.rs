//! The header names that somebody in the data plane asks for, classified while the head is scanned so that nobody
//! searches by name afterwards.
//!
//! One probe into a table built by the compiler, then one comparison; a name that is not here costs the probe only.

/// Slots of the probe table.
const SLOTS: usize = 1024;
/// Spreads the names without a collision. When a new name collides the build fails: step the constant on (any odd
/// number will do) until it does not.
const MULTIPLIER: u64 = 0x4d97_dc4e_9896_d9c5;
const _: () = assert!(
    !collides(),
    "two names share a slot: choose another MULTIPLIER"
);

macro_rules! known_headers {
    ($($variant:ident = $name:literal,)*) => {
        /// A header name with a meaning to the proxy. `Other` is every name that is not listed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum KnownHeader {
            Other = 0,
            $($variant,)*
        }

        impl KnownHeader {
            /// Every listed name, `Other` left out.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in lower case; empty for `Other`.
            pub const fn name(self) -> &'static str {
                match self {
                    Self::Other => "",
                    $(Self::$variant => $name,)*
                }
            }
        }

        const NAMES: &[&str] = &[$($name,)*];
    };
}

known_headers! {
    // Framing and the connection itself: `is_framing` relies on these coming first.
    Host = "host",
    ContentLength = "content-length",
    TransferEncoding = "transfer-encoding",
    Connection = "connection",
    Upgrade = "upgrade",
    Expect = "expect",
    Te = "te",
    Trailer = "trailer",
    KeepAlive = "keep-alive",
    ProxyConnection = "proxy-connection",
    Http2Settings = "http2-settings",
    // Content and common fields.
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    AcceptLanguage = "accept-language",
    Age = "age",
    Authorization = "authorization",
    CacheControl = "cache-control",
    ContentEncoding = "content-encoding",
    ContentType = "content-type",
    Cookie = "cookie",
    Date = "date",
    Etag = "etag",
    Forwarded = "forwarded",
    LastModified = "last-modified",
    Location = "location",
    Origin = "origin",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    ProxyStatus = "proxy-status",
    Range = "range",
    Referer = "referer",
    Server = "server",
    SetCookie = "set-cookie",
    UserAgent = "user-agent",
    Vary = "vary",
    Via = "via",
    // CORS.
    AccessControlAllowCredentials = "access-control-allow-credentials",
    AccessControlAllowHeaders = "access-control-allow-headers",
    AccessControlAllowMethods = "access-control-allow-methods",
    AccessControlAllowOrigin = "access-control-allow-origin",
    AccessControlAllowPrivateNetwork = "access-control-allow-private-network",
    AccessControlExposeHeaders = "access-control-expose-headers",
    AccessControlMaxAge = "access-control-max-age",
    AccessControlRequestHeaders = "access-control-request-headers",
    AccessControlRequestMethod = "access-control-request-method",
    AccessControlRequestPrivateNetwork = "access-control-request-private-network",
    // gRPC.
    GrpcMessage = "grpc-message",
    GrpcStatus = "grpc-status",
    GrpcTimeout = "grpc-timeout",
    // Tracing.
    B3 = "b3",
    Traceparent = "traceparent",
    Tracestate = "tracestate",
    XB3Flags = "x-b3-flags",
    XB3ParentSpanId = "x-b3-parentspanid",
    XB3Sampled = "x-b3-sampled",
    XB3SpanId = "x-b3-spanid",
    XB3TraceId = "x-b3-traceid",
    XClientTraceId = "x-client-trace-id",
    XOtSpanContext = "x-ot-span-context",
    XRequestId = "x-request-id",
    // Forwarding.
    XForwardedClientCert = "x-forwarded-client-cert",
    XForwardedFor = "x-forwarded-for",
    XForwardedHost = "x-forwarded-host",
    XForwardedPort = "x-forwarded-port",
    XForwardedProto = "x-forwarded-proto",
    // Envoy's own: `is_envoy` relies on these coming last.
    XEnvoyAttemptCount = "x-envoy-attempt-count",
    XEnvoyDecoratorOperation = "x-envoy-decorator-operation",
    XEnvoyDegraded = "x-envoy-degraded",
    XEnvoyDownstreamServiceCluster = "x-envoy-downstream-service-cluster",
    XEnvoyDownstreamServiceNode = "x-envoy-downstream-service-node",
    XEnvoyExpectedRqTimeoutMs = "x-envoy-expected-rq-timeout-ms",
    XEnvoyExternalAddress = "x-envoy-external-address",
    XEnvoyFaultAbortGrpcRequest = "x-envoy-fault-abort-grpc-request",
    XEnvoyFaultAbortRequest = "x-envoy-fault-abort-request",
    XEnvoyFaultAbortRequestPercentage = "x-envoy-fault-abort-request-percentage",
    XEnvoyFaultDelayRequest = "x-envoy-fault-delay-request",
    XEnvoyFaultDelayRequestPercentage = "x-envoy-fault-delay-request-percentage",
    XEnvoyFaultThroughputResponse = "x-envoy-fault-throughput-response",
    XEnvoyFaultThroughputResponsePercentage = "x-envoy-fault-throughput-response-percentage",
    XEnvoyForceTrace = "x-envoy-force-trace",
    XEnvoyHedgeOnPerTryTimeout = "x-envoy-hedge-on-per-try-timeout",
    XEnvoyImmediateHealthCheckFail = "x-envoy-immediate-health-check-fail",
    XEnvoyInternal = "x-envoy-internal",
    XEnvoyIpTags = "x-envoy-ip-tags",
    XEnvoyIsTimeoutRetry = "x-envoy-is-timeout-retry",
    XEnvoyLocalOverloaded = "x-envoy-local-overloaded",
    XEnvoyMaxRetries = "x-envoy-max-retries",
    XEnvoyOriginalHost = "x-envoy-original-host",
    XEnvoyOriginalMethod = "x-envoy-original-method",
    XEnvoyOriginalPath = "x-envoy-original-path",
    XEnvoyOriginalUrl = "x-envoy-original-url",
    XEnvoyOverloaded = "x-envoy-overloaded",
    XEnvoyPeerMetadata = "x-envoy-peer-metadata",
    XEnvoyPeerMetadataId = "x-envoy-peer-metadata-id",
    XEnvoyRateLimited = "x-envoy-ratelimited",
    XEnvoyRetriableHeaderNames = "x-envoy-retriable-header-names",
    XEnvoyRetriableStatusCodes = "x-envoy-retriable-status-codes",
    XEnvoyRetryGrpcOn = "x-envoy-retry-grpc-on",
    XEnvoyRetryOn = "x-envoy-retry-on",
    XEnvoyUpstreamAltStatName = "x-envoy-upstream-alt-stat-name",
    XEnvoyUpstreamCanary = "x-envoy-upstream-canary",
    XEnvoyUpstreamHealthCheckedCluster = "x-envoy-upstream-healthchecked-cluster",
    XEnvoyUpstreamRqPerTryTimeoutMs = "x-envoy-upstream-rq-per-try-timeout-ms",
    XEnvoyUpstreamRqTimeoutAltResponse = "x-envoy-upstream-rq-timeout-alt-response",
    XEnvoyUpstreamRqTimeoutMs = "x-envoy-upstream-rq-timeout-ms",
    XEnvoyUpstreamServiceTime = "x-envoy-upstream-service-time",
    XEnvoyUpstreamStreamDurationMs = "x-envoy-upstream-stream-duration-ms",
}

const _: () = assert!(NAMES.len() < 128, "HeadScratch has 128 slots");

const fn load(name: &[u8], at: usize) -> u64 {
    let mut word = 0;
    let mut i = 0;
    while i < 8 && at + i < name.len() {
        #[expect(
            clippy::indexing_slicing,
            reason = "evaluated by the compiler, bounded by the loop"
        )]
        let byte = name[at + i];
        word |= (byte as u64) << (8 * i);
        i += 1;
    }
    word
}

/// Case is folded by setting bit 5, so the hash is the same for every spelling.
const FOLD: u64 = 0x2020_2020_2020_2020;

/// What a name is hashed by: its length, its first and last eight bytes, and the second eight of a long one. A short
/// name counts as two overlapping halves, a very short one as a single word.
#[derive(Clone, Copy)]
struct Words {
    length: usize,
    first: u64,
    second: u64,
    last: u64,
}

impl Words {
    #[inline]
    const fn slot(self) -> usize {
        let second = (self.second | FOLD).rotate_left(41);
        let last = (self.last | FOLD).rotate_left(23);
        let mixed = (self.first | FOLD)
            .wrapping_add(second ^ last)
            .wrapping_add(self.length as u64);
        (mixed.wrapping_mul(MULTIPLIER) >> 54) as usize
    }

    const fn of_const(name: &[u8]) -> Self {
        let length = name.len();
        let (first, last) = if length >= 8 {
            (load(name, 0), load(name, length - 8))
        } else if length >= 4 {
            (
                load(name, 0) & 0xffff_ffff,
                load(name, length - 4) & 0xffff_ffff,
            )
        } else {
            (load(name, 0), 0)
        };
        let second = if length >= 16 { load(name, 8) } else { 0 };
        Self {
            length,
            first,
            second,
            last,
        }
    }

    #[inline]
    fn of(name: &[u8]) -> Self {
        let length = name.len();
        let (first, last) = if length >= 8 {
            (word8(name, 0), word8(name, length - 8))
        } else if length >= 4 {
            (word4(name, 0), word4(name, length - 4))
        } else {
            (
                name.iter()
                    .rev()
                    .fold(0, |word, byte| word << 8 | u64::from(*byte)),
                0,
            )
        };
        let second = if length >= 16 { word8(name, 8) } else { 0 };
        Self {
            length,
            first,
            second,
            last,
        }
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, bounded by the loops"
)]
const fn collides() -> bool {
    let mut taken = [false; SLOTS];
    let mut i = 0;
    while i < NAMES.len() {
        let at = Words::of_const(NAMES[i].as_bytes()).slot();
        if taken[at] {
            return true;
        }
        taken[at] = true;
        i += 1;
    }
    false
}

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, bounded by the loop"
)]
const fn build_table() -> [KnownHeader; SLOTS] {
    let mut table = [KnownHeader::Other; SLOTS];
    let mut i = 0;
    while i < KnownHeader::ALL.len() {
        table[Words::of_const(NAMES[i].as_bytes()).slot()] = KnownHeader::ALL[i];
        i += 1;
    }
    table
}

static TABLE: [KnownHeader; SLOTS] = build_table();

#[inline]
fn word8(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

#[inline]
fn word4(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
    word.map_or(0, |b| u64::from(u32::from_le_bytes(b)))
}

impl KnownHeader {
    /// Classifies a name in any case.
    pub fn from_name(name: &[u8]) -> Self {
        // Folding by bit 5 would take a control character for a letter, digit or hyphen; the scanner has excluded those.
        if name.iter().any(|b| *b < 0x20) {
            Self::Other
        } else {
            Self::classify(name)
        }
    }

    /// As [`KnownHeader::from_name`] for a name known to hold no byte below 0x20.
    #[inline]
    pub(crate) fn classify(name: &[u8]) -> Self {
        let n = name.len();
        let words = Words::of(name);
        let candidate = TABLE.get(words.slot()).copied().unwrap_or(Self::Other);
        let expected = candidate.name().as_bytes();
        if expected.len() != n || n == 0 {
            return Self::Other;
        }
        // Short names leave zero bytes above them, which folding turns into the same spaces on both sides.
        let want = Words::of(expected);
        let mut difference = ((words.first | FOLD) ^ (want.first | FOLD))
            | ((words.last | FOLD) ^ (want.last | FOLD));
        let mut at = 8;
        while at + 8 < n {
            difference |= (word8(name, at) | FOLD) ^ word8(expected, at);
            at += 8;
        }
        if difference == 0 {
            candidate
        } else {
            Self::Other
        }
    }

    /// Whether the name belongs to the connection or to framing and needs a look while the head is parsed.
    #[inline]
    pub(crate) const fn is_framing(self) -> bool {
        (self as u8) <= (Self::Http2Settings as u8) && (self as u8) != 0
    }

    /// `x-envoy-*`.
    #[inline]
    pub const fn is_envoy(self) -> bool {
        (self as u8) >= (Self::XEnvoyAttemptCount as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for known in KnownHeader::ALL {
            let name = known.name();
            assert_eq!(name, name.to_ascii_lowercase());
            for spelling in [
                name.to_string(),
                name.to_uppercase(),
                name[..1].to_uppercase() + &name[1..],
            ] {
                assert_eq!(
                    KnownHeader::from_name(spelling.as_bytes()),
                    *known,
                    "{spelling}"
                );
            }
        }
    }

    #[test]
    fn near_misses_are_other() {
        for known in KnownHeader::ALL {
            let name = known.name().as_bytes();
            for i in 0..name.len() {
                for byte in 0..=255u8 {
                    let mut changed = name.to_vec();
                    changed[i] = byte;
                    if changed.eq_ignore_ascii_case(name) {
                        continue;
                    }
                    let got = KnownHeader::from_name(&changed);
                    assert!(
                        got == KnownHeader::Other
                            || changed.eq_ignore_ascii_case(got.name().as_bytes())
                    );
                }
            }
            assert_eq!(
                KnownHeader::from_name(&name[..name.len() - 1]),
                KnownHeader::Other
            );
        }
        assert_eq!(KnownHeader::from_name(b""), KnownHeader::Other);
        assert_eq!(
            KnownHeader::from_name(b"transfer_encoding"),
            KnownHeader::Other
        );
    }
}
