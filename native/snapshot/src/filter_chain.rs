//! Which filter chain takes a connection: Envoy's documented order, compiled to nested tables.
//!
//! Destination port, destination IP by longest prefix, server name, transport protocol, application protocols, directly
//! connected source IP, source type, source IP, source port. Each step picks its most specific entry and never comes back to
//! a less specific one. Pure: knows only addresses and names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustc_hash::FxHashMap;
use tidegate_model::Name;
use tidegate_model::listener::{FilterChainMatch, SourceType};

use crate::error::CompileError;
use crate::listener::Chain;

/// What is known of a connection when its filter chain is chosen.
#[derive(Debug, Clone, Copy)]
pub struct ConnMeta<'a> {
    /// The local address: the original destination where that was looked up.
    pub destination: SocketAddr,
    pub source: SocketAddr,
    /// The peer of the socket, before any PROXY protocol; else the same as `source`.
    pub direct_source: SocketAddr,
    /// Lower case; empty when unknown.
    pub server_name: &'a str,
    /// `raw_buffer` unless a listener filter saw something else.
    pub transport_protocol: &'a str,
    pub application_protocols: &'a ApplicationProtocols,
}

/// What a client says that it speaks, best first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ApplicationProtocols {
    #[default]
    Unknown,
    /// As its first line tells.
    Seen(&'static str),
    /// The names of its ALPN list, each with its length in a byte before it.
    Offered(Box<[u8]>),
}

impl ApplicationProtocols {
    /// Names that are no text are left out: no configuration could name them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let (seen, mut offered) = match self {
            Self::Unknown => (None, &[][..]),
            Self::Seen(name) => (Some(*name), &[][..]),
            Self::Offered(list) => (None, &**list),
        };
        let offered = std::iter::from_fn(move || {
            let (length, rest) = offered.split_first()?;
            let (name, rest) = rest.split_at_checked(usize::from(*length))?;
            offered = rest;
            Some(name)
        });
        seen.into_iter()
            .chain(offered.filter_map(|name| std::str::from_utf8(name).ok()))
    }
}

impl ConnMeta<'_> {
    /// A plain TCP connection of which nothing was inspected.
    pub fn plain(destination: SocketAddr, source: SocketAddr) -> Self {
        Self {
            destination: canonical(destination),
            source: canonical(source),
            direct_source: canonical(source),
            server_name: "",
            transport_protocol: "raw_buffer",
            application_protocols: &ApplicationProtocols::Unknown,
        }
    }

    /// A connection from loopback, or from the address it was made to.
    pub fn is_same_ip_or_loopback(&self) -> bool {
        let source = self.source.ip();
        source == self.destination.ip()
            || source == IpAddr::V4(Ipv4Addr::LOCALHOST)
            || source == IpAddr::V6(Ipv6Addr::LOCALHOST)
    }
}

/// An IPv4 address in its IPv6 disguise becomes plain again, as Envoy does on accept.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// All filter chains of a listener.
#[derive(Debug, Clone, Default)]
pub struct FilterChains {
    chains: Vec<Arc<Chain>>,
    default: Option<Arc<Chain>>,
    table: DestinationPorts,
}

type ChainIndex = u32;
type SourcePorts = FxHashMap<u16, ChainIndex>;
type SourceIps = PrefixTable<SourcePorts>;
type DirectSourceIps = PrefixTable<SourceTypes>;
type ProtocolNames = NameTable<DirectSourceIps>;
type TransportProtocols = NameTable<ProtocolNames>;
type ServerNames = NameTable<TransportProtocols>;
type DestinationIps = PrefixTable<ServerNames>;
/// Port 0 stands for any.
type DestinationPorts = FxHashMap<u16, DestinationIps>;

#[derive(Debug, Clone, Default)]
struct SourceTypes {
    any: Option<SourceIps>,
    same_ip_or_loopback: Option<SourceIps>,
    external: Option<SourceIps>,
}

/// Names to tables, and the table for chains that do not care.
#[derive(Debug, Clone)]
struct NameTable<T> {
    named: FxHashMap<Name, T>,
    any: Option<Box<T>>,
}

