"""Route configurations: one per outbound HTTP port, one for HTTP proxies, one per gateway or inbound port."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tidegate.pilot.crd.virtual_service import MESH, HttpMatch, HttpRule, VirtualService
from tidegate.pilot.services.hosts import covers
from tidegate.pilot.services.model import Port, Service
from tidegate.pilot.services.snapshot import MeshSnapshot
from tidegate.pilot.translate import names, wire
from tidegate.pilot.translate.actions import cluster_of, plain_forward, rule_action
from tidegate.pilot.translate.inbound import InboundPort
from tidegate.pilot.translate.matches import catches_all, described_path, route_match
from tidegate.pilot.translate.proxy import ProxyView
from tidegate.pilot.translate.settings import MeshSettings

_ANYTHING = HttpMatch()


def _applies(match: HttpMatch, view: ProxyView, port: int, gateways: tuple[str, ...]) -> bool:
    if match.port is not None and match.port != port:
        return False
    if match.gateways and not any(_qualified(name, view) in gateways for name in match.gateways):
        return False
    return view.is_router or view.matches(match.source_labels, match.source_namespace)


def _qualified(name: str, view: ProxyView) -> str:
    return name if name == MESH or "/" in name else f"{view.node.namespace}/{name}"


def _route_name(rule: HttpRule, match: HttpMatch) -> str:
    return ".".join(part for part in (rule.name, match.name) if part)


def _operation(snapshot: MeshSnapshot, owner: VirtualService, rule: HttpRule, match: HttpMatch, port: int) -> str:
    """Names a traced call: by its destination where there is one, else by the rule."""
    subject = f"{owner.meta.name}:{port}"
    if len(rule.routes) == 1:
        _, number, _, host = cluster_of(snapshot, rule.routes[0].destination, port).split("|")
        subject = f"{host}:{number}"
    return f"{subject}{described_path(match)}"


def rule_routes(
    owner: VirtualService, view: ProxyView, snapshot: MeshSnapshot, port: int, gateways: tuple[str, ...] = (MESH,)
) -> Iterator[dict[str, Any]]:
    """The rules of a virtual service in their order, one route per match, up to the first that catches everything."""
    for rule in owner.http:
        matches = [match for match in rule.matches if _applies(match, view, port, gateways)]
        for match in matches if rule.matches else [_ANYTHING]:
            route: dict[str, Any] = {
                "name": _route_name(rule, match),
                "match": route_match(match),
                **rule_action(snapshot, rule, port),
            }
            if "route" in route:
                route["decorator"] = {"operation": _operation(snapshot, owner, rule, match, port)}
            yield route
            if catches_all(match):
                return


def _default_route(service: Service, port: Port) -> dict[str, Any]:
    return {
        "match": {"prefix": "/"},
        "route": plain_forward(names.outbound(port.number, "", service.hostname)),
        "decorator": {"operation": f"{service.hostname}:{port.number}/*"},
    }


def _service_routes(view: ProxyView, snapshot: MeshSnapshot, service: Service, port: Port) -> list[dict[str, Any]]:
    rule = snapshot.virtual_service(service.hostname)
    if rule is None or not rule.http:
        return [_default_route(service, port)]
    return list(rule_routes(rule, view, snapshot, port.number))


class _Domains:
    """Hands out domains; Envoy refuses a route configuration in which one appears twice."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def claim(self, wanted: Iterator[str]) -> list[str]:
        free = [domain for domain in dict.fromkeys(wanted) if domain not in self._taken]
        self._taken.update(free)
        return free


def _service_domains(service: Service, port: int, proxy_domain: str, *, bare: bool = True) -> Iterator[str]:
    """Every form of the host and the virtual IPs, each without (where `bare`) and with the port."""
    forms = [*names.host_forms(service.hostname, proxy_domain), *map(names.literal, service.addresses)]
    for form in forms:
        if bare:
            yield form
        yield f"{form}:{port}"


def _rule_only_hosts(view: ProxyView, snapshot: MeshSnapshot, port: int, domains: _Domains) -> Iterator[dict[str, Any]]:
    """Hosts that only a rule knows, no registry: reachable on port 80, as in Istio."""
    if port != 80:
        return
    for host, rule in snapshot.mesh_rules.items():
        if not rule.http or any(covers(host, hostname) for hostname in snapshot.services):
            continue
        routes = list(rule_routes(rule, view, snapshot, port))
        claimed = domains.claim(iter((host, f"{names.literal(host)}:{port}")))
        if claimed and routes:
            yield {"name": f"{host}:{port}", "domains": claimed, "routes": routes}


