//! String, header and query-parameter matchers, compiled.

use std::borrow::Cow;

use tidegate_model::Name;
use tidegate_model::matcher::{
    HeaderMatchSpecifier, HeaderMatcher, QueryParameterMatchSpecifier, QueryParameterMatcher,
    StringMatcher, StringPattern,
};

use crate::error::CompileError;
use crate::header_name::HeaderName;
use crate::regex::CompiledRegex;
use crate::request::{RequestView, any_value};

/// `type.matcher.v3.StringMatcher`.
#[derive(Debug, Clone)]
pub struct CompiledString {
    pattern: Pattern,
    ignore_case: bool,
}

#[derive(Debug, Clone)]
enum Pattern {
    Exact(Name),
    Prefix(Name),
    Suffix(Name),
    /// Lower case when case is ignored.
    Contains(Name),
    Regex(CompiledRegex),
}

impl CompiledString {
    pub fn compile(matcher: &StringMatcher) -> Result<Self, CompileError> {
        let pattern = match &matcher.pattern {
            StringPattern::Exact(text) => Pattern::Exact(Name::clone(text)),
            StringPattern::Prefix(text) => Pattern::Prefix(Name::clone(text)),
            StringPattern::Suffix(text) => Pattern::Suffix(Name::clone(text)),
            StringPattern::Contains(text) if matcher.ignore_case => {
                Pattern::Contains(Name::from(text.to_ascii_lowercase()))
            }
            StringPattern::Contains(text) => Pattern::Contains(Name::clone(text)),
            StringPattern::SafeRegex(text) => Pattern::Regex(
                CompiledRegex::full_match(text).map_err(|e| e.within("safe_regex.regex"))?,
            ),
        };
        Ok(Self {
            pattern,
            ignore_case: matcher.ignore_case,
        })
    }

    /// The text that a value must equal, if that is all there is to this matcher.
    pub(crate) fn exact_text(&self) -> Option<&Name> {
        match &self.pattern {
            Pattern::Exact(text) if !self.ignore_case => Some(text),
            _ => None,
        }
    }

    #[inline]
    pub fn matches(&self, value: &[u8]) -> bool {
        let equal = |value: &[u8], text: &Name| {
            if self.ignore_case {
                value.eq_ignore_ascii_case(text.as_bytes())
            } else {
                value == text.as_bytes()
            }
        };
        match &self.pattern {
            Pattern::Exact(text) => equal(value, text),
            Pattern::Prefix(text) => value
                .get(..text.len())
                .is_some_and(|head| equal(head, text)),
            Pattern::Suffix(text) => value
                .len()
                .checked_sub(text.len())
                .and_then(|start| value.get(start..))
                .is_some_and(|tail| equal(tail, text)),
            Pattern::Contains(text) if self.ignore_case => {
                let lower = value.to_ascii_lowercase();
                memchr::memmem::find(&lower, text.as_bytes()).is_some()
            }
            Pattern::Contains(text) => memchr::memmem::find(value, text.as_bytes()).is_some(),
            Pattern::Regex(regex) => regex.is_match(value),
        }
    }
}

/// `route.v3.HeaderMatcher`.
#[derive(Debug, Clone)]
pub struct CompiledHeader {
    name: HeaderName,
    specifier: HeaderSpecifier,
    invert: bool,
    missing_is_empty: bool,
}

#[derive(Debug, Clone)]
enum HeaderSpecifier {
    Present(bool),
    Range { start: i64, end: i64 },
    String(CompiledString),
}

impl CompiledHeader {
    pub fn compile(matcher: &HeaderMatcher) -> Result<Self, CompileError> {
        Ok(Self {
            name: HeaderName::from(&matcher.name),
            specifier: match &matcher.specifier {
                HeaderMatchSpecifier::Present(present) => HeaderSpecifier::Present(*present),
                HeaderMatchSpecifier::Range { start, end } => HeaderSpecifier::Range {
                    start: *start,
                    end: *end,
                },
                HeaderMatchSpecifier::String(string) => {
                    HeaderSpecifier::String(CompiledString::compile(string)?)
                }
            },
            invert: matcher.invert_match,
            missing_is_empty: matcher.treat_missing_header_as_empty,
        })
    }

