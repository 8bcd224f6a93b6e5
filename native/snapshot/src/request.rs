//! What matching may ask of a request. The connection manager implements it over the bytes it parsed, without allocating.

use std::borrow::Cow;

use crate::header_name::{HeaderName, WellKnown};

/// A request as the tables see it.
pub trait RequestView {
    fn method(&self) -> &[u8];

    /// As in the request line, with the query.
    fn path(&self) -> &[u8];

    /// The `:authority` (the `Host` header), with its port; empty when absent.
    fn authority(&self) -> &[u8];

    /// The `:scheme`, which an HTTP/1 listener derives from the transport or from `x-forwarded-proto`.
    fn scheme(&self) -> &[u8];

    /// The first value of a header. Never asked for pseudo headers or `host`.
    fn header(&self, name: &HeaderName) -> Option<&[u8]>;

    /// Calls `each` with every value of a header, in order. Never asked for pseudo headers or `host`.
    fn each_header(&self, name: &HeaderName, each: &mut dyn FnMut(&[u8]));
}

/// A header's value the way Envoy matches it: several values are joined with a comma; `host` is `:authority`.
#[inline]
pub fn header_value<'a>(request: &'a impl RequestView, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    match name.known() {
        Some(WellKnown::Method) => Some(Cow::Borrowed(request.method())),
        Some(WellKnown::Path) => Some(Cow::Borrowed(request.path())),
        Some(WellKnown::Authority | WellKnown::Host) => non_empty(request.authority()),
        Some(WellKnown::Scheme) => non_empty(request.scheme()),
        _ if name.is_pseudo() => None,
        _ => {
            let first = request.header(name)?;
            let mut joined: Vec<u8> = Vec::new();
            let mut seen = 0_u32;
            request.each_header(name, &mut |value| {
                match seen {
                    0 => {}
                    1 => {
                        joined.extend_from_slice(first);
                        joined.push(b',');
                        joined.extend_from_slice(value);
                    }
                    _ => {
                        joined.push(b',');
                        joined.extend_from_slice(value);
                    }
                }
                seen += 1;
            });
            Some(if seen > 1 {
                Cow::Owned(joined)
            } else {
                Cow::Borrowed(first)
            })
        }
    }
}

fn non_empty(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    (!value.is_empty()).then_some(Cow::Borrowed(value))
}

/// The path up to the query or fragment.
#[inline]
pub fn path_without_query(path: &[u8]) -> &[u8] {
    match path.iter().position(|b| matches!(b, b'?' | b'#')) {
        Some(end) => path.get(..end).unwrap_or(path),
        None => path,
    }
}

/// A request held in owned values: for `explain`, benches, tests and the Python matcher.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlainRequest {
    pub method: String,
    pub path: String,
    pub authority: String,
    pub scheme: String,
    /// Lower-case names.
    pub headers: Vec<(String, String)>,
}

impl PlainRequest {
    pub fn get(authority: &str, path: &str) -> Self {
        Self {
            method: "GET".to_owned(),
            path: path.to_owned(),
            authority: authority.to_owned(),
            scheme: "http".to_owned(),
            headers: Vec::new(),
        }
    }

    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers
            .push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }
}

impl RequestView for PlainRequest {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }

    fn authority(&self) -> &[u8] {
        self.authority.as_bytes()
    }

    fn scheme(&self) -> &[u8] {
        self.scheme.as_bytes()
    }

    fn header(&self, name: &HeaderName) -> Option<&[u8]> {
        self.headers
            .iter()
            .find(|(n, _)| n == name.as_str())
            .map(|(_, v)| v.as_bytes())
    }

    fn each_header(&self, name: &HeaderName, each: &mut dyn FnMut(&[u8])) {
        for (n, value) in &self.headers {
            if n == name.as_str() {
                each(value.as_bytes());
            }
        }
    }
}
