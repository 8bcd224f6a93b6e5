//! The Huffman code of RFC 7541 appendix B. The code is canonical, so the lengths say it all; codes and tables are
//! derived from them by the compiler.

/// Bits of the code of each byte.
#[rustfmt::skip]
pub(super) const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// Bits of the longest code; that of the end-of-string symbol, all ones, is the last of them.
pub(super) const LONGEST: usize = 30;

/// What a canonical decoder needs: bytes sorted by code, and for each length its first code and place.
pub(super) struct Canonical {
    /// Bytes in the order of their codes.
    pub(super) symbols: [u8; 256],
    /// The first code of each length.
    pub(super) first: [u32; LONGEST + 1],
    /// How many bytes have a code of this length.
    pub(super) count: [u16; LONGEST + 1],
    /// Where in `symbols` the codes of this length begin.
    pub(super) place: [u16; LONGEST + 1],
    /// The code of each byte.
    pub(super) codes: [u32; 256],
}

pub(super) const CANONICAL: Canonical = canonical();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, bounded by the loops"
)]
const fn canonical() -> Canonical {
    let mut made = Canonical {
        symbols: [0; 256],
        first: [0; LONGEST + 1],
        count: [0; LONGEST + 1],
        place: [0; LONGEST + 1],
        codes: [0; 256],
    };
    let mut code: u32 = 0;
    let mut place = 0;
    let mut length = 1;
    while length <= LONGEST {
        code <<= 1;
        made.first[length] = code;
        made.place[length] = place as u16;
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] as usize == length {
                made.symbols[place] = byte as u8;
                made.codes[byte] = code;
                made.count[length] += 1;
                place += 1;
                code += 1;
            }
            byte += 1;
        }
        length += 1;
    }
    // What is left over is the end-of-string symbol: thirty ones.
    assert!(code == 0x3fff_ffff, "the lengths do not make a whole code");
    made
}
