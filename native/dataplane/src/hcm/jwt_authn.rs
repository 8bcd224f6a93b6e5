//! Authentication by JSON Web Tokens: what the first matching rule requires is checked; a key set that is not here is fetched first.
//!
//! A check changes nothing until the whole requirement holds: what good tokens change is gathered in [`Effects`] and done at the
//! end. So a request that had to wait for a key set is simply checked once more. Fetched sets are kept per worker and filter, as in
//! Envoy.

mod effects;
mod tokens;

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;
use tidegate_codec::h1::{KnownHeader, Method};
use tidegate_jwt::{Keys, Status, Token};
use tidegate_model::jwt::{Jwks, JwtPerRoute, RemoteJwks};
use tidegate_rt::Moment;
use tidegate_snapshot::jwt::{Check, CompiledJwtAuthn, CompiledProvider, Verifier};
use tidegate_snapshot::per_filter::CompiledPolicy;
use tidegate_stats::defs::jwt_authn as stat;
use tidegate_stats::{Group, Local, Registry};

use self::effects::Effects;
use super::ServerConnection;
use super::async_client::{Answer, CallRequest};
use super::filters::Verdict;
use super::local_reply::Reply;
use super::paused::Resume;
use super::runtime::{FilterRuntime, HcmRuntime};
use super::stream::{Request, Stream};
use crate::worker::Worker;

/// What a worker keeps of one such filter.
pub(crate) struct JwtRuntime {
    stats: Local<stat::JwtAuthn>,
    /// By provider.
    fetched: RefCell<Vec<Option<Fetched>>>,
}

/// A set that was fetched, and until when it counts.
type Fetched = (Arc<Keys>, Moment);

/// The filter's counters; held with the configuration, see `HcmGroups`.
pub(crate) fn group(
    registry: &Registry,
    manager: &str,
    config: &tidegate_model::jwt::JwtAuthn,
) -> Group<stat::JwtAuthn> {
    registry.group(&format!("{manager}jwt_authn.{}", config.stat_prefix))
}

impl JwtRuntime {
    pub(crate) fn new(group: &Group<stat::JwtAuthn>, providers: usize, worker: usize) -> Self {
        Self {
            stats: group.local(worker),
            fetched: RefCell::new(vec![None; providers]),
        }
    }
}

/// The filter's part in one stream that waits for a key set.
#[derive(Default)]
pub(crate) struct JwtState {
    /// The provider whose set is on its way.
    fetching: usize,
    /// Providers whose sets could not be had.
    failed: Vec<(usize, Status)>,
}

/// One filter, found by its place.
struct Filter<'a> {
    compiled: &'a CompiledJwtAuthn,
    runtime: &'a JwtRuntime,
}

fn filter(hcm: &HcmRuntime, index: usize) -> Option<Filter<'_>> {
    let compiled = hcm.filter(index)?.jwt_authn.as_ref()?;
    let Some(FilterRuntime::JwtAuthn(runtime)) = hcm.filter_runtimes.get(index) else {
        return None;
    };
    Some(Filter { compiled, runtime })
}

/// What a check has come to.
enum Outcome {
    Done(Result<(), Status>),
    /// This provider's key set is wanted.
    Fetch(usize),
}

/// A check under way: what it looks at and what it has found.
struct Checking<'a> {
    filter: &'a Filter<'a>,
    request: &'a Request,
    failed: &'a [(usize, Status)],
    now: Moment,
    unix_now: u64,
    effects: Effects,
}

