use super::super::*;

fn chunked(policy: TrailerPolicy) -> ChunkedBody {
    ChunkedBody::new(policy, &Limits::default())
}

/// The raw view of a whole body, what is left over, and whether it finished.
fn raw(policy: TrailerPolicy, bytes: &[u8]) -> Result<(Vec<u8>, usize, bool), ErrorKind> {
    let mut out = Vec::new();
    let fed = chunked(policy)
        .feed_raw(bytes, |extent| out.extend_from_slice(extent))
        .map_err(|error| error.kind)?;
    Ok((out, bytes.len() - fed.consumed, fed.finished))
}

fn payload(bytes: &[u8]) -> (Vec<u8>, Vec<(String, String)>, Fed) {
    let mut out = Vec::new();
    let mut trailers = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fed = chunked(TrailerPolicy::Forward)
        .feed_payload(
            bytes,
            |data| out.extend_from_slice(data),
            |name, value| trailers.push((text(name), text(value))),
        )
        .unwrap();
    (out, trailers, fed)
}

#[test]
fn a_plain_body_is_one_extent() {
    let bytes = b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n";
    let mut extents = Vec::new();
    let mut body = chunked(TrailerPolicy::Drop);
    let fed = body
        .feed_raw(bytes, |extent| extents.push(extent.to_vec()))
        .unwrap();
    assert_eq!(extents, [bytes.to_vec()]);
    assert_eq!(
        fed,
        Fed {
            consumed: bytes.len(),
            payload: 13,
            finished: true
        }
    );
    assert!(body.is_finished());
    let (data, trailers, fed) = payload(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nGET /");
    assert_eq!(
        (data, trailers.len(), fed.payload),
        (b"abcde".to_vec(), 0, 5)
    );
    assert_eq!(fed.consumed, 20);
}

#[test]
fn what_is_left_out_of_the_raw_view() {
    for (bytes, expected) in [
        ("3;a=b\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"),
        (
            "3 ; a = \"x\\\"\\r;y\" ;b\r\nabc\r\n0;z\r\n\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        (
            "00000000000000000000003\r\nabc\r\n000\r\n\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        ("3\r\nabc\r\n0\r\nX: y\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"),
    ] {
        let (out, left, finished) = raw(TrailerPolicy::Drop, bytes.as_bytes()).unwrap();
        assert_eq!(
            (String::from_utf8(out).unwrap().as_str(), left, finished),
            (expected, 0, true)
        );
    }
    let bytes =
        b"0\r\nX: y\r\nContent-Length: 3\r\nHost: z\r\nTransfer-Encoding: chunked\r\nZ:1\r\n\r\n";
    let (out, _, _) = raw(TrailerPolicy::Forward, bytes).unwrap();
    assert_eq!(out, b"0\r\nX: y\r\nZ:1\r\n\r\n");
    let (_, trailers, fed) = payload(bytes);
    assert_eq!(
        trailers,
        [("X".into(), "y".into()), ("Z".into(), "1".into())]
    );
    assert!(fed.finished);
}

#[test]
fn malformed_chunks() {
    for (bytes, kind) in [
        (" 3\r\nabc\r\n", ErrorKind::ChunkSize),
        ("0x3\r\nabc\r\n", ErrorKind::ChunkSize),
        ("-3\r\nabc\r\n", ErrorKind::ChunkSize),
        ("+3\r\nabc\r\n", ErrorKind::ChunkSize),
        ("1_0\r\nabc\r\n", ErrorKind::ChunkSize),
        ("3x\r\nabc\r\n", ErrorKind::ChunkSize),
        ("\r\n3\r\nabc\r\n", ErrorKind::ChunkSize),
        (";a\r\nabc\r\n", ErrorKind::ChunkSize),
        ("3\nabc\r\n", ErrorKind::ChunkSize),
        ("3\rXabc\r\n", ErrorKind::ChunkSize),
        ("0\r\r\n\r\n", ErrorKind::ChunkSize),
        ("1000000000000000\r\n", ErrorKind::ChunkSize),
        ("ffffffffffffffff\r\n", ErrorKind::ChunkSize),
        ("3\r\nabc\n0\r\n\r\n", ErrorKind::ChunkEnd),
        ("3\r\nabcX\r\n0\r\n\r\n", ErrorKind::ChunkEnd),
        ("3\r\nab\r\n0\r\n\r\n", ErrorKind::ChunkEnd),
        ("3\r\nabc\r0\r\n\r\n", ErrorKind::ChunkEnd),
        ("3 \r\nabc\r\n", ErrorKind::ChunkExtension),
        ("3;\r\nabc\r\n", ErrorKind::ChunkExtension),
        ("3;a=\r\nabc\r\n", ErrorKind::ChunkExtension),
        ("3;a=\"\r\nabc\r\n", ErrorKind::ChunkExtension),
        ("3;a=\"\\\r\n\"\r\nabc\r\n", ErrorKind::ChunkExtension),
        ("3;a\nb\r\nabc\r\n", ErrorKind::ChunkExtension),
        ("3;a\0\r\nabc\r\n", ErrorKind::ChunkExtension),
        ("3 a\r\nabc\r\n", ErrorKind::ChunkExtension),
        ("0\n\n", ErrorKind::ChunkSize),
        ("0\r\nX T: z\r\n\r\n", ErrorKind::Trailer),
        ("0\r\nXT\r\n\r\n", ErrorKind::Trailer),
        ("0\r\nX: y\n\r\n\r\n", ErrorKind::Trailer),
        ("0\r\nX: y\rz\r\n\r\n", ErrorKind::Trailer),
        ("0\r\nX: y\r\n z\r\n\r\n", ErrorKind::Trailer),
        ("0\r\nX: y\n\r\n", ErrorKind::Trailer),
        ("0\r\n: z\r\n\r\n", ErrorKind::Trailer),
        ("0\r\nX: a\0\r\n\r\n", ErrorKind::InvalidCharacter),
        ("0\r\n\n\r\n\r\n", ErrorKind::Trailer),
    ] {
        assert_eq!(
            raw(TrailerPolicy::Drop, bytes.as_bytes()),
            Err(kind),
            "{}",
            bytes.escape_debug()
        );
        assert_eq!(raw(TrailerPolicy::Forward, bytes.as_bytes()), Err(kind));
    }
    // A bare CR within an extension ends the line as far as we read, and then LF is missing.
    assert_eq!(
        raw(TrailerPolicy::Drop, b"3;a\rb\r\nabc\r\n"),
        Err(ErrorKind::ChunkSize)
    );
}

#[test]
fn bounds() {
    let many = format!("0\r\n{}\r\n", "x: y\r\n".repeat(101));
    assert_eq!(
        raw(TrailerPolicy::Forward, many.as_bytes()),
        Err(ErrorKind::TooManyTrailers)
    );
    assert!(raw(TrailerPolicy::Drop, many.as_bytes()).unwrap().2);
    let big = format!("0\r\nx: {}\r\n\r\n", "y".repeat(61 * 1024));
    assert_eq!(
        raw(TrailerPolicy::Drop, big.as_bytes()),
        Err(ErrorKind::TrailersTooLarge)
    );
    assert_eq!(
        raw(TrailerPolicy::Drop, &big.as_bytes()[..big.len() - 2]),
        Err(ErrorKind::TrailersTooLarge)
    );
    let extended = "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n".repeat(600);
    assert_eq!(
        raw(TrailerPolicy::Drop, extended.as_bytes()),
        Err(ErrorKind::ChunkExtension)
    );
    let zeros = "0".repeat(20_000);
    assert_eq!(
        raw(TrailerPolicy::Drop, zeros.as_bytes()),
        Err(ErrorKind::ChunkExtension)
    );
}

#[test]
fn trailers_wait_for_their_end() {
    let mut body = chunked(TrailerPolicy::Forward);
    let mut out = Vec::new();
    let fed = body
        .feed_raw(b"1\r\na\r\n0\r\nX: y\r\n", |e| out.extend_from_slice(e))
        .unwrap();
    assert_eq!(
        (fed.consumed, fed.finished, out.as_slice()),
        (9, false, &b"1\r\na\r\n0\r\n"[..])
    );
    let fed = body
        .feed_raw(b"X: y\r\n\r\nGET", |e| out.extend_from_slice(e))
        .unwrap();
    assert_eq!((fed.consumed, fed.finished), (8, true));
    assert_eq!(out, b"1\r\na\r\n0\r\nX: y\r\n\r\n");
}

#[test]
fn other_bodies() {
    let limits = Limits::default();
    let mut body = BodyTracker::request(RequestFraming::Length(5), TrailerPolicy::Drop, &limits);
    let mut out = Vec::new();
    let fed = body.feed_raw(b"abc", |e| out.extend_from_slice(e)).unwrap();
    assert_eq!(
        fed,
        Fed {
            consumed: 3,
            payload: 3,
            finished: false
        }
    );
    assert!(!body.may_end_here());
    let fed = body
        .feed_payload(b"deGET", |e| out.extend_from_slice(e), |_, _| {})
        .unwrap();
    assert_eq!(
        fed,
        Fed {
            consumed: 2,
            payload: 2,
            finished: true
        }
    );
    assert_eq!(out, b"abcde");

    let mut body = BodyTracker::response(ResponseFraming::UntilClose, TrailerPolicy::Drop, &limits);
    let fed = body.feed_raw(b"abc", |_| {}).unwrap();
    assert_eq!(
        fed,
        Fed {
            consumed: 3,
            payload: 3,
            finished: false
        }
    );
    assert!(body.may_end_here() && !body.is_finished());

    for mut body in [
        BodyTracker::request(RequestFraming::None, TrailerPolicy::Drop, &limits),
        BodyTracker::request(RequestFraming::Length(0), TrailerPolicy::Drop, &limits),
        BodyTracker::response(ResponseFraming::None, TrailerPolicy::Drop, &limits),
    ] {
        assert!(body.is_finished());
        let fed = body.feed_raw(b"GET", |_| panic!("no body")).unwrap();
        assert_eq!(
            fed,
            Fed {
                consumed: 0,
                payload: 0,
                finished: true
            }
        );
    }
}
