//! Envoy's response flags: why a request or connection ended as it did.

macro_rules! flags {
    ($($name:ident = $bit:literal, $short:literal, $long:literal;)*) => {
        impl ResponseFlags {
            $(
                #[doc = concat!("`", $short, "`, ", $long)]
                pub const $name: Self = Self {
                    bits: 1 << $bit,
                    order: $bit,
                };
            )*

            /// Flag, short and long name, by bit.
            pub const ALL: &'static [(Self, &'static str, &'static str)] = &[
                $((Self::$name, $short, $long),)*
            ];
        }
    };
}

/// A set of response flags, printed in the order in which they were set, as Envoy does.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResponseFlags {
    bits: u32,
    /// The bits' numbers in their order, five bits each. As many as fit, which no request ever needs.
    order: u64,
}

impl PartialEq for ResponseFlags {
    fn eq(&self, other: &Self) -> bool {
        self.bits == other.bits
    }
}

impl Eq for ResponseFlags {}

flags! {
    FAILED_LOCAL_HEALTH_CHECK = 0, "LH", "FailedLocalHealthCheck";
    NO_HEALTHY_UPSTREAM = 1, "UH", "NoHealthyUpstream";
    UPSTREAM_REQUEST_TIMEOUT = 2, "UT", "UpstreamRequestTimeout";
    LOCAL_RESET = 3, "LR", "LocalReset";
    UPSTREAM_REMOTE_RESET = 4, "UR", "UpstreamRemoteReset";
    UPSTREAM_CONNECTION_FAILURE = 5, "UF", "UpstreamConnectionFailure";
    UPSTREAM_CONNECTION_TERMINATION = 6, "UC", "UpstreamConnectionTermination";
    UPSTREAM_OVERFLOW = 7, "UO", "UpstreamOverflow";
    NO_ROUTE_FOUND = 8, "NR", "NoRouteFound";
    DELAY_INJECTED = 9, "DI", "DelayInjected";
    FAULT_INJECTED = 10, "FI", "FaultInjected";
    RATE_LIMITED = 11, "RL", "RateLimited";
    UNAUTHORIZED_EXTERNAL_SERVICE = 12, "UAEX", "UnauthorizedExternalService";
    RATE_LIMIT_SERVICE_ERROR = 13, "RLSE", "RateLimitServiceError";
    DOWNSTREAM_CONNECTION_TERMINATION = 14, "DC", "DownstreamConnectionTermination";
    UPSTREAM_RETRY_LIMIT_EXCEEDED = 15, "URX", "UpstreamRetryLimitExceeded";
    STREAM_IDLE_TIMEOUT = 16, "SI", "StreamIdleTimeout";
    INVALID_ENVOY_REQUEST_HEADERS = 17, "IH", "InvalidEnvoyRequestHeaders";
    DOWNSTREAM_PROTOCOL_ERROR = 18, "DPE", "DownstreamProtocolError";
    UPSTREAM_MAX_STREAM_DURATION_REACHED = 19, "UMSDR", "UpstreamMaxStreamDurationReached";
    RESPONSE_FROM_CACHE_FILTER = 20, "RFCF", "ResponseFromCacheFilter";
    NO_FILTER_CONFIG_FOUND = 21, "NFCF", "NoFilterConfigFound";
    DURATION_TIMEOUT = 22, "DT", "DurationTimeout";
    UPSTREAM_PROTOCOL_ERROR = 23, "UPE", "UpstreamProtocolError";
    NO_CLUSTER_FOUND = 24, "NC", "NoClusterFound";
    OVERLOAD_MANAGER = 25, "OM", "OverloadManagerTerminated";
    DNS_RESOLUTION_FAILED = 26, "DF", "DnsResolutionFailed";
    DROP_OVERLOAD = 27, "DO", "DropOverload";
    DOWNSTREAM_REMOTE_RESET = 28, "DR", "DownstreamRemoteReset";
    UNCONDITIONAL_DROP_OVERLOAD = 29, "UDO", "UnconditionalDropOverload";
}

impl ResponseFlags {
    pub const NONE: Self = Self { bits: 0, order: 0 };

    #[inline]
    pub const fn is_empty(self) -> bool {
        self.bits == 0
    }

    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.bits & other.bits == other.bits
    }

    #[inline]
    pub const fn intersects(self, other: Self) -> bool {
        self.bits & other.bits != 0
    }

    #[inline]
    pub fn insert(&mut self, other: Self) {
        *self = self.union(other);
    }

    #[inline]
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        let mut union = self;
        let mut added = other.bits & !self.bits;
        while added != 0 {
            let number = added.trailing_zeros();
            added &= added - 1;
            let place = union.bits.count_ones() * 5;
            if place < 60 {
                union.order |= (number as u64) << place;
            }
            union.bits |= 1 << number;
        }
        union
    }

    /// By short name.
    pub fn find(short: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, name, _)| *name == short)
            .map(|(flag, _, _)| *flag)
    }

    /// The set flags' names, joined with commas; nothing when empty.
    pub fn write(self, long: bool, out: &mut Vec<u8>) {
        for place in 0..self.bits.count_ones().min(12) {
            let number = (self.order >> (place * 5)) & 31;
            let Some((_, short_name, long_name)) = Self::ALL.get(number as usize) else {
                continue;
            };
            if place > 0 {
                out.push(b',');
            }
            let name = if long { long_name } else { short_name };
            out.extend_from_slice(name.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_printed_as_they_were_set() {
        let text = |flags: ResponseFlags, long| {
            let mut out = Vec::new();
            flags.write(long, &mut out);
            String::from_utf8(out).unwrap()
        };
        let mut flags = ResponseFlags::NONE;
        assert_eq!(text(flags, false), "");
        flags.insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        flags.insert(ResponseFlags::UPSTREAM_CONNECTION_TERMINATION);
        flags.insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        assert_eq!(text(flags, false), "URX,UC");
        assert_eq!(
            text(flags, true),
            "UpstreamRetryLimitExceeded,UpstreamConnectionTermination"
        );
        flags.insert(ResponseFlags::FAILED_LOCAL_HEALTH_CHECK);
        assert_eq!(text(flags, false), "URX,UC,LH");
        for (number, (flag, _, _)) in ResponseFlags::ALL.iter().enumerate() {
            assert_eq!(flag.bits, 1 << number);
        }
    }
}
