//! Bodies echoed between a client and a server of ours, with windows, frame sizes, reads, writes and releases of any size:
//! nothing is lost, nothing is sent beyond a window, nobody waits for ever.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

/// A stream's body on its way.
#[derive(Default)]
struct Body {
    stream: Option<StreamRef>,
    to_send: VecDeque<u8>,
    /// No more will be added.
    complete: bool,
    ended: bool,
    got: Vec<u8>,
    got_end: bool,
    /// Received but not yet released.
    held: usize,
    /// Until [`Event::Writable`].
    waiting: bool,
}

impl Body {
    /// Sends what goes; whether the rest has to wait.
    fn send(&mut self, conn: &mut Connection, limit: usize) {
        let Some(stream) = self.stream else { return };
        if self.ended || self.waiting {
            return;
        }
        let bytes: Vec<u8> = self.to_send.iter().copied().take(limit).collect();
        let all = bytes.len() == self.to_send.len();
        let end = self.complete && all;
        let count = conn.send_data(stream, &bytes, end).unwrap();
        self.to_send.drain(..count);
        self.waiting = count < bytes.len();
        self.ended = end && count == bytes.len();
    }
}

struct End {
    side: Side,
    bodies: BTreeMap<u32, Body>,
    wire: VecDeque<u8>,
}

impl End {
    /// Moves up to `count` bytes of output to the wire.
    fn write(&mut self, count: usize) -> bool {
        let bytes = self.side.conn.output();
        let count = count.min(bytes.len());
        self.wire.extend(&bytes[..count]);
        self.side.conn.written(count);
        count > 0
    }

    fn read(&mut self, bytes: &[u8], echo: bool, limit: usize) -> bool {
        let mut input = Input::new(bytes);
        let mut busy = false;
        while let Some(event) = self
            .side
            .conn
            .next(&mut input, &mut self.side.scratch, 0)
            .unwrap()
        {
            busy = true;
            match event {
                Event::Request { stream, end } => {
                    let body = Body {
                        stream: Some(stream),
                        complete: end,
                        got_end: end,
                        ..Body::default()
                    };
                    self.bodies.insert(stream.id(), body);
                    let sent = self.side.conn.send_response(stream, 200, [], false);
                    assert_eq!(sent, Ok(()));
                }
                Event::Data {
                    stream, bytes, end, ..
                } => {
                    let body = self.bodies.get_mut(&stream.id()).unwrap();
                    body.got.extend(bytes);
                    body.held += bytes.len();
                    body.got_end = end;
                    if echo {
                        body.to_send.extend(bytes);
                        body.complete = end;
                    }
                }
                Event::Writable { stream, .. } => {
                    let body = self.bodies.get_mut(&stream.id()).unwrap();
                    assert!(std::mem::take(&mut body.waiting));
                    body.send(&mut self.side.conn, limit);
                }
                Event::Response { .. } | Event::Settings => {}
                other => panic!("{other:?}"),
            }
        }
        busy
    }

    fn work(&mut self, limit: usize, release: usize) -> bool {
        let mut busy = false;
        for body in self.bodies.values_mut() {
            body.send(&mut self.side.conn, limit);
            let count = body.held.min(release);
            if count > 0 {
                body.held -= count;
                self.side.conn.release(body.stream.unwrap(), count);
                busy = true;
            }
        }
        busy
    }

    fn done(&self, count: usize) -> bool {
        self.bodies.len() == count && self.bodies.values().all(|b| b.got_end && b.ended)
    }
}

fn options() -> impl Strategy<Value = Options> {
    (
        prop_oneof![Just(1u32), 2..100u32, 1_000..70_000u32, Just(1 << 24)],
        prop_oneof![Just(65_535u32), 65_535..200_000u32, Just(24 << 20)],
        prop_oneof![100..300u32, 10_000..20_000u32, Just(256 * 1024)],
    )
        .prop_map(|(stream, connection, pending)| Options {
            initial_stream_window_size: stream,
            initial_connection_window_size: connection,
            max_pending_output: pending,
            // Tiny windows need many updates.
            max_inbound_window_update_frames_per_data_frame_sent: 1_000_000,
            max_outbound_frames: 10_000_000,
            ..Options::default()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn echo(
        at_client in options(),
        at_server in options(),
        sizes in prop::collection::vec(prop_oneof![0..50usize, 0..3_000usize, 20_000..90_000usize], 1..6),
        io in prop::collection::vec(prop_oneof![1..40usize, 1_000..40_000usize], 1..8),
        releases in prop::collection::vec(1..50_000usize, 1..5),
    ) {
        // With windows of a few bytes only small bodies come to an end soon.
        let tiny = at_client.initial_stream_window_size < 1_000
            || at_server.initial_stream_window_size < 1_000
            || io.iter().all(|count| *count < 1_000);
        let sizes: Vec<usize> = sizes.iter().map(|n| if tiny { n % 500 } else { *n }).collect();
        let new = |role, options| End {
            side: Side::new(role, options),
            bodies: BTreeMap::new(),
            wire: VecDeque::new(),
        };
        let (mut client, mut server) = (new(Role::Client, at_client), new(Role::Server, at_server));
        for (number, size) in sizes.iter().enumerate() {
            let line = super::exchange::GET;
            let stream = client.side.conn.start_request(0, &line, [], false, 0).unwrap();
            let to_send = (0..*size).map(|n| (n * 7 + number) as u8).collect();
            let body = Body { stream: Some(stream), to_send, complete: true, ..Body::default() };
            client.bodies.insert(stream.id(), body);
        }
        let (mut io, mut releases) = (io.iter().cycle(), releases.iter().cycle());
        let mut quiet = 0;
        while !(client.done(sizes.len()) && server.done(sizes.len())) {
            let mut busy = false;
            let count = *io.next().unwrap();
            busy |= client.work(count, *releases.next().unwrap());
            busy |= server.work(count, *releases.next().unwrap());
            busy |= client.write(count);
            busy |= server.write(*io.next().unwrap());
            let count = (*io.next().unwrap()).min(client.wire.len());
            let bytes: Vec<u8> = client.wire.drain(..count).collect();
            busy |= count > 0;
            busy |= server.read(&bytes, true, count + 1);
            let count = (*io.next().unwrap()).min(server.wire.len());
            let bytes: Vec<u8> = server.wire.drain(..count).collect();
            busy |= count > 0;
            busy |= client.read(&bytes, false, count + 1);
            quiet = if busy { 0 } else { quiet + 1 };
            prop_assert!(quiet < 3, "everybody waits");
        }
        for (id, body) in &client.bodies {
            let number = (*id as usize - 1) / 2;
            let wanted: Vec<u8> = (0..sizes[number]).map(|n| (n * 7 + number) as u8).collect();
            prop_assert_eq!(&body.got, &wanted);
            prop_assert_eq!(&server.bodies[id].got, &wanted);
        }
        prop_assert_eq!(client.side.conn.active_streams() + server.side.conn.active_streams(), 0);
    }
}
