//! Hash policies: what of a request consistent hashing goes by, hashed as Envoy does.
//!
//! Pure functions of the request; a cookie that has to be made up is the caller's to make, for only it knows the connection.

use std::io::Write as _;
use std::net::IpAddr;

use tidegate_model::Name;
use tidegate_model::route::{HashCookie, HashPolicy, HashSpecifier};
use xxhash_rust::xxh64::xxh64;

use crate::error::CompileError;
use crate::header_name::HeaderName;
use crate::matcher::query_parameter;
use crate::regex::RegexRewriter;
use crate::request::{RequestView, any_value};

/// A list of hash policies, in order.
#[derive(Debug)]
pub struct CompiledHashPolicy {
    methods: Vec<Method>,
}

#[derive(Debug)]
struct Method {
    kind: Kind,
    terminal: bool,
}

#[derive(Debug)]
enum Kind {
    Header {
        name: HeaderName,
        rewrite: Option<RegexRewriter>,
    },
    Cookie(HashCookie),
    SourceIp,
    QueryParameter(Name),
}

impl CompiledHashPolicy {
    /// `None`: there are no policies.
    pub fn compile(policies: &[HashPolicy]) -> Result<Option<Self>, CompileError> {
        let mut methods = Vec::with_capacity(policies.len());
        for (index, policy) in policies.iter().enumerate() {
            let kind = match &policy.specifier {
                HashSpecifier::Header {
                    name,
                    regex_rewrite,
                } => Kind::Header {
                    name: HeaderName::from(name),
                    rewrite: match regex_rewrite {
                        Some(rewrite) => Some(RegexRewriter::compile(rewrite).map_err(|e| {
                            e.within(&format!("hash_policy[{index}].header.regex_rewrite"))
                        })?),
                        None => None,
                    },
                },
                HashSpecifier::Cookie(cookie) => Kind::Cookie(cookie.clone()),
                HashSpecifier::SourceIp => Kind::SourceIp,
                HashSpecifier::QueryParameter(name) => Kind::QueryParameter(Name::clone(name)),
            };
            methods.push(Method {
                kind,
                terminal: policy.terminal,
            });
        }
        Ok((!methods.is_empty()).then_some(Self { methods }))
    }

    /// Envoy's `generateHash`. `make_cookie` is asked for the value of a cookie that the client has not got yet.
    pub fn hash(
        &self,
        request: &impl RequestView,
        client: Option<IpAddr>,
        make_cookie: &mut dyn FnMut(&HashCookie) -> String,
    ) -> Option<u64> {
        let mut hash: Option<u64> = None;
        for method in &self.methods {
            let found = match &method.kind {
                Kind::Header { name, rewrite } => header(request, name, rewrite.as_ref()),
                Kind::Cookie(cookie) => of_cookie(request, cookie, make_cookie),
                Kind::SourceIp => client.map(source_ip),
                Kind::QueryParameter(name) => {
                    query_parameter(request.path(), name.as_bytes()).map(|value| xxh64(&value, 0))
                }
            };
            if let Some(found) = found {
                // Turned, so that two policies that say the same do not cancel each other out.
                hash = Some(hash.map_or(0, |hash| hash.rotate_left(1)) ^ found);
            }
            if method.terminal && hash.is_some() {
                break;
            }
        }
        hash
    }
}

/// `source_ip` of HTTP's and the TCP proxy's hash policies.
pub fn source_ip(ip: IpAddr) -> u64 {
    let mut text = [0_u8; 48];
    let capacity = text.len();
    let mut rest = &mut text[..];
    // It fits: 39 characters, 45 of an IPv4 address as IPv6.
    let _ = write!(rest, "{ip}");
    let length = capacity - rest.len();
    xxh64(text.get(..length).unwrap_or_default(), 0)
}

/// What `HashCookie` has Envoy put into `set-cookie`.
pub fn set_cookie(cookie: &HashCookie, value: &str) -> Vec<u8> {
    let mut text = Vec::with_capacity(64);
    // Writing to a vector cannot fail.
    let _ = write!(text, "{}=\"{value}\"", cookie.name);
    if let Some(ttl) = cookie.ttl.filter(|ttl| ttl.as_secs() > 0) {
        let _ = write!(text, "; Max-Age={}", ttl.as_secs());
    }
    if !cookie.path.is_empty() {
        let _ = write!(text, "; Path={}", cookie.path);
    }
    for (name, value) in &cookie.attributes {
        let _ = if value.is_empty() {
            write!(text, "; {name}")
        } else {
            write!(text, "; {name}={value}")
        };
    }
    text.extend_from_slice(b"; HttpOnly");
    text
}

