//! Huffman coding of strings: twelve bits a step when decoding, which is two letters of an ordinary value.

use super::huffman_code::{CANONICAL, LENGTHS, LONGEST};

/// Bits looked at in one step.
const STEP: u32 = 12;
const ENTRIES: usize = 1 << STEP;

/// One step: a first byte and its bits, and a second byte if both codes fit. `both` equals `first_bits` when there is
/// one byte only; `first_bits` is 0 where the code is longer than a step.
#[derive(Clone, Copy)]
struct Entry {
    bytes: [u8; 2],
    first_bits: u8,
    both_bits: u8,
}

static STEPS: [Entry; ENTRIES] = steps();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, bounded by the loops"
)]
const fn steps() -> [Entry; ENTRIES] {
    let mut table = [Entry {
        bytes: [0; 2],
        first_bits: 0,
        both_bits: 0,
    }; ENTRIES];
    let mut place = 0;
    while place < 256 {
        let first = CANONICAL.symbols[place];
        let bits = LENGTHS[first as usize] as u32;
        if bits > STEP {
            break;
        }
        let from = (CANONICAL.codes[first as usize] as usize) << (STEP - bits);
        let mut at = from;
        while at < from + (1 << (STEP - bits)) {
            table[at] = Entry {
                bytes: [first, 0],
                first_bits: bits as u8,
                both_bits: bits as u8,
            };
            at += 1;
        }
        let mut next = 0;
        while next < 256 {
            let second = CANONICAL.symbols[next];
            let both = bits + LENGTHS[second as usize] as u32;
            if both > STEP {
                break;
            }
            let start = from + ((CANONICAL.codes[second as usize] as usize) << (STEP - both));
            let mut at = start;
            while at < start + (1 << (STEP - both)) {
                table[at].bytes[1] = second;
                table[at].both_bits = both as u8;
                at += 1;
            }
            next += 1;
        }
        place += 1;
    }
    table
}

/// No code is shorter than five bits, and a step may write one byte more than it keeps.
#[inline]
pub(crate) const fn room_for(encoded: usize) -> usize {
    encoded * 8 / 5 + 2
}

/// Decodes `src` into `dst`, which has [`room_for`] it; the number of bytes written. `None`: not Huffman coded, ended by
/// anything but up to seven ones, or with the end-of-string symbol within.
pub(crate) fn decode(src: &[u8], dst: &mut [u8]) -> Option<usize> {
    // Bits that wait to be read, from the top; below them zeros.
    let mut bits: u64 = 0;
    let mut have: u32 = 0;
    let mut rest = src;
    let mut at = 0;
    while let Some((word, _)) = rest.split_first_chunk::<8>() {
        bits |= u64::from_be_bytes(*word) >> have;
        let taken = (63 - have) / 8;
        rest = rest.get(taken as usize..).unwrap_or_default();
        have += taken * 8;
        // At least 56 bits are there: four steps, or one long code.
        let mut steps = 0;
        while steps < 4 {
            let entry = STEPS.get((bits >> (64 - STEP)) as usize)?;
            if entry.first_bits == 0 {
                break;
            }
            *dst.get_mut(at..at + 2)?.first_chunk_mut::<2>()? = entry.bytes;
            at += 1 + usize::from(entry.both_bits != entry.first_bits);
            bits <<= entry.both_bits;
            have -= u32::from(entry.both_bits);
            steps += 1;
        }
        if steps < 4 && have >= LONGEST as u32 {
            let (byte, length) = long(bits)?;
            *dst.get_mut(at)? = byte;
            at += 1;
            bits <<= length;
            have -= length;
        }
    }
    // Below the bits that wait there may be those of bytes not yet counted.
    bits &= !(u64::MAX >> have);
    tail(bits, have, rest, dst, at)
}

/// The last few bytes, less than eight beside the bits that wait.
fn tail(mut bits: u64, mut have: u32, rest: &[u8], dst: &mut [u8], mut at: usize) -> Option<usize> {
    let mut rest = rest.iter();
    loop {
        while have < 56
            && let Some(byte) = rest.next()
        {
            bits |= u64::from(*byte) << (56 - have);
            have += 8;
        }
        // Bits that are not there count as ones, which is what a string is padded with.
        let filled = bits | (u64::MAX >> have);
        let entry = STEPS.get((filled >> (64 - STEP)) as usize)?;
        let (first, both) = (u32::from(entry.first_bits), u32::from(entry.both_bits));
        let length = if first == 0 {
            if have < 8 {
                // A long code begins with eight ones: this is padding or a fault.
                return (filled >> 56 == 0xff).then_some(at);
            }
            let (byte, length) = long(filled)?;
            *dst.get_mut(at)? = byte;
            at += 1;
            length
        } else if both <= have {
            *dst.get_mut(at..at + 2)?.first_chunk_mut::<2>()? = entry.bytes;
            at += 1 + usize::from(both != first);
            both
        } else {
            let [byte, _] = entry.bytes;
            *dst.get_mut(at)? = byte;
            at += 1;
            first
        };
        // Not a whole code: what is missing was made of ones, and padding is all ones.
        have = have.checked_sub(length)?;
        bits <<= length;
    }
}

