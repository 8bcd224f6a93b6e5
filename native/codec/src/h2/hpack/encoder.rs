//! Fields to header blocks: the encoding side of a connection.
//!
//! What repeats is indexed, what does not is left out of the table: a field enters it when the same name and value are
//! seen a second time within a short while, so a value that is new with every request never pushes out one that is not.
//! Strings that enter the table are Huffman coded, for they are sent once; others are sent as they are, which costs
//! both sides less time than the few bytes are worth.

use super::huffman;
use super::integer;
use super::name::{Name, Pseudo};
use super::static_table;
use super::table::{OVERHEAD, Table};
use crate::h1::KnownHeader;

/// Places in the hash index: twice the entries that a table of the default size can have.
const SLOTS: usize = 256;
/// How far a field may lie from the place its hash names.
const PROBES: u32 = 4;
/// The filter of recently seen fields: so many sets of the last few whose hashes fall into it.
const SETS: usize = 32;
const SET: usize = 4;
/// What an entry that pushes out others costs, in finds; and how many finds can be saved up. More fields in use than the
/// table holds would otherwise push each other out for ever.
const COST: u16 = 4;
const SAVINGS: u16 = 256;
/// A short cookie may be guessed bit by bit from the size of what is sent: never indexed.
const SHORT_COOKIE: usize = 20;

/// How a field is to be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// Indexed as soon as it repeats.
    Repeating,
    /// New with every message, or nearly: not worth a look.
    Fleeting,
    /// No hop may index it.
    Sensitive,
    /// Sensitive if it is short.
    Cookie,
    /// Has a value in the static table.
    AcceptEncoding,
}

static POLICIES: [Policy; 128] = policies();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, bounded by the loop"
)]
const fn policies() -> [Policy; 128] {
    let mut table = [Policy::Repeating; 128];
    let mut i = 0;
    while i < KnownHeader::ALL.len() {
        let known = KnownHeader::ALL[i];
        table[known as usize] = match known {
            KnownHeader::Authorization | KnownHeader::ProxyAuthorization => Policy::Sensitive,
            KnownHeader::Cookie => Policy::Cookie,
            KnownHeader::AcceptEncoding => Policy::AcceptEncoding,
            KnownHeader::SetCookie
            | KnownHeader::XRequestId
            | KnownHeader::Traceparent
            | KnownHeader::Tracestate
            | KnownHeader::B3
            | KnownHeader::XB3TraceId
            | KnownHeader::XB3SpanId
            | KnownHeader::XB3ParentSpanId
            | KnownHeader::XClientTraceId
            | KnownHeader::XOtSpanContext => Policy::Fleeting,
            _ => Policy::Repeating,
        };
        i += 1;
    }
    table
}

/// Parts of the hashes of fields that were not in the table when last sent, the latest first.
#[derive(Debug, Default)]
struct Seen([[u16; SET]; SETS]);

impl Seen {
    /// Whether the field of that hash was here a short while ago; now it was.
    fn note(&mut self, hash: u32) -> bool {
        let mark = (hash >> 16) as u16 | 1;
        let Some(set) = self.0.get_mut((hash >> 8) as usize % SETS) else {
            return false;
        };
        let found = set.contains(&mark);
        if !found {
            set.rotate_right(1);
            if let Some(first) = set.first_mut() {
                *first = mark;
            }
        }
        found
    }
}

#[derive(Debug)]
pub(crate) struct Encoder {
    /// Each entry is tagged with the hash of its field.
    table: Table<u32>,
    /// The low bits of the numbers of entries (see [`Table::oldest`]), by hash. What lies beyond the table's ends is free.
    slots: Option<Box<[u16; SLOTS]>>,
    seen: Option<Box<Seen>>,
    savings: u16,
    /// The largest table we care to keep.
    max_size: u32,
    /// Table size updates owed to the peer at the beginning of the next block: the smallest size since the last one.
    owed: Option<u32>,
}

impl Encoder {
    pub(crate) fn new(max_size: u32) -> Self {
        let mut encoder = Self {
            table: Table::new(super::DEFAULT_TABLE_SIZE),
            slots: None,
            seen: None,
            savings: SAVINGS,
            max_size,
            owed: None,
        };
        encoder.set_peer_size(super::DEFAULT_TABLE_SIZE);
        encoder
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
        self.repeating(out, Name::Pseudo(Pseudo::Status), b":status", &digits);
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
        self.repeating(out, Name::Pseudo(pseudo), name, value);
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
        let policy = POLICIES.get(known as usize).copied();
        match policy.unwrap_or(Policy::Repeating) {
            _ if sensitive => literal(out, 0x10, name_index(known, name), name, value),
            Policy::Repeating => self.repeating(out, Name::Header(known), name, value),
            Policy::Fleeting => literal(out, 0x00, name_index(known, name), name, value),
            Policy::Cookie if value.len() >= SHORT_COOKIE => {
                self.repeating(out, Name::Header(known), name, value);
            }
            Policy::Sensitive | Policy::Cookie => {
                literal(out, 0x10, name_index(known, name), name, value);
            }
            Policy::AcceptEncoding if value == b"gzip, deflate" => out.push(0x80 | 16),
            Policy::AcceptEncoding => self.repeating(out, Name::Header(known), name, value),
        }
    }

