//! String, header, query and address matchers as data (`type.matcher.v3`, `route.v3.HeaderMatcher`).

use crate::Name;

/// `type.matcher.v3.StringMatcher`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StringMatcher {
    pub pattern: StringPattern,
    /// Has no effect on `SafeRegex`.
    pub ignore_case: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StringPattern {
    Exact(Name),
    Prefix(Name),
    Suffix(Name),
    Contains(Name),
    /// RE2 syntax, matched against the whole value. Known to compile.
    SafeRegex(Name),
}

/// `route.v3.HeaderMatcher`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatcher {
    /// Lower case; may be a pseudo header (`:method`, `:path`, `:authority`, `:scheme`).
    pub name: Name,
    pub specifier: HeaderMatchSpecifier,
    pub invert_match: bool,
    pub treat_missing_header_as_empty: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderMatchSpecifier {
    /// `present_match`; `Present(false)` matches an absent header.
    Present(bool),
    /// Half open `[start, end)`, on the value as a base-10 integer.
    Range { start: i64, end: i64 },
    /// `string_match` and the deprecated exact/prefix/suffix/contains/safe_regex forms.
    String(StringMatcher),
}

/// `route.v3.QueryParameterMatcher`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryParameterMatcher {
    pub name: Name,
    pub specifier: QueryParameterMatchSpecifier,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryParameterMatchSpecifier {
    Present(bool),
    String(StringMatcher),
}

/// `type.matcher.v3.MetadataMatcher`: a value of dynamic metadata, found by its path.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataMatcher {
    /// The namespace.
    pub filter: Name,
    pub path: Vec<Name>,
    pub value: ValueMatcher,
    pub invert: bool,
}

/// `type.matcher.v3.ValueMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueMatcher {
    Null,
    Double(DoubleMatcher),
    String(StringMatcher),
    Bool(bool),
    /// Present, or (`false`) not.
    Present(bool),
    /// A list with an element that matches.
    OneOf(Box<ValueMatcher>),
    Or(Vec<ValueMatcher>),
}

/// `type.matcher.v3.DoubleMatcher`; ranges are half open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DoubleMatcher {
    Exact(f64),
    Range { start: f64, end: f64 },
}
