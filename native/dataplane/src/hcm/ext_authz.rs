//! External authorization: an HTTP or gRPC service is asked about each request, which waits for the answer.
//!
//! `check` puts the question together, `outcome` reads the answer and does what it says; order, counters and texts are those of
//! Envoy's filter. What routes say to the filter is the most specific level's, but for `context_extensions`, which add up.

mod check;
mod outcome;

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use rustc_hash::FxHashMap;
use tidegate_model::ext_authz::{BodySettings, ExtAuthzPerRoute};
use tidegate_rt::Moment;
use tidegate_snapshot::ext_authz::CompiledExtAuthz;
use tidegate_snapshot::per_filter::CompiledPolicy;
use tidegate_snapshot::{ClusterId, ResponseFlags};
use tidegate_stats::defs::ext_authz::{self as stat, of_cluster};
use tidegate_stats::{Counter, Group, Local, Registry};

use self::outcome::{Outcome, ResponseEdit};
use super::ServerConnection;
use super::filters::Verdict;
use super::local_reply::Reply;
use super::paused::{BodyDemand, Resume};
use super::runtime::{FilterRuntime, HcmRuntime};
use super::stream::{Stream, StreamRoute};
use crate::worker::{Core, Worker};

/// What a worker keeps of one such filter.
pub(crate) struct AuthzRuntime {
    stats: Local<stat::ExtAuthz>,
    /// Of the clusters that requests were for.
    of_clusters: RefCell<FxHashMap<ClusterId, OfCluster>>,
}

struct OfCluster {
    stats: Local<of_cluster::ClusterExtAuthz>,
    _group: Group<of_cluster::ClusterExtAuthz>,
}

/// The filter's counters; held with the configuration, see `HcmGroups`.
pub(crate) fn group(
    registry: &Registry,
    manager: &str,
    config: &tidegate_model::ext_authz::ExtAuthz,
) -> Group<stat::ExtAuthz> {
    registry.group(&format!("{manager}ext_authz.{}", config.stat_prefix))
}

impl AuthzRuntime {
    pub(crate) fn new(group: &Group<stat::ExtAuthz>, worker: usize) -> Self {
        Self {
            stats: group.local(worker),
            of_clusters: RefCell::default(),
        }
    }
}

/// The filter's part in one stream.
#[derive(Default)]
pub(crate) struct AuthzState {
    asked_at: Moment,
    /// Header changes of the response.
    response: Vec<ResponseEdit>,
}

/// One filter, found by its place.
struct Filter<'a> {
    compiled: &'a CompiledExtAuthz,
    runtime: &'a AuthzRuntime,
}

fn filter(hcm: &HcmRuntime, index: usize) -> Option<Filter<'_>> {
    let compiled = hcm.filter(index)?.ext_authz.as_ref()?;
    let Some(FilterRuntime::ExtAuthz(runtime)) = hcm.filter_runtimes.get(index) else {
        return None;
    };
    Some(Filter { compiled, runtime })
}

/// What the most specific level says.
fn of_route<'a>(route: &'a StreamRoute, name: &'a str) -> Option<&'a ExtAuthzPerRoute> {
    route.per_filter().policies(name).find_map(|policy| {
        if let CompiledPolicy::ExtAuthz(config) = policy {
            Some(&**config)
        } else {
            None
        }
    })
}

impl Filter<'_> {
    /// Counts an outcome, for the filter and for the request's cluster.
    fn count(
        &self,
        stream: &Stream,
        core: &Core,
        counter: Counter<stat::ExtAuthz>,
        of_cluster: Counter<of_cluster::ClusterExtAuthz>,
    ) {
        self.runtime.stats.inc(counter);
        let Some(cluster) = &stream.cluster else {
            return;
        };
        let mut known = self.runtime.of_clusters.borrow_mut();
        let entry = known.entry(cluster.id).or_insert_with(|| {
            let prefix = format!(
                "cluster.{}.ext_authz.{}",
                cluster.config.alt_stat_name, self.compiled.config.stat_prefix
            );
            let group = core.group(&prefix);
            OfCluster {
                stats: group.local(core.id),
                _group: group,
            }
        });
        entry.stats.inc(of_cluster);
    }
}