    /// A field that is worth a place in the table if it comes again.
    #[inline]
    fn repeating(&mut self, out: &mut Vec<u8>, kind: Name, name: &[u8], value: &[u8]) {
        let hash = hash(kind, name, value);
        if let Some(slots) = &self.slots {
            for probe in 0..PROBES {
                let number = slots.get(place(hash, probe)).copied().unwrap_or(0);
                let offset = number.wrapping_sub(self.table.oldest() as u16);
                if let Some((entry, bytes)) = self.table.oldest_but(u32::from(offset))
                    && entry.tag == hash
                    && let Some((its_name, its_value)) =
                        bytes.split_at_checked(entry.name_len as usize)
                    && its_value == value
                    // The hash tells all names apart but those that are not known.
                    && (kind != Name::Header(KnownHeader::Other) || its_name == name)
                {
                    let distance = self.table.len() - u32::from(offset);
                    integer::encode(out, 0x80, 0x7f, static_table::COUNT + distance);
                    self.savings = (self.savings + 1).min(SAVINGS);
                    return;
                }
            }
        }
        self.missing(out, hash, kind, name, value);
    }

    /// A field that is not in the table: it enters if it was seen before.
    #[inline(never)]
    fn missing(&mut self, out: &mut Vec<u8>, hash: u32, kind: Name, name: &[u8], value: &[u8]) {
        let name_index = match kind {
            Name::Pseudo(pseudo) => static_table::index_of_pseudo(pseudo),
            Name::Header(known) => name_index(known, name),
            Name::Invalid => 0,
        };
        let repeated = self.seen.get_or_insert_default().note(hash);
        let size = name.len() as u64 + value.len() as u64 + u64::from(OVERHEAD);
        if !repeated || size * 2 > u64::from(self.table.limit()) || !self.can_afford(size) {
            literal(out, 0x00, name_index, name, value);
            return;
        }
        let number = self.table.oldest().wrapping_add(self.table.len());
        self.table.insert(name, value, hash);
        let slots = self.slots.get_or_insert_with(|| Box::new([0; SLOTS]));
        // The first place that no entry has, or else the last.
        let mut chosen = 0;
        for probe in 0..PROBES {
            chosen = place(hash, probe);
            let there = slots.get(chosen).copied().unwrap_or(0);
            let offset = there.wrapping_sub(self.table.oldest() as u16);
            let taken = self
                .table
                .oldest_but(u32::from(offset))
                .is_some_and(|(entry, _)| is_place_of(chosen, entry.tag));
            if !taken {
                break;
            }
        }
        if let Some(slot) = slots.get_mut(chosen) {
            *slot = number as u16;
        }
        indexed_literal(out, name_index, name, value);
    }

    /// Whether an entry of that size is worth those that it pushes out.
    fn can_afford(&mut self, size: u64) -> bool {
        if u64::from(self.table.size()) + size <= u64::from(self.table.limit()) {
            return true;
        }
        let left = self.savings.checked_sub(COST);
        self.savings = left.unwrap_or(self.savings);
        left.is_some()
    }
}

/// Whether an entry of that hash may be found at `place`: what a slot says may be long out of date.
fn is_place_of(at: usize, hash: u32) -> bool {
    at.wrapping_sub(place(hash, 0)) % SLOTS < PROBES as usize
}

#[inline]
const fn place(hash: u32, probe: u32) -> usize {
    // The lowest eight bits are the name's.
    (hash >> 8).wrapping_add(probe) as usize % SLOTS
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

/// The hash of a field; its lowest eight bits are the kind of its name.
#[inline]
fn hash(kind: Name, name: &[u8], value: &[u8]) -> u32 {
    let kind = match kind {
        Name::Pseudo(pseudo) => 0x80 | pseudo as u8,
        Name::Header(known) => known as u8,
        Name::Invalid => 0xff,
    };
    let mut state = (u64::from(kind) << 32 | value.len() as u64).wrapping_mul(MULTIPLIER);
    if kind == KnownHeader::Other as u8 {
        state = mix_all(state ^ name.len() as u64, name);
    }
    let state = mix_all(state, value);
    (state ^ (state >> 32)) as u32 & !0xff | u32::from(kind)
}

#[inline]
fn mix_all(mut state: u64, bytes: &[u8]) -> u64 {
    let Some(last) = bytes.last_chunk::<8>() else {
        return mix(state, short(bytes));
    };
    let (words, _) = bytes.as_chunks::<8>();
    for word in words {
        state = mix(state, u64::from_le_bytes(*word));
    }
    mix(state, u64::from_le_bytes(*last))
}

/// Up to seven bytes as a number; the length goes into the hash on its own.
#[inline]
fn short(bytes: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last));
    }
    bytes
        .iter()
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[inline]
fn mix(state: u64, word: u64) -> u64 {
    let wide = u128::from(state ^ word).wrapping_mul(u128::from(MULTIPLIER));
    (wide as u64) ^ (wide >> 64) as u64
}
