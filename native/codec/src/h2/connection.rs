//! One connection: what it remembers, and how the next event is found.
//!
//! Knows nothing of sockets, of time beyond the numbers it is given, or of what becomes of a message. The work on frames
//! is in the modules below, one concern each.

mod block;
mod control;
mod data;
mod drain;
mod receive;
mod send;

pub use send::{OutField, RequestLine};

use std::collections::VecDeque;
use std::sync::Arc;

use super::error::{ConnectionError, ErrorCode, Malformed, StreamFault};
use super::event::{Event, ResetBy, StreamRef};
use super::frame::{self, DEFAULT_WINDOW, MAX_31, setting};
use super::guard::Guard;
use super::hpack::decoder::Decoder;
use super::hpack::encoder::Encoder;
use super::input::Input;
use super::options::Options;
use super::output::Output;
use super::scratch::Scratch;
use super::stats::{Counts, Stat};
use super::store::Store;
use super::stream::Stream;
use block::Block;
use receive::Reading;

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Server,
    Client,
}

/// How far the connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Server: so many bytes of the client's preface have come.
    Preface(u8),
    /// The first frame must be SETTINGS.
    Settings,
    Open,
    /// After an error, of which GOAWAY tells.
    Ended,
}

/// What the peer's SETTINGS say.
#[derive(Debug, Clone, Copy)]
struct Peer {
    initial_window: u32,
    max_frame_size: u32,
    max_streams: u32,
    extended_connect: bool,
}

/// How much the other side of a connection is told of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goodbye {
    None,
    /// GOAWAY with the largest identifier: no more streams, please.
    Announced,
    /// GOAWAY with the last identifier that is served.
    Final(u32),
}

/// Streams assumed to be allowed until the peer's SETTINGS come.
const MAX_STREAMS_AT_FIRST: u32 = 100;
/// Streams we have reset that are remembered, for frames of theirs may be under way.
const MAX_RESETS: usize = 1024;

/// An HTTP/2 connection without its socket.
#[derive(Debug)]
pub struct Connection {
    options: Arc<Options>,
    role: Role,
    phase: Phase,
    reading: Reading,
    /// The part of a frame's payload that has come; empty and without memory between frames.
    partial: Vec<u8>,
    /// A header block that CONTINUATION frames go on with.
    block: Option<Box<Block>>,
    decoder: Decoder,
    encoder: Encoder,
    streams: Store,
    output: Output,
    guard: Guard,
    counts: Counts,
    peer: Peer,
    /// Our SETTINGS are in force at the peer.
    settings_acked: bool,
    /// The highest identifier the peer has used (server) or we have used (client).
    last_id: u32,
    send_window: i32,
    recv_window: i32,
    /// Given back by the caller but not yet announced.
    released: u32,
    goodbye: Goodbye,
    /// GOAWAY came: the last stream that the peer serves.
    peer_last: Option<u32>,
    /// Streams that GOAWAY left out have yet to be reported.
    refusing: bool,
    resets: VecDeque<u32>,
    /// The new request whose head is being judged; 0: none.
    head_in_hand: u32,
}

impl Connection {
    /// A new connection; its preface and SETTINGS are in the output.
    pub fn new(role: Role, options: Arc<Options>) -> Self {
        let mut connection = Self {
            role,
            phase: match role {
                Role::Server => Phase::Preface(0),
                Role::Client => Phase::Settings,
            },
            reading: Reading::default(),
            partial: Vec::new(),
            block: None,
            decoder: Decoder::new(options.max_header_field_size_kb.saturating_mul(1024)),
            encoder: Encoder::new(options.hpack_table_size),
            streams: Store::new(),
            output: Output::default(),
            guard: Guard::default(),
            counts: Counts::default(),
            peer: Peer {
                initial_window: DEFAULT_WINDOW,
                max_frame_size: frame::DEFAULT_MAX_FRAME_SIZE,
                max_streams: MAX_STREAMS_AT_FIRST,
                extended_connect: false,
            },
            settings_acked: false,
            last_id: 0,
            send_window: DEFAULT_WINDOW as i32,
            recv_window: options
                .initial_connection_window_size
                .clamp(DEFAULT_WINDOW, MAX_31) as i32,
            released: 0,
            goodbye: Goodbye::None,
            peer_last: None,
            refusing: false,
            resets: VecDeque::new(),
            head_in_hand: 0,
            options,
        };
        connection.introduce();
        connection
    }

    fn introduce(&mut self) {
        let options = &self.options;
        let stream_window = self.stream_window();
        let out = &mut self.output.bytes;
        let mut settings = [(0, 0); 4];
        let mut count = 0;
        let mut say = |id, value| {
            if let Some(slot) = settings.get_mut(count) {
                *slot = (id, value);
                count += 1;
            }
        };
        if options.hpack_table_size != super::hpack::DEFAULT_TABLE_SIZE {
            say(setting::HEADER_TABLE_SIZE, options.hpack_table_size);
        }
        if self.role == Role::Client {
            out.extend_from_slice(frame::PREFACE);
            say(setting::ENABLE_PUSH, 0);
        } else {
            say(
                setting::MAX_CONCURRENT_STREAMS,
                options.max_concurrent_streams,
            );
        }
        say(setting::INITIAL_WINDOW_SIZE, stream_window);
        if self.role == Role::Server && options.allow_connect {
            say(setting::ENABLE_CONNECT_PROTOCOL, 1);
        }
        frame::settings(out, settings.get(..count).unwrap_or_default());
        let more = self.recv_window as u32 - DEFAULT_WINDOW;
        if more > 0 {
            frame::window_update(out, 0, more);
        }
        self.output.frame();
    }

