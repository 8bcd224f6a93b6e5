//! Redirected connections in a network namespace with real netfilter rules. Needs root, `ip` and `iptables`; without them
//! the tests say so and pass.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tidegate_dataplane::DataplaneConfig;
use tidegate_model::listener::{ListenerFilter, ListenerFilterKind};

use crate::support::*;

fn original_dst() -> Vec<ListenerFilter> {
    vec![ListenerFilter {
        kind: ListenerFilterKind::OriginalDst,
        disabled: None,
    }]
}

/// A namespace with loopback addresses of its own; the thread that made it is inside.
struct Namespace(String);

fn run(command: &str) -> bool {
    let mut words = command.split_whitespace();
    Command::new(words.next().unwrap())
        .args(words)
        .output()
        .is_ok_and(|output| output.status.success())
}

impl Namespace {
    fn enter(name: &str) -> Option<Self> {
        let name = format!("tgdp-{name}-{}", std::process::id());
        if !run(&format!("ip netns add {name}")) {
            eprintln!("skipped: cannot make a network namespace");
            return None;
        }
        let namespace = Self(name);
        let file = File::open(format!("/var/run/netns/{}", namespace.0)).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        assert!(run("ip link set lo up"));
        for last in [1, 2, 3, 9] {
            assert!(run(&format!("ip addr add 10.0.0.{last}/32 dev lo")));
            assert!(run(&format!(
                "ip -6 addr add fd00::{last}/128 dev lo nodad"
            )));
        }
        let redirect = "-t nat -A OUTPUT -p tcp -j REDIRECT --to-ports 15001";
        if !(run(&format!("iptables -w {redirect} -s 10.0.0.9"))
            && run(&format!("ip6tables -w {redirect} -s fd00::9")))
        {
            eprintln!("skipped: cannot add netfilter rules");
            return None;
        }
        Some(namespace)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run(&format!("ip netns del {}", self.0));
    }
}

fn serve_name(address: SocketAddr, name: &'static str) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream.write_all(name.as_bytes()).unwrap();
        }
    });
}

