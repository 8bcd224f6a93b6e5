//! The dynamic table (RFC 7541 section 4): entries in the order they came, the oldest evicted first.
//!
//! All entries lie in one piece of memory, name and value adjoining, so that an indexed field is one copy. Nothing is
//! allocated before the first entry; memory is at most twice what the live entries need.

use std::collections::VecDeque;

/// What an entry costs beside its bytes.
pub(crate) const OVERHEAD: u32 = 32;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<T> {
    /// Where its bytes are, counted from the first byte ever stored, modulo 2^32.
    at: u32,
    pub(crate) name_len: u32,
    pub(crate) value_len: u32,
    pub(crate) tag: T,
}

impl<T> Entry<T> {
    const fn size(&self) -> u32 {
        self.name_len + self.value_len + OVERHEAD
    }
}

#[derive(Debug)]
pub(crate) struct Table<T> {
    entries: VecDeque<Entry<T>>,
    bytes: Vec<u8>,
    /// Bytes at the front that belong to evicted entries.
    dead: usize,
    /// How many bytes have been cut off the front so far, modulo 2^32.
    base: u32,
    size: u32,
    limit: u32,
    /// How many entries have been evicted, modulo 2^32: the number of the oldest live one.
    evicted: u32,
}

impl<T: Copy> Table<T> {
    pub(crate) const fn new(limit: u32) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: Vec::new(),
            dead: 0,
            base: 0,
            size: 0,
            limit,
            evicted: 0,
        }
    }

    pub(crate) const fn limit(&self) -> u32 {
        self.limit
    }

    pub(crate) const fn size(&self) -> u32 {
        self.size
    }

    pub(crate) fn len(&self) -> u32 {
        self.entries.len() as u32
    }

    /// The number of the oldest live entry; entries are numbered in the order they came, modulo 2^32.
    pub(crate) const fn oldest(&self) -> u32 {
        self.evicted
    }

    /// The entry that is `index` places behind the newest.
    #[inline]
    pub(crate) fn newest(&self, index: u32) -> Option<(&Entry<T>, &[u8])> {
        let place = self.entries.len().checked_sub(1 + index as usize)?;
        self.at(place)
    }

    /// The entry that came `place` entries after the oldest.
    #[inline]
    pub(crate) fn oldest_but(&self, place: u32) -> Option<(&Entry<T>, &[u8])> {
        self.at(place as usize)
    }

    #[inline]
    fn at(&self, place: usize) -> Option<(&Entry<T>, &[u8])> {
        let entry = self.entries.get(place)?;
        let start = entry.at.wrapping_sub(self.base) as usize;
        let end = start + (entry.name_len + entry.value_len) as usize;
        Some((entry, self.bytes.get(start..end)?))
    }

    pub(crate) fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
        self.evict_down_to(limit);
    }

    fn evict_down_to(&mut self, size: u32) {
        while self.size > size {
            let Some(entry) = self.entries.pop_front() else {
                break;
            };
            self.size -= entry.size();
            self.dead += (entry.name_len + entry.value_len) as usize;
            self.evicted = self.evicted.wrapping_add(1);
        }
    }

    /// Whether the entry was made: one that is larger than the table empties it instead.
    pub(crate) fn insert(&mut self, name: &[u8], value: &[u8], tag: T) -> bool {
        let size = (name.len() + value.len()) as u64 + u64::from(OVERHEAD);
        if size > u64::from(self.limit) {
            self.evict_down_to(0);
            self.compact();
            return false;
        }
        self.evict_down_to(self.limit - size as u32);
        if self.dead >= 256 && self.dead * 2 >= self.bytes.len() {
            self.compact();
        }
        let at = self.base.wrapping_add(self.bytes.len() as u32);
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.size += size as u32;
        self.entries.push_back(Entry {
            at,
            name_len: name.len() as u32,
            value_len: value.len() as u32,
            tag,
        });
        true
    }

    fn compact(&mut self) {
        self.bytes.drain(..self.dead.min(self.bytes.len()));
        self.base = self.base.wrapping_add(self.dead as u32);
        self.dead = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_go_first_and_bytes_stay_right() {
        let mut table = Table::new(1000);
        assert_eq!(table.bytes.capacity() + table.entries.capacity(), 0);
        for n in 0..5000u32 {
            let name = format!("name-{n}");
            let value = "v".repeat(n as usize % 50);
            assert!(table.insert(name.as_bytes(), value.as_bytes(), n));
            assert!(table.size() <= 1000 && table.bytes.len() <= 2000 + 256);
            for back in 0..table.len() {
                let (entry, bytes) = table.newest(back).unwrap();
                assert_eq!(entry.tag, n - back);
                assert_eq!(
                    table
                        .oldest_but((n - back).wrapping_sub(table.oldest()))
                        .unwrap()
                        .1,
                    bytes
                );
                let (name, value) = bytes.split_at(entry.name_len as usize);
                assert_eq!(name, format!("name-{}", n - back).as_bytes());
                assert_eq!(value.len() as u32, (n - back) % 50);
            }
            assert!(table.newest(table.len()).is_none());
            assert!(table.oldest_but(table.len()).is_none());
        }
        table.set_limit(100);
        assert!(table.size() <= 100 && table.len() > 0);
        assert!(!table.insert(&[b'x'; 101], b"", 0));
        assert_eq!((table.len(), table.size(), table.bytes.len()), (0, 0, 0));
        table.set_limit(0);
        assert!(!table.insert(b"", b"", 0));
    }
}
