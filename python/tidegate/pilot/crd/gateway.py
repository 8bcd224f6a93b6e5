"""`Gateway`: ports that a router opens, and for which hosts. Plain HTTP servers only."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.pilot.crd.meta import Meta, read_meta
from tidegate.pilot.crd.reader import Mapping, Value, labels


@dataclass(frozen=True)
class Server:
    """`hosts` without the `namespace/` part: DNS names, `*.suffix` or `*`."""

    port: int
    name: str
    hosts: tuple[str, ...]
    bind: str


@dataclass(frozen=True)
class Gateway:
    meta: Meta
    selector: dict[str, str]
    servers: tuple[Server, ...]


def _server(value: Value) -> Server:
    server = value.mapping()
    port = server.need("port").mapping()
    number = port.need("number").port()
    port.need("protocol").one_of(("HTTP",), unsupported=("HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "TCP", "TLS"))
    name = port.read("name", Value.string, "")
    port.skip("targetPort")
    port.finish()
    hosts_field = server.need("hosts")

    def host(item: Value) -> str:
        namespace, slash, _ = item.string().partition("/")
        if slash and namespace != "*":
            item.refuse("a namespace before the host is not supported")
        if slash:
            item.refuse("write the host without */")
        return item.host()

    hosts = tuple(host(item) for item in hosts_field.items())
    if not hosts:
        hosts_field.refuse("needs at least one host")
    tls = server.take("tls")
    if tls is not None:
        tls.refuse("is not supported")
    read = Server(port=number, name=name, hosts=hosts, bind=server.read("bind", Value.address, "0.0.0.0"))
    server.skip("name")
    server.finish()
    return read


def read_gateway(document: Mapping) -> Gateway:
    meta = read_meta(document)
    spec = document.need("spec").mapping()
    selector = labels(spec, "selector")
    servers = spec.sequence("servers", _server)
    if not servers:
        spec.need("servers")
    spec.finish()
    document.skip("status")
    return Gateway(meta=meta, selector=selector, servers=servers)