/// A code longer than a step.
#[cold]
fn long(bits: u64) -> Option<(u8, u32)> {
    let mut length = STEP as usize + 1;
    while length <= LONGEST {
        let code = (bits >> (64 - length)) as u32;
        let offset = code.wrapping_sub(*CANONICAL.first.get(length)?);
        if offset < u32::from(*CANONICAL.count.get(length)?) {
            let place = usize::from(*CANONICAL.place.get(length)?) + offset as usize;
            return Some((*CANONICAL.symbols.get(place)?, length as u32));
        }
        length += 1;
    }
    None
}

/// Bytes that `text` takes when encoded.
pub(crate) fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text
        .iter()
        .map(|byte| usize::from(LENGTHS.get(*byte as usize).copied().unwrap_or(0)))
        .sum();
    bits.div_ceil(8)
}

static CODES: [u32; 256] = CANONICAL.codes;

/// Appends `text`, encoded.
pub(crate) fn encode(out: &mut Vec<u8>, text: &[u8]) {
    let mut bits: u64 = 0;
    let mut have: u32 = 0;
    for byte in text {
        let code = CODES.get(*byte as usize).copied().unwrap_or(0);
        let length = u32::from(LENGTHS.get(*byte as usize).copied().unwrap_or(0));
        bits = bits << length | u64::from(code);
        have += length;
        if have >= 32 {
            have -= 32;
            out.extend_from_slice(&((bits >> have) as u32).to_be_bytes());
        }
    }
    while have >= 8 {
        have -= 8;
        out.push((bits >> have) as u8);
    }
    if have > 0 {
        out.push((bits << (8 - have)) as u8 | (0xff >> have));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(text: &[u8]) -> Vec<u8> {
        let mut coded = Vec::new();
        encode(&mut coded, text);
        assert_eq!(coded.len(), encoded_len(text));
        let mut plain = vec![0; room_for(coded.len())];
        let len = decode(&coded, &mut plain).unwrap();
        plain.truncate(len);
        plain
    }

    fn refused(coded: &[u8]) -> bool {
        decode(coded, &mut vec![0; room_for(coded.len())]).is_none()
    }

    #[test]
    fn vectors_of_the_appendix() {
        for (text, hex) in [
            ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
            ("no-cache", "a8eb10649cbf"),
            ("custom-value", "25a849e95bb8e8b4bf"),
            ("302", "6402"),
            (
                "Mon, 21 Oct 2013 20:13:21 GMT",
                "d07abe941054d444a8200595040b8166e082a62d1bff",
            ),
            (
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
                "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
            ),
        ] {
            let mut coded = Vec::new();
            encode(&mut coded, text.as_bytes());
            assert_eq!(coded, crate::h2::tests::hex(hex));
            assert_eq!(round(text.as_bytes()), text.as_bytes());
        }
    }

    #[test]
    fn every_byte_in_every_surrounding() {
        for byte in 0..=255u8 {
            for before in 0..9 {
                for after in 0..9 {
                    let mut text = vec![b'a'; before];
                    text.push(byte);
                    text.extend(std::iter::repeat_n(b'0', after));
                    assert_eq!(round(&text), text);
                    text.push(byte);
                    text.push(byte);
                    assert_eq!(round(&text), text);
                }
            }
        }
        assert_eq!(round(b""), b"");
    }

    #[test]
    fn bad_endings() {
        assert!(!refused(&[0x1f])); // a, then three ones
        assert!(refused(&[0x18])); // a, then three zeros
        assert!(refused(&[0x1f, 0xff])); // a, then eleven ones
        assert!(refused(&[0xff]));
        // The end-of-string symbol, alone and within.
        assert!(refused(&[0xff; 4]));
        assert!(refused(&[0xff; 40]));
        assert!(refused(&[
            0x1f, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0
        ]));
    }
}