impl<T> Default for NameTable<T> {
    fn default() -> Self {
        Self {
            named: FxHashMap::default(),
            any: None,
        }
    }
}

impl<T: Default> NameTable<T> {
    fn entry(&mut self, name: Option<&Name>) -> &mut T {
        match name {
            Some(name) => self.named.entry(Name::clone(name)).or_default(),
            None => self.any.get_or_insert_default(),
        }
    }

    fn get(&self, name: &str) -> Option<&T> {
        if !self.named.is_empty()
            && let Some(found) = self.named.get(name)
        {
            return Some(found);
        }
        self.any.as_deref()
    }
}

/// Longest prefix match: one hash per prefix length in use, longest first.
#[derive(Debug, Clone)]
struct PrefixTable<T> {
    v4: Vec<(u8, FxHashMap<u32, T>)>,
    v6: Vec<(u8, FxHashMap<u128, T>)>,
    any: Option<Box<T>>,
}

impl<T> Default for PrefixTable<T> {
    fn default() -> Self {
        Self {
            v4: Vec::new(),
            v6: Vec::new(),
            any: None,
        }
    }
}

impl<T: Default> PrefixTable<T> {
    fn entry(&mut self, net: Option<IpNet>) -> &mut T {
        match net {
            None => self.any.get_or_insert_default(),
            Some(IpNet::V4(net)) => {
                let key = u32::from(net.trunc().network());
                by_length(&mut self.v4, net.prefix_len())
                    .entry(key)
                    .or_default()
            }
            Some(IpNet::V6(net)) => {
                let key = u128::from(net.trunc().network());
                by_length(&mut self.v6, net.prefix_len())
                    .entry(key)
                    .or_default()
            }
        }
    }

    fn get(&self, ip: IpAddr) -> Option<&T> {
        let found = match ip {
            IpAddr::V4(ip) => self.v4.iter().find_map(|(length, table)| {
                let net = Ipv4Net::new(ip, *length).ok()?;
                table.get(&u32::from(net.network()))
            }),
            IpAddr::V6(ip) => self.v6.iter().find_map(|(length, table)| {
                let net = Ipv6Net::new(ip, *length).ok()?;
                table.get(&u128::from(net.network()))
            }),
        };
        found.or(self.any.as_deref())
    }
}

/// The table for one prefix length, in a list kept longest first.
fn by_length<K, T>(tables: &mut Vec<(u8, FxHashMap<K, T>)>, length: u8) -> &mut FxHashMap<K, T> {
    let position = tables.partition_point(|(other, _)| *other > length);
    if tables
        .get(position)
        .is_none_or(|(other, _)| *other != length)
    {
        tables.insert(position, (length, FxHashMap::default()));
    }
    // The entry was found or made just above.
    #[expect(
        clippy::indexing_slicing,
        reason = "position was checked or inserted above"
    )]
    &mut tables[position].1
}

impl FilterChains {
    pub(crate) fn compile(
        chains: Vec<Arc<Chain>>,
        default: Option<Arc<Chain>>,
    ) -> Result<Self, CompileError> {
        let mut table = DestinationPorts::default();
        for (index, chain) in chains.iter().enumerate() {
            insert(&mut table, &chain.config.matches, index as ChainIndex).map_err(|()| {
                CompileError::new(
                    format!("filter_chains[{index}].filter_chain_match"),
                    "multiple filter chains with overlapping matching rules are defined",
                )
            })?;
        }
        Ok(Self {
            chains,
            default,
            table,
        })
    }

    /// The chain for a connection; the default chain when none matches.
    pub fn find(&self, meta: &ConnMeta<'_>) -> Option<&Arc<Chain>> {
        self.find_matching(meta).or(self.default.as_ref())
    }

