//! Where the tokens of a request are.

use tidegate_model::Name;
use tidegate_snapshot::jwt::Places;

use super::super::stream::Request;

/// Where a token was found, so that it can be taken away.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    Header(&'a str),
    Param(&'a str),
    Cookie,
}

/// A token, unread.
pub(super) struct Found<'a> {
    pub(super) text: String,
    /// Whose tokens may stand there.
    pub(super) issuers: &'a [Name],
    pub(super) place: Place<'a>,
}

/// Headers first, then parameters, then cookies.
pub(super) fn extract<'a>(request: &Request, places: &'a Places) -> Vec<Found<'a>> {
    let mut found = Vec::new();
    for place in places.headers.values() {
        for value in request.headers.get_all(place.name.as_bytes()) {
            let Ok(value) = std::str::from_utf8(value) else {
                continue;
            };
            let text = if place.prefix.is_empty() {
                value
            } else {
                let Some((_, rest)) = value.split_once(&*place.prefix) else {
                    continue;
                };
                match rest.find(is_of_token) {
                    Some(at) => rest.get(at..).unwrap_or_default(),
                    None => value,
                }
            };
            found.push(Found {
                text: text.to_owned(),
                issuers: &place.issuers,
                place: Place::Header(&place.name),
            });
        }
    }
    let path = String::from_utf8_lossy(request.path_bytes());
    let query = path.split_once('?').map_or("", |(_, query)| query);
    for (param, issuers) in &places.params {
        let mut pairs = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        if let Some((_, value)) = pairs.find(|(name, _)| decoded(name) == **param) {
            found.push(Found {
                text: decoded(value),
                issuers,
                place: Place::Param(param),
            });
        }
    }
    for (cookie, issuers) in &places.cookies {
        let values = request.headers.get_all(b"cookie");
        let value = values
            .filter_map(|value| std::str::from_utf8(value).ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, _)| *name == &**cookie);
        if let Some((_, value)) = value {
            let bare = value
                .strip_prefix('"')
                .and_then(|value| value.strip_suffix('"'));
            found.push(Found {
                text: bare.unwrap_or(value).to_owned(),
                issuers,
                place: Place::Cookie,
            });
        }
    }
    found
}

/// Takes a parameter out of a path.
pub(super) fn without_param(path: &str, param: &str) -> String {
    let Some((bare, query)) = path.split_once('?') else {
        return path.to_owned();
    };
    let mut left: Vec<&str> = query
        .split('&')
        .filter(|pair| {
            !pair.is_empty() && pair.split('=').next().map(decoded).as_deref() != Some(param)
        })
        .collect();
    // Envoy keeps them by name.
    left.sort_by_key(|pair| pair.split('=').next().unwrap_or_default());
    if left.is_empty() {
        return bare.to_owned();
    }
    format!("{bare}?{}", left.join("&"))
}

/// Of base64url, or a dot.
fn is_of_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = text
            .get(at + 1..at + 3)
            .filter(|_| *byte == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        assert_eq!(decoded("a%2eb%zz"), "a.b%zz");
        assert_eq!(without_param("/x?b=1&t=2&a=3", "t"), "/x?a=3&b=1");
        assert_eq!(without_param("/x?t=2", "t"), "/x");
        assert_eq!(without_param("/x", "t"), "/x");
    }
}
