//! Heads, trailers and bodies that RFC 9113 section 8 allows, and those it does not.

use super::protocol::{lenient, server, server_with};
use super::wire::*;
use super::*;
use crate::h1::{KnownHeader, Method, UnderscoreAction};

/// The verdict on a request with these fields.
fn verdict(fields: &[(&str, &str)], flags: u8, options: Options) -> Result<Vec<String>, Malformed> {
    let mut side = server_with(options);
    let (seen, error) = side.feed(&headers(1, flags, fields));
    match (&seen[..], error) {
        ([Seen::Request(1, lines, _)], None) => Ok(lines.clone()),
        ([], Some(ConnectionError::Malformed(why))) => Err(why),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn good(fields: &[(&str, &str)]) -> Vec<String> {
    verdict(fields, END_STREAM, Options::default()).unwrap()
}

#[track_caller]
fn bad(fields: &[(&str, &str)], why: Malformed) {
    assert_eq!(verdict(fields, END_STREAM, Options::default()), Err(why));
    // With the milder option the stream is reset and the connection lives.
    let mut side = server_with(lenient());
    assert_eq!(side.fine(&headers(1, END_STREAM, fields)), []);
    assert_eq!(endings(&side.take()), [(3, 1, 1)]);
    let counts = side.conn.take_counts().unwrap();
    assert_eq!(counts.get(Stat::RxMessagingError), 1);
    assert_eq!(side.fine(&headers(3, END_STREAM, GET)).len(), 1);
}

#[test]
fn pseudo_headers() {
    use Malformed::{MissingPseudoHeader, PseudoHeader};
    for missing in 0..3 {
        let mut fields = GET.to_vec();
        fields.remove(missing);
        bad(&fields, MissingPseudoHeader);
    }
    bad(&[("accept", "*/*")], MissingPseudoHeader);
    for double in GET {
        bad(&with(GET, &[*double]), PseudoHeader);
    }
    bad(&with(GET, &[(":status", "200")]), PseudoHeader);
    bad(&with(GET, &[(":test", "ok")]), Malformed::HeaderName);
    bad(&with(GET, &[(":", "ok")]), Malformed::HeaderName);
    bad(&with(&GET[..3], &[("x", "1"), GET[3]]), PseudoHeader);
    bad(&with(&GET[..3], &[("host", "a"), GET[3]]), PseudoHeader);
}

#[test]
fn methods_schemes_and_paths() {
    let request = |method, scheme, path| {
        [
            (":method", method),
            (":scheme", scheme),
            (":path", path),
            (":authority", "a"),
        ]
    };
    for method in ["GET", "PURGE", "BREW", "get", "M-SEARCH"] {
        good(&request(method, "http", "/"));
    }
    for method in ["", "G T", "GET\u{e9}", "A(B"] {
        bad(&request(method, "http", "/"), Malformed::Method);
    }
    for scheme in ["http", "https", "HTTPS", "coap+tcp", "h2"] {
        good(&request("GET", scheme, "/"));
    }
    for scheme in ["", "1http", "http:", "ht tp"] {
        bad(&request("GET", scheme, "/"), Malformed::Scheme);
    }
    for path in ["/", "/a?b=c&d", "/%00", "//", "/a#b"] {
        good(&request("GET", "http", path));
    }
    good(&request("OPTIONS", "http", "*"));
    for path in ["", "/a b", "/\u{e9}"] {
        bad(&request("GET", "http", path), Malformed::Path);
    }
    for path in ["a", "*", "?a", "http://a/"] {
        bad(&request("GET", "http", path), Malformed::RelativePath);
    }
    bad(&request("OPTIONS", "http", "*a"), Malformed::RelativePath);
}

#[test]
fn authority_and_host() {
    let base = &GET[..3];
    let of = |fields: &[(&str, &str)]| good(&with(base, fields));
    assert_eq!(of(&[(":authority", "a:80")]), ["GET http://a:80/"]);
    assert_eq!(of(&[("host", "b")]), ["GET http://b/"]);
    assert_eq!(of(&[("x", "1"), ("host", "b")])[1..], ["x: 1"]);
    assert_eq!(
        of(&[(":authority", "B.c"), ("host", "b.C")]),
        ["GET http://B.c/"]
    );
    // Envoy insists, and HTTP/1 behind us needs it.
    bad(base, Malformed::MissingPseudoHeader);
    let host = Malformed::Host;
    bad(&with(GET, &[("host", "b")]), host);
    bad(&with(GET, &[("host", "")]), host);
    bad(&with(base, &[("host", "a"), ("host", "a")]), host);
    for wrong in ["", "a b", "u@a", "a/b", "a:b", "[::1", "a:99999"] {
        bad(&with(base, &[(":authority", wrong)]), Malformed::Authority);
    }
    bad(&with(base, &[("host", "a/b")]), Malformed::Authority);
}

#[test]
fn names_and_values() {
    for name in [
        "",
        "X-Upper",
        "a b",
        "a\0",
        "a\u{e9}",
        "a:",
        "Content-Length",
    ] {
        bad(&with(GET, &[(name, "1")]), Malformed::HeaderName);
    }
    for value in ["a\0", "a\r", "a\nb", "\r\n", "\x7f", "\x01"] {
        bad(&with(GET, &[("x", value)]), Malformed::HeaderValue);
        bad(
            &with(&GET[..2], &[(":path", &format!("/{value}"))]),
            Malformed::HeaderValue,
        );
    }
    let lines = good(&with(
        GET,
        &[
            ("x", "a\tb"),
            ("x_y", "\u{e9}"),
            ("empty", ""),
            ("padded", " \t a b \t"),
            ("blank", "  "),
        ],
    ));
    assert_eq!(
        lines[1..],
        [
            "x: a\tb",
            "x_y: \u{e9}",
            "empty: ",
            "padded: a b",
            "blank: "
        ]
    );
    // A value beyond 7-bit characters that is no UTF-8 either.
    let mut side = server();
    let mut fields = block(GET);
    fields.extend(b"\0\x01x\x02\xff\x80");
    assert_eq!(side.fine(&frame(1, 5, 1, &fields)).len(), 1);
    let field = side.scratch.fields()[0];
    assert_eq!(side.scratch.of(field.value), b"\xff\x80");
}

#[test]
fn connection_specific_headers() {
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    ] {
        bad(&with(GET, &[(name, "x")]), Malformed::ConnectionHeader);
    }
    bad(&with(GET, &[("te", "gzip")]), Malformed::Te);
    bad(&with(GET, &[("te", "trailers, deflate")]), Malformed::Te);
    let lines = good(&with(GET, &[("te", "trailers"), ("te", "Trailers")]));
    assert_eq!(lines[1..], ["te: trailers"]);
}

#[test]
fn cookies_become_one() {
    let fields = with(
        GET,
        &[
            ("cookie", "a=b"),
            ("x", "1"),
            ("cookie", "c=d"),
            ("y", "2"),
            ("cookie", "e=f"),
        ],
    );
    let mut side = server();
    let seen = side.fine(&headers(1, END_STREAM, &fields));
    let Seen::Request(_, lines, _) = &seen[0] else {
        panic!()
    };
    assert_eq!(lines[1..], ["cookie: a=b; c=d; e=f", "x: 1", "y: 2"]);
    let value = side.scratch.value(KnownHeader::Cookie);
    assert_eq!(value, Some(&b"a=b; c=d; e=f"[..]));
    assert_eq!(side.scratch.all(KnownHeader::Cookie).count(), 1);
    assert_eq!(side.scratch.by_name(b"y").count(), 1);
    assert!(!side.scratch.contains(KnownHeader::Accept));
}

#[test]
fn underscores() {
    let fields = with(GET, &[("x_y", "1"), ("x-y", "2")]);
    let options = |underscores| Options {
        underscores,
        ..Options::default()
    };
    let got = verdict(&fields, END_STREAM, options(UnderscoreAction::Drop));
    assert_eq!(got.unwrap()[1..], ["x-y: 2"]);
    let mut side = server_with(options(UnderscoreAction::Drop));
    side.fine(&headers(1, END_STREAM, &fields));
    let counts = side.conn.take_counts().unwrap();
    assert_eq!(counts.get(Stat::DroppedHeadersWithUnderscores), 1);
    // The stream is reset, whatever else is done about malformed messages.
    let mut side = server_with(options(UnderscoreAction::Reject));
    assert_eq!(side.fine(&headers(1, END_STREAM, &fields)), []);
    assert_eq!(endings(&side.take()), [(3, 1, 2)]);
    let counts = side.conn.take_counts().unwrap();
    let rejected = Stat::RequestsRejectedWithUnderscoresInHeaders;
    assert_eq!(
        (counts.get(rejected), counts.get(Stat::RxMessagingError)),
        (1, 0)
    );
}

#[test]
fn connect() {
    let plain = [(":method", "CONNECT"), (":authority", "a:443")];
    let mut side = server();
    side.fine(&headers(1, 0, &plain));
    assert_eq!(side.scratch.request().method, Method::Connect);
    assert!(side.scratch.request().path.is_empty());
    // A tunnel's length is not declared.
    side.fine(&headers(3, 0, &with(&plain, &[("content-length", "1")])));
    assert_eq!(side.fine(&data(3, 0, b"more than that")).len(), 1);
    bad(
        &with(&plain, &[])
            .iter()
            .rev()
            .copied()
            .skip(1)
            .collect::<Vec<_>>(),
        Malformed::MissingPseudoHeader,
    );
    bad(
        &[(":method", "CONNECT"), (":authority", "a")],
        Malformed::Authority,
    );
    bad(&with(&plain, &[(":path", "/")]), Malformed::Connect);
    bad(&with(&plain, &[(":scheme", "http")]), Malformed::Connect);

    let extended = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", "/chat"),
        (":authority", "a"),
    ];
    // Where it is not offered its pseudo header is an unknown one.
    bad(&extended, Malformed::PseudoHeader);
    let mut side = server_with(Options {
        allow_connect: true,
        ..Options::default()
    });
    side.fine(&headers(1, 0, &extended));
    let protocol = side.scratch.request().protocol.unwrap();
    assert_eq!(side.scratch.of(protocol), b"websocket");
    let mut get = extended;
    get[0].1 = "GET";
    let error = side.feed(&headers(3, 0, &get)).1;
    assert_eq!(error, Some(ConnectionError::Malformed(Malformed::Connect)));
}

