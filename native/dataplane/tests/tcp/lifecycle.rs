//! Listeners come, change and go; connections stay or leave as they should.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use tidegate_dataplane::{DataplaneConfig, DrainScope};
use tidegate_model::access_log::{AccessLog, LogFormat};
use tidegate_model::listener::FilterChainMatch;

use crate::support::*;

fn quick_drain() -> DataplaneConfig {
    DataplaneConfig {
        drain_time: Duration::from_millis(300),
        ..DataplaneConfig::default()
    }
}

fn is_refused(address: std::net::SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

#[test]
fn a_listener_with_other_chains_keeps_its_socket_and_connections_of_unchanged_chains() {
    let mut running = Running::with(quick_drain());
    let echo = echo_backend();
    let mut config = simple_listener();
    let mut second = chain(tcp_proxy("c"));
    second.matches.destination_port = Some(1);
    config.filter_chains.push(second);
    let address = running.serve(config.clone(), cluster("c", &[echo]));
    let mut client = connect(address);
    ping(&mut client, b"before");
    config.filter_chains.pop();
    running.update(|builder| {
        builder.set_listener(Arc::new(config)).unwrap();
    });
    assert_eq!(running.address("l"), address);
    let draining = "listener_manager.total_filter_chains_draining";
    wait_for(|| running.stat(draining) == 1, || "nothing drains".into());
    wait_for(|| running.stat(draining) == 0, || "still draining".into());
    std::thread::sleep(Duration::from_millis(600));
    ping(&mut client, b"after");
    ping(&mut connect(address), b"new");
}

#[test]
fn a_listener_that_changed_elsewhere_keeps_its_socket_and_drains_all_connections() {
    let mut running = Running::with(quick_drain());
    let mut config = simple_listener();
    let address = running.serve(config.clone(), cluster("c", &[echo_backend()]));
    let mut client = connect(address);
    ping(&mut client, b"before");
    config.per_connection_buffer_limit_bytes = 4096;
    running.update(|builder| {
        builder.set_listener(Arc::new(config)).unwrap();
    });
    assert_eq!(running.address("l"), address);
    ping(&mut connect(address), b"new");
    ping(&mut client, b"draining");
    expect_eof(&mut client);
    ping(&mut connect(address), b"new");
}

#[test]
fn connections_of_a_chain_that_is_gone_leave_when_the_drain_time_is_over() {
    let mut running = Running::with(quick_drain());
    let echo = echo_backend();
    let mut config = simple_listener();
    let address = running.serve(config.clone(), cluster("c", &[echo]));
    let mut client = connect(address);
    ping(&mut client, b"before");
    let mut proxy = tcp_proxy("c");
    proxy.idle_timeout = Some(Duration::from_secs(7));
    config.filter_chains = vec![chain(proxy)];
    running.update(|builder| {
        builder.set_listener(Arc::new(config)).unwrap();
    });
    ping(&mut client, b"draining");
    expect_eof(&mut client);
    assert_eq!(running.stat("tcp.test.downstream_cx_drain_close"), 1);
    ping(&mut connect(address), b"new");
}

#[test]
fn a_removed_listener_closes_its_socket_and_drains() {
    let mut running = Running::with(quick_drain());
    let address = running.serve(simple_listener(), cluster("c", &[echo_backend()]));
    let mut client = connect(address);
    ping(&mut client, b"before");
    running.update(|builder| {
        builder.remove_listener("l");
    });
    wait_for(|| is_refused(address), || "still accepting".into());
    ping(&mut client, b"draining");
    expect_eof(&mut client);
}

#[test]
fn removing_and_adding_listeners_touches_no_other() {
    let mut running = Running::with(quick_drain());
    let address = running.serve(simple_listener(), cluster("c", &[echo_backend()]));
    let mut client = connect(address);
    for round in 0..20 {
        let name = format!("other{round}");
        running.update(|builder| {
            builder
                .set_listener(Arc::new(listener(&name, "127.0.0.1:0", tcp_proxy("c"))))
                .unwrap();
        });
        let other = running.address(&name);
        wait_for(|| !is_refused(other), || "not accepting".into());
        running.update(|builder| {
            builder.remove_listener(&name);
        });
        ping(&mut client, b"undisturbed");
    }
}

#[test]
fn an_address_in_use_is_reported() {
    let mut running = Running::start();
    let (_server, taken) = backend();
    let config = listener("l", &taken.to_string(), tcp_proxy("c"));
    let error = running.handle.bind(&config).unwrap_err();
    assert_eq!(error.address, taken);
    assert!(
        error.to_string().starts_with("cannot bind '127.0.0.1:"),
        "{error}"
    );
}

#[test]
fn a_connection_that_no_chain_takes_is_closed_counted_and_logged() {
    let mut running = Running::start();
    let mut config = simple_listener();
    config.filter_chains[0].matches = FilterChainMatch {
        destination_port: Some(1),
        ..FilterChainMatch::default()
    };
    config.access_log = access_log();
    let address = running.serve(config.clone(), cluster("c", &[echo_backend()]));
    expect_eof(&mut connect(address));
    running.wait_log("NR 0 0 - -\n");
    assert_eq!(running.stat("listener.l.no_filter_chain_match"), 1);
    config.default_filter_chain = Some(chain(tcp_proxy("c")));
    running.update(|builder| {
        builder.set_listener(Arc::new(config)).unwrap();
    });
    std::thread::sleep(Duration::from_millis(50));
    ping(&mut connect(address), b"default chain");
}

#[test]
fn a_listener_may_limit_its_connections() {
    let mut running = Running::start();
    let mut config = simple_listener();
    config.max_connections = Some(1);
    let address = running.serve(config, cluster("c", &[echo_backend()]));
    let mut first = connect(address);
    ping(&mut first, b"x");
    expect_eof(&mut connect(address));
    assert_eq!(running.stat("listener.l.downstream_cx_overflow"), 1);
    drop(first);
    running.wait_stat("listener.l.downstream_cx_active", 0);
    ping(&mut connect(address), b"x");
}

#[test]
fn draining_the_process_stops_accepting_and_ends_connections() {
    let mut running = Running::with(quick_drain());
    let address = running.serve(simple_listener(), cluster("c", &[echo_backend()]));
    let mut client = connect(address);
    ping(&mut client, b"before");
    running.handle.drain(DrainScope::All, true);
    wait_for(|| is_refused(address), || "still accepting".into());
    expect_eof(&mut client);
}

#[test]
fn all_workers_serve_and_shutdown_closes_everything() {
    let mut running = Running::with(DataplaneConfig {
        workers: 2,
        ..DataplaneConfig::default()
    });
    for reuse_port in [true, false] {
        let mut config = simple_listener();
        config.name = format!("l{reuse_port}").into();
        config.stat_prefix = config.name.clone();
        config.reuse_port = reuse_port;
        let name = config.name.clone();
        let address = running.serve(config, cluster("c", &[echo_backend()]));
        let mut clients: Vec<_> = (0..64).map(|_| connect(address)).collect();
        for client in &mut clients {
            ping(client, b"hello");
        }
        let by_worker = [0, 1].map(|worker| {
            running.stat(&format!(
                "listener.{name}.worker_{worker}.downstream_cx_total"
            ))
        });
        assert_eq!(by_worker.iter().sum::<i64>(), 64);
        if reuse_port {
            assert!(by_worker.iter().all(|&count| count > 0), "{by_worker:?}");
        }
    }
    let mut last = connect(running.address("ltrue"));
    ping(&mut last, b"x");
    running.handle.shutdown();
    assert!(matches!(
        std::io::Read::read(&mut last, &mut [0]),
        Ok(0) | Err(_)
    ));
}

#[test]
fn a_panic_costs_one_connection() {
    let mut running = Running::start();
    // A line long enough to be handed to the sink at once, which panics while the connection is being closed.
    let mut proxy = tcp_proxy("c");
    proxy.access_log = vec![Arc::new(AccessLog {
        path: "panic".into(),
        format: LogFormat::Text("x".repeat(100_000).into()),
        filter: None,
    })];
    let address = running.serve(
        listener("l", "127.0.0.1:0", proxy),
        cluster("c", &[echo_backend()]),
    );
    let mut victim = connect(address);
    let mut witness = connect(address);
    ping(&mut victim, b"x");
    ping(&mut witness, b"x");
    drop(victim);
    running.wait_stat("cluster.c.upstream_cx_active", 1);
    ping(&mut witness, b"undisturbed");
    ping(&mut connect(address), b"new");
    let panics = &running.handle.shared().panics_total;
    assert!(panics.load(std::sync::atomic::Ordering::Relaxed) >= 1);
    running.wait_stat("cluster.c.upstream_rq_active", 1);
}

#[test]
fn exact_balance_gives_every_worker_the_same_number() {
    let mut running = Running::with(DataplaneConfig {
        workers: 2,
        ..DataplaneConfig::default()
    });
    let mut config = simple_listener();
    config.exact_balance = true;
    let address = running.serve(config, cluster("c", &[echo_backend()]));
    let mut clients: Vec<_> = (0..10)
        .map(|_| {
            let mut client = connect(address);
            ping(&mut client, b"one at a time");
            client
        })
        .collect();
    for worker in [0, 1] {
        let name = format!("listener.l.worker_{worker}.downstream_cx_active");
        assert_eq!(running.stat(&name), 5);
    }
    clients.clear();
    running.wait_stat("listener.l.downstream_cx_active", 0);
    let mut again = connect(address);
    ping(&mut again, b"and again");
}

#[test]
fn connections_of_an_older_version_drain_with_their_listener() {
    let mut running = Running::with(quick_drain());
    let mut config = simple_listener();
    let address = running.serve(config.clone(), cluster("c", &[echo_backend()]));
    let mut client = connect(address);
    ping(&mut client, b"first version");
    for limit in [1000, 2000, 3000] {
        config.per_connection_buffer_limit_bytes = limit;
        running.update(|builder| {
            builder.set_listener(Arc::new(config.clone())).unwrap();
        });
        std::thread::sleep(Duration::from_millis(20));
    }
    ping(&mut client, b"fourth version");
    running.update(|builder| {
        builder.remove_listener("l");
    });
    expect_eof(&mut client);
}
