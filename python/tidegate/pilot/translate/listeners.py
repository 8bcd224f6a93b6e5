"""Listeners: the virtual one that everything is redirected to, and those it hands connections on to.

A workload without redirection gets listeners that open their ports themselves; a router gets its gateways' ports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tidegate.pilot.crd.virtual_service import MESH, TcpMatch, TcpRule
from tidegate.pilot.services.model import Port, Protocol, Resolution, Service
from tidegate.pilot.services.snapshot import MeshSnapshot
from tidegate.pilot.translate import names, wire
from tidegate.pilot.translate.actions import cluster_of
from tidegate.pilot.translate.inbound import InboundPort, inbound_ports
from tidegate.pilot.translate.proxy import ProxyView
from tidegate.pilot.translate.routes import inbound_routes
from tidegate.pilot.translate.settings import MeshSettings

_VIRTUAL_PORT: Final = 15001
_NOT_BOUND: Final = {"value": False}
_HTTP_FILTERS: Final = [
    wire.typed(wire.CORS, wire.Cors()),
    wire.typed(wire.FAULT, wire.HttpFault()),
    wire.typed(wire.ROUTER, wire.Router()),
]


def _access_log(settings: MeshSettings) -> list[dict[str, Any]]:
    if not settings.access_log_file:
        return []
    return [wire.typed(wire.FILE_ACCESS_LOG, wire.FileAccessLog(path=settings.access_log_file))]


def _http_manager(settings: MeshSettings, stat_prefix: str, *, edge: bool = False, **routes: Any) -> dict[str, Any]:
    """The connection manager of the seed. `edge`: the peer is a client from outside, whose headers are not trusted."""
    fields: dict[str, Any] = {
        "stat_prefix": stat_prefix,
        "http_filters": _HTTP_FILTERS,
        "access_log": _access_log(settings),
        "use_remote_address": {"value": edge},
        "stream_idle_timeout": wire.ZERO,
        "generate_request_id": {"value": True},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        **routes,
    }
    if settings.enable_tracing:
        everything = {"value": 100.0}
        fields["tracing"] = {
            "client_sampling": everything,
            "random_sampling": everything,
            "overall_sampling": everything,
        }
    return wire.typed(wire.HTTP_CONNECTION_MANAGER, wire.HttpConnectionManager(**fields))


def _rds(name: str) -> dict[str, Any]:
    return {"rds": {"route_config_name": name, "config_source": wire.ADS}}


def _tcp_proxy(settings: MeshSettings, stat_prefix: str, clusters: list[tuple[str, int]]) -> dict[str, Any]:
    fields: dict[str, Any] = {"stat_prefix": stat_prefix, "access_log": _access_log(settings)}
    if len(clusters) == 1:
        fields["cluster"] = clusters[0][0]
    else:
        fields["weighted_clusters"] = {"clusters": [{"name": name, "weight": weight} for name, weight in clusters]}
    return wire.typed(wire.TCP_PROXY, wire.TcpProxy(**fields))


def _virtual(settings: MeshSettings) -> Any:
    fallback = names.PASSTHROUGH if settings.outbound_traffic_policy == "ALLOW_ANY" else names.BLACK_HOLE
    return wire.Listener(
        name="virtual",
        address=wire.address("0.0.0.0", _VIRTUAL_PORT),
        use_original_dst={"value": True},
        traffic_direction="OUTBOUND",
        filter_chains=[{"filters": [_tcp_proxy(settings, fallback, [(fallback, 1)])]}],
    )


def _inbound(settings: MeshSettings, port: InboundPort) -> Any:
    name = names.listener(port.address, port.port)
    if port.protocol.is_http:
        network_filter = _http_manager(settings, name, route_config=inbound_routes(port))
    else:
        network_filter = _tcp_proxy(settings, port.cluster, [(port.cluster, 1)])
    listener = wire.Listener(
        name=name,
        address=wire.address(port.address, port.port),
        traffic_direction="INBOUND",
        filter_chains=[{"filters": [network_filter]}],
    )
    if not port.bind:
        listener.bind_to_port.value = False
    return listener


def _outbound_http(settings: MeshSettings, port: int) -> Any:
    name = names.listener("0.0.0.0", port)
    return wire.Listener(
        name=name,
        address=wire.address("0.0.0.0", port),
        bind_to_port=_NOT_BOUND,
        traffic_direction="OUTBOUND",
        filter_chains=[{"filters": [_http_manager(settings, name, **_rds(str(port)))]}],
    )


def _tcp_chains(
    settings: MeshSettings, view: ProxyView, snapshot: MeshSnapshot, service: Service, port: Port
) -> list[dict[str, Any]]:
    """The filter chains of a TCP service: one per match of its rules, then what catches the rest."""
    chains: list[dict[str, Any]] = []
    owner = snapshot.virtual_service(service.hostname)
    for rule in owner.tcp if owner is not None else ():
        live = [route for route in rule.routes if route.weight > 0]
        clusters = [(cluster_of(snapshot, route.destination, port.number), route.weight) for route in live]
        stat_prefix = clusters[0][0] if len(clusters) == 1 else f"{service.hostname}:{port.number}"
        filters = [_tcp_proxy(settings, stat_prefix, clusters)]
        for match in _tcp_matches(rule, view, port.number):
            if not match.destination_subnets:
                return [*chains, {"filters": filters}]
            chains.append({"filters": filters, "filter_chain_match": {"prefix_ranges": _ranges(match)}})
    cluster = names.outbound(port.number, "", service.hostname)
    return [*chains, {"filters": [_tcp_proxy(settings, cluster, [(cluster, 1)])]}]


def _tcp_matches(rule: TcpRule, view: ProxyView, port: int) -> Iterator[TcpMatch]:
    for match in rule.matches or (TcpMatch(),):
        if match.port is not None and match.port != port:
            continue
        if match.gateways and MESH not in match.gateways:
            continue
        if view.matches(match.source_labels, match.source_namespace):
            yield match


def _ranges(match: TcpMatch) -> list[dict[str, Any]]:
    ranges = []
    for subnet in match.destination_subnets:
        prefix, _, length = subnet.partition("/")
        ranges.append({"address_prefix": prefix, "prefix_len": {"value": int(length)}})
    return ranges


def _tcp_addresses(service: Service, port: Port, snapshot: MeshSnapshot) -> list[tuple[str, int]]:
    """Where callers of a TCP service connect to: its virtual IPs, else each endpoint, else any address."""
    if service.addresses:
        return [(address, port.number) for address in service.addresses]
    if service.resolution is Resolution.ENDPOINTS:
        return [(found.address, found.port) for found in snapshot.endpoints_of(service.hostname, port.number, {})]
    return [("0.0.0.0", port.number)]


@dataclass(frozen=True)
class OutboundPlan:
    """Which service has each outbound address; `None` for the HTTP services of a port, which share one listener."""

    owners: Mapping[tuple[str, int], tuple[Service, Port] | None]
    conflicts: tuple[str, ...]


def plan_outbound(view: ProxyView, snapshot: MeshSnapshot) -> OutboundPlan:
    """HTTP and TCP services cannot share an address: the one that comes first in order of names has it."""
    owners: dict[tuple[str, int], tuple[Service, Port] | None] = {}
    conflicts: list[str] = []
    own = {(port.address, port.port) for port in inbound_ports(view)}
    for service in snapshot.services.values():
        for port in service.ports:
            if port.protocol is Protocol.UDP:
                continue
            http = port.protocol.is_http
            wanted = [("0.0.0.0", port.number)] if http else _tcp_addresses(service, port, snapshot)
            for address in wanted:
                if address in own:
                    continue
                held = owners.setdefault(address, None if http else (service, port))
                mine = held is None if http else held is not None and held[0] is service
                if not mine:
                    holder = f"TCP service {held[0].hostname}" if held else "HTTP"
                    what = "HTTP" if http else "TCP"
                    conflicts.append(
                        f"{what} service {service.hostname} has no listener: {names.listener(*address)} is {holder}"
                    )
    return OutboundPlan(owners, tuple(conflicts))


def _outbound(settings: MeshSettings, view: ProxyView, snapshot: MeshSnapshot) -> Iterator[Any]:
    for (address, number), owner in sorted(plan_outbound(view, snapshot).owners.items(), key=lambda item: item[0]):
        if owner is None:
            yield _outbound_http(settings, number)
            continue
        service, port = owner
        yield wire.Listener(
            name=names.listener(address, number),
            address=wire.address(address, number),
            bind_to_port=_NOT_BOUND,
            traffic_direction="OUTBOUND",
            filter_chains=_tcp_chains(settings, view, snapshot, service, port),
        )


def _http_proxies(settings: MeshSettings, view: ProxyView) -> Iterator[Any]:
    """For want of redirection: ports that the application uses as its HTTP proxy."""
    ports = [("127.0.0.1", settings.proxy_http_port)]
    if view.sidecar is not None and view.sidecar.egress:
        ports = [(listener.bind, listener.port) for listener in view.sidecar.egress]
    for bind, port in ports:
        name = names.listener(bind, port)
        yield wire.Listener(
            name=name,
            address=wire.address(bind, port),
            traffic_direction="OUTBOUND",
            filter_chains=[{"filters": [_http_manager(settings, name, **_rds(names.HTTP_PROXY))]}],
        )


def _gateways(settings: MeshSettings, view: ProxyView) -> Iterator[Any]:
    opened: set[tuple[str, int]] = set()
    for gateway in view.gateways:
        for server in gateway.servers:
            if (server.bind, server.port) in opened:
                continue
            opened.add((server.bind, server.port))
            name = names.listener(server.bind, server.port)
            manager = _http_manager(settings, name, edge=True, **_rds(names.gateway_routes(server.port)))
            yield wire.Listener(
                name=name,
                address=wire.address(server.bind, server.port),
                traffic_direction="OUTBOUND",
                filter_chains=[{"filters": [manager]}],
            )


def listeners(view: ProxyView, snapshot: MeshSnapshot, settings: MeshSettings) -> Iterator[Any]:
    """Everything a proxy listens on, the virtual listener first."""
    if view.is_router:
        yield from _gateways(settings, view)
        return
    if view.redirected:
        yield _virtual(settings)
    for port in inbound_ports(view):
        yield _inbound(settings, port)
    if view.redirected:
        yield from _outbound(settings, view, snapshot)
    else:
        yield from _http_proxies(settings, view)
