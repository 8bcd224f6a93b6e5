//! What a server does with frames that are not as they should be: the cases of the usual conformance suite, one line each,
//! and those it has not.

use super::wire::*;
use super::*;

/// A server whose client has said hello.
pub(super) fn server() -> Side {
    server_with(Options::default())
}

pub(super) fn server_with(options: Options) -> Side {
    let mut side = Side::new(Role::Server, options);
    let mut hello = PREFACE.to_vec();
    hello.extend(settings(&[]));
    hello.extend(frame(4, ACK, 0, &[]));
    assert_eq!(side.fine(&hello), [Seen::Settings]);
    side.take();
    side
}

pub(super) fn lenient() -> Options {
    Options {
        stream_error_on_invalid_http_messaging: true,
        ..Options::default()
    }
}

/// Feeds all of it; how it ended.
fn outcome(side: &mut Side, frames: &[Vec<u8>]) -> Option<ConnectionError> {
    side.feed(&frames.concat()).1
}

#[track_caller]
fn ends(frames: &[Vec<u8>], error: ConnectionError, code: ErrorCode) {
    let mut side = server();
    assert_eq!(outcome(&mut side, frames), Some(error));
    let said = endings(&side.take());
    let (kind, _, got) = said.last().copied().unwrap();
    assert_eq!((kind, got), (7, code.0));
    assert_eq!(side.feed(&[]).1, Some(ConnectionError::Ended));
    assert!(side.take().is_empty());
}

#[track_caller]
fn resets(frames: &[Vec<u8>], stream: u32, code: ErrorCode) {
    let mut side = server_with(lenient());
    assert_eq!(outcome(&mut side, frames), None);
    assert_eq!(endings(&side.take()), [(3, stream, code.0)]);
    // The connection goes on.
    let seen = side.fine(&headers(101, END_STREAM, GET));
    assert!(matches!(seen[..], [Seen::Request(101, ..)]), "{seen:?}");
}

#[track_caller]
fn harmless(frames: &[Vec<u8>]) {
    let mut side = server();
    assert_eq!(outcome(&mut side, frames), None);
    assert_eq!(endings(&side.take()), []);
    let seen = side.fine(&headers(101, END_STREAM, GET));
    assert!(matches!(seen[..], [Seen::Request(101, ..)]), "{seen:?}");
}

fn open(stream: u32) -> Vec<u8> {
    headers(stream, 0, POST)
}

fn ended(stream: u32) -> Vec<u8> {
    headers(stream, END_STREAM, GET)
}

#[test]
fn beginnings() {
    let mut side = Side::server();
    assert_eq!(frames(&side.take())[0].0, 4, "SETTINGS come first");
    assert_eq!(
        side.feed(b"GET / HTTP/1.1\r\n").1,
        Some(ConnectionError::Preface)
    );
    assert_eq!(endings(&side.take()), [(7, 0, 1)]);
    for first in [
        open(1),
        frame(6, 0, 0, &[0; 8]),
        frame(4, ACK, 0, &[]),
        frame(0x42, 0, 0, &[]),
    ] {
        let mut side = Side::server();
        let error = side.feed(&[PREFACE.to_vec(), first].concat()).1;
        assert_eq!(error, Some(ConnectionError::FirstFrame));
    }
    let mut client = Side::client();
    assert!(client.take().starts_with(PREFACE));
    let error = client.feed(&frame(6, 0, 0, &[0; 8])).1;
    assert_eq!(error, Some(ConnectionError::FirstFrame));
}

#[test]
fn prefaces_are_recognised() {
    assert_eq!(is_preface(b""), None);
    assert_eq!(is_preface(&PREFACE[..23]), None);
    assert_eq!(is_preface(PREFACE), Some(true));
    assert_eq!(is_preface(&[PREFACE, b"more"].concat()), Some(true));
    assert_eq!(is_preface(b"PUT / HTTP/1.1"), Some(false));
    assert_eq!(is_preface(b"PRI * HTTP/1.1\r\n\r\n"), Some(false));
}