def _anywhere(settings: MeshSettings) -> Iterator[dict[str, Any]]:
    """Where unknown hosts may be called: the virtual host that sends them on to the address they were sent to."""
    if settings.outbound_traffic_policy == "ALLOW_ANY":
        route = {"match": {"prefix": "/"}, "route": plain_forward(names.PASSTHROUGH)}
        yield {"name": "allow_any", "domains": ["*"], "routes": [route]}


def outbound_routes(view: ProxyView, snapshot: MeshSnapshot, settings: MeshSettings, port: int) -> Any:
    """The route configuration named by a port: a virtual host per HTTP service with that port."""
    domains = _Domains()
    hosts = []
    for service in snapshot.services.values():
        found = service.port(port)
        if found is None or not found.protocol.is_http:
            continue
        claimed = domains.claim(_service_domains(service, port, view.node.domain))
        routes = _service_routes(view, snapshot, service, found)
        if claimed:
            hosts.append({"name": f"{service.hostname}:{port}", "domains": claimed, "routes": routes})
    hosts.extend(_rule_only_hosts(view, snapshot, port, domains))
    hosts.extend(_anywhere(settings))
    return wire.RouteConfiguration(name=str(port), virtual_hosts=hosts, validate_clusters={"value": False})


def proxy_routes(view: ProxyView, snapshot: MeshSnapshot) -> Any:
    """The route configuration of an explicit HTTP proxy: every HTTP service, told apart by host and port."""
    domains = _Domains()
    hosts = []
    for service in snapshot.services.values():
        for port in service.ports:
            if not port.protocol.is_http:
                continue
            claimed = domains.claim(_service_domains(service, port.number, view.node.domain, bare=port.number == 80))
            routes = _service_routes(view, snapshot, service, port)
            if claimed:
                hosts.append({"name": f"{service.hostname}:{port.number}", "domains": claimed, "routes": routes})
    hosts.extend(_rule_only_hosts(view, snapshot, 80, domains))
    return wire.RouteConfiguration(name=names.HTTP_PROXY, virtual_hosts=hosts, validate_clusters={"value": False})


def gateway_routes(view: ProxyView, snapshot: MeshSnapshot, port: int) -> Any:
    """The route configuration of a gateway port: the rules bound to gateways that open it.

    Rules for the same host are taken together in order of namespace and name.
    """
    by_host: dict[str, list[dict[str, Any]]] = {}
    for gateway in view.gateways:
        name = f"{gateway.meta.namespace}/{gateway.meta.name}"
        served = [host for server in gateway.servers if server.port == port for host in server.hosts]
        for rule in snapshot.virtual_services:
            if name not in rule.gateways or not rule.http:
                continue
            for host in rule.hosts:
                if any(covers(pattern, host) or covers(host, pattern) for pattern in served):
                    by_host.setdefault(host, []).extend(rule_routes(rule, view, snapshot, port, (name,)))
    domains = _Domains()
    hosts = []
    for host, routes in by_host.items():
        wanted = ("*",) if host == "*" else (host, f"{names.literal(host)}:{port}")
        claimed = domains.claim(iter(wanted))
        if claimed and routes:
            hosts.append({"name": f"{host}:{port}", "domains": claimed, "routes": routes})
    return wire.RouteConfiguration(
        name=names.gateway_routes(port), virtual_hosts=hosts, validate_clusters={"value": False}
    )


def inbound_routes(port: InboundPort) -> dict[str, Any]:
    """The inline route configuration of an inbound listener: everything goes to the application."""
    _, number, _, host = port.cluster.split("|")
    route = {
        "match": {"prefix": "/"},
        "route": plain_forward(port.cluster),
        "decorator": {"operation": f"{host}:{number}/*"},
    }
    return {
        "name": port.cluster,
        "virtual_hosts": [{"name": f"inbound|http|{number}", "domains": ["*"], "routes": [route]}],
        "validate_clusters": {"value": False},
    }


def route_configuration(view: ProxyView, snapshot: MeshSnapshot, settings: MeshSettings, name: str) -> Any | None:
    """The route configuration that a listener of this proxy asked for by name."""
    if name == names.HTTP_PROXY:
        return proxy_routes(view, snapshot)
    if view.is_router and name.startswith("http.") and name[5:].isdigit():
        return gateway_routes(view, snapshot, int(name[5:]))
    if not view.is_router and name.isdigit():
        return outbound_routes(view, snapshot, settings, int(name))
    return None
