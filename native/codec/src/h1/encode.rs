//! Bytes out: status lines, request lines, header lines and chunks appended to a caller's vector.

use super::request::Version;
use super::status::reason_phrase;

/// What ends a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
pub const CRLF: &[u8] = b"\r\n";
/// The interim response to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// `HTTP/1.1 200 OK\r\n`.
#[inline]
pub fn status_line(out: &mut Vec<u8>, version: Version, status: u16) {
    if status == 200 && version == Version::Http11 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        status_line_with(out, version, status, reason_phrase(status).as_bytes());
    }
}

/// As [`status_line`] with a reason phrase of one's own.
pub fn status_line_with(out: &mut Vec<u8>, version: Version, status: u16, reason: &[u8]) {
    out.extend_from_slice(version.as_str().as_bytes());
    out.push(b' ');
    decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(CRLF);
}

/// `GET /path HTTP/1.1\r\n`.
#[inline]
pub fn request_line(out: &mut Vec<u8>, method: &[u8], path_and_query: &[u8]) {
    out.extend_from_slice(method);
    out.push(b' ');
    out.extend_from_slice(path_and_query);
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// `name: value\r\n`.
#[inline]
pub fn header(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(CRLF);
}

/// `name: 123\r\n`.
#[inline]
pub fn header_decimal(out: &mut Vec<u8>, name: &[u8], value: u64) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    decimal(out, value);
    out.extend_from_slice(CRLF);
}

/// `content-length: n\r\n`.
#[inline]
pub fn content_length(out: &mut Vec<u8>, length: u64) {
    header_decimal(out, b"content-length", length);
}

/// `transfer-encoding: chunked\r\n`.
#[inline]
pub fn transfer_encoding_chunked(out: &mut Vec<u8>) {
    out.extend_from_slice(b"transfer-encoding: chunked\r\n");
}

/// The size line of a chunk; the payload and [`CRLF`] follow. `length` must not be 0: that would end the body.
#[inline]
pub fn chunk_header(out: &mut Vec<u8>, length: u64) {
    debug_assert!(length > 0, "an empty chunk ends the body");
    let digits = (64 - length.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = (length >> (4 * place)) as u8 & 0xf;
        out.push(if digit < 10 {
            b'0' + digit
        } else {
            b'a' + digit - 10
        });
    }
    out.extend_from_slice(CRLF);
}

/// A number without a detour through a `String`.
#[inline]
pub fn decimal(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0u8; 20];
    let mut rest = value;
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (rest % 10) as u8;
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for value in [0, 7, 10, 99, 100, 65_536, u64::MAX] {
            let mut out = Vec::new();
            decimal(&mut out, value);
            assert_eq!(out, value.to_string().into_bytes());
            if value > 0 {
                out.clear();
                chunk_header(&mut out, value);
                assert_eq!(out, format!("{value:x}\r\n").into_bytes());
            }
        }
    }

    #[test]
    fn lines() {
        let mut out = Vec::new();
        status_line(&mut out, Version::Http11, 200);
        status_line(&mut out, Version::Http10, 503);
        status_line(&mut out, Version::Http11, 299);
        content_length(&mut out, 12);
        assert_eq!(
            out,
            b"HTTP/1.1 200 OK\r\nHTTP/1.0 503 Service Unavailable\r\nHTTP/1.1 299 Unknown\r\ncontent-length: 12\r\n"
        );
    }
}
