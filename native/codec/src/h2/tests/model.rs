//! The stream machine against a plain model, written from the tables of RFC 9113 section 5.1 and not from the code.

use std::collections::HashMap;

use proptest::prelude::*;

use super::protocol::{lenient, server_with};
use super::wire::*;
use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Model {
    Open,
    HalfClosedRemote,
    HalfClosedLocal,
    /// Nothing that comes is a surprise: we have cut it off.
    CutOff,
    /// Nothing may come.
    Closed,
}

use Model::{Closed, CutOff, HalfClosedLocal, HalfClosedRemote, Open};

#[derive(Debug, Clone, Copy)]
enum Op {
    Headers(u32, bool),
    Data(u32, bool),
    Rst(u32),
    WindowUpdate(u32),
    Priority(u32),
    Respond(u32, bool),
    Send(u32, bool),
    Trailers(u32),
    Reset(u32),
}

fn op() -> impl Strategy<Value = Op> {
    let id = (0..5u32).prop_map(|n| 1 + 2 * n);
    (0..9u8, id, any::<bool>()).prop_map(|(kind, id, end)| match kind {
        0 => Op::Headers(id, end),
        1 => Op::Data(id, end),
        2 => Op::Rst(id),
        3 => Op::WindowUpdate(id),
        4 => Op::Priority(id),
        5 => Op::Respond(id, end),
        6 => Op::Send(id, end),
        7 => Op::Trailers(id),
        _ => Op::Reset(id),
    })
}

#[derive(Default)]
struct World {
    states: HashMap<u32, Model>,
    answered: HashMap<u32, bool>,
    highest: u32,
}

/// What a frame should bring about.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Nothing,
    /// Something to tell the caller.
    Told(&'static str),
    /// RST_STREAM, and the caller is told if it knew the stream.
    StreamError(ErrorCode, bool),
    ConnectionError(ErrorCode),
}

use Outcome::{Nothing, Told};

impl World {
    /// `None`: idle.
    fn state(&self, id: u32) -> Option<Model> {
        match self.states.get(&id) {
            None if id <= self.highest => Some(Closed),
            state => state.copied(),
        }
    }

    fn peer_ends(&mut self, id: u32, was: Model) {
        let next = if was == Open {
            HalfClosedRemote
        } else {
            Closed
        };
        self.states.insert(id, next);
    }

    fn we_end(&mut self, id: u32, was: Model) {
        let next = if was == Open { HalfClosedLocal } else { Closed };
        self.states.insert(id, next);
    }

    fn receive(&mut self, op: Op) -> Outcome {
        let protocol = Outcome::ConnectionError(ErrorCode::PROTOCOL_ERROR);
        let late = ErrorCode::STREAM_CLOSED;
        match op {
            Op::Headers(id, end) => match self.state(id) {
                None => {
                    self.highest = id;
                    let state = if end { HalfClosedRemote } else { Open };
                    self.states.insert(id, state);
                    Told("request")
                }
                Some(was @ (Open | HalfClosedLocal)) if end => {
                    self.peer_ends(id, was);
                    Told("trailers")
                }
                Some(Open | HalfClosedLocal) => {
                    self.states.insert(id, CutOff);
                    Outcome::StreamError(ErrorCode::PROTOCOL_ERROR, true)
                }
                Some(HalfClosedRemote) => {
                    self.states.insert(id, Closed);
                    Outcome::StreamError(late, true)
                }
                Some(CutOff) => Nothing,
                Some(Closed) => Outcome::ConnectionError(late),
            },
            Op::Data(id, end) => match self.state(id) {
                None => protocol,
                Some(was @ (Open | HalfClosedLocal)) => {
                    if end {
                        self.peer_ends(id, was);
                    }
                    Told("data")
                }
                Some(HalfClosedRemote) => {
                    self.states.insert(id, Closed);
                    Outcome::StreamError(late, true)
                }
                Some(CutOff) => Nothing,
                Some(Closed) => {
                    self.states.insert(id, CutOff);
                    Outcome::StreamError(late, false)
                }
            },
            Op::Rst(id) => match self.state(id) {
                None => protocol,
                Some(Open | HalfClosedLocal | HalfClosedRemote) => {
                    self.states.insert(id, Closed);
                    Told("reset")
                }
                Some(_) => Nothing,
            },
            Op::WindowUpdate(id) if self.state(id).is_none() => protocol,
            _ => Nothing,
        }
    }

