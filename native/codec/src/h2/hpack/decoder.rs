//! Header blocks to fields: the decoding side of a connection.
//!
//! Whatever the sink thinks of a field, the dynamic table is kept in step, so that a refused block does not spoil the
//! ones that follow. A block may be fed in pieces; only whole fields are taken from a piece.

use super::huffman;
use super::integer::{self, Fault};
use super::name::{Name, Pseudo};
use super::static_table;
use super::table::Table;
use crate::h1::{KnownHeader, Span, authority, chars, scan};
use crate::h2::arena::Arena;

/// Why a block cannot be decoded. Either ends the connection with `COMPRESSION_ERROR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecodeError {
    Malformed,
    /// A name or value longer than is allowed.
    FieldTooLarge,
}

/// What the decoder found out about a value, kept with its table entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Traits(u8);

impl Traits {
    /// A character no value may have.
    const BAD: u8 = 1;
    /// White space at either end.
    const PADDED: u8 = 2;
    /// The sender forbids indexing on any hop (RFC 7541 section 6.2.3).
    const NEVER_INDEXED: u8 = 4;
    /// A header whose name and value need no further look.
    const PLAIN: u8 = 8;
    /// A valid authority, if it is used as one.
    const AUTHORITY: u8 = 16;

    #[inline]
    pub(crate) const fn is_bad(self) -> bool {
        self.0 & Self::BAD != 0
    }

    #[inline]
    pub(crate) const fn is_padded(self) -> bool {
        self.0 & Self::PADDED != 0
    }

    #[inline]
    pub(crate) const fn is_never_indexed(self) -> bool {
        self.0 & Self::NEVER_INDEXED != 0
    }

    #[inline]
    pub(crate) const fn is_plain(self) -> bool {
        self.0 & Self::PLAIN != 0
    }

    #[inline]
    pub(crate) const fn is_authority(self) -> bool {
        self.0 & Self::AUTHORITY != 0
    }

    /// What is found out once for a field that enters the table, so that it need not be each time it is referred to.
    #[cold]
    fn for_table(mut self, kind: Name, name: &[u8], value: &[u8]) -> Self {
        match kind {
            Name::Header(known)
                if self.0 == 0
                    && !known.is_framing()
                    && known != KnownHeader::Cookie
                    && !name.contains(&b'_') =>
            {
                self.0 |= Self::PLAIN;
            }
            Name::Pseudo(Pseudo::Authority) if authority::is_valid(value) => {
                self.0 |= Self::AUTHORITY;
            }
            _ => {}
        }
        self
    }

    #[inline]
    fn of_value(value: &[u8]) -> Self {
        let bad = scan::value_end(value, 0) != value.len();
        let space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        let padded = space(value.first()) || space(value.last());
        Self((u8::from(bad) * Self::BAD) | (u8::from(padded) * Self::PADDED))
    }
}

/// What receives the fields of a block.
pub(crate) trait Sink {
    /// Where names and values are put.
    fn arena(&mut self) -> &mut Arena;
    /// Whether fields are still looked at. Otherwise only the table is kept up to date.
    fn wants_fields(&self) -> bool;
    /// A wanted field, its name and value at the end of the arena.
    fn field(&mut self, name: Name, name_at: Span, value_at: Span, traits: Traits);
}

#[derive(Debug, Clone, Copy)]
struct Tag {
    name: Name,
    traits: Traits,
}

#[derive(Debug)]
pub(crate) struct Decoder {
    table: Table<Tag>,
    /// The largest table the peer may ask for: what our SETTINGS say, once acknowledged.
    max_size: u32,
    /// The next block must begin by making the table smaller (RFC 7541 section 4.2).
    must_shrink: bool,
    /// Bytes a name or a value may have, encoded or not.
    max_string: u32,
}

/// How a literal is represented.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Literal {
    Indexed,
    Plain,
    Never,
}

impl Decoder {
    pub(crate) fn new(max_string: u32) -> Self {
        Self {
            table: Table::new(super::DEFAULT_TABLE_SIZE),
            max_size: super::DEFAULT_TABLE_SIZE,
            must_shrink: false,
            max_string,
        }
    }

    /// The peer has acknowledged `SETTINGS_HEADER_TABLE_SIZE`.
    pub(crate) fn set_max_size(&mut self, size: u32) {
        self.max_size = size;
        self.must_shrink = size < self.table.limit();
    }

    /// Decodes the whole fields of `block` and returns how many bytes they took. `first`: the block begins here; `last`:
    /// it ends here.
    pub(crate) fn decode(
        &mut self,
        block: &[u8],
        first: bool,
        last: bool,
        sink: &mut impl Sink,
    ) -> Result<usize, DecodeError> {
        let mut at = 0;
        if first {
            at = self.size_updates(block)?;
            if self.must_shrink && (at < block.len() || last) {
                return Err(DecodeError::Malformed);
            }
        }
        while let Some(byte) = block.get(at) {
            let mark = sink.arena().end();
            let next = if byte & 0x80 != 0 {
                self.indexed(block, at, sink)
            } else if byte & 0x40 != 0 {
                self.literal(block, at, 0x3f, Literal::Indexed, sink)
            } else if byte & 0x20 != 0 {
                // A size update is allowed at the beginning of a block only.
                Err(Fault::Invalid)
            } else if byte & 0x10 != 0 {
                self.literal(block, at, 0x0f, Literal::Never, sink)
            } else {
                self.literal(block, at, 0x0f, Literal::Plain, sink)
            };
            match next {
                Ok(next) => at = next,
                Err(Fault::Incomplete) if !last => {
                    sink.arena().cut(mark);
                    if block.len() - at > 2 * self.max_string as usize + 16 {
                        return Err(DecodeError::FieldTooLarge);
                    }
                    return Ok(at);
                }
                Err(Fault::TooLarge) => return Err(DecodeError::FieldTooLarge),
                Err(_) => return Err(DecodeError::Malformed),
            }
        }
        Ok(at)
    }

