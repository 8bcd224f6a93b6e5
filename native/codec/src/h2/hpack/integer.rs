//! Integers with a prefix (RFC 7541 section 5.1).

/// The outcome of reading something that may not be there as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The block ends within.
    Incomplete,
    Invalid,
    /// A string longer than is allowed.
    TooLarge,
}

/// Reads the integer whose first byte is at `at` and has `mask` as its prefix; its value and what follows it.
#[inline]
pub(crate) fn decode(block: &[u8], at: usize, mask: u8) -> Result<(u32, usize), Fault> {
    let first = block.get(at).ok_or(Fault::Incomplete)? & mask;
    if first < mask {
        return Ok((u32::from(first), at + 1));
    }
    long(block, at + 1, u64::from(mask))
}

#[cold]
fn long(block: &[u8], mut at: usize, mut value: u64) -> Result<(u32, usize), Fault> {
    let mut shift = 0;
    loop {
        let byte = *block.get(at).ok_or(Fault::Incomplete)?;
        at += 1;
        value += u64::from(byte & 0x7f) << shift;
        if value > u64::from(u32::MAX) {
            return Err(Fault::Invalid);
        }
        if byte & 0x80 == 0 {
            return Ok((value as u32, at));
        }
        shift += 7;
        // Five bytes hold any value allowed here; more are zeros for the sake of length.
        if shift > 28 {
            return Err(Fault::Invalid);
        }
    }
}

/// Appends `value` with `pattern` in the bits above the prefix `mask`.
#[inline]
pub(crate) fn encode(out: &mut Vec<u8>, pattern: u8, mask: u8, value: u32) {
    if value < u32::from(mask) {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | mask);
    let mut rest = value - u32::from(mask);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_appendix() {
        let mut out = Vec::new();
        encode(&mut out, 0, 0x1f, 10);
        encode(&mut out, 0, 0x1f, 1337);
        encode(&mut out, 0, 0xff, 42);
        assert_eq!(out, [0x0a, 0x1f, 0x9a, 0x0a, 0x2a]);
        assert_eq!(decode(&out, 0, 0x1f), Ok((10, 1)));
        assert_eq!(decode(&out, 1, 0x1f), Ok((1337, 4)));
    }

    #[test]
    fn limits() {
        for value in [
            0,
            14,
            15,
            16,
            127,
            128,
            254,
            255,
            4096,
            u32::MAX - 1,
            u32::MAX,
        ] {
            for mask in [0x0f, 0x1f, 0x3f, 0x7f] {
                let mut out = Vec::new();
                encode(&mut out, 0x80, mask, value);
                assert_eq!(decode(&out, 0, mask), Ok((value, out.len())));
                for cut in 0..out.len() {
                    assert_eq!(decode(&out[..cut], 0, mask), Err(Fault::Incomplete));
                }
            }
        }
        assert_eq!(
            decode(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0x0f], 0, 0x7f),
            Err(Fault::Invalid)
        );
        assert_eq!(
            decode(&[0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00], 0, 0x7f),
            Err(Fault::Invalid)
        );
    }
}
