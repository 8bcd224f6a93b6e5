//! `Host` and the authority of a target after RFC 3986 section 3.2: a host and perhaps a port.
//!
//! Stricter than Envoy, which looks at characters only: a bracket without its partner, a port that is no number or a
//! stray percent sign are read differently by different servers, and routing is decided by the host.

use std::net::Ipv6Addr;

use super::chars::{self, REG_NAME};

/// Whether `authority` is `host` or `host:port`. User info is not allowed (RFC 9110 section 4.2.4).
pub(crate) fn is_valid(authority: &[u8]) -> bool {
    if let Some(rest) = authority.strip_prefix(b"[") {
        let Some(end) = memchr::memchr(b']', rest) else {
            return false;
        };
        let (Some(literal), Some(port)) = (rest.get(..end), rest.get(end + 1..)) else {
            return false;
        };
        return is_ip_literal(literal) && (port.is_empty() || is_port(port));
    }
    let host_end = authority
        .iter()
        .position(|b| *b == b':')
        .unwrap_or(authority.len());
    let (Some(host), Some(port)) = (authority.get(..host_end), authority.get(host_end..)) else {
        return false;
    };
    chars::all(&REG_NAME, host) && percents_are_whole(host) && (port.is_empty() || is_port(port))
}

/// Whether `authority` is a whole `host:port`, as CONNECT wants it.
pub(crate) fn is_host_and_port(authority: &[u8]) -> bool {
    let port = authority.rsplit(|b| *b == b':').next().unwrap_or_default();
    is_valid(authority)
        && !port.is_empty()
        && port.iter().all(u8::is_ascii_digit)
        && port.len() + 1 < authority.len()
}

fn is_ip_literal(literal: &[u8]) -> bool {
    std::str::from_utf8(literal).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// `:` and at most 65535; the number may be missing.
fn is_port(port: &[u8]) -> bool {
    let Some(digits) = port.strip_prefix(b":") else {
        return false;
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let number = digits.iter().fold(0u32, |n, digit| {
        n.saturating_mul(10).saturating_add(u32::from(digit - b'0'))
    });
    number <= 65_535
}

fn percents_are_whole(mut host: &[u8]) -> bool {
    while let Some(at) = memchr::memchr(b'%', host) {
        match host.get(at + 1..at + 3) {
            Some([a, b]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {}
            _ => return false,
        }
        host = host.get(at + 3..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for good in [
            "",
            "a",
            "a.b-c_d~e",
            "a:80",
            "a:",
            "reviews.default.svc.cluster.local:9080",
            "10.0.0.1:65535",
            "[::1]",
            "[::1]:80",
            "[fe80::1:2]:15001",
            "a%41b",
            "a!$&'()*+,;=b",
        ] {
            assert!(is_valid(good.as_bytes()), "{good}");
        }
        for bad in [
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "u@a",
            "a\\b",
            "a<b",
            "a|b",
            "a^b",
            "a`b",
            "a{b",
            "a\"b",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:999999999999999",
            "a:-1",
            "[::1",
            "::1",
            "[::1]80",
            "[::1]x",
            "[x]",
            "[]",
            "a[b",
            "a]b",
            "a%",
            "a%4",
            "a%4g",
            "a\tb",
            "a\u{e9}",
        ] {
            assert!(!is_valid(bad.as_bytes()), "{bad}");
        }
        assert!(is_host_and_port(b"a:80") && is_host_and_port(b"[::1]:80"));
        assert!(!is_host_and_port(b"a") && !is_host_and_port(b"a:") && !is_host_and_port(b":80"));
        assert!(!is_host_and_port(b"[::1]") && !is_host_and_port(b"/x") && !is_host_and_port(b""));
    }
}
