//! What matching may ask of a request. The connection manager implements it over the bytes it parsed, without allocating.

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

/// Whether any of a header's values satisfies `test`, as Envoy looks at them: `host` is `:authority`; several values of a
/// header that Envoy joins are joined. `None`: the header is absent.
#[inline]
pub fn any_value(
    request: &impl RequestView,
    name: &HeaderName,
    mut test: impl FnMut(&[u8]) -> bool,
) -> Option<bool> {
    match name.known() {
        Some(WellKnown::Method) => return Some(test(request.method())),
        Some(WellKnown::Path) => return Some(test(request.path())),
        Some(WellKnown::Authority | WellKnown::Host) => {
            return non_empty(request.authority()).map(test);
        }
        Some(WellKnown::Scheme) => return non_empty(request.scheme()).map(test),
        _ if name.is_pseudo() => return None,
        _ => {}
    }
    let first = request.header(name)?;
    if !name.is_joined() {
        if test(first) {
            return Some(true);
        }
        let mut index = 0;
        let mut found = false;
        request.each_header(name, &mut |value| {
            found = found || (index > 0 && test(value));
            index += 1;
        });
        return Some(found);
    }
    let mut joined: Vec<u8> = Vec::new();
    let mut index = 0;
    request.each_header(name, &mut |value| {
        if index == 1 {
            joined.extend_from_slice(first);
        }
        if index > 0 {
            joined.push(b',');
            joined.extend_from_slice(value);
        }
        index += 1;
    });
    Some(test(if index > 1 { &joined } else { first }))
}

fn non_empty(value: &[u8]) -> Option<&[u8]> {
    (!value.is_empty()).then_some(value)
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
