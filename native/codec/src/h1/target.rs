//! The request target, split into what routing looks at.

use super::span::Span;

/// Which of RFC 9112's four forms the target has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`
    Origin,
    /// `http://authority/path?query`: the authority overrules `Host`.
    Absolute,
    /// `host:port` of CONNECT.
    Authority,
    /// `*` of OPTIONS.
    Asterisk,
}

/// The spans of a target. Path and query are empty where the form has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub form: TargetForm,
    /// As received.
    pub raw: Span,
    /// The scheme of an absolute form, else empty.
    pub scheme: Span,
    /// The authority of an absolute or authority form, else empty.
    pub authority: Span,
    /// Envoy's `:path`: path and query. For `http://host` it is empty; [`Target::path_and_query`] then says `/`.
    pub path_query: Span,
    /// `path_query` up to `?`.
    pub path: Span,
    /// What follows `?`, without it.
    pub query: Span,
}

impl Target {
    /// Envoy's `:path`.
    #[inline]
    pub fn path_and_query<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        let span = self.path_query.of(buf);
        if span.is_empty() && self.form == TargetForm::Absolute {
            b"/"
        } else {
            span
        }
    }
}
