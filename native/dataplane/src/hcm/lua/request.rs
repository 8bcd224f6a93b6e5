//! Scripts on the request's side, and those on either side that read a body as it passes.

use tidegate_lua::{Event, Respond, Side, Step, Wait};

use super::{NOT_PLAIN, Running, UNLIMITED, UPGRADED, Waits, answered, waited_call};
use crate::hcm::ServerConnection;
use crate::hcm::filters::Verdict;
use crate::hcm::local_reply::Reply;
use crate::hcm::paused::{BodyDemand, Resume};
use crate::hcm::stream::{Protocol, Stream};
use crate::worker::Worker;

impl ServerConnection {
    /// The filter's request side.
    pub(in crate::hcm) fn lua_request(
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
    pub(in crate::hcm) fn lua_resumed(
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
                    let request = match waited_call(&call, worker, running.run.side()) {
                        Ok(request) => request,
                        Err(answer) => {
                            event = answer;
                            continue;
                        }
                    };
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
    pub(in crate::hcm) fn lua_data(
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
                    let Err(answer) = waited_call(&call, worker, running.run.side()) else {
                        return false;
                    };
                    event = answer;
                    continue;
                }
                // The API has refused everything else by now.
                Step::Done | Step::Failed(_) | Step::Waits(_) => return false,
            }
            return true;
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
