//! What the connection manager does to a path before anybody matches it: fragments, escaped slashes, dot segments,
//! repeated slashes; and to the authority: ports and trailing dots.
//!
//! Pure functions of bytes and options.

use tidegate_model::hcm::{HttpConnectionManager, PathWithEscapedSlashesAction};

/// What is to be done about a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Normalized {
    Unchanged,
    /// `out` has the new path.
    Changed,
    /// 307 to the path in `out`.
    Redirect,
    /// 400.
    Refused,
    /// 400 for an escaped slash; `out` has the path without the escapes.
    Rejected,
}

/// Normalises path and query as the connection manager is told to.
pub(crate) fn normalize(
    config: &HttpConnectionManager,
    path: &[u8],
    out: &mut Vec<u8>,
) -> Normalized {
    // A fragment has no business in a request.
    if memchr::memchr(b'#', path).is_some() {
        return Normalized::Refused;
    }
    if !config.normalize_path
        && !config.merge_slashes
        && config.path_with_escaped_slashes_action == PathWithEscapedSlashesAction::KeepUnchanged
    {
        return Normalized::Unchanged;
    }
    let end = memchr::memchr(b'?', path).unwrap_or(path.len());
    let (mut current, query) = (
        path.get(..end).unwrap_or(path).to_vec(),
        path.get(end..).unwrap_or_default(),
    );
    let mut redirect = false;
    if has_escaped_slash(&current) {
        match config.path_with_escaped_slashes_action {
            PathWithEscapedSlashesAction::KeepUnchanged => {}
            PathWithEscapedSlashesAction::RejectRequest => {
                out.clear();
                out.extend_from_slice(&unescape_slashes(&current));
                out.extend_from_slice(query);
                return Normalized::Rejected;
            }
            action => {
                current = unescape_slashes(&current);
                redirect = action == PathWithEscapedSlashesAction::UnescapeAndRedirect;
            }
        }
    }
    if config.normalize_path {
        match canonical(&current) {
            Some(canonical) => current = canonical,
            None => return Normalized::Refused,
        }
    }
    if config.merge_slashes {
        current.dedup_by(|next, before| *next == b'/' && *before == b'/');
    }
    if current == path.get(..end).unwrap_or(path) {
        return Normalized::Unchanged;
    }
    out.clear();
    out.extend_from_slice(&current);
    out.extend_from_slice(query);
    if redirect {
        Normalized::Redirect
    } else {
        Normalized::Changed
    }
}

fn has_escaped_slash(path: &[u8]) -> bool {
    path.windows(3).any(is_escaped_slash)
}

const fn is_escaped_slash(window: &[u8]) -> bool {
    matches!(
        window,
        [b'%', b'2', b'f' | b'F'] | [b'%', b'5', b'c' | b'C']
    )
}

fn unescape_slashes(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, tail)) = rest.split_first() {
        match rest.get(..3) {
            Some([b'%', b'2', b'f' | b'F']) => {
                out.push(b'/');
                rest = rest.get(3..).unwrap_or_default();
            }
            Some([b'%', b'5', b'c' | b'C']) => {
                out.push(b'\\');
                rest = rest.get(3..).unwrap_or_default();
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// RFC 3986 normalisation as Chromium's URL library does it for Envoy: dot segments (plain or escaped) resolved,
/// backslashes turned, unreserved characters unescaped. `None`: a path that may not be (an escaped or plain NUL).
fn canonical(path: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, tail)) = rest.split_first() {
        match rest.get(..3) {
            Some([b'%', high, low]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let byte = hex(*high) << 4 | hex(*low);
                if byte == 0 {
                    return None;
                }
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
                    plain.push(byte);
                } else {
                    plain.extend_from_slice(&[b'%', *high, *low]);
                }
                rest = rest.get(3..).unwrap_or_default();
                continue;
            }
            _ => {}
        }
        match first {
            0 => return None,
            b'\\' => plain.push(b'/'),
            byte => plain.push(*byte),
        }
        rest = tail;
    }
    Some(remove_dot_segments(&plain))
}

const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

fn remove_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let body = path.strip_prefix(b"/").unwrap_or(path);
    let mut segments = body.split(|b| *b == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." | b".." => {
                if segment == b".." {
                    let keep = memchr::memrchr(b'/', &out).unwrap_or(0);
                    out.truncate(keep);
                }
                if last {
                    out.push(b'/');
                }
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

/// The authority with what `strip_*` takes away; `None`: as it is. `local_port` is that of the listener's side.
pub(crate) fn strip_authority<'a>(
    config: &HttpConnectionManager,
    authority: &'a [u8],
    local_port: u16,
) -> Option<&'a [u8]> {
    if !config.strip_any_host_port
        && !config.strip_matching_host_port
        && !config.strip_trailing_host_dot
    {
        return None;
    }
    let mut host = authority;
    if let Some(start) = tidegate_snapshot::routes::port_start(host) {
        let port = host
            .get(start + 1..)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse::<u16>().ok());
        if config.strip_any_host_port
            || (config.strip_matching_host_port && port == Some(local_port))
        {
            host = host.get(..start).unwrap_or(host);
        }
    }
    if config.strip_trailing_host_dot {
        host = host.strip_suffix(b".").unwrap_or(host);
    }
    (host.len() != authority.len()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_paths() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../x", "/x"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/a/%2e%2e/b", "/b"),
            ("/a\\b", "/a/b"),
            ("/%41%2f", "/A%2f"),
            ("/a//b", "/a//b"),
            ("/", "/"),
        ] {
            assert_eq!(
                canonical(path.as_bytes()).unwrap(),
                expected.as_bytes(),
                "{path}"
            );
        }
        assert_eq!(canonical(b"/a%00b"), None);
    }

    #[test]
    fn slashes() {
        assert!(has_escaped_slash(b"/a%2Fb"));
        assert_eq!(unescape_slashes(b"/a%2fb%5Cc%20"), b"/a/b\\c%20");
    }
}
