//! The streams of a connection: a slab, a small hash table from identifiers to places, and the queue of streams that are
//! to be told that they may send. Nothing is allocated before the first stream.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use super::event::StreamRef;
use super::stream::{NONE, Stream};

/// Places in the smallest hash table.
const SMALLEST: usize = 8;

#[derive(Debug)]
pub(super) struct Store {
    slab: Vec<Stream>,
    /// The first free place.
    free: u32,
    live: u32,
    /// One more than a stream's place, 0 where empty; open addressing, at most half full.
    index: Vec<u32>,
    queue_head: u32,
    queue_tail: u32,
    /// An odd number no peer knows: identifiers cannot be chosen to share a place.
    secret: u64,
}

/// One for the process.
static SECRET: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0) | 1);

impl Store {
    pub(super) fn new() -> Self {
        Self {
            secret: *SECRET,
            slab: Vec::new(),
            free: NONE,
            live: 0,
            index: Vec::new(),
            queue_head: NONE,
            queue_tail: NONE,
        }
    }

    #[inline]
    pub(super) const fn len(&self) -> u32 {
        self.live
    }

    #[inline]
    pub(super) fn get(&self, stream: StreamRef) -> Option<&Stream> {
        self.slab
            .get(stream.slot as usize)
            .filter(|found| found.id == stream.id)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, stream: StreamRef) -> Option<&mut Stream> {
        self.slab
            .get_mut(stream.slot as usize)
            .filter(|found| found.id == stream.id)
    }

    #[inline]
    fn home(&self, id: u32) -> usize {
        let hash = u64::from(id).wrapping_mul(self.secret);
        (hash >> 32) as usize & self.index.len().wrapping_sub(1)
    }

    #[inline]
    pub(super) fn find(&self, id: u32) -> Option<StreamRef> {
        let mut at = self.home(id);
        loop {
            let slot = self.index.get(at).copied()?.checked_sub(1)?;
            if self.slab.get(slot as usize)?.id == id {
                return Some(StreamRef { id, slot });
            }
            at = (at + 1) & (self.index.len() - 1);
        }
    }

    pub(super) fn insert(&mut self, stream: Stream) -> StreamRef {
        if (self.live as usize + 1) * 2 > self.index.len() {
            self.grow();
        }
        let id = stream.id;
        let slot = if let Some(place) = self.slab.get_mut(self.free as usize) {
            let slot = std::mem::replace(&mut self.free, place.next);
            *place = stream;
            slot
        } else {
            self.slab.push(stream);
            self.slab.len() as u32 - 1
        };
        self.live += 1;
        self.link(id, slot);
        StreamRef { id, slot }
    }

    fn link(&mut self, id: u32, slot: u32) {
        let mut at = self.home(id);
        while let Some(place) = self.index.get_mut(at) {
            if *place == 0 {
                *place = slot + 1;
                return;
            }
            at = (at + 1) & (self.index.len() - 1);
        }
    }

    #[cold]
    fn grow(&mut self) {
        let size = (self.index.len() * 2).max(SMALLEST);
        self.index.clear();
        self.index.resize(size, 0);
        for slot in 0..self.slab.len() as u32 {
            if let Some(stream) = self.slab.get(slot as usize)
                && stream.id != 0
            {
                self.link(stream.id, slot);
            }
        }
    }

    /// Removes a stream; what it was.
    pub(super) fn remove(&mut self, stream: StreamRef) -> Option<Stream> {
        let removed = *self.get(stream)?;
        if removed.queued {
            self.unqueue(stream.slot);
        }
        self.unlink(stream.id);
        let free = self.free;
        if let Some(place) = self.slab.get_mut(stream.slot as usize) {
            place.id = 0;
            place.next = free;
        }
        self.free = stream.slot;
        self.live -= 1;
        Some(removed)
    }

