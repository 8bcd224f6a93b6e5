//! Bytes, ends and resets, carried through exactly.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use crate::support::*;

#[test]
fn bytes_go_both_ways_and_are_counted() {
    let mut running = Running::start();
    let echo = echo_backend();
    let address = running.serve(simple_listener(), cluster("c", &[echo]));
    let mut client = connect(address);
    for _ in 0..100 {
        ping(&mut client, &[7; 64]);
    }
    assert_eq!(running.stat("tcp.test.downstream_cx_total"), 1);
    running.wait_stat("tcp.test.downstream_cx_tx_bytes_total", 6400);
    assert_eq!(running.stat("tcp.test.downstream_cx_rx_bytes_total"), 6400);
    assert_eq!(running.stat("cluster.c.upstream_cx_rx_bytes_total"), 6400);
    assert_eq!(running.stat("cluster.c.upstream_cx_active"), 1);
    assert_eq!(running.stat("cluster.c.upstream_rq_active"), 1);
    assert_eq!(running.stat("listener.l.downstream_cx_active"), 1);
    assert_eq!(running.stat("listener.l.worker_0.downstream_cx_active"), 1);
    client.shutdown(Shutdown::Write).unwrap();
    expect_eof(&mut client);
    running.wait_log(&format!("- 6400 6400 {echo} c\n"));
    running.wait_stat("cluster.c.upstream_cx_active", 0);
    assert_eq!(running.stat("cluster.c.upstream_rq_active"), 0);
    assert_eq!(running.stat("cluster.c.upstream_cx_destroy"), 1);
    assert_eq!(running.stat("cluster.c.upstream_rq_total"), 1);
    assert_eq!(running.stat("listener.l.downstream_cx_active"), 0);
    assert_eq!(running.stat("listener.l.downstream_cx_destroy"), 1);
}

#[test]
fn an_end_is_passed_on_and_the_other_direction_lives() {
    let mut running = Running::start();
    let (server, backend) = backend();
    let address = running.serve(simple_listener(), cluster("c", &[backend]));
    let mut client = connect(address);
    let mut upstream = accept(&server);
    client.write_all(b"request").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    upstream.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"request");
    std::thread::sleep(Duration::from_millis(50));
    let body = pattern(300_000);
    upstream.write_all(&body).unwrap();
    drop(upstream);
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert_eq!(got, body);
    running.wait_log(&format!("- 7 300000 {backend} c\n"));
}

#[test]
fn the_upstream_may_end_first() {
    let mut running = Running::start();
    let (server, backend) = backend();
    let address = running.serve(simple_listener(), cluster("c", &[backend]));
    let mut client = connect(address);
    let mut upstream = accept(&server);
    upstream.write_all(b"hello").unwrap();
    upstream.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"hello");
    client.write_all(b"still here").unwrap();
    drop(client);
    got.clear();
    upstream.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"still here");
}

#[test]
fn an_end_that_comes_with_the_last_bytes_is_not_lost() {
    let mut running = Running::start();
    let address = running.serve(simple_listener(), cluster("c", &[echo_backend()]));
    for round in 0..200 {
        let mut client = connect(address);
        client.write_all(&pattern(round)).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert_eq!(got, pattern(round));
    }
    running.wait_stat("cluster.c.upstream_cx_destroy", 200);
}

#[test]
fn a_reset_is_passed_on_in_both_directions() {
    let mut running = Running::start();
    let (server, backend) = backend();
    let address = running.serve(simple_listener(), cluster("c", &[backend]));

    let joined = || {
        let mut client = connect(address);
        let mut upstream = accept(&server);
        upstream.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        (client, upstream)
    };
    let (client, mut upstream) = joined();
    reset(client);
    expect_reset(&mut upstream);
    running.wait_log(&format!("- 0 1 {backend} c\n"));

    let (mut client, upstream) = joined();
    reset(upstream);
    expect_reset(&mut client);
    running.wait_log(&format!("- 0 1 {backend} c\nUR 0 1 {backend} c\n"));
    running.wait_stat("cluster.c.upstream_cx_active", 0);
    assert_eq!(running.stat("cluster.c.upstream_cx_destroy_remote"), 1);
    assert_eq!(running.stat("cluster.c.upstream_cx_destroy_local"), 1);
}