/// Several values count in their sorted order, whatever order they came in.
fn header(
    request: &impl RequestView,
    name: &HeaderName,
    rewrite: Option<&RegexRewriter>,
) -> Option<u64> {
    let mut count = 0_usize;
    let mut only = 0;
    if rewrite.is_none() {
        any_value(request, name, |value| {
            count += 1;
            only = xxh64(value, 0);
            false
        })?;
        if count == 1 {
            return Some(only);
        }
    }
    let mut values: Vec<Vec<u8>> = Vec::new();
    any_value(request, name, |value| {
        let mut owned = Vec::with_capacity(value.len());
        match rewrite {
            Some(rewrite) => rewrite.replace_all(value, &mut owned),
            None => owned.extend_from_slice(value),
        }
        values.push(owned);
        false
    })?;
    values.sort_unstable();
    Some(values.iter().fold(0, |seed, value| xxh64(value, seed)))
}

fn of_cookie(
    request: &impl RequestView,
    cookie: &HashCookie,
    make: &mut dyn FnMut(&HashCookie) -> String,
) -> Option<u64> {
    let mut hash = None;
    request.each_header(&COOKIE, &mut |header| {
        if hash.is_none() {
            hash = cookie_value(header, cookie.name.as_bytes())
                .map(|value| (!value.is_empty()).then(|| xxh64(value, 0)));
        }
    });
    match hash.flatten() {
        Some(hash) => Some(hash),
        None => cookie
            .ttl
            .is_some()
            .then(|| xxh64(make(cookie).as_bytes(), 0)),
    }
}

static COOKIE: std::sync::LazyLock<HeaderName> =
    std::sync::LazyLock::new(|| HeaderName::new("cookie"));

/// The first cookie of a name in a `cookie` header, as Envoy takes it apart.
fn cookie_value<'h>(header: &'h [u8], name: &[u8]) -> Option<&'h [u8]> {
    header.split(|byte| *byte == b';').find_map(|pair| {
        let start = pair.iter().position(|byte| *byte != b' ')?;
        let pair = pair.get(start..)?;
        let equals = memchr::memchr(b'=', pair)?;
        if pair.get(..equals)? != name {
            return None;
        }
        let value = pair.get(equals + 1..)?;
        Some(match value {
            [b'"', quoted @ .., b'"'] => quoted,
            value => value,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::request::PlainRequest;

    #[test]
    fn cookies_are_written_as_envoy_writes_them() {
        let mut cookie = HashCookie {
            name: "user".into(),
            ttl: Some(Duration::from_secs(65)),
            path: "/p".into(),
            attributes: vec![
                ("SameSite".into(), "Lax".into()),
                ("Secure".into(), "".into()),
            ],
        };
        assert_eq!(
            set_cookie(&cookie, "0a"),
            b"user=\"0a\"; Max-Age=65; Path=/p; SameSite=Lax; Secure; HttpOnly"
        );
        cookie.ttl = Some(Duration::ZERO);
        cookie.path = "".into();
        cookie.attributes.clear();
        assert_eq!(set_cookie(&cookie, "0a"), b"user=\"0a\"; HttpOnly");
    }

    #[test]
    fn cookies_are_found() {
        let header = b"a=1; user=\"x y\";b; user=2; c=";
        assert_eq!(cookie_value(header, b"user"), Some(&b"x y"[..]));
        assert_eq!(cookie_value(header, b"c"), Some(&b""[..]));
        assert_eq!(cookie_value(header, b"b"), None);
    }

    #[test]
    fn a_terminal_policy_ends_the_list_once_there_is_a_hash() {
        let policy = |name: &str, terminal| HashPolicy {
            specifier: HashSpecifier::Header {
                name: name.into(),
                regex_rewrite: None,
            },
            terminal,
        };
        let request = PlainRequest {
            headers: vec![("x-a".into(), "1".into()), ("x-b".into(), "2".into())],
            ..PlainRequest::default()
        };
        let hash = |policies: &[HashPolicy]| {
            let compiled = CompiledHashPolicy::compile(policies).unwrap()?;
            compiled.hash(&request, None, &mut |_| String::new())
        };
        let (a, b) = (xxh64(b"1", 0), xxh64(b"2", 0));
        assert_eq!(hash(&[]), None);
        assert_eq!(
            hash(&[policy("x-none", true), policy("x-a", false)]),
            Some(a)
        );
        assert_eq!(hash(&[policy("x-a", true), policy("x-b", false)]), Some(a));
        assert_eq!(
            hash(&[policy("x-a", false), policy("x-b", false)]),
            Some(a.rotate_left(1) ^ b)
        );
        assert_eq!(source_ip([127, 0, 0, 1].into()), xxh64(b"127.0.0.1", 0));
    }
}
