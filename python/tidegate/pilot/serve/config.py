"""What proxies are to have: encoded resources, generated once per snapshot and shared where they are alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tidegate import xdsapi
from tidegate.pilot.services.snapshot import MeshSnapshot
from tidegate.pilot.translate.clusters import inbound_clusters, outbound_clusters, special_clusters
from tidegate.pilot.translate.endpoints import outbound_load_assignment
from tidegate.pilot.translate.generate import CDS, EDS, LDS, RDS, eds_names, rds_names
from tidegate.pilot.translate.listeners import listeners, plan_outbound
from tidegate.pilot.translate.proxy import Node, ProxyView, view
from tidegate.pilot.translate.routes import route_configuration
from tidegate.pilot.translate.settings import MeshSettings

#: Resource type -> name -> encoded message.
Resources: TypeAlias = Mapping[str, Mapping[str, bytes]]


@dataclass(frozen=True)
class ProxyConfig:
    """The whole configuration of one proxy at one version."""

    version: str
    resources: Resources = field(default_factory=dict)
    #: Cluster -> the endpoints it asks for; listener -> the routes it asks for.
    endpoints_of: Mapping[str, str] = field(default_factory=dict)
    routes_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    conflicts: tuple[str, ...] = ()


class Generator:
    """Configurations out of one snapshot. Keeps what proxies share: clusters, endpoints, and routes by scope."""

    def __init__(self, snapshot: MeshSnapshot, settings: MeshSettings, version: str) -> None:
        self.snapshot = snapshot
        self.version = version
        self._settings = settings
        self._shared_clusters: dict[str, bytes] | None = None
        self._endpoints_of: dict[str, str] = {}
        self._endpoints: dict[str, bytes] = {}
        self._routes: dict[tuple[object, ...], bytes | None] = {}
        # A rule that looks at its source makes routes differ between workloads; most meshes have none.
        self._by_source = any(
            match.source_labels or match.source_namespace
            for rule in snapshot.virtual_services
            for found in rule.http
            for match in found.matches
        )

    def config(self, node: Node) -> ProxyConfig:
        """Everything for one proxy."""
        proxy = view(node, self.snapshot)
        clusters = dict(self._clusters())
        for message in inbound_clusters(proxy, self._settings):
            clusters[message.name] = xdsapi.serialize(message)
        listener_messages = list(listeners(proxy, self.snapshot, self._settings))
        routes_of = {message.name: tuple(rds_names([message])) for message in listener_messages}
        routes = {name: self._route(proxy, name) for names in routes_of.values() for name in names}
        return ProxyConfig(
            version=self.version,
            resources={
                CDS: clusters,
                EDS: self._endpoints,
                LDS: {message.name: xdsapi.serialize(message) for message in listener_messages},
                RDS: {name: encoded for name, encoded in routes.items() if encoded is not None},
            },
            endpoints_of=self._endpoints_of,
            routes_of=routes_of,
            conflicts=plan_outbound(proxy, self.snapshot).conflicts if proxy.redirected else (),
        )

    def _clusters(self) -> dict[str, bytes]:
        if self._shared_clusters is None:
            messages: list[Any] = [*outbound_clusters(self.snapshot, self._settings), *special_clusters()]
            self._shared_clusters = {message.name: xdsapi.serialize(message) for message in messages}
            for message in messages:
                for name in eds_names([message]):
                    self._endpoints_of[message.name] = name
                    self._endpoints[name] = xdsapi.serialize(outbound_load_assignment(self.snapshot, name))
        return self._shared_clusters

    def _route(self, proxy: ProxyView, name: str) -> bytes | None:
        source = tuple(sorted(proxy.labels.items())) if self._by_source or proxy.is_router else ()
        scope = (name, proxy.node.kind, proxy.node.domain, proxy.node.namespace, source)
        if scope not in self._routes:
            message = route_configuration(proxy, self.snapshot, self._settings, name)
            self._routes[scope] = None if message is None else xdsapi.serialize(message)
        return self._routes[scope]

    @property
    def endpoints(self) -> Mapping[str, bytes]:
        """The endpoints of every outbound cluster."""
        self._clusters()
        return self._endpoints
