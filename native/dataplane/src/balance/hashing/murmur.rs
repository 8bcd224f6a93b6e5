//! 64-bit MurmurHash2 as libstdc++ hashes strings, which rings of other proxies were built with.

const SEED: u64 = 0xc70f_6907;
const MUL: u64 = 0xc6a4_a793_5bd1_e995;

const fn mix(value: u64) -> u64 {
    value ^ (value >> 47)
}

pub(super) fn hash(text: &[u8]) -> u64 {
    let mut hash = SEED ^ (text.len() as u64).wrapping_mul(MUL);
    let (words, rest) = text.as_chunks::<8>();
    for word in words {
        let word = mix(u64::from_le_bytes(*word).wrapping_mul(MUL)).wrapping_mul(MUL);
        hash = (hash ^ word).wrapping_mul(MUL);
    }
    if !rest.is_empty() {
        let tail = rest
            .iter()
            .rev()
            .fold(0, |tail, byte| tail << 8 | u64::from(*byte));
        hash = (hash ^ tail).wrapping_mul(MUL);
    }
    mix(mix(hash).wrapping_mul(MUL))
}
