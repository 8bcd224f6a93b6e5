//! Character classes of RFC 9110 and 3986 as tables, for what the word-wise scanners cannot judge.

/// `tchar`: header names.
pub(crate) static TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~");

/// `tchar` without capital letters: header names of HTTP/2.
pub(crate) static LOWER_TOKEN: [bool; 256] = without_capitals(table(b"!#$%&'*+-.^_`|~"));

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, bounded by the loop"
)]
const fn without_capitals(mut table: [bool; 256]) -> [bool; 256] {
    let mut byte = b'A' as usize;
    while byte <= b'Z' as usize {
        table[byte] = false;
        byte += 1;
    }
    table
}

/// `unreserved`, `sub-delims` and the percent sign: a registered name.
pub(crate) static REG_NAME: [bool; 256] = table(b"-._~%!$&'()*+,;=");

/// Letters, digits and `others`.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, bounded by the loops"
)]
const fn table(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut i = 0;
    while i < others.len() {
        table[others[i] as usize] = true;
        i += 1;
    }
    table
}

#[inline]
pub(crate) fn is(class: &[bool; 256], byte: u8) -> bool {
    class.get(byte as usize).copied().unwrap_or(false)
}

#[inline]
pub(crate) fn all(class: &[bool; 256], bytes: &[u8]) -> bool {
    bytes.iter().all(|b| is(class, *b))
}

/// What Envoy calls an invalid character, as opposed to one in the wrong place.
pub(crate) const fn is_control(byte: u8) -> bool {
    (byte < 0x20 && !matches!(byte, b'\t' | b'\r' | b'\n')) || byte == 0x7f
}

/// Without leading and trailing space and tab.
#[inline]
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
