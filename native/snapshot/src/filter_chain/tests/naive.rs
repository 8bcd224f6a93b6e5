//! The tables against the rule they stand for: step by step the most specific entry that matches, and no way back.

use proptest::prelude::*;

use super::*;

/// How specific an entry is for a connection; `None`: it does not match. `0`: it asks for nothing.
type Rank = Option<usize>;

/// A chain with one entry per step.
#[derive(Clone)]
struct Rule {
    chain: usize,
    matches: FilterChainMatch,
}

fn each<T: Clone>(list: &[T]) -> Vec<Vec<T>> {
    if list.is_empty() {
        return vec![Vec::new()];
    }
    list.iter().map(|item| vec![item.clone()]).collect()
}

fn rules(all: &[FilterChainMatch]) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (chain, m) in all.iter().enumerate() {
        for server_names in each(&m.server_names) {
            for prefix_ranges in each(&m.prefix_ranges) {
                for application_protocols in each(&m.application_protocols) {
                    for source_prefix_ranges in each(&m.source_prefix_ranges) {
                        for source_ports in each(&m.source_ports) {
                            let matches = FilterChainMatch {
                                server_names: server_names.clone(),
                                prefix_ranges: prefix_ranges.clone(),
                                application_protocols: application_protocols.clone(),
                                source_prefix_ranges: source_prefix_ranges.clone(),
                                source_ports,
                                ..m.clone()
                            };
                            rules.push(Rule { chain, matches });
                        }
                    }
                }
            }
        }
    }
    rules
}

fn equal<T: PartialEq>(wanted: Option<&T>, have: &T) -> Rank {
    match wanted {
        None => Some(0),
        Some(wanted) => (wanted == have).then_some(1),
    }
}

fn inside(nets: &[IpNet], ip: IpAddr) -> Rank {
    match nets.first() {
        None => Some(0),
        Some(net) => net
            .contains(&ip)
            .then_some(1 + usize::from(net.prefix_len())),
    }
}

fn by_name(names: &[Name], have: &str) -> Rank {
    match names.first().map(|name| name.to_ascii_lowercase()) {
        None => Some(0),
        Some(name) => match name.strip_prefix('*') {
            None => (name == have).then_some(usize::MAX),
            Some(suffix) => {
                (have.len() > suffix.len() && have.ends_with(suffix)).then_some(suffix.len())
            }
        },
    }
}

fn by_protocol(names: &[Name], have: &ApplicationProtocols) -> Rank {
    match names.first() {
        None => Some(0),
        Some(name) => have
            .iter()
            .position(|other| other == &**name)
            .map(|at| 1000 - at),
    }
}

fn by_type(wanted: SourceType, is_local: bool) -> Rank {
    match wanted {
        SourceType::Any => Some(0),
        SourceType::SameIpOrLoopback => is_local.then_some(1),
        SourceType::External => (!is_local).then_some(1),
    }
}

fn naive(all: &[FilterChainMatch], meta: &ConnMeta<'_>) -> Option<usize> {
    let ranks: [&dyn Fn(&FilterChainMatch) -> Rank; 8] = [
        &|m| equal(m.destination_port.as_ref(), &meta.destination.port()),
        &|m| inside(&m.prefix_ranges, meta.destination.ip()),
        &|m| by_name(&m.server_names, meta.server_name),
        &|m| {
            equal(
                m.transport_protocol.as_deref().map(str::to_owned).as_ref(),
                &meta.transport_protocol.to_owned(),
            )
        },
        &|m| by_protocol(&m.application_protocols, meta.application_protocols),
        &|m| by_type(m.source_type, meta.is_same_ip_or_loopback()),
        &|m| inside(&m.source_prefix_ranges, meta.source.ip()),
        &|m| equal(m.source_ports.first(), &meta.source.port()),
    ];
    let mut left = rules(all);
    for rank in ranks {
        let best = left.iter().filter_map(|rule| rank(&rule.matches)).max()?;
        left.retain(|rule| rank(&rule.matches) == Some(best));
    }
    left.first().map(|rule| rule.chain)
}

fn some_of<T: Clone + std::fmt::Debug + 'static>(
    all: &'static [T],
) -> impl Strategy<Value = Vec<T>> {
    prop::sample::subsequence(all, 0..=all.len().min(2))
}

const PORTS: &[u16] = &[80, 81];
const NETS: &[&str] = &[
    "10.0.0.0/8",
    "10.1.0.0/16",
    "127.0.0.0/8",
    "10.1.0.1/32",
    "::/1",
];
const NAMES: &[&str] = &["a.b.c", "*.b.c", "*.c", "B.C", "*.a.b.c"];
const PROTOCOLS: &[&str] = &["h2", "http/1.1", "istio"];
const IPS: &[&str] = &["10.1.0.1", "10.2.0.1", "127.0.0.1", "192.168.0.1", "::1"];
const SEEN: &[&str] = &["", "a.b.c", "x.a.b.c", "b.c", "x.c", "c", "x.y"];

fn matches() -> impl Strategy<Value = FilterChainMatch> {
    let types = vec![
        SourceType::Any,
        SourceType::SameIpOrLoopback,
        SourceType::External,
    ];
    (
        prop::option::of(prop::sample::select(PORTS)),
        some_of(NETS),
        some_of(NAMES),
        prop::option::of(prop::sample::select(vec!["tls", "raw_buffer"])),
        some_of(PROTOCOLS),
        prop::sample::select(types),
        some_of(NETS),
        some_of(PORTS),
    )
        .prop_map(
            |(port, to, names, transport, protocols, source_type, from, ports)| {
                let named = |texts: Vec<&str>| texts.into_iter().map(Name::from).collect();
                FilterChainMatch {
                    destination_port: port,
                    prefix_ranges: nets(&to),
                    server_names: named(names),
                    transport_protocol: transport.map(Name::from),
                    application_protocols: named(protocols),
                    direct_source_prefix_ranges: Vec::new(),
                    source_type,
                    source_prefix_ranges: nets(&from),
                    source_ports: ports,
                }
            },
        )
}

proptest! {
    #[test]
    fn the_tables_find_what_the_rule_says(
        all in prop::collection::vec(matches(), 1..8),
        to in prop::sample::select(IPS),
        from in prop::sample::select(IPS),
        ports in (prop::sample::select(vec![80_u16, 81, 82]), prop::sample::select(vec![80_u16, 81, 82])),
        server_name in prop::sample::select(SEEN),
        transport_protocol in prop::sample::select(vec!["tls", "raw_buffer"]),
        offered in prop::sample::subsequence(PROTOCOLS, 0..=3).prop_shuffle(),
    ) {
        let chains = all.iter().enumerate().map(|(at, m)| chain(&at.to_string(), m.clone()));
        // Those that overlap are refused, which the other tests look at.
        let Ok(table) = FilterChains::compile(chains.collect(), None) else {
            return Ok(());
        };
        let list: Vec<u8> = offered
            .iter()
            .flat_map(|name| [&[name.len() as u8][..], name.as_bytes()].concat())
            .collect();
        let protocols = ApplicationProtocols::Offered(list.into());
        let address = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
        let meta = ConnMeta {
            server_name,
            transport_protocol,
            application_protocols: &protocols,
            ..ConnMeta::plain(address(to, ports.0), address(from, ports.1))
        };
        let found = name_of(&table, &meta);
        prop_assert_eq!(found, naive(&all, &meta).map(|at| at.to_string()));
    }
}