#[test]
fn extended_connect_is_offered_and_asked_for() {
    let line = RequestLine {
        method: b"CONNECT",
        scheme: b"https",
        authority: b"a",
        path: b"/chat",
        protocol: Some(b"websocket"),
    };
    for allow_connect in [false, true] {
        let options = Options {
            allow_connect,
            ..Options::default()
        };
        let (mut client, mut server) = (Side::client(), Side::new(Role::Server, options));
        pump(&mut client, &mut server);
        assert_eq!(client.conn.peer_allows_extended_connect(), allow_connect);
        let sent = client.conn.start_request(0, &line, [], false, 0);
        if allow_connect {
            assert!(sent.is_ok());
            let (_, seen) = pump(&mut client, &mut server);
            assert!(matches!(seen[..], [Seen::Request(1, _, false)]));
        } else {
            assert_eq!(sent, Err(SendError::NoExtendedConnect));
        }
    }
}

#[test]
fn content_lengths() {
    let body = |length: &str, frames: &[(u8, &[u8])]| {
        let mut bytes = headers(1, 0, &with(POST, &[("content-length", length)]));
        for (flags, payload) in frames {
            bytes.extend(data(1, *flags, payload));
        }
        let mut side = server();
        is_wrong_length(&side.feed(&bytes))
    };
    assert!(!body("4", &[(END_STREAM, b"test")]));
    assert!(!body("4", &[(0, b"te"), (END_STREAM, b"st")]));
    assert!(!body("4", &[(0, b"test"), (END_STREAM, b"")]));
    assert!(body("1", &[(END_STREAM, b"test")]));
    assert!(body("5", &[(END_STREAM, b"test")]));
    assert!(body("5", &[(0, b"te"), (END_STREAM, b"st")]));
    assert!(body("3", &[(0, b"te"), (0, b"st")]));
    assert!(!body("0", &[(END_STREAM, b"")]));
    for length in ["", "-1", "+1", "1,1", "0x1", "9223372036854775808", "1 1"] {
        bad(
            &with(POST, &[("content-length", length)]),
            Malformed::ContentLength,
        );
    }
    let twice = [("content-length", "0"), ("content-length", "0")];
    bad(&with(POST, &twice), Malformed::ContentLength);
    bad(
        &with(POST, &[("content-length", "1")]),
        Malformed::BodyLength,
    );
    // Trailers end it too early.
    let mut side = server();
    side.fine(&headers(1, 0, &with(POST, &[("content-length", "2")])));
    let ended = side.feed(&headers(1, END_STREAM, &[("x", "1")]));
    assert!(is_wrong_length(&ended));
}

