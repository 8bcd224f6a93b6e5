//! However the input is cut, the same happens; and whatever it is, nothing panics and memory stays bounded.

use proptest::prelude::*;

use super::wire::*;
use super::*;

/// Data that belongs together put together.
fn joined(all: Vec<Seen>) -> Vec<Seen> {
    let mut out: Vec<Seen> = Vec::new();
    for seen in all {
        if let (Some(Seen::Data(id, bytes, end)), Seen::Data(next, more, last)) =
            (out.last_mut(), &seen)
            && *id == *next
            && !*end
        {
            bytes.extend(more);
            *end = *last;
            continue;
        }
        out.push(seen);
    }
    out
}

type Transcript = (Vec<Seen>, Option<ConnectionError>, Vec<u8>);

fn play(side: &mut Side, bytes: &[u8], cuts: &[usize]) -> Transcript {
    let mut all = Vec::new();
    let mut rest = bytes;
    let mut cuts = cuts.iter().cycle();
    let mut end = None;
    while !rest.is_empty() && end.is_none() {
        let count = cuts.next().map_or(rest.len(), |cut| (*cut).min(rest.len()));
        let (piece, later) = rest.split_at(count);
        let (seen, error) = side.feed(piece);
        all.extend(seen);
        end = error;
        rest = later;
    }
    (joined(all), end, side.conn.output().to_vec())
}

fn part() -> impl Strategy<Value = Vec<u8>> {
    let id = (0..6u32).prop_map(|n| 1 + 2 * n);
    let fields = prop::sample::subsequence(
        vec![
            ("user-agent", "x"),
            ("cookie", "a=b"),
            ("cookie", "c=d"),
            ("content-length", "5"),
            (
                "x-large",
                "0123456789012345678901234567890123456789012345678901234567890123456789",
            ),
            ("Bad", ""),
        ],
        0..5,
    );
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        6 => (id.clone(), any::<bool>(), fields, 1..80usize).prop_map(|(id, end, more, piece)| {
            let block = block(&with(POST, &more));
            let pieces: Vec<&[u8]> = block.chunks(piece.max(block.len() / 4 + 1)).collect();
            let mut bytes = Vec::new();
            for (number, part) in pieces.iter().enumerate() {
                let last = number + 1 == pieces.len();
                let flags = if last { END_HEADERS } else { 0 };
                if number == 0 {
                    bytes.extend(frame(1, flags | u8::from(end), id, part));
                } else {
                    bytes.extend(frame(9, flags, id, part));
                }
            }
            bytes
        }),
        6 => (id.clone(), any::<bool>(), payload.clone())
            .prop_map(|(id, end, payload)| data(id, u8::from(end), &payload)),
        2 => (id.clone(), 0..20u8, payload.clone()).prop_map(|(id, padding, payload)| {
            let mut padded = vec![padding];
            padded.extend(payload);
            padded.resize(padded.len() + usize::from(padding), 0);
            data(id, PADDED, &padded)
        }),
        1 => (id.clone(), any::<u32>()).prop_map(|(id, code)| rst_stream(id, code)),
        1 => (id.clone(), 0..70_000u32).prop_map(|(id, more)| window_update(id, more)),
        1 => any::<[u8; 8]>().prop_map(|payload| frame(6, 0, 0, &payload)),
        1 => prop::collection::vec((0..10u16, 0..70_000u32), 0..5).prop_map(|all| settings(&all)),
        1 => (any::<u8>(), any::<u8>(), id, payload)
            .prop_map(|(kind, flags, id, payload)| frame(kind, flags, id, &payload)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn cuts_make_no_difference(
        parts in prop::collection::vec(part(), 1..25),
        cuts in prop::collection::vec(prop_oneof![Just(1usize), 1..30usize, 1..400usize], 1..20),
        damage in prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>())),
        lenient in any::<bool>(),
    ) {
        let options = Options {
            stream_error_on_invalid_http_messaging: lenient,
            allow_connect: true,
            ..Options::default()
        };
        let mut bytes = [PREFACE.to_vec(), settings(&[])].concat();
        bytes.extend(parts.concat());
        if let Some((place, value)) = damage {
            let at = place.index(bytes.len());
            bytes[at] = value;
        }
        let whole = play(&mut Side::new(Role::Server, options), &bytes, &[]);
        let pieces = play(&mut Side::new(Role::Server, options), &bytes, &cuts);
        let single = play(&mut Side::new(Role::Server, options), &bytes, &[1]);
        prop_assert_eq!(&whole, &pieces);
        prop_assert_eq!(&whole, &single);
    }

    #[test]
    fn nothing_panics(
        frames in prop::collection::vec(
            (0..12u8, any::<u8>(), 0..9u32, prop::collection::vec(any::<u8>(), 0..40)),
            0..40,
        ),
        tail in prop::collection::vec(any::<u8>(), 0..40),
        answers in any::<bool>(),
    ) {
        for role in [Role::Server, Role::Client] {
            let mut side = Side::new(role, Options {
                stream_error_on_invalid_http_messaging: true,
                ..Options::default()
            });
            let mut bytes = if role == Role::Server { PREFACE.to_vec() } else { Vec::new() };
            bytes.extend(settings(&[]));
            side.feed(&bytes);
            for token in 0..4 {
                let line = super::exchange::GET;
                let _ = side.conn.start_request(token, &line, [], answers, 0);
            }
            for (kind, flags, stream, payload) in &frames {
                side.feed(&frame(*kind, *flags, *stream, payload));
                if answers && let Some(stream) = side.last {
                    let _ = side.conn.send_response(stream, 200, [], false);
                    let _ = side.conn.send_data(stream, &[0; 100], *flags & 1 == 0);
                }
            }
            side.feed(&tail);
        }
    }
}