    /// Empties the place of `id` and moves up those behind it that it kept from their own.
    fn unlink(&mut self, id: u32) {
        let mask = self.index.len().wrapping_sub(1);
        let mut hole = self.home(id);
        while let Some(place) = self.index.get(hole) {
            let Some(slot) = place.checked_sub(1) else {
                return;
            };
            if self.slab.get(slot as usize).is_some_and(|s| s.id == id) {
                break;
            }
            hole = (hole + 1) & mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let moved = self.index.get(at).copied().unwrap_or(0);
            let Some(slot) = moved.checked_sub(1) else {
                break;
            };
            let home = self.home(self.slab.get(slot as usize).map_or(0, |s| s.id));
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                if let Some(place) = self.index.get_mut(hole) {
                    *place = moved;
                }
                hole = at;
            }
        }
        if let Some(place) = self.index.get_mut(hole) {
            *place = 0;
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.slab.iter_mut().filter(|stream| stream.id != 0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (StreamRef, &Stream)> {
        self.slab
            .iter()
            .zip(0..)
            .filter(|(stream, _)| stream.id != 0)
            .map(|(stream, slot)| {
                (
                    StreamRef {
                        id: stream.id,
                        slot,
                    },
                    stream,
                )
            })
    }

    /// Puts a stream at the end of the queue, unless it is in it.
    pub(super) fn enqueue(&mut self, stream: StreamRef) {
        let tail = self.queue_tail;
        match self.get_mut(stream) {
            Some(found) if !found.queued => {
                found.queued = true;
                found.next = NONE;
            }
            _ => return,
        }
        match self.slab.get_mut(tail as usize) {
            Some(last) => last.next = stream.slot,
            None => self.queue_head = stream.slot,
        }
        self.queue_tail = stream.slot;
    }

    #[inline]
    pub(super) const fn queue_is_empty(&self) -> bool {
        self.queue_head == NONE
    }

    pub(super) fn dequeue(&mut self) -> Option<StreamRef> {
        let slot = self.queue_head;
        let stream = self.slab.get_mut(slot as usize)?;
        stream.queued = false;
        let id = stream.id;
        self.queue_head = std::mem::replace(&mut stream.next, NONE);
        if self.queue_head == NONE {
            self.queue_tail = NONE;
        }
        Some(StreamRef { id, slot })
    }

    #[cold]
    fn unqueue(&mut self, slot: u32) {
        let mut before = NONE;
        let mut at = self.queue_head;
        while let Some(stream) = self.slab.get(at as usize) {
            let next = stream.next;
            if at == slot {
                match self.slab.get_mut(before as usize) {
                    Some(stream) => stream.next = next,
                    None => self.queue_head = next,
                }
                if self.queue_tail == slot {
                    self.queue_tail = before;
                }
                break;
            }
            before = at;
            at = next;
        }
        if let Some(stream) = self.slab.get_mut(slot as usize) {
            stream.queued = false;
            stream.next = NONE;
        }
    }

    /// Gives memory back if there are no streams.
    pub(super) fn trim(&mut self) {
        if self.live == 0 {
            *self = Self::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, VecDeque};

    #[test]
    fn against_a_map_and_a_deque() {
        let mut store = Store::new();
        let mut map: HashMap<u32, StreamRef> = HashMap::new();
        let mut queue: VecDeque<u32> = VecDeque::new();
        let mut random = 12345u64;
        let mut next_id = 1;
        for _ in 0..200_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let dice = random >> 33;
            let pick = (!map.is_empty()).then(|| {
                let mut ids: Vec<u32> = map.keys().copied().collect();
                ids.sort_unstable();
                ids[dice as usize / 8 % ids.len()]
            });
            match (dice % 8, pick) {
                (0..=2, _) if map.len() < 40 => {
                    let stream = store.insert(Stream::new(next_id, 0, 0, 0));
                    map.insert(next_id, stream);
                    next_id += 2 * (1 + dice as u32 % 9 * 8);
                }
                (3..=4, Some(id)) => {
                    assert_eq!(store.remove(map[&id]).unwrap().id, id);
                    let stale = map.remove(&id).unwrap();
                    assert!(store.get(stale).is_none() && store.remove(stale).is_none());
                    queue.retain(|queued| *queued != id);
                }
                (5, Some(id)) => {
                    store.enqueue(map[&id]);
                    if !queue.contains(&id) {
                        queue.push_back(id);
                    }
                }
                (6, _) => assert_eq!(store.dequeue().map(|s| s.id), queue.pop_front()),
                _ => {}
            }
            assert_eq!(store.len() as usize, map.len());
            assert_eq!(store.queue_is_empty(), queue.is_empty());
            if let Some(id) = pick {
                assert_eq!(store.find(id), map.get(&id).copied());
            }
            assert_eq!(store.find(next_id), None);
        }
        for (id, stream) in map {
            assert_eq!(store.find(id), Some(stream));
        }
    }
}
