"""What the debug pages show, as plain values: Istio's shapes, filled from the hub."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final

from google.protobuf.json_format import MessageToDict

from tidegate import xdsapi
from tidegate.pilot.crd.kinds import Resource, key_of
from tidegate.pilot.serve.hub import Connection, Hub
from tidegate.pilot.serve.session import Watch
from tidegate.pilot.translate.generate import CDS, EDS, LDS, RDS

_ADMIN: Final = "type.googleapis.com/envoy.admin.v3"
_KIND: Final = {CDS: "cluster", EDS: "endpoint", LDS: "listener", RDS: "route"}


def _message(kind: str, encoded: bytes) -> dict[str, Any]:
    return xdsapi.to_dict(xdsapi.parse(xdsapi.type_name(kind), encoded))


def _sent(connection: Connection, kind: str) -> list[dict[str, Any]]:
    watch = connection.session.watches.get(kind)
    return [_message(kind, encoded) for encoded in watch.sent.values()] if watch is not None else []


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def adsz(hub: Hub) -> list[dict[str, Any]]:
    """What each proxy was sent, listeners and routes first."""
    return [
        {
            "node": connection.id,
            "addr": connection.peer,
            "connect": _time(connection.connected),
            "listeners": _sent(connection, LDS),
            "RDSRoutes": _sent(connection, RDS),
            "clusters": _sent(connection, CDS),
        }
        for connection in hub.connections.values()
    ]


def cdsz(hub: Hub) -> list[dict[str, Any]]:
    return [
        {
            "node": connection.id,
            "addr": connection.peer,
            "connect": _time(connection.connected),
            "Clusters": _sent(connection, CDS),
        }
        for connection in hub.connections.values()
    ]


def edsz(hub: Hub) -> list[dict[str, Any]]:
    """The endpoints of every cluster, in camel case as Pilot printed them."""
    return [
        MessageToDict(xdsapi.parse(xdsapi.type_name(EDS), encoded), descriptor_pool=xdsapi.pool())
        for encoded in hub.generator.endpoints.values()
    ]


def _state(watch: Watch | None) -> str:
    if watch is None or not watch.answered:
        return "NOT SENT"
    if watch.rejected:
        return "ERROR"
    return "STALE" if watch.in_flight is not None else "SYNCED"


def syncz(hub: Hub, now: float) -> list[dict[str, Any]]:
    """Who has taken up what, as `istioctl proxy-status` reads it; `*_rejected` says why not.

    `version` is the version that the proxy has taken up in full: it stays behind while anything is on its way.
    """
    rows = []
    for connection in hub.connections.values():
        node = connection.session.node
        row: dict[str, Any] = {"proxy": node.proxy_id, "proxy_type": node.kind, "istio_version": node.version}
        row["version"] = connection.session.settled(now)
        for kind, word in _KIND.items():
            watch = connection.session.watches.get(kind)
            row[f"{word}_sent"] = watch.version_sent if watch is not None else ""
            row[f"{word}_acked"] = watch.version_acked if watch is not None else ""
            row[f"{word}_state"] = _state(watch)
            if watch is not None and watch.rejected:
                row[f"{word}_rejected"] = next(iter(watch.rejected.values()))
        endpoints = connection.session.watches.get(EDS)
        known = len(endpoints.names & endpoints.sent.keys()) if endpoints is not None else 0
        row["endpoint_percent"] = round(100 * known / len(endpoints.names)) if endpoints and endpoints.names else 100
        rows.append(row)
    return rows


def config_dump(connection: Connection) -> dict[str, Any]:
    """What a proxy was sent, in the shape of Envoy's own /config_dump."""
    updated = _time(connection.connected)

    def entries(kind: str, word: str) -> list[dict[str, Any]]:
        watch = connection.session.watches.get(kind)
        version = watch.version_sent if watch is not None else ""
        packed = [{"@type": kind, **message} for message in _sent(connection, kind)]
        return [{"version_info": version, word: message, "last_updated": updated} for message in packed]

    listeners = [{"name": entry["listener"]["name"], "active_state": entry} for entry in entries(LDS, "listener")]
    return {
        "configs": [
            {"@type": f"{_ADMIN}.ClustersConfigDump", "dynamic_active_clusters": entries(CDS, "cluster")},
            {"@type": f"{_ADMIN}.ListenersConfigDump", "dynamic_listeners": listeners},
            {"@type": f"{_ADMIN}.RoutesConfigDump", "dynamic_route_configs": entries(RDS, "route_config")},
            {"@type": f"{_ADMIN}.EndpointsConfigDump", "dynamic_endpoint_configs": entries(EDS, "endpoint_config")},
        ]
    }


def registryz(hub: Hub) -> list[dict[str, Any]]:
    """The services of all registries."""
    return [
        {
            "hostname": service.hostname,
            "address": service.addresses[0] if service.addresses else "0.0.0.0",
            "addresses": list(service.addresses),
            "ports": [
                {"name": port.name, "port": port.number, "protocol": port.protocol.value} for port in service.ports
            ],
            "Resolution": service.resolution.value,
            "MeshExternal": service.mesh_external,
            "Attributes": {"ServiceRegistry": service.registry, "Namespace": service.namespace},
            "source": service.where,
        }
        for service in hub.snapshot.services.values()
    ]


def endpointz(hub: Hub) -> list[dict[str, Any]]:
    """The endpoints of each service port."""
    rows = []
    for service in hub.snapshot.services.values():
        for port in service.ports:
            found = hub.snapshot.endpoints_of(service.hostname, port.number, {})
            rows.append(
                {
                    "svc": f"{service.hostname}:{port.name}",
                    "ep": [
                        {
                            "endpoint": {"Address": endpoint.address, "Port": endpoint.port},
                            "service": {"hostname": service.hostname},
                            "labels": dict(endpoint.labels),
                            "uid": endpoint.uid,
                            "locality": endpoint.locality,
                            "weight": endpoint.weight,
                        }
                        for endpoint in found
                    ],
                }
            )
    return rows


def plain(value: Any) -> Any:
    """Any frozen dataclass as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {name: found for name, found in fields.items() if found not in (None, (), [], {}, "")}
    if isinstance(value, dict):
        return {str(name): plain(found) for name, found in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(found) for found in value]
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, Enum):
        return value.value
    return value.decode() if isinstance(value, bytes) else value


def configz(hub: Hub) -> dict[str, Any]:
    """Every resource in force with its place, and every reason why a file is not."""

    def entry(resource: Resource) -> dict[str, Any]:
        kind, namespace, name = key_of(resource)
        body = plain(resource)
        body.pop("meta", None)
        return {"kind": kind, "namespace": namespace, "name": name, "source": resource.meta.where, "spec": body}

    return {
        "configs": [entry(resource) for resource in hub.resources],
        "rejected": [
            {"file": found.file, "line": found.line, "field": found.field, "reason": found.reason}
            for found in hub.rejections
        ],
        "conflicts": list(hub.snapshot.conflicts),
    }


def push_status(hub: Hub) -> dict[str, Any]:
    """Services that got no listener, by proxy; and what proxies refuse."""
    return {
        "version": hub.generator.version,
        "time": _time(datetime.now(UTC)),
        "conflicts": {
            connection.session.node.proxy_id: list(connection.session.config.conflicts)
            for connection in hub.connections.values()
            if connection.session.config is not None and connection.session.config.conflicts
        },
        "rejected": {
            connection.session.node.proxy_id: dict(watch.rejected)
            for connection in hub.connections.values()
            for watch in connection.session.watches.values()
            if watch.rejected
        },
    }