#[test]
fn bulk_is_spliced_byte_for_byte_both_ways() {
    let mut running = Running::start();
    let address = running.serve(simple_listener(), cluster("c", &[echo_backend()]));
    let sent = Arc::new(pattern(64 << 20));
    let mut client = connect(address);
    let mut writer = client.try_clone().unwrap();
    let bytes = Arc::clone(&sent);
    let writing = std::thread::spawn(move || {
        writer.write_all(&bytes).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::with_capacity(sent.len());
    client.read_to_end(&mut got).unwrap();
    writing.join().unwrap();
    assert!(got == *sent);
    running.wait_stat("tcp.test.downstream_cx_tx_bytes_total", 64 << 20);
    assert_eq!(
        running.stat("cluster.c.upstream_cx_tx_bytes_total"),
        64 << 20
    );
}

#[test]
fn messages_after_bulk_go_on_as_messages() {
    let mut running = Running::start();
    let address = running.serve(simple_listener(), cluster("c", &[echo_backend()]));
    let mut client = connect(address);
    for _ in 0..3 {
        let bytes = pattern(4 << 20);
        let mut writer = client.try_clone().unwrap();
        let sent = bytes.clone();
        let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        let mut got = vec![0; bytes.len()];
        client.read_exact(&mut got).unwrap();
        writing.join().unwrap();
        assert!(got == bytes);
        for _ in 0..50 {
            ping(&mut client, b"small message");
        }
    }
}

#[test]
fn a_reset_is_noticed_from_a_side_that_has_ended() {
    let mut running = Running::start();
    let (server, backend) = backend();
    let address = running.serve(simple_listener(), cluster("c", &[backend]));
    let client = connect(address);
    let mut upstream = accept(&server);
    client.shutdown(Shutdown::Write).unwrap();
    expect_eof(&mut upstream);
    reset(client);
    // Nothing is being sent; still the host learns of it.
    running.wait_stat("cluster.c.upstream_cx_active", 0);
    upstream.write_all(b"x").ok();
    let mut client = connect(address);
    let upstream = accept(&server);
    upstream.shutdown(Shutdown::Write).unwrap();
    expect_eof(&mut client);
    reset(upstream);
    running.wait_stat("cluster.c.upstream_cx_active", 0);
}

/// Writes until nothing has been taken for half a second; returns the bytes taken.
fn fill(stream: &mut std::net::TcpStream) -> usize {
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let chunk = pattern(1 << 16);
    let mut total = 0;
    loop {
        match stream.write(&chunk[total % chunk.len()..]) {
            Ok(count) => total += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return total;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_slow_reader_makes_the_sender_wait_and_loses_nothing() {
    let mut running = Running::start();
    let (server, backend) = backend();
    let mut config = cluster("c", &[backend]);
    config.per_connection_buffer_limit_bytes = 32 * 1024;
    let address = running.serve(simple_listener(), config);
    let mut client = connect(address);
    let mut upstream = accept(&server);
    // Socket buffers take a few MiB on each hop; what the proxy itself holds is what it has read and not written.
    let sent = fill(&mut client);
    let held = running.stat("tcp.test.downstream_cx_rx_bytes_total")
        - running.stat("cluster.c.upstream_cx_tx_bytes_total");
    assert!((0..=32 * 1024).contains(&held), "{held}");
    assert!(running.stat("tcp.test.downstream_flow_control_paused_reading_total") > 0);
    // A pipe is not held for longer than a second; then the same bytes are in memory. Nothing is lost on the way.
    std::thread::sleep(Duration::from_millis(1200));
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    upstream.read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), sent);
    let chunk = pattern(1 << 16);
    assert!(
        got.iter()
            .enumerate()
            .all(|(i, &byte)| byte == chunk[i % chunk.len()])
    );
}

#[test]
fn a_refused_upstream_closes_the_connection_with_uf_and_urx() {
    let mut running = Running::start();
    let closed = closed_port();
    let mut proxy = tcp_proxy("c");
    proxy.max_connect_attempts = 3;
    let address = running.serve(listener("l", "127.0.0.1:0", proxy), cluster("c", &[closed]));
    let mut client = connect(address);
    expect_eof(&mut client);
    running.wait_log(&format!("UF,URX 0 0 {closed} c\n"));
    assert_eq!(running.stat("cluster.c.upstream_cx_connect_fail"), 3);
    assert_eq!(running.stat("cluster.c.upstream_cx_total"), 3);
    assert_eq!(
        running.stat("cluster.c.upstream_cx_connect_attempts_exceeded"),
        1
    );
    assert_eq!(running.stat("cluster.c.upstream_cx_active"), 0);
    assert_eq!(running.stat("cluster.c.upstream_rq_pending_active"), 0);
}

#[test]
fn a_missing_cluster_is_nc_and_an_empty_one_uh() {
    let mut running = Running::start();
    let address = running.serve(simple_listener(), cluster("other", &[]));
    expect_eof(&mut connect(address));
    running.wait_log("NC 0 0 - -\n");
    assert_eq!(running.stat("tcp.test.downstream_cx_no_route"), 1);
    running.update(|builder| {
        builder.set_cluster(Arc::new(cluster("c", &[]))).unwrap();
    });
    expect_eof(&mut connect(address));
    running.wait_log("NC 0 0 - -\nUH 0 0 - c\n");
    assert_eq!(running.stat("cluster.c.upstream_cx_none_healthy"), 1);
}

#[test]
fn the_connection_limit_is_uo_and_counts_all_workers() {
    let mut running = Running::with(tidegate_dataplane::DataplaneConfig {
        workers: 2,
        ..Default::default()
    });
    let mut config = cluster("c", &[echo_backend()]);
    config.circuit_breakers.default.max_connections = 2;
    let address = running.serve(simple_listener(), config);
    let mut first = connect(address);
    let mut second = connect(address);
    ping(&mut first, b"x");
    ping(&mut second, b"x");
    assert_eq!(
        running.stat("cluster.c.circuit_breakers.default.cx_open"),
        1
    );
    for _ in 0..4 {
        expect_eof(&mut connect(address));
    }
    running.wait_log(&"UO 0 0 - c\n".repeat(4));
    assert_eq!(running.stat("cluster.c.upstream_cx_overflow"), 4);
    drop(first);
    running.wait_stat("cluster.c.upstream_cx_active", 1);
    assert_eq!(
        running.stat("cluster.c.circuit_breakers.default.cx_open"),
        0
    );
    ping(&mut connect(address), b"again");
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let mut running = Running::start();
    let mut proxy = tcp_proxy("c");
    proxy.idle_timeout = Some(Duration::from_millis(300));
    proxy.access_log.clear();
    let address = running.serve(
        listener("l", "127.0.0.1:0", proxy),
        cluster("c", &[echo_backend()]),
    );
    let mut busy = connect(address);
    let mut idle = connect(address);
    ping(&mut idle, b"once");
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(100));
        ping(&mut busy, b"beat");
    }
    expect_eof(&mut idle);
    assert_eq!(running.stat("tcp.test.idle_timeout"), 1);
    ping(&mut busy, b"alive");
}

#[test]
fn a_connect_that_takes_too_long_is_given_up() {
    // A listening socket with a full backlog lets connects hang.
    let (server, backend) = backend();
    rustix::net::listen(&server, 0).unwrap();
    let _fillers: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                std::net::TcpStream::connect_timeout(&backend, Duration::from_secs(2))
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(100));
    let mut running = Running::start();
    let mut config = cluster("c", &[backend]);
    config.connect_timeout = Duration::from_millis(200);
    let address = running.serve(simple_listener(), config);
    expect_eof(&mut connect(address));
    running.wait_log(&format!("UF,URX 0 0 {backend} c\n"));
    assert_eq!(running.stat("cluster.c.upstream_cx_connect_timeout"), 1);
    drop(server);
}
