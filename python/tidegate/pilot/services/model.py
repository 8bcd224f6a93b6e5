"""Services, their ports and their endpoints, whatever registry they came from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Protocol(Enum):
    """What is spoken on a service port."""

    HTTP = "HTTP"
    HTTP2 = "HTTP2"
    GRPC = "GRPC"
    HTTPS = "HTTPS"
    TCP = "TCP"
    UDP = "UDP"

    @property
    def is_http(self) -> bool:
        """Handled by the HTTP connection manager; HTTPS is opaque and counts as TCP."""
        return self in (Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC)

    @property
    def is_http2(self) -> bool:
        return self in (Protocol.HTTP2, Protocol.GRPC)


_BY_WORD = {
    "http": Protocol.HTTP,
    "grpc-web": Protocol.HTTP,
    "http2": Protocol.HTTP2,
    "kubernetes.io/h2c": Protocol.HTTP2,
    "grpc": Protocol.GRPC,
    "https": Protocol.HTTPS,
    "tls": Protocol.HTTPS,
    "udp": Protocol.UDP,
}


def protocol_of(name: str, app_protocol: str | None = None, transport: str = "TCP") -> Protocol:
    """The protocol that a port's name declares by its prefix (`http-reviews`), or its `appProtocol`.

    As in Istio 1.0 a port that declares nothing is TCP.
    """
    if transport != "TCP":
        return Protocol.UDP
    word = (app_protocol or name).lower()
    if word in _BY_WORD:
        return _BY_WORD[word]
    if app_protocol is None:
        if word.startswith("grpc-web-"):
            return Protocol.HTTP
        return _BY_WORD.get(word.partition("-")[0], Protocol.TCP)
    return Protocol.TCP


class Resolution(Enum):
    """How a proxy comes by the addresses behind a service."""

    #: Endpoints are known here and delivered by EDS.
    ENDPOINTS = "ClientSideLB"
    #: Every address that DNS returns is a host.
    DNS = "DNSLB"
    #: One host, reconnected as DNS changes.
    DNS_ROUND_ROBIN = "DNSRoundRobinLB"
    #: The address the application dialled.
    PASSTHROUGH = "Passthrough"


@dataclass(frozen=True)
class Port:
    name: str
    number: int
    protocol: Protocol


@dataclass(frozen=True)
class Endpoint:
    """One address and port behind one port of a service. For DNS resolution `address` is a host name."""

    service_port: int
    address: str
    port: int
    labels: tuple[tuple[str, str], ...] = ()
    locality: str = ""
    weight: int = 1
    #: `kubernetes://pod.namespace`, where a pod is known.
    uid: str = ""
    service_account: str = ""

    def has_labels(self, wanted: dict[str, str]) -> bool:
        return wanted.items() <= dict(self.labels).items()


@dataclass(frozen=True)
class Service:
    """A host name with ports. `addresses` are its virtual IPs; empty for a headless service."""

    hostname: str
    namespace: str
    addresses: tuple[str, ...]
    ports: tuple[Port, ...]
    resolution: Resolution
    registry: str
    mesh_external: bool = False
    where: str = ""

    def port(self, number: int) -> Port | None:
        return next((port for port in self.ports if port.number == number), None)
