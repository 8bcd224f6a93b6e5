//! SETTINGS, PING, RST_STREAM, PRIORITY, WINDOW_UPDATE and GOAWAY as they come.

use super::{Connection, Phase, Role, Step};
use crate::h2::error::{ConnectionError, ErrorCode, StreamFault};
use crate::h2::event::{Event, ResetBy};
use crate::h2::frame::{self, DEFAULT_WINDOW, Head, MAX_31, flag, setting};
use crate::h2::stats::Stat;

impl Connection {
    pub(super) fn settings<'i>(
        &mut self,
        head: Head,
        payload: &[u8],
    ) -> Result<Step<'i>, ConnectionError> {
        if head.has(flag::ACK) {
            self.acknowledged();
            return Ok(Step::Again);
        }
        if self.phase != Phase::Open {
            self.phase = Phase::Open;
            // What the peer does not limit is not limited.
            self.peer.max_streams = u32::MAX;
        }
        let mut window = self.peer.initial_window;
        let mut table_size = None;
        let (settings, _) = payload.as_chunks::<6>();
        for [i0, i1, v0, v1, v2, v3] in settings {
            let value = u32::from_be_bytes([*v0, *v1, *v2, *v3]);
            match u16::from_be_bytes([*i0, *i1]) {
                setting::HEADER_TABLE_SIZE => {
                    // Of several sizes the smallest is owed to the peer as well (RFC 7541 section 4.2).
                    if table_size.is_some_and(|earlier| earlier < value) {
                        self.encoder.set_peer_size(table_size.unwrap_or(value));
                    }
                    table_size = Some(value);
                }
                setting::ENABLE_PUSH if value > 1 || (value == 1 && self.role == Role::Client) => {
                    return Err(ConnectionError::Settings);
                }
                setting::MAX_CONCURRENT_STREAMS => self.peer.max_streams = value,
                setting::INITIAL_WINDOW_SIZE => {
                    if value > MAX_31 {
                        return Err(ConnectionError::FlowControl);
                    }
                    window = value;
                }
                setting::MAX_FRAME_SIZE => {
                    let allowed = frame::DEFAULT_MAX_FRAME_SIZE..=frame::LARGEST_MAX_FRAME_SIZE;
                    if !allowed.contains(&value) {
                        return Err(ConnectionError::Settings);
                    }
                    self.peer.max_frame_size = value;
                }
                setting::ENABLE_CONNECT_PROTOCOL => {
                    if value > 1 || (value == 0 && self.peer.extended_connect) {
                        return Err(ConnectionError::Settings);
                    }
                    self.peer.extended_connect = value == 1;
                }
                // The largest header list is advice; who exceeds it is told so by the peer.
                _ => {}
            }
        }
        if let Some(size) = table_size {
            self.encoder.set_peer_size(size);
        }
        self.change_windows(window)?;
        frame::settings_ack(&mut self.output.bytes);
        self.output.control_frame();
        Ok(Step::Event(Event::Settings))
    }

    /// The peer goes by our SETTINGS from here on.
    fn acknowledged(&mut self) {
        if self.settings_acked {
            return;
        }
        self.settings_acked = true;
        self.decoder.set_max_size(self.options.hpack_table_size);
        let less = DEFAULT_WINDOW.saturating_sub(self.stream_window());
        if less > 0 {
            for stream in self.streams.iter_mut() {
                stream.recv_window -= less as i32;
            }
        }
    }

    /// Applies a new initial window to all streams: once for a frame, however often the frame says it.
    fn change_windows(&mut self, window: u32) -> Result<(), ConnectionError> {
        let change = i64::from(window) - i64::from(self.peer.initial_window);
        if change == 0 {
            return Ok(());
        }
        self.peer.initial_window = window;
        for stream in self.streams.iter_mut() {
            let changed = i64::from(stream.send_window) + change;
            stream.send_window =
                i32::try_from(changed).map_err(|_| ConnectionError::FlowControl)?;
        }
        if change > 0 {
            self.wake_all();
        }
        Ok(())
    }

    #[cold]
    fn wake_all(&mut self) {
        let waiting: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, found)| found.waiting && found.send_window > 0)
            .map(|(stream, _)| stream)
            .collect();
        for stream in waiting {
            self.streams.enqueue(stream);
        }
    }

    pub(super) fn window_update<'i>(
        &mut self,
        head: Head,
        payload: &[u8],
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        self.guard.window_update(&self.options)?;
        let increment = frame::word(payload).unwrap_or(0) & MAX_31;
        if head.stream == 0 {
            if increment == 0 {
                return Err(ConnectionError::WindowIncrement);
            }
            self.send_window = self
                .send_window
                .checked_add_unsigned(increment)
                .ok_or(ConnectionError::FlowControl)?;
            return Ok(Step::Again);
        }
        let Some(stream) = self.streams.find(head.stream) else {
            return self.stray(head);
        };
        let Some(found) = self.streams.get_mut(stream) else {
            return Ok(Step::Again);
        };
        if increment == 0 {
            return self.fault(stream, StreamFault::Protocol, now);
        }
        let Some(window) = found.send_window.checked_add_unsigned(increment) else {
            return self.fault(stream, StreamFault::FlowControl, now);
        };
        found.send_window = window;
        if found.waiting && window > 0 {
            self.streams.enqueue(stream);
        }
        Ok(Step::Again)
    }

    /// A frame that a stream that has ended may still get, but not one that has not begun.
    fn stray<'i>(&self, head: Head) -> Result<Step<'i>, ConnectionError> {
        if self.is_idle(head.stream) && !self.is_left_out(head.stream) {
            return Err(ConnectionError::UnexpectedFrame);
        }
        Ok(Step::Again)
    }

    pub(super) fn rst_stream<'i>(
        &mut self,
        head: Head,
        payload: &[u8],
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        let code = ErrorCode(frame::word(payload).unwrap_or(0));
        if self.role == Role::Server {
            self.guard.reset(now, &self.options)?;
        }
        let Some(stream) = self.streams.find(head.stream) else {
            return self.stray(head);
        };
        let Some(removed) = self.streams.remove(stream) else {
            return Ok(Step::Again);
        };
        self.counts.bump(Stat::RxReset);
        if code == ErrorCode::REFUSED_STREAM {
            self.counts.bump(Stat::StreamRefusedErrors);
        }
        self.was_reset(stream, &removed, code, ResetBy::Peer, now)
    }

    pub(super) fn priority<'i>(
        &mut self,
        head: Head,
        payload: &[u8],
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        self.guard.priority_frame(&self.options)?;
        let why = if head.length != 5 {
            StreamFault::FrameSize
        } else if frame::word(payload).is_some_and(|on| on & MAX_31 == head.stream) {
            StreamFault::Protocol
        } else {
            return Ok(Step::Again);
        };
        match self.streams.find(head.stream) {
            Some(stream) => self.fault(stream, why, now),
            // There is no stream that could be reset.
            None if why == StreamFault::FrameSize => Err(ConnectionError::FrameSize),
            None => Err(ConnectionError::UnexpectedFrame),
        }
    }

    pub(super) fn pinged<'i>(&mut self, head: Head, payload: &[u8]) -> Step<'i> {
        let Some(payload) = payload.first_chunk::<8>().copied() else {
            return Step::Again;
        };
        if head.has(flag::ACK) {
            return Step::Event(Event::Pong { payload });
        }
        frame::ping(&mut self.output.bytes, payload, true);
        self.output.control_frame();
        Step::Again
    }

    pub(super) fn goaway_received<'i>(&mut self, payload: &[u8]) -> Step<'i> {
        let last = frame::word(payload).unwrap_or(0) & MAX_31;
        let code = payload.get(4..).and_then(frame::word).unwrap_or(0);
        // It may not be raised again (RFC 9113 section 6.8).
        let last = self.peer_last.map_or(last, |earlier| earlier.min(last));
        self.peer_last = Some(last);
        self.refusing = self.role == Role::Client;
        Step::Event(Event::GoAway {
            last,
            code: ErrorCode(code),
        })
    }
}