/// Connects from the redirected address of the destination's family.
fn connect_redirected(destination: &str) -> TcpStream {
    let destination: SocketAddr = destination.parse().unwrap();
    let (family, source): (_, SocketAddr) = if destination.is_ipv4() {
        (
            rustix::net::AddressFamily::INET,
            "10.0.0.9:0".parse().unwrap(),
        )
    } else {
        (
            rustix::net::AddressFamily::INET6,
            "[fd00::9]:0".parse().unwrap(),
        )
    };
    let socket = rustix::net::socket(family, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &source).unwrap();
    rustix::net::connect(&socket, &destination).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What the backend at the end of a redirected connection calls itself.
fn ask(destination: &str) -> String {
    let mut name = String::new();
    connect_redirected(destination)
        .read_to_string(&mut name)
        .unwrap();
    name
}

#[test]
fn redirected_connections_find_the_listener_of_their_destination() {
    let Some(_namespace) = Namespace::enter("redirect") else {
        return;
    };
    serve_name("10.0.0.1:1000".parse().unwrap(), "exact");
    serve_name("10.0.0.1:1001".parse().unwrap(), "wildcard");
    serve_name("10.0.0.3:82".parse().unwrap(), "passthrough");
    serve_name("[fd00::3]:82".parse().unwrap(), "passthrough6");
    let mut running = Running::start();
    running.update(|builder| {
        for (name, address) in [("exact", "10.0.0.1:1000"), ("wildcard", "10.0.0.1:1001")] {
            builder
                .set_cluster(Arc::new(cluster(name, &[address.parse().unwrap()])))
                .unwrap();
        }
        builder
            .set_cluster(Arc::new(original_dst_cluster("PassthroughCluster")))
            .unwrap();
        for (name, address) in [("virtual", "0.0.0.0:15001"), ("virtual6", "[::]:15001")] {
            let mut config = listener(name, address, tcp_proxy("PassthroughCluster"));
            config.use_original_dst = true;
            config.listener_filters = original_dst();
            builder.set_listener(Arc::new(config)).unwrap();
        }
        for (name, address, to) in [
            ("exact", "10.0.0.1:80", "exact"),
            ("wildcard", "0.0.0.0:80", "wildcard"),
            ("exact6", "[fd00::1]:80", "exact"),
            ("wildcard6", "[::]:80", "wildcard"),
        ] {
            let mut config = listener(name, address, tcp_proxy(to));
            config.bind_to_port = false;
            builder.set_listener(Arc::new(config)).unwrap();
        }
    });
    // The workers take the snapshot over in their own time.
    wait_for(
        || ask("10.0.0.1:80") == "exact",
        || "exact address".to_owned(),
    );
    assert_eq!(ask("10.0.0.2:80"), "wildcard");
    assert_eq!(ask("[fd00::1]:80"), "exact");
    assert_eq!(ask("[fd00::2]:80"), "wildcard");
    assert_eq!(ask("10.0.0.3:82"), "passthrough");
    assert_eq!(ask("[fd00::3]:82"), "passthrough6");
    assert_eq!(running.stat("listener.wildcard.downstream_cx_total"), 1);
    assert_eq!(running.stat("listener.wildcard6.downstream_cx_total"), 1);
    assert_eq!(running.stat("listener.virtual.downstream_cx_total"), 1);
    assert_eq!(running.stat("listener.virtual6.downstream_cx_total"), 1);
    assert_eq!(
        running.stat("cluster.PassthroughCluster.upstream_cx_total"),
        2
    );
    // A connection that was not redirected has no original destination, hence no host.
    expect_eof(&mut connect("127.0.0.1:15001".parse().unwrap()));
    wait_for(
        || running.log.text().contains("UH 0 0 - PassthroughCluster\n"),
        || running.log.text(),
    );
    assert!(
        running
            .log
            .text()
            .contains("- 0 11 10.0.0.3:82 PassthroughCluster\n")
    );
}

#[test]
fn filter_chains_match_the_restored_destination() {
    let Some(_namespace) = Namespace::enter("chains") else {
        return;
    };
    serve_name("10.0.0.1:1000".parse().unwrap(), "by port");
    serve_name("10.0.0.1:1001".parse().unwrap(), "by prefix");
    serve_name("10.0.0.1:1002".parse().unwrap(), "default");
    let mut running = Running::start();
    let mut config = listener("virtualInbound", "0.0.0.0:15001", tcp_proxy("by port"));
    config.listener_filters = original_dst();
    config.filter_chains[0].matches.destination_port = Some(9080);
    let mut by_prefix = chain(tcp_proxy("by prefix"));
    by_prefix.matches.prefix_ranges = vec!["10.0.0.2/31".parse().unwrap()];
    config.filter_chains.push(by_prefix);
    config.default_filter_chain = Some(chain(tcp_proxy("default")));
    running.update(|builder| {
        for (port, name) in ["by port", "by prefix", "default"].iter().enumerate() {
            let host = SocketAddr::new("10.0.0.1".parse().unwrap(), 1000 + port as u16);
            builder
                .set_cluster(Arc::new(cluster(name, &[host])))
                .unwrap();
        }
        builder.set_listener(Arc::new(config)).unwrap();
    });
    wait_for(|| ask("10.0.0.2:9080") == "by port", || "port".to_owned());
    assert_eq!(ask("10.0.0.3:9081"), "by prefix");
    assert_eq!(ask("10.0.0.1:9081"), "default");
}

/// The listener that serves decides: it has no socket of its own, and the one that accepts balances nothing.
#[test]
fn exact_balance_of_the_listener_that_a_connection_is_handed_to() {
    let Some(_namespace) = Namespace::enter("balance") else {
        return;
    };
    let mut running = Running::with(DataplaneConfig {
        workers: 2,
        ..DataplaneConfig::default()
    });
    running.update(|builder| {
        builder
            .set_cluster(Arc::new(cluster("c", &[echo_backend()])))
            .unwrap();
        let mut accepting = listener("virtual", "0.0.0.0:15001", tcp_proxy("c"));
        accepting.use_original_dst = true;
        accepting.listener_filters = original_dst();
        builder.set_listener(Arc::new(accepting)).unwrap();
        let mut serving = listener("serving", "10.0.0.1:80", tcp_proxy("c"));
        serving.bind_to_port = false;
        serving.exact_balance = true;
        builder.set_listener(Arc::new(serving)).unwrap();
    });
    let clients: Vec<_> = (0..32)
        .map(|_| {
            let mut client = connect_redirected("10.0.0.1:80");
            ping(&mut client, b"hello");
            client
        })
        .collect();
    for worker in [0, 1] {
        let name = format!("listener.serving.worker_{worker}.downstream_cx_active");
        assert_eq!(running.stat(&name), 16);
    }
    drop(clients);
    running.wait_stat("listener.serving.downstream_cx_active", 0);
}
