//! What the caller sends: heads, data within the windows, trailers, resets and pings.

use super::{Connection, Phase, Role};
use crate::h1::KnownHeader;
use crate::h2::error::{ErrorCode, SendError};
use crate::h2::event::{Event, StreamRef};
use crate::h2::frame::{self, HEADER_LEN, Head, MAX_31, flag, kind};
use crate::h2::hpack::name::Pseudo;
use crate::h2::stream::Asked;

/// Bytes of one stream that are taken at a time, so that no stream keeps others from the connection's window.
const SHARE: usize = 64 * 1024;

/// A header to be sent, its name in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutField<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    /// What [`KnownHeader::from_name`] says of the name.
    pub known: KnownHeader,
    /// No hop may index it.
    pub sensitive: bool,
}

impl<'a> OutField<'a> {
    #[inline]
    pub const fn known(known: KnownHeader, value: &'a [u8]) -> Self {
        Self {
            name: known.name().as_bytes(),
            value,
            known,
            sensitive: false,
        }
    }

    /// A field of any name in lower case.
    #[inline]
    pub fn named(name: &'a [u8], value: &'a [u8]) -> Self {
        Self {
            name,
            value,
            known: KnownHeader::from_name(name),
            sensitive: false,
        }
    }
}

/// The pseudo headers of a request. Of CONNECT, `scheme` and `path` are left empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLine<'a> {
    pub method: &'a [u8],
    pub scheme: &'a [u8],
    pub authority: &'a [u8],
    pub path: &'a [u8],
    /// Extended CONNECT.
    pub protocol: Option<&'a [u8]>,
}

impl Connection {
    /// How many more streams may be opened now (client).
    #[inline]
    pub fn free_streams(&self) -> u32 {
        if self.is_draining() || self.role == Role::Server {
            return 0;
        }
        self.peer
            .max_streams
            .min(self.options.max_concurrent_streams)
            .saturating_sub(self.streams.len())
    }

    /// Whether the peer offers extended CONNECT (client).
    #[inline]
    pub fn peer_allows_extended_connect(&self) -> bool {
        self.peer.extended_connect
    }

