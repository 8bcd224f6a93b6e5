//! Path and host rewrites of a forwarded request.

use tidegate_model::Name;
use tidegate_model::route::{PathSpecifier, RegexRewrite};

use crate::error::CompileError;
use crate::header_name::HeaderName;
use crate::regex::RegexRewriter;
use crate::request::path_without_query;

/// `prefix_rewrite` or `regex_rewrite`.
#[derive(Debug, Default)]
pub struct PathRewrite(Option<Box<Kind>>);

#[derive(Debug)]
enum Kind {
    /// Replace what the route matched.
    Matched {
        matched: Matched,
        by: Name,
    },
    Regex(RegexRewriter),
}

/// How much of the path a route's path condition matched.
#[derive(Debug, Clone, Copy)]
enum Matched {
    Bytes(usize),
    /// All up to the query.
    Whole,
}

impl PathRewrite {
    pub(super) fn compile(
        path: &PathSpecifier,
        prefix_rewrite: Option<&Name>,
        regex_rewrite: Option<&RegexRewrite>,
    ) -> Result<Self, CompileError> {
        if let Some(rewrite) = regex_rewrite {
            let regex = RegexRewriter::compile(rewrite).map_err(|e| e.within("regex_rewrite"))?;
            return Ok(Self(Some(Box::new(Kind::Regex(regex)))));
        }
        let Some(by) = prefix_rewrite.filter(|by| !by.is_empty()) else {
            return Ok(Self(None));
        };
        let matched = match path {
            PathSpecifier::Prefix(prefix) | PathSpecifier::PathSeparatedPrefix(prefix) => {
                Matched::Bytes(prefix.len())
            }
            PathSpecifier::Path(_) | PathSpecifier::SafeRegex(_) => Matched::Whole,
            PathSpecifier::ConnectMatcher => return Ok(Self(None)),
        };
        Ok(Self(Some(Box::new(Kind::Matched {
            matched,
            by: Name::clone(by),
        }))))
    }

    #[inline]
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Appends the new path (query included) to `out`. False, and nothing appended, when the path stays as it is.
    #[inline]
    pub fn apply(&self, path: &[u8], out: &mut Vec<u8>) -> bool {
        match self.0.as_deref() {
            None => false,
            Some(Kind::Matched { matched, by }) => {
                let end = match matched {
                    Matched::Bytes(length) => *length,
                    Matched::Whole => path_without_query(path).len(),
                };
                out.extend_from_slice(by.as_bytes());
                out.extend_from_slice(path.get(end..).unwrap_or_default());
                true
            }
            Some(Kind::Regex(rewriter)) => {
                let bare = path_without_query(path);
                rewriter.replace_all(bare, out);
                out.extend_from_slice(path.get(bare.len()..).unwrap_or_default());
                true
            }
        }
    }
}

/// What becomes of the `Host` header.
#[derive(Debug)]
pub enum CompiledHostRewrite {
    None,
    Literal(Name),
    /// The hostname of the upstream host, once chosen; empty leaves it alone.
    Auto,
    /// The value of this request header, when present and not empty.
    Header(HeaderName),
    /// From the path without query, by [`CompiledHostRewrite::from_path`].
    PathRegex(Box<HostFromPath>),
}

/// `host_rewrite_path_regex`.
#[derive(Debug)]
pub struct HostFromPath(RegexRewriter);

impl HostFromPath {
    /// Appends the new host.
    pub fn apply(&self, path: &[u8], out: &mut Vec<u8>) {
        self.0.replace_all(path_without_query(path), out);
    }
}

impl CompiledHostRewrite {
    pub(super) fn path_regex(rewrite: &RegexRewrite) -> Result<Self, CompileError> {
        let regex =
            RegexRewriter::compile(rewrite).map_err(|e| e.within("host_rewrite_path_regex"))?;
        Ok(Self::PathRegex(Box::new(HostFromPath(regex))))
    }

    #[inline]
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}
