//! The examples of RFC 7541 appendix C, and both sides of HPACK against each other.

use proptest::prelude::*;

use super::hex;
use crate::h1::{KnownHeader, Span};
use crate::h2::arena::Arena;
use crate::h2::hpack::decoder::{DecodeError, Decoder, Sink, Traits};
use crate::h2::hpack::encoder::Encoder;
use crate::h2::hpack::name::Name;

/// Keeps everything.
#[derive(Default)]
struct Keep {
    arena: Arena,
    fields: Vec<(String, String, bool)>,
}

impl Sink for Keep {
    fn arena(&mut self) -> &mut Arena {
        &mut self.arena
    }

    fn wants_fields(&self) -> bool {
        true
    }

    fn field(&mut self, _: Name, name_at: Span, value_at: Span, traits: Traits) {
        let text = |span| String::from_utf8_lossy(self.arena.of(span)).into_owned();
        let field = (text(name_at), text(value_at), traits.is_never_indexed());
        self.fields.push(field);
    }
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String, bool)>, DecodeError> {
    let mut sink = Keep::default();
    decoder.decode(block, true, true, &mut sink)?;
    Ok(sink.fields)
}

/// Blocks in hexadecimal and the fields they stand for, decoded one after the other.
fn examples(table_size: u32, blocks: &[(&str, &[(&str, &str)])]) {
    let mut decoder = Decoder::new(1 << 16);
    if table_size < 4096 {
        decoder.set_max_size(table_size);
        let update = match table_size {
            256 => hex("3f e1 01"),
            _ => unreachable!(),
        };
        assert_eq!(decode(&mut decoder, &update), Ok(vec![]));
    }
    for (block, fields) in blocks {
        let got = decode(&mut decoder, &hex(block)).unwrap();
        let got: Vec<_> = got.iter().map(|f| (f.0.as_str(), f.1.as_str())).collect();
        assert_eq!(got, *fields);
    }
}

const FIRST: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
];
const SECOND: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
    ("cache-control", "no-cache"),
];
const THIRD: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
];

#[test]
fn single_fields() {
    examples(
        4096,
        &[
            (
                "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
                &[("custom-key", "custom-header")],
            ),
            (
                "040c 2f73 616d 706c 652f 7061 7468",
                &[(":path", "/sample/path")],
            ),
            ("82", &[(":method", "GET")]),
        ],
    );
    let never = hex("1008 7061 7373 776f 7264 0673 6563 7265 74");
    let got = decode(&mut Decoder::new(100), &never).unwrap();
    assert_eq!(got, [("password".into(), "secret".into(), true)]);
}

#[test]
fn requests_plain_and_huffman_coded() {
    examples(
        4096,
        &[
            ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", FIRST),
            ("8286 84be 5808 6e6f 2d63 6163 6865", SECOND),
            (
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
                THIRD,
            ),
        ],
    );
    examples(
        4096,
        &[
            ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", FIRST),
            ("8286 84be 5886 a8eb 1064 9cbf", SECOND),
            (
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
                THIRD,
            ),
        ],
    );
}

const DATE: &str = "Mon, 21 Oct 2013 20:13:21 GMT";
const RESPONSES: [&[(&str, &str)]; 3] = [
    &[
        (":status", "302"),
        ("cache-control", "private"),
        ("date", DATE),
        ("location", "https://www.example.com"),
    ],
    &[
        (":status", "307"),
        ("cache-control", "private"),
        ("date", DATE),
        ("location", "https://www.example.com"),
    ],
    &[
        (":status", "200"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
        ("location", "https://www.example.com"),
        ("content-encoding", "gzip"),
        (
            "set-cookie",
            "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
        ),
    ],
];

#[test]
fn responses_with_eviction() {
    examples(
        256,
        &[
            (
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a
                 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                RESPONSES[0],
            ),
            ("4803 3330 37c1 c0bf", RESPONSES[1]),
            (
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04
                 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49
                 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
                RESPONSES[2],
            ),
        ],
    );
    examples(
        256,
        &[
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e
                 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                RESPONSES[0],
            ),
            ("4883 640e ffc1 c0bf", RESPONSES[1]),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7
                 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed
                 4ee5 b106 3d50 07",
                RESPONSES[2],
            ),
        ],
    );
}

#[test]
fn a_smaller_table_must_be_used() {
    let mut decoder = Decoder::new(100);
    decoder.set_max_size(100);
    assert_eq!(
        decode(&mut decoder, &hex("82")),
        Err(DecodeError::Malformed)
    );
    let mut decoder = Decoder::new(100);
    decoder.set_max_size(100);
    assert!(decode(&mut decoder, &hex("3f 45 82")).is_ok());
    assert!(decode(&mut decoder, &hex("82")).is_ok());
    assert_eq!(
        decode(&mut decoder, &hex("3f 46")),
        Err(DecodeError::Malformed)
    );
    // A larger one may be.
    let mut decoder = Decoder::new(100);
    decoder.set_max_size(10_000);
    assert!(decode(&mut decoder, &hex("82")).is_ok());
    assert!(decode(&mut decoder, &hex("3f f1 4d 82")).is_ok());
}

