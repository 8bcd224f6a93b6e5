//! Header blocks: HEADERS and CONTINUATION assembled, decoded and given their meaning.
//!
//! A block that comes in one piece is decoded where it lies. One that goes on is collected up to the size that a head may
//! have; beyond that its fields are decoded and dropped piece by piece, for the table's sake.

use super::{Connection, Goodbye, Role, Step};
use crate::h1::Method;
use crate::h2::error::{ConnectionError, ErrorCode, Malformed, StreamFault};
use crate::h2::event::{Event, StreamRef};
use crate::h2::frame::{self, Head, flag};
use crate::h2::hpack::decoder::DecodeError;
use crate::h2::scratch::Scratch;
use crate::h2::stats::Stat;
use crate::h2::stream::Asked;
use crate::h2::validate::{Fault, Kind};

/// A block that has begun.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    end_stream: bool,
    /// HEADERS depended on its own stream.
    depends_on_itself: bool,
    /// Beyond what is kept: fields are dropped as they come.
    dropping: bool,
    /// Nothing of it has been decoded.
    untouched: bool,
    frames: u32,
    bytes: Vec<u8>,
}

/// What a block is for.
enum Target {
    Request,
    Message(StreamRef, Kind),
    /// A stream that has ended for the peer.
    Ended(StreamRef),
    /// A stream that we have reset, or left out by GOAWAY.
    Nobody,
}

impl From<DecodeError> for ConnectionError {
    fn from(_: DecodeError) -> Self {
        Self::Compression
    }
}

impl From<Fault> for StreamFault {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed(why) => Self::Malformed(why),
            Fault::Overflow(why) => Self::Overflow(why),
        }
    }
}

