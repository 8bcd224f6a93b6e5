"""`VirtualService`: which requests to a host go where, and what happens to them on the way.

The plain values of one rule, read and range-checked. Matching and header syntax of Envoy are `translate`'s business.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import timedelta

from tidegate.pilot.crd.http_rule import (
    CorsPolicy,
    DirectResponse,
    Fault,
    HeaderChanges,
    Redirect,
    Retries,
    Rewrite,
    read_cors,
    read_direct_response,
    read_fault,
    read_headers,
    read_redirect,
    read_retries,
    read_rewrite,
)
from tidegate.pilot.crd.meta import Meta, read_meta
from tidegate.pilot.crd.reader import Mapping, Value, labels
from tidegate.pilot.crd.string_match import StringMatch, read_presence_or_match, read_string_match

#: The gateway name that stands for the sidecars of the mesh.
MESH = "mesh"


@dataclass(frozen=True)
class Destination:
    host: str
    subset: str | None
    port: int | None


@dataclass(frozen=True)
class WeightedDestination:
    destination: Destination
    weight: int
    headers: HeaderChanges


@dataclass(frozen=True)
class HttpMatch:
    """One `match` of an HTTP rule: everything given must hold."""

    name: str = ""
    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    #: `None` as a value asks for the header to be present.
    headers: tuple[tuple[str, StringMatch | None], ...] = ()
    without_headers: tuple[tuple[str, StringMatch | None], ...] = ()
    query_params: tuple[tuple[str, StringMatch | None], ...] = ()
    ignore_uri_case: bool = False
    port: int | None = None
    source_labels: tuple[tuple[str, str], ...] = ()
    source_namespace: str | None = None
    gateways: tuple[str, ...] = ()


@dataclass(frozen=True)
class HttpRule:
    """One element of `spec.http`. Exactly one of `routes`, `redirect` and `direct_response` is set."""

    name: str
    line: int
    matches: tuple[HttpMatch, ...]
    routes: tuple[WeightedDestination, ...]
    redirect: Redirect | None
    direct_response: DirectResponse | None
    rewrite: Rewrite | None
    timeout: timedelta | None
    retries: Retries | None
    fault: Fault | None
    cors: CorsPolicy | None
    headers: HeaderChanges


@dataclass(frozen=True)
class TcpMatch:
    destination_subnets: tuple[str, ...] = ()
    port: int | None = None
    source_labels: tuple[tuple[str, str], ...] = ()
    source_namespace: str | None = None
    gateways: tuple[str, ...] = ()


@dataclass(frozen=True)
class TcpRule:
    matches: tuple[TcpMatch, ...]
    routes: tuple[WeightedDestination, ...]


@dataclass(frozen=True)
class VirtualService:
    meta: Meta
    hosts: tuple[str, ...]
    gateways: tuple[str, ...]
    http: tuple[HttpRule, ...]
    tcp: tuple[TcpRule, ...]


def _destination(value: Value) -> Destination:
    destination = value.mapping()
    host = destination.need("host").host()
    port_field = destination.take("port")
    port = None
    if port_field is not None:
        fields = port_field.mapping()
        port = fields.need("number").port()
        fields.finish()
    read = Destination(host=host, subset=destination.optional("subset", Value.non_empty), port=port)
    destination.finish()
    return read


def _weighted(value: Value) -> WeightedDestination:
    route = value.mapping()
    destination = _destination(route.need("destination"))
    weight = route.optional("weight", lambda v: v.integer(0, 2**31 - 1))
    headers = read_headers(route)
    route.finish()
    # A weight that is not given counts as nothing next to others, and as everything when alone; see `_routes`.
    return WeightedDestination(destination, -1 if weight is None else weight, headers)


def _routes(rule: Mapping) -> tuple[WeightedDestination, ...]:
    field = rule.take("route")
    if field is None:
        return ()
    routes = tuple(_weighted(item) for item in field.items())
    if not routes:
        field.refuse("needs at least one destination")
    if len(routes) == 1:
        only = routes[0]
        return (WeightedDestination(only.destination, 100 if only.weight < 0 else max(only.weight, 1), only.headers),)
    routes = tuple(WeightedDestination(r.destination, max(r.weight, 0), r.headers) for r in routes)
    total = sum(route.weight for route in routes)
    if total == 0:
        field.refuse("the weights add up to nothing")
    if total > 2**32 - 1:
        field.refuse("the weights add up to more than 4294967295")
    return routes


def _matchers(match: Mapping, field: str) -> tuple[tuple[str, StringMatch | None], ...]:
    return tuple(match.table(field, read_presence_or_match).items())


def _http_match(value: Value) -> HttpMatch:
    match = value.mapping()
    query = match.take("queryParams")
    query_params: tuple[tuple[str, StringMatch | None], ...] = ()
    if query is not None:
        query_params = tuple(query.mapping().entries(read_presence_or_match).items())
    read = HttpMatch(
        name=match.read("name", Value.string, ""),
        uri=match.optional("uri", read_string_match),
        scheme=match.optional("scheme", read_string_match),
        method=match.optional("method", read_string_match),
        authority=match.optional("authority", read_string_match),
        headers=_matchers(match, "headers"),
        without_headers=_matchers(match, "withoutHeaders"),
        query_params=query_params,
        ignore_uri_case=match.read("ignoreUriCase", Value.boolean, False),
        port=match.optional("port", Value.port),
        source_labels=tuple(sorted(labels(match, "sourceLabels").items())),
        source_namespace=match.optional("sourceNamespace", Value.non_empty),
        gateways=match.sequence("gateways", Value.non_empty),
    )
    match.finish()
    return read


def _http_rule(value: Value) -> HttpRule:
    rule = value.mapping()
    for field in ("mirror", "mirrors", "mirrorPercent", "mirrorPercentage", "delegate"):
        unsupported = rule.take(field)
        if unsupported is not None:
            unsupported.refuse("is not supported")
    rule.exactly_one(("route", "redirect", "directResponse"))
    redirect = rule.optional("redirect", read_redirect)
    direct = rule.optional("directResponse", read_direct_response)
    rewrite_field = rule.take("rewrite")
    if rewrite_field is not None and (redirect or direct):
        rewrite_field.refuse("rewrite goes with route only")
    read = HttpRule(
        name=rule.read("name", Value.string, ""),
        line=value.line,
        matches=rule.sequence("match", _http_match),
        routes=_routes(rule),
        redirect=redirect,
        direct_response=direct,
        rewrite=None if rewrite_field is None else read_rewrite(rewrite_field),
        # Zero switches the timeout off, which is also the default.
        timeout=rule.optional("timeout", lambda v: v.duration(zero=True)),
        retries=rule.optional("retries", read_retries),
        fault=rule.optional("fault", read_fault),
        cors=rule.optional("corsPolicy", read_cors),
        headers=read_headers(rule),
    )
    rule.finish()
    return read


def _subnet(value: Value) -> str:
    text = value.string()
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        value.refuse(f"must be an IP address or range, is {text!r}")


def _tcp_match(value: Value) -> TcpMatch:
    match = value.mapping()
    read = TcpMatch(
        destination_subnets=match.sequence("destinationSubnets", _subnet),
        port=match.optional("port", Value.port),
        source_labels=tuple(sorted(labels(match, "sourceLabels").items())),
        source_namespace=match.optional("sourceNamespace", Value.non_empty),
        gateways=match.sequence("gateways", Value.non_empty),
    )
    match.finish()
    return read


def _tcp_rule(value: Value) -> TcpRule:
    rule = value.mapping()
    rule_matches = rule.sequence("match", _tcp_match)
    routes = _routes(rule)
    if not routes:
        rule.need("route")
    for index, route in enumerate(routes):
        if route.headers != HeaderChanges():
            value.refuse(f"route[{index}].headers has no meaning for TCP")
    rule.finish()
    return TcpRule(matches=rule_matches, routes=routes)


def read_virtual_service(document: Mapping) -> VirtualService:
    meta = read_meta(document)
    spec = document.need("spec").mapping()
    hosts_field = spec.need("hosts")
    hosts = tuple(item.host() for item in hosts_field.items())
    if not hosts:
        hosts_field.refuse("needs at least one host")
    gateways = spec.sequence("gateways", Value.non_empty) or (MESH,)
    if "*" in hosts and MESH in gateways:
        hosts_field.refuse("the wildcard host * is for gateways, not for the mesh")
    http = spec.sequence("http", _http_rule)
    tcp = spec.sequence("tcp", _tcp_rule)
    tls = spec.take("tls")
    if tls is not None:
        tls.refuse("TLS routes are not supported")
    if not http and not tcp:
        spec.refuse("needs http or tcp rules")
    export = spec.take("exportTo")
    if export is not None and [item.string() for item in export.items()] != ["*"]:
        export.refuse('only exportTo: ["*"] is supported')
    spec.finish()
    document.skip("status")
    return VirtualService(meta=meta, hosts=hosts, gateways=gateways, http=http, tcp=tcp)
