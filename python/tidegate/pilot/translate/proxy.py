"""Who asks: a proxy as its node id and metadata describe it, seen against a snapshot."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.pilot.crd.gateway import Gateway
from tidegate.pilot.crd.sidecar import Sidecar
from tidegate.pilot.services.model import Endpoint, Service
from tidegate.pilot.services.snapshot import MeshSnapshot

SIDECAR = "sidecar"
ROUTER = "router"


class BadNodeError(ValueError):
    """A node id that is not `type~IP~name.namespace~domain`."""


@dataclass(frozen=True)
class Node:
    """The identity a proxy sends with its first request."""

    id: str
    kind: str
    ip: str
    name: str
    namespace: str
    domain: str
    cluster: str = ""
    interception: str = "REDIRECT"
    labels: tuple[tuple[str, str], ...] = ()
    version: str = ""

    @property
    def proxy_id(self) -> str:
        """`name.namespace`, as `config_dump?proxyID=` takes it."""
        return f"{self.name}.{self.namespace}"


def read_node(node_id: str, cluster: str, metadata: Mapping[str, Any]) -> Node:
    """The node, or `BadNodeError` saying what is wrong with its id."""
    parts = node_id.split("~")
    if len(parts) != 4:
        raise BadNodeError(f"node id {node_id!r} is not of the form type~IP~name.namespace~domain")
    kind, ip, name, domain = parts
    if kind not in (SIDECAR, ROUTER):
        raise BadNodeError(f"node id {node_id!r}: type {kind!r} is neither sidecar nor router")
    try:
        ipaddress.ip_address(ip)
    except ValueError:
        raise BadNodeError(f"node id {node_id!r}: {ip!r} is not an IP address") from None
    title, _, namespace = name.rpartition(".")
    if not title or not namespace:
        raise BadNodeError(f"node id {node_id!r}: {name!r} is not of the form name.namespace")
    return Node(
        id=node_id,
        kind=kind,
        ip=ip,
        name=title,
        namespace=namespace,
        domain=domain,
        cluster=cluster,
        interception=str(metadata.get("INTERCEPTION_MODE") or "REDIRECT"),
        labels=tuple(sorted(_labels(metadata).items())),
        version=str(metadata.get("ISTIO_VERSION") or ""),
    )


def _labels(metadata: Mapping[str, Any]) -> dict[str, str]:
    found = metadata.get("LABELS")
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            return {}
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, Mapping) else {}


@dataclass(frozen=True)
class ProxyView:
    """A node with all that the snapshot says about it: labels, the services it implements, its listeners' rules."""

    node: Node
    labels: Mapping[str, str] = field(default_factory=dict)
    instances: tuple[tuple[Service, Endpoint], ...] = ()
    sidecar: Sidecar | None = None
    gateways: tuple[Gateway, ...] = ()

    @property
    def is_router(self) -> bool:
        return self.node.kind == ROUTER

    @property
    def redirected(self) -> bool:
        """Whether iptables hands the workload's traffic to the virtual listener."""
        return not self.is_router and self.node.interception != "NONE"

    def matches(self, source_labels: tuple[tuple[str, str], ...], source_namespace: str | None) -> bool:
        """Whether a rule for these sources applies to calls from this proxy."""
        if source_namespace is not None and source_namespace != self.node.namespace:
            return False
        return all(self.labels.get(name) == value for name, value in source_labels)


def view(node: Node, snapshot: MeshSnapshot) -> ProxyView:
    """`node` in the mesh of `snapshot`."""
    pod = snapshot.pods.get(node.ip)
    labels = {**(pod.meta.labels if pod else {}), **dict(node.labels)}
    sidecar = next(
        (
            found
            for found in snapshot.sidecars
            if found.meta.namespace == node.namespace and found.selector.items() <= labels.items()
        ),
        None,
    )
    gateways = tuple(found for found in snapshot.gateways if found.selector.items() <= labels.items())
    return ProxyView(
        node=node,
        labels=labels,
        instances=snapshot.instances_at(node.ip) if node.kind == SIDECAR else (),
        sidecar=sidecar if node.kind == SIDECAR else None,
        gateways=gateways if node.kind == ROUTER else (),
    )
