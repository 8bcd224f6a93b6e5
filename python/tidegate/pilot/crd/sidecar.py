"""`Sidecar`: explicit listeners for a workload whose traffic is not redirected by iptables.

Read as far as that needs: an ingress listener that forwards to the application's own address, and an egress listener
that is an HTTP proxy. Scoping what a sidecar may reach (`egress.hosts` other than everything) is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.pilot.crd.meta import Meta, read_meta
from tidegate.pilot.crd.reader import Mapping, Value, labels


@dataclass(frozen=True)
class IngressListener:
    """`bind` is `None` for the workload's own address; the application is at `endpoint_address:endpoint_port`."""

    port: int
    protocol: str
    name: str
    bind: str | None
    endpoint_address: str
    endpoint_port: int


@dataclass(frozen=True)
class EgressListener:
    """An HTTP proxy that the application is pointed at (`http_proxy`)."""

    port: int
    bind: str


@dataclass(frozen=True)
class Sidecar:
    meta: Meta
    selector: dict[str, str]
    ingress: tuple[IngressListener, ...]
    egress: tuple[EgressListener, ...]


def _port(value: Value, protocols: tuple[str, ...]) -> tuple[int, str, str]:
    port = value.mapping()
    read = (
        port.need("number").port(),
        port.need("protocol").one_of(protocols),
        port.read("name", Value.string, ""),
    )
    port.finish()
    return read


def _mode(listener: Mapping) -> None:
    mode = listener.take("captureMode")
    if mode is None or mode.one_of(("DEFAULT", "NONE", "IPTABLES")) != "NONE":
        (mode or listener).refuse("captureMode must be NONE: redirected listeners need no Sidecar")


def _ingress(value: Value) -> IngressListener:
    listener = value.mapping()
    port, protocol, name = _port(listener.need("port"), ("HTTP", "TCP"))
    _mode(listener)
    bind = listener.optional("bind", Value.address)
    endpoint = listener.need("defaultEndpoint")
    host, _, number = endpoint.string().rpartition(":")
    if host not in ("127.0.0.1", "[::1]") or not number.isdigit() or not 0 < int(number) < 65536:
        endpoint.refuse(f"must be 127.0.0.1:PORT or [::1]:PORT, is {endpoint.string()!r}")
    listener.finish()
    return IngressListener(port, protocol, name, bind, host.strip("[]"), int(number))


def _egress(value: Value) -> EgressListener:
    listener = value.mapping()
    port, _, _ = _port(listener.need("port"), ("HTTP_PROXY",))
    _mode(listener)
    bind = listener.read("bind", Value.address, "127.0.0.1")
    hosts = listener.need("hosts")
    if [item.string() for item in hosts.items()] != ["*/*"]:
        hosts.refuse('only "*/*" is supported')
    listener.finish()
    return EgressListener(port, bind)


def read_sidecar(document: Mapping) -> Sidecar:
    meta = read_meta(document)
    spec = document.need("spec").mapping()
    selector_field = spec.need("workloadSelector").mapping()
    selector = labels(selector_field, "labels")
    if not selector:
        selector_field.need("labels")
    selector_field.finish()
    sidecar = Sidecar(
        meta=meta,
        selector=selector,
        ingress=spec.sequence("ingress", _ingress),
        egress=spec.sequence("egress", _egress),
    )
    spec.finish()
    document.skip("status")
    return sidecar