#[test]
fn trailers() {
    let after = |flags, fields: &[(&str, &str)]| {
        let mut side = server_with(lenient());
        side.fine(&headers(1, 0, POST));
        side.fine(&headers(1, flags, fields))
    };
    let fields = [
        ("x", "1"),
        ("content-length", "5"),
        ("host", "b"),
        ("te", "trailers"),
    ];
    let seen = after(END_STREAM, &fields);
    assert_eq!(seen, [Seen::Trailers(1, vec!["x: 1".to_string()])]);
    for (flags, fields, why) in [
        (0, [("x", "1")], Malformed::Trailers),
        (END_STREAM, [(":method", "GET")], Malformed::PseudoHeader),
        (
            END_STREAM,
            [("connection", "x")],
            Malformed::ConnectionHeader,
        ),
        (END_STREAM, [("X", "x")], Malformed::HeaderName),
    ] {
        let by = ResetBy::Fault(StreamFault::Malformed(why));
        let reset = Seen::Reset(1, ErrorCode::PROTOCOL_ERROR, by);
        assert_eq!(after(flags, &fields), [reset]);
    }
}

/// A length that does not fit ends the stream and not the connection.
fn is_wrong_length((seen, error): &(Vec<Seen>, Option<ConnectionError>)) -> bool {
    let by = ResetBy::Fault(StreamFault::Malformed(Malformed::BodyLength));
    let reset = Seen::Reset(1, ErrorCode::PROTOCOL_ERROR, by);
    assert_eq!(*error, None);
    seen.contains(&reset)
}

