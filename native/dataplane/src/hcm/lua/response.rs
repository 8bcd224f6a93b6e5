//! Scripts on the response's side: heads that go on, heads that are held, and how they are released.

use tidegate_codec::h1::ResponseFraming;
use tidegate_lua::{Event, Side, Step, Wait};
use tidegate_stats::defs::http as http_stat;

use super::{Advance, Held, NOT_PLAIN, Running, UPGRADED, Waits, answered, waited_call};
use crate::conn::Conn;
use crate::hcm::async_client::{self, Answer, Owner};
use crate::hcm::local_reply::Reply;
use crate::hcm::stream::Stream;
use crate::hcm::{NUDGE_READ, ServerConnection, StreamKey, put_back};
use crate::worker::Worker;

impl ServerConnection {
    /// The filter's response side: whether the head goes on, and then whether it is all (`ends`).
    pub(in crate::hcm) fn lua_response_head(
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
                    let request = match waited_call(&call, worker, running.run.side()) {
                        Ok(request) => request,
                        Err(answer) => {
                            event = answer;
                            continue;
                        }
                    };
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
    pub(in crate::hcm) fn lua_hold_head(
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
    pub(in crate::hcm) fn lua_has_added(stream: &Stream) -> bool {
        stream
            .lua
            .as_ref()
            .and_then(|lua| lua.added.as_ref())
            .is_some_and(|added| !added.is_empty())
    }

    /// A piece of a response whose head waits. `last`: all has come, but for trailers.
    pub(in crate::hcm) fn lua_hold(
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
    pub(in crate::hcm) fn write_past_lua(
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
    pub(in crate::hcm) fn lua_trailers(&mut self, stream: &mut Stream, worker: &mut Worker) {
        if stream
            .lua
            .as_ref()
            .is_some_and(|lua| lua.reads(Side::Response))
        {
            self.lua_data(stream, worker, Side::Response, &[], true, true);
        }
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
