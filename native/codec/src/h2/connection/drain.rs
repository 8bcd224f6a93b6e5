//! The end of a connection: GOAWAY both ways.

use super::{Connection, Goodbye, Phase, Role};
use crate::h2::error::ErrorCode;
use crate::h2::event::{Event, ResetBy, StreamRef};
use crate::h2::frame::{self, MAX_31};
use crate::h2::stats::Stat;

impl Connection {
    /// The first step of a graceful end: the peer is asked to open no more streams, but those that are under way are
    /// still served. The second is [`Connection::goaway`], a round trip or the drain time later.
    pub fn shutdown(&mut self) {
        if self.goodbye != Goodbye::None || self.phase == Phase::Ended {
            return;
        }
        self.goodbye = Goodbye::Announced;
        self.counts.bump(Stat::GoawayGracefulSent);
        frame::goaway(&mut self.output.bytes, MAX_31, ErrorCode::NO_ERROR);
        self.output.frame();
    }

    /// No stream that comes later is served. Those that are open go on; when [`Connection::is_drained`] the connection
    /// may be closed.
    pub fn goaway(&mut self, code: ErrorCode) {
        if self.phase == Phase::Ended || matches!(self.goodbye, Goodbye::Final(_)) {
            return;
        }
        let last = self.last_peer_id();
        self.goodbye = Goodbye::Final(last);
        self.counts.bump(Stat::GoawaySent);
        frame::goaway(&mut self.output.bytes, last, code);
        self.output.frame();
    }

    /// Whether either side has announced the end.
    #[inline]
    pub fn is_draining(&self) -> bool {
        self.goodbye != Goodbye::None || self.peer_last.is_some() || self.phase == Phase::Ended
    }

    /// Whether the end was announced and nothing is left to do.
    #[inline]
    pub fn is_drained(&self) -> bool {
        let announced = matches!(self.goodbye, Goodbye::Final(_)) || self.peer_last.is_some();
        (announced || self.phase == Phase::Ended)
            && self.streams.len() == 0
            && self.output.len() == 0
    }

    /// Whether our GOAWAY left that stream out.
    pub(super) fn is_left_out(&self, id: u32) -> bool {
        matches!(self.goodbye, Goodbye::Final(last) if id > last) && self.role == Role::Server
    }

    /// A stream that the peer's GOAWAY left out.
    #[cold]
    pub(super) fn next_refused<'i>(&mut self) -> Option<Event<'i>> {
        let last = self.peer_last?;
        let Some(stream) = self.above(last) else {
            self.refusing = false;
            return None;
        };
        let removed = self.streams.remove(stream)?;
        self.guard.stream_closed();
        Some(Event::Reset {
            stream,
            token: removed.token,
            code: ErrorCode::REFUSED_STREAM,
            by: ResetBy::GoAway,
        })
    }

    fn above(&self, last: u32) -> Option<StreamRef> {
        self.streams
            .iter()
            .map(|(stream, _)| stream)
            .find(|stream| stream.id > last)
    }
}