impl Checking<'_> {
    fn verify(&mut self, verifier: &Verifier) -> Outcome {
        match verifier {
            Verifier::Pass => Outcome::Done(Ok(())),
            Verifier::Check(check) => self.check(check),
            Verifier::All(all) => {
                for one in all {
                    match self.verify(one) {
                        Outcome::Done(Ok(())) => {}
                        other => return other,
                    }
                }
                Outcome::Done(Ok(()))
            }
            Verifier::Any(any) => {
                let mut status = Err(Status::JwtMissed);
                for one in any {
                    match self.verify(one) {
                        Outcome::Done(Err(found)) => {
                            // What is wrong with a token says more than that there is none, or of whom it is.
                            let keeps = |known: Status| {
                                matches!(found, Status::JwtMissed)
                                    || matches!(found, Status::JwtUnknownIssuer)
                                        && known != Status::JwtMissed
                            };
                            if status.is_err_and(|known| !keeps(known)) {
                                status = Err(found);
                            }
                        }
                        other => return other,
                    }
                }
                Outcome::Done(if any.is_empty() { Ok(()) } else { status })
            }
        }
    }

    fn check(&mut self, check: &Check) -> Outcome {
        self.effects.sanitize(&check.sanitized);
        let mut tokens = tokens::extract(self.request, &check.places);
        let mut status = Err(Status::JwtMissed);
        // The last one found is looked at first; all of them must be good.
        while let Some(token) = tokens.pop() {
            status = match self.check_token(check, &token) {
                Outcome::Done(status) => status,
                fetch @ Outcome::Fetch(_) => return fetch,
            };
            if status.is_err() && !check.allow_failed && !check.allow_missing {
                break;
            }
        }
        Outcome::Done(match status {
            Err(_) if check.allow_failed => Ok(()),
            Err(Status::JwtMissed) if check.allow_missing => Ok(()),
            status => status,
        })
    }

    fn check_token(&mut self, check: &Check, found: &tokens::Found<'_>) -> Outcome {
        if check.provider.is_some() {
            self.filter.runtime.stats.inc(stat::JWT_CACHE_MISS);
        }
        let token = match Token::parse(&found.text) {
            Ok(token) => token,
            Err(status) => return self.fail(check, status),
        };
        if !tidegate_snapshot::jwt::allows(found.issuers, &token.iss) {
            return self.fail(check, Status::JwtUnknownIssuer);
        }
        let at = check
            .provider
            .or_else(|| self.filter.compiled.by_issuer(&token.iss));
        let Some((at, provider)) =
            at.and_then(|at| Some((at, self.filter.compiled.providers.get(at)?)))
        else {
            return self.fail(check, Status::JwtUnknownIssuer);
        };
        if let Err(status) = self.check_claims(check, provider, &token) {
            return self.fail(check, status);
        }
        match self.keys(at, provider) {
            Ok(Some(keys)) => match keys.verify(&token) {
                Ok(()) => {
                    self.effects.accept(&provider.config, token, found);
                    Outcome::Done(Ok(()))
                }
                Err(status) => self.fail(check, status),
            },
            Ok(None) => Outcome::Fetch(at),
            Err(status) => self.fail(check, status),
        }
    }

    fn check_claims(
        &self,
        check: &Check,
        provider: &CompiledProvider,
        token: &Token,
    ) -> Result<(), Status> {
        let config = &provider.config;
        if provider
            .subjects
            .as_ref()
            .is_some_and(|subjects| !subjects.matches(token.sub.as_bytes()))
        {
            return Err(Status::JwtVerificationFail);
        }
        let lives = token.exp > 0;
        if config.require_expiration && !lives {
            return Err(Status::JwtVerificationFail);
        }
        if let Some(max) = config.max_lifetime
            && (!lives || token.exp.saturating_sub(self.unix_now) > max.as_secs())
        {
            return Err(Status::JwtVerificationFail);
        }
        token.check_time(self.unix_now, config.clock_skew_seconds)?;
        let audiences = if check.audiences.is_empty() {
            &config.audiences
        } else {
            &check.audiences
        };
        let mut names = audiences.iter().map(|name| &**name);
        if !audiences.is_empty() && !token.names_audience(&mut names) {
            return Err(Status::JwtAudienceNotAllowed);
        }
        Ok(())
    }

    /// `Ok(None)`: to be fetched.
    fn keys(&self, at: usize, provider: &CompiledProvider) -> Result<Option<Arc<Keys>>, Status> {
        if let Jwks::Local(_) = provider.config.jwks {
            return match &provider.keys {
                Some(keys) => Ok(Some(Arc::clone(keys))),
                None => Err(Status::JwksNoValidKeys),
            };
        }
        if let Some((_, status)) = self.failed.iter().find(|(failed, _)| *failed == at) {
            return Err(*status);
        }
        let fetched = self.filter.runtime.fetched.borrow();
        Ok(fetched
            .get(at)
            .and_then(Option::as_ref)
            .filter(|(_, until)| self.now < *until)
            .map(|(keys, _)| Arc::clone(keys)))
    }

    fn fail(&mut self, check: &Check, status: Status) -> Outcome {
        let provider = check
            .provider
            .and_then(|at| self.filter.compiled.providers.get(at));
        let key = provider.and_then(|provider| provider.config.failed_status_in_metadata.as_ref());
        if let Some(key) = key {
            self.effects.failed(key, status);
        }
        Outcome::Done(Err(status))
    }
}