/// How much of the body the service sees of this request.
fn body_settings(
    filter: &CompiledExtAuthz,
    of_route: Option<&ExtAuthzPerRoute>,
) -> Option<BodySettings> {
    if of_route.is_some_and(|config| config.disable_request_body_buffering) {
        return None;
    }
    let own = filter.config.with_request_body;
    let of_route = of_route.and_then(|config| config.with_request_body);
    match (of_route, own) {
        (Some(settings), Some(own)) => Some(BodySettings {
            pack_as_bytes: own.pack_as_bytes,
            ..settings
        }),
        (settings, own) => settings.or(own),
    }
}

impl ServerConnection {
    /// The filter's request side.
    pub(super) fn ext_authz(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        index: usize,
    ) -> Verdict {
        let hcm = Rc::clone(self.manager_of(stream));
        let Some((filter, name)) = filter(&hcm, index).zip(name_of(&hcm, index)) else {
            return Verdict::Continue;
        };
        let config = &filter.compiled.config;
        let Some(route) = &stream.route else {
            return Verdict::Continue;
        };
        let of_route = of_route(route, name);
        if of_route.is_some_and(|config| config.disabled) {
            return Verdict::Continue;
        }
        let runtime = worker.core.snapshot.runtime();
        let random = worker.core.rng.next_u64();
        let enabled = config
            .filter_enabled
            .as_ref()
            .is_none_or(|share| runtime.hits(share, random))
            && filter
                .compiled
                .enabled_metadata
                .as_ref()
                .is_none_or(|matcher| matcher.matches(&stream.metadata));
        if !enabled {
            filter.runtime.stats.inc(stat::DISABLED);
            if config
                .deny_at_disable
                .as_ref()
                .is_some_and(|flag| runtime.flag(flag))
            {
                return self.refuse_authz(
                    stream,
                    worker,
                    config.status_on_error,
                    "ext_authz_error",
                );
            }
            return Verdict::Continue;
        }
        let settings = body_settings(filter.compiled, of_route);
        if let Some(settings) = settings
            && !stream.request.complete
            && !stream.request.upgrade
        {
            self.choose_cluster(stream, &mut worker.core);
            return Verdict::WaitForBody(BodyDemand {
                limit: settings.max_request_bytes as usize,
                partial: settings.allow_partial_message,
            });
        }
        self.ask_authz(stream, worker, &filter, name, None)
    }

    /// What the filter has waited for has come.
    pub(super) fn ext_authz_resumed(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        index: usize,
        what: Resume,
    ) -> Verdict {
        let hcm = Rc::clone(self.manager_of(stream));
        let Some((filter, name)) = filter(&hcm, index).zip(name_of(&hcm, index)) else {
            return Verdict::Continue;
        };
        match what {
            Resume::Body => {
                let of_route = stream
                    .route
                    .as_ref()
                    .and_then(|route| of_route(route, name));
                let settings = body_settings(filter.compiled, of_route);
                self.ask_authz(stream, worker, &filter, name, settings)
            }
            Resume::Answer(answer) => {
                let outcome = match &filter.compiled.http {
                    Some(http) => Outcome::of_http(answer, http),
                    None => Outcome::of_grpc(&answer),
                };
                self.decide_authz(stream, worker, &filter, outcome)
            }
            Resume::Timer => Verdict::Wait,
        }
    }

    fn ask_authz(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        filter: &Filter<'_>,
        name: &str,
        body: Option<BodySettings>,
    ) -> Verdict {
        self.choose_cluster(stream, &mut worker.core);
        let state = stream.authz.get_or_insert_default();
        state.asked_at = worker.core.now();
        self.send_check(stream, worker, filter.compiled, name, body);
        Verdict::Wait
    }

    fn refuse_authz(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        status: u16,
        details: &'static str,
    ) -> Verdict {
        self.refuse_authz_with(stream, worker, Reply::new(status, b"", details))
    }

    fn refuse_authz_with(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        reply: Reply<'_>,
    ) -> Verdict {
        stream
            .flags
            .insert(ResponseFlags::UNAUTHORIZED_EXTERNAL_SERVICE);
        self.reply_by_filter(stream, worker, reply);
        Verdict::Answered
    }

    fn reject_authz(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        filter: &Filter<'_>,
    ) -> Verdict {
        filter.count(stream, &worker.core, stat::INVALID, of_cluster::INVALID);
        self.refuse_authz(stream, worker, 500, "ext_authz_invalid")
    }