/// A client that has sent a request, and what it makes of the answer.
fn answered(method: &'static [u8], bytes: &[Vec<u8>]) -> (Vec<Seen>, Option<ConnectionError>) {
    let mut client = Side::client();
    client.fine(&settings(&[]));
    let line = RequestLine {
        method,
        ..super::exchange::GET
    };
    client.conn.start_request(5, &line, [], true, 0).unwrap();
    client.feed(&bytes.concat())
}

#[test]
fn responses() {
    let status = |code: &'static str| [(":status", code)];
    let response = |flags, code| headers(1, flags, &status(code));
    let lines = |seen: &[Seen]| seen.len();
    let (seen, error) = answered(b"GET", &[response(0, "100"), response(END_STREAM, "200")]);
    assert_eq!((lines(&seen), error), (2, None));
    for (bytes, why) in [
        (vec![response(END_STREAM, "103")], Malformed::Interim),
        (vec![response(0, "101")], Malformed::Interim),
        (vec![response(0, "20")], Malformed::Status),
        (vec![response(0, "2000")], Malformed::Status),
        (vec![response(0, "020")], Malformed::Status),
        (
            vec![headers(1, 0, &[("x", "1")])],
            Malformed::MissingPseudoHeader,
        ),
        (vec![headers(1, 0, GET)], Malformed::PseudoHeader),
        (vec![data(1, 0, b"x")], Malformed::DataBeforeHead),
        (
            vec![response(0, "100"), data(1, 0, b"x")],
            Malformed::DataBeforeHead,
        ),
        (
            vec![response(0, "200"), response(END_STREAM, "200")],
            Malformed::PseudoHeader,
        ),
    ] {
        let wrong = ConnectionError::Malformed(why);
        assert_eq!(answered(b"GET", &bytes).1, Some(wrong));
    }
    let body_of_204 = answered(b"GET", &[response(0, "204"), data(1, 0, b"x")]);
    assert!(is_wrong_length(&body_of_204));
    // A response's `host` is a header like any other.
    let (seen, error) = answered(
        b"GET",
        &[headers(1, 1, &[(":status", "200"), ("host", "x")])],
    );
    assert_eq!(error, None);
    assert_eq!(seen, [Seen::Response(1, 200, vec!["host: x".into()], true)]);
}

#[test]
fn lengths_of_responses() {
    let head = |flags, status| headers(1, flags, &[(":status", status), ("content-length", "3")]);
    type Case = (&'static [u8], Vec<Vec<u8>>, bool);
    let (fine, wrong) = (false, true);
    let cases: [Case; 8] = [
        (b"GET", vec![head(0, "200"), data(1, 1, b"abc")], fine),
        (b"GET", vec![head(0, "200"), data(1, 1, b"abcd")], wrong),
        (b"GET", vec![head(1, "200")], wrong),
        (b"HEAD", vec![head(1, "200")], fine),
        (b"HEAD", vec![head(0, "200"), data(1, 1, b"")], fine),
        (b"HEAD", vec![head(0, "200"), data(1, 1, b"abc")], wrong),
        (b"GET", vec![head(1, "304")], fine),
        (
            b"CONNECT",
            vec![head(0, "200"), data(1, 0, b"abcdef")],
            fine,
        ),
    ];
    for (method, bytes, expected) in cases {
        assert_eq!(is_wrong_length(&answered(method, &bytes)), expected);
    }
}
