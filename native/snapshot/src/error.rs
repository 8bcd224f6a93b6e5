//! Why a resource cannot be compiled. `xds` checks most of this earlier; the check here makes compilation total.

use std::fmt;

/// A configuration that cannot be turned into tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileError {
    /// The field, from the root of the resource.
    pub path: String,
    pub reason: String,
}

impl CompileError {
    pub(crate) fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            reason: reason.into(),
        }
    }

    /// The same error, seen from one level further out.
    #[must_use]
    pub(crate) fn within(mut self, outer: &str) -> Self {
        self.path = if self.path.is_empty() {
            outer.to_owned()
        } else {
            format!("{outer}.{}", self.path)
        };
        self
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

impl std::error::Error for CompileError {}
