//! However the bytes are cut, the outcome is the same.

use proptest::prelude::*;

use super::super::*;

/// Offers the bytes in pieces the way a connection does: what was not consumed is offered again with more behind it.
fn dribble(
    bytes: &[u8],
    cuts: &[usize],
    mut feed: impl FnMut(&[u8]) -> Result<usize, ()>,
) -> Result<usize, ()> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut from = 0;
    for end in ends {
        from += feed(&bytes[from..end])?;
    }
    Ok(from)
}

/// What came out, how much went in, whether the body finished.
/// That a fault is found does not depend on the cuts; which of several is named may.
type View = Result<(Vec<u8>, usize, bool), ()>;

fn chunked_views(bytes: &[u8], cuts: &[usize], policy: TrailerPolicy) -> [View; 2] {
    let limits = Limits::default();
    let mut body = ChunkedBody::new(policy, &limits);
    let mut out = Vec::new();
    let mut raw = dribble(bytes, cuts, |part| {
        let fed = body
            .feed_raw(part, |e| out.extend_from_slice(e))
            .map_err(|_| ())?;
        Ok(fed.consumed)
    })
    .map(|taken| (Vec::new(), taken, body.is_finished()));
    if let Ok(raw) = &mut raw {
        raw.0 = out;
    }
    let mut body = ChunkedBody::new(policy, &limits);
    let (mut data, mut trailers) = (Vec::new(), Vec::new());
    let mut payload = dribble(bytes, cuts, |part| {
        let fed = body
            .feed_payload(
                part,
                |e| data.extend_from_slice(e),
                |n, v| trailers.extend([n, b"=", v].concat()),
            )
            .map_err(|_| ())?;
        Ok(fed.consumed)
    })
    .map(|taken| (Vec::new(), taken, body.is_finished()));
    if let Ok(payload) = &mut payload {
        data.extend_from_slice(&trailers);
        payload.0 = data;
    }
    [raw, payload]
}

