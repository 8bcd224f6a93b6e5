//! Fields to header blocks: the encoding side of a connection.
//!
//! What repeats is indexed, what does not is left out of the table: a field enters it when the same name and value are
//! seen a second time within a short while, so a value that is new with every request never pushes out one that is not.
//! Strings that enter the table are Huffman coded, for they are sent once; others are sent as they are, which costs
//! both sides less time than the few bytes are worth.

use super::huffman;
use super::integer;
use super::name::Pseudo;
use super::static_table;
use super::table::{OVERHEAD, Table};
use crate::h1::KnownHeader;

/// Places in the hash index; four times the entries that a table of the default size can have.
const SLOTS: usize = 512;
/// How far a field may lie from the place its hash names.
const PROBES: u32 = 4;
/// Places in the filter of recently seen fields.
const SEEN: usize = 128;
/// A short cookie may be guessed bit by bit from the size of what is sent: never indexed.
const SHORT_COOKIE: usize = 20;

/// How a field is to be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// Indexed as soon as it repeats.
    Repeating,
    /// New with every message: not worth a look.
    Fleeting,
    /// No hop may index it.
    Sensitive,
}

const fn policy(known: KnownHeader) -> Policy {
    match known {
        KnownHeader::Authorization | KnownHeader::ProxyAuthorization => Policy::Sensitive,
        KnownHeader::XRequestId
        | KnownHeader::Traceparent
        | KnownHeader::Tracestate
        | KnownHeader::B3
        | KnownHeader::XB3TraceId
        | KnownHeader::XB3SpanId
        | KnownHeader::XB3ParentSpanId
        | KnownHeader::XClientTraceId
        | KnownHeader::XOtSpanContext => Policy::Fleeting,
        _ => Policy::Repeating,
    }
}

/// The hash index and the filter, made when the first field comes that may repeat.
#[derive(Debug)]
struct Index {
    /// One more than the number of the entry (see [`Table::numbered`]); 0: free.
    slots: [u32; SLOTS],
    /// Parts of the hashes of fields that were not in the table when last sent.
    seen: [u16; SEEN],
}

#[derive(Debug)]
pub(crate) struct Encoder {
    /// Each entry is tagged with its hash.
    table: Table<u32>,
    index: Option<Box<Index>>,
    /// The largest table we care to keep.
    max_size: u32,
    /// Table size updates owed to the peer at the beginning of the next block: the smallest size since the last one.
    owed: Option<u32>,
}

impl Encoder {
    pub(crate) const fn new(max_size: u32) -> Self {
        Self {
            table: Table::new(super::DEFAULT_TABLE_SIZE),
            index: None,
            max_size,
            owed: None,
        }
    }

    /// The peer's `SETTINGS_HEADER_TABLE_SIZE`.
    pub(crate) fn set_peer_size(&mut self, size: u32) {
        let size = size.min(self.max_size);
        if size != self.table.limit() || self.owed.is_some() {
            self.owed = Some(self.owed.map_or(size, |least| least.min(size)));
            self.table.set_limit(size);
        }
    }

