use super::super::*;
use super::{good, passed, request, request_with};

const HOST: &str = "Host: a\r\n";

/// What a request that is refused gets; `None`: it is passed on.
type Verdict = Option<(u16, &'static str)>;

const OK: Verdict = None;
const CODEC: Verdict = Some((400, "http1.codec_error"));
const CHARS: Verdict = Some((400, "http1.invalid_characters"));
const URL: Verdict = Some((400, "http1.invalid_url"));
const AUTHORITY: Verdict = Some((400, "http.invalid_authority"));
const LOW: Verdict = Some((426, "low_version"));
const CODING: Verdict = Some((501, "http1.invalid_transfer_encoding"));
const BOTH: Verdict = Some((400, "http1.content_length_and_chunked_not_allowed"));
const NOMINATED: Verdict = Some((400, "http1.connection_header_rejected"));
const LARGE: Verdict = Some((431, "http1.headers_too_large"));
const MANY: Verdict = Some((431, "http1.too_many_headers"));
const NO_HOST: Verdict = Some((400, "missing_host_header"));

fn verdict(bytes: &[u8]) -> Verdict {
    match request(bytes) {
        Ok(Some((head, _))) => head
            .refusal
            .map(|refusal| (refusal.status(), refusal.details())),
        Ok(None) => panic!("incomplete: {}", bytes.escape_ascii()),
        Err(error) => Some((error.status(), error.details())),
    }
}

fn check(cases: &[(&str, Verdict)]) {
    for (text, expected) in cases {
        // One char, one byte: the cases are Latin-1.
        let bytes: Vec<u8> = text
            .chars()
            .map(|c| u8::try_from(u32::from(c)).unwrap())
            .collect();
        assert_eq!(verdict(&bytes), *expected, "{}", bytes.escape_ascii());
    }
}

fn check_lines(cases: &[(&str, Verdict)]) {
    for (line, expected) in cases {
        check(&[(&format!("{line}\r\n{HOST}\r\n"), *expected)]);
    }
}

fn check_headers(cases: &[(&str, Verdict)]) {
    for (lines, expected) in cases {
        check(&[(
            &format!("POST / HTTP/1.1\r\n{HOST}{lines}\r\n\r\n"),
            *expected,
        )]);
    }
}

fn check_hosts(cases: &[(&str, Verdict)]) {
    for (value, expected) in cases {
        check(&[(
            &format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n"),
            *expected,
        )]);
    }
}

#[test]
fn request_lines_as_envoy() {
    check_lines(&[
        ("GET / HTTP/1.1", OK),
        ("get / HTTP/1.1", CODEC),
        ("FOO / HTTP/1.1", CODEC),
        ("PROPFIND / HTTP/1.1", OK),
        ("MSEARCH / HTTP/1.1", OK),
        ("M-SEARCH / HTTP/1.1", CODEC),
        (
            "QUERY / HTTP/1.1",
            Some((400, "query_missing_content_type")),
        ),
        ("QUERY / HTTP/1.1\r\nContent-Type: a/b", OK),
        ("GE\u{1}T / HTTP/1.1", CHARS),
        (" GET / HTTP/1.1", CODEC),
        ("GET /", LOW),
        ("GET HTTP/1.1", CODEC),
        ("GET / x HTTP/1.1", CODEC),
        ("hello", CODEC),
        ("GET / HTTP/0.9", LOW),
        ("GET / HTTP/1.0", LOW),
        ("GET / HTTP/1.2", LOW),
        ("GET / HTTP/1.9", LOW),
        ("GET / HTTP/2.0", LOW),
        ("GET / HTTP/2", CODEC),
        ("GET / http/1.1", CODEC),
        ("GET / HTTP/1.10", CODEC),
        ("GET / HTTP/01.1", CODEC),
        ("GET / ICE/1.1", CODEC),
        ("GET / HTTP/1,1", CODEC),
        ("GET /a\tb HTTP/1.1", CODEC),
        ("GET /\0 HTTP/1.1", CHARS),
        ("GET /\u{1} HTTP/1.1", CHARS),
        ("GET /\u{7f} HTTP/1.1", CHARS),
        ("GET /\u{e9} HTTP/1.1", CODEC),
        ("GET /a\"<>\\^`{|}'()*,;[]!$&+=@:~%b HTTP/1.1", OK),
        ("GET //b/x HTTP/1.1", OK),
    ]);
    check(&[("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}", CODEC)]);
    check(&[(
        &format!("{} / HTTP/1.1\r\n{HOST}\r\n", "A".repeat(200)),
        CODEC,
    )]);
    check(&[(&format!("\r\nGET / HTTP/1.1\r\n{HOST}\r\n"), OK)]);
}

#[test]
fn request_lines_stricter_than_envoy() {
    check_lines(&[
        ("GET  / HTTP/1.1", CODEC),
        ("GET /  HTTP/1.1", CODEC),
        ("GET\t/ HTTP/1.1", CODEC),
        ("GET / HTTP/1.1 ", CODEC),
        ("GET / HTTP/1.1\n", CODEC),
        ("GET / HTTP/1.1\r", CODEC),
    ]);
    check(&[
        (&format!("\nGET / HTTP/1.1\r\n{HOST}\r\n"), CODEC),
        (
            &format!("{}GET / HTTP/1.1\r\n{HOST}\r\n", "\r\n".repeat(5)),
            CODEC,
        ),
        (&format!("GET / HTTP/1.1\n{HOST}\r\n"), CODEC),
        ("GET / HTTP/1.1\nHost: a\n\n", CODEC),
    ]);
}

#[test]
fn targets() {
    check_lines(&[
        ("GET foo HTTP/1.1", CODEC),
        ("GET ?x HTTP/1.1", CODEC),
        ("GET * HTTP/1.1", URL),
        ("OPTIONS * HTTP/1.1", OK),
        // 404 absolute_path_rejected, in the connection manager.
        ("OPTIONS *x HTTP/1.1", OK),
        ("GET http://b/x?y HTTP/1.1", OK),
        ("GET HTTP://b HTTP/1.1", OK),
        ("GET https://b/ HTTP/1.1", OK),
        ("GET ftp://b/ HTTP/1.1", Some((400, "http1.invalid_scheme"))),
        ("GET http:/// HTTP/1.1", URL),
        ("GET http://b:99999/ HTTP/1.1", URL),
        ("GET http://b:x/ HTTP/1.1", URL),
        ("CONNECT a:80 HTTP/1.1", OK),
        ("CONNECT a HTTP/1.1", URL),
        ("CONNECT /x HTTP/1.1", URL),
        // Stricter: Envoy drops the user info.
        ("GET http://u:p@b/ HTTP/1.1", URL),
    ]);
    // Stricter: RFC 9112 section 3.2 wants Host in any case.
    check(&[("GET http://b/ HTTP/1.1\r\n\r\n", NO_HOST)]);

    let bytes = b"GET http://b:81/x/y?q=1?2 HTTP/1.1\r\nHost: a\r\n\r\n";
    let (head, _) = good(bytes);
    assert_eq!(head.target.form, TargetForm::Absolute);
    assert_eq!(head.target.scheme.of(bytes), b"http");
    assert_eq!(head.authority.of(bytes), b"b:81");
    assert_eq!(head.target.path_and_query(bytes), b"/x/y?q=1?2");
    assert_eq!(head.target.path.of(bytes), b"/x/y");
    assert_eq!(head.target.query.of(bytes), b"q=1?2");
    let bytes = b"GET http://b HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(good(bytes).0.target.path_and_query(bytes), b"/");
    let bytes = b"GET /p? HTTP/1.1\r\nHost: a\r\n\r\nrest";
    let (head, _) = good(bytes);
    assert_eq!(
        (head.target.path.of(bytes), head.target.query.of(bytes)),
        (&b"/p"[..], &b""[..])
    );
    assert_eq!(head.len as usize, bytes.len() - 4);

    let limits = Limits {
        allow_absolute_url: false,
        over_tls: false,
        ..Limits::default()
    };
    let refused = request_with(b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", &limits).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Target);
    let limits = Limits {
        over_tls: false,
        ..Limits::default()
    };
    let refused = request_with(b"GET https://b/ HTTP/1.1\r\nHost: a\r\n\r\n", &limits).unwrap_err();
    assert_eq!(refused.details(), "http1.https_url_on_plaintext_connection");
}

#[test]
fn hosts() {
    check(&[("GET / HTTP/1.1\r\n\r\n", NO_HOST)]);
    check_hosts(&[
        ("", OK),
        ("a_b", OK),
        ("a,b", OK),
        ("[::1]:80", OK),
        ("a%41", OK),
        ("a, b", AUTHORITY),
        ("a b", AUTHORITY),
        ("a/b", AUTHORITY),
        ("a?b", AUTHORITY),
        ("a#b", AUTHORITY),
        ("a\\b", AUTHORITY),
        ("a\u{e9}", AUTHORITY),
        ("a<b", AUTHORITY),
        ("a\tb", AUTHORITY),
        ("a\0b", CHARS),
        // Stricter.
        ("u@a", AUTHORITY),
        ("a:b", AUTHORITY),
        ("[::1", AUTHORITY),
        ("a[b", AUTHORITY),
        ("a%zz", AUTHORITY),
        ("a:99999", AUTHORITY),
        ("a\r\nHost: b", CODEC),
        ("a\r\nHost: a", CODEC),
        ("a\r\nhost:", CODEC),
    ]);
    // The authority of the target wins, but a broken Host still casts doubt on the request.
    check(&[("GET http://b/ HTTP/1.1\r\nHost: u@a\r\n\r\n", AUTHORITY)]);
}

#[test]
fn header_lines() {
    check_headers(&[
        ("X: a\tb", OK),
        ("X: a\u{e9}b", OK),
        ("X:", OK),
        ("X: \t a \t ", OK),
        ("x_y: 1", OK),
        ("X : a", CODEC),
        ("X\t: a", CODEC),
        ("X Y: a", CODEC),
        (": a", CODEC),
        ("Xabc", CODEC),
        ("X(Y): a", CODEC),
        ("X\u{e9}: a", CODEC),
        ("X/Y: a", CODEC),
        ("X\"Y: a", CODEC),
        ("X@Y: a", CODEC),
        ("X{: a", CODEC),
        (":path: /x", CODEC),
        ("X\rY: b", CODEC),
        ("X\0: a", CHARS),
        ("X\u{7f}: a", CHARS),
        ("X: a\0b", CHARS),
        ("X: a\u{1}b", CHARS),
        ("X: a\u{b}b", CHARS),
        ("X: a\u{7f}b", CHARS),
        // Stricter: Envoy reads LF as CRLF, drops a bare CR and unfolds.
        ("X: y\nY: z", CODEC),
        ("X: a\rb", CODEC),
        ("X: a\r", CODEC),
        ("X: a\r\n b", CODEC),
        ("X: a\r\n\tb", CODEC),
    ]);
    check(&[
        (&format!("GET / HTTP/1.1\r\n {HOST}\r\n"), CODEC),
        (&format!("GET / HTTP/1.1\r\n{HOST}\n"), CODEC),
        ("GET / HTTP/1.1\r\nHost: a\n\n", CODEC),
    ]);
}

#[test]
fn content_lengths() {
    for good in ["0", "3", "003", "9223372036854775807"] {
        check_headers(&[(&format!("Content-Length: {good}"), OK)]);
    }
    for bad in [
        "+3",
        "-3",
        "0x3",
        "3 3",
        "3, 3",
        "3, 4",
        "3,",
        ",3",
        "",
        "3.0",
        "3x",
        "\"3\"",
        "3e0",
        "99999999999999999999",
        "3;",
        "\u{b2}",
        "\u{a0}3",
        "3\r\nContent-Length: 3",
        "3\r\nContent-Length: 4",
        "3\r\ncontent-length: 03",
        // Stricter: beyond a signed 64-bit number.
        "9223372036854775808",
        "18446744073709551615",
    ] {
        check_headers(&[(&format!("Content-Length: {bad}"), CODEC)]);
    }
    check_headers(&[
        ("Content-Length : 3", CODEC),
        ("Content-Length:\r\n 3", CODEC),
    ]);
    check_headers(&[("Content-Length: \u{b}3", CHARS)]);
    check(&[
        (
            "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
            { Some((400, "http1.body_disallowed")) },
        ),
        (
            "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            OK,
        ),
        (
            "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            CODING,
        ),
    ]);
}

#[test]
fn transfer_encodings() {
    for good in ["chunked", "CHUNKED", "\tchunked", "chunked\t "] {
        check_headers(&[(&format!("Transfer-Encoding: {good}"), OK)]);
    }
    for bad in [
        "",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "\"chunked\"",
        "chunked;q=1",
        "chunk ed",
        "xchunked",
        "chunkedx",
        "trailers",
        "identity, chunked",
        "chunked\u{a0}",
        "chunked\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: identity",
        "identity\r\nTransfer-Encoding: chunked",
        // Stricter: Envoy overlooks the empty one.
        "\r\nTransfer-Encoding: chunked",
    ] {
        check_headers(&[(&format!("Transfer-Encoding: {bad}"), CODING)]);
    }
    check_headers(&[
        ("Transfer-Encoding: \u{b}chunked", CHARS),
        ("Transfer-Encoding: chunked\0", CHARS),
        ("Transfer-Encoding : chunked", CODEC),
        ("Transfer-Encoding:\r\n chunked", CODEC),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked", BOTH),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3", BOTH),
        ("Transfer-Encoding: identity\r\nContent-Length: 3", BOTH),
        ("Transfer-Encoding: \r\nContent-Length: 0", BOTH),
    ]);
    let limits = Limits {
        allow_chunked_length: true,
        ..Limits::default()
    };
    let bytes =
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (head, scratch) = request_with(bytes, &limits).unwrap().unwrap();
    assert_eq!(head.framing, RequestFraming::Chunked);
    assert_eq!(passed(bytes, &scratch), ["host"]);
}

#[test]
fn framing() {
    let framing = |lines: &str| {
        good(format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes())
            .0
            .framing
    };
    assert_eq!(framing(""), RequestFraming::None);
    assert_eq!(framing("Content-Length: 0\r\n"), RequestFraming::Length(0));
    assert_eq!(framing("CONTENT-LENGTH:42\r\n"), RequestFraming::Length(42));
    assert_eq!(
        framing("transfer-encoding: Chunked\r\n"),
        RequestFraming::Chunked
    );
    // Not names of ours, though some server may think so.
    assert_eq!(
        framing("Transfer_Encoding: chunked\r\n"),
        RequestFraming::None
    );
    assert_eq!(framing("Content_Length: 3\r\n"), RequestFraming::None);
    assert_eq!(framing("X-Content-Length: 3\r\n"), RequestFraming::None);
}

#[test]
fn limits() {
    let many = |count: usize| {
        let mut text = format!("GET / HTTP/1.1\r\n{HOST}");
        for i in 1..count {
            text += &format!("x{i}: y\r\n");
        }
        text + "\r\n"
    };
    check(&[(&many(100), OK), (&many(101), MANY)]);
    let big = |total: usize| {
        let frame = format!("GET / HTTP/1.1\r\n{HOST}X: \r\n\r\n").len();
        format!(
            "GET / HTTP/1.1\r\n{HOST}X: {}\r\n\r\n",
            "a".repeat(total - frame)
        )
    };
    check(&[(&big(60 * 1024), OK), (&big(60 * 1024 + 1), LARGE)]);
    check(&[
        (&format!("GET /{}", "a".repeat(61 * 1024)), LARGE),
        (
            &format!("GET / HTTP/1.1\r\n{}", "a".repeat(61 * 1024)),
            LARGE,
        ),
        (
            &format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(61 * 1024)),
            LARGE,
        ),
    ]);
}