fn chunked_body() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => "[0-9a-f]{1,3}\r\n".prop_map(String::into_bytes),
        4 => (0usize..20).prop_map(|n| [format!("{n:x}\r\n").into_bytes(), vec![b'x'; n], b"\r\n".to_vec()].concat()),
        4 => (0usize..20).prop_map(|n| [format!("00{n:X};a=\"b;\" ; c\r\n").into_bytes(), vec![b'0'; n], b"\r\n".to_vec()].concat()),
        3 => Just(b"0\r\n\r\n".to_vec()),
        3 => Just(b"0\r\nX: y\r\nhost: z\r\n\r\n".to_vec()),
        1 => "[0-9a-f;=\" \t\r\n:x]{0,6}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn head_bytes() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        8 => "[A-Za-z-]{1,12}: [ -~]{0,20}\r\n".prop_map(String::into_bytes),
        2 => Just(b"Host: a.b:80\r\n".to_vec()),
        1 => Just(b"Content-Length: 12\r\n".to_vec()),
        1 => Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        1 => Just(b"Connection: close, x-a\r\n".to_vec()),
        1 => "[A-Za-z:\r\n\t \u{0}\u{7f}]{0,10}".prop_map(String::into_bytes),
    ];
    let start = prop_oneof![
        8 => "(GET|POST|OPTIONS) /[ -~]{0,20} HTTP/1.1\r\n".prop_map(String::into_bytes),
        2 => "(\r\n){0,3}GET /[a-z?]{0,9} HTTP/1.1\r\n".prop_map(String::into_bytes),
        1 => "[A-Z]{1,4}[ \t]{1,2}[ -~]{0,9} HTTP/[0-9].[0-9]\r?\n".prop_map(String::into_bytes),
        2 => "HTTP/1.[01] [0-9]{3} [ -~]{0,9}\r\n".prop_map(String::into_bytes),
    ];
    (start, proptest::collection::vec(line, 0..6), any::<bool>()).prop_map(
        |(start, lines, ended)| {
            [
                start,
                lines.concat(),
                if ended { b"\r\n".to_vec() } else { Vec::new() },
            ]
            .concat()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn chunked(bytes in chunked_body(), cuts in proptest::collection::vec(any::<usize>(), 0..8)) {
        for policy in [TrailerPolicy::Drop, TrailerPolicy::Forward] {
            let whole = chunked_views(&bytes, &[], policy);
            let each: Vec<usize> = (0..bytes.len()).collect();
            let cut = chunked_views(&bytes, &cuts, policy);
            let single = chunked_views(&bytes, &each, policy);
            // The whole may stop before a last zero or CR where a cut stops too: consumed bytes agree all the same.
            prop_assert_eq!(&whole, &cut);
            prop_assert_eq!(&whole, &single);
            // The raw view is a chunked body again, with the same payload and nothing to leave out.
            if let [Ok((raw, _, true)), Ok((payload, _, true))] = &whole {
                let again = chunked_views(raw, &[], TrailerPolicy::Forward);
                prop_assert_eq!(again[0].as_ref().unwrap(), &(raw.clone(), raw.len(), true));
                if policy == TrailerPolicy::Forward {
                    prop_assert_eq!(&again[1].as_ref().unwrap().0, payload);
                }
            }
        }
    }

    #[test]
    fn heads(bytes in head_bytes(), step in 1usize..9) {
        let limits = Limits::default();
        let mut scratch = HeadScratch::new();
        let whole = parse_request(&bytes, &mut scratch, &limits);
        let whole_headers = scratch.headers().to_vec();
        let whole_response = parse_response(&bytes, Method::Get, &mut scratch, &limits);
        let (mut resume, mut parsed) = (HeadResume::default(), Ok(None));
        let mut response = Ok(None);
        for end in (0..=bytes.len()).step_by(step).chain([bytes.len()]) {
            let part = &bytes[..end];
            if !matches!(parsed, Ok(None)) { break; }
            if resume.worth_parsing(part) {
                parsed = parse_request(part, &mut scratch, &limits);
            }
        }
        // A head that began to arrive is complete when its end is there; the verdict on a fault may come earlier.
        match (&whole, &parsed) {
            (Ok(Some(_)), _) => {
                prop_assert_eq!(&whole, &parsed);
                prop_assert_eq!(whole_headers, scratch.headers());
            }
            (Err(_), Ok(Some(_))) | (Ok(None), Err(_) | Ok(Some(_))) => prop_assert!(false, "{whole:?} {parsed:?}"),
            _ => {}
        }
        for end in 0..=bytes.len() {
            if matches!(response, Ok(None)) {
                response = parse_response(&bytes[..end], Method::Get, &mut scratch, &limits);
            }
        }
        match (&whole_response, &response) {
            (Err(_), Err(_)) => {}
            (whole, cut) => prop_assert_eq!(whole, cut),
        }
    }

    /// What is accepted holds nothing that could be read in a second way.
    #[test]
    fn accepted_heads_are_plain(bytes in head_bytes()) {
        let mut scratch = HeadScratch::new();
        let Ok(Some(head)) = parse_request(&bytes, &mut scratch, &Limits::default()) else { return Ok(()) };
        let text = &bytes[..head.len as usize];
        for (i, byte) in text.iter().enumerate() {
            match byte {
                b'\n' => prop_assert_eq!(text[i - 1], b'\r'),
                b'\r' => prop_assert_eq!(text[i + 1], b'\n'),
                b'\t' => {}
                _ => prop_assert!(*byte >= 0x20 && *byte != 0x7f),
            }
        }
        prop_assert!(scratch.all(KnownHeader::ContentLength).count() + scratch.all(KnownHeader::TransferEncoding).count() <= 1);
        prop_assert!(scratch.all(KnownHeader::Host).count() <= 1);
        for header in scratch.headers() {
            let line = header.line().of(&bytes);
            prop_assert!(line.starts_with(header.name.of(&bytes)) && line.ends_with(b"\r\n"));
            prop_assert_eq!(KnownHeader::from_name(header.name.of(&bytes)), header.known);
        }
    }

    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut scratch = HeadScratch::new();
        let _ = parse_request(&bytes, &mut scratch, &Limits::default());
        let _ = parse_response(&bytes, Method::Get, &mut scratch, &Limits::default());
        let _ = chunked_views(&bytes, &[], TrailerPolicy::Forward);
    }
}

/// One byte at a time costs linear time: the head is parsed in whole a handful of times only.
#[test]
fn dribbled_heads_are_parsed_seldom() {
    let bytes = [
        b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec(),
        vec![b'a'; 50_000],
        b"\r\n\r\n".to_vec(),
    ]
    .concat();
    let mut resume = HeadResume::default();
    let attempts = (1..=bytes.len())
        .filter(|end| resume.worth_parsing(&bytes[..*end]))
        .count();
    assert!(attempts < 20, "{attempts}");
    assert!(HeadResume::default().worth_parsing(&bytes));
    // A line that ends by LF alone is judged at once.
    let mut resume = HeadResume::default();
    assert!(resume.worth_parsing(b"GET / HTTP/1.1\r\nHost: abc"));
    assert!(!resume.worth_parsing(b"GET / HTTP/1.1\r\nHost: abcd"));
    assert!(resume.worth_parsing(b"GET / HTTP/1.1\r\nHost: abcd\n"));
    let mut scratch = HeadScratch::new();
    assert!(
        parse_request(&bytes, &mut scratch, &Limits::default())
            .unwrap()
            .is_some()
    );
}
