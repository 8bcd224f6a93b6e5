//! Heads that are too large, and peers that make work for its own sake.

use super::protocol::{lenient, server, server_with};
use super::wire::*;
use super::*;

/// The indexed field that came into the table last.
const FIRST_ENTRY: u8 = 0xbe;

/// Feeds until it ends; the error and the counter it bumps.
fn breach(side: &mut Side, bytes: &[u8]) -> (ConnectionError, &'static str) {
    let error = side.feed(bytes).1.unwrap();
    let counts = side.conn.take_counts().unwrap();
    assert_eq!(counts.get(Stat::GoawaySent), 1);
    let stat = error.stat().map_or("", Stat::name);
    if let Some(stat) = error.stat() {
        assert_eq!(counts.get(stat), 1);
    }
    (error, stat)
}

#[test]
fn too_many_headers() {
    let fields: Vec<(String, String)> = (0..97).map(|n| (format!("x-{n}"), "v".into())).collect();
    let mut all = GET.to_vec();
    all.extend(fields.iter().map(|(n, v)| (n.as_str(), v.as_str())));
    let mut side = server();
    let fits = headers(1, END_STREAM, &all[..100]);
    assert!(matches!(side.fine(&fits)[..], [Seen::Request(1, ..)]));
    let seen = side.fine(&headers(3, END_STREAM, &all));
    assert_eq!(seen, [Seen::TooLarge(3, Overflow::TooManyHeaders)]);
    let counts = side.conn.take_counts().unwrap();
    assert_eq!(counts.get(Stat::HeaderOverflow), 1);
    // It can be answered, and the stream is done then.
    let stream = side.last.unwrap();
    assert_eq!(side.conn.send_response(stream, 431, [], true), Ok(()));
    assert_eq!(side.conn.active_streams(), 1);
    let sent = frames(&side.take());
    assert_eq!((sent[0].0, sent[0].2), (1, 3));
}

/// One head in as many frames as it takes.
fn in_pieces(stream: u32, block: &[u8], piece: usize) -> Vec<u8> {
    let count = block.len().div_ceil(piece);
    let mut bytes = Vec::new();
    for (number, part) in block.chunks(piece).enumerate() {
        let kind = if number == 0 { 1 } else { 9 };
        let mut flags = u8::from(number == 0);
        if number + 1 == count {
            flags |= END_HEADERS;
        }
        bytes.extend(frame(kind, flags, stream, part));
    }
    bytes
}

#[test]
fn headers_too_large() {
    // 60 KiB in all pass, one byte more does not, in however many pieces.
    let used: usize = GET.iter().map(|(n, v)| n.len() + v.len()).sum();
    let value = "v".repeat(60 * 1024 - used - 1);
    let longer = value.clone() + "v";
    for piece in [16_384, 1_000, 201] {
        let mut side = server();
        let fits = block(&with(GET, &[("x", &value)]));
        let seen = side.fine(&in_pieces(1, &fits, piece));
        assert!(matches!(&seen[..], [Seen::Request(1, ..)]), "{piece}");
        let over = block(&with(GET, &[("x", &longer)]));
        let seen = side.fine(&in_pieces(3, &over, piece));
        assert_eq!(seen, [Seen::TooLarge(3, Overflow::HeadersTooLarge)]);
        let seen = side.fine(&headers(5, END_STREAM, GET));
        assert!(matches!(&seen[..], [Seen::Request(5, ..)]));
    }
}

