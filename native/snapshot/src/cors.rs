//! The CORS filter's decisions: is the origin allowed, is this a preflight, which headers go into the answer.

use std::sync::{Arc, LazyLock};

use tidegate_model::hcm::CorsPolicy;
use tidegate_model::{Name, RuntimeFraction};

use crate::error::CompileError;
use crate::header_name::{HeaderName, WellKnown};
use crate::matcher::CompiledString;
use crate::request::RequestView;
use crate::runtime::Runtime;

/// `CorsPolicy` of one level.
#[derive(Debug)]
pub struct CompiledCors {
    pub config: Arc<CorsPolicy>,
    allow_origin: Vec<CompiledString>,
}

/// The policies that apply to a request, most specific first. Each field is taken from the first that sets it.
#[derive(Debug, Clone, Copy)]
pub struct CorsLevels<'a> {
    levels: [Option<&'a CompiledCors>; 4],
}

/// What the filter does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CorsDecision {
    /// Not a cross-origin request, or its origin is not allowed: nothing to do.
    Ignore,
    /// Forward, and add [`CorsLevels::response_headers`] to the answer.
    Annotate,
    /// Answer 200 with [`CorsLevels::preflight_headers`], then [`CorsLevels::response_headers`], and no body.
    Preflight,
}

static ORIGIN: LazyLock<HeaderName> = LazyLock::new(|| HeaderName::known_as(WellKnown::Origin));
static REQUEST_METHOD: LazyLock<HeaderName> =
    LazyLock::new(|| HeaderName::known_as(WellKnown::AccessControlRequestMethod));
static REQUEST_PRIVATE_NETWORK: LazyLock<HeaderName> =
    LazyLock::new(|| HeaderName::known_as(WellKnown::AccessControlRequestPrivateNetwork));

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
        })
    }
}

impl<'a> CorsLevels<'a> {
    /// `None`: no level has a policy, the filter does nothing.
    pub(crate) fn new(levels: [Option<&'a CompiledCors>; 4]) -> Option<Self> {
        levels
            .iter()
            .any(Option::is_some)
            .then_some(Self { levels })
    }

    fn policies(self) -> impl Iterator<Item = &'a CompiledCors> {
        self.levels.into_iter().flatten()
    }

    fn first<T>(self, get: impl Fn(&'a CorsPolicy) -> Option<T>) -> Option<T> {
        self.policies().find_map(|policy| get(&policy.config))
    }

    /// The first that is set and not empty.
    fn text(self, get: impl Fn(&'a CorsPolicy) -> Option<&'a Name>) -> Option<&'a Name> {
        self.first(|policy| get(policy).filter(|text| !text.is_empty()))
    }

    /// The request's `origin`, when it has one.
    pub fn origin<'r>(&self, request: &'r impl RequestView) -> Option<&'r [u8]> {
        request.header(&ORIGIN).filter(|origin| !origin.is_empty())
    }

    /// The most specific policy alone says whether the filter is on.
    fn enabled(&self, random: u64, runtime: &Runtime) -> bool {
        let fraction = self.policies().next().map(|p| &p.config.filter_enabled);
        hits(fraction, true, random, runtime)
    }

    fn shadow_enabled(&self, random: u64, runtime: &Runtime) -> bool {
        let fraction = self.policies().next().map(|p| &p.config.shadow_enabled);
        hits(fraction, false, random, runtime)
    }

    /// What to count: `Some(true)` is `origin_valid`, `Some(false)` is `origin_invalid`. Also in shadow mode.
    pub fn verdict_to_count(
        &self,
        request: &impl RequestView,
        random: u64,
        runtime: &Runtime,
    ) -> Option<bool> {
        let origin = self.origin(request)?;
        (self.enabled(random, runtime) || self.shadow_enabled(random, runtime))
            .then(|| self.origin_allowed(origin))
    }

    /// What to do. Only for routes that forward: Envoy's filter leaves redirects and direct responses alone.
    pub fn decide(
        &self,
        request: &impl RequestView,
        random: u64,
        runtime: &Runtime,
    ) -> CorsDecision {
        let Some(origin) = self
            .origin(request)
            .filter(|_| self.enabled(random, runtime))
        else {
            return CorsDecision::Ignore;
        };
        let allowed = self.origin_allowed(origin);
        let preflight = request.method() == b"OPTIONS"
            && request
                .header(&REQUEST_METHOD)
                .is_some_and(|method| !method.is_empty());
        let forward_not_matching = self
            .first(|policy| policy.forward_not_matching_preflights)
            .unwrap_or(true);
        match (preflight, allowed) {
            (true, true) => CorsDecision::Preflight,
            (true, false) if !forward_not_matching => CorsDecision::Preflight,
            (false, true) => CorsDecision::Annotate,
            (_, false) => CorsDecision::Ignore,
        }
    }

    /// `*` in `allow_origin_string_match` allows every origin.
    pub fn origin_allowed(&self, origin: &[u8]) -> bool {
        self.policies()
            .map(|policy| &policy.allow_origin)
            .find(|matchers| !matchers.is_empty())
            .is_some_and(|matchers| {
                matchers
                    .iter()
                    .any(|matcher| matcher.matches(b"*") || matcher.matches(origin))
            })
    }

    fn allow_credentials(&self) -> bool {
        self.first(|policy| policy.allow_credentials)
            .unwrap_or(false)
    }

    /// The headers of a preflight's answer, in Envoy's order. The response side of the filter comes after it.
    pub fn preflight_headers(
        &self,
        request: &impl RequestView,
        mut add: impl FnMut(&'static str, &[u8]),
    ) {
        if let Some(origin) = self
            .origin(request)
            .filter(|origin| self.origin_allowed(origin))
        {
            add("access-control-allow-origin", origin);
        }
        if self.allow_credentials() {
            add("access-control-allow-credentials", b"true");
        }
        let texts = [
            (
                "access-control-allow-methods",
                self.text(|policy| policy.allow_methods.as_ref()),
            ),
            (
                "access-control-allow-headers",
                self.text(|policy| policy.allow_headers.as_ref()),
            ),
            (
                "access-control-max-age",
                self.text(|policy| policy.max_age.as_ref()),
            ),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                add(name, value.as_bytes());
            }
        }
        let private_network = self
            .first(|policy| policy.allow_private_network_access)
            .unwrap_or(false);
        if private_network && request.header(&REQUEST_PRIVATE_NETWORK) == Some(b"true") {
            add("access-control-allow-private-network", b"true");
        }
    }

    /// The headers for the answer to an allowed cross-origin request, in Envoy's order; each replaces what the upstream
    /// sent. None for an origin that is not allowed.
    pub fn response_headers(&self, origin: &[u8], mut set: impl FnMut(&'static str, &[u8])) {
        if !self.origin_allowed(origin) {
            return;
        }
        set("access-control-allow-origin", origin);
        if self.allow_credentials() {
            set("access-control-allow-credentials", b"true");
        }
        if let Some(expose) = self.text(|policy| policy.expose_headers.as_ref()) {
            set("access-control-expose-headers", expose.as_bytes());
        }
    }
}

fn hits(
    fraction: Option<&Option<RuntimeFraction>>,
    default: bool,
    random: u64,
    runtime: &Runtime,
) -> bool {
    match fraction {
        Some(Some(fraction)) => runtime.hits(fraction, random),
        _ => default,
    }
}

#[cfg(test)]
mod tests;
