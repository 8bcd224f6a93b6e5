//! DATA and the windows it is received into.

use super::receive::Reading;
use super::{Connection, Role, Step};
use crate::h2::error::{ConnectionError, ErrorCode, Malformed, StreamFault};
use crate::h2::event::{Event, StreamRef};
use crate::h2::frame::{self, Head, flag};
use crate::h2::input::Input;
use crate::h2::stream::UNKNOWN_LENGTH;

impl Connection {
    #[inline]
    pub(super) fn data_frame<'i>(
        &mut self,
        head: Head,
        input: &mut Input<'i>,
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        if head.stream == 0 {
            return Err(ConnectionError::StreamId);
        }
        if head.has(flag::PADDED) {
            if head.length == 0 {
                return Err(ConnectionError::FrameSize);
            }
            return self.pad_length(head, input, now);
        }
        self.accept_data(head, head.length, 0, input, now)
    }

    pub(super) fn pad_length<'i>(
        &mut self,
        head: Head,
        input: &mut Input<'i>,
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        let Some([padding]) = input.take_chunk::<1>() else {
            self.reading = Reading::PadLength(head);
            return Ok(Step::Dry);
        };
        let Some(length) = (head.length - 1).checked_sub(u32::from(padding)) else {
            return Err(ConnectionError::Padding);
        };
        self.accept_data(head, length, padding, input, now)
    }

    /// `length`: of the payload without padding.
    #[inline]
    fn accept_data<'i>(
        &mut self,
        head: Head,
        length: u32,
        padding: u8,
        input: &mut Input<'i>,
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        let end = head.has(flag::END_STREAM);
        self.guard
            .payload_frame(length == 0 && !end, &self.options)?;
        // Padding counts too (RFC 9113 section 6.9.1), and so does what nobody wants.
        self.recv_window = self
            .recv_window
            .checked_sub_unsigned(head.length)
            .filter(|window| *window >= 0)
            .ok_or(ConnectionError::FlowControl)?;
        let Some(stream) = self.streams.find(head.stream) else {
            self.stray_data(head, now)?;
            self.release_connection(head.length);
            return Ok(self.skip(length + u32::from(padding), input));
        };
        match self.check_data(stream, head.length, length, end) {
            Ok(()) => {}
            Err(why) => {
                self.release_connection(head.length);
                self.reading = Reading::Skip {
                    left: length + u32::from(padding),
                };
                return self.fault(stream, why, now);
            }
        }
        let overhead = head.length - length;
        if overhead > 0 {
            self.release(stream, overhead as usize);
        }
        Ok(self.data(stream, length, padding, end, input))
    }

    #[inline]
    fn check_data(
        &mut self,
        stream: StreamRef,
        whole: u32,
        length: u32,
        end: bool,
    ) -> Result<(), StreamFault> {
        let Some(found) = self.streams.get_mut(stream) else {
            return Err(StreamFault::Closed);
        };
        if !found.state.can_receive() {
            return Err(StreamFault::Closed);
        }
        found.recv_window = found
            .recv_window
            .checked_sub_unsigned(whole)
            .filter(|window| *window >= 0)
            .ok_or(StreamFault::FlowControl)?;
        if self.role == Role::Client && !found.head_received {
            return Err(StreamFault::Malformed(Malformed::DataBeforeHead));
        }
        if found.to_come != UNKNOWN_LENGTH {
            found.to_come = found
                .to_come
                .checked_sub(u64::from(length))
                .filter(|left| !end || *left == 0)
                .ok_or(StreamFault::Malformed(Malformed::BodyLength))?;
        }
        Ok(())
    }

    /// DATA on a stream that is not there.
    #[cold]
    fn stray_data(&mut self, head: Head, now: u32) -> Result<(), ConnectionError> {
        if self.is_left_out(head.stream) {
            return Ok(());
        }
        if self.is_idle(head.stream) {
            return Err(ConnectionError::UnexpectedFrame);
        }
        if self.resets.contains(&head.stream) {
            return Ok(());
        }
        if self.role == Role::Server {
            self.guard.reset(now, &self.options)?;
        }
        self.send_reset(head.stream, ErrorCode::STREAM_CLOSED, true);
        self.output.control_frame();
        Ok(())
    }

    /// Hands out what is there of a payload.
    #[inline]
    pub(super) fn data<'i>(
        &mut self,
        stream: StreamRef,
        left: u32,
        padding: u8,
        end: bool,
        input: &mut Input<'i>,
    ) -> Step<'i> {
        let Some(found) = self.streams.get(stream) else {
            // Reset by the caller meanwhile.
            self.release_connection(left);
            return self.skip(left + u32::from(padding), input);
        };
        let token = found.token;
        let bytes = input.take(left as usize);
        let left = left - bytes.len() as u32;
        if left > 0 {
            self.reading = Reading::Data {
                stream,
                left,
                padding,
                end,
            };
            if bytes.is_empty() {
                return Step::Dry;
            }
        } else {
            self.reading = if padding > 0 {
                Reading::Skip {
                    left: u32::from(padding),
                }
            } else {
                Reading::default()
            };
            if end {
                self.remote_ended(stream);
            } else if bytes.is_empty() {
                return Step::Again;
            }
        }
        Step::Event(Event::Data {
            stream,
            token,
            bytes,
            end: end && left == 0,
        })
    }

    /// The caller is done with `count` bytes of [`Event::Data`]: the peer may send as many more. Also to be called for
    /// streams that have ended, whose bytes count for the connection still.
    #[inline]
    pub fn release(&mut self, stream: StreamRef, count: usize) {
        let count = count as u32;
        self.release_connection(count);
        let threshold = (self.stream_window() / 2).max(1);
        let Some(found) = self.streams.get_mut(stream) else {
            return;
        };
        if !found.state.can_receive() {
            return;
        }
        found.released = found.released.saturating_add(count);
        if found.released >= threshold {
            let increment = std::mem::take(&mut found.released);
            found.recv_window = found.recv_window.saturating_add_unsigned(increment);
            frame::window_update(&mut self.output.bytes, stream.id, increment);
            self.output.frame();
        }
    }

    #[inline]
    fn release_connection(&mut self, count: u32) {
        self.released = self.released.saturating_add(count);
        let window = self.options.initial_connection_window_size;
        if self.released >= window.max(frame::DEFAULT_WINDOW) / 2 {
            let increment = std::mem::take(&mut self.released);
            self.recv_window = self.recv_window.saturating_add_unsigned(increment);
            frame::window_update(&mut self.output.bytes, 0, increment);
            self.output.frame();
        }
    }
}