    /// Opens a stream and sends the head of a request (client).
    pub fn start_request<'a>(
        &mut self,
        token: u32,
        line: &RequestLine<'_>,
        fields: impl IntoIterator<Item = OutField<'a>>,
        end: bool,
        now: u64,
    ) -> Result<StreamRef, SendError> {
        if self.is_draining() {
            return Err(SendError::Draining);
        }
        if self.role == Role::Server {
            return Err(SendError::OutOfOrder);
        }
        if self.free_streams() == 0 {
            return Err(SendError::TooManyStreams);
        }
        if line.protocol.is_some() && !self.peer.extended_connect {
            return Err(SendError::NoExtendedConnect);
        }
        let id = if self.last_id == 0 {
            1
        } else {
            self.last_id + 2
        };
        if id > MAX_31 {
            return Err(SendError::Exhausted);
        }
        self.last_id = id;
        let mut stream = self.new_stream(id, now as u32);
        stream.token = token;
        stream.head_sent = true;
        stream.asked = match line.method {
            b"HEAD" => Asked::Head,
            b"CONNECT" => Asked::Connect,
            _ => Asked::Other,
        };
        let stream = self.streams.insert(stream);
        self.guard.stream_opened();

        let start = self.begin_block();
        let (encoder, out) = (&mut self.encoder, &mut self.output.bytes);
        encoder.pseudo(out, Pseudo::Method, line.method);
        if let Some(protocol) = line.protocol {
            encoder.pseudo(out, Pseudo::Protocol, protocol);
        }
        if !line.scheme.is_empty() {
            encoder.pseudo(out, Pseudo::Scheme, line.scheme);
        }
        if !line.authority.is_empty() {
            encoder.pseudo(out, Pseudo::Authority, line.authority);
        }
        if !line.path.is_empty() {
            encoder.pseudo(out, Pseudo::Path, line.path);
        }
        for field in fields {
            encoder.header(out, field.known, field.name, field.value, field.sensitive);
        }
        self.end_block(start, id, end);
        if end {
            self.local_ended(stream);
        }
        Ok(stream)
    }

    /// Sends the head of a response (server); below 200 an interim one.
    pub fn send_response<'a>(
        &mut self,
        stream: StreamRef,
        status: u16,
        fields: impl IntoIterator<Item = OutField<'a>>,
        end: bool,
    ) -> Result<(), SendError> {
        let found = self.streams.get_mut(stream).ok_or(SendError::Closed)?;
        if !found.state.can_send() {
            return Err(SendError::Closed);
        }
        let interim = status < 200;
        if found.head_sent || self.role == Role::Client || (interim && end) {
            return Err(SendError::OutOfOrder);
        }
        if !interim {
            found.head_sent = true;
        }
        let start = self.begin_block();
        let (encoder, out) = (&mut self.encoder, &mut self.output.bytes);
        encoder.status(out, status);
        for field in fields {
            encoder.header(out, field.known, field.name, field.value, field.sensitive);
        }
        self.end_block(start, stream.id, end);
        if end {
            self.local_ended(stream);
        }
        Ok(())
    }

    /// Sends trailers, which end our side of the stream. All data must have been accepted before.
    pub fn send_trailers<'a>(
        &mut self,
        stream: StreamRef,
        fields: impl IntoIterator<Item = OutField<'a>>,
    ) -> Result<(), SendError> {
        let found = self.streams.get_mut(stream).ok_or(SendError::Closed)?;
        if !found.state.can_send() {
            return Err(SendError::Closed);
        }
        if !found.head_sent {
            return Err(SendError::OutOfOrder);
        }
        let start = self.begin_block();
        let (encoder, out) = (&mut self.encoder, &mut self.output.bytes);
        for field in fields {
            encoder.header(out, field.known, field.name, field.value, field.sensitive);
        }
        self.end_block(start, stream.id, true);
        self.local_ended(stream);
        Ok(())
    }

    /// Room for a frame's header; the block follows it.
    #[inline]
    fn begin_block(&mut self) -> usize {
        let start = self.output.bytes.len();
        self.output.bytes.extend_from_slice(&[0; HEADER_LEN]);
        self.encoder.begin(&mut self.output.bytes);
        start
    }

    #[inline]
    fn end_block(&mut self, start: usize, id: u32, end: bool) {
        let length = self.output.bytes.len() - start - HEADER_LEN;
        if length > self.peer.max_frame_size as usize {
            self.split_block(start, id, end);
            return;
        }
        let flags = flag::END_HEADERS | if end { flag::END_STREAM } else { 0 };
        let head = Head {
            length: length as u32,
            kind: kind::HEADERS,
            flags,
            stream: id,
        };
        if let Some(place) = self.output.bytes.get_mut(start..start + HEADER_LEN) {
            place.copy_from_slice(&head.bytes());
        }
        self.output.frame();
    }

    /// A block too large for one frame goes on in CONTINUATION.
    #[cold]
    fn split_block(&mut self, start: usize, id: u32, end: bool) {
        let block = self.output.bytes.split_off(start + HEADER_LEN);
        self.output.bytes.truncate(start);
        let count = block.len().div_ceil(self.peer.max_frame_size as usize);
        let pieces = block.chunks(self.peer.max_frame_size as usize);
        for (piece, number) in pieces.zip(1..) {
            let (kind, mut flags) = if number == 1 {
                (kind::HEADERS, if end { flag::END_STREAM } else { 0 })
            } else {
                (kind::CONTINUATION, 0)
            };
            if number == count {
                flags |= flag::END_HEADERS;
            }
            frame::head(&mut self.output.bytes, piece.len(), kind, flags, id);
            self.output.bytes.extend_from_slice(piece);
            self.output.frame();
        }
    }

    /// We have sent END_STREAM.
    #[inline]
    fn local_ended(&mut self, stream: StreamRef) {
        let Some(found) = self.streams.get_mut(stream) else {
            return;
        };
        found.waiting = false;
        match found.state.local_ended() {
            Some(state) => found.state = state,
            None => self.forget(stream),
        }
    }

    /// Sends as much of `bytes` as the windows and the output have room for; how much that was. If it was all, `end`
    /// ends our side of the stream. If not, [`Event::Writable`] will say when to go on with the rest.
    pub fn send_data(
        &mut self,
        stream: StreamRef,
        bytes: &[u8],
        end: bool,
    ) -> Result<usize, SendError> {
        let room = self.room();
        let found = self.streams.get_mut(stream).ok_or(SendError::Closed)?;
        if !found.state.can_send() {
            return Err(SendError::Closed);
        }
        if !found.head_sent {
            return Err(SendError::OutOfOrder);
        }
        let window = found.send_window.min(self.send_window).max(0) as usize;
        let count = bytes.len().min(window).min(room).min(SHARE);
        found.send_window -= count as i32;
        self.send_window -= count as i32;
        let whole = count == bytes.len();
        found.waiting = !whole;
        if !whole && found.send_window > 0 {
            self.streams.enqueue(stream);
        }
        let end = end && whole;
        if count == 0 && !end {
            return Ok(0);
        }
        let mut rest = bytes.get(..count).unwrap_or_default();
        loop {
            let (piece, later) = rest.split_at(rest.len().min(self.peer.max_frame_size as usize));
            let last = end && later.is_empty();
            let joined =
                self.output
                    .data(stream.id, piece, last, self.peer.max_frame_size as usize);
            if !joined {
                self.guard.data_frame_sent();
            }
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        if end {
            self.local_ended(stream);
        }
        Ok(count)
    }

    /// Bytes of DATA that the output takes. Many small frames fill it too, long before they are a flood.
    #[inline]
    fn room(&self) -> usize {
        if self.output.frames() >= self.options.max_outbound_frames / 2 {
            return 0;
        }
        (self.options.max_pending_output as usize).saturating_sub(self.output.len())
    }

    /// The next stream that waits and may send, in turn.
    pub(super) fn next_writable<'i>(&mut self) -> Option<Event<'i>> {
        if self.send_window <= 0 || self.room() == 0 {
            return None;
        }
        while let Some(stream) = self.streams.dequeue() {
            if let Some(found) = self.streams.get_mut(stream)
                && found.waiting
                && found.send_window > 0
            {
                found.waiting = false;
                let token = found.token;
                return Some(Event::Writable { stream, token });
            }
        }
        None
    }

    /// Ends a stream at once, both ways. Nothing more is heard of it.
    pub fn reset(&mut self, stream: StreamRef, code: ErrorCode) {
        if let Some(removed) = self.streams.remove(stream) {
            self.guard.stream_closed();
            self.send_reset(stream.id, code, removed.state.can_receive());
            self.output.frame();
        }
    }

    /// Sends a PING; [`Event::Pong`] will bring the payload back.
    pub fn ping(&mut self, payload: [u8; 8]) {
        if self.phase != Phase::Ended {
            frame::ping(&mut self.output.bytes, payload, false);
            self.output.frame();
        }
    }
}
