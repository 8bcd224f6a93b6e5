//! The timer wheel: six levels of 64 slots, a millisecond each on the lowest; arming and cancelling are O(1).
//!
//! Most timers of a proxy are timeouts that are pushed back by every byte and almost never fire. [`LazyTimer`] makes
//! pushing back a store: the wheel keeps the old time and the timer moves when that comes.

use std::time::Duration;

use crate::Moment;

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 6;
/// The farthest tick ahead: what six levels span.
const SPAN: u64 = 1 << (SLOT_BITS * LEVELS as u32);
const NIL: u32 = u32::MAX;

/// An armed timer. It goes stale when the timer fires or is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerId {
    index: u32,
    generation: u32,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    /// Milliseconds since the wheel's start.
    tick: u64,
    previous: u32,
    next: u32,
    /// `level * SLOTS + slot`, or `NIL` when free.
    place: u32,
    payload: Option<T>,
}

/// The timers of one worker. `T` says what to do when one fires.
#[derive(Debug)]
pub struct TimerWheel<T> {
    start: Moment,
    elapsed: u64,
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    heads: Vec<u32>,
    occupied: [u64; LEVELS],
    armed: usize,
}

impl<T> TimerWheel<T> {
    pub fn new(now: Moment) -> Self {
        Self {
            start: now,
            elapsed: 0,
            entries: Vec::new(),
            free: Vec::new(),
            heads: vec![NIL; LEVELS * SLOTS],
            occupied: [0; LEVELS],
            armed: 0,
        }
    }

    /// Armed timers.
    pub const fn len(&self) -> usize {
        self.armed
    }

    pub const fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// Fires at `when` or up to a millisecond later, never before.
    pub fn arm(&mut self, when: Moment, payload: T) -> TimerId {
        let tick = when
            .since(self.start)
            .as_nanos()
            .div_ceil(1_000_000)
            .min(u128::from(u64::MAX)) as u64;
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry {
                generation: 0,
                tick: 0,
                previous: NIL,
                next: NIL,
                place: NIL,
                payload: None,
            });
            (self.entries.len() - 1) as u32
        });
        let mut generation = 0;
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.tick = tick;
            entry.payload = Some(payload);
            generation = entry.generation;
        }
        self.link(index, tick);
        self.armed += 1;
        TimerId { index, generation }
    }

    /// Cancels; the payload, unless the timer has fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        if !self.is_armed(id) {
            return None;
        }
        self.unlink(id.index);
        self.release(id.index)
    }

    /// Neither fired nor cancelled.
    pub fn is_armed(&self, id: TimerId) -> bool {
        self.entries
            .get(id.index as usize)
            .is_some_and(|entry| entry.generation == id.generation && entry.payload.is_some())
    }

    /// How long the loop may sleep; `None`: no timer is armed.
    pub fn next_timeout(&self, now: Moment) -> Option<Duration> {
        let (_, _, tick) = self.next_slot()?;
        let due = self.start + Duration::from_millis(tick);
        Some(due.since(now))
    }

    /// Moves to `now` and appends the payloads of the timers that are due to `fired`, in order of time.
    pub fn advance(&mut self, now: Moment, fired: &mut Vec<T>) {
        let target = now.since(self.start).as_millis().min(u128::from(u64::MAX)) as u64;
        while let Some((level, slot, tick)) = self.next_slot() {
            if tick > target {
                break;
            }
            self.elapsed = self.elapsed.max(tick);
            let mut index = self.clear_slot(level, slot);
            while index != NIL {
                let Some(entry) = self.entries.get_mut(index as usize) else {
                    break;
                };
                let next = entry.next;
                let due = entry.tick;
                if due <= self.elapsed {
                    if let Some(payload) = self.release(index) {
                        fired.push(payload);
                    }
                } else {
                    self.link(index, due);
                }
                index = next;
            }
        }
        self.elapsed = self.elapsed.max(target);
    }

    fn link(&mut self, index: u32, tick: u64) {
        // A timer that is due already goes to the next tick's slot: slots in the past are not looked at again.
        let tick = tick.clamp(self.elapsed + 1, self.elapsed + SPAN - 1);
        let level = level_of(self.elapsed, tick);
        let slot = (tick >> (SLOT_BITS * level as u32)) as usize % SLOTS;
        let place = level * SLOTS + slot;
        let head = self.heads.get(place).copied().unwrap_or(NIL);
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.previous = NIL;
            entry.next = head;
            entry.place = place as u32;
        }
        if let Some(entry) = self.entries.get_mut(head as usize) {
            entry.previous = index;
        }
        if let Some(head) = self.heads.get_mut(place) {
            *head = index;
        }
        if let Some(occupied) = self.occupied.get_mut(level) {
            *occupied |= 1 << slot;
        }
    }

    fn unlink(&mut self, index: u32) {
        let Some(entry) = self.entries.get(index as usize) else {
            return;
        };
        let (previous, next, place) = (entry.previous, entry.next, entry.place as usize);
        if let Some(entry) = self.entries.get_mut(next as usize) {
            entry.previous = previous;
        }
        if let Some(entry) = self.entries.get_mut(previous as usize) {
            entry.next = next;
        } else {
            if let Some(head) = self.heads.get_mut(place) {
                *head = next;
            }
            if next == NIL
                && let Some(occupied) = self.occupied.get_mut(place / SLOTS)
            {
                *occupied &= !(1 << (place % SLOTS));
            }
        }
    }

    fn release(&mut self, index: u32) -> Option<T> {
        let entry = self.entries.get_mut(index as usize)?;
        entry.generation = entry.generation.wrapping_add(1);
        entry.place = NIL;
        let payload = entry.payload.take();
        self.free.push(index);
        self.armed -= 1;
        payload
    }

    fn clear_slot(&mut self, level: usize, slot: usize) -> u32 {
        if let Some(occupied) = self.occupied.get_mut(level) {
            *occupied &= !(1 << slot);
        }
        self.heads
            .get_mut(level * SLOTS + slot)
            .map_or(NIL, |head| std::mem::replace(head, NIL))
    }

    /// The occupied slot that comes up first, and its tick.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        for (level, &occupied) in self.occupied.iter().enumerate() {
            if occupied == 0 {
                continue;
            }
            let shift = SLOT_BITS * level as u32;
            let now_slot = (self.elapsed >> shift) % SLOTS as u64;
            let ahead = u64::from(occupied.rotate_right(now_slot as u32).trailing_zeros());
            let slot = (now_slot + ahead) % SLOTS as u64;
            let range = 1u64 << (shift + SLOT_BITS);
            let level_start = self.elapsed - self.elapsed % range;
            let mut tick = level_start + (slot << shift);
            if tick <= self.elapsed {
                // Only the top level wraps around.
                tick += range;
            }
            return Some((level, slot as usize, tick));
        }
        None
    }
}