    /// To be called at the beginning of each block.
    #[inline]
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(least) = self.owed.take() {
            let size = self.table.limit();
            if least < size {
                integer::encode(out, 0x20, 0x1f, least);
            }
            integer::encode(out, 0x20, 0x1f, size);
        }
    }

    /// `:status`.
    #[inline]
    pub(crate) fn status(&mut self, out: &mut Vec<u8>, status: u16) {
        let index = match status {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => 0,
        };
        if index != 0 {
            out.push(0x80 | index);
            return;
        }
        let digit = |n: u16| b'0' + (n % 10) as u8;
        let digits = [digit(status / 100), digit(status / 10), digit(status)];
        self.repeating(out, 8, Pseudo::Status as u32, b":status", &digits);
    }

    /// A pseudo header of a request.
    #[inline]
    pub(crate) fn pseudo(&mut self, out: &mut Vec<u8>, pseudo: Pseudo, value: &[u8]) {
        let (index, name): (u32, &[u8]) = match (pseudo, value) {
            (Pseudo::Method, b"GET") => (2, b""),
            (Pseudo::Method, b"POST") => (3, b""),
            (Pseudo::Path, b"/") => (4, b""),
            (Pseudo::Scheme, b"http") => (6, b""),
            (Pseudo::Scheme, b"https") => (7, b""),
            (Pseudo::Authority, _) => (0, b":authority"),
            (Pseudo::Method, _) => (0, b":method"),
            (Pseudo::Path, _) => (0, b":path"),
            (Pseudo::Scheme, _) => (0, b":scheme"),
            (Pseudo::Status, _) => (0, b":status"),
            (Pseudo::Protocol, _) => (0, b":protocol"),
        };
        if index != 0 {
            out.push(0x80 | index as u8);
            return;
        }
        let name_index = static_table::index_of_pseudo(pseudo);
        self.repeating(out, name_index, pseudo as u32, name, value);
    }

    /// A header. The name is in lower case; `known` is what [`KnownHeader::from_name`] says of it.
    #[inline]
    pub(crate) fn header(
        &mut self,
        out: &mut Vec<u8>,
        known: KnownHeader,
        name: &[u8],
        value: &[u8],
        sensitive: bool,
    ) {
        let policy = match policy(known) {
            _ if sensitive => Policy::Sensitive,
            Policy::Repeating if known == KnownHeader::Cookie && value.len() < SHORT_COOKIE => {
                Policy::Sensitive
            }
            policy => policy,
        };
        match policy {
            Policy::Repeating => {
                if known == KnownHeader::AcceptEncoding && value == b"gzip, deflate" {
                    out.push(0x80 | 16);
                    return;
                }
                let seed = 8 + known as u32;
                self.repeating(out, name_index(known, name), seed, name, value);
            }
            Policy::Fleeting => literal(out, 0x00, name_index(known, name), name, value),
            Policy::Sensitive => literal(out, 0x10, name_index(known, name), name, value),
        }
    }

    /// A field that is worth a place in the table if it comes again. `seed` tells names apart.
    fn repeating(
        &mut self,
        out: &mut Vec<u8>,
        name_index: u32,
        seed: u32,
        name: &[u8],
        value: &[u8],
    ) {
        let hash = hash(seed, name, value);
        let size = name.len() as u64 + value.len() as u64 + u64::from(OVERHEAD);
        let index = self.index.get_or_insert_with(|| {
            Box::new(Index {
                slots: [0; SLOTS],
                seen: [0; SEEN],
            })
        });
        // The place for a new entry: the first one that no live entry has, else the last one looked at.
        let mut place = 0;
        let mut found_free = false;
        for probe in 0..PROBES {
            let at = (hash.wrapping_add(probe)) as usize % SLOTS;
            let number = index.slots.get(at).copied().unwrap_or(0).wrapping_sub(1);
            match self.table.numbered(number) {
                Some((entry, bytes)) => {
                    if entry.tag == hash
                        && entry.name_len as usize == name.len()
                        && bytes.split_at_checked(name.len()) == Some((name, value))
                    {
                        let behind = self.table.oldest().wrapping_add(self.table.len());
                        let distance = behind.wrapping_sub(number);
                        integer::encode(out, 0x80, 0x7f, static_table::COUNT + distance);
                        return;
                    }
                    if !found_free {
                        place = at;
                    }
                }
                None if !found_free => {
                    found_free = true;
                    place = at;
                }
                None => {}
            }
        }
        let mark = (hash >> 16) as u16 | 1;
        let seen = index.seen.get_mut(hash as usize / SLOTS % SEEN);
        let repeated = seen.is_some_and(|seen| std::mem::replace(seen, mark) == mark);
        if !repeated || size * 2 > u64::from(self.table.limit()) {
            literal(out, 0x00, name_index, name, value);
            return;
        }
        let number = self.table.oldest().wrapping_add(self.table.len());
        if self.table.insert(name, value, hash) {
            // Number u32::MAX would read as free; that entry is just not found.
            if let Some(slot) = index.slots.get_mut(place) {
                *slot = number.wrapping_add(1);
            }
            indexed_literal(out, name_index, name, value);
        } else {
            literal(out, 0x00, name_index, name, value);
        }
    }
}

#[inline]
fn name_index(known: KnownHeader, name: &[u8]) -> u32 {
    if known == KnownHeader::Other {
        static_table::index_of_other(name)
    } else {
        static_table::index_of_known(known)
    }
}

/// A literal that stays out of the table.
#[inline]
fn literal(out: &mut Vec<u8>, pattern: u8, name_index: u32, name: &[u8], value: &[u8]) {
    integer::encode(out, pattern, 0x0f, name_index);
    if name_index == 0 {
        integer::encode(out, 0, 0x7f, name.len() as u32);
        out.extend_from_slice(name);
    }
    integer::encode(out, 0, 0x7f, value.len() as u32);
    out.extend_from_slice(value);
}

#[cold]
fn indexed_literal(out: &mut Vec<u8>, name_index: u32, name: &[u8], value: &[u8]) {
    integer::encode(out, 0x40, 0x3f, name_index);
    if name_index == 0 {
        shorter(out, name);
    }
    shorter(out, value);
}

fn shorter(out: &mut Vec<u8>, text: &[u8]) {
    let coded = huffman::encoded_len(text);
    if coded < text.len() {
        integer::encode(out, 0x80, 0x7f, coded as u32);
        huffman::encode(out, text);
    } else {
        integer::encode(out, 0, 0x7f, text.len() as u32);
        out.extend_from_slice(text);
    }
}

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline]
fn hash(seed: u32, name: &[u8], value: &[u8]) -> u32 {
    let mut state = (u64::from(seed) << 32 | value.len() as u64).wrapping_mul(MULTIPLIER);
    if seed == 8 + KnownHeader::Other as u32 {
        state = mix_all(state ^ name.len() as u64, name);
    }
    let state = mix_all(state, value);
    (state ^ (state >> 32)) as u32
}

#[inline]
fn mix_all(mut state: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = mix(state, u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let word = if let Some(last) = bytes.last_chunk::<8>() {
            u64::from_le_bytes(*last)
        } else {
            rest.iter()
                .fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        state = mix(state, word);
    }
    state
}

#[inline]
fn mix(state: u64, word: u64) -> u64 {
    let wide = u128::from(state ^ word).wrapping_mul(u128::from(MULTIPLIER));
    (wide as u64) ^ (wide >> 64) as u64
}