    fn size_updates(&mut self, block: &[u8]) -> Result<usize, DecodeError> {
        let mut at = 0;
        while let Some(0x20..=0x3f) = block.get(at) {
            let Ok((size, next)) = integer::decode(block, at, 0x1f) else {
                return Err(DecodeError::Malformed);
            };
            if size > self.max_size {
                return Err(DecodeError::Malformed);
            }
            self.table.set_limit(size);
            self.must_shrink = false;
            at = next;
        }
        Ok(at)
    }

    #[inline]
    fn indexed(&mut self, block: &[u8], at: usize, sink: &mut impl Sink) -> Result<usize, Fault> {
        let (index, next) = integer::decode(block, at, 0x7f)?;
        if let Some(row) = static_table::get(index) {
            if sink.wants_fields() {
                let (name, value) = put(sink, row.text.as_bytes(), usize::from(row.name_len));
                sink.field(row.kind, name, value, Traits::default());
            }
            return Ok(next);
        }
        let index = index
            .checked_sub(static_table::COUNT + 1)
            .ok_or(Fault::Invalid)?;
        let (entry, bytes) = self.table.newest(index).ok_or(Fault::Invalid)?;
        if sink.wants_fields() {
            let (name, value) = put(sink, bytes, entry.name_len as usize);
            sink.field(entry.tag.name, name, value, entry.tag.traits);
        }
        Ok(next)
    }

    #[inline]
    fn literal(
        &mut self,
        block: &[u8],
        at: usize,
        mask: u8,
        kind: Literal,
        sink: &mut impl Sink,
    ) -> Result<usize, Fault> {
        let (index, next) = integer::decode(block, at, mask)?;
        let arena = sink.arena();
        let start = arena.end();
        let (name, next) = if index == 0 {
            let next = self.string(block, next, arena)?;
            (classify(arena.of(Span::new(start, arena.end()))), next)
        } else if let Some(row) = static_table::get(index) {
            arena.push(row.name().as_bytes());
            (row.kind, next)
        } else {
            let (entry, bytes) = self
                .table
                .newest(index - static_table::COUNT - 1)
                .ok_or(Fault::Invalid)?;
            arena.push(bytes.get(..entry.name_len as usize).unwrap_or_default());
            (entry.tag.name, next)
        };
        let middle = arena.end();
        let next = self.string(block, next, arena)?;
        let (name_at, value_at) = (Span::new(start, middle), Span::new(middle, arena.end()));
        let value = arena.of(value_at);
        let mut traits = Traits::of_value(value);
        if kind == Literal::Indexed {
            let text = arena.of(name_at);
            let traits = traits.for_table(name, text, value);
            self.table.insert(text, value, Tag { name, traits });
        } else if kind == Literal::Never {
            traits.0 |= Traits::NEVER_INDEXED;
        }
        if sink.wants_fields() {
            sink.field(name, name_at, value_at, traits);
        } else {
            sink.arena().cut(start);
        }
        Ok(next)
    }

    /// Puts the string at `at` into the arena; what follows it.
    #[inline]
    fn string(&self, block: &[u8], at: usize, arena: &mut Arena) -> Result<usize, Fault> {
        let coded = block.get(at).ok_or(Fault::Incomplete)? & 0x80 != 0;
        let (length, start) = integer::decode(block, at, 0x7f)?;
        if length > self.max_string {
            return Err(Fault::TooLarge);
        }
        let end = start + length as usize;
        let bytes = block.get(start..end).ok_or(Fault::Incomplete)?;
        if coded {
            let space = arena.space(huffman::room_for(bytes.len()));
            let written = huffman::decode(bytes, space).ok_or(Fault::Invalid)?;
            arena.keep(written);
        } else {
            arena.push(bytes);
        }
        Ok(end)
    }
}

/// Puts a name and a value that adjoin into the arena.
#[inline]
fn put(sink: &mut impl Sink, text: &[u8], name_len: usize) -> (Span, Span) {
    let arena = sink.arena();
    let start = arena.end();
    arena.push(text);
    let middle = start + name_len;
    (Span::new(start, middle), Span::new(middle, arena.end()))
}

/// What a literal name is.
fn classify(name: &[u8]) -> Name {
    if name.first() == Some(&b':') {
        return Name::pseudo(name);
    }
    if name.is_empty() || !chars::all(&chars::LOWER_TOKEN, name) {
        return Name::Invalid;
    }
    Name::Header(KnownHeader::classify(name))
}