impl ServerConnection {
    /// The filter's request side.
    pub(super) fn jwt_authn(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        index: usize,
    ) -> Verdict {
        let hcm = Rc::clone(self.manager_of(stream));
        let Some(filter) = filter(&hcm, index) else {
            return Verdict::Continue;
        };
        let stats = &filter.runtime.stats;
        if filter.compiled.config.bypass_cors_preflight && is_preflight(&stream.request) {
            stats.inc(stat::CORS_PREFLIGHT_BYPASSED);
            stats.inc(stat::ALLOWED);
            return Verdict::Continue;
        }
        let runtime = Arc::clone(worker.core.snapshot.runtime());
        let name = hcm
            .config
            .http_filters
            .get(index)
            .map(|filter| &*filter.name);
        let of_route = stream.route.as_ref().zip(name).and_then(|(route, name)| {
            let mut policies = route.per_filter().policies(name);
            policies.find_map(|policy| {
                if let CompiledPolicy::JwtAuthn(config) = policy {
                    Some(config.clone())
                } else {
                    None
                }
            })
        });
        let verifier = match of_route {
            Some(JwtPerRoute::Disabled) => None,
            Some(JwtPerRoute::Requirement(name)) => {
                let Some(verifier) = filter.compiled.named(&name) else {
                    let names = filter.compiled.names();
                    let text =
                        format!("Wrong requirement_name: {name}. It should be one of [{names}]");
                    stats.inc(stat::DENIED);
                    return self.refuse_name(stream, worker, &filter, &text);
                };
                Some(verifier)
            }
            None => filter
                .compiled
                .find(&stream.request, stream.random, &runtime),
        };
        match verifier {
            None => {
                stats.inc(stat::ALLOWED);
                Verdict::Continue
            }
            Some(verifier) => self.check_jwt(stream, worker, &filter, verifier),
        }
    }

    /// A key set has come, or not.
    pub(super) fn jwt_authn_resumed(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        index: usize,
        what: Resume,
    ) -> Verdict {
        let hcm = Rc::clone(self.manager_of(stream));
        let Resume::Answer(answer) = what else {
            return Verdict::Wait;
        };
        if let Some(filter) = filter(&hcm, index)
            && let Some(state) = &mut stream.jwt
        {
            take_keys(&filter, state, &answer, worker.core.now());
        }
        self.jwt_authn(stream, worker, index)
    }

    fn check_jwt(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        filter: &Filter<'_>,
        verifier: &Verifier,
    ) -> Verdict {
        let wall = worker.core.clock.wall();
        let since = wall.duration_since(SystemTime::UNIX_EPOCH);
        let mut checking = Checking {
            filter,
            request: &stream.request,
            failed: stream.jwt.as_ref().map_or(&[], |state| &state.failed),
            now: worker.core.now(),
            unix_now: since.unwrap_or_default().as_secs(),
            effects: Effects::default(),
        };
        let outcome = checking.verify(verifier);
        let effects = checking.effects;
        match outcome {
            Outcome::Done(Ok(())) => {
                filter.runtime.stats.inc(stat::ALLOWED);
                stream.jwt = None;
                if effects.apply(stream) {
                    self.clear_route(stream, &worker.core);
                }
                Verdict::Continue
            }
            Outcome::Done(Err(status)) => {
                stream.jwt = None;
                filter.runtime.stats.inc(stat::DENIED);
                self.refuse_jwt(stream, worker, filter, status)
            }
            Outcome::Fetch(at) => {
                self.choose_cluster(stream, &mut worker.core);
                stream.jwt.get_or_insert_default().fetching = at;
                let provider = filter.compiled.providers.get(at);
                if let Some(provider) = provider
                    && let Jwks::Remote(remote) = &provider.config.jwks
                {
                    fetch(stream, worker, provider, remote);
                }
                Verdict::Wait
            }
        }
    }