impl Connection {
    #[inline]
    pub(super) fn headers<'i>(
        &mut self,
        head: Head,
        payload: &[u8],
        scratch: &mut Scratch,
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        let mut fragment = payload;
        if head.has(flag::PADDED) {
            let (padding, rest) = fragment.split_first().ok_or(ConnectionError::FrameSize)?;
            let length = rest
                .len()
                .checked_sub(usize::from(*padding))
                .ok_or(ConnectionError::Padding)?;
            fragment = rest.get(..length).unwrap_or_default();
        }
        let mut depends_on_itself = false;
        if head.has(flag::PRIORITY) {
            let on = frame::word(fragment).ok_or(ConnectionError::FrameSize)?;
            depends_on_itself = on & frame::MAX_31 == head.stream;
            fragment = fragment.get(5..).ok_or(ConnectionError::FrameSize)?;
        }
        let end_stream = head.has(flag::END_STREAM);
        self.guard
            .payload_frame(fragment.is_empty() && !end_stream, &self.options)?;
        if head.has(flag::END_HEADERS) {
            let target = self.target(head.stream)?;
            scratch.begin(Self::kind(&target), &self.options);
            self.decoder.decode(fragment, true, true, scratch)?;
            return self.decoded(
                target,
                head.stream,
                end_stream,
                depends_on_itself,
                scratch,
                now,
            );
        }
        self.block = Some(Box::new(Block {
            stream: head.stream,
            end_stream,
            depends_on_itself,
            dropping: false,
            untouched: true,
            frames: 0,
            bytes: fragment.to_vec(),
        }));
        Ok(Step::Again)
    }

    #[cold]
    pub(super) fn continuation<'i>(
        &mut self,
        head: Head,
        fragment: &[u8],
        scratch: &mut Scratch,
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        let end = head.has(flag::END_HEADERS);
        self.guard
            .payload_frame(fragment.is_empty(), &self.options)?;
        let Some(mut block) = self.block.take() else {
            return Err(ConnectionError::UnexpectedFrame);
        };
        block.frames += 1;
        if block.frames > self.options.max_continuation_frames {
            return Err(ConnectionError::TooManyHeaderFrames);
        }
        block.bytes.extend_from_slice(fragment);
        if !end {
            let kept = self.options.max_headers_kb as usize * 1024;
            block.dropping |= block.bytes.len() > kept;
            if block.dropping {
                scratch.begin(Kind::Discarded, &self.options);
                let first = std::mem::replace(&mut block.untouched, false);
                let used = self.decoder.decode(&block.bytes, first, false, scratch)?;
                block.bytes.drain(..used);
            }
            self.block = Some(block);
            return Ok(Step::Again);
        }
        let target = self.target(block.stream)?;
        scratch.begin(Self::kind(&target), &self.options);
        if block.dropping {
            scratch.overflow();
        }
        self.decoder
            .decode(&block.bytes, block.untouched, true, scratch)?;
        self.decoded(
            target,
            block.stream,
            block.end_stream,
            block.depends_on_itself,
            scratch,
            now,
        )
    }

    #[inline]
    fn kind(target: &Target) -> Kind {
        match target {
            Target::Request => Kind::Request,
            Target::Message(_, kind) => *kind,
            Target::Ended(_) | Target::Nobody => Kind::Discarded,
        }
    }

    #[inline]
    fn target(&mut self, id: u32) -> Result<Target, ConnectionError> {
        if id > self.last_id && self.role == Role::Server {
            // A server takes a new stream whatever its number, if it is higher than any before.
            if let Goodbye::Final(last) = self.goodbye
                && id > last
            {
                return Ok(Target::Nobody);
            }
            self.head_in_hand = id;
            return Ok(Target::Request);
        }
        if let Some(stream) = self.streams.find(id)
            && let Some(found) = self.streams.get(stream)
        {
            let kind = if self.role == Role::Client && !found.head_received {
                Kind::Response
            } else {
                Kind::Trailers
            };
            return Ok(if found.state.can_receive() {
                Target::Message(stream, kind)
            } else {
                Target::Ended(stream)
            });
        }
        if self.is_idle(id) {
            return Err(ConnectionError::StreamId);
        }
        self.counts.bump(Stat::HeadersCbNoStream);
        if self.resets.contains(&id) {
            return Ok(Target::Nobody);
        }
        Err(ConnectionError::StreamClosed)
    }

    #[inline]
    fn decoded<'i>(
        &mut self,
        target: Target,
        id: u32,
        end: bool,
        depends_on_itself: bool,
        scratch: &mut Scratch,
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        if scratch.dropped() > 0 {
            self.counts
                .add(Stat::DroppedHeadersWithUnderscores, scratch.dropped());
        }
        match target {
            Target::Request => self.request(id, end, depends_on_itself, scratch, now),
            Target::Message(stream, _) if depends_on_itself => {
                self.fault(stream, StreamFault::Protocol, now)
            }
            Target::Message(stream, Kind::Response) => self.response(stream, end, scratch, now),
            Target::Message(stream, _) => self.trailers(stream, end, scratch, now),
            Target::Ended(stream) => self.fault(stream, StreamFault::Closed, now),
            Target::Nobody => Ok(Step::Again),
        }
    }

    #[inline]
    fn request<'i>(
        &mut self,
        id: u32,
        end: bool,
        depends_on_itself: bool,
        scratch: &mut Scratch,
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        self.last_id = id;
        if depends_on_itself {
            return self.refuse(id, StreamFault::Protocol, end, now);
        }
        let verdict = scratch.finish();
        let declared = match verdict {
            Ok(_) if scratch.request.method == Method::Connect => None,
            Ok(_) => scratch.content_length(),
            Err(Fault::Malformed(why)) => {
                return self.refuse(id, StreamFault::Malformed(why), end, now);
            }
            Err(Fault::Overflow(_)) => None,
        };
        if end && declared.is_some_and(|length| length > 0) {
            let why = StreamFault::Malformed(Malformed::BodyLength);
            return self.refuse(id, why, end, now);
        }
        if self.streams.len() >= self.options.max_concurrent_streams {
            self.head_in_hand = 0;
            self.guard.reset(now, &self.options)?;
            self.send_reset(id, ErrorCode::REFUSED_STREAM, !end);
            self.output.control_frame();
            return Ok(Step::Again);
        }
        self.guard.stream_opened();
        let mut stream = self.new_stream(id, now);
        stream.head_received = true;
        if let Some(length) = declared {
            stream.to_come = length;
        }
        let stream = self.streams.insert(stream);
        self.head_in_hand = 0;
        if end {
            self.remote_ended(stream);
        }
        Ok(Step::Event(match verdict {
            Err(Fault::Overflow(overflow)) => {
                self.counts.bump(Stat::HeaderOverflow);
                self.guard.request_reset(now, now, &self.options)?;
                Event::TooLarge {
                    stream,
                    end,
                    overflow,
                }
            }
            _ => Event::Request { stream, end },
        }))
    }

    /// A request that never becomes a stream.
    #[cold]
    fn refuse<'i>(
        &mut self,
        id: u32,
        why: StreamFault,
        end: bool,
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        self.judge_fault(why, now)?;
        self.head_in_hand = 0;
        self.guard.stream_closed();
        self.send_reset(id, why.code(), !end);
        self.output.control_frame();
        Ok(Step::Event(Event::Refused { why }))
    }

    #[inline]
    fn response<'i>(
        &mut self,
        stream: StreamRef,
        end: bool,
        scratch: &mut Scratch,
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        let status = match scratch.finish() {
            Ok(status) => status,
            Err(fault) => return self.fault(stream, fault.into(), now),
        };
        let Some(found) = self.streams.get_mut(stream) else {
            return Ok(Step::Again);
        };
        let token = found.token;
        if status < 200 {
            if end {
                return self.fault(stream, StreamFault::Malformed(Malformed::Interim), now);
            }
        } else {
            found.head_received = true;
            let tunnel = found.asked == Asked::Connect && status < 300;
            if found.asked == Asked::Head || matches!(status, 204 | 304) {
                found.to_come = 0;
            } else if !tunnel && let Some(length) = scratch.content_length() {
                found.to_come = length;
            }
            if end && !found.is_body_complete() {
                let why = StreamFault::Malformed(Malformed::BodyLength);
                return self.fault(stream, why, now);
            }
            if end {
                self.remote_ended(stream);
            }
        }
        Ok(Step::Event(Event::Response {
            stream,
            token,
            status,
            end,
        }))
    }

    fn trailers<'i>(
        &mut self,
        stream: StreamRef,
        end: bool,
        scratch: &mut Scratch,
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        self.counts.bump(Stat::Trailers);
        if !end {
            return self.fault(stream, StreamFault::Malformed(Malformed::Trailers), now);
        }
        if let Err(fault) = scratch.finish() {
            return self.fault(stream, fault.into(), now);
        }
        let Some(found) = self.streams.get(stream) else {
            return Ok(Step::Again);
        };
        if !found.is_body_complete() {
            return self.fault(stream, StreamFault::Malformed(Malformed::BodyLength), now);
        }
        let token = found.token;
        self.remote_ended(stream);
        Ok(Step::Event(Event::Trailers { stream, token }))
    }
}
