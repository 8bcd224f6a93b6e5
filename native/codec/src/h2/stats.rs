//! Envoy's counters under `http2.`: the codec tells how often, the connection manager counts.

macro_rules! stats {
    ($($variant:ident = $name:literal,)*) => {
        /// A counter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Stat {
            $($variant,)*
        }

        impl Stat {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name under `http2.`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

stats! {
    DroppedHeadersWithUnderscores = "dropped_headers_with_underscores",
    GoawaySent = "goaway_sent",
    GoawayGracefulSent = "goaway_graceful_sent",
    HeaderOverflow = "header_overflow",
    HeadersCbNoStream = "headers_cb_no_stream",
    InboundEmptyFramesFlood = "inbound_empty_frames_flood",
    InboundPriorityFramesFlood = "inbound_priority_frames_flood",
    InboundWindowUpdateFramesFlood = "inbound_window_update_frames_flood",
    KeepaliveTimeout = "keepalive_timeout",
    OutboundControlFlood = "outbound_control_flood",
    OutboundFlood = "outbound_flood",
    RequestsRejectedWithUnderscoresInHeaders = "requests_rejected_with_underscores_in_headers",
    RxMessagingError = "rx_messaging_error",
    RxReset = "rx_reset",
    StreamRefusedErrors = "stream_refused_errors",
    TooManyHeaderFrames = "too_many_header_frames",
    Trailers = "trailers",
    TxReset = "tx_reset",
}

const COUNT: usize = Stat::ALL.len();

/// How often each has happened since this was last taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    counts: [u16; COUNT],
    any: bool,
}

impl Counts {
    #[inline]
    pub(super) fn add(&mut self, stat: Stat, count: u32) {
        self.any = true;
        if let Some(slot) = self.counts.get_mut(stat as usize) {
            *slot = slot.saturating_add(u16::try_from(count).unwrap_or(u16::MAX));
        }
    }

    #[inline]
    pub(super) fn bump(&mut self, stat: Stat) {
        self.add(stat, 1);
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        !self.any
    }

    pub fn get(&self, stat: Stat) -> u32 {
        self.counts.get(stat as usize).copied().map_or(0, u32::from)
    }

    /// Those that are not 0.
    pub fn iter(&self) -> impl Iterator<Item = (Stat, u32)> {
        Stat::ALL
            .iter()
            .map(|stat| (*stat, self.get(*stat)))
            .filter(|(_, count)| *count > 0)
    }
}
