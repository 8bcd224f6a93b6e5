//! The streams of one downstream connection, in slots: one for HTTP/1, any number for HTTP/2.
//!
//! A stream is taken out while something happens to it and keeps its slot meanwhile. Knows nothing of what streams do.

use tidegate_rt::Moment;

use super::stream::Stream;
use crate::conn::Key;

/// A stream's identity in its worker. Never valid again once the stream is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamKey {
    /// The downstream connection.
    pub(crate) connection: Key,
    pub(crate) slot: u32,
    /// Tells the stream from others that had the slot before it.
    serial: u32,
}

impl StreamKey {
    /// A key that no stream has.
    pub(crate) const NONE: Self = Self {
        connection: Key::NONE,
        slot: 0,
        serial: 0,
    };

    /// The only stream of an occupant that is a call of ours.
    pub(crate) const fn of_call(connection: Key) -> Self {
        Self {
            connection,
            slot: 0,
            serial: 0,
        }
    }
}

impl StreamKey {
    /// A number that no other stream of the worker has at the same time.
    pub(crate) fn number(self) -> u64 {
        let token = self.connection.token(0);
        (u64::from(token.index) << 32 | u64::from(self.serial))
            ^ (u64::from(token.generation) << 48)
    }
}

impl Default for StreamKey {
    fn default() -> Self {
        Self::NONE
    }
}

/// Slots whose memory an idle connection keeps.
const KEPT_SLOTS: usize = 64;

#[derive(Default)]
enum Slot {
    #[default]
    Free,
    Taken,
    Here(Box<Stream>),
}

/// See the module. The first slot needs no memory of its own, so that an HTTP/1 connection allocates none.
#[derive(Default)]
pub(super) struct Streams {
    first: Slot,
    more: Vec<Slot>,
    free: Vec<u32>,
    occupied: u32,
    serial: u32,
    /// No stream is due before this; see [`Streams::expect`].
    earliest: Option<Moment>,
}

impl Streams {
    /// Streams, taken ones included.
    pub(super) const fn len(&self) -> u32 {
        self.occupied
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// Gives a new stream its place, to which [`Streams::put`] brings it.
    pub(super) fn reserve(&mut self, connection: Key) -> StreamKey {
        self.occupied += 1;
        self.serial = self.serial.wrapping_add(1);
        let slot = if matches!(self.first, Slot::Free) {
            0
        } else {
            self.free.pop().unwrap_or_else(|| {
                self.more.push(Slot::Free);
                self.more.len() as u32
            })
        };
        if let Some(place) = self.place(slot) {
            *place = Slot::Taken;
        }
        StreamKey {
            connection,
            slot,
            serial: self.serial,
        }
    }

    fn place(&mut self, slot: u32) -> Option<&mut Slot> {
        match slot.checked_sub(1) {
            None => Some(&mut self.first),
            Some(index) => self.more.get_mut(index as usize),
        }
    }

    /// Takes the stream of that slot out to work on it.
    #[inline]
    pub(super) fn take(&mut self, slot: u32) -> Option<Box<Stream>> {
        let place = self.place(slot)?;
        match std::mem::replace(place, Slot::Taken) {
            Slot::Here(stream) => Some(stream),
            other => {
                *place = other;
                None
            }
        }
    }

    /// Takes the stream out, if it is not over.
    #[inline]
    pub(super) fn take_key(&mut self, key: StreamKey) -> Option<Box<Stream>> {
        let stream = self.take(key.slot)?;
        if stream.key == key {
            return Some(stream);
        }
        self.put(stream);
        None
    }

    #[inline]
    pub(super) fn put(&mut self, stream: Box<Stream>) {
        if let Some(place) = self.place(stream.key.slot) {
            *place = Slot::Here(stream);
        }
    }

    /// The stream of that slot is over; its box may be kept for another.
    pub(super) fn release(&mut self, slot: u32) {
        let Some(place) = self.place(slot) else {
            return;
        };
        if matches!(place, Slot::Free) {
            return;
        }
        *place = Slot::Free;
        self.occupied -= 1;
        if slot > 0 {
            self.free.push(slot);
        }
        if self.occupied == 0 {
            self.earliest = None;
            self.more.clear();
            self.free.clear();
            if self.more.capacity() > KEPT_SLOTS {
                self.more = Vec::new();
                self.free = Vec::new();
            }
        }
    }

    /// The stream in the first slot: the one that an HTTP/1 connection has.
    #[inline]
    pub(super) fn first(&self) -> Option<&Stream> {
        match &self.first {
            Slot::Here(stream) => Some(stream),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Stream> {
        match self.place(slot)? {
            Slot::Here(stream) => Some(stream),
            _ => None,
        }
    }

    /// All that are not taken.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        let slots = std::iter::once(&mut self.first).chain(&mut self.more);
        slots.filter_map(|slot| match slot {
            Slot::Here(stream) => Some(&mut **stream),
            _ => None,
        })
    }

    /// Takes note of a stream's next deadline, where there are several streams: a lower bound of all of them is kept, for
    /// looking at each after every event would cost too much.
    #[inline]
    pub(super) fn expect(&mut self, deadline: Option<Moment>) {
        if let Some(deadline) = deadline
            && self.earliest.is_none_or(|earliest| deadline < earliest)
        {
            self.earliest = Some(deadline);
        }
    }

    /// What [`Streams::expect`] has gathered.
    #[inline]
    pub(super) const fn earliest(&self) -> Option<Moment> {
        self.earliest
    }

    /// Starts to gather anew: every stream is going to be looked at.
    pub(super) const fn forget_deadlines(&mut self) {
        self.earliest = None;
    }

    /// The slots that have been used, for visiting all streams.
    pub(super) const fn slots(&self) -> u32 {
        self.more.len() as u32 + 1
    }
}
