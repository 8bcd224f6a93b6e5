"""What the mesh will consist of, before anything is started: workloads, addresses, and the resources that say so.

Pure. In namespaces the addresses are the seed's; on loopback every workload has an address of its own in 127/8 and,
for want of redirection, explicit listeners: inbound on that address, outbound as the application's HTTP proxy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

PORT: Final = 9080
PROXY_PORT: Final = 15002
DOMAIN: Final = "cluster.local"
NAMESPACE: Final = "default"

#: Service -> its virtual IP, as in the seed.
CLUSTER_IPS: Final = {
    "details": "10.101.163.201",
    "productpage": "10.110.29.147",
    "ratings": "10.99.16.205",
    "reviews": "10.108.25.157",
}
#: (service, version, last octet of its address).
_WORKLOADS: Final = (
    ("productpage", "v1", 23),
    ("details", "v1", 21),
    ("reviews", "v1", 24),
    ("reviews", "v2", 25),
    ("reviews", "v3", 26),
    ("ratings", "v1", 22),
)


@dataclass(frozen=True)
class Workload:
    """One pod: an application with its sidecar. `app_port` differs from 9080 where workloads share an address space."""

    service: str
    version: str
    ip: str
    netns: str
    app_address: str
    app_port: int
    admin_port: int

    @property
    def name(self) -> str:
        return f"{self.service}-{self.version}"

    @property
    def labels(self) -> dict[str, str]:
        return {"app": self.service, "version": self.version}


@dataclass(frozen=True)
class Plan:
    """Everything that has a name or an address. `isolated`: in namespaces with redirection, else on loopback."""

    isolated: bool
    run_id: str
    prefix: str
    network: str
    workloads: tuple[Workload, ...]
    ingress_ip: str
    ingress_bind: str
    ingress_port: int
    ingress_admin_port: int
    discovery_ip: str
    discovery_port: int = 15010
    discovery_web_port: int = 9093
    #: the sidecars speak HTTP/2 to each other
    http2: bool = False

    def workload(self, name: str) -> Workload:
        return next(found for found in self.workloads if found.name == name)

    @property
    def switch(self) -> str:
        return f"{self.prefix}{self.run_id}-switch"

    @property
    def host_link(self) -> str:
        return f"{self.prefix}{self.run_id}"[:15]

    @property
    def namespaces(self) -> list[str]:
        return [self.switch, *(workload.netns for workload in self.workloads)] if self.isolated else []


def make_plan(
    *,
    isolated: bool,
    run_id: str,
    prefix: str,
    network: str,
    ports: list[int],
    ingress_bind: str,
    ingress_port: int,
    http2: bool = False,
) -> Plan:
    """`network` is the first three octets of the mesh's addresses; `ports` are free ones, used from the end."""
    free = list(ports)
    workloads = []
    for service, version, octet in _WORKLOADS:
        workloads.append(
            Workload(
                service=service,
                version=version,
                ip=f"{network}.{octet}",
                netns=f"{prefix}{run_id}-{service}-{version}" if isolated else "",
                app_address="0.0.0.0" if isolated else "127.0.0.1",
                app_port=PORT if isolated else free.pop(),
                admin_port=15000 if isolated else free.pop(),
            )
        )
    return Plan(
        isolated=isolated,
        run_id=run_id,
        prefix=prefix,
        network=network,
        workloads=tuple(workloads),
        ingress_ip=f"{network}.1",
        ingress_bind=ingress_bind,
        ingress_port=ingress_port,
        ingress_admin_port=free.pop(),
        discovery_ip=f"{network}.1",
        http2=http2,
    )


# Resources. They are written as JSON, which is YAML too.

Resource = dict[str, Any]
_ISTIO: Final = "networking.istio.io/v1alpha3"


def _resource(api: str, kind: str, name: str, body: Mapping[str, Any], **labels: str) -> Resource:
    metadata: dict[str, Any] = {"name": name, "namespace": NAMESPACE}
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **body}


