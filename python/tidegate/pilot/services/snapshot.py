"""The mesh at one moment. Nothing in it changes; a change makes a new one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tidegate.pilot.crd.destination_rule import DestinationRule
from tidegate.pilot.crd.gateway import Gateway
from tidegate.pilot.crd.kubernetes import Pod
from tidegate.pilot.crd.sidecar import Sidecar
from tidegate.pilot.crd.virtual_service import VirtualService
from tidegate.pilot.services.hosts import most_specific
from tidegate.pilot.services.model import Endpoint, Service


@dataclass(frozen=True)
class MeshSnapshot:
    """Services by host name in order, their endpoints, and the rules with their hosts resolved to full names."""

    domain: str
    services: Mapping[str, Service]
    endpoints: Mapping[str, tuple[Endpoint, ...]]
    #: The rule of each host as the sidecars see it.
    mesh_rules: Mapping[str, VirtualService]
    #: Every rule, in order of namespace and name, for gateways.
    virtual_services: tuple[VirtualService, ...]
    destination_rules: Mapping[str, DestinationRule]
    pods: Mapping[str, Pod]
    sidecars: tuple[Sidecar, ...] = ()
    gateways: tuple[Gateway, ...] = ()
    #: What one resource says that another already said otherwise; the first one holds.
    conflicts: tuple[str, ...] = ()
    instances: Mapping[str, tuple[tuple[Service, Endpoint], ...]] = field(default_factory=dict)

    def virtual_service(self, hostname: str) -> VirtualService | None:
        """The rule that governs calls from sidecars to `hostname`."""
        return most_specific(self.mesh_rules, hostname)

    def destination_rule(self, hostname: str) -> DestinationRule | None:
        return most_specific(self.destination_rules, hostname)

    def endpoints_of(self, hostname: str, port: int, labels: Mapping[str, str]) -> Iterator[Endpoint]:
        """The endpoints behind a port whose labels include `labels`."""
        wanted = dict(labels)
        for endpoint in self.endpoints.get(hostname, ()):
            if endpoint.service_port == port and endpoint.has_labels(wanted):
                yield endpoint

    def instances_at(self, address: str) -> tuple[tuple[Service, Endpoint], ...]:
        """The services that the workload at `address` implements."""
        return self.instances.get(address, ())


def empty(domain: str) -> MeshSnapshot:
    """The mesh before anything is known."""
    return MeshSnapshot(domain, {}, {}, {}, (), {}, {})
