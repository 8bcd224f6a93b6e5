//! What can go wrong with the bootstrap or with the operating system.

use tidegate_snapshot::CompileError;
use tidegate_xds::Rejected;

/// A bootstrap, or a resource in it, that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The resource at fault; empty for the document itself.
    pub name: String,
    /// From the root of the document.
    pub path: String,
    pub reason: String,
}

impl ConfigError {
    pub(crate) fn new(name: &str, path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            path: path.into(),
            reason: reason.into(),
        }
    }

    pub(crate) fn compile(name: &str, error: CompileError) -> Self {
        Self::new(name, error.path, error.reason)
    }

    /// The same error, seen from the document that holds the resource.
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

impl From<Rejected> for ConfigError {
    fn from(rejected: Rejected) -> Self {
        Self {
            name: rejected.name,
            path: rejected.field_path,
            reason: rejected.reason,
        }
    }
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for part in [&self.name, &self.path] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ConfigError {}

/// The operating system refused something, or a call came out of order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineError(pub String);

impl std::fmt::Display for EngineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EngineError {}