def registry(plan: Plan) -> list[Resource]:
    """Services, endpoints and pods: what Kubernetes would tell of."""
    resources = []
    for service, cluster_ip in CLUSTER_IPS.items():
        members = [workload for workload in plan.workloads if workload.service == service]
        ports = [{"name": "http", "port": PORT, "protocol": "TCP"}]
        spec = {"clusterIP": cluster_ip, "ports": ports, "selector": {"app": service}}
        addresses = [{"ip": w.ip, "targetRef": {"kind": "Pod", "name": w.name}} for w in members]
        resources.append(_resource("v1", "Service", service, {"spec": spec}))
        subsets = [{"addresses": addresses, "ports": [{"name": "http", "port": PORT}]}]
        resources.append(_resource("v1", "Endpoints", service, {"subsets": subsets}))
    resources += [
        _resource("v1", "Pod", workload.name, {"status": {"podIP": workload.ip}}, **workload.labels)
        for workload in plan.workloads
    ]
    gateway = {"status": {"podIP": plan.ingress_ip}}
    resources.append(_resource("v1", "Pod", "ingressgateway", gateway, istio="ingressgateway"))
    return resources


def sidecars(plan: Plan) -> list[Resource]:
    """Explicit listeners, where there is no redirection."""
    if plan.isolated:
        return []
    found = []
    for workload in plan.workloads:
        ingress = {
            "port": {"number": PORT, "protocol": "HTTP", "name": "http"},
            "bind": workload.ip,
            "captureMode": "NONE",
            "defaultEndpoint": f"{workload.app_address}:{workload.app_port}",
        }
        egress = {
            "port": {"number": PROXY_PORT, "protocol": "HTTP_PROXY", "name": "http-proxy"},
            "bind": workload.ip,
            "captureMode": "NONE",
            "hosts": ["*/*"],
        }
        spec = {"workloadSelector": {"labels": workload.labels}, "ingress": [ingress], "egress": [egress]}
        found.append(_resource(_ISTIO, "Sidecar", workload.name, {"spec": spec}))
    return found


def gateway(plan: Plan) -> list[Resource]:
    """The sample's bookinfo-gateway: the page and what belongs to it, for any host."""
    server = {
        "port": {"number": plan.ingress_port, "name": "http", "protocol": "HTTP"},
        "hosts": ["*"],
        "bind": plan.ingress_bind,
    }
    matches: list[dict[str, Any]] = [{"uri": {"exact": path}} for path in ("/", "/productpage", "/login", "/logout")]
    matches.append({"uri": {"prefix": "/api/v1/products"}})
    route = {"match": matches, "route": [{"destination": {"host": "productpage", "port": {"number": PORT}}}]}
    rule = {"hosts": ["*"], "gateways": ["bookinfo-gateway"], "http": [route]}
    return [
        _resource(
            _ISTIO, "Gateway", "bookinfo-gateway",
            {"spec": {"selector": {"istio": "ingressgateway"}, "servers": [server]}},
        ),
        _resource(_ISTIO, "VirtualService", "bookinfo", {"spec": rule}),
    ]  # fmt: skip


def destination_rules() -> list[Resource]:
    """The sample's subsets: one per version."""
    found = []
    for service in CLUSTER_IPS:
        versions = [version for name, version, _ in _WORKLOADS if name == service]
        subsets = [{"name": version, "labels": {"version": version}} for version in versions]
        found.append(_resource(_ISTIO, "DestinationRule", service, {"spec": {"host": service, "subsets": subsets}}))
    return found


def virtual_service(service: str, http: list[dict[str, Any]]) -> Resource:
    """A rule for calls to one of the services."""
    return _resource(_ISTIO, "VirtualService", service, {"spec": {"hosts": [service], "http": http}})


def split(service: str, weights: Mapping[str, int]) -> list[dict[str, Any]]:
    """HTTP rules that divide calls by version."""
    routes = [
        {"destination": {"host": service, "subset": version}, "weight": weight} for version, weight in weights.items()
    ]
    return [{"route": routes}]


def file_name(resource: Resource) -> str:
    """One file per resource, so that each can be replaced on its own."""
    return f"{resource['kind'].lower()}-{resource['metadata']['name']}.json"


def text(resource: Resource) -> str:
    return json.dumps(resource, indent=2) + "\n"


def hosts_file(plan: Plan) -> str:
    """/etc/hosts of the workloads: every service by its usual names, at its virtual IP."""
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    for service, address in CLUSTER_IPS.items():
        short = f"{service}.{NAMESPACE}"
        lines.append(f"{address} {service} {short} {short}.svc {short}.svc.{DOMAIN}")
    return "\n".join(lines) + "\n"