    /// Does what the service says.
    fn decide_authz(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        filter: &Filter<'_>,
        mut outcome: Outcome,
    ) -> Verdict {
        let config = &filter.compiled.config;
        if config.validate_mutations && outcome.has_unknown_append {
            return self.reject_authz(stream, worker, filter);
        }
        self.take_metadata(stream, worker, filter, &mut outcome);
        match outcome.verdict {
            outcome::Kind::Ok => {
                if config.validate_mutations && !outcome.is_valid() {
                    return self.reject_authz(stream, worker, filter);
                }
                let changes = outcome.changes_request();
                outcome.apply(&mut stream.request);
                if !outcome.response.is_empty() {
                    let state = stream.authz.get_or_insert_default();
                    state.response = std::mem::take(&mut outcome.response);
                }
                let headers = &stream.request.headers;
                if headers.pairs().count() > self.hcm.config.max_headers_count as usize
                    || headers.byte_size() > u64::from(self.hcm.config.max_request_headers_bytes)
                {
                    filter
                        .runtime
                        .stats
                        .inc(stat::REQUEST_HEADER_LIMITS_REACHED);
                    return self.reject_authz(stream, worker, filter);
                }
                filter.count(stream, &worker.core, stat::OK, of_cluster::OK);
                if config.clear_route_cache && changes {
                    self.clear_route(stream, &worker.core);
                }
                Verdict::Continue
            }
            outcome::Kind::Denied => {
                filter.count(stream, &worker.core, stat::DENIED, of_cluster::DENIED);
                if config.charge_cluster_response_stats
                    && let Some(cluster) = &stream.cluster
                {
                    super::response::count_code(cluster, true, outcome.status);
                }
                if config.validate_mutations && !outcome.is_valid() {
                    return self.reject_authz(stream, worker, filter);
                }
                let limit = config.max_denied_response_body_bytes as usize;
                if limit > 0 {
                    outcome.body.truncate(limit);
                }
                let reply = Reply {
                    headers: std::mem::take(&mut outcome.local),
                    ..Reply::new(outcome.status, &outcome.body, "ext_authz_denied")
                };
                self.refuse_authz_with(stream, worker, reply)
            }
            outcome::Kind::Error => {
                filter.count(stream, &worker.core, stat::ERROR, of_cluster::ERROR);
                if config.failure_mode_allow {
                    filter.count(
                        stream,
                        &worker.core,
                        stat::FAILURE_MODE_ALLOWED,
                        of_cluster::FAILURE_MODE_ALLOWED,
                    );
                    if config.failure_mode_allow_header_add {
                        let headers = &mut stream.request.headers;
                        headers.add(b"x-envoy-auth-failure-mode-allowed", b"true");
                    }
                    return Verdict::Continue;
                }
                let status = match outcome.status {
                    0 => config.status_on_error,
                    status => status,
                };
                let reply = Reply {
                    headers: std::mem::take(&mut outcome.local),
                    details: Cow::Borrowed("ext_authz_error"),
                    ..Reply::new(status, &outcome.body, "")
                };
                self.refuse_authz_with(stream, worker, reply)
            }
        }
    }

    fn take_metadata(
        &self,
        stream: &mut Stream,
        worker: &Worker,
        filter: &Filter<'_>,
        outcome: &mut Outcome,
    ) {
        let mut metadata = std::mem::take(&mut outcome.metadata);
        if metadata.is_empty() {
            return;
        }
        if !filter.compiled.config.enable_dynamic_metadata_ingestion {
            filter.runtime.stats.inc(stat::IGNORED_DYNAMIC_METADATA);
            return;
        }
        if outcome.verdict == outcome::Kind::Ok
            && let Some(state) = &stream.authz
        {
            let millis = worker.core.now().since(state.asked_at).as_millis() as u64;
            metadata.insert("ext_authz_duration".to_owned(), millis.into());
        }
        stream
            .metadata
            .merge("envoy.filters.http.ext_authz", metadata);
    }

    /// The filter's response side.
    pub(super) fn authz_response_head(stream: &mut Stream) {
        if let Some(state) = &mut stream.authz {
            for edit in state.response.drain(..) {
                edit.apply(&mut stream.response.headers);
            }
        }
    }
}

fn name_of(hcm: &HcmRuntime, index: usize) -> Option<&str> {
    Some(&hcm.config.http_filters.get(index)?.name)
}
