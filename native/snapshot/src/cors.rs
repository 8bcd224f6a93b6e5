//! The CORS filter's decisions: is the origin allowed, is this a preflight, which headers go into the answer.

use std::sync::Arc;

use tidegate_model::RuntimeFraction;
use tidegate_model::hcm::CorsPolicy;

use crate::error::CompileError;
use crate::header_name::{HeaderName, WellKnown};
use crate::matcher::CompiledString;
use crate::request::RequestView;
use crate::runtime::Runtime;

/// `CorsPolicy`.
#[derive(Debug)]
pub struct CompiledCors {
    pub config: Arc<CorsPolicy>,
    allow_origin: Vec<CompiledString>,
    names: CorsHeaders,
}

#[derive(Debug)]
struct CorsHeaders {
    origin: HeaderName,
    request_method: HeaderName,
    request_private_network: HeaderName,
}

/// What the filter does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CorsDecision {
    /// Not a cross-origin request, or its origin is not allowed: nothing to do.
    Ignore,
    /// Forward, and add [`CompiledCors::response_headers`] to the answer.
    Annotate,
    /// Answer 200 with [`CompiledCors::preflight_headers`] and no body.
    Preflight,
}

impl CompiledCors {
    pub(crate) fn compile(config: &Arc<CorsPolicy>) -> Result<Self, CompileError> {
        Ok(Self {
            allow_origin: config
                .allow_origin
                .iter()
                .map(CompiledString::compile)
                .collect::<Result<_, _>>()
                .map_err(|e: CompileError| e.within("allow_origin_string_match"))?,
            config: Arc::clone(config),
            names: CorsHeaders {
                origin: HeaderName::known_as(WellKnown::Origin),
                request_method: HeaderName::known_as(WellKnown::AccessControlRequestMethod),
                request_private_network: HeaderName::known_as(
                    WellKnown::AccessControlRequestPrivateNetwork,
                ),
            },
        })
    }

    /// The request's `origin`, when it has one.
    pub fn origin<'r>(&self, request: &'r impl RequestView) -> Option<&'r [u8]> {
        request
            .header(&self.names.origin)
            .filter(|origin| !origin.is_empty())
    }

    fn enabled(
        &self,
        fraction: Option<&RuntimeFraction>,
        default: bool,
        random: u64,
        runtime: &Runtime,
    ) -> bool {
        fraction.map_or(default, |fraction| runtime.hits(fraction, random))
    }

    /// What to do; `origin_valid` and `origin_invalid` are to be counted by [`Self::origin_allowed`] when there is an origin.
    pub fn decide(
        &self,
        request: &impl RequestView,
        random: u64,
        runtime: &Runtime,
    ) -> CorsDecision {
        let enabled = self.enabled(self.config.filter_enabled.as_ref(), true, random, runtime);
        let Some(origin) = self.origin(request).filter(|_| enabled) else {
            return CorsDecision::Ignore;
        };
        if !self.origin_allowed(origin) {
            return CorsDecision::Ignore;
        }
        let preflight = request.method() == b"OPTIONS"
            && request
                .header(&self.names.request_method)
                .is_some_and(|method| !method.is_empty());
        if preflight {
            CorsDecision::Preflight
        } else {
            CorsDecision::Annotate
        }
    }

    pub fn origin_allowed(&self, origin: &[u8]) -> bool {
        self.allow_origin
            .iter()
            .any(|matcher| matcher.matches(origin))
    }

    /// The headers of a preflight's answer, in Envoy's order.
    pub fn preflight_headers(
        &self,
        request: &impl RequestView,
        mut add: impl FnMut(&'static str, &[u8]),
    ) {
        add(
            "access-control-allow-origin",
            self.origin(request).unwrap_or_default(),
        );
        if self.config.allow_credentials == Some(true) {
            add("access-control-allow-credentials", b"true");
        }
        let texts = [
            ("access-control-allow-methods", &self.config.allow_methods),
            ("access-control-allow-headers", &self.config.allow_headers),
            ("access-control-max-age", &self.config.max_age),
        ];
        for (name, value) in texts {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                add(name, value.as_bytes());
            }
        }
        if self.config.allow_private_network_access == Some(true)
            && request.header(&self.names.request_private_network) == Some(b"true")
        {
            add("access-control-allow-private-network", b"true");
        }
    }

    /// The headers for the answer to an allowed cross-origin request, in Envoy's order; each replaces what the upstream sent.
    pub fn response_headers(&self, origin: &[u8], mut set: impl FnMut(&'static str, &[u8])) {
        set("access-control-allow-origin", origin);
        if self.config.allow_credentials == Some(true) {
            set("access-control-allow-credentials", b"true");
        }
        if let Some(expose) = self
            .config
            .expose_headers
            .as_ref()
            .filter(|value| !value.is_empty())
        {
            set("access-control-expose-headers", expose.as_bytes());
        }
    }
}
