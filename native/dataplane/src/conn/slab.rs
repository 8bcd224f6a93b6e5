//! A generational slab whose occupants can be taken out and put back.

use tidegate_rt::Token;

use super::Key;

struct Slot<T> {
    generation: u32,
    state: State<T>,
}

enum State<T> {
    Free {
        next: u32,
    },
    /// Occupied, but a handler has the occupant in its hands.
    Taken,
    Here(T),
}

const NIL: u32 = u32::MAX;

/// Occupants in slots.
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: u32,
    occupied: usize,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: NIL,
            occupied: 0,
        }
    }

    /// Occupied slots.
    pub const fn len(&self) -> usize {
        self.occupied
    }

    pub const fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// Occupies a slot whose occupant is still being made (it needs its key to register descriptors and timers).
    /// Follow with [`Slab::put`] or [`Slab::remove`].
    pub fn reserve(&mut self) -> Key {
        self.occupied += 1;
        if let Some(slot) = self.slots.get_mut(self.free as usize)
            && let State::Free { next } = slot.state
        {
            let index = std::mem::replace(&mut self.free, next);
            slot.state = State::Taken;
            return Key {
                index,
                generation: slot.generation,
            };
        }
        let index = self.slots.len() as u32;
        self.slots.push(Slot {
            generation: 1,
            state: State::Taken,
        });
        Key {
            index,
            generation: 1,
        }
    }

    pub fn insert(&mut self, occupant: T) -> Key {
        let key = self.reserve();
        self.put(key, occupant);
        key
    }

    /// Takes the occupant out to work on it. `None`: it is gone, or already taken.
    #[inline]
    pub fn take(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation || !matches!(slot.state, State::Here(_)) {
            return None;
        }
        match std::mem::replace(&mut slot.state, State::Taken) {
            State::Here(occupant) => Some(occupant),
            State::Taken | State::Free { .. } => None,
        }
    }

    /// Puts a taken occupant back. If the slot was removed meanwhile, the connection is dropped, thus closed.
    #[inline]
    pub fn put(&mut self, key: Key, occupant: T) {
        if let Some(slot) = self.slots.get_mut(key.index as usize)
            && slot.generation == key.generation
            && matches!(slot.state, State::Taken)
        {
            slot.state = State::Here(occupant);
        }
    }

    /// Looks at an occupant that is not taken.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.index as usize)?;
        match &slot.state {
            State::Here(occupant) if slot.generation == key.generation => Some(occupant),
            _ => None,
        }
    }

    /// Changes an occupant in place, where the rest of the worker is not needed.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        match &mut slot.state {
            State::Here(occupant) if slot.generation == key.generation => Some(occupant),
            _ => None,
        }
    }

    /// Whether the occupant is alive, here or taken.
    #[inline]
    pub fn contains(&self, key: Key) -> bool {
        self.slots.get(key.index as usize).is_some_and(|slot| {
            slot.generation == key.generation && !matches!(slot.state, State::Free { .. })
        })
    }

    /// Frees the slot; the occupant, if it was here, is returned. Its key is stale from now on.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation || matches!(slot.state, State::Free { .. }) {
            return None;
        }
        slot.generation = (slot.generation + 1) & Token::GENERATION_MASK;
        let state = std::mem::replace(&mut slot.state, State::Free { next: self.free });
        self.free = key.index;
        self.occupied -= 1;
        match state {
            State::Here(occupant) => Some(occupant),
            State::Taken | State::Free { .. } => None,
        }
    }

    /// The keys of all occupants: for drains, not for the path.
    pub fn keys(&self) -> Vec<Key> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| !matches!(slot.state, State::Free { .. }))
            .map(|(index, slot)| Key {
                index: index as u32,
                generation: slot.generation,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_occupant_cannot_be_taken_again_and_comes_back() {
        let mut slab = Slab::new();
        let key = slab.insert("a");
        assert_eq!(slab.take(key), Some("a"));
        assert_eq!(slab.take(key), None);
        assert!(slab.get(key).is_none() && slab.contains(key));
        slab.put(key, "b");
        assert_eq!(slab.get(key), Some(&"b"));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn keys_go_stale_with_their_occupant() {
        let mut slab = Slab::new();
        let old = slab.insert(1);
        assert_eq!(slab.remove(old), Some(1));
        let new = slab.insert(2);
        assert_eq!(old.token(0).index, new.token(0).index);
        assert!(!slab.contains(old));
        assert_eq!(slab.take(old), None);
        assert_eq!(slab.remove(old), None);
        // What was taken under a key that was removed meanwhile is dropped.
        let taken = slab.take(new).unwrap();
        slab.remove(new);
        slab.put(new, taken);
        assert!(slab.is_empty() && slab.get(new).is_none());
        assert_eq!(Key::of(new.token(3)), new);
    }

    #[test]
    fn generations_wrap_within_what_a_token_carries() {
        let mut slab = Slab::new();
        let first = slab.insert(0);
        slab.remove(first);
        slab.slots[0].generation = Token::GENERATION_MASK;
        let last = slab.insert(1);
        assert_eq!(Key::of(last.token(0)), last);
        slab.remove(last);
        let wrapped = slab.insert(2);
        assert_eq!(wrapped.token(0).generation, 0);
        assert!(slab.contains(wrapped) && !slab.contains(last));
        assert!(!slab.contains(Key::NONE));
    }

    #[test]
    fn reserved_slots_are_occupied_until_removed() {
        let mut slab: Slab<u8> = Slab::new();
        let keys: Vec<Key> = (0..3).map(|_| slab.reserve()).collect();
        assert_eq!(slab.keys(), keys);
        slab.remove(keys[1]);
        assert_eq!(slab.keys(), [keys[0], keys[2]]);
        assert_eq!(slab.len(), 2);
    }
}
