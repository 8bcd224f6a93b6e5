//! Redirects: the status and the `location`, as Envoy composes it.

use tidegate_model::Name;
use tidegate_model::route::{PathRedirect, PathSpecifier, Redirect, SchemeRedirect};

use super::hosts::port_start;
use super::rewrite::PathRewrite;
use crate::error::CompileError;
use crate::request::{RequestView, path_without_query};

/// `RedirectAction`.
#[derive(Debug)]
pub struct CompiledRedirect {
    pub config: Redirect,
    path: RedirectPath,
    /// `require_tls`: the authority goes along as it is.
    keep_authority: bool,
}

#[derive(Debug)]
enum RedirectPath {
    Keep,
    /// The path, and whether it brings a query of its own.
    Fixed(Name),
    Rewrite(PathRewrite),
}

impl CompiledRedirect {
    pub(super) fn compile(config: &Redirect, path: &PathSpecifier) -> Result<Self, CompileError> {
        let path = match &config.path {
            PathRedirect::None => RedirectPath::Keep,
            PathRedirect::Path(path) => RedirectPath::Fixed(Name::clone(path)),
            PathRedirect::PrefixRewrite(prefix) => {
                RedirectPath::Rewrite(PathRewrite::compile(path, Some(prefix), None)?)
            }
            PathRedirect::RegexRewrite(regex) => {
                RedirectPath::Rewrite(PathRewrite::compile(path, None, Some(regex))?)
            }
        };
        Ok(Self {
            config: config.clone(),
            path,
            keep_authority: false,
        })
    }

    /// To the same place by TLS.
    pub(super) fn ssl(config: Redirect) -> Self {
        Self {
            config,
            path: RedirectPath::Keep,
            keep_authority: true,
        }
    }

    #[inline]
    pub fn status(&self) -> u16 {
        self.config.response_code
    }

    /// Appends the value of the `location` header.
    pub fn location(&self, request: &impl RequestView, out: &mut Vec<u8>) {
        let current_scheme = request.scheme();
        let scheme: &[u8] = match &self.config.scheme {
            SchemeRedirect::None => current_scheme,
            SchemeRedirect::Https => b"https",
            SchemeRedirect::Scheme(scheme) => scheme.as_bytes(),
        };
        out.extend_from_slice(scheme);
        out.extend_from_slice(b"://");
        let authority = request.authority();
        match &self.config.host {
            Some(host) if !host.is_empty() => out.extend_from_slice(host.as_bytes()),
            _ => out.extend_from_slice(self.kept_host(authority, current_scheme)),
        }
        if let Some(port) = self.config.port.filter(|port| *port != 0) {
            out.push(b':');
            out.extend_from_slice(port.to_string().as_bytes());
        }
        self.path(request.path(), out);
    }

    /// The request's host; its port goes when another one is given, or when the scheme changes and it was the old one's.
    fn kept_host<'a>(&self, authority: &'a [u8], current_scheme: &[u8]) -> &'a [u8] {
        let Some(start) = port_start(authority).filter(|_| !self.keep_authority) else {
            return authority;
        };
        let bare = authority.get(..start).unwrap_or(authority);
        let new_scheme: &[u8] = match &self.config.scheme {
            SchemeRedirect::None => current_scheme,
            SchemeRedirect::Https => b"https",
            SchemeRedirect::Scheme(scheme) => scheme.as_bytes(),
        };
        let port = authority.get(start + 1..).unwrap_or_default();
        let was_default = new_scheme != current_scheme
            && ((current_scheme == b"http" && port == b"80")
                || (current_scheme == b"https" && port == b"443"));
        if was_default || self.config.port.is_some_and(|port| port != 0) {
            bare
        } else {
            authority
        }
    }

    fn path(&self, current: &[u8], out: &mut Vec<u8>) {
        let current = if self.config.strip_query {
            path_without_query(current)
        } else {
            current
        };
        match &self.path {
            RedirectPath::Keep => out.extend_from_slice(current),
            RedirectPath::Fixed(path) => {
                out.extend_from_slice(path.as_bytes());
                // The request's query goes along unless the new path has one.
                if !path.contains('?') {
                    let bare = path_without_query(current).len();
                    out.extend_from_slice(current.get(bare..).unwrap_or_default());
                }
            }
            RedirectPath::Rewrite(rewrite) => {
                if !rewrite.apply(current, out) {
                    out.extend_from_slice(current);
                }
            }
        }
    }
}