#[test]
fn unknown_things_are_ignored() {
    harmless(&[frame(0x16, 0xff, 0, &[1, 2, 3])]);
    harmless(&[frame(0x4d, 0, 1, b"metadata")]);
    harmless(&[frame(6, 0x16, 0, &[0; 8])]);
    harmless(&[settings(&[(0xff, 1), (6, 1), (9, 1)])]);
    harmless(&[goaway(0, 0xff)]);
    harmless(&[open(1), rst_stream(1, 0xff)]);
    // The reserved bit.
    harmless(&[frame(6, 0, 0x8000_0000, &[0; 8])]);
}

#[test]
fn frames_of_a_wrong_size() {
    use ConnectionError::FrameSize;
    let code = ErrorCode::FRAME_SIZE_ERROR;
    ends(&[open(1), data(1, 0, &vec![0; 16_385])], FrameSize, code);
    ends(&[frame(1, 5, 1, &vec![0; 16_385])], FrameSize, code);
    ends(&[frame(4, 0, 0, &[0; 3])], FrameSize, code);
    ends(&[frame(4, ACK, 0, &[0; 6])], FrameSize, code);
    ends(&[frame(6, 0, 0, &[0; 6])], FrameSize, code);
    ends(&[frame(7, 0, 0, &[0; 7])], FrameSize, code);
    ends(&[frame(8, 0, 0, &[0; 3])], FrameSize, code);
    ends(&[open(1), frame(3, 0, 1, &[0; 3])], FrameSize, code);
    ends(&[frame(2, 0, 1, &[0; 4])], FrameSize, code);
    ends(&[frame(1, PADDED | END_HEADERS, 1, &[])], FrameSize, code);
    ends(
        &[frame(1, PRIORITY | END_HEADERS, 1, &[0; 4])],
        FrameSize,
        code,
    );
    ends(&[open(1), data(1, PADDED, &[])], FrameSize, code);
    resets(&[open(1), frame(2, 0, 1, &[0; 4])], 1, code);
    harmless(&[open(1), data(1, END_STREAM, &vec![0; 16_384])]);
}

#[test]
fn frames_on_the_wrong_stream() {
    use ConnectionError::StreamId;
    let code = ErrorCode::PROTOCOL_ERROR;
    ends(&[data(0, 0, b"x")], StreamId, code);
    ends(&[headers(0, 0, GET)], StreamId, code);
    ends(&[headers(2, 0, GET)], StreamId, code);
    ends(&[frame(2, 0, 0, &[0, 0, 0, 1, 1])], StreamId, code);
    ends(&[rst_stream(0, 8)], StreamId, code);
    ends(&[frame(4, 0, 1, &[])], StreamId, code);
    ends(&[frame(6, 0, 1, &[0; 8])], StreamId, code);
    ends(&[frame(7, 0, 1, &[0; 8])], StreamId, code);
    ends(
        &[open(1), frame(5, END_HEADERS, 1, &[0, 0, 0, 3])],
        ConnectionError::PushPromise,
        code,
    );
}

#[test]
fn idle_streams() {
    use ConnectionError::UnexpectedFrame;
    let code = ErrorCode::PROTOCOL_ERROR;
    ends(&[data(1, END_STREAM, b"x")], UnexpectedFrame, code);
    ends(&[rst_stream(1, 8)], UnexpectedFrame, code);
    ends(&[window_update(1, 100)], UnexpectedFrame, code);
    ends(&[window_update(2, 100)], UnexpectedFrame, code);
    ends(&[frame(9, END_HEADERS, 1, &[0x82])], UnexpectedFrame, code);
    harmless(&[frame(2, 0, 1, &[0, 0, 0, 0, 255])]);
    harmless(&[frame(2, 0, 3, &[0, 0, 0, 0, 255]), ended(1)]);
}