/// The level on which `tick` differs from `elapsed` first, seen from the top.
const fn level_of(elapsed: u64, tick: u64) -> usize {
    let differing = (elapsed ^ tick) | (SLOTS as u64 - 1);
    let level = (differing.ilog2() / SLOT_BITS) as usize;
    if level < LEVELS { level } else { LEVELS - 1 }
}

/// A timeout that is pushed back often and fires rarely. Pushing it back is a store.
///
/// When the wheel fires its payload, ask [`LazyTimer::fired`] whether the timeout is really due.
#[derive(Debug, Default)]
pub struct LazyTimer {
    deadline: Option<Moment>,
    armed: Option<(TimerId, Moment)>,
}

impl LazyTimer {
    pub const fn new() -> Self {
        Self {
            deadline: None,
            armed: None,
        }
    }

    pub const fn deadline(&self) -> Option<Moment> {
        self.deadline
    }

    /// Sets the deadline anew; `payload` is used only if the wheel must be touched.
    #[inline]
    pub fn set<T>(&mut self, wheel: &mut TimerWheel<T>, deadline: Moment, payload: T) {
        self.deadline = Some(deadline);
        match self.armed {
            Some((_, at)) if at <= deadline => {}
            Some((id, _)) => {
                wheel.cancel(id);
                self.armed = Some((wheel.arm(deadline, payload), deadline));
            }
            None => self.armed = Some((wheel.arm(deadline, payload), deadline)),
        }
    }

    /// Takes the deadline away. The wheel is left alone: its entry will find nothing to do.
    #[inline]
    pub fn clear(&mut self) {
        self.deadline = None;
    }

    /// Takes the deadline away and the entry out of the wheel: for the end of the owner's life.
    pub fn cancel<T>(&mut self, wheel: &mut TimerWheel<T>) {
        self.deadline = None;
        if let Some((id, _)) = self.armed.take() {
            wheel.cancel(id);
        }
    }

    /// The wheel has fired this timer's payload: `true` if the timeout is due, else it is armed for its real deadline.
    pub fn fired<T>(&mut self, wheel: &mut TimerWheel<T>, now: Moment, payload: T) -> bool {
        if let Some((id, _)) = self.armed {
            if wheel.is_armed(id) {
                // An entry of before a cancel, taken from the wheel in the same pass.
                return false;
            }
            self.armed = None;
        }
        match self.deadline {
            None => false,
            Some(deadline) if deadline <= now => {
                self.deadline = None;
                true
            }
            Some(deadline) => {
                self.armed = Some((wheel.arm(deadline, payload), deadline));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