#[test]
fn underscores() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nx_y: 1\r\nz: 2\r\n\r\n";
    let limits = |underscores| Limits {
        underscores,
        ..Limits::default()
    };
    let error = request_with(bytes, &limits(UnderscoreAction::Reject)).unwrap_err();
    assert_eq!(
        (error.status(), error.details()),
        (400, "http1.unexpected_underscore")
    );
    let (_, scratch) = request_with(bytes, &limits(UnderscoreAction::Drop))
        .unwrap()
        .unwrap();
    assert_eq!(
        (scratch.dropped(), passed(bytes, &scratch)),
        (1, vec!["host".into(), "z".into()])
    );
}

#[test]
fn nominations() {
    check_headers(&[
        ("Connection: content-length\r\nContent-Length: 3", NOMINATED),
        ("Connection: x-forwarded-for", NOMINATED),
        ("Connection: X-Forwarded-Proto", NOMINATED),
        ("Connection: x-forwarded-host", NOMINATED),
        ("Connection: :authority", NOMINATED),
        ("Connection: host", NO_HOST),
        ("Connection: a,b,c,d,e,f,g,h,i", OK),
        ("Connection: a,b,c,d,e,f,g,h,i,j", NOMINATED),
    ]);
    let left = |lines: &str| {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
        let (head, scratch) = good(text.as_bytes());
        (head, passed(text.as_bytes(), &scratch).join(" "))
    };
    assert_eq!(
        left("Connection: x-a, close\r\nX-A: 1\r\nX-B: 2").1,
        "host x-b"
    );
    assert_eq!(
        left("X-A: 1\r\nX-B: 2\r\nConnection: x-a\r\nConnection: x-b").1,
        "host"
    );
    assert_eq!(left("Connection: forwarded\r\nForwarded: for=x").1, "host");
    assert_eq!(left("Connection: te\r\nTE: trailers").1, "host te");
    assert_eq!(left("TE: gzip").1, "host");
    assert_eq!(
        left("Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive").1,
        "host"
    );
    assert_eq!(left("Upgrade: websocket").1, "host");
    assert_eq!(left("Trailer: x\r\nExpect: foo\r\nHTTP2-Settings: x").1, {
        "host trailer expect http2-settings"
    });
    assert_eq!(
        left("Connection: HTTP2-Settings\r\nHTTP2-Settings: x").1,
        "host"
    );
    assert!(!left("Connection: x-a, Close").0.keep_alive);
    assert!(left("Connection: keep-alive").0.keep_alive);
}

