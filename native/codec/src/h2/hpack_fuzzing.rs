//! Claims about HPACK for all inputs, see [`crate::fuzzing`].

use super::arena::Arena;
use super::hpack::decoder::{Decoder, Sink, Traits};
use super::hpack::encoder::Encoder;
use super::hpack::name::Name;
use crate::h1::{KnownHeader, Span};

/// Every field as text, and how large the arena became.
#[derive(Default)]
struct Fields {
    arena: Arena,
    list: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Sink for Fields {
    fn arena(&mut self) -> &mut Arena {
        &mut self.arena
    }

    fn wants_fields(&self) -> bool {
        true
    }

    fn field(&mut self, _: Name, name_at: Span, value_at: Span, _: Traits) {
        let text = |span| self.arena.of(span).to_vec();
        self.list.push((text(name_at), text(value_at)));
        self.arena.clear();
    }
}

/// Longest name or value.
const MAX_STRING: u32 = 4096;

/// Any bytes as blocks of one connection: no panic, and no field larger than allowed.
pub fn hpack_decode(data: &[u8]) {
    let mut decoder = Decoder::new(MAX_STRING);
    for block in data.split(|byte| *byte == 0x0a) {
        let mut fields = Fields::default();
        let Ok(used) = decoder.decode(block, true, true, &mut fields) else {
            return;
        };
        assert!(used <= block.len());
        for (name, value) in &fields.list {
            assert!(name.len() <= MAX_STRING as usize && value.len() <= MAX_STRING as usize);
        }
    }
}

/// What one side encodes the other decodes, through any sequence of fields and table sizes.
pub fn hpack_round_trip(data: &[u8]) {
    let mut encoder = Encoder::new(4096);
    let mut decoder = Decoder::new(MAX_STRING);
    for block in data.split(|byte| *byte == 0) {
        let mut wanted = Vec::new();
        if let Some((&[size], _)) = block.split_first_chunk() {
            let size = u32::from(size) * 16;
            encoder.set_peer_size(size);
            decoder.set_max_size(size);
        }
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for field in block.split(|byte| *byte == b'\n') {
            let at = field.iter().position(|byte| *byte == b':');
            let (name, value) = field.split_at(at.unwrap_or(0));
            let name: Vec<u8> = name
                .iter()
                .map(|byte| b'a' + (byte.to_ascii_lowercase() % 26))
                .collect();
            let value = value.get(1..).unwrap_or_default();
            if name.is_empty() || value.len() > MAX_STRING as usize {
                continue;
            }
            let known = KnownHeader::from_name(&name);
            encoder.header(&mut out, known, &name, value, value.first() == Some(&b'!'));
            wanted.push((name, value.to_vec()));
        }
        let mut fields = Fields::default();
        let decoded = decoder.decode(&out, true, true, &mut fields);
        assert!(decoded.is_ok_and(|used| used == out.len()), "our own block");
        assert_eq!(fields.list, wanted);
    }
}
