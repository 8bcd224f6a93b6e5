//! Input to frames: headers of frames, payloads in pieces, and who looks at them.

use super::{Connection, Phase, Role, Step};
use crate::h2::error::ConnectionError;
use crate::h2::event::StreamRef;
use crate::h2::frame::{self, DEFAULT_MAX_FRAME_SIZE, HEADER_LEN, Head, flag, kind};
use crate::h2::input::Input;
use crate::h2::scratch::Scratch;

/// Where in a frame the input stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reading {
    /// Before or within a frame's header, of which so many bytes are there.
    Head { bytes: [u8; HEADER_LEN], have: u8 },
    /// Within a payload that is looked at as a whole.
    Payload(Head),
    /// Before the length of the padding of DATA.
    PadLength(Head),
    /// Within the payload of DATA.
    Data {
        stream: StreamRef,
        left: u32,
        padding: u8,
        end: bool,
    },
    /// Within bytes that nobody wants.
    Skip { left: u32 },
}

impl Default for Reading {
    fn default() -> Self {
        Self::Head {
            bytes: [0; HEADER_LEN],
            have: 0,
        }
    }
}

impl Connection {
    #[inline]
    pub(super) fn read<'i>(
        &mut self,
        input: &mut Input<'i>,
        scratch: &mut Scratch,
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        match self.reading {
            Reading::Head { have: 0, .. } => {
                if let Phase::Preface(have) = self.phase {
                    return self.preface(have, input);
                }
                let Some(bytes) = input.take_chunk::<HEADER_LEN>() else {
                    return Ok(self.part_of_head(input));
                };
                self.frame(Head::parse(bytes), input, scratch, now)
            }
            Reading::Head { bytes, have } => {
                self.rest_of_head(bytes, usize::from(have), input, scratch, now)
            }
            Reading::Payload(head) => self.payload(head, input, scratch, now),
            Reading::PadLength(head) => self.pad_length(head, input, now),
            Reading::Data {
                stream,
                left,
                padding,
                end,
            } => Ok(self.data(stream, left, padding, end, input)),
            Reading::Skip { left } => Ok(self.skip(left, input)),
        }
    }

    #[cold]
    fn preface<'i>(
        &mut self,
        have: u8,
        input: &mut Input<'i>,
    ) -> Result<Step<'i>, ConnectionError> {
        let wanted = frame::PREFACE.get(usize::from(have)..).unwrap_or_default();
        let got = input.take(wanted.len());
        if !wanted.starts_with(got) {
            return Err(ConnectionError::Preface);
        }
        let have = have + got.len() as u8;
        if usize::from(have) == frame::PREFACE.len() {
            self.phase = Phase::Settings;
            return Ok(Step::Again);
        }
        self.phase = Phase::Preface(have);
        Ok(Step::Dry)
    }

    #[cold]
    fn part_of_head<'i>(&mut self, input: &mut Input<'i>) -> Step<'i> {
        let mut bytes = [0; HEADER_LEN];
        let part = input.take(HEADER_LEN);
        if let Some(space) = bytes.get_mut(..part.len()) {
            space.copy_from_slice(part);
        }
        self.reading = Reading::Head {
            bytes,
            have: part.len() as u8,
        };
        Step::Dry
    }

    #[cold]
    fn rest_of_head<'i>(
        &mut self,
        mut bytes: [u8; HEADER_LEN],
        have: usize,
        input: &mut Input<'i>,
        scratch: &mut Scratch,
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        let part = input.take(HEADER_LEN - have);
        let have_now = have + part.len();
        if let Some(space) = bytes.get_mut(have..have_now) {
            space.copy_from_slice(part);
        }
        if have_now < HEADER_LEN {
            self.reading = Reading::Head {
                bytes,
                have: have_now as u8,
            };
            return Ok(Step::Dry);
        }
        self.reading = Reading::default();
        self.frame(Head::parse(bytes), input, scratch, now)
    }

    /// Looks at a frame's header, and at its payload as far as it is there.
    #[inline]
    fn frame<'i>(
        &mut self,
        head: Head,
        input: &mut Input<'i>,
        scratch: &mut Scratch,
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        if head.length > DEFAULT_MAX_FRAME_SIZE {
            return Err(ConnectionError::FrameSize);
        }
        if let Some(block) = &self.block {
            if head.kind != kind::CONTINUATION || head.stream != block.stream {
                return Err(ConnectionError::Continuation);
            }
        } else if self.phase != Phase::Open && (head.kind != kind::SETTINGS || head.has(flag::ACK))
        {
            return Err(ConnectionError::FirstFrame);
        }
        match head.kind {
            kind::DATA => self.data_frame(head, input, now),
            kind::HEADERS => {
                if head.stream == 0 || (self.role == Role::Server && head.stream & 1 == 0) {
                    return Err(ConnectionError::StreamId);
                }
                self.payload(head, input, scratch, now)
            }
            kind::CONTINUATION if self.block.is_none() => Err(ConnectionError::UnexpectedFrame),
            kind::PUSH_PROMISE => Err(ConnectionError::PushPromise),
            kind::PRIORITY
            | kind::RST_STREAM
            | kind::SETTINGS
            | kind::PING
            | kind::GOAWAY
            | kind::WINDOW_UPDATE => {
                self.check_control(head)?;
                self.payload(head, input, scratch, now)
            }
            kind::CONTINUATION => self.payload(head, input, scratch, now),
            _ => Ok(self.skip(head.length, input)),
        }
    }

    /// Sizes and stream identifiers that are wrong whatever the payload is.
    fn check_control(&self, head: Head) -> Result<(), ConnectionError> {
        let of_connection = matches!(head.kind, kind::SETTINGS | kind::PING | kind::GOAWAY);
        let of_stream = matches!(head.kind, kind::PRIORITY | kind::RST_STREAM);
        if (of_connection && head.stream != 0) || (of_stream && head.stream == 0) {
            return Err(ConnectionError::StreamId);
        }
        let fits = match head.kind {
            kind::SETTINGS if head.has(flag::ACK) => head.length == 0,
            kind::SETTINGS => head.length.is_multiple_of(6),
            kind::PING => head.length == 8,
            kind::GOAWAY => head.length >= 8,
            kind::RST_STREAM | kind::WINDOW_UPDATE => head.length == 4,
            // Of PRIORITY it is an error of the stream.
            _ => true,
        };
        if fits {
            Ok(())
        } else {
            Err(ConnectionError::FrameSize)
        }
    }

    /// Looks at a payload once it is there as a whole, which it mostly is.
    #[inline]
    fn payload<'i>(
        &mut self,
        head: Head,
        input: &mut Input<'i>,
        scratch: &mut Scratch,
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        if self.partial.is_empty()
            && let Some(payload) = input.take_whole(head.length as usize)
        {
            self.reading = Reading::default();
            return self.whole(head, payload, scratch, now);
        }
        self.part_of_payload(head, input, scratch, now)
    }

    #[cold]
    fn part_of_payload<'i>(
        &mut self,
        head: Head,
        input: &mut Input<'i>,
        scratch: &mut Scratch,
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        let missing = head.length as usize - self.partial.len();
        let part = input.take(missing);
        // Memory for what has come, not for what was promised.
        self.partial.extend_from_slice(part);
        if part.len() < missing {
            self.reading = Reading::Payload(head);
            return Ok(Step::Dry);
        }
        let payload = std::mem::take(&mut self.partial);
        self.reading = Reading::default();
        self.whole(head, &payload, scratch, now)
    }

    #[inline]
    fn whole<'i>(
        &mut self,
        head: Head,
        payload: &[u8],
        scratch: &mut Scratch,
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        match head.kind {
            kind::HEADERS => self.headers(head, payload, scratch, now),
            kind::CONTINUATION => self.continuation(head, payload, scratch, now),
            kind::WINDOW_UPDATE => self.window_update(head, payload, now),
            kind::RST_STREAM => self.rst_stream(head, payload, now),
            kind::PRIORITY => self.priority(head, payload, now),
            kind::SETTINGS => self.settings(head, payload),
            kind::PING => Ok(self.pinged(head, payload)),
            kind::GOAWAY => Ok(self.goaway_received(payload)),
            _ => Ok(Step::Again),
        }
    }

    #[inline]
    pub(super) fn skip<'i>(&mut self, left: u32, input: &mut Input<'i>) -> Step<'i> {
        let left = left - input.take(left as usize).len() as u32;
        if left > 0 {
            self.reading = Reading::Skip { left };
            return Step::Dry;
        }
        self.reading = Reading::default();
        Step::Again
    }
}