#[test]
fn the_smallest_size_of_several_is_owed_to_the_peer() {
    let begun = |sizes: &[u32], own| {
        let mut encoder = Encoder::new(own);
        for size in sizes {
            encoder.set_peer_size(*size);
        }
        let mut out = Vec::new();
        encoder.begin(&mut out);
        let once = out.len();
        encoder.begin(&mut out);
        assert_eq!(out.len(), once);
        out
    };
    assert_eq!(begun(&[], 4096), []);
    assert_eq!(begun(&[4096, 65_536], 4096), []);
    assert_eq!(begun(&[100], 4096), hex("3f 45"));
    assert_eq!(begun(&[100, 4096], 4096), hex("3f 45 3f e1 1f"));
    assert_eq!(begun(&[0, 100, 50], 4096), hex("20 3f 13"));
    assert_eq!(begun(&[8192], 8192), hex("3f e1 3f"));
    // A table smaller than the default is our own choice, but the peer must know.
    assert_eq!(begun(&[], 0), hex("20"));
    assert_eq!(begun(&[65_536], 31), hex("3f 00"));
}

#[test]
fn what_repeats_is_indexed_and_what_does_not_is_left_out() {
    let mut encoder = Encoder::new(4096);
    let mut sizes = Vec::new();
    for round in 0..200 {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        let id = format!("{round:036}");
        for (known, value) in [
            (KnownHeader::UserAgent, "curl/8"),
            (KnownHeader::XRequestId, id.as_str()),
            (KnownHeader::XForwardedProto, "http"),
            (KnownHeader::Cookie, "a=b"),
            (KnownHeader::Authorization, "Bearer abcdefghijklmnopqrstuvw"),
        ] {
            encoder.header(
                &mut out,
                known,
                known.name().as_bytes(),
                value.as_bytes(),
                false,
            );
        }
        // Unknown names with values that are new each time do not get in either.
        encoder.header(
            &mut out,
            KnownHeader::Other,
            b"x-nonce",
            id.as_bytes(),
            false,
        );
        encoder.header(&mut out, KnownHeader::Other, b"x-same", b"same", false);
        sizes.push(out.len());
        let text = String::from_utf8_lossy(&out).into_owned();
        assert!(text.contains(&id) && text.contains("Bearer") && text.contains("a=b"));
        // Never indexed: authorization has index 23, cookie 32.
        assert!(out.windows(2).any(|pair| pair == [0x1f, 0x08]), "{out:x?}");
        assert!(out.windows(2).any(|pair| pair == [0x1f, 0x11]), "{out:x?}");
    }
    assert!(sizes[2..].iter().all(|size| *size == sizes[2]));
    assert!(sizes[2] + 30 < sizes[0]);
}

#[derive(Debug, Clone)]
enum Act {
    Block(Vec<(usize, String, bool)>),
    PeerSize(u32),
}

const NAMES: &[&str] = &[
    "user-agent",
    "x-request-id",
    "cookie",
    "authorization",
    "if-match",
    "x-own",
    "te",
    "a",
    "accept-encoding",
    "content-length",
];

fn act() -> impl Strategy<Value = Act> {
    let value = prop_oneof![
        3 => "[a-c]{0,2}",
        1 => "[ -~]{0,40}",
        1 => "[\u{80}-\u{2ff}]{0,20}",
        1 => "[x]{100,1500}",
        1 => Just("gzip, deflate".to_string()),
    ];
    let field = (0..NAMES.len(), value, prop::bool::weighted(0.1));
    prop_oneof![
        6 => prop::collection::vec(field, 0..12).prop_map(Act::Block),
        1 => prop_oneof![Just(0), Just(4096), 0..300u32, 0..9000u32].prop_map(Act::PeerSize),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_goes_in_comes_out(
        acts in prop::collection::vec(act(), 1..40),
        own in prop_oneof![Just(4096u32), Just(0), 0..6000u32],
    ) {
        let mut encoder = Encoder::new(own);
        let mut decoder = Decoder::new(1 << 16);
        for act in acts {
            match act {
                Act::PeerSize(size) => {
                    // A decoder that allows less waits for the encoder to say so.
                    encoder.set_peer_size(size);
                    decoder.set_max_size(size);
                }
                Act::Block(fields) => {
                    let mut out = Vec::new();
                    encoder.begin(&mut out);
                    for (name, value, sensitive) in &fields {
                        let name = NAMES[*name].as_bytes();
                        let known = KnownHeader::from_name(name);
                        encoder.header(&mut out, known, name, value.as_bytes(), *sensitive);
                    }
                    let got = decode(&mut decoder, &out).unwrap();
                    prop_assert_eq!(got.len(), fields.len());
                    for ((name, value, never), (wanted, text, sensitive)) in got.iter().zip(&fields) {
                        prop_assert_eq!(name, NAMES[*wanted]);
                        prop_assert_eq!(value, text);
                        prop_assert!(*never || !sensitive);
                    }
                }
            }
        }
    }

    #[test]
    fn blocks_in_pieces(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..200usize) {
        // Whatever a block holds, fed in two pieces it means the same.
        let mut whole = Keep::default();
        let wanted = Decoder::new(1 << 16).decode(&bytes, true, true, &mut whole);
        let mut pieces = Keep::default();
        let mut decoder = Decoder::new(1 << 16);
        let (first, _) = bytes.split_at(cut.min(bytes.len()));
        let got = decoder
            .decode(first, true, false, &mut pieces)
            .and_then(|used| decoder.decode(&bytes[used..], used == 0, true, &mut pieces));
        if wanted.is_ok() && !first.is_empty() {
            prop_assert!(got.is_ok());
            prop_assert_eq!(&pieces.fields, &whole.fields);
        }
        if wanted.is_err() {
            prop_assert!(got.is_err());
        }
    }
}