    /// Whether the caller may do it.
    fn send(&mut self, op: Op) -> Result<(), SendError> {
        let (Op::Respond(id, _) | Op::Send(id, _) | Op::Trailers(id) | Op::Reset(id)) = op else {
            return Ok(());
        };
        let was = match self.state(id) {
            Some(was @ (Open | HalfClosedRemote)) => was,
            Some(HalfClosedLocal) if matches!(op, Op::Reset(_)) => HalfClosedLocal,
            _ => return Err(SendError::Closed),
        };
        let answered = self.answered.get(&id).copied().unwrap_or(false);
        match op {
            Op::Reset(_) => {
                let next = if was == HalfClosedRemote {
                    Closed
                } else {
                    CutOff
                };
                self.states.insert(id, next);
            }
            Op::Respond(_, end) if !answered => {
                self.answered.insert(id, true);
                if end {
                    self.we_end(id, was);
                }
            }
            Op::Send(_, end) if answered => {
                if end {
                    self.we_end(id, was);
                }
            }
            Op::Trailers(_) if answered => self.we_end(id, was),
            _ => return Err(SendError::OutOfOrder),
        }
        Ok(())
    }
}

fn bytes(op: Op, fresh: bool) -> Vec<u8> {
    let flags = |end| u8::from(end);
    match op {
        Op::Headers(id, end) if fresh => headers(id, flags(end), POST),
        Op::Headers(id, end) => headers(id, flags(end), &[("t", "1")]),
        Op::Data(id, end) => data(id, flags(end), b"x"),
        Op::Rst(id) => rst_stream(id, 8),
        Op::WindowUpdate(id) => window_update(id, 1),
        Op::Priority(id) => frame(2, 0, id, &[0, 0, 0, 0, 1]),
        _ => Vec::new(),
    }
}

fn told(seen: &[Seen]) -> &'static str {
    match seen {
        [Seen::Request(..)] => "request",
        [Seen::Data(..)] => "data",
        [Seen::Trailers(..)] => "trailers",
        [Seen::Reset(_, _, ResetBy::Peer)] => "reset",
        _ => "something else",
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn the_stream_machine(ops in prop::collection::vec(op(), 1..60)) {
        let mut side = server_with(Options {
            max_inbound_window_update_frames_per_data_frame_sent: 1_000,
            max_inbound_priority_frames_per_stream: 1_000,
            ..lenient()
        });
        // Enough for those window updates.
        let mut refs: HashMap<u32, StreamRef> = HashMap::new();
        let mut world = World::default();
        let mut updates = 0;
        for op in ops {
            if let Op::WindowUpdate(_) = op {
                updates += 1;
                if updates > 5 {
                    continue;
                }
            }
            let fresh = matches!(op, Op::Headers(id, _) if world.state(id).is_none());
            let incoming = bytes(op, fresh);
            if incoming.is_empty() {
                let wanted = world.send(op);
                let stream = |id: u32| refs.get(&id).copied().unwrap_or(StreamRef { id, slot: 99 });
                let got = match op {
                    Op::Respond(id, end) => side.conn.send_response(stream(id), 200, [], end),
                    Op::Send(id, end) => side.conn.send_data(stream(id), b"y", end).map(|count| {
                        assert_eq!(count, 1);
                    }),
                    Op::Trailers(id) => side.conn.send_trailers(stream(id), []),
                    Op::Reset(id) => {
                        let live = side.conn.is_live(stream(id));
                        side.conn.reset(stream(id), ErrorCode::CANCEL);
                        if live { Ok(()) } else { Err(SendError::Closed) }
                    }
                    _ => Ok(()),
                };
                prop_assert_eq!(got, wanted, "{:?}", op);
                side.take();
            } else {
                let wanted = world.receive(op);
                let (seen, error) = side.feed(&incoming);
                if let [Seen::Request(id, ..)] = seen[..] {
                    refs.insert(id, side.last.unwrap());
                }
                let out = endings(&side.take());
                let got = match (error, &out[..]) {
                    (Some(error), [(7, ..)]) => Outcome::ConnectionError(error.code()),
                    (None, [(3, _, code)]) => {
                        Outcome::StreamError(ErrorCode(*code), !seen.is_empty())
                    }
                    (None, []) if seen.is_empty() => Nothing,
                    (None, []) => Told(told(&seen)),
                    other => panic!("{other:?}"),
                };
                prop_assert_eq!(&got, &wanted, "{:?}", op);
                if error.is_some() {
                    return Ok(());
                }
            }
            let live = world
                .states
                .values()
                .filter(|state| matches!(state, Open | HalfClosedLocal | HalfClosedRemote))
                .count();
            prop_assert_eq!(side.conn.active_streams() as usize, live);
        }
    }
}