#[test]
fn the_table_stays_in_step_whatever_is_refused() {
    // Much too large a head, in pieces, that fills the table on the way; then the entry is referred to.
    let mut long = block(GET);
    for n in 0..2_000 {
        long.extend(block(&[(&format!("filler-{n}"), &"f".repeat(60))]));
    }
    long.push(0x40);
    string(&mut long, b"x-kept");
    string(&mut long, b"kept");
    for piece in [16_384, 700] {
        let mut side = server();
        let seen = side.fine(&in_pieces(1, &long, piece));
        assert_eq!(seen, [Seen::TooLarge(1, Overflow::HeadersTooLarge)]);
        let mut next = block(GET);
        next.push(FIRST_ENTRY);
        let seen = side.fine(&frame(1, 5, 3, &next));
        let Seen::Request(3, lines, true) = &seen[0] else {
            panic!("{seen:?}")
        };
        assert_eq!(lines[1..], ["x-kept: kept"]);
    }
    // A malformed head, a refused stream and one we have reset.
    let mut side = server_with(Options {
        max_concurrent_streams: 1,
        ..lenient()
    });
    let indexed = |name: &str| {
        let mut bytes = vec![0x40];
        string(&mut bytes, name.as_bytes());
        string(&mut bytes, b"v");
        bytes
    };
    let malformed = [block(&[("Bad", "")]), indexed("one")].concat();
    side.fine(&frame(1, 5, 1, &malformed));
    side.fine(&headers(3, 0, POST));
    side.fine(&frame(1, 5, 5, &[block(GET), indexed("two")].concat()));
    side.conn.reset(side.last.unwrap(), ErrorCode::CANCEL);
    side.fine(&frame(1, 5, 3, &indexed("three")));
    let seen = side.fine(&frame(
        1,
        5,
        7,
        &[block(GET), vec![0xc0, 0xbf, 0xbe]].concat(),
    ));
    let Seen::Request(7, lines, true) = &seen[0] else {
        panic!("{seen:?}")
    };
    assert_eq!(lines[1..], ["one: v", "two: v", "three: v"]);
}

#[test]
fn bombs_stay_small() {
    // An entry of 4,000 bytes, then a frame full of references to it: 60 MB if it were written out.
    let mut bytes = block(GET);
    bytes.push(0x40);
    string(&mut bytes, b"bomb");
    string(&mut bytes, &[b'b'; 4_000]);
    let mut side = server();
    side.fine(&frame(1, 5, 1, &bytes));
    let mut fields = block(GET);
    fields.resize(16_384, FIRST_ENTRY);
    let seen = side.fine(&frame(1, 5, 3, &fields));
    assert!(matches!(&seen[..], [Seen::TooLarge(3, _)]));
    assert!(side.scratch.bytes().len() < 70 * 1024);
    // A literal beyond 64 KiB cannot be skipped: the end, and little memory.
    let endless = vec![0x40, 0x01, b'x', 0x7f, 0xff, 0xff, 0x3f];
    let error = side.feed(&frame(1, 1, 5, &endless)).1;
    assert_eq!(error, None, "kept until the block ends or grows");
    let mut last = None;
    for _ in 0..20 {
        last = side.feed(&frame(9, 0, 5, &[b'y'; 16_000])).1;
        if last.is_some() {
            break;
        }
    }
    assert_eq!(last, Some(ConnectionError::Compression));
}

#[test]
fn continuation_flood() {
    let mut side = server();
    let mut bytes = frame(1, 1, 1, &block(GET));
    for n in 0..513 {
        bytes.extend(frame(9, 0, 1, &block(&[(&format!("x{n}"), "")])));
    }
    let got = breach(&mut side, &bytes);
    assert_eq!(
        got,
        (
            ConnectionError::TooManyHeaderFrames,
            "too_many_header_frames"
        )
    );
}

#[test]
fn empty_frames_flood() {
    let empty = data(1, 0, b"");
    let mut side = server();
    side.fine(&headers(1, 0, POST));
    side.fine(&empty);
    side.fine(&data(1, 0, b"x"));
    side.fine(&empty);
    let got = breach(&mut side, &empty);
    assert_eq!(
        got,
        (
            ConnectionError::EmptyFramesFlood,
            "inbound_empty_frames_flood"
        )
    );
    // Padding is no payload.
    let mut side = server();
    side.fine(&headers(1, 0, POST));
    let padded = data(1, PADDED, &[3, 0, 0, 0]);
    side.fine(&padded);
    assert_eq!(
        breach(&mut side, &padded).0,
        ConnectionError::EmptyFramesFlood
    );
    let mut side = server();
    let bytes = [frame(1, 0, 1, &[]), frame(9, 0, 1, &[])].concat();
    assert_eq!(
        breach(&mut side, &bytes).0,
        ConnectionError::EmptyFramesFlood
    );
}

