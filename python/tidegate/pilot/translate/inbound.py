"""The ports of a workload that its sidecar serves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tidegate.pilot.services.model import Protocol
from tidegate.pilot.translate import names
from tidegate.pilot.translate.proxy import ProxyView


@dataclass(frozen=True)
class InboundPort:
    """Traffic to `address:port` goes to the application at `app_address:app_port`."""

    address: str
    port: int
    protocol: Protocol
    cluster: str
    app_address: str
    app_port: int
    #: Whether the listener opens the port itself, for want of redirection.
    bind: bool


def inbound_ports(view: ProxyView) -> Iterator[InboundPort]:
    """From the Sidecar resource where it says so, else from the services that the workload is an endpoint of.

    Several services may name the same port; the first one gives it its name.
    """
    if view.is_router:
        return
    address = view.node.ip
    if view.sidecar is not None and view.sidecar.ingress:
        for listener in view.sidecar.ingress:
            own_name = names.inbound(listener.port, f"{view.sidecar.meta.name}.{view.sidecar.meta.namespace}")
            owners = (
                names.inbound(endpoint.service_port, service.hostname)
                for service, endpoint in view.instances
                if endpoint.port == listener.port
            )
            yield InboundPort(
                address=listener.bind or address,
                port=listener.port,
                protocol=Protocol(listener.protocol),
                cluster=next(owners, own_name),
                app_address=listener.endpoint_address,
                app_port=listener.endpoint_port,
                bind=True,
            )
        return
    loopback = "::1" if ":" in address else "127.0.0.1"
    seen: set[int] = set()
    for service, endpoint in view.instances:
        port = service.port(endpoint.service_port)
        if port is None or port.protocol is Protocol.UDP or endpoint.port in seen:
            continue
        seen.add(endpoint.port)
        yield InboundPort(
            address=address,
            port=endpoint.port,
            protocol=port.protocol,
            cluster=names.inbound(port.number, service.hostname),
            app_address=loopback,
            app_port=endpoint.port,
            bind=not view.redirected,
        )
