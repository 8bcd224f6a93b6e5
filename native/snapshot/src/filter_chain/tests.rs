mod naive;

use tidegate_model::listener::{FilterChain, NetworkFilter, TcpCluster, TcpProxy};
use tidegate_model::tls::DownstreamTransport;

use super::*;
use crate::ids::SlotTable;
use crate::listener::{ChainFilter, CompiledTcpProxy, Names, TcpClusters};

fn chain(name: &str, matches: FilterChainMatch) -> Arc<Chain> {
    let proxy = Arc::new(TcpProxy {
        stat_prefix: name.into(),
        cluster: TcpCluster::Single(name.into()),
        idle_timeout: None,
        max_downstream_connection_duration: None,
        access_log: Vec::new(),
        max_connect_attempts: 1,
        hash_source_ip: false,
    });
    let (mut clusters, mut routes) = (SlotTable::default(), SlotTable::default());
    let mut names = Names::new(&mut clusters, &mut routes);
    Arc::new(Chain {
        read_filters: Vec::new(),
        filter: ChainFilter::TcpProxy(CompiledTcpProxy {
            clusters: TcpClusters::Single(names.cluster(&name.into())),
            access_log: crate::AccessLogs::default(),
            config: Arc::clone(&proxy),
        }),
        config: FilterChain {
            name: name.into(),
            matches,
            read_filters: Vec::new(),
            filter: NetworkFilter::TcpProxy(proxy),
            transport_socket: DownstreamTransport::default(),
            transport_socket_connect_timeout: None,
        },
    })
}

fn any() -> FilterChainMatch {
    FilterChainMatch::default()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

fn meta<'a>(destination: &str, source: &str) -> ConnMeta<'a> {
    ConnMeta::plain(destination.parse().unwrap(), source.parse().unwrap())
}

fn name_of(chains: &FilterChains, meta: &ConnMeta<'_>) -> Option<String> {
    chains.find(meta).map(|c| c.config.name.to_string())
}

#[test]
fn ports_come_first_and_there_is_no_way_back() {
    let chains = FilterChains::compile(
        vec![
            chain(
                "port",
                FilterChainMatch {
                    destination_port: Some(80),
                    prefix_ranges: nets(&["10.0.0.0/8"]),
                    ..any()
                },
            ),
            chain("any", any()),
        ],
        Some(chain("default", any())),
    )
    .unwrap();
    assert_eq!(
        name_of(&chains, &meta("10.1.2.3:80", "1.1.1.1:1")).as_deref(),
        Some("port")
    );
    // Port 80 has entries, none of which fits: the chain without a port is not asked.
    assert_eq!(
        name_of(&chains, &meta("11.1.2.3:80", "1.1.1.1:1")).as_deref(),
        Some("default")
    );
    assert_eq!(
        name_of(&chains, &meta("11.1.2.3:81", "1.1.1.1:1")).as_deref(),
        Some("any")
    );
}

#[test]
fn the_longest_destination_prefix_wins() {
    let by = |name: &str, net: &str| {
        chain(
            name,
            FilterChainMatch {
                prefix_ranges: nets(&[net]),
                ..any()
            },
        )
    };
    let chains = FilterChains::compile(
        vec![
            by("eight", "10.0.0.0/8"),
            by("sixteen", "10.1.0.0/16"),
            by("host", "10.1.1.1/32"),
            by("six", "fd00::/8"),
        ],
        None,
    )
    .unwrap();
    for (destination, expected) in [
        ("10.1.1.1:1", Some("host")),
        ("10.1.1.2:1", Some("sixteen")),
        ("10.2.1.2:1", Some("eight")),
        ("[::ffff:10.2.1.2]:1", Some("eight")),
        ("[fd00::5]:1", Some("six")),
        ("11.2.1.2:1", None),
    ] {
        assert_eq!(
            name_of(&chains, &meta(destination, "1.1.1.1:1")).as_deref(),
            expected,
            "{destination}"
        );
    }
}

#[test]
fn server_names_protocols_and_sources() {
    let chains = FilterChains::compile(
        vec![
            chain(
                "exact",
                FilterChainMatch {
                    server_names: vec!["www.example.com".into()],
                    ..any()
                },
            ),
            chain(
                "wild",
                FilterChainMatch {
                    server_names: vec!["*.example.com".into()],
                    ..any()
                },
            ),
            chain(
                "top",
                FilterChainMatch {
                    server_names: vec!["*.com".into()],
                    ..any()
                },
            ),
            chain(
                "tls",
                FilterChainMatch {
                    transport_protocol: Some("tls".into()),
                    ..any()
                },
            ),
            chain(
                "h2",
                FilterChainMatch {
                    transport_protocol: Some("raw_buffer".into()),
                    application_protocols: vec!["h2".into()],
                    ..any()
                },
            ),
            chain(
                "local",
                FilterChainMatch {
                    source_type: SourceType::SameIpOrLoopback,
                    ..any()
                },
            ),
            chain(
                "near",
                FilterChainMatch {
                    source_prefix_ranges: nets(&["192.168.0.0/16"]),
                    source_ports: vec![7],
                    ..any()
                },
            ),
        ],
        None,
    )
    .unwrap();
    let plain = meta("10.0.0.1:80", "192.168.1.1:7");
    let named = |server_name| ConnMeta {
        server_name,
        ..plain
    };
    assert_eq!(
        name_of(&chains, &named("www.example.com")).as_deref(),
        Some("exact")
    );
    assert_eq!(
        name_of(&chains, &named("a.b.example.com")).as_deref(),
        Some("wild")
    );
    assert_eq!(
        name_of(&chains, &named("example.com")).as_deref(),
        Some("top")
    );
    let tls = ConnMeta {
        transport_protocol: "tls",
        ..plain
    };
    assert_eq!(name_of(&chains, &tls).as_deref(), Some("tls"));
    let h2 = ConnMeta {
        application_protocols: &ApplicationProtocols::Seen("h2"),
        ..plain
    };
    assert_eq!(name_of(&chains, &h2).as_deref(), Some("h2"));
    // "raw_buffer" has an entry, so the chains without a transport protocol are out of reach.
    assert_eq!(name_of(&chains, &plain), None);
    let other = ConnMeta {
        transport_protocol: "quic",
        ..plain
    };
    assert_eq!(name_of(&chains, &other).as_deref(), Some("near"));
    let far = ConnMeta {
        source: "192.168.1.1:8".parse().unwrap(),
        ..other
    };
    assert_eq!(name_of(&chains, &far), None);
    let local = ConnMeta {
        source: "127.0.0.1:8".parse().unwrap(),
        ..other
    };
    assert_eq!(name_of(&chains, &local).as_deref(), Some("local"));
}