#[test]
fn priority_flood() {
    let mut side = server();
    let one = frame(2, 0, 1, &[0, 0, 0, 0, 1]);
    side.fine(&one.repeat(100));
    // A request is worth a hundred more.
    side.fine(&headers(1, END_STREAM, GET));
    side.fine(&one.repeat(100));
    let got = breach(&mut side, &one);
    assert_eq!(
        got,
        (
            ConnectionError::PriorityFramesFlood,
            "inbound_priority_frames_flood"
        )
    );
}

#[test]
fn window_update_flood() {
    let mut side = server();
    let one = window_update(0, 1);
    side.fine(&one.repeat(5));
    side.fine(&headers(1, END_STREAM, GET));
    let stream = side.last.unwrap();
    side.conn.send_response(stream, 200, [], false).unwrap();
    side.conn.send_data(stream, b"x", true).unwrap();
    side.fine(&one.repeat(2 + 20));
    let got = breach(&mut side, &one);
    let stat = "inbound_window_update_frames_flood";
    assert_eq!(got, (ConnectionError::WindowUpdateFramesFlood, stat));
}

#[test]
fn outbound_floods() {
    let ping = frame(6, 0, 0, &[0; 8]);
    let mut side = server();
    side.fine(&ping.repeat(1_000));
    assert_eq!(side.conn.outbound_control_frames(), 1_000);
    let got = breach(&mut side, &ping);
    assert_eq!(
        got,
        (
            ConnectionError::OutboundControlFlood,
            "outbound_control_flood"
        )
    );
    // Whoever reads the answers may go on for ever, even if never everything at once.
    let mut side = server();
    for _ in 0..100 {
        side.fine(&ping.repeat(400));
        let pending = side.conn.output().len();
        side.conn.written(pending - 17 * 100);
    }
    let mut side = server_with(Options {
        max_outbound_frames: 50,
        ..Options::default()
    });
    for _ in 0..50 {
        side.conn.ping([0; 8]);
    }
    side.fine(&[]);
    side.conn.ping([0; 8]);
    let got = breach(&mut side, &[]);
    assert_eq!(got, (ConnectionError::OutboundFlood, "outbound_flood"));
}

#[test]
fn rapid_reset() {
    let mut side = server();
    let mut ended = None;
    for n in 0..2_000u32 {
        side.now += 40;
        let id = 1 + 2 * n;
        let bytes = [headers(id, END_STREAM, GET), rst_stream(id, 8)].concat();
        ended = side.feed(&bytes).1;
        side.take();
        if ended.is_some() {
            assert_eq!(n, 249);
            break;
        }
    }
    assert_eq!(ended, Some(ConnectionError::RapidReset));
    assert_eq!(ended.unwrap().code(), ErrorCode::ENHANCE_YOUR_CALM);
    // Requests given up after a second are no attack.
    let mut side = server();
    for n in 0..2_000u32 {
        let id = 1 + 2 * n;
        side.fine(&headers(id, END_STREAM, GET));
        side.now += 1_000;
        side.fine(&rst_stream(id, 8));
    }
}

#[test]
fn resets_that_the_peer_provokes_count_as_its_own() {
    let provoked = |options| {
        let mut side = server_with(options);
        let mut count = 0;
        loop {
            let id = 1 + 2 * count;
            let bytes = [headers(id, END_STREAM, GET), data(id, 0, b"x")].concat();
            if let Some(error) = side.feed(&bytes).1 {
                return (error, count);
            }
            side.take();
            count += 1;
        }
    };
    assert_eq!(provoked(lenient()), (ConnectionError::RapidReset, 249));
    let unjudged = Options {
        premature_reset_total_stream_count: 0,
        ..lenient()
    };
    assert_eq!(provoked(unjudged), (ConnectionError::ResetRate, 1_000));
}

#[test]
fn sizes() {
    assert!(
        size_of::<Connection>() <= 640,
        "{}",
        size_of::<Connection>()
    );
    assert!(size_of::<Event<'_>>() <= 48, "{}", size_of::<Event<'_>>());
    // An idle connection holds no memory beside itself, once its output is written.
    let mut side = Side::server();
    side.take();
    drop(side.conn.reclaim_output());
    side.fine(&[PREFACE, &settings(&[])].concat());
    side.take();
    side.conn.trim();
    assert_eq!(side.conn.reclaim_output().capacity(), 0);
}
