//! Windows and back-pressure, both ways, and the end of a connection.

use super::protocol::{server, server_with};
use super::wire::*;
use super::*;

/// A server with a request that waits for its answer.
fn asked(hello: &[u8]) -> (Side, StreamRef) {
    let mut side = server();
    side.fine(hello);
    side.fine(&headers(1, END_STREAM, GET));
    side.take();
    let stream = side.last.unwrap();
    side.conn.send_response(stream, 200, [], false).unwrap();
    (side, stream)
}

/// The DATA that was sent: stream, length, whether it ended.
fn sent_data(side: &mut Side) -> Vec<(u32, usize, bool)> {
    frames(&side.take())
        .into_iter()
        .filter(|frame| frame.0 == 0)
        .map(|(_, flags, stream, payload)| (stream, payload.len(), flags & END_STREAM != 0))
        .collect()
}

#[test]
fn the_peers_windows_are_kept() {
    let (mut side, stream) = asked(&settings(&[(4, 10)]));
    let send = |side: &mut Side, bytes: &[u8], end| side.conn.send_data(stream, bytes, end);
    assert_eq!(send(&mut side, &[0; 25], true), Ok(10));
    assert_eq!(send(&mut side, &[0; 15], true), Ok(0));
    assert_eq!(sent_data(&mut side), [(1, 10, false)]);
    assert_eq!(side.fine(&window_update(1, 5)), [Seen::Writable(1)]);
    assert_eq!(send(&mut side, &[0; 15], true), Ok(5));
    // Lowered below what has been used: negative, and raised again.
    assert_eq!(side.fine(&settings(&[(4, 0)])), [Seen::Settings]);
    assert_eq!(side.fine(&window_update(1, 10)), []);
    assert_eq!(
        side.fine(&settings(&[(4, 3)])),
        [Seen::Settings, Seen::Writable(1)]
    );
    assert_eq!(send(&mut side, &[0; 10], true), Ok(3));
    assert_eq!(side.fine(&window_update(1, 7)), [Seen::Writable(1)]);
    assert_eq!(send(&mut side, &[0; 7], true), Ok(7));
    // Across other frames two, in a row one.
    assert_eq!(sent_data(&mut side), [(1, 5, false), (1, 10, true)]);
    assert_eq!(side.conn.active_streams(), 0);
    // Nothing at all needs no window.
    let (mut side, stream) = asked(&settings(&[(4, 0)]));
    assert_eq!(side.conn.send_data(stream, b"", true), Ok(0));
    assert_eq!(sent_data(&mut side), [(1, 0, true)]);
}

#[test]
fn the_connections_window_is_shared_fairly() {
    let mut side = server();
    let mut streams = Vec::new();
    for n in 0..3 {
        side.fine(&headers(1 + 2 * n, END_STREAM, GET));
        let stream = side.last.unwrap();
        side.conn.send_response(stream, 200, [], false).unwrap();
        streams.push(stream);
    }
    side.fine(&window_update(1, 1 << 20));
    side.fine(&window_update(3, 1 << 20));
    side.fine(&window_update(5, 1 << 20));
    let body = vec![0; 40_000];
    let taken: Vec<_> = streams
        .iter()
        .map(|stream| side.conn.send_data(*stream, &body, false).unwrap())
        .collect();
    assert_eq!(taken, [40_000, 25_535, 0]);
    assert_eq!(side.fine(&[]), []);
    side.take();
    assert_eq!(
        side.fine(&window_update(0, 10)),
        [Seen::Writable(3), Seen::Writable(5)]
    );
    assert_eq!(side.conn.send_data(streams[1], &body, false), Ok(10));
    assert_eq!(side.conn.send_data(streams[2], &body, false), Ok(0));
    assert_eq!(
        side.fine(&window_update(0, 10)),
        [Seen::Writable(3), Seen::Writable(5)]
    );
    // The one that got nothing comes first if it asks first.
    assert_eq!(side.conn.send_data(streams[2], &body, false), Ok(10));
    assert_eq!(side.conn.send_data(streams[1], &body, false), Ok(0));
    // Streams that end are not told.
    side.conn.reset(streams[2], ErrorCode::CANCEL);
    assert_eq!(side.fine(&window_update(0, 10)), [Seen::Writable(3)]);
}

#[test]
fn a_full_output_makes_senders_wait() {
    let (mut side, stream) =
        asked(&[settings(&[(4, 1 << 30)]), window_update(0, 1 << 30)].concat());
    let body = vec![7; 1 << 20];
    let mut sent = 0;
    let mut rounds = 0;
    while sent < body.len() {
        let count = side.conn.send_data(stream, &body[sent..], true).unwrap();
        sent += count;
        assert!(side.conn.pending_send_bytes() <= 257 * 1024);
        if sent < body.len() && side.fine(&[]).is_empty() {
            assert!(side.conn.output().len() >= 256 * 1024);
            side.conn.written(100_000);
            rounds += 1;
            assert_eq!(side.fine(&[]), [Seen::Writable(1)]);
        }
    }
    assert!((5..=20).contains(&rounds), "{rounds}");
    assert_eq!(side.conn.active_streams(), 0);
}

