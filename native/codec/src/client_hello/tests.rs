use super::*;

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &long(content)].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &long(&[&[0][..], &long(name)].concat()))
}

fn alpn(names: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = names
        .iter()
        .flat_map(|name| [&[name.len() as u8][..], name].concat())
        .collect();
    extension(16, &long(&list))
}

fn body(version: u16, extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend([7; 32]);
    body.push(0);
    body.extend(long(&[0x13, 0x01]));
    body.extend([1, 0]);
    body.extend(long(&extensions.concat()));
    body
}

fn handshake(body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&[1][..], &length[1..], body].concat()
}

fn record(content: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &long(content)].concat()
}

fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    record(&handshake(&body(0x0303, extensions)))
}

fn seen(bytes: &[u8]) -> String {
    let mut scratch = Vec::new();
    let text =
        |bytes: Option<&[u8]>| bytes.map_or("-".to_owned(), |b| b.escape_ascii().to_string());
    match inspect(bytes, &mut scratch) {
        Inspected::Incomplete => "incomplete".to_owned(),
        Inspected::NotTls { processed } => format!("not TLS {processed}"),
        Inspected::Hello(hello) => {
            assert!(hello.processed <= bytes.len());
            format!("{} {}", text(hello.server_name), text(hello.alpn))
        }
    }
}

#[test]
fn what_was_asked_for() {
    let names = [server_name(b"A.example"), alpn(&[b"h2", b"http/1.1"])];
    assert_eq!(seen(&hello(&names)), "A.example \\x02h2\\x08http/1.1");
    assert_eq!(seen(&hello(&[])), "- -");
    // Nor need there be room for extensions.
    let mut old = body(0x0301, &[]);
    old.truncate(old.len() - 2);
    assert_eq!(seen(&record(&handshake(&old))), "- -");
}

#[test]
fn any_number_of_pieces_and_records() {
    let names = [server_name(b"a.example"), alpn(&[b"h2"])];
    let whole = hello(&names);
    for end in 0..whole.len() {
        assert_eq!(seen(&whole[..end]), "incomplete", "{end}");
    }
    let message = handshake(&body(0x0303, &names));
    for size in [1, 3, 50] {
        let records: Vec<u8> = message.chunks(size).flat_map(record).collect();
        assert_eq!(seen(&records), "a.example \\x02h2", "{size}");
        assert_eq!(seen(&records[..records.len() - 1]), "incomplete", "{size}");
    }
    // What comes behind it is not looked at.
    assert_eq!(seen(&[whole, vec![0; 9]].concat()), "a.example \\x02h2");
}

#[test]
fn what_is_not_tls() {
    for (bytes, processed) in [
        (&b"GET / HTTP/1.1\r\n"[..], 5),
        (b"CONNECT a:1 HTTP/1.1", 5),
        (b"DELETE / HTTP/1.1", 5),
        (b"\x16\x02\x01\x00\x05hello", 5),
        (b"\x16\x03\x01\xff\xff", 5),
        (b"\x17\x03\x01\x00\x02ab", 7),
        (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", 9),
        (b"\x16\x03\x01\x00\x04\x01\x01\x00\x00", 9),
    ] {
        assert_eq!(seen(bytes), format!("not TLS {processed}"), "{bytes:?}");
    }
    assert_eq!(seen(b"GET"), "incomplete");
    assert_eq!(seen(b"\x17\x03\x01\x00\x09ab"), "incomplete");
}

#[test]
fn damaged_hellos_are_not_tls() {
    let is_refused = |bytes: Vec<u8>| assert!(seen(&bytes).starts_with("not TLS"), "{bytes:?}");
    let a = || server_name(b"a");
    is_refused(hello(&[a(), a()]));
    is_refused(hello(&[server_name(b"")]));
    is_refused(hello(&[server_name(b"a\0b")]));
    is_refused(hello(&[extension(0, b"\0")]));
    is_refused(record(&handshake(&body(0x0300, &[]))));
    is_refused(hello(&[extension(43, b"\x02\x7f\x12")]));
    is_refused(record(&handshake(&[body(0x0303, &[]), vec![0]].concat())));
    // A list of protocols that is damaged is none.
    assert_eq!(seen(&hello(&[a(), extension(16, b"\0\x03\x02h2x")])), "a -");
    assert_eq!(seen(&hello(&[extension(16, b"\0\x01\x00")])), "- -");
    // A draft version and one that is known.
    assert_eq!(
        seen(&hello(&[extension(43, b"\x04\x7f\x12\x03\x04")])),
        "- -"
    );
}

#[test]
fn no_bytes_make_it_fail() {
    let whole = hello(&[server_name(b"a.example"), alpn(&[b"h2", b"x"])]);
    for at in 0..whole.len() {
        for value in [0, 1, 2, 0x7f, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            seen(&bytes);
            bytes.truncate(at);
            seen(&bytes);
        }
    }
}
