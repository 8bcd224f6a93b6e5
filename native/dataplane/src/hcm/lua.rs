//! The Lua filter: a script's functions run as coroutines beside the stream.
//!
//! ```text
//! request   lua_request ─▶ Wait (a call), WaitForBody ─▶ lua_resumed ─▶ … ─▶ the next filter
//!                      └─▶ head goes on, script reads on ─▶ lua_data, piece by piece
//! response  run_encoders ─▶ lua_response_head ─▶ Held: head and body wait ─▶ lua_hold …, lua_answered ─▶ lua_release
//!                                            └─▶ head goes on, script reads on ─▶ lua_data
//! ```
//!
//! `request` and `response` are the two sides, `host` is what scripts see of the stream. A script that fails is logged and
//! counted, and its stream goes on, as in Envoy.

mod host;
mod request;
mod response;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tidegate_codec::h1::ResponseFraming;
use tidegate_lua::{Event, HttpCall, Level, Run, Script, Side, Step};
use tidegate_snapshot::lua::{CompiledLua, CompiledScript};
use tidegate_snapshot::per_filter::CompiledPolicy;
use tidegate_stats::defs::lua as stat;
use tidegate_stats::{Group, Registry};

use self::host::LuaHost;
use super::ServerConnection;
use super::async_client::{self, Answer, CallFailure, CallRequest};
use super::runtime::{FilterRuntime, HcmRuntime};
use super::stream::{Stream, StreamRoute};
use crate::conn::Key;
use crate::worker::{Core, LogSink, Worker};

/// A limit that is none.
const UNLIMITED: usize = u32::MAX as usize;
const NO_CLUSTER: &str = "http call cluster invalid. Must be configured";
const UPGRADED: &str = "an upgraded stream cannot be made to wait";
const NOT_PLAIN: &str =
    "bodies of gRPC-Web, and those that a compressor before has compressed, are not supported";

/// The counters of a filter.
pub(crate) fn group(
    registry: &Registry,
    manager: &str,
    config: &tidegate_model::lua::Lua,
) -> Group<stat::Lua> {
    let prefix = &config.stat_prefix;
    if prefix.is_empty() {
        return registry.group(&format!("{manager}lua."));
    }
    registry.group(&format!("{manager}lua.{prefix}."))
}

/// The scripts of a worker, loaded when they are first wanted.
#[derive(Default)]
pub(crate) struct Scripts(FxHashMap<usize, Loaded>);

struct Loaded {
    compiled: Arc<CompiledScript>,
    /// `None`: it has failed here, although it had not when it was checked.
    script: Option<Rc<Script<LuaHost>>>,
}

impl Scripts {
    fn get(
        &mut self,
        compiled: &Arc<CompiledScript>,
        log: &Arc<dyn LogSink>,
    ) -> Option<Rc<Script<LuaHost>>> {
        let loaded = self
            .0
            .entry(Arc::as_ptr(compiled) as usize)
            .or_insert_with(|| Loaded {
                compiled: Arc::clone(compiled),
                script: match Script::load(&compiled.source) {
                    Ok(script) => Some(Rc::new(script)),
                    Err(why) => {
                        log.script_log(Level::Error, &format!("script load error: {why}"));
                        None
                    }
                },
            });
        loaded.script.as_ref().map(Rc::clone)
    }

    /// Those of configurations that are gone.
    pub(crate) fn forget_unused(&mut self) {
        self.0
            .retain(|_, loaded| Arc::strong_count(&loaded.compiled) > 1);
    }
}

/// The filters' part in one stream.
#[derive(Default)]
pub(crate) struct LuaStream {
    /// Scripts that wait or read on.
    runs: Vec<Running>,
    /// By place: filters whose response function has been called.
    responded: u64,
    held: Option<Held>,
    /// The call for which a response waits.
    call: Option<Key>,
    /// A body that a script has given to a response that had none.
    added: Option<Vec<u8>>,
    /// The response's body passes as payload.
    filters_response: bool,
}

struct Running {
    index: usize,
    run: Run<LuaHost>,
    host: Option<Box<LuaHost>>,
    waits: Waits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    Body,
    Chunk,
    Trailers,
    Call,
}

/// A response whose head waits for a script, and what has come of its body.
struct Held {
    framing: ResponseFraming,
    ends: bool,
    /// The encoder to go on with.
    next: usize,
    body: Vec<u8>,
    /// All of it has come.
    last: bool,
    trailers: bool,
}

/// What a script on the response's side has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Advance {
    GoesOn,
    Holds,
}

impl LuaStream {
    /// The response's head waits.
    pub(crate) const fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// The response's body passes here.
    pub(crate) const fn filters_response(&self) -> bool {
        self.filters_response
    }

    fn reads(&self, side: Side) -> bool {
        let reads = |run: &Running| {
            run.run.side() == side && matches!(run.waits, Waits::Chunk | Waits::Trailers)
        };
        self.runs.iter().any(reads)
    }
}