    fn refuse_jwt(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        filter: &Filter<'_>,
        status: Status,
    ) -> Verdict {
        let code = if status == Status::JwtAudienceNotAllowed {
            403
        } else {
            401
        };
        let details = Cow::Owned(details(status.text()));
        let mut reply = Reply {
            details,
            ..Reply::new(code, status.text().as_bytes(), "")
        };
        if filter.compiled.config.strip_failure_response {
            reply.body = b"";
        } else {
            let mut value = b"Bearer realm=\"".to_vec();
            value.extend_from_slice(&original_uri(&stream.request));
            value.push(b'"');
            if status != Status::JwtMissed {
                value.extend_from_slice(b", error=\"invalid_token\"");
            }
            reply.headers.push((b"www-authenticate".to_vec(), value));
        }
        self.reply_by_filter(stream, worker, reply);
        Verdict::Answered
    }

    fn refuse_name(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        filter: &Filter<'_>,
        text: &str,
    ) -> Verdict {
        let body = format!("Failed JWT authentication: {text}");
        let body = if filter.compiled.config.strip_failure_response {
            ""
        } else {
            &body
        };
        let reply = Reply {
            details: Cow::Owned(details(text)),
            ..Reply::new(403, body.as_bytes(), "")
        };
        self.reply_by_filter(stream, worker, reply);
        Verdict::Answered
    }
}

fn details(text: &str) -> String {
    format!("jwt_authn_access_denied{{{}}}", text.replace(' ', "_"))
}

fn is_preflight(request: &Request) -> bool {
    let has = |known| {
        request
            .headers
            .known(known)
            .is_some_and(|value| !value.is_empty())
    };
    request.method == Method::Options
        && has(KnownHeader::Origin)
        && has(KnownHeader::AccessControlRequestMethod)
}

/// What the client asked for, as far as it goes into a header.
fn original_uri(request: &Request) -> Vec<u8> {
    let path = request
        .headers
        .known(KnownHeader::XEnvoyOriginalPath)
        .unwrap_or(request.path_bytes());
    let scheme = request.headers.text(request.scheme);
    [
        scheme,
        b"://",
        request.authority_bytes(),
        path.get(..256).unwrap_or(path),
    ]
    .concat()
}

/// Asks for a provider's key set.
fn fetch(
    stream: &mut Stream,
    worker: &mut Worker,
    provider: &CompiledProvider,
    remote: &RemoteJwks,
) {
    let uri = remote
        .uri
        .split_once("://")
        .map_or(&*remote.uri, |(_, rest)| rest);
    let (authority, path) = match uri.find('/') {
        Some(at) => uri.split_at(at),
        None => (uri, "/"),
    };
    let mut call = CallRequest::new(
        &remote.cluster,
        b"GET",
        authority.as_bytes(),
        path.as_bytes(),
    );
    call.timeout = (!remote.timeout.is_zero()).then_some(remote.timeout);
    call.retry.clone_from(&provider.retry_policy);
    ServerConnection::call(stream, worker, call);
}

/// Keeps a key set that has been asked for.
fn take_keys(filter: &Filter<'_>, state: &mut JwtState, answer: &Answer, now: Moment) {
    let at = state.fetching;
    let stats = &filter.runtime.stats;
    if answer.failure.is_some() || answer.status != 200 || answer.body.is_empty() {
        stats.inc(stat::JWKS_FETCH_FAILED);
        state.failed.push((at, Status::JwksFetchFail));
        return;
    }
    match Keys::parse(&answer.body) {
        Ok(keys) => {
            stats.inc(stat::JWKS_FETCH_SUCCESS);
            let provider = filter.compiled.providers.get(at);
            if let Some(Jwks::Remote(remote)) = provider.map(|provider| &provider.config.jwks)
                && let Some(place) = filter.runtime.fetched.borrow_mut().get_mut(at)
            {
                *place = Some((Arc::new(keys), now + remote.cache_duration));
            }
        }
        Err(_) => {
            stats.inc(stat::JWKS_FETCH_FAILED);
            state.failed.push((at, Status::JwksFetchFail));
        }
    }
}

/// A claim in a header.
fn claim_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => {
            let value = number.as_f64()?;
            if (0.0..18_446_744_073_709_551_615.0).contains(&value) && value.fract() == 0.0 {
                Some((value as u64).to_string())
            } else {
                Some(format!("{value:.6}"))
            }
        }
        Value::Array(_) | Value::Object(_) => {
            {
                // As protobuf writes JSON.
                let json = value.to_string();
                let json = json.replace('<', "\\u003c").replace('>', "\\u003e");
                Some(tidegate_jwt::encode(json.as_bytes()))
            }
        }
        Value::Null => None,
    }
    .filter(|text| !text.is_empty())
}