#[test]
fn half_closed_and_closed_streams() {
    let code = ErrorCode::STREAM_CLOSED;
    resets(&[ended(1), data(1, END_STREAM, b"x")], 1, code);
    resets(&[ended(1), ended(1)], 1, code);
    harmless(&[
        ended(1),
        window_update(1, 1),
        frame(2, 0, 1, &[0, 0, 0, 0, 1]),
    ]);
    harmless(&[ended(1), rst_stream(1, 8)]);
    // After the peer's reset.
    resets(&[open(1), rst_stream(1, 8), data(1, 0, b"x")], 1, code);
    ends(
        &[open(1), rst_stream(1, 8), ended(1)],
        ConnectionError::StreamClosed,
        code,
    );
    harmless(&[
        open(1),
        rst_stream(1, 8),
        rst_stream(1, 8),
        window_update(1, 5),
        frame(2, 0, 1, &[0, 0, 0, 0, 1]),
    ]);
    // A stream that was jumped over is closed.
    ends(&[ended(5), ended(3)], ConnectionError::StreamClosed, code);
    // After both sides have ended it.
    let mut side = server();
    side.fine(&ended(1));
    let stream = side.last.unwrap();
    assert_eq!(side.conn.send_response(stream, 200, [], true), Ok(()));
    assert_eq!(side.feed(&ended(1)).1, Some(ConnectionError::StreamClosed));
}

#[test]
fn what_we_have_reset_is_ignored() {
    let mut side = server();
    side.fine(&open(1));
    side.conn.reset(side.last.unwrap(), ErrorCode::CANCEL);
    assert_eq!(endings(&side.take()), [(3, 1, 8)]);
    let under_way = [
        data(1, 0, b"more"),
        window_update(1, 3),
        headers(1, END_STREAM, &[("x-trailer", "1")]),
        rst_stream(1, 8),
    ];
    assert_eq!(side.fine(&under_way.concat()), []);
    assert_eq!(side.take(), []);
    let mut counts = side.conn.take_counts().unwrap();
    assert_eq!(counts.get(Stat::HeadersCbNoStream), 1);
    assert_eq!(counts.get(Stat::TxReset), 1);
    counts = Counts::default();
    assert!(counts.is_empty() && side.conn.take_counts().is_none());
}

#[test]
fn header_blocks_are_not_interrupted() {
    use ConnectionError::Continuation;
    let code = ErrorCode::PROTOCOL_ERROR;
    let begun = || frame(1, END_STREAM, 1, &block(GET));
    let more = |flags, stream| frame(9, flags, stream, &block(&[("x", "1")]));
    harmless(&[begun(), more(END_HEADERS, 1)]);
    harmless(&[begun(), more(0, 1), more(0, 1), more(END_HEADERS, 1)]);
    ends(
        &[begun(), frame(2, 0, 1, &[0, 0, 0, 0, 1])],
        Continuation,
        code,
    );
    ends(&[begun(), ended(3)], Continuation, code);
    ends(&[begun(), more(END_HEADERS, 3)], Continuation, code);
    ends(&[begun(), more(END_HEADERS, 0)], Continuation, code);
    ends(&[begun(), frame(0x16, 0, 1, &[])], Continuation, code);
    ends(&[begun(), more(0, 1), data(1, 0, b"x")], Continuation, code);
    let unexpected = ConnectionError::UnexpectedFrame;
    ends(&[ended(1), more(END_HEADERS, 1)], unexpected, code);
    ends(
        &[begun(), more(END_HEADERS, 1), more(END_HEADERS, 1)],
        unexpected,
        code,
    );
}

#[test]
fn padding() {
    let padded = |padding: u8, rest: &[u8]| [&[padding][..], rest].concat();
    harmless(&[
        open(1),
        data(1, PADDED, &padded(3, b"data\0\0\0")),
        data(1, PADDED | END_STREAM, &padded(4, &[0; 4])),
    ]);
    let mut fields = block(GET);
    fields.extend([0; 5]);
    harmless(&[frame(1, PADDED | 5, 1, &padded(5, &fields))]);
    let with_priority = [&[0, 0, 0, 0, 9][..], &block(GET)].concat();
    harmless(&[frame(1, PRIORITY | 5, 1, &with_priority)]);
    let code = ErrorCode::PROTOCOL_ERROR;
    let wrong = ConnectionError::Padding;
    ends(
        &[open(1), data(1, PADDED, &padded(5, b"data"))],
        wrong,
        code,
    );
    ends(&[frame(1, PADDED | 5, 1, &padded(3, &[0; 2]))], wrong, code);
}

