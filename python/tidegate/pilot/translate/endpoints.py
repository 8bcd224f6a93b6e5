"""Endpoints: the cluster load assignment behind each EDS cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from tidegate.pilot.services.model import Endpoint
from tidegate.pilot.services.snapshot import MeshSnapshot
from tidegate.pilot.translate import wire
from tidegate.pilot.translate.names import outbound

_NO_LABELS: Mapping[str, str] = {}


def _locality(text: str) -> dict[str, str]:
    region, _, rest = text.partition("/")
    zone, _, sub_zone = rest.partition("/")
    return {"region": region, "zone": zone, "sub_zone": sub_zone}


def _lb_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    lb_endpoint: dict[str, Any] = {"endpoint": {"address": wire.address(endpoint.address, endpoint.port)}}
    if endpoint.weight != 1:
        lb_endpoint["load_balancing_weight"] = {"value": endpoint.weight}
    if endpoint.uid:
        metadata: Any = wire.Metadata()
        metadata.filter_metadata["istio"].update({"uid": endpoint.uid})
        lb_endpoint["metadata"] = metadata
    return lb_endpoint


def load_assignment(cluster: str, endpoints: Iterable[Endpoint]) -> Any:
    """A `ClusterLoadAssignment`, by locality. Without endpoints it is empty, which Envoy takes as an answer."""
    ordered = sorted(endpoints, key=lambda endpoint: endpoint.locality)
    localities = []
    for locality, members in groupby(ordered, key=lambda endpoint: endpoint.locality):
        found = list(members)
        localities.append(
            {
                "locality": _locality(locality),
                "lb_endpoints": [_lb_endpoint(endpoint) for endpoint in found],
                "load_balancing_weight": {"value": sum(endpoint.weight for endpoint in found)},
            }
        )
    return wire.ClusterLoadAssignment(cluster_name=cluster, endpoints=localities)


def subset_labels(snapshot: MeshSnapshot, hostname: str) -> dict[str, dict[str, str]]:
    """The subsets of a host by name; the whole service is the subset without a name."""
    rule = snapshot.destination_rule(hostname)
    found = {"": dict(_NO_LABELS)}
    if rule is not None:
        found.update({subset.name: subset.labels for subset in rule.subsets})
    return found


def outbound_load_assignment(snapshot: MeshSnapshot, cluster: str) -> Any:
    """The endpoints of the cluster `outbound|port|subset|host`; empty when there is no such service or subset."""
    parts = cluster.split("|")
    if len(parts) != 4 or parts[0] != "outbound" or not parts[1].isdigit():
        return load_assignment(cluster, ())
    _, port, subset, hostname = parts
    labels = subset_labels(snapshot, hostname).get(subset)
    if labels is None or cluster != outbound(int(port), subset, hostname):
        return load_assignment(cluster, ())
    return load_assignment(cluster, snapshot.endpoints_of(hostname, int(port), labels))
