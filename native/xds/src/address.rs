//! `core.v3.Address`, `SocketAddress` and `CidrRange`.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use tidegate_model::Name;
use tidegate_model::bootstrap::AdminAddress;
use tidegate_model::cluster::Address;

use crate::context::Result;
use crate::fields::Fields;

/// An `Address` that must be an IP address and a port.
pub(crate) fn socket(address: &Fields<'_>) -> Result<SocketAddr> {
    address.need("socket_address", bare_socket)
}

/// A `SocketAddress` that must be an IP address and a port.
pub(crate) fn bare_socket(fields: &Fields<'_>) -> Result<SocketAddr> {
    let (host, port) = host_and_port(fields)?;
    let ip: IpAddr = host
        .parse()
        .map_err(|_| fields.fault("address", format!("malformed IP address: {host}")))?;
    Ok(SocketAddr::new(ip, port))
}

/// The `Address` of an endpoint; a name is accepted where it will be resolved.
pub(crate) fn endpoint(address: &Fields<'_>, dns: bool) -> Result<Address> {
    if let Some(pipe) = address.opt("pipe", pipe)? {
        return Ok(Address::Pipe(pipe));
    }
    address.need("socket_address", |fields| {
        let (host, port) = host_and_port(fields)?;
        match host.parse::<IpAddr>() {
            Ok(ip) => Ok(Address::Socket(SocketAddr::new(ip, port))),
            Err(_) if dns => Ok(Address::Dns {
                host: Name::from(host),
                port,
            }),
            Err(_) => Err(fields.fault("address", malformed(host))),
        }
    })
}

/// Where datagrams go; `protocol` says nothing that the sink does not.
pub(crate) fn datagrams(address: &Fields<'_>) -> Result<SocketAddr> {
    address.need("socket_address", |fields| {
        fields.choice("protocol", &[("TCP", ()), ("UDP", ())])?;
        let host = fields.str("address");
        let port = u16::try_from(fields.u32("port_value")).unwrap_or_default();
        let ip: IpAddr = host
            .parse()
            .map_err(|_| fields.fault("address", malformed(host)))?;
        Ok(SocketAddr::new(ip, port))
    })
}

/// The admin's `Address`.
pub(crate) fn admin(address: &Fields<'_>) -> Result<AdminAddress> {
    match address.opt("pipe", pipe)? {
        Some(path) => Ok(AdminAddress::Pipe(path)),
        None => socket(address).map(AdminAddress::Socket),
    }
}

fn pipe(fields: &Fields<'_>) -> Result<Name> {
    Ok(fields.string("path"))
}

fn host_and_port<'a>(fields: &Fields<'a>) -> Result<(&'a str, u16)> {
    fields.choice("protocol", &[("TCP", ())])?;
    let host = fields.str("address");
    let port = u16::try_from(fields.u32("port_value")).unwrap_or_default();
    Ok((host, port))
}

fn malformed(host: &str) -> String {
    format!(
        "malformed IP address: {host}. Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or \
         'LOGICAL_DNS'"
    )
}

/// A repeated `CidrRange`, host bits cleared.
pub(crate) fn cidr_ranges(fields: &Fields<'_>, name: &str) -> Result<Vec<IpNet>> {
    fields.each(name, cidr_range)
}

/// A `CidrRange`, host bits cleared.
pub(crate) fn cidr_range(range: &Fields<'_>) -> Result<IpNet> {
    let prefix = range.str("address_prefix");
    let ip: IpAddr = prefix
        .parse()
        .map_err(|_| range.fault("address_prefix", format!("malformed IP address: {prefix}")))?;
    // Longer than the address is the whole address, as Envoy has it.
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let length = u8::try_from(range.u32("prefix_len")).map_or(most, |length| length.min(most));
    IpNet::new(ip, length)
        .map(|net| net.trunc())
        .map_err(|error| range.fault("prefix_len", error.to_string()))
}
