//! The Lua filter: a script's functions run as coroutines beside the stream.
//!
//! ```text
//! request   lua_request ─▶ Wait (a call), WaitForBody ─▶ lua_resumed ─▶ … ─▶ the next filter
//!                      └─▶ head goes on, script reads on ─▶ lua_data, piece by piece
//! response  run_encoders ─▶ lua_response_head ─▶ Held: head and body wait ─▶ lua_hold …, lua_answered ─▶ lua_release
//!                                            └─▶ head goes on, script reads on ─▶ lua_data
//! ```
//!
//! `host` is what scripts see of the stream. A script that fails is logged and counted, and its stream goes on, as in Envoy.

mod host;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tidegate_codec::h1::ResponseFraming;
use tidegate_lua::{Event, HttpCall, Level, Respond, Run, Script, Side, Step, Wait};
use tidegate_snapshot::lua::{CompiledLua, CompiledScript};
use tidegate_snapshot::per_filter::CompiledPolicy;
use tidegate_stats::defs::http as http_stat;
use tidegate_stats::defs::lua as stat;
use tidegate_stats::{Group, Registry};

use self::host::LuaHost;
use super::async_client::{self, Answer, CallFailure, CallRequest, Owner};
use super::filters::Verdict;
use super::local_reply::Reply;
use super::paused::{BodyDemand, Resume};
use super::runtime::{FilterRuntime, HcmRuntime};
use super::stream::{Protocol, Stream, StreamRoute};
use super::{NUDGE_READ, ServerConnection, StreamKey, put_back};
use crate::conn::{Conn, Key};
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
        let lua = compiled(&self.hcm, index)?;
        let name = &self.hcm.config.http_filters.get(index)?.name;
        let levels = stream.route.as_ref().map(StreamRoute::per_filter);
        let of_route = match levels.and_then(|levels| levels.policy(name)) {
            Some(CompiledPolicy::Lua(policy)) => Some(policy),
            _ => None,
        };
        let script = lua.script(of_route)?;
        let log = Arc::clone(&core.shared.log_sink);
        let script = core.http.lua.get(script, &log)?;
        let run = script.begin(side, ends)?;
        if let Some(FilterRuntime::Lua(stats)) = self.hcm.filter_runtimes.get(index) {
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
            let clears =
                compiled(&self.hcm, running.index).is_some_and(|lua| lua.clear_route_cache);
            let wanted = running.run.wants_new_route();
            if wanted || (clears && std::mem::take(&mut host.touched)) {
                self.clear_route(stream, core);
            }
        }
        if let Step::Failed(why) = &step {
            let text = format!("script log: {why}");
            core.shared.log_sink.script_log(Level::Error, &text);
            if let Some(FilterRuntime::Lua(stats)) = self.hcm.filter_runtimes.get(running.index) {
                stats.inc(stat::ERRORS);
            }
        }
        running.host = Some(host);
        step
    }

    /// The filter's request side.
    pub(super) fn lua_request(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        index: usize,
    ) -> Verdict {
        let ends = stream.request.complete && stream.request.pending.is_empty();
        let core = &mut worker.core;
        match self.lua_run(stream, core, index, Side::Request, ends) {
            Some(running) => self.advance_request(stream, worker, running, Event::Start),
            None => Verdict::Continue,
        }
    }

    /// What the filter has waited for has come.
    pub(super) fn lua_resumed(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        index: usize,
        what: Resume,
    ) -> Verdict {
        let Some(lua) = &mut stream.lua else {
            return Verdict::Continue;
        };
        let is_meant = |run: &Running| run.index == index && run.run.side() == Side::Request;
        let Some(at) = lua.runs.iter().position(is_meant) else {
            return Verdict::Continue;
        };
        let running = lua.runs.remove(at);
        let event = match what {
            Resume::Body => {
                running.run.end(!stream.request.trailers.is_empty());
                Event::Body(Some(stream.held_body(usize::MAX)))
            }
            Resume::Answer(answer) => answered(&answer),
            Resume::Timer => {
                lua.runs.push(running);
                return Verdict::Wait;
            }
        };
        self.advance_request(stream, worker, running, event)
    }

    fn advance_request(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        mut running: Running,
        mut event: Event,
    ) -> Verdict {
        loop {
            let step = self.resume_lua(stream, &worker.core, &mut running, event);
            if let Some(body) = running.run.changed_body() {
                let request = &mut stream.request;
                request.filtered = true;
                request.pending.clear(&mut worker.core.segments);
                request.pending.push(&mut worker.core.segments, &body);
            }
            let (waits, verdict) = match step {
                Step::Done | Step::Failed(_) => return Verdict::Continue,
                Step::Waits(Wait::Body | Wait::Chunk | Wait::Trailers) if stream.grpc.is_web() => {
                    event = Event::Refused(NOT_PLAIN);
                    continue;
                }
                Step::Waits(Wait::Body) if stream.request.upgrade => {
                    event = Event::Refused(UPGRADED);
                    continue;
                }
                Step::Waits(Wait::Body) => {
                    let limit = match self.downstream.listener.buffer_limit() as usize {
                        0 => UNLIMITED,
                        limit => limit,
                    };
                    let partial = false;
                    let demand = BodyDemand { limit, partial };
                    (Waits::Body, Verdict::WaitForBody(demand))
                }
                Step::Waits(Wait::Chunk) => (Waits::Chunk, Verdict::Continue),
                Step::Waits(Wait::Trailers) => (Waits::Trailers, Verdict::Continue),
                Step::Waits(Wait::Call(call)) => {
                    let Some(request) = call_request(&call, &worker.core, running.run.side())
                    else {
                        event = Event::Refused(NO_CLUSTER);
                        continue;
                    };
                    if call.asynchronous {
                        async_client::start(worker, request, None);
                        event = Event::Sent;
                        continue;
                    }
                    Self::call(stream, worker, request);
                    (Waits::Call, Verdict::Wait)
                }
                Step::Waits(Wait::Respond(respond)) => {
                    self.lua_respond(stream, worker, respond);
                    return Verdict::Answered;
                }
            };
            if verdict == Verdict::Continue {
                running.run.head_is_gone();
            } else {
                self.choose_cluster(stream, &mut worker.core);
            }
            running.waits = waits;
            stream.lua.get_or_insert_default().runs.push(running);
            return verdict;
        }
    }

    /// The script answers the request.
    fn lua_respond(&mut self, stream: &mut Stream, worker: &mut Worker, respond: Respond) {
        let body = respond.body.unwrap_or_default();
        let reply = Reply {
            headers: respond.headers,
            headers_first: true,
            ..Reply::new(respond.status, &body, "lua_response")
        };
        self.reply_by_filter(stream, worker, reply);
    }

    /// A piece of a body past the scripts that read it. `None`: as it is. `trailers`: they are the end, behind the piece.
    pub(super) fn lua_data(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        side: Side,
        data: &[u8],
        last: bool,
        trailers: bool,
    ) -> Option<Vec<u8>> {
        let mut changed: Option<Vec<u8>> = None;
        // In HTTP/1 the end is a piece of its own, as Envoy's codec tells it.
        let apart = match side {
            Side::Request => stream.request.protocol != Protocol::Http2,
            Side::Response => !stream.upstream_http2 && stream.times.upstream_rx_begin.is_some(),
        };
        let mut reading = take_readers(stream, side);
        for running in &mut reading {
            let piece = changed.as_deref().unwrap_or(data).to_vec();
            let ends = last && !trailers;
            let mut pieces = Vec::with_capacity(2);
            match (piece.is_empty(), ends) {
                (false, true) if apart => pieces.extend([(piece, false), (Vec::new(), true)]),
                (true, false) => {}
                _ => pieces.push((piece, ends)),
            }
            let mut alive = true;
            let mut out: Option<Vec<u8>> = None;
            for (piece, ends) in pieces {
                if ends {
                    running.run.end(false);
                }
                if alive && running.waits == Waits::Chunk {
                    let event = Event::Chunk(Some(piece.clone()));
                    alive = self.read_on(stream, worker, running, event);
                }
                let piece = running.run.changed_body().unwrap_or(piece);
                out.get_or_insert_default().extend_from_slice(&piece);
            }
            changed = out.or(changed);
            if alive && last {
                running.run.end(trailers);
                if trailers && running.waits == Waits::Chunk {
                    alive = self.read_on(stream, worker, running, Event::Chunk(None));
                }
                if alive && running.waits == Waits::Trailers {
                    alive = self.read_on(stream, worker, running, Event::Trailers);
                }
            }
            if !alive || last {
                running.host = None;
            }
        }
        if let Some(lua) = &mut stream.lua {
            reading.retain(|running| running.host.is_some());
            lua.runs.append(&mut reading);
        }
        changed
    }

    /// Whether the script reads on.
    fn read_on(
        &self,
        stream: &mut Stream,
        worker: &mut Worker,
        running: &mut Running,
        mut event: Event,
    ) -> bool {
        loop {
            match self.resume_lua(stream, &worker.core, running, event) {
                Step::Waits(Wait::Chunk) => running.waits = Waits::Chunk,
                Step::Waits(Wait::Trailers) => running.waits = Waits::Trailers,
                Step::Waits(Wait::Call(call)) if call.asynchronous => {
                    match call_request(&call, &worker.core, running.run.side()) {
                        Some(request) => {
                            async_client::start(worker, request, None);
                            event = Event::Sent;
                        }
                        None => event = Event::Refused(NO_CLUSTER),
                    }
                    continue;
                }
                // The API has refused everything else by now.
                Step::Done | Step::Failed(_) | Step::Waits(_) => return false,
            }
            return true;
        }
    }

    /// The filter's response side: whether the head goes on, and then whether it is all (`ends`).
    pub(super) fn lua_response_head(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        index: usize,
        ends: bool,
    ) -> bool {
        let bit = 1 << (index & 63);
        if stream
            .lua
            .as_ref()
            .is_some_and(|lua| lua.responded & bit != 0)
        {
            return true;
        }
        let core = &mut worker.core;
        let Some(running) = self.lua_run(stream, core, index, Side::Response, ends) else {
            return true;
        };
        stream.lua.get_or_insert_default().responded |= bit;
        self.advance_response(stream, worker, running, Event::Start) == Advance::GoesOn
    }

    fn advance_response(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        mut running: Running,
        mut event: Event,
    ) -> Advance {
        loop {
            let step = self.resume_lua(stream, &worker.core, &mut running, event);
            let body = running.run.changed_body();
            let lua = stream.lua.get_or_insert_default();
            match (body, &mut lua.held) {
                (Some(body), Some(held)) => {
                    stream.response.bytes = (stream.response.bytes + body.len() as u64)
                        .saturating_sub(held.body.len() as u64);
                    held.body = body;
                }
                (Some(body), None) => {
                    lua.filters_response = true;
                    lua.added = Some(body);
                }
                (None, _) => {}
            }
            let (waits, advance) = match step {
                Step::Done | Step::Failed(_) => return Advance::GoesOn,
                Step::Waits(Wait::Body | Wait::Chunk | Wait::Trailers)
                    if stream.grpc.is_web() || stream.compression.is_active() =>
                {
                    event = Event::Refused(NOT_PLAIN);
                    continue;
                }
                Step::Waits(Wait::Body | Wait::Call(_)) if stream.response.tunnel => {
                    event = Event::Refused(UPGRADED);
                    continue;
                }
                Step::Waits(Wait::Body) => match &lua.held {
                    Some(held) if held.last => {
                        running.run.end(held.trailers);
                        event = Event::Body(Some(held.body.clone()));
                        continue;
                    }
                    _ => (Waits::Body, Advance::Holds),
                },
                Step::Waits(Wait::Chunk) => (Waits::Chunk, Advance::GoesOn),
                Step::Waits(Wait::Trailers) => (Waits::Trailers, Advance::GoesOn),
                Step::Waits(Wait::Call(call)) => {
                    let Some(request) = call_request(&call, &worker.core, running.run.side())
                    else {
                        event = Event::Refused(NO_CLUSTER);
                        continue;
                    };
                    if call.asynchronous {
                        async_client::start(worker, request, None);
                        event = Event::Sent;
                        continue;
                    }
                    let key = stream.key;
                    let owner: Owner =
                        Box::new(move |worker, answer| lua_answered(worker, key, &answer));
                    let call = async_client::start(worker, request, Some(owner));
                    let lua = stream.lua.get_or_insert_default();
                    lua.call = Some(call);
                    (Waits::Call, Advance::Holds)
                }
                // The API has refused it.
                Step::Waits(Wait::Respond(_)) => return Advance::GoesOn,
            };
            if advance == Advance::GoesOn {
                running.run.head_is_gone();
            }
            running.waits = waits;
            let lua = stream.lua.get_or_insert_default();
            lua.filters_response = true;
            lua.runs.push(running);
            return advance;
        }
    }

    /// The head waits for a script; the encoder to go on with is `next`.
    pub(super) fn lua_hold_head(
        stream: &mut Stream,
        framing: ResponseFraming,
        ends: bool,
        next: usize,
    ) {
        let lua = stream.lua.get_or_insert_default();
        lua.held = Some(Held {
            framing,
            ends,
            next,
            body: lua.added.take().unwrap_or_default(),
            last: false,
            trailers: false,
        });
    }

    /// A body that a script has made up for a response without one.
    pub(super) fn lua_has_added(stream: &Stream) -> bool {
        stream
            .lua
            .as_ref()
            .and_then(|lua| lua.added.as_ref())
            .is_some_and(|added| !added.is_empty())
    }

    /// A piece of a response whose head waits. `last`: all has come, but for trailers.
    pub(super) fn lua_hold(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        data: &[u8],
        last: bool,
    ) {
        let limit = self.downstream.listener.buffer_limit() as usize;
        let trailers = !stream.response.trailers.is_empty();
        let Some(held) = stream.lua.as_mut().and_then(|lua| lua.held.as_mut()) else {
            return;
        };
        held.body.extend_from_slice(data);
        if limit > 0 && held.body.len() > limit {
            self.hcm.stats.inc(http_stat::RS_TOO_LARGE);
            let details = "response_payload_too_large";
            let reply = Reply::new(500, b"Internal Server Error", details);
            return self.reply(stream, worker, reply);
        }
        if !last {
            return;
        }
        held.last = true;
        held.trailers = trailers;
        self.lua_body_is_whole(stream, worker);
    }

    fn lua_body_is_whole(&mut self, stream: &mut Stream, worker: &mut Worker) {
        let Some(lua) = &mut stream.lua else { return };
        let wants = |run: &Running| run.run.side() == Side::Response && run.waits == Waits::Body;
        let (Some(at), Some(held)) = (lua.runs.iter().position(wants), &lua.held) else {
            return;
        };
        let running = lua.runs.remove(at);
        running.run.end(held.trailers);
        let event = Event::Body(Some(held.body.clone()));
        if self.advance_response(stream, worker, running, event) == Advance::GoesOn {
            self.lua_release(stream, worker);
        }
    }

    /// The script no longer needs the head: the response goes on.
    fn lua_release(&mut self, stream: &mut Stream, worker: &mut Worker) {
        let Some(held) = stream.lua.as_mut().and_then(|lua| lua.held.take()) else {
            return;
        };
        let ends = held.ends && held.body.is_empty() && !held.trailers;
        if let Some(next) = self.run_encoders(stream, worker, held.next, ends) {
            let last = held.last;
            if let Some(lua) = &mut stream.lua {
                lua.held = Some(Held { next, ..held });
            }
            if last {
                self.lua_body_is_whole(stream, worker);
            }
            return;
        }
        let added = stream.lua.as_mut().and_then(|lua| lua.added.take());
        let mut body = held.body;
        body.extend(added.unwrap_or_default());
        let ends = ends && body.is_empty();
        self.finish_encoding(stream, worker, held.framing, ends);
        let last = held.last && !held.trailers;
        self.write_past_lua(stream, worker, &body, true, last);
        if held.trailers {
            self.write_trailers_past_lua(stream, worker);
        }
        if stream.response.ended && stream.response.pending.is_empty() {
            stream.response.complete = true;
            stream.times.downstream_tx_end = Some(worker.core.now());
        }
    }

    /// A piece of the response past the scripts that read it, then the compressor.
    pub(super) fn write_past_lua(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        data: &[u8],
        with_head: bool,
        last: bool,
    ) {
        let mut changed = None;
        if let Some(lua) = &mut stream.lua {
            let added = lua.added.take();
            if lua.reads(Side::Response) {
                changed = self.lua_data(stream, worker, Side::Response, data, last, false);
            } else {
                changed = added;
            }
        }
        if let Some(changed) = &changed {
            stream.response.bytes =
                (stream.response.bytes + changed.len() as u64).saturating_sub(data.len() as u64);
        }
        let data = changed.as_deref().unwrap_or(data);
        self.write_encoded(stream, worker, data, with_head, last);
    }

    /// The trailers of a response that no script holds.
    pub(super) fn lua_trailers(&mut self, stream: &mut Stream, worker: &mut Worker) {
        if stream
            .lua
            .as_ref()
            .is_some_and(|lua| lua.reads(Side::Response))
        {
            self.lua_data(stream, worker, Side::Response, &[], true, true);
        }
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

fn take_readers(stream: &mut Stream, side: Side) -> Vec<Running> {
    let Some(lua) = &mut stream.lua else {
        return Vec::new();
    };
    let reads = |run: &mut Running| {
        run.run.side() == side && matches!(run.waits, Waits::Chunk | Waits::Trailers)
    };
    lua.runs.extract_if(.., reads).collect()
}

/// `None`: there is no such cluster.
fn call_request<'a>(call: &'a HttpCall, core: &Core, side: Side) -> Option<CallRequest<'a>> {
    core.snapshot.cluster_by_name(&call.cluster)?;
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
    Some(request)
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

/// The answer to a call for which a response waits. Called with nothing in anybody's hands.
fn lua_answered(worker: &mut Worker, key: StreamKey, answer: &Answer) {
    let mut connection = match worker.conns.take(key.connection) {
        Some(Conn::Http(connection)) => connection,
        Some(other) => return worker.conns.put(key.connection, other),
        None => return,
    };
    if let Some(mut stream) = connection.streams.take_key(key) {
        connection.on_lua_answer(&mut stream, worker, answer);
        connection.settle(stream, worker);
        worker.core.nudge(key.connection, NUDGE_READ);
    }
    put_back(worker, connection);
}

impl ServerConnection {
    fn on_lua_answer(&mut self, stream: &mut Stream, worker: &mut Worker, answer: &Answer) {
        let Some(lua) = &mut stream.lua else { return };
        lua.call = None;
        let waits = |run: &Running| run.run.side() == Side::Response && run.waits == Waits::Call;
        let Some(at) = lua.runs.iter().position(waits) else {
            return;
        };
        let running = lua.runs.remove(at);
        let event = answered(answer);
        if self.advance_response(stream, worker, running, event) == Advance::GoesOn {
            self.lua_release(stream, worker);
        }
    }
}