    #[inline]
    fn stream_window(&self) -> u32 {
        self.options.initial_stream_window_size.min(MAX_31)
    }

    /// What the peer did next. `None`: nothing more until there is more input, or until output was written.
    ///
    /// To be called until it gives `None`, each time bytes were read or [`Connection::written`] made room. `now` is a
    /// monotonic time in milliseconds.
    #[inline]
    pub fn next<'i>(
        &mut self,
        input: &mut Input<'i>,
        scratch: &mut Scratch,
        now: u64,
    ) -> Result<Option<Event<'i>>, ConnectionError> {
        let event = self.advance(input, scratch, now as u32);
        match event {
            Ok(event) => Ok(event),
            Err(error) => {
                self.fail(error);
                Err(error)
            }
        }
    }

    fn advance<'i>(
        &mut self,
        input: &mut Input<'i>,
        scratch: &mut Scratch,
        now: u32,
    ) -> Result<Option<Event<'i>>, ConnectionError> {
        if self.phase == Phase::Ended {
            return Err(ConnectionError::Ended);
        }
        loop {
            self.output.check(&self.options)?;
            if self.refusing
                && let Some(event) = self.next_refused()
            {
                return Ok(Some(event));
            }
            if !self.streams.queue_is_empty()
                && let Some(event) = self.next_writable()
            {
                return Ok(Some(event));
            }
            match self.read(input, scratch, now)? {
                Step::Event(event) => return Ok(Some(event)),
                Step::Again => {}
                Step::Dry => return Ok(None),
            }
        }
    }

    /// Says goodbye for an error.
    #[cold]
    fn fail(&mut self, error: ConnectionError) {
        if self.phase == Phase::Ended {
            return;
        }
        self.phase = Phase::Ended;
        if self.role == Role::Server
            && let Some(block) = &self.block
            && block.stream > self.last_id
        {
            self.head_in_hand = block.stream;
        }
        self.last_id = self.last_id.max(self.head_in_hand);
        self.partial = Vec::new();
        self.block = None;
        if let Some(stat) = error.stat() {
            self.counts.bump(stat);
        }
        self.counts.bump(Stat::GoawaySent);
        let last = self.last_peer_id();
        frame::goaway(&mut self.output.bytes, last, error.code());
    }

    /// The last stream of the peer that was looked at.
    fn last_peer_id(&self) -> u32 {
        match self.role {
            Role::Server => self.last_id,
            Role::Client => 0,
        }
    }

    /// Whether a stream of that identifier has never been.
    #[inline]
    fn is_idle(&self, id: u32) -> bool {
        id & 1 == 0 || id > self.last_id
    }

    /// After an error (server): whether it lay in, or came amid, the head of a request that never became a stream.
    pub const fn failed_in_head(&self) -> bool {
        self.head_in_hand != 0
    }

    /// Whether a header block has begun that has yet to end.
    #[inline]
    pub const fn is_amid_head(&self) -> bool {
        self.block.is_some()
    }

    /// The bytes to be written.
    #[inline]
    pub fn output(&self) -> &[u8] {
        self.output.pending()
    }

    /// The first `count` bytes of the output have been written.
    #[inline]
    pub fn written(&mut self, count: usize) {
        self.output.written(count);
    }

    /// Takes the output's memory away if nothing waits in it, for the worker to lend to another connection.
    #[inline]
    pub fn reclaim_output(&mut self) -> Vec<u8> {
        self.output.reclaim()
    }

    /// Lends memory to the output, if it has none.
    #[inline]
    pub fn lend_output(&mut self, memory: Vec<u8>) {
        if self.output.bytes.capacity() == 0 {
            self.output.bytes = memory;
            self.output.bytes.clear();
        }
    }

    /// Gives back what an idle connection does not need. To be called when [`Connection::active_streams`] falls to 0.
    pub fn trim(&mut self) {
        self.streams.trim();
        if self.output.len() == 0 {
            drop(self.output.reclaim());
        }
        self.resets.shrink_to_fit();
    }

    /// Gives a stream the token that its events will carry.
    #[inline]
    pub fn set_token(&mut self, stream: StreamRef, token: u32) {
        if let Some(found) = self.streams.get_mut(stream) {
            found.token = token;
        }
    }

    #[inline]
    pub fn token(&self, stream: StreamRef) -> Option<u32> {
        self.streams.get(stream).map(|found| found.token)
    }

    /// Whether the stream is still there, in whatever half.
    #[inline]
    pub fn is_live(&self, stream: StreamRef) -> bool {
        self.streams.get(stream).is_some()
    }

    /// The tokens of all streams: for the end of a connection.
    pub fn tokens(&self) -> impl Iterator<Item = (StreamRef, u32)> {
        self.streams
            .iter()
            .map(|(stream, found)| (stream, found.token))
    }

    /// `http2.streams_active`.
    #[inline]
    pub fn active_streams(&self) -> u32 {
        self.streams.len()
    }

    /// `http2.pending_send_bytes`.
    #[inline]
    pub fn pending_send_bytes(&self) -> usize {
        self.output.len()
    }

    /// `http2.outbound_frames_active`.
    pub fn outbound_frames(&self) -> u32 {
        self.output.frames()
    }

    /// `http2.outbound_control_frames_active`.
    pub fn outbound_control_frames(&self) -> u32 {
        self.output.control_frames()
    }

    /// What happened since the last call, for the counters of the listener or cluster.
    #[inline]
    pub fn take_counts(&mut self) -> Option<Counts> {
        if self.counts.is_empty() {
            None
        } else {
            Some(std::mem::take(&mut self.counts))
        }
    }

    #[inline]
    pub fn role(&self) -> Role {
        self.role
    }

    #[inline]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whether the peer's SETTINGS have come.
    pub fn is_established(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Ends a stream for a fault of the peer's. A malformed message ends the connection unless the options say
    /// otherwise.
    #[cold]
    fn fault<'i>(
        &mut self,
        stream: StreamRef,
        why: StreamFault,
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        if why == StreamFault::Malformed(Malformed::BodyLength) {
            // As in Envoy it ends its stream only, whatever the options say of malformed messages.
            self.counts.bump(Stat::RxMessagingError);
            if self.role == Role::Server {
                self.guard.reset(now, &self.options)?;
            }
        } else {
            self.judge_fault(why, now)?;
        }
        let code = why.code();
        let Some(removed) = self.streams.remove(stream) else {
            return Ok(Step::Again);
        };
        self.send_reset(stream.id, code, removed.state.can_receive());
        self.output.control_frame();
        self.was_reset(stream, &removed, code, ResetBy::Fault(why), now)
    }

    /// The peer has reset a stream or brought its reset about: looks whether it does so too often, and tells.
    #[cold]
    fn was_reset<'i>(
        &mut self,
        stream: StreamRef,
        removed: &Stream,
        code: ErrorCode,
        by: ResetBy,
        now: u32,
    ) -> Result<Step<'i>, ConnectionError> {
        self.guard.stream_closed();
        if self.role == Role::Server {
            self.guard
                .request_reset(removed.opened, now, &self.options)?;
        }
        Ok(Step::Event(Event::Reset {
            stream,
            token: removed.token,
            code,
            by,
        }))
    }

    /// Counts a fault and decides whether it ends the connection.
    #[cold]
    fn judge_fault(&mut self, why: StreamFault, now: u32) -> Result<(), ConnectionError> {
        match why {
            StreamFault::Malformed(malformed) => {
                let underscore = malformed == super::Malformed::Underscore;
                if !underscore && !self.options.stream_error_on_invalid_http_messaging {
                    return Err(ConnectionError::Malformed(malformed));
                }
                self.counts.bump(if underscore {
                    Stat::RequestsRejectedWithUnderscoresInHeaders
                } else {
                    Stat::RxMessagingError
                });
            }
            StreamFault::Overflow(_) => self.counts.bump(Stat::HeaderOverflow),
            _ => {}
        }
        if self.role == Role::Server {
            self.guard.reset(now, &self.options)?;
        }
        Ok(())
    }

    /// RST_STREAM, and a note that what is under way on the stream is to be ignored.
    fn send_reset(&mut self, id: u32, code: ErrorCode, more_may_come: bool) {
        self.counts.bump(Stat::TxReset);
        frame::rst_stream(&mut self.output.bytes, id, code);
        if more_may_come {
            if self.resets.len() >= MAX_RESETS {
                self.resets.pop_front();
            }
            self.resets.push_back(id);
        }
    }

    /// The peer has sent END_STREAM.
    #[inline]
    fn remote_ended(&mut self, stream: StreamRef) {
        let Some(found) = self.streams.get_mut(stream) else {
            return;
        };
        match found.state.remote_ended() {
            Some(state) => found.state = state,
            None => self.forget(stream),
        }
    }

    #[inline]
    fn forget(&mut self, stream: StreamRef) {
        self.streams.remove(stream);
        self.guard.stream_closed();
    }

    #[inline]
    fn new_stream(&self, id: u32, now: u32) -> Stream {
        // Until our SETTINGS are in force the peer may go by the default.
        let recv_window = if self.settings_acked {
            self.stream_window()
        } else {
            self.stream_window().max(DEFAULT_WINDOW)
        };
        Stream::new(id, self.peer.initial_window as i32, recv_window as i32, now)
    }
}

/// What came of looking at some input.
#[derive(Debug)]
enum Step<'i> {
    Event(Event<'i>),
    Again,
    /// More bytes are needed.
    Dry,
}
