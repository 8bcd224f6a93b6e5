//! Authentication by JSON Web Tokens, compiled: which requirement a request has, where its tokens may stand, and the key sets.
//!
//! Requirements become trees of [`Verifier`]s in which alternatives that let a missing token pass come last and know the
//! providers beside them, as in Envoy. Nothing here knows when a key set has been fetched.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_jwt::Keys;
use tidegate_model::Name;
use tidegate_model::jwt::{Jwks, JwtAuthn, JwtProvider, JwtRequirement};

use crate::error::CompileError;
use crate::listener::Names;
use crate::matcher::CompiledString;
use crate::request::RequestView;
use crate::retry::CompiledRetryPolicy;
use crate::routes::CompiledRoute;
use crate::runtime::Runtime;

/// See the module.
#[derive(Debug)]
pub struct CompiledJwtAuthn {
    pub config: Arc<JwtAuthn>,
    pub providers: Vec<CompiledProvider>,
    rules: Vec<(CompiledRoute, Option<Verifier>)>,
    named: Vec<(Name, Verifier)>,
}

#[derive(Debug)]
pub struct CompiledProvider {
    pub name: Name,
    pub config: Arc<JwtProvider>,
    /// Of a local set that has any.
    pub keys: Option<Arc<Keys>>,
    pub subjects: Option<CompiledString>,
    pub retry_policy: Option<Arc<CompiledRetryPolicy>>,
}

/// What is to be checked, in order.
#[derive(Debug)]
pub enum Verifier {
    Pass,
    Check(Check),
    /// The first that succeeds is enough.
    Any(Vec<Verifier>),
    /// The first that fails is the end.
    All(Vec<Verifier>),
}

/// The tokens in certain places, checked with one provider, or with whichever their issuers name.
#[derive(Debug)]
pub struct Check {
    /// Its place among the providers.
    pub provider: Option<usize>,
    /// Instead of the provider's own.
    pub audiences: Vec<Name>,
    pub allow_failed: bool,
    pub allow_missing: bool,
    pub places: Places,
    /// Headers that only we may set.
    pub sanitized: Vec<Name>,
}

/// Where tokens may stand, in Envoy's order, with the issuers for which they may (empty: any).
#[derive(Debug, Default)]
pub struct Places {
    pub headers: BTreeMap<String, HeaderPlace>,
    pub params: BTreeMap<Name, Vec<Name>>,
    pub cookies: BTreeMap<Name, Vec<Name>>,
}

#[derive(Debug, Default)]
pub struct HeaderPlace {
    pub name: Name,
    pub prefix: Name,
    pub issuers: Vec<Name>,
}

/// Whether a token of that issuer may stand where these issuers' do.
pub fn allows(issuers: &[Name], issuer: &str) -> bool {
    issuers
        .iter()
        .any(|allowed| allowed.is_empty() || &**allowed == issuer)
}

impl CompiledJwtAuthn {
    pub(crate) fn compile(
        config: &Arc<JwtAuthn>,
        names: &mut Names<'_>,
    ) -> Result<Self, CompileError> {
        let mut providers = Vec::with_capacity(config.providers.len());
        for (name, provider) in &config.providers {
            let policy = match &provider.jwks {
                Jwks::Remote(remote) => remote.retry_policy.as_ref(),
                Jwks::Local(_) => None,
            };
            providers.push(CompiledProvider {
                name: Name::clone(name),
                keys: match &provider.jwks {
                    Jwks::Local(source) => {
                        let keys = Keys::parse(&source.bytes).map_err(|status| {
                            CompileError::new(
                                format!("providers[\"{name}\"].local_jwks"),
                                format!(
                                    "Provider '{name}' in jwt_authn config has invalid local jwks: {}",
                                    status.text()
                                ),
                            )
                        })?;
                        Some(Arc::new(keys))
                    }
                    Jwks::Remote(_) => None,
                },
                subjects: provider
                    .subjects
                    .as_ref()
                    .map(CompiledString::compile)
                    .transpose()?,
                retry_policy: policy
                    .map(|policy| CompiledRetryPolicy::compile(policy).map(Arc::new))
                    .transpose()?,
                config: Arc::clone(provider),
            });
        }
        let mut rules = Vec::with_capacity(config.rules.len());
        for (at, rule) in config.rules.iter().enumerate() {
            let matcher = CompiledRoute::matcher(&rule.matches, names)
                .map_err(|e| e.within(&format!("rules[{at}].match")))?;
            let verifier = rule.requires.as_ref();
            rules.push((
                matcher,
                verifier.map(|one| Verifier::compile(one, &providers, &[])),
            ));
        }
        let named = config
            .requirement_map
            .iter()
            .map(|(name, one)| (Name::clone(name), Verifier::compile(one, &providers, &[])))
            .collect();
        Ok(Self {
            config: Arc::clone(config),
            providers,
            rules,
            named,
        })
    }

