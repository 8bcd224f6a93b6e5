//! The counts that tell an abusive peer from a busy one. Time comes from the caller, in milliseconds that may wrap.

use super::error::ConnectionError;
use super::options::Options;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Guard {
    empty_frames: u32,
    priority_frames: u32,
    window_updates: u32,
    /// Requests that became streams. Envoy counts a server's when they are answered, which is hard on clients that announce
    /// their windows at once.
    opened_streams: u32,
    data_frames_sent: u32,
    closed_streams: u32,
    premature_resets: u32,
    /// Resets taken from the bucket, in thousandths, as of `bucket_at`.
    bucket: u32,
    bucket_at: u32,
}

impl Guard {
    /// A HEADERS, CONTINUATION or DATA frame.
    #[inline]
    pub(super) fn payload_frame(
        &mut self,
        is_empty: bool,
        options: &Options,
    ) -> Result<(), ConnectionError> {
        if !is_empty {
            self.empty_frames = 0;
            return Ok(());
        }
        self.empty_frames += 1;
        if self.empty_frames > options.max_consecutive_inbound_frames_with_empty_payload {
            return Err(ConnectionError::EmptyFramesFlood);
        }
        Ok(())
    }

    #[inline]
    pub(super) fn stream_opened(&mut self) {
        self.opened_streams = self.opened_streams.saturating_add(1);
    }

    #[inline]
    pub(super) fn data_frame_sent(&mut self) {
        self.data_frames_sent = self.data_frames_sent.saturating_add(1);
    }

    pub(super) fn priority_frame(&mut self, options: &Options) -> Result<(), ConnectionError> {
        self.priority_frames = self.priority_frames.saturating_add(1);
        let allowed = u64::from(options.max_inbound_priority_frames_per_stream)
            * (1 + u64::from(self.opened_streams));
        if u64::from(self.priority_frames) > allowed {
            return Err(ConnectionError::PriorityFramesFlood);
        }
        Ok(())
    }

    pub(super) fn window_update(&mut self, options: &Options) -> Result<(), ConnectionError> {
        self.window_updates = self.window_updates.saturating_add(1);
        let per_frame = u64::from(options.max_inbound_window_update_frames_per_data_frame_sent);
        let allowed =
            5 + 2 * (u64::from(self.opened_streams) + per_frame * u64::from(self.data_frames_sent));
        if u64::from(self.window_updates) > allowed {
            return Err(ConnectionError::WindowUpdateFramesFlood);
        }
        Ok(())
    }

    /// A request has ended, one way or the other.
    #[inline]
    pub(super) fn stream_closed(&mut self) {
        self.closed_streams = self.closed_streams.saturating_add(1);
    }

    /// The peer reset a request opened at `opened` before it was answered in full, or had it reset by its own fault.
    pub(super) fn request_reset(
        &mut self,
        opened: u32,
        now: u32,
        options: &Options,
    ) -> Result<(), ConnectionError> {
        if now.wrapping_sub(opened) < options.premature_reset_min_stream_lifetime_ms {
            self.premature_resets = self.premature_resets.saturating_add(1);
        }
        // Before so many requests have ended it is enough that the rest of them could not make up for it.
        let judged_from = options.premature_reset_total_stream_count;
        if judged_from > 0
            && u64::from(self.premature_resets) * 2
                >= u64::from(self.closed_streams.max(judged_from))
        {
            return Err(ConnectionError::RapidReset);
        }
        Ok(())
    }

    /// A reset that the peer sent, or made us send.
    pub(super) fn reset(&mut self, now: u32, options: &Options) -> Result<(), ConnectionError> {
        // The rate in resets a second is thousandths of a reset in a millisecond.
        let regained = u64::from(now.wrapping_sub(self.bucket_at)) * u64::from(options.reset_rate);
        self.bucket_at = now;
        let left = u64::from(self.bucket).saturating_sub(regained) + 1_000;
        self.bucket = u32::try_from(left).unwrap_or(u32::MAX);
        if u64::from(self.bucket) > u64::from(options.reset_burst) * 1_000 {
            return Err(ConnectionError::ResetRate);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_of_resets() {
        let options = Options::default();
        let mut guard = Guard::default();
        for _ in 0..1_000 {
            assert!(guard.reset(5, &options).is_ok());
        }
        assert_eq!(guard.reset(5, &options), Err(ConnectionError::ResetRate));
        let mut guard = Guard::default();
        // 33 a second may go on for ever, across the wrap of the clock.
        let mut now = u32::MAX - 100_000;
        for round in 0..10_000u32 {
            now = now.wrapping_add(if round % 33 == 0 { 40 } else { 30 });
            assert!(guard.reset(now, &options).is_ok());
        }
        let mut guard = Guard::default();
        let mut fine = 0;
        while guard.reset(fine * 10, &options).is_ok() {
            fine += 1;
        }
        assert!((1_400..1_600).contains(&fine), "{fine}");
    }

    #[test]
    fn rapid_resets() {
        let options = Options::default();
        let mut guard = Guard::default();
        for n in 0..249 {
            guard.stream_closed();
            assert!(guard.request_reset(n, n + 10, &options).is_ok());
        }
        guard.stream_closed();
        assert!(guard.request_reset(0, 10, &options).is_err());
        // A third of them is less than half, and late ones are not premature.
        let mut guard = Guard::default();
        for n in 0..5_000 {
            (0..3).for_each(|_| guard.stream_closed());
            assert!(guard.request_reset(n, n + 10, &options).is_ok());
            assert!(guard.request_reset(n, n + 1_000, &options).is_ok());
        }
    }
}
