//! Header blocks encoded once: as a client or server sends them that uses the dynamic table as it is meant.
//!
//! The first block of a connection puts the fields that stay into the table, the later ones name them by their
//! index. Fields that change from request to request are sent as they are and not put there, so that indices stay.

use super::huffman;

/// How a field is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It is the same in every block: from the second on, an index.
    Indexed,
    /// It changes: the value is spelled out each time.
    Changing,
}

/// The parts of the static table that are used here: name, value, index.
const STATIC: &[(&str, &str, u8)] = &[
    (":authority", "", 1),
    (":method", "GET", 2),
    (":method", "POST", 3),
    (":path", "", 4),
    (":scheme", "http", 6),
    (":status", "200", 8),
    ("accept", "", 19),
    ("content-length", "", 28),
    ("content-type", "", 31),
    ("user-agent", "", 58),
];
/// The index of the newest entry of the dynamic table.
const NEWEST: u8 = 62;

/// One list of fields in the three forms in which it may be sent.
#[derive(Debug, Clone, Default)]
pub struct Block {
    /// Puts fields into the table.
    pub first: Vec<u8>,
    /// Names them.
    pub later: Vec<u8>,
    /// Uses no table; begins with giving it up.
    pub plain: Vec<u8>,
}

impl Block {
    /// The block of these fields, in this order; nothing may have been put into the table since its `first` form.
    pub fn new(fields: &[(&str, &str, Keep)]) -> Self {
        let mut block = Self {
            plain: vec![0x20],
            ..Self::default()
        };
        let fresh = fields
            .iter()
            .filter(|(name, value, keep)| {
                *keep == Keep::Indexed && !STATIC.iter().any(|(n, v, _)| n == name && v == value)
            })
            .count() as u8;
        let mut number = 0;
        for (name, value, keep) in fields {
            if let Some((_, _, index)) = STATIC
                .iter()
                .find(|(n, v, _)| n == name && v == value && !v.is_empty())
            {
                for form in [&mut block.first, &mut block.later, &mut block.plain] {
                    form.push(0x80 | index);
                }
                continue;
            }
            let index = STATIC
                .iter()
                .find(|(n, _, _)| n == name)
                .map_or(0, |(_, _, index)| *index);
            literal(&mut block.plain, 0x00, 4, index, name, value);
            if *keep == Keep::Changing {
                literal(&mut block.first, 0x00, 4, index, name, value);
                literal(&mut block.later, 0x00, 4, index, name, value);
            } else {
                literal(&mut block.first, 0x40, 6, index, name, value);
                number += 1;
                // Once all are there, the last one is the newest.
                block.later.push(0x80 | (NEWEST + fresh - number));
            }
        }
        block
    }
}

/// A field spelled out: its name by an index (of `bits` bits) where there is one.
fn literal(out: &mut Vec<u8>, pattern: u8, bits: u8, index: u8, name: &str, value: &str) {
    let limit = (1_u8 << bits) - 1;
    if index < limit {
        out.push(pattern | index);
    } else {
        out.push(pattern | limit);
        out.push(index - limit);
    }
    if index == 0 {
        string(out, name);
    }
    string(out, value);
}

fn string(out: &mut Vec<u8>, text: &str) {
    let coded = huffman::encode(text.as_bytes());
    let (flag, bytes) = if coded.len() < text.len() {
        (0x80, coded.as_slice())
    } else {
        (0, text.as_bytes())
    };
    // Seven bits, then seven more per byte.
    if bytes.len() < 127 {
        out.push(flag | bytes.len() as u8);
    } else {
        out.push(flag | 127);
        let mut rest = bytes.len() - 127;
        while rest >= 128 {
            out.push(0x80 | (rest & 127) as u8);
            rest >>= 7;
        }
        out.push(rest as u8);
    }
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_block_fills_the_table_that_the_later_ones_name() {
        let block = Block::new(&[
            (":method", "GET", Keep::Indexed),
            (":path", "/x", Keep::Changing),
            (":authority", "a", Keep::Indexed),
            ("x-b", "c", Keep::Indexed),
        ]);
        assert_eq!(block.later[0], 0x82);
        assert_eq!(block.later[block.later.len() - 2..], [0xbf, 0xbe]);
        assert_eq!(block.first[0], 0x82);
        // The path is in both, and not to be kept.
        assert_eq!(block.first[1], 0x04);
        assert_eq!(block.later[1], 0x04);
        assert!(block.plain.starts_with(&[0x20, 0x82, 0x04]));
    }

    #[test]
    fn indices_beyond_the_prefix_and_long_strings() {
        let mut out = Vec::new();
        literal(&mut out, 0x00, 4, 31, "content-type", "{");
        assert_eq!(out, [0x0f, 16, 1, b'{']);
        let mut out = Vec::new();
        string(&mut out, &"{".repeat(300));
        assert_eq!(out[..3], [127, 0xad, 1]);
        assert_eq!(out.len(), 303);
    }
}
