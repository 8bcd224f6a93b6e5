//! Which HTTP a connection speaks, by its first line: what Envoy's `http_inspector` looks at.

use super::chars::{self, TOKEN};

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstLine {
    /// The line is not there as a whole.
    Incomplete,
    Http10,
    Http11,
    /// The preface of HTTP/2.
    Http2,
    NotHttp,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Looks at the bytes from the beginning of a connection.
pub fn first_line(bytes: &[u8]) -> FirstLine {
    if bytes.starts_with(PREFACE) {
        return FirstLine::Http2;
    }
    if PREFACE.starts_with(bytes) {
        return FirstLine::Incomplete;
    }
    if let Some(b'\r' | b'\n') = bytes.first() {
        return FirstLine::NotHttp;
    }
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
        let method = bytes.split(is_space).next().unwrap_or_default();
        let may_be_one = !method.is_empty() && chars::all(&TOKEN, method);
        return if may_be_one {
            FirstLine::Incomplete
        } else {
            FirstLine::NotHttp
        };
    };
    request_line(bytes.get(..end).unwrap_or_default())
}

/// As Envoy's parser reads it, which is more lenient than the one for requests.
fn request_line(line: &[u8]) -> FirstLine {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (method, rest) = word(line);
    let (target, version) = word(rest);
    if method.is_empty() || !chars::all(&TOKEN, method) || !is_target(target, method == b"CONNECT")
    {
        return FirstLine::NotHttp;
    }
    match chars::trim(version) {
        b"HTTP/1.1" => FirstLine::Http11,
        b"" => FirstLine::Http10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            FirstLine::Http10
        }
        _ => FirstLine::NotHttp,
    }
}

fn word(line: &[u8]) -> (&[u8], &[u8]) {
    let is_space = |byte: &u8| *byte <= b' ';
    let end = line.iter().position(is_space).unwrap_or(line.len());
    let (word, rest) = line.split_at_checked(end).unwrap_or((line, &[]));
    let start = rest.iter().position(|byte| !is_space(byte));
    (
        word,
        rest.get(start.unwrap_or(rest.len())..).unwrap_or_default(),
    )
}

fn is_target(target: &[u8], connect: bool) -> bool {
    let in_path = |bytes: &[u8]| {
        bytes
            .iter()
            .all(|byte| matches!(byte, 9 | 12 | b'!'..=b'~'))
    };
    match target.first() {
        None => false,
        Some(b'/' | b'*') => in_path(target),
        Some(_) => {
            let mut authority = target;
            if !connect {
                let in_scheme = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                let scheme = target.iter().take_while(in_scheme).count();
                let behind = target.get(scheme..).unwrap_or_default();
                match behind.strip_prefix(b"://") {
                    Some(rest) if scheme > 0 => authority = rest,
                    _ => return false,
                }
            }
            let path = authority
                .iter()
                .position(|byte| matches!(byte, b'/' | b'?'));
            let (host, path) = authority
                .split_at_checked(path.unwrap_or(authority.len()))
                .unwrap_or((authority, &[]));
            let in_host =
                |byte: &u8| byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=@[]_~".contains(byte);
            host.iter().all(in_host) && in_path(path)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], FirstLine::Http11),
            (b"GET / HTTP/1.1\nhost: x", FirstLine::Http11),
            (b"GET http://a/b?c HTTP/1.0\r\n", FirstLine::Http10),
            (b"CONNECT a:1 HTTP/1.1\r\n", FirstLine::Http11),
            (b"BREW /pot HTTP/1.1\r\n", FirstLine::Http11),
            (PREFACE, FirstLine::Http2),
            (b"PRI * HTTP/2.0\r\n\r\nS", FirstLine::Incomplete),
            (b"", FirstLine::Incomplete),
            (b"GET / HTTP/1.1", FirstLine::Incomplete),
            (b"\x16\x03\x01\x02", FirstLine::NotHttp),
            (b"GET /\x01", FirstLine::Incomplete),
            (b"hello\0", FirstLine::NotHttp),
            (b"GET /\x01 HTTP/1.1\r\n", FirstLine::Http11),
            (b" GET / HTTP/1.1\r\n", FirstLine::NotHttp),
            (b"GET  /\tHTTP/1.1 \r\n", FirstLine::Http11),
            (b"GET /\r\n", FirstLine::Http10),
            (b"hello\r\n", FirstLine::NotHttp),
            (b"GET / HTTP/1.1 x\r\n", FirstLine::NotHttp),
            (b"GET nonsense HTTP/1.1\r\n", FirstLine::NotHttp),
            (b"\r\nGET / HTTP/1.1\r\n", FirstLine::NotHttp),
            (b"G\x01T / HTTP/1.1\r\n", FirstLine::NotHttp),
        ] {
            assert_eq!(first_line(bytes), expected, "{}", bytes.escape_ascii());
        }
    }
}
