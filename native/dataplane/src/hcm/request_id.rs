//! `x-request-id`: a random UUID, version 4, as Envoy's extension writes it.

use tidegate_rt::Rng;

/// The text of a new request id.
pub(crate) fn generate(rng: &mut Rng) -> [u8; 36] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut bytes = rng.next_u128().to_be_bytes();
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = (*version & 0x0f) | 0x40;
    *variant = (*variant & 0x3f) | 0x80;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            at += 1;
        }
        let pair = [byte >> 4, byte & 0x0f];
        for nibble in pair {
            if let (Some(place), Some(digit)) = (text.get_mut(at), HEX.get(usize::from(nibble))) {
                *place = *digit;
            }
            at += 1;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_version_4_uuid() {
        let mut rng = Rng::with_seed(7);
        let a = generate(&mut rng);
        let text = std::str::from_utf8(&a).unwrap();
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(a[14], b'4');
        assert!(b"89ab".contains(&a[19]));
        assert_ne!(a, generate(&mut rng));
    }
}