#[test]
fn self_dependency() {
    let on_itself = [&[0, 0, 0, 1, 9][..], &block(GET)].concat();
    let code = ErrorCode::PROTOCOL_ERROR;
    resets(&[frame(1, PRIORITY | 5, 1, &on_itself)], 1, code);
    resets(&[open(1), frame(2, 0, 1, &[0x80, 0, 0, 1, 9])], 1, code);
    let wrong = ConnectionError::UnexpectedFrame;
    ends(&[frame(2, 0, 1, &[0, 0, 0, 1, 9])], wrong, code);
}

#[test]
fn settings_values() {
    let code = ErrorCode::PROTOCOL_ERROR;
    let wrong = ConnectionError::Settings;
    ends(&[settings(&[(2, 2)])], wrong, code);
    ends(&[settings(&[(5, 16_383)])], wrong, code);
    ends(&[settings(&[(5, 16_777_216)])], wrong, code);
    ends(&[settings(&[(8, 2)])], wrong, code);
    ends(
        &[settings(&[(4, 0x8000_0000)])],
        ConnectionError::FlowControl,
        ErrorCode::FLOW_CONTROL_ERROR,
    );
    harmless(&[settings(&[
        (2, 1),
        (5, 16_777_215),
        (4, 0x7fff_ffff),
        (3, 0),
    ])]);
    let mut client = Side::client();
    assert_eq!(client.feed(&settings(&[(2, 1)])).1, Some(wrong));
}

#[test]
fn answers() {
    let mut side = server();
    side.fine(&[frame(6, 0, 0, b"12345678"), settings(&[(4, 1)])].concat());
    let sent = frames(&side.take());
    assert_eq!(
        sent,
        [(6, ACK, 0, b"12345678".to_vec()), (4, ACK, 0, vec![])]
    );
    let seen = side.fine(&frame(6, ACK, 0, b"abcdefgh"));
    assert_eq!(seen, [Seen::Pong(*b"abcdefgh")]);
    assert!(side.take().is_empty());
}

#[test]
fn compression_errors() {
    let code = ErrorCode::COMPRESSION_ERROR;
    let wrong = ConnectionError::Compression;
    let mut request = block(GET);
    for bad in [
        "80",
        "ff ff ff ff ff",
        "c6",
        "7e 01 61",
        "40",
        "00 85 f2",
        "3f e2 1f",
    ] {
        ends(
            &[frame(1, 5, 1, &[request.clone(), hex(bad)].concat())],
            wrong,
            code,
        );
    }
    // Size updates: too large, and at the end.
    ends(&[frame(1, 5, 1, &hex("3f e2 1f 82"))], wrong, code);
    request.extend(hex("20"));
    ends(&[frame(1, 5, 1, &request)], wrong, code);
    // Two at the beginning are in order.
    let two = [hex("3f 61 3f e1 1f"), block(GET)].concat();
    harmless(&[frame(1, 5, 1, &two)]);
    // The block ends within a field.
    let whole: Vec<usize> = (0..=GET.len()).map(|n| block(&GET[..n]).len()).collect();
    for cut in 0..block(GET).len() {
        let mut side = server_with(lenient());
        let error = side.feed(&frame(1, 5, 1, &block(GET)[..cut])).1;
        assert_eq!(error, (!whole.contains(&cut)).then_some(wrong), "{cut}");
    }
}

#[test]
fn more_streams_than_allowed_are_refused() {
    let mut side = server_with(Options {
        max_concurrent_streams: 3,
        ..Options::default()
    });
    let many: Vec<u8> = (0..5).flat_map(|n| open(1 + 2 * n)).collect();
    let seen = side.fine(&many);
    assert_eq!(seen.len(), 3);
    let code = ErrorCode::REFUSED_STREAM.0;
    assert_eq!(endings(&side.take()), [(3, 7, code), (3, 9, code)]);
    // What follows on a refused stream is ignored; another one gives its place.
    assert_eq!(side.fine(&data(7, END_STREAM, b"x")), []);
    side.conn.reset(side.last.unwrap(), ErrorCode::CANCEL);
    assert!(matches!(side.fine(&open(11))[..], [Seen::Request(11, ..)]));
}
