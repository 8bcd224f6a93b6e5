//! Small integers for names, so that workers index vectors instead of hashing.
//!
//! A name keeps its slot as long as anything alive refers to it: a cluster, a route of the current snapshot, a route of an
//! old snapshot that a connection still holds. Only then may another name take the slot, with a new generation. This module
//! must not know what the names stand for.

use std::sync::{Arc, Weak};

use rustc_hash::FxHashMap;
use tidegate_model::Name;

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name {
            index: u32,
            generation: u32,
        }

        impl $name {
            /// The position in tables that are indexed by this id. Dense: never larger than the number of names alive.
            #[inline]
            pub const fn index(self) -> usize {
                self.index as usize
            }

            /// Tells apart two names that had the same index one after the other.
            #[inline]
            pub const fn generation(self) -> u32 {
                self.generation
            }

            pub(crate) fn of(slot: &Slot) -> Self {
                Self { index: slot.index, generation: slot.generation }
            }

            /// An id out of thin air, for tests of tables that are indexed by it.
            pub const fn for_test(index: u32, generation: u32) -> Self {
                Self { index, generation }
            }
        }
    };
}

id_type! {
    /// A cluster name, whether or not the cluster exists just now.
    ClusterId
}
id_type! {
    /// A listener name.
    ListenerId
}
id_type! {
    /// The name of a route configuration that RDS delivers, whether or not it has arrived.
    RouteConfigId
}

/// A name's claim to its slot.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) name: Name,
    index: u32,
    generation: u32,
}

/// A name of a cluster with its id; holding it keeps the id from being given to another name.
#[derive(Debug, Clone)]
pub struct ClusterRef {
    slot: Arc<Slot>,
    /// The slot's: a request that wants nothing but the id need not fetch the slot into its cache.
    id: ClusterId,
}

impl ClusterRef {
    pub(crate) fn new(slot: Arc<Slot>) -> Self {
        let id = ClusterId::of(&slot);
        Self { slot, id }
    }

    #[inline]
    pub const fn id(&self) -> ClusterId {
        self.id
    }

    #[inline]
    pub fn name(&self) -> &Name {
        &self.slot.name
    }
}

/// The name of a route configuration with its id.
#[derive(Debug, Clone)]
pub struct RouteConfigRef {
    pub(crate) slot: Arc<Slot>,
}

impl RouteConfigRef {
    #[inline]
    pub fn id(&self) -> RouteConfigId {
        RouteConfigId::of(&self.slot)
    }

    #[inline]
    pub fn name(&self) -> &Name {
        &self.slot.name
    }
}

/// Which name has which slot. Copied on write by the builder; keeps no name alive.
#[derive(Debug, Clone, Default)]
pub(crate) struct SlotTable {
    by_name: FxHashMap<Name, Claim>,
    /// Index and the generation that its next holder gets.
    free: Vec<(u32, u32)>,
    next: u32,
}

#[derive(Debug, Clone)]
struct Claim {
    slot: Weak<Slot>,
    index: u32,
    generation: u32,
}

impl SlotTable {
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Slot>> {
        self.by_name.get(name)?.slot.upgrade()
    }

    pub(crate) fn intern(&mut self, name: &Name) -> Arc<Slot> {
        let (index, generation) = match self.by_name.get(name) {
            Some(claim) => match claim.slot.upgrade() {
                Some(slot) => return slot,
                None => (claim.index, claim.generation.wrapping_add(1)),
            },
            None => self.free.pop().unwrap_or_else(|| {
                self.next += 1;
                (self.next - 1, 0)
            }),
        };
        let slot = Arc::new(Slot {
            name: Name::clone(name),
            index,
            generation,
        });
        let claim = Claim {
            slot: Arc::downgrade(&slot),
            index,
            generation,
        };
        self.by_name.insert(Name::clone(name), claim);
        slot
    }

    /// Frees the slots that nobody holds any more.
    pub(crate) fn sweep(&mut self) {
        let free = &mut self.free;
        self.by_name.retain(|_, claim| {
            let alive = claim.slot.strong_count() > 0;
            if !alive {
                free.push((claim.index, claim.generation.wrapping_add(1)));
            }
            alive
        });
    }

    /// One more than the largest index ever given out.
    pub(crate) fn len(&self) -> usize {
        self.next as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_outlives_its_table_and_is_reused_with_a_new_generation() {
        let mut table = SlotTable::default();
        let a = table.intern(&Name::from("a"));
        let b = table.intern(&Name::from("b"));
        assert_eq!((a.index, b.index), (0, 1));
        assert!(Arc::ptr_eq(&a, &table.intern(&Name::from("a"))));
        drop(a);
        table.sweep();
        assert!(table.get("a").is_none());
        let c = table.intern(&Name::from("c"));
        assert_eq!((c.index, c.generation), (0, 1));
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_name_that_died_unswept_comes_back_with_a_new_generation() {
        let mut table = SlotTable::default();
        let first = ClusterId::of(&table.intern(&Name::from("a")));
        let again = ClusterId::of(&table.intern(&Name::from("a")));
        assert_eq!(first.index(), again.index());
        assert_ne!(first, again);
    }
}
