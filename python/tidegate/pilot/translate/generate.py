"""All the configuration of one proxy: resource type -> name -> message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from tidegate import xdsapi
from tidegate.pilot.services.snapshot import MeshSnapshot
from tidegate.pilot.translate import wire
from tidegate.pilot.translate.clusters import inbound_clusters, outbound_clusters, special_clusters
from tidegate.pilot.translate.endpoints import outbound_load_assignment
from tidegate.pilot.translate.listeners import listeners
from tidegate.pilot.translate.proxy import ProxyView
from tidegate.pilot.translate.routes import route_configuration
from tidegate.pilot.translate.settings import MeshSettings

CDS: Final = xdsapi.type_url(xdsapi.CLUSTER)
EDS: Final = xdsapi.type_url(xdsapi.CLUSTER_LOAD_ASSIGNMENT)
LDS: Final = xdsapi.type_url(xdsapi.LISTENER)
RDS: Final = xdsapi.type_url(xdsapi.ROUTE_CONFIGURATION)
#: The order in which a change must reach a proxy, so that nothing refers to what is not there yet.
TYPES: Final = (CDS, EDS, LDS, RDS)


def clusters(view: ProxyView, snapshot: MeshSnapshot, settings: MeshSettings) -> Iterator[Any]:
    """Every cluster of a proxy."""
    yield from outbound_clusters(snapshot, settings)
    yield from inbound_clusters(view, settings)
    yield from special_clusters()


def eds_names(cluster_messages: Iterable[Any]) -> list[str]:
    """The endpoints that these clusters will ask for."""
    return [c.eds_cluster_config.service_name or c.name for c in cluster_messages if c.type == wire.Cluster.EDS]


def rds_names(listener_messages: Iterable[Any]) -> list[str]:
    """The route configurations that these listeners will ask for."""
    found: dict[str, None] = {}
    for listener in listener_messages:
        for chain in listener.filter_chains:
            for network_filter in chain.filters:
                if network_filter.name != wire.HTTP_CONNECTION_MANAGER:
                    continue
                manager = wire.HttpConnectionManager.FromString(network_filter.typed_config.value)
                if manager.HasField("rds"):
                    found[manager.rds.route_config_name] = None
    return list(found)


def generate(view: ProxyView, snapshot: MeshSnapshot, settings: MeshSettings) -> dict[str, dict[str, Any]]:
    """The whole configuration of one proxy."""
    cluster_messages = list(clusters(view, snapshot, settings))
    listener_messages = list(listeners(view, snapshot, settings))
    routes = {name: route_configuration(view, snapshot, settings, name) for name in rds_names(listener_messages)}
    return {
        CDS: {message.name: message for message in cluster_messages},
        EDS: {name: outbound_load_assignment(snapshot, name) for name in eds_names(cluster_messages)},
        LDS: {message.name: message for message in listener_messages},
        RDS: {name: message for name, message in routes.items() if message is not None},
    }