    fn find_matching(&self, meta: &ConnMeta<'_>) -> Option<&Arc<Chain>> {
        let destination_ips = self
            .table
            .get(&meta.destination.port())
            .or_else(|| self.table.get(&0))?;
        let server_names = destination_ips.get(meta.destination.ip())?;
        let transports = by_server_name(server_names, meta.server_name)?;
        let protocols = transports.get(meta.transport_protocol)?;
        let direct_sources = meta
            .application_protocols
            .iter()
            .find_map(|protocol| protocols.named.get(protocol))
            .or(protocols.any.as_deref())?;
        let types = direct_sources.get(meta.direct_source.ip())?;
        let specific = if types.same_ip_or_loopback.is_none() && types.external.is_none() {
            None
        } else if meta.is_same_ip_or_loopback() {
            types.same_ip_or_loopback.as_ref()
        } else {
            types.external.as_ref()
        };
        let source_ips = specific.or(types.any.as_ref())?;
        let ports = source_ips.get(meta.source.ip())?;
        let index = ports.get(&meta.source.port()).or_else(|| ports.get(&0))?;
        self.chains.get(*index as usize)
    }

    /// In the order of the configuration, without the default chain.
    pub fn chains(&self) -> &[Arc<Chain>] {
        &self.chains
    }

    /// With the default chain.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Chain>> {
        self.chains.iter().chain(&self.default)
    }

    pub fn default_chain(&self) -> Option<&Arc<Chain>> {
        self.default.as_ref()
    }
}

/// Exact, then `*.suffix` from the longest, then no requirement.
fn by_server_name<'t>(table: &'t ServerNames, server_name: &str) -> Option<&'t TransportProtocols> {
    if !table.named.is_empty() && !server_name.is_empty() {
        if let Some(found) = table.named.get(server_name) {
            return Some(found);
        }
        let mut rest = server_name;
        // Wildcards are stored with their leading dot; a name never matches the wildcard of itself.
        while let Some(dot) = rest.get(1..).and_then(|tail| tail.find('.')) {
            rest = rest.get(dot + 1..).unwrap_or("");
            if rest.len() < 2 {
                break;
            }
            if let Some(found) = table.named.get(rest) {
                return Some(found);
            }
        }
    }
    table.any.as_deref()
}

fn insert(
    ports: &mut DestinationPorts,
    matches: &FilterChainMatch,
    chain: ChainIndex,
) -> Result<(), ()> {
    let destination_ips = ports
        .entry(matches.destination_port.unwrap_or(0))
        .or_default();
    for destination in nets(&matches.prefix_ranges) {
        let server_names = destination_ips.entry(destination);
        for server_name in names(&matches.server_names) {
            let stored = server_name.map(|name| match name.strip_prefix('*') {
                Some(suffix) => Name::from(suffix.to_ascii_lowercase()),
                None => Name::from(name.to_ascii_lowercase()),
            });
            let transports = server_names.entry(stored.as_ref());
            let protocols = transports.entry(matches.transport_protocol.as_ref());
            for protocol in names(&matches.application_protocols) {
                let direct_sources = protocols.entry(protocol);
                for direct_source in nets(&matches.direct_source_prefix_ranges) {
                    let types = direct_sources.entry(direct_source);
                    let source_ips = match matches.source_type {
                        SourceType::Any => &mut types.any,
                        SourceType::SameIpOrLoopback => &mut types.same_ip_or_loopback,
                        SourceType::External => &mut types.external,
                    }
                    .get_or_insert_default();
                    for source in nets(&matches.source_prefix_ranges) {
                        insert_ports(source_ips.entry(source), &matches.source_ports, chain)?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn insert_ports(table: &mut SourcePorts, ports: &[u16], chain: ChainIndex) -> Result<(), ()> {
    let any = [0_u16];
    let ports = if ports.is_empty() { &any[..] } else { ports };
    for port in ports {
        if table.insert(*port, chain).is_some() {
            return Err(());
        }
    }
    Ok(())
}

/// Each net, or once `None` when there is no requirement.
fn nets(nets: &[IpNet]) -> impl Iterator<Item = Option<IpNet>> {
    let any = nets.is_empty().then_some(None);
    nets.iter().copied().map(Some).chain(any)
}

/// An empty name is no requirement either.
fn names(names: &[Name]) -> impl Iterator<Item = Option<&Name>> {
    let any = names.is_empty().then_some(None);
    names
        .iter()
        .map(|name| Some(name).filter(|name| !name.is_empty()))
        .chain(any)
}

#[cfg(test)]
mod tests;
