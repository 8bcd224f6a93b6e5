//! Base64 (RFC 4648, with padding) of bodies that come in pieces.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The value of each character; 64 for `=`, 255 for all that has none.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, within both arrays"
)]
const VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut at = 0;
    while at < 64 {
        values[ALPHABET[at] as usize] = at as u8;
        at += 1;
    }
    values[b'=' as usize] = PADDING;
    values
};

const PADDING: u8 = 64;

/// Characters become bytes in groups of four; what is left of a group waits for the next piece.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Decoder {
    group: [u8; 4],
    have: usize,
}

/// A character that has no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

impl Decoder {
    /// Appends what the piece completes. Padding ends a piece: several encoded parts may follow one another, but not within
    /// what is given at once, as Envoy has it.
    pub(super) fn decode(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        let mut padded = false;
        for byte in data {
            let value = VALUES.get(usize::from(*byte)).copied().unwrap_or(255);
            if padded || value > PADDING {
                return Err(Malformed);
            }
            if let Some(slot) = self.group.get_mut(self.have) {
                *slot = value;
            }
            self.have += 1;
            if self.have == 4 {
                self.have = 0;
                padded = emit(self.group, out)?;
            }
        }
        Ok(())
    }

    /// Characters of a group that has been begun.
    pub(super) const fn have(&self) -> usize {
        self.have
    }
}

/// One group; whether it was padded.
fn emit(group: [u8; 4], out: &mut Vec<u8>) -> Result<bool, Malformed> {
    let bytes = match group {
        [PADDING, ..] | [_, PADDING, ..] => return Err(Malformed),
        [.., PADDING, PADDING] => 1,
        [.., PADDING, _] => return Err(Malformed),
        [.., PADDING] => 2,
        _ => 3,
    };
    let value = group
        .iter()
        .fold(0, |value: u32, six| value << 6 | u32::from(six % PADDING));
    let [_, decoded @ ..] = value.to_be_bytes();
    let (whole, rest) = decoded.split_at_checked(bytes).unwrap_or((&decoded, &[]));
    // Bits that belong to no byte are zero.
    if rest.iter().any(|byte| *byte != 0) {
        return Err(Malformed);
    }
    out.extend_from_slice(whole);
    Ok(bytes < 3)
}

/// Bytes become characters in groups of three; what is left of a group waits for the next piece or the end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Encoder {
    group: [u8; 3],
    have: usize,
}

impl Encoder {
    pub(super) fn encode(&mut self, mut data: &[u8], out: &mut Vec<u8>) {
        while self.have > 0
            && self.have < 3
            && let Some((first, rest)) = data.split_first()
        {
            self.push(*first, out);
            data = rest;
        }
        let mut groups = data.chunks_exact(3);
        for group in &mut groups {
            if let [x, y, z] = *group {
                put([x, y, z], 4, out);
            }
        }
        for byte in groups.remainder() {
            self.push(*byte, out);
        }
    }

    fn push(&mut self, byte: u8, out: &mut Vec<u8>) {
        if let Some(slot) = self.group.get_mut(self.have) {
            *slot = byte;
        }
        self.have += 1;
        if self.have == 3 {
            put(self.group, 4, out);
            self.have = 0;
        }
    }

    /// Pads what is left.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let [x, y, _] = self.group;
        match self.have {
            1 => put([x, 0, 0], 2, out),
            2 => put([x, y, 0], 3, out),
            _ => {}
        }
        self.have = 0;
    }
}

/// `count` characters of a group, then padding.
fn put([x, y, z]: [u8; 3], count: usize, out: &mut Vec<u8>) {
    let group = u32::from_be_bytes([0, x, y, z]);
    for at in 0..4 {
        let value = (group >> (18 - 6 * at)) & 63;
        let character = ALPHABET.get(value as usize).copied().unwrap_or(b'=');
        out.push(if (at as usize) < count {
            character
        } else {
            b'='
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648, section 10.
    const VECTORS: [(&str, &str); 7] = [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ];

    #[test]
    fn both_ways_in_pieces() {
        for (plain, encoded) in VECTORS {
            for size in 1..=8 {
                let (mut out, mut encoder) = (Vec::new(), Encoder::default());
                for piece in plain.as_bytes().chunks(size) {
                    encoder.encode(piece, &mut out);
                }
                encoder.finish(&mut out);
                assert_eq!(out, encoded.as_bytes(), "{plain} by {size}");
                let (mut out, mut decoder) = (Vec::new(), Decoder::default());
                for piece in encoded.as_bytes().chunks(size) {
                    decoder.decode(piece, &mut out).unwrap();
                }
                assert_eq!(out, plain.as_bytes(), "{encoded} by {size}");
                assert_eq!(decoder.have(), 0);
            }
        }
        let all: Vec<u8> = (0..=255).collect();
        let (mut text, mut back) = (Vec::new(), Vec::new());
        let mut encoder = Encoder::default();
        encoder.encode(&all, &mut text);
        encoder.finish(&mut text);
        Decoder::default().decode(&text, &mut back).unwrap();
        assert_eq!(back, all);
    }

    #[test]
    fn what_is_malformed() {
        for text in [
            "!!!!", "Zm9_", "Zm\r\n", "=AAA", "Z===", "Zm8=Zm9v", "Zm9=", "Zh==", "Zg=A",
        ] {
            let mut out = Vec::new();
            assert_eq!(
                Decoder::default().decode(text.as_bytes(), &mut out),
                Err(Malformed),
                "{text}"
            );
        }
        // Padded parts may follow one another in pieces of their own.
        let (mut out, mut decoder) = (Vec::new(), Decoder::default());
        decoder.decode(b"Zg==", &mut out).unwrap();
        decoder.decode(b"Zm9v", &mut out).unwrap();
        assert_eq!(out, b"ffoo");
        decoder.decode(b"Zm9", &mut out).unwrap();
        assert_eq!(decoder.have(), 3);
    }
}
