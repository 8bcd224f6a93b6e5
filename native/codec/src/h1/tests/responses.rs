use super::super::*;

fn parse(method: Method, bytes: &[u8]) -> Result<ResponseHead, ErrorKind> {
    let limits = Limits {
        max_head_bytes: 80 * 1024,
        ..Limits::default()
    };
    let mut scratch = HeadScratch::new();
    match parse_response(bytes, method, &mut scratch, &limits) {
        Ok(Some(head)) => Ok(head),
        Ok(None) => panic!("incomplete: {}", bytes.escape_ascii()),
        Err(error) => Err(error.kind),
    }
}

fn get(head: &str) -> Result<ResponseHead, ErrorKind> {
    parse(Method::Get, head.as_bytes())
}

fn framing(lines: &str) -> ResponseFraming {
    get(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n"))
        .unwrap()
        .framing
}

#[test]
fn status_lines() {
    for (line, status, reason) in [
        ("HTTP/1.1 200 OK", 200, "OK"),
        ("HTTP/1.1 200", 200, ""),
        ("HTTP/1.1 200 ", 200, ""),
        ("HTTP/1.1 404 Not\tFound", 404, "Not\tFound"),
        ("HTTP/1.1 999 x", 999, "x"),
        ("HTTP/1.0 200 OK", 200, "OK"),
    ] {
        let text = format!("{line}\r\n\r\n");
        let head = get(&text).unwrap();
        assert_eq!(
            (head.status, head.reason.of(text.as_bytes())),
            (status, reason.as_bytes())
        );
        assert_eq!(head.len as usize, text.len());
    }
    for bad in [
        "HTTP/1.1 20 x",
        "HTTP/1.1 099 x",
        "HTTP/1.1 2000 x",
        "HTTP/1.1  200 OK",
        "http/1.1 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/2 200 OK",
        "foo bar",
        "\r\nHTTP/1.1 200 OK",
        "HTTP/1.1 200 a\u{1}b",
        "HTTP/1.1 200 a\rb",
        "HTTP/1.1 200 OK\nX: y",
    ] {
        assert!(get(&format!("{bad}\r\n\r\n")).is_err(), "{bad}");
    }
}

#[test]
fn framings() {
    assert_eq!(framing(""), ResponseFraming::UntilClose);
    assert_eq!(framing("Content-Length: 0\r\n"), ResponseFraming::Length(0));
    assert_eq!(
        framing("Content-Length: 12\r\n"),
        ResponseFraming::Length(12)
    );
    assert_eq!(
        framing("Transfer-Encoding: chunked\r\n"),
        ResponseFraming::Chunked
    );
    let with = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n";
    assert_eq!(
        parse(Method::Head, with).unwrap().framing,
        ResponseFraming::None
    );
    assert_eq!(
        parse(Method::Connect, with).unwrap().framing,
        ResponseFraming::None
    );
    for bodiless in [
        "304 x\r\nContent-Length: 2",
        "304 x\r\nTransfer-Encoding: chunked",
        "100 x",
    ] {
        let head = get(&format!("HTTP/1.1 {bodiless}\r\n\r\n")).unwrap();
        assert_eq!(head.framing, ResponseFraming::None, "{bodiless}");
        assert!(head.keep_alive);
    }
}

#[test]
fn what_envoy_refuses() {
    for (head, kind) in [
        (
            "200 x\r\nContent-Length: 2\r\nContent-Length: 2",
            ErrorKind::DuplicateContentLength,
        ),
        ("200 x\r\nContent-Length: 2, 2", ErrorKind::ContentLength),
        (
            "200 x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked",
            ErrorKind::ContentLengthAndTransferEncoding,
        ),
        (
            "200 x\r\nTransfer-Encoding: identity",
            ErrorKind::TransferEncoding,
        ),
        (
            "200 x\r\nTransfer-Encoding: gzip, chunked",
            ErrorKind::TransferEncoding,
        ),
        (
            "200 x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            ErrorKind::TransferEncoding,
        ),
        (
            "204 x\r\nContent-Length: 2",
            ErrorKind::ContentLengthNotAllowed,
        ),
        (
            "204 x\r\nTransfer-Encoding: chunked",
            ErrorKind::TransferEncodingNotAllowed,
        ),
        (
            "101 x\r\nTransfer-Encoding: chunked",
            ErrorKind::TransferEncodingNotAllowed,
        ),
        ("200 x\r\nX Y: y", ErrorKind::HeaderName),
        ("200 x\r\nX : y", ErrorKind::HeaderName),
        ("200 x\r\nX: \u{1}", ErrorKind::InvalidCharacter),
        // Stricter.
        ("200 x\r\nX: y\r\n z", ErrorKind::ObsoleteFold),
        ("200 x\r\nX: y\nZ: y", ErrorKind::LineEnding),
        ("200 x\r\nX: y\rz", ErrorKind::LineEnding),
    ] {
        assert_eq!(
            get(&format!("HTTP/1.1 {head}\r\n\r\n")).unwrap_err(),
            kind,
            "{head}"
        );
    }
    let many = "x: y\r\n".repeat(101);
    assert_eq!(
        get(&format!("HTTP/1.1 200 x\r\n{many}\r\n")).unwrap_err(),
        ErrorKind::TooManyHeaders
    );
    let big = "y".repeat(80 * 1024);
    let large = get(&format!("HTTP/1.1 200 x\r\nx: {big}\r\n\r\n")).unwrap_err();
    assert_eq!(large, ErrorKind::HeadersTooLarge);
}

#[test]
fn connections() {
    let keeps = |text: &str| get(&format!("{text}\r\n\r\n")).unwrap().keep_alive;
    assert!(keeps("HTTP/1.1 200 x\r\nContent-Length: 2"));
    assert!(!keeps(
        "HTTP/1.1 200 x\r\nContent-Length: 2\r\nConnection: close"
    ));
    assert!(!keeps("HTTP/1.1 200 x"));
    assert!(!keeps("HTTP/1.0 200 x\r\nContent-Length: 2"));
    assert!(keeps(
        "HTTP/1.0 200 x\r\nContent-Length: 2\r\nConnection: keep-alive"
    ));
    assert!(!keeps(
        "HTTP/1.0 200 x\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive"
    ));
    assert!(
        get("HTTP/1.1 101 x\r\nConnection: upgrade\r\n\r\n")
            .unwrap()
            .upgrade
    );
}

#[test]
fn what_is_passed_on() {
    let bytes = b"HTTP/1.1 200 OK\r\nConnection: x-a\r\nX-A: 1\r\nKeep-Alive: 1\r\nProxy-Connection: a\r\nTE: x\r\nTrailer: X\r\nUpgrade: h2c\r\nHost: 1\r\nHost: 2\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let mut scratch = HeadScratch::new();
    parse_response(bytes, Method::Get, &mut scratch, &Limits::default())
        .unwrap()
        .unwrap();
    let names = super::passed(bytes, &scratch).join(" ");
    assert_eq!(names, "x-a te trailer host host expect content-length");
    let bytes = b"HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n";
    parse_response(bytes, Method::Get, &mut scratch, &Limits::default())
        .unwrap()
        .unwrap();
    assert!(super::passed(bytes, &scratch).is_empty());
}
