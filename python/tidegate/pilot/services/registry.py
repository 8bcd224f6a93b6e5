"""Resources from all sources -> one `MeshSnapshot`. Pure: the order of the resources decides nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from tidegate.pilot.crd.destination_rule import DestinationRule
from tidegate.pilot.crd.gateway import Gateway
from tidegate.pilot.crd.kinds import Resource, key_of
from tidegate.pilot.crd.kubernetes import KubernetesEndpoints, KubernetesService, Pod
from tidegate.pilot.crd.service_entry import ServiceEntry, Workload, WorkloadEntry
from tidegate.pilot.crd.sidecar import Sidecar
from tidegate.pilot.crd.virtual_service import MESH, HttpRule, TcpRule, VirtualService, WeightedDestination
from tidegate.pilot.services.hosts import resolve
from tidegate.pilot.services.model import Endpoint, Port, Protocol, Resolution, Service, protocol_of
from tidegate.pilot.services.snapshot import MeshSnapshot

R = TypeVar("R")

_ENTRY_RESOLUTION = {
    "NONE": Resolution.PASSTHROUGH,
    "STATIC": Resolution.ENDPOINTS,
    "DNS": Resolution.DNS,
    "DNS_ROUND_ROBIN": Resolution.DNS_ROUND_ROBIN,
}
_ENTRY_PROTOCOL = {
    "HTTP": Protocol.HTTP,
    "GRPC-WEB": Protocol.HTTP,
    "HTTP2": Protocol.HTTP2,
    "GRPC": Protocol.GRPC,
    "HTTPS": Protocol.HTTPS,
    "TLS": Protocol.HTTPS,
    "UDP": Protocol.UDP,
}


class _Builder:
    """Gathers one snapshot; used once."""

    def __init__(self, resources: Iterable[Resource], domain: str) -> None:
        self.domain = domain
        self.resources = sorted(resources, key=key_of)
        self.pods = {pod.ip: pod for pod in self._all(Pod)}
        self.services: dict[str, Service] = {}
        self.endpoints: dict[str, list[Endpoint]] = defaultdict(list)
        self.conflicts: list[str] = []

    def _all(self, kind: type[R]) -> list[R]:
        return [resource for resource in self.resources if isinstance(resource, kind)]

    def build(self) -> MeshSnapshot:
        self._kubernetes()
        for entry in self._all(ServiceEntry):
            self._service_entry(entry)
        services = dict(sorted(self.services.items()))
        endpoints = {
            host: tuple(sorted(set(found), key=_endpoint_order)) for host, found in sorted(self.endpoints.items())
        }
        rules = tuple(self._resolved(rule) for rule in self._all(VirtualService))
        return MeshSnapshot(
            domain=self.domain,
            services=services,
            endpoints=endpoints,
            mesh_rules=self._mesh_rules(rules),
            virtual_services=rules,
            destination_rules=self._destination_rules(),
            pods=self.pods,
            sidecars=tuple(self._all(Sidecar)),
            gateways=tuple(self._all(Gateway)),
            conflicts=tuple(self.conflicts),
            instances=_instances(services, endpoints),
        )

    def _add(self, service: Service) -> bool:
        known = self.services.setdefault(service.hostname, service)
        if known is not service:
            self.conflicts.append(f"{service.where}: {service.hostname} is already defined at {known.where}")
        return known is service

    # Kubernetes

    def _kubernetes(self) -> None:
        slices: dict[tuple[str, str], list[KubernetesEndpoints]] = defaultdict(list)
        for endpoints in self._all(KubernetesEndpoints):
            slices[endpoints.meta.namespace, endpoints.service].append(endpoints)
        for resource in self._all(KubernetesService):
            meta = resource.meta
            service = Service(
                hostname=f"{meta.name}.{meta.namespace}.svc.{self.domain}",
                namespace=meta.namespace,
                addresses=resource.cluster_ips,
                ports=tuple(
                    Port(port.name, port.port, protocol_of(port.name, port.app_protocol, port.protocol))
                    for port in resource.ports
                ),
                resolution=Resolution.DNS if resource.external_name else Resolution.ENDPOINTS,
                registry="Kubernetes",
                mesh_external=resource.external_name is not None,
                where=meta.where,
            )
            if not self._add(service):
                continue
            found = self.endpoints[service.hostname]
            if resource.external_name is not None:
                found.extend(Endpoint(port.number, resource.external_name, port.number) for port in service.ports)
            for endpoints in slices.get((meta.namespace, meta.name), ()):
                found.extend(self._kubernetes_endpoints(service, endpoints))

    def _kubernetes_endpoints(self, service: Service, resource: KubernetesEndpoints) -> Iterable[Endpoint]:
        by_name = {port.name: port.number for port in service.ports}
        for subset in resource.subsets:
            for port in subset.ports:
                number = by_name.get(port.name)
                if number is None:
                    continue
                for address in subset.addresses:
                    if not address.ready:
                        continue
                    pod = self.pods.get(address.ip)
                    name = address.pod or (pod.meta.name if pod else None)
                    yield Endpoint(
                        service_port=number,
                        address=address.ip,
                        port=port.port,
                        labels=tuple(sorted(pod.meta.labels.items())) if pod else (),
                        locality=address.zone or "",
                        uid=f"kubernetes://{name}.{resource.meta.namespace}" if name else "",
                        service_account=pod.service_account if pod else "",
                    )

    # ServiceEntry

    def _service_entry(self, entry: ServiceEntry) -> None:
        for host in entry.hosts:
            hostname = resolve(host, entry.meta.namespace, self.domain)
            service = Service(
                hostname=hostname,
                namespace=entry.meta.namespace,
                addresses=entry.addresses,
                ports=tuple(
                    Port(port.name, port.number, _ENTRY_PROTOCOL.get(port.protocol, Protocol.TCP))
                    for port in entry.ports
                ),
                resolution=_ENTRY_RESOLUTION[entry.resolution],
                registry="External",
                mesh_external=entry.external,
                where=entry.meta.where,
            )
            if not self._add(service):
                continue
            workloads = list(entry.endpoints)
            if entry.workload_selector:
                workloads += [found.workload for found in self._selected(entry)]
            if entry.resolution.startswith("DNS") and not workloads:
                workloads = [Workload(hostname, {}, {}, "", 1, "")]
            found = self.endpoints[hostname]
            for workload in workloads:
                for port in entry.ports:
                    found.append(
                        Endpoint(
                            service_port=port.number,
                            address=workload.address,
                            port=workload.ports.get(port.name, port.target_port or port.number),
                            labels=tuple(sorted(workload.labels.items())),
                            locality=workload.locality,
                            weight=workload.weight,
                            service_account=workload.service_account,
                        )
                    )

    def _selected(self, entry: ServiceEntry) -> Iterable[WorkloadEntry]:
        for workload in self._all(WorkloadEntry):
            same = workload.meta.namespace == entry.meta.namespace
            if same and entry.workload_selector.items() <= workload.workload.labels.items():
                yield workload

    # Rules

    def _resolved(self, rule: VirtualService) -> VirtualService:
        namespace = rule.meta.namespace

        def routes(found: tuple[WeightedDestination, ...]) -> tuple[WeightedDestination, ...]:
            return tuple(
                replace(
                    route,
                    destination=replace(
                        route.destination, host=resolve(route.destination.host, namespace, self.domain)
                    ),
                )
                for route in found
            )

        def http(found: HttpRule) -> HttpRule:
            return replace(found, routes=routes(found.routes))

        def tcp(found: TcpRule) -> TcpRule:
            return replace(found, routes=routes(found.routes))

        return replace(
            rule,
            hosts=tuple(resolve(host, namespace, self.domain) for host in rule.hosts),
            gateways=tuple(_gateway_name(name, namespace) for name in rule.gateways),
            http=tuple(http(found) for found in rule.http),
            tcp=tuple(tcp(found) for found in rule.tcp),
        )

    def _mesh_rules(self, rules: Iterable[VirtualService]) -> dict[str, VirtualService]:
        table: dict[str, VirtualService] = {}
        for rule in rules:
            if MESH not in rule.gateways:
                continue
            for host in rule.hosts:
                known = table.setdefault(host, rule)
                if known is not rule:
                    self.conflicts.append(f"{rule.meta.where}: {host} already has the rules of {known.meta.where}")
        return table

    def _destination_rules(self) -> dict[str, DestinationRule]:
        """By full host; several for one host are merged, the first deciding where they differ."""
        table: dict[str, DestinationRule] = {}
        for rule in self._all(DestinationRule):
            host = resolve(rule.host, rule.meta.namespace, self.domain)
            known = table.get(host)
            if known is None:
                table[host] = replace(rule, host=host)
                continue
            names = {subset.name for subset in known.subsets}
            for subset in rule.subsets:
                if subset.name in names:
                    self.conflicts.append(
                        f"{rule.meta.where}: subset {subset.name} of {host} is already defined at {known.meta.where}"
                    )
            fresh = tuple(subset for subset in rule.subsets if subset.name not in names)
            table[host] = replace(known, subsets=known.subsets + fresh, policy=known.policy.over(rule.policy))
        return table


def _gateway_name(name: str, namespace: str) -> str:
    """`namespace/name` of a gateway; `mesh` as it is."""
    if name == MESH or "/" in name:
        return name
    short, dot, rest = name.partition(".")
    return f"{rest.partition('.')[0]}/{short}" if dot else f"{namespace}/{name}"


def _endpoint_order(endpoint: Endpoint) -> tuple[int, str, int, str]:
    return endpoint.service_port, endpoint.address, endpoint.port, endpoint.uid


def _instances(
    services: dict[str, Service], endpoints: dict[str, tuple[Endpoint, ...]]
) -> dict[str, tuple[tuple[Service, Endpoint], ...]]:
    table: dict[str, list[tuple[Service, Endpoint]]] = defaultdict(list)
    for host, found in endpoints.items():
        for endpoint in found:
            table[endpoint.address].append((services[host], endpoint))
    return {address: tuple(pairs) for address, pairs in table.items()}


def build_snapshot(resources: Iterable[Resource], domain: str) -> MeshSnapshot:
    """The mesh that `resources` describe, with service names under `domain` (`cluster.local`)."""
    return _Builder(resources, domain).build()