#[test]
fn larger_frames_when_the_peer_takes_them() {
    let hello = [
        settings(&[(4, 1 << 30), (5, 40_000)]),
        window_update(0, 1 << 30),
    ]
    .concat();
    let (mut side, stream) = asked(&hello);
    assert_eq!(
        side.conn.send_data(stream, &vec![0; 50_000], true),
        Ok(50_000)
    );
    assert_eq!(
        sent_data(&mut side),
        [(1, 40_000, false), (1, 10_000, true)]
    );
    // A head beyond one frame is split.
    let (mut side, stream) = asked(&[]);
    let value = vec![b'v'; 40_000];
    side.conn
        .send_trailers(stream, [OutField::named(b"x", &value)])
        .unwrap();
    let sent = frames(&side.take());
    let shapes: Vec<_> = sent.iter().map(|f| (f.0, f.1, f.3.len())).collect();
    assert_eq!(
        shapes[1..],
        [(1, 1, 16_384), (9, 0, 16_384), (9, 4, 40_007 - 32_768)]
    );
}

#[test]
fn data_in_a_row_leaves_in_one_frame() {
    let (mut side, stream) = asked(&settings(&[(4, 1 << 20)]));
    let send = |side: &mut Side, count, end| {
        let sent = side.conn.send_data(stream, &vec![0; count], end);
        assert_eq!(sent, Ok(count));
    };
    send(&mut side, 10, false);
    send(&mut side, 20, false);
    assert_eq!(side.conn.outbound_frames(), 2);
    assert_eq!(sent_data(&mut side), [(1, 30, false)]);
    send(&mut side, 5, false);
    // Not what is on its way, nor across another frame, nor beyond a frame's size.
    side.conn.written(3);
    send(&mut side, 5, false);
    side.conn.ping([0; 8]);
    send(&mut side, 16_000, false);
    send(&mut side, 385, false);
    send(&mut side, 7, false);
    send(&mut side, 0, true);
    let out = [vec![0, 0, 5], side.take()].concat();
    let sizes: Vec<_> = frames(&out).iter().map(|f| (f.0, f.1, f.3.len())).collect();
    assert_eq!(
        sizes,
        [(0, 0, 5), (0, 0, 5), (6, 0, 8), (0, 0, 16_000), (0, 1, 392)]
    );
}

#[test]
fn many_small_frames_make_senders_wait() {
    let mut side = server();
    let streams: Vec<_> = [1, 3]
        .into_iter()
        .map(|id| {
            side.fine(&headers(id, END_STREAM, GET));
            let stream = side.last.unwrap();
            side.conn.send_response(stream, 200, [], false).unwrap();
            stream
        })
        .collect();
    let mut sent = 0;
    while side.conn.send_data(streams[sent % 2], b"x", false) == Ok(1) {
        sent += 1;
    }
    assert_eq!(sent, 5_000 - 2);
    assert_eq!(side.fine(&[]), []);
    side.take();
    assert_eq!(side.fine(&[]).len(), 1);
}

#[test]
fn table_sizes_in_one_frame_are_taken_in_order() {
    let mut side = server();
    side.fine(&settings(&[(1, 0), (1, 4096)]));
    side.fine(&headers(1, END_STREAM, GET));
    side.take();
    let stream = side.last.unwrap();
    side.conn.send_response(stream, 200, [], true).unwrap();
    assert_eq!(frames(&side.take())[0].3, hex("20 3f e1 1f 88"));
}

#[test]
fn windows_do_not_overflow() {
    let wrong = Some(ConnectionError::FlowControl);
    let (mut side, _) = asked(&[]);
    assert_eq!(side.feed(&window_update(0, 0x7fff_ffff)).1, wrong);
    assert_eq!(endings(&side.take()).last(), Some(&(7, 1, 3)));
    let (mut side, _) = asked(&[]);
    let zero = Some(ConnectionError::WindowIncrement);
    assert_eq!(side.feed(&window_update(0, 0)).1, zero);
    let (mut side, _) = asked(&window_update(0, 0x7fff_0000));
    let seen = side.fine(&window_update(1, 0x7fff_ffff));
    let by = ResetBy::Fault(StreamFault::FlowControl);
    assert_eq!(seen, [Seen::Reset(1, ErrorCode::FLOW_CONTROL_ERROR, by)]);
    assert_eq!(endings(&side.take()), [(3, 1, 3)]);
    let (mut side, _) = asked(&[]);
    let seen = side.fine(&window_update(1, 0));
    let by = ResetBy::Fault(StreamFault::Protocol);
    assert_eq!(seen, [Seen::Reset(1, ErrorCode::PROTOCOL_ERROR, by)]);
    // A setting that takes an open stream beyond the end.
    let (mut side, _) = asked(&[]);
    side.fine(&window_update(1, 0x7fff_0000));
    assert_eq!(side.feed(&settings(&[(4, 0x7fff_ffff)])).1, wrong);
}

