//! Word-wise search for the end of a name, a value and a target: eight bytes at a step, no table, no branch per byte.
//!
//! Each function returns the index of the first byte at or after `from` that ends the run, or `buf.len()`.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Flags (high bits) the bytes below `n`, which is at most 0x80. Flags above the first may be false, the first never is.
#[inline(always)]
const fn below(word: u64, n: u8) -> u64 {
    word.wrapping_sub(ONES * n as u64) & !word & HIGHS
}

/// Flags the bytes equal to `n`.
#[inline(always)]
const fn equal(word: u64, n: u8) -> u64 {
    below(word ^ (ONES * n as u64), 1)
}

#[inline(always)]
fn find(buf: &[u8], from: usize, flags: impl Fn(u64) -> u64, ends: impl Fn(u8) -> bool) -> usize {
    let mut at = from;
    while let Some(word) = buf
        .get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map(u64::from_le_bytes)
    {
        let found = flags(word);
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(byte) = buf.get(at) {
        if ends(*byte) {
            return at;
        }
        at += 1;
    }
    at
}

/// A colon, white space or any control character.
#[inline(always)]
pub(crate) fn name_end(buf: &[u8], from: usize) -> usize {
    find(
        buf,
        from,
        |w| equal(w, b':') | below(w, 0x21),
        |b| b == b':' || b <= 0x20,
    )
}

/// Any control character but tab; bytes from 0x80 on belong to the value.
#[inline(always)]
pub(crate) fn value_end(buf: &[u8], from: usize) -> usize {
    let mut at = from;
    loop {
        at = find(
            buf,
            at,
            |w| below(w, 0x20) | equal(w, 0x7f),
            |b| b < 0x20 || b == 0x7f,
        );
        if buf.get(at) != Some(&b'\t') {
            return at;
        }
        at += 1;
    }
}

/// Anything that is not printable ASCII.
#[inline(always)]
pub(crate) fn target_end(buf: &[u8], from: usize) -> usize {
    find(
        buf,
        from,
        |w| below(w, 0x21) | equal(w, 0x7f) | (w & HIGHS),
        |b| b <= 0x20 || b >= 0x7f,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place() {
        for at in 0..40 {
            for byte in 0..=255u8 {
                let mut buf = vec![b'a'; 40];
                buf[at] = byte;
                buf.push(b'\r');
                let expect = |ends: bool| if ends { at } else { 40 };
                assert_eq!(name_end(&buf, 0), expect(byte == b':' || byte <= 0x20));
                assert_eq!(
                    value_end(&buf, 0),
                    expect(byte != b'\t' && (byte < 0x20 || byte == 0x7f))
                );
                assert_eq!(target_end(&buf, 0), expect(byte <= 0x20 || byte >= 0x7f));
            }
        }
    }

    #[test]
    fn nothing_found_is_the_length() {
        assert_eq!(value_end(b"abc", 0), 3);
        assert_eq!(value_end(b"abc\t", 0), 4);
        assert_eq!(name_end(b"", 0), 0);
        assert_eq!(target_end(b"/abcdefghijklmnop", 3), 17);
    }
}
