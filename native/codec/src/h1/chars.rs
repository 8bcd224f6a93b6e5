//! Character classes of RFC 9110 as tables, for the bytes that the word-wise scanners cannot judge.

/// `tchar`: header names and methods.
pub(super) static TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~", true);

/// What may stand in a request target: printable ASCII but for what RFC 3986 leaves out altogether.
pub(super) static TARGET: [bool; 256] = table(b"!#$%&'*+-.^_`|~\"(),/:;<=>?@[\\]{}", true);

/// What may stand in `Host` or an authority: reg-name, IP literal, port, user info left out.
pub(super) static AUTHORITY: [bool; 256] = table(b"-._~%!$&'()*+,;=:[]", true);

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, bounded by the loops"
)]
const fn table(others: &[u8], alphanumeric: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = alphanumeric && (byte as u8).is_ascii_alphanumeric();
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
pub(super) fn all(class: &[bool; 256], bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|b| class.get(*b as usize).copied().unwrap_or(false))
}

/// Without leading and trailing space and tab.
#[inline]
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