#[test]
fn keep_alive_upgrade_and_expect() {
    let head = |text: &str| good(format!("{text}Host: a\r\n\r\n").as_bytes()).0;
    assert!(head("GET / HTTP/1.1\r\n").keep_alive);
    assert!(!head("GET / HTTP/1.1\r\nConnection: keep-alive, close\r\n").keep_alive);
    assert!(head("GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n").upgrade);
    assert!(!head("GET / HTTP/1.1\r\nUpgrade: websocket\r\n").upgrade);
    assert!(!head("GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n").upgrade);
    assert!(!head("GET / HTTP/1.1\r\nConnection: Upgrade\r\n").upgrade);
    assert!(head("PUT / HTTP/1.1\r\nExpect: 100-Continue\r\n").expect_continue);
    assert!(!head("PUT / HTTP/1.1\r\nExpect: 200-ok\r\n").expect_continue);

    let limits = Limits {
        accept_http_10: true,
        ..Limits::default()
    };
    let old = |text: &str| request_with(text.as_bytes(), &limits).map(|parsed| parsed.unwrap().0);
    let head = old("GET / HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(
        (head.version, head.keep_alive, head.refusal),
        (Version::Http10, false, None)
    );
    assert!(
        old("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\nHost: a\r\n\r\n")
            .unwrap()
            .keep_alive
    );
    let refused = old("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap_err();
    assert_eq!(refused.kind, ErrorKind::TransferEncodingNotAllowed);
    assert_eq!(
        old("GET / HTTP/1.2\r\n\r\n").unwrap_err().kind,
        ErrorKind::LowVersion
    );
}

#[test]
fn scratch_finds_and_copies() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id:  r1 \r\nCookie: a\r\nFoo: 1\r\ncookie: b\r\n\r\n";
    let (_, scratch) = good(bytes);
    assert_eq!(
        scratch.value(KnownHeader::XRequestId, bytes),
        Some(&b"r1"[..])
    );
    assert_eq!(scratch.value(KnownHeader::Origin, bytes), None);
    assert_eq!(scratch.all(KnownHeader::Cookie).count(), 2);
    assert_eq!(scratch.all(KnownHeader::Via).count(), 0);
    assert_eq!(scratch.by_name(b"foo", bytes).count(), 1);
    let mut out = Vec::new();
    scratch.copy_lines(bytes, &mut out, |_| true);
    assert_eq!(
        out,
        b"Host: a\r\nX-Request-Id: r1\r\nCookie: a\r\nFoo: 1\r\ncookie: b\r\n"
    );
    out.clear();
    scratch.copy_lines(bytes, &mut out, |h| h.known != KnownHeader::XRequestId);
    assert_eq!(out, b"Host: a\r\nCookie: a\r\nFoo: 1\r\ncookie: b\r\n");
    out.clear();
    scratch.copy_lines(bytes, &mut out, |h| h.known == KnownHeader::Cookie);
    assert_eq!(out, b"Cookie: a\r\ncookie: b\r\n");
}