impl Stream {
    /// A script reads the request's body as it passes.
    pub(super) fn lua_reads_request(&self) -> bool {
        self.lua
            .as_ref()
            .is_some_and(|lua| lua.reads(Side::Request))
    }

    /// The response's head waits for a script.
    pub(super) fn is_lua_holding(&self) -> bool {
        self.lua.as_ref().is_some_and(|lua| lua.is_holding())
    }
}

fn compiled(hcm: &HcmRuntime, index: usize) -> Option<&CompiledLua> {
    hcm.filter(index)?.lua.as_ref()
}

impl ServerConnection {
    fn lua_run(
        &self,
        stream: &Stream,
        core: &mut Core,
        index: usize,
        side: Side,
        ends: bool,
    ) -> Option<Running> {
        let hcm = self.manager_of(stream);
        let lua = compiled(hcm, index)?;
        let name = &hcm.config.http_filters.get(index)?.name;
        let levels = stream.route.as_ref().map(StreamRoute::per_filter);
        let of_route = match levels.and_then(|levels| levels.policy(name)) {
            Some(CompiledPolicy::Lua(policy)) => Some(policy),
            _ => None,
        };
        let script = lua.script(of_route)?;
        let log = Arc::clone(&core.shared.log_sink);
        let script = core.http.lua.get(script, &log)?;
        let run = script.begin(side, ends)?;
        if let Some(FilterRuntime::Lua(stats)) = hcm.filter_runtimes.get(index) {
            stats.inc(stat::EXECUTIONS);
        }
        Some(Running {
            index,
            run,
            host: Some(LuaHost::new(
                side,
                name,
                stream,
                &self.downstream.info,
                &log,
            )),
            waits: Waits::Call,
        })
    }

    /// Lets a script go on. What it has done to the stream is done when this returns.
    fn resume_lua(
        &self,
        stream: &mut Stream,
        core: &Core,
        running: &mut Running,
        event: Event,
    ) -> Step {
        let Some(mut host) = running.host.take() else {
            return Step::Done;
        };
        host.swap(stream);
        let (mut host, step) = running.run.resume(host, event);
        host.swap(stream);
        if running.run.side() == Side::Request {
            let clears = compiled(self.manager_of(stream), running.index)
                .is_some_and(|lua| lua.clear_route_cache);
            let wanted = running.run.wants_new_route();
            if wanted || (clears && std::mem::take(&mut host.touched)) {
                self.clear_route(stream, core);
            }
        }
        if let Step::Failed(why) = &step {
            let text = format!("script log: {why}");
            core.shared.log_sink.script_log(Level::Error, &text);
            if let Some(FilterRuntime::Lua(stats)) =
                self.manager_of(stream).filter_runtimes.get(running.index)
            {
                stats.inc(stat::ERRORS);
            }
        }
        running.host = Some(host);
        step
    }

    /// The stream is answered otherwise or over: no script goes on.
    pub(super) fn end_lua(stream: &mut Stream, worker: &mut Worker) {
        let Some(lua) = &mut stream.lua else { return };
        lua.runs.clear();
        lua.held = None;
        lua.added = None;
        if let Some(call) = lua.call.take() {
            async_client::cancel(worker, call);
        }
    }
}

/// A call whose answer the script waits for, to be made by the side it waits on. `Err`: what the script goes on with at
/// once, a call that it does not wait for having been made.
fn waited_call<'a>(
    call: &'a HttpCall,
    worker: &mut Worker,
    side: Side,
) -> Result<CallRequest<'a>, Event> {
    if worker
        .core
        .snapshot
        .cluster_by_name(&call.cluster)
        .is_none()
    {
        return Err(Event::Refused(NO_CLUSTER));
    }
    let mut request = CallRequest::new(&call.cluster, &call.method, &call.authority, &call.path);
    for (name, value) in &call.headers {
        request.headers.add_copy(name, value);
    }
    if let Some(body) = &call.body {
        request.body = body;
        let mut buffer = itoa::Buffer::new();
        let length = buffer.format(body.len()).as_bytes();
        request.headers.set(b"content-length", length);
    }
    request.timeout = (call.timeout_ms > 0).then(|| Duration::from_millis(call.timeout_ms));
    request.forwarded_for = call.send_xff;
    request.later = side == Side::Response;
    if call.asynchronous {
        async_client::start(worker, request, None);
        return Err(Event::Sent);
    }
    Ok(request)
}

fn answered(answer: &Answer) -> Event {
    if !matches!(answer.failure, None | Some(CallFailure::Local)) {
        return Event::Answer {
            headers: vec![(b":status".to_vec(), b"503".to_vec())],
            body: b"upstream failure".to_vec(),
        };
    }
    let status = (b":status".to_vec(), answer.status.to_string().into_bytes());
    let pairs = answer.headers.pairs();
    let pairs = pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()));
    Event::Answer {
        headers: std::iter::once(status).chain(pairs).collect(),
        body: answer.body.clone(),
    }
}