    /// What the first rule that matches requires.
    pub fn find(
        &self,
        request: &impl RequestView,
        random: u64,
        runtime: &Runtime,
    ) -> Option<&Verifier> {
        let mut rules = self.rules.iter();
        let found = rules.find(|(matcher, _)| matcher.matches(request, random, runtime));
        found?.1.as_ref()
    }

    pub fn named(&self, name: &str) -> Option<&Verifier> {
        let found = self.named.iter().find(|(known, _)| &**known == name);
        found.map(|(_, verifier)| verifier)
    }

    /// All names, as Envoy lists them.
    pub fn names(&self) -> String {
        let mut names: Vec<&str> = self.named.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        names.join(",")
    }

    /// The provider for an issuer: the first that names it, else the first that takes any.
    pub fn by_issuer(&self, issuer: &str) -> Option<usize> {
        let position = |wanted: &str| {
            self.providers
                .iter()
                .position(|provider| &*provider.config.issuer == wanted)
        };
        position(issuer).or_else(|| position(""))
    }
}

impl Verifier {
    fn compile(
        requirement: &JwtRequirement,
        providers: &[CompiledProvider],
        beside: &[usize],
    ) -> Self {
        let all = |list: &[JwtRequirement]| -> Vec<Self> {
            list.iter()
                .map(|one| Self::compile(one, providers, &[]))
                .collect()
        };
        match requirement {
            JwtRequirement::None => Self::Pass,
            JwtRequirement::Provider { name, audiences } => {
                let at = providers.iter().position(|known| known.name == *name);
                Self::Check(Check {
                    audiences: audiences.clone(),
                    ..Check::new(at, providers, at.as_slice())
                })
            }
            JwtRequirement::All(list) => Self::All(all(list)),
            JwtRequirement::Any(list) => {
                let is_bypass = |one: &&JwtRequirement| {
                    matches!(
                        one,
                        JwtRequirement::AllowMissing | JwtRequirement::AllowMissingOrFailed
                    )
                };
                let used: Vec<usize> = list
                    .iter()
                    .filter_map(|one| match one {
                        JwtRequirement::Provider { name, .. } => {
                            providers.iter().position(|known| known.name == *name)
                        }
                        _ => None,
                    })
                    .collect();
                let mut verifiers: Vec<Self> = list
                    .iter()
                    .filter(|one| !is_bypass(one))
                    .map(|one| Self::compile(one, providers, &[]))
                    .collect();
                let failed = JwtRequirement::AllowMissingOrFailed;
                let bypass = list.iter().find(|one| **one == failed);
                if let Some(bypass) = bypass.or_else(|| list.iter().find(is_bypass)) {
                    verifiers.push(Self::compile(bypass, providers, &used));
                }
                Self::Any(verifiers)
            }
            JwtRequirement::AllowMissingOrFailed | JwtRequirement::AllowMissing => {
                Self::Check(Check {
                    allow_failed: *requirement == JwtRequirement::AllowMissingOrFailed,
                    allow_missing: true,
                    ..Check::new(None, providers, beside)
                })
            }
        }
    }
}

impl Check {
    fn new(provider: Option<usize>, providers: &[CompiledProvider], from: &[usize]) -> Self {
        let mut check = Self {
            provider,
            audiences: Vec::new(),
            allow_failed: false,
            allow_missing: false,
            places: Places::default(),
            sanitized: Vec::new(),
        };
        for provider in from.iter().filter_map(|at| providers.get(*at)) {
            let config = &provider.config;
            check.places.add(config);
            check
                .sanitized
                .extend(config.forward_payload_header.clone());
            let headers = config.claim_to_headers.iter();
            check
                .sanitized
                .extend(headers.map(|(header, _)| Name::clone(header)));
        }
        check
    }
}

impl Places {
    fn add(&mut self, provider: &JwtProvider) {
        for (name, prefix) in &provider.from_headers {
            self.add_header(name, prefix, &provider.issuer);
        }
        for param in &provider.from_params {
            let issuers = self.params.entry(Name::clone(param)).or_default();
            issuers.push(Name::clone(&provider.issuer));
        }
        for cookie in &provider.from_cookies {
            let issuers = self.cookies.entry(Name::clone(cookie)).or_default();
            issuers.push(Name::clone(&provider.issuer));
        }
        if provider.from_headers.is_empty()
            && provider.from_params.is_empty()
            && provider.from_cookies.is_empty()
        {
            self.add_header(
                &Name::from("authorization"),
                &Name::from("Bearer "),
                &provider.issuer,
            );
            let issuers = self.params.entry(Name::from("access_token")).or_default();
            issuers.push(Name::clone(&provider.issuer));
        }
    }

    fn add_header(&mut self, name: &Name, prefix: &Name, issuer: &Name) {
        let place = self.headers.entry(format!("{name}{prefix}")).or_default();
        place.name = Name::clone(name);
        place.prefix = Name::clone(prefix);
        place.issuers.push(Name::clone(issuer));
    }
}
