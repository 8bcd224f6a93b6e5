//! Clusters: turns, endpoint updates, weighted clusters.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use tidegate_model::cluster::{ConfigSource, Discovery};
use tidegate_model::listener::TcpCluster;

use crate::support::*;

/// A backend that says its name and closes.
fn named(name: u8) -> std::net::SocketAddr {
    let (listener, address) = backend();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::io::Write::write_all(&mut stream, &[name]).unwrap();
        }
    });
    address
}

fn ask(address: std::net::SocketAddr) -> u8 {
    let mut name = [0];
    connect(address).read_exact(&mut name).unwrap();
    name[0]
}

#[test]
fn hosts_take_turns_and_endpoint_updates_are_followed() {
    let mut running = Running::start();
    let (a, b) = (named(b'a'), named(b'b'));
    let eds = cluster_of(
        "c",
        Discovery::Eds {
            service_name: "c".into(),
            source: ConfigSource::Ads,
            initial_fetch_timeout: Some(Duration::from_secs(15)),
        },
    );
    let address = running.serve(simple_listener(), eds);
    running.update(|builder| {
        builder.set_endpoints(
            "c",
            Arc::new(assignment("c", vec![endpoint(a), endpoint(b)])),
        );
    });
    wait_for(
        || running.stat("cluster.c.membership_total") == 2,
        String::new,
    );
    std::thread::sleep(Duration::from_millis(50));
    let answers: Vec<u8> = (0..10).map(|_| ask(address)).collect();
    assert_eq!(answers.iter().filter(|&&name| name == b'a').count(), 5);
    running.update(|builder| {
        builder.set_endpoints("c", Arc::new(assignment("c", vec![endpoint(b)])));
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!((0..5).all(|_| ask(address) == b'b'));
    assert_eq!(running.stat("cluster.c.membership_total"), 1);
    assert_eq!(running.stat("cluster.c.membership_change"), 2);
}

#[test]
fn weighted_clusters_share_by_weight() {
    let mut running = Running::start();
    let mut proxy = tcp_proxy("a");
    proxy.cluster = TcpCluster::Weighted(vec![("a".into(), 3), ("b".into(), 1)]);
    let address = running.serve(
        listener("l", "127.0.0.1:0", proxy),
        cluster("a", &[named(b'a')]),
    );
    running.update(|builder| {
        builder
            .set_cluster(Arc::new(cluster("b", &[named(b'b')])))
            .unwrap();
    });
    std::thread::sleep(Duration::from_millis(50));
    let a = (0..400).filter(|_| ask(address) == b'a').count();
    assert!((250..350).contains(&a), "{a}");
}