fn small_windows() -> Options {
    Options {
        initial_stream_window_size: 65_535,
        initial_connection_window_size: 100_000,
        ..Options::default()
    }
}

/// Feeds without releasing; the bytes of DATA and the stream.
fn hold(side: &mut Side, bytes: &[u8]) -> Result<usize, ConnectionError> {
    let mut input = Input::new(bytes);
    let mut count = 0;
    while let Some(event) = side.conn.next(&mut input, &mut side.scratch, 0)? {
        match event {
            Event::Data { bytes, .. } => count += bytes.len(),
            Event::Request { stream, .. } => side.last = Some(stream),
            _ => {}
        }
    }
    Ok(count)
}

#[test]
fn our_windows_hold_the_peer_back() {
    let mut side = server_with(small_windows());
    hold(&mut side, &headers(1, 0, POST)).unwrap();
    let stream = side.last.unwrap();
    let full: Vec<u8> = [16_384, 16_384, 16_384, 16_383]
        .iter()
        .flat_map(|n| data(1, 0, &vec![0; *n]))
        .collect();
    assert_eq!(hold(&mut side, &full), Ok(65_535));
    assert!(side.take().is_empty());
    // Announced at half a window, not with every byte.
    side.conn.release(stream, 32_766);
    assert!(side.take().is_empty());
    side.conn.release(stream, 1);
    let sent = frames(&side.take());
    assert_eq!(sent, [(8, 0, 1, 32_767u32.to_be_bytes().to_vec())]);
    side.conn.release(stream, 17_233);
    assert_eq!(
        frames(&side.take()),
        [(8, 0, 0, 50_000u32.to_be_bytes().to_vec())]
    );
    // The stream has 32,767 now, the connection more.
    assert_eq!(hold(&mut side, &data(1, 0, &[0; 16_384])), Ok(16_384));
    assert_eq!(hold(&mut side, &data(1, 0, &[0; 16_384])), Ok(0));
    assert_eq!(endings(&side.take()), [(3, 1, 3)]);
    // Beyond the window of the connection there is no mercy.
    let mut side = server_with(small_windows());
    let mut result = Ok(0);
    for n in 0..10 {
        let id = 1 + 2 * n;
        let bytes = [headers(id, 0, POST), data(id, 0, &[0; 16_384])].concat();
        result = result.and_then(|_| hold(&mut side, &bytes));
    }
    assert_eq!(result, Err(ConnectionError::FlowControl));
}

#[test]
fn what_nobody_wants_is_given_back() {
    let mut side = server_with(small_windows());
    hold(&mut side, &headers(1, 0, POST)).unwrap();
    // Half a frame, then the caller loses interest: the rest is skipped and counts as released.
    let frame = data(1, 0, &[0; 16_384]);
    let got = hold(&mut side, &frame[..5_000]).unwrap();
    let stream = side.last.unwrap();
    side.conn.reset(stream, ErrorCode::CANCEL);
    side.conn.release(stream, got);
    assert_eq!(hold(&mut side, &frame[5_000..]), Ok(0));
    for _ in 0..3 {
        assert_eq!(hold(&mut side, &frame), Ok(0));
    }
    let updates: Vec<_> = frames(&side.take())
        .into_iter()
        .filter(|f| f.0 == 8)
        .collect();
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0].2, 0);
    // Padding is given back at once.
    let mut side = server_with(small_windows());
    hold(&mut side, &headers(1, 0, POST)).unwrap();
    let mut padded = vec![255; 1];
    padded.resize(257, 0);
    for _ in 0..127 {
        assert_eq!(hold(&mut side, &data(1, PADDED, &padded)), Ok(1));
    }
    assert!(side.take().is_empty());
    assert_eq!(hold(&mut side, &data(1, PADDED, &padded)), Ok(1));
    assert_eq!(
        frames(&side.take()),
        [(8, 0, 1, (128u32 * 256).to_be_bytes().to_vec())]
    );
}

