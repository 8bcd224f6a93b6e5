//! A route's path condition.

use std::sync::OnceLock;

use tidegate_model::Name;
use tidegate_model::route::PathSpecifier;

use crate::error::CompileError;
use crate::regex::CompiledRegex;
use crate::request::{RequestView, path_without_query};

#[derive(Debug)]
pub(super) struct PathMatch {
    pub(super) kind: PathKind,
    pub(super) case_sensitive: bool,
    ignore_parameters: bool,
}

#[derive(Debug)]
pub(super) enum PathKind {
    /// The prefix `/`, which most routes have: nothing to look up.
    Root,
    Prefix(Name),
    Exact(Name),
    Regex(Box<PathRegex>),
    /// Without trailing slash.
    SeparatedPrefix(Name),
    Connect,
}

/// An expression that is part of a set needs no automaton of its own, unless the set gives up: then it is compiled on
/// first use. A thousand of them would cost megabytes.
#[derive(Debug)]
pub(super) struct PathRegex {
    pattern: Name,
    compiled: OnceLock<Option<CompiledRegex>>,
}

impl PathRegex {
    fn is_match(&self, path: &[u8]) -> bool {
        self.compiled
            .get_or_init(|| CompiledRegex::full_match(&self.pattern).ok())
            .as_ref()
            .is_some_and(|regex| regex.is_match(path))
    }
}

impl PathMatch {
    pub(super) fn new(
        specifier: &PathSpecifier,
        case_sensitive: bool,
        ignore_parameters: bool,
    ) -> Self {
        let kind = match specifier {
            PathSpecifier::Prefix(prefix) if &**prefix == "/" => PathKind::Root,
            PathSpecifier::Prefix(prefix) => PathKind::Prefix(Name::clone(prefix)),
            PathSpecifier::Path(path) => PathKind::Exact(Name::clone(path)),
            PathSpecifier::SafeRegex(pattern) => PathKind::Regex(Box::new(PathRegex {
                pattern: Name::clone(pattern),
                compiled: OnceLock::new(),
            })),
            PathSpecifier::PathSeparatedPrefix(prefix) => {
                PathKind::SeparatedPrefix(Name::clone(prefix))
            }
            PathSpecifier::ConnectMatcher => PathKind::Connect,
        };
        Self {
            kind,
            case_sensitive,
            ignore_parameters,
        }
    }

    /// Compiles the expression, if this is one and no set contains it.
    pub(super) fn prepare(&self) -> Result<(), CompileError> {
        if let PathKind::Regex(regex) = &self.kind {
            let compiled = CompiledRegex::full_match(&regex.pattern)
                .map_err(|e| e.within("match.safe_regex.regex"))?;
            regex.compiled.get_or_init(|| Some(compiled));
        }
        Ok(())
    }

    pub(super) fn everything() -> Self {
        Self {
            kind: PathKind::Prefix(Name::from("")),
            case_sensitive: true,
            ignore_parameters: false,
        }
    }

    /// The part of the path that is matched: without query, and without `;parameters` where so configured.
    #[inline]
    pub(super) fn subject<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        subject(path, self.ignore_parameters)
    }

    #[inline]
    pub(super) fn ignores_parameters(&self) -> bool {
        self.ignore_parameters
    }

    #[inline]
    pub(super) fn matches(&self, request: &impl RequestView) -> bool {
        if let PathKind::Connect = self.kind {
            return request.method() == b"CONNECT";
        }
        self.matches_subject(self.subject(request.path()))
    }

    /// `path` is what [`Self::subject`] gave.
    #[inline]
    pub(super) fn matches_subject(&self, path: &[u8]) -> bool {
        let starts = |prefix: &Name| match path.get(..prefix.len()) {
            Some(head) if self.case_sensitive => head == prefix.as_bytes(),
            Some(head) => head.eq_ignore_ascii_case(prefix.as_bytes()),
            None => false,
        };
        match &self.kind {
            PathKind::Root => path.first() == Some(&b'/'),
            PathKind::Prefix(prefix) => starts(prefix),
            PathKind::Exact(exact) => path.len() == exact.len() && starts(exact),
            PathKind::SeparatedPrefix(prefix) => {
                starts(prefix) && matches!(path.get(prefix.len()), None | Some(b'/'))
            }
            PathKind::Regex(regex) => regex.is_match(path),
            PathKind::Connect => false,
        }
    }
}

#[inline]
pub(super) fn subject(path: &[u8], ignore_parameters: bool) -> &[u8] {
    let path = path_without_query(path);
    if !ignore_parameters {
        return path;
    }
    match memchr::memchr(b';', path) {
        Some(end) => path.get(..end).unwrap_or(path),
        None => path,
    }
}
