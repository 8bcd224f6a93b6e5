//! Many connections doing everything at once; afterwards nothing is left behind.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;

use crate::support::*;

/// A small deterministic generator, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// One connection's life: some bytes there and back, then one of the ways to end.
fn live(address: SocketAddr, dice: &mut Dice) {
    let mut stream = connect(address);
    for _ in 0..dice.roll(4) {
        let size = 1 << dice.roll(19);
        let sent = pattern(size);
        let mut writer = stream.try_clone().unwrap();
        let bytes = sent.clone();
        let writing = thread::spawn(move || writer.write_all(&bytes).unwrap());
        let mut got = vec![0; size];
        stream.read_exact(&mut got).unwrap();
        writing.join().unwrap();
        assert!(got == sent);
    }
    match dice.roll(4) {
        0 => {}
        1 => {
            stream.shutdown(Shutdown::Write).unwrap();
            expect_eof(&mut stream);
        }
        2 => reset(stream),
        _ => {
            // Leaves in the middle of what it is being sent.
            stream.write_all(&pattern(300_000)).unwrap();
            stream.read_exact(&mut [0; 10]).unwrap();
        }
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn nothing_is_left_behind() {
    let mut running = Running::with(tidegate_dataplane::DataplaneConfig {
        workers: 2,
        ..Default::default()
    });
    let mut config = simple_listener();
    config.per_connection_buffer_limit_bytes = 64 * 1024;
    let address = running.serve(config, cluster("c", &[echo_backend(), echo_backend()]));
    let stop = Arc::new(());
    let lives: Vec<_> = (1..=8u64)
        .map(|seed| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                for _ in 0..40 {
                    live(address, &mut dice);
                }
                drop(stop);
            })
        })
        .collect();
    // Meanwhile the configuration changes under them.
    let mut round = 0;
    while Arc::strong_count(&stop) > 1 {
        round += 1;
        running.update(|builder| {
            let mut changed = simple_listener();
            changed.per_connection_buffer_limit_bytes = 64 * 1024 + round;
            builder.set_listener(Arc::new(changed)).unwrap();
        });
        thread::sleep(std::time::Duration::from_millis(20));
    }
    for life in lives {
        life.join().unwrap();
    }
    for gauge in [
        "cluster.c.upstream_cx_active",
        "cluster.c.upstream_rq_active",
        "cluster.c.upstream_rq_pending_active",
        "listener.l.downstream_cx_active",
        "cluster.c.circuit_breakers.default.cx_open",
    ] {
        running.wait_stat(gauge, 0);
    }
    assert_eq!(running.stat("tcp.test.downstream_cx_total"), 320);
    assert_eq!(
        running.stat("cluster.c.upstream_cx_destroy"),
        running.stat("cluster.c.upstream_cx_total")
    );
    // Every connection has its line, once the workers' buffers are flushed.
    let lines = || running.log.text().lines().count();
    wait_for(|| lines() == 320, || format!("{} lines", lines()));
    let panics = &running.handle.shared().panics_total;
    assert_eq!(panics.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn a_connection_costs_no_descriptor_once_it_is_over() {
    // Other tests of this process open descriptors too, hence a process of its own would be stricter; a leak of one per
    // connection shows all the same.
    let mut running = Running::start();
    let address = running.serve(simple_listener(), cluster("c", &[echo_backend()]));
    let before = descriptors();
    for _ in 0..1000 {
        let mut stream = TcpStream::connect(address).unwrap();
        ping(&mut stream, b"x");
    }
    running.wait_stat("cluster.c.upstream_cx_active", 0);
    assert!(descriptors() < before + 500);
}