    pub fn compile_all(matchers: &[HeaderMatcher]) -> Result<Vec<Self>, CompileError> {
        matchers
            .iter()
            .enumerate()
            .map(|(index, matcher)| {
                Self::compile(matcher).map_err(|e| e.within(&format!("headers[{index}]")))
            })
            .collect()
    }

    #[inline]
    pub fn name(&self) -> &HeaderName {
        &self.name
    }

    /// The value the header must have exactly, if this matcher is as simple as that.
    pub(crate) fn exact_text(&self) -> Option<&Name> {
        match &self.specifier {
            HeaderSpecifier::String(string) if !self.invert && !self.missing_is_empty => {
                string.exact_text()
            }
            _ => None,
        }
    }

    #[inline]
    pub fn matches(&self, request: &impl RequestView) -> bool {
        let matched = any_value(request, &self.name, |value| self.specifier.matches(value));
        self.conclude(matched)
    }

    /// For a single value, `None` when the header is absent.
    pub fn matches_value(&self, value: Option<&[u8]>) -> bool {
        self.conclude(value.map(|value| self.specifier.matches(value)))
    }

    /// From whether any value matched; `None`: there is no value.
    fn conclude(&self, any: Option<bool>) -> bool {
        let matched = match (&self.specifier, any) {
            (HeaderSpecifier::Present(present), any) => {
                (any.is_some() || self.missing_is_empty) == *present
            }
            (_, Some(matched)) => matched,
            (specifier, None) if self.missing_is_empty => specifier.matches(b""),
            // An absent header satisfies nothing but a presence matcher, inverted or not.
            (_, None) => return false,
        };
        matched != self.invert
    }
}

impl HeaderSpecifier {
    #[inline]
    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Present(_) => true,
            Self::Range { start, end } => {
                parse_integer(value).is_some_and(|number| number >= *start && number < *end)
            }
            Self::String(string) => string.matches(value),
        }
    }
}

fn parse_integer(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.trim_ascii().parse().ok()
}

/// `route.v3.QueryParameterMatcher`.
#[derive(Debug, Clone)]
pub struct CompiledQueryParameter {
    name: Name,
    specifier: QuerySpecifier,
}

#[derive(Debug, Clone)]
enum QuerySpecifier {
    Present(bool),
    String(CompiledString),
}

impl CompiledQueryParameter {
    pub fn compile(matcher: &QueryParameterMatcher) -> Result<Self, CompileError> {
        Ok(Self {
            name: Name::clone(&matcher.name),
            specifier: match &matcher.specifier {
                QueryParameterMatchSpecifier::Present(present) => QuerySpecifier::Present(*present),
                QueryParameterMatchSpecifier::String(string) => {
                    QuerySpecifier::String(CompiledString::compile(string)?)
                }
            },
        })
    }

    #[inline]
    pub fn matches(&self, path: &[u8]) -> bool {
        let value = query_parameter(path, self.name.as_bytes());
        match (&self.specifier, value) {
            (QuerySpecifier::Present(present), value) => value.is_some() == *present,
            (QuerySpecifier::String(_), None) => false,
            (QuerySpecifier::String(string), Some(value)) => string.matches(&value),
        }
    }
}

/// The first value of a query parameter; names and values are compared as Envoy parses them.
pub fn query_parameter<'p>(path: &'p [u8], name: &[u8]) -> Option<Cow<'p, [u8]>> {
    let start = memchr::memchr(b'?', path)?;
    let query = path.get(start + 1..)?;
    let query = match memchr::memchr(b'#', query) {
        Some(end) => query.get(..end)?,
        None => query,
    };
    query.split(|b| *b == b'&').find_map(|pair| {
        let (key, value) = match memchr::memchr(b'=', pair) {
            Some(equals) => (pair.get(..equals)?, pair.get(equals + 1..)?),
            None => (pair, &b""[..]),
        };
        (key == name).then_some(Cow::Borrowed(value))
    })
}