#[test]
fn small_windows_count_from_the_acknowledgement() {
    let options = Options {
        initial_stream_window_size: 1_000,
        ..Options::default()
    };
    let mut side = Side::new(Role::Server, options);
    let hello = [PREFACE.to_vec(), settings(&[]), headers(1, 0, POST)].concat();
    hold(&mut side, &hello).unwrap();
    // Sent before our SETTINGS were seen.
    assert_eq!(hold(&mut side, &data(1, 0, &[0; 1_500])), Ok(1_500));
    hold(&mut side, &frame(4, ACK, 0, &[])).unwrap();
    hold(&mut side, &headers(3, 0, POST)).unwrap();
    assert_eq!(hold(&mut side, &data(3, 0, &[0; 1_000])), Ok(1_000));
    assert_eq!(hold(&mut side, &data(3, 0, &[0; 1])), Ok(0));
    side.take();
    assert_eq!(hold(&mut side, &data(1, 0, &[0; 1])), Ok(0));
    assert_eq!(endings(&side.take()), [(3, 1, 3)]);
}

#[test]
fn drain_in_two_steps() {
    let mut side = server();
    side.fine(&headers(1, END_STREAM, GET));
    side.conn.shutdown();
    side.conn.shutdown();
    assert_eq!(endings(&side.take()), [(7, 0x7fff_ffff, 0)]);
    // What was under way is still served.
    side.fine(&headers(3, END_STREAM, GET));
    let third = side.last.unwrap();
    side.conn.goaway(ErrorCode::NO_ERROR);
    side.conn.goaway(ErrorCode::NO_ERROR);
    assert_eq!(endings(&side.take()), [(7, 3, 0)]);
    let late = [
        frame(
            1,
            4,
            5,
            &[block(POST), vec![0x40, 1, b'x', 1, b'y']].concat(),
        ),
        data(5, 0, b"x"),
        window_update(5, 1),
        headers(5, END_STREAM, &[("t", "1")]),
        rst_stream(5, 8),
    ];
    assert_eq!(side.fine(&late.concat()), []);
    assert!(side.conn.is_draining() && !side.conn.is_drained());
    side.conn.send_response(third, 200, [], true).unwrap();
    side.fine(&rst_stream(1, 8));
    side.take();
    assert!(side.conn.is_drained());
    let counts = side.conn.take_counts().unwrap();
    assert_eq!(counts.get(Stat::GoawayGracefulSent), 1);
    assert_eq!(counts.get(Stat::GoawaySent), 1);
}

#[test]
fn goaway_from_a_server() {
    let mut client = Side::client();
    client.fine(&settings(&[(3, 4)]));
    let start = |client: &mut Side, token| {
        let line = super::exchange::GET;
        client.conn.start_request(token, &line, [], true, 0)
    };
    for token in 0..4 {
        assert!(start(&mut client, token).is_ok());
    }
    assert_eq!(client.conn.free_streams(), 0);
    assert_eq!(start(&mut client, 4), Err(SendError::TooManyStreams));
    assert_eq!(
        client.fine(&goaway(0x7fff_ffff, 0)),
        [Seen::GoAway(0x7fff_ffff, ErrorCode::NO_ERROR)]
    );
    assert_eq!(start(&mut client, 4), Err(SendError::Draining));
    let refused = |id| Seen::Reset(id, ErrorCode::REFUSED_STREAM, ResetBy::GoAway);
    let seen = client.fine(&goaway(3, 0));
    assert_eq!(
        seen,
        [Seen::GoAway(3, ErrorCode::NO_ERROR), refused(5), refused(7)]
    );
    // It is not raised again, and the others finish.
    assert_eq!(client.fine(&goaway(7, 0)).len(), 1);
    let answer = |id| headers(id, END_STREAM, &[(":status", "200")]);
    assert_eq!(client.fine(&[answer(1), answer(3)].concat()).len(), 2);
    client.take();
    assert!(client.conn.is_drained());
}

#[test]
fn sending_out_of_order() {
    let mut side = server();
    side.fine(&headers(1, END_STREAM, GET));
    let stream = side.last.unwrap();
    assert_eq!(
        side.conn.send_data(stream, b"x", false),
        Err(SendError::OutOfOrder)
    );
    assert_eq!(
        side.conn.send_trailers(stream, []),
        Err(SendError::OutOfOrder)
    );
    assert_eq!(
        side.conn.send_response(stream, 100, [], true),
        Err(SendError::OutOfOrder)
    );
    assert_eq!(side.conn.send_response(stream, 200, [], false), Ok(()));
    assert_eq!(
        side.conn.send_response(stream, 200, [], false),
        Err(SendError::OutOfOrder)
    );
    assert_eq!(side.conn.send_data(stream, b"x", true), Ok(1));
    assert_eq!(
        side.conn.send_data(stream, b"x", true),
        Err(SendError::Closed)
    );
    assert_eq!(side.conn.send_trailers(stream, []), Err(SendError::Closed));
    assert!(!side.conn.is_live(stream));
    let line = super::exchange::GET;
    let asked = side.conn.start_request(0, &line, [], true, 0);
    assert_eq!(asked, Err(SendError::OutOfOrder));
}
