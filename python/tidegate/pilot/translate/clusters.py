"""Clusters: one per service, port and subset, one per port of the own workload, and the two that catch the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tidegate.pilot.crd.destination_rule import ConnectionPool, TrafficPolicy
from tidegate.pilot.services.model import Port, Protocol, Resolution, Service
from tidegate.pilot.services.snapshot import MeshSnapshot
from tidegate.pilot.translate import names, wire
from tidegate.pilot.translate.endpoints import load_assignment
from tidegate.pilot.translate.inbound import inbound_ports
from tidegate.pilot.translate.proxy import ProxyView
from tidegate.pilot.translate.settings import MeshSettings

_DISCOVERY = {Resolution.DNS: "STRICT_DNS", Resolution.DNS_ROUND_ROBIN: "LOGICAL_DNS"}


def _is_http2(protocol: Protocol, pool: ConnectionPool, settings: MeshSettings) -> bool:
    """HTTP/2 by the port's protocol, or upgraded on its way between the proxies."""
    upgrade = pool.h2_upgrade_policy or settings.h2_upgrade_policy
    return protocol.is_http2 or (protocol is Protocol.HTTP and upgrade == "UPGRADE")


def _http_options(http2: bool, pool: ConnectionPool) -> dict[str, Any]:
    common: dict[str, Any] = {}
    if pool.idle_timeout is not None:
        common["idle_timeout"] = wire.duration(pool.idle_timeout)
    if pool.max_requests_per_connection is not None:
        common["max_requests_per_connection"] = {"value": pool.max_requests_per_connection}
    if not common and not http2:
        return {}
    version = "http2_protocol_options" if http2 else "http_protocol_options"
    options = wire.HttpProtocolOptions(explicit_http_config={version: {}})
    if common:
        options.common_http_protocol_options.MergeFrom(type(options.common_http_protocol_options)(**common))
    return {wire.HTTP_PROTOCOL_OPTIONS: wire.packed(options)}


def _thresholds(pool: ConnectionPool) -> dict[str, Any]:
    limits = {
        "max_connections": pool.max_connections,
        "max_pending_requests": pool.http1_max_pending_requests,
        "max_requests": pool.http2_max_requests,
        "max_retries": pool.max_retries,
    }
    return {name: {"value": value} for name, value in limits.items() if value is not None}


def _keepalive(pool: ConnectionPool) -> dict[str, Any] | None:
    keepalive = pool.tcp_keepalive
    if keepalive is None:
        return None
    fields: dict[str, Any] = {}
    if keepalive.probes is not None:
        fields["keepalive_probes"] = {"value": keepalive.probes}
    if keepalive.time is not None:
        fields["keepalive_time"] = {"value": int(keepalive.time.total_seconds())}
    if keepalive.interval is not None:
        fields["keepalive_interval"] = {"value": int(keepalive.interval.total_seconds())}
    return {"tcp_keepalive": fields}


def _outbound(
    snapshot: MeshSnapshot, settings: MeshSettings, service: Service, port: Port, subset: str, policy: TrafficPolicy
) -> Any:
    name = names.outbound(port.number, subset, service.hostname)
    pool = policy.connection_pool or ConnectionPool()
    connect_timeout = pool.connect_timeout or settings.connect_timeout
    cluster = wire.Cluster(
        name=name,
        connect_timeout=wire.duration(connect_timeout),
        circuit_breakers={"thresholds": [_thresholds(pool)]},
        typed_extension_protocol_options=_http_options(_is_http2(port.protocol, pool, settings), pool),
        upstream_connection_options=_keepalive(pool),
    )
    if service.resolution is Resolution.PASSTHROUGH or policy.load_balancer == "PASSTHROUGH":
        cluster.type = wire.Cluster.ORIGINAL_DST
        cluster.lb_policy = wire.Cluster.CLUSTER_PROVIDED
        return cluster
    cluster.lb_policy = wire.Cluster.LbPolicy.Value(policy.load_balancer or "ROUND_ROBIN")
    if service.resolution is Resolution.ENDPOINTS:
        cluster.type = wire.Cluster.EDS
        cluster.eds_cluster_config.MergeFrom(type(cluster.eds_cluster_config)(eds_config=wire.ADS, service_name=name))
        return cluster
    cluster.type = wire.Cluster.DiscoveryType.Value(_DISCOVERY[service.resolution])
    labels = _labels_of(snapshot, service.hostname, subset)
    cluster.load_assignment.MergeFrom(
        load_assignment(name, snapshot.endpoints_of(service.hostname, port.number, labels))
    )
    return cluster


def _labels_of(snapshot: MeshSnapshot, hostname: str, subset: str) -> dict[str, str]:
    rule = snapshot.destination_rule(hostname)
    found = [candidate for candidate in rule.subsets if candidate.name == subset] if rule and subset else []
    return found[0].labels if found else {}


def outbound_clusters(snapshot: MeshSnapshot, settings: MeshSettings) -> Iterator[Any]:
    """What every proxy may call. The same for all of them."""
    for service in snapshot.services.values():
        rule = snapshot.destination_rule(service.hostname)
        policy = rule.policy if rule else TrafficPolicy()
        for port in service.ports:
            if port.protocol is Protocol.UDP:
                continue
            general = policy.for_port(port.number)
            yield _outbound(snapshot, settings, service, port, "", general)
            for subset in rule.subsets if rule else ():
                own = subset.policy.for_port(port.number).over(general)
                yield _outbound(snapshot, settings, service, port, subset.name, own)


def inbound_clusters(view: ProxyView, settings: MeshSettings) -> Iterator[Any]:
    """The application's own ports, on the loopback address that redirection leaves alone."""
    for port in inbound_ports(view):
        cluster = wire.Cluster(
            name=port.cluster,
            type="STATIC",
            connect_timeout=wire.duration(settings.connect_timeout),
            circuit_breakers={"thresholds": [{}]},
            load_assignment={
                "cluster_name": port.cluster,
                "endpoints": [
                    {
                        "lb_endpoints": [
                            {"endpoint": {"address": wire.address(port.app_address, port.app_port)}},
                        ]
                    }
                ],
            },
            typed_extension_protocol_options=_http_options(port.protocol.is_http2, ConnectionPool()),
        )
        yield cluster


def special_clusters() -> Iterator[Any]:
    """Where traffic to unknown destinations ends: nowhere, or at the address it was meant for."""
    yield wire.Cluster(
        name=names.BLACK_HOLE,
        type="STATIC",
        connect_timeout={"seconds": 5},
        load_assignment={"cluster_name": names.BLACK_HOLE},
    )
    yield wire.Cluster(
        name=names.PASSTHROUGH, type="ORIGINAL_DST", lb_policy="CLUSTER_PROVIDED", connect_timeout={"seconds": 5}
    )
