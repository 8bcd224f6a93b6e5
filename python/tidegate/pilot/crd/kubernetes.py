"""The Kubernetes core resources that make up the embedded registry: Service, Endpoints, EndpointSlice, Pod."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.pilot.crd.meta import Meta, read_meta
from tidegate.pilot.crd.reader import Mapping, Value, labels

_PROTOCOLS = ("TCP", "UDP", "SCTP")


@dataclass(frozen=True)
class ServicePort:
    name: str
    port: int
    protocol: str
    app_protocol: str | None


@dataclass(frozen=True)
class KubernetesService:
    """`v1 Service`. `cluster_ips` is empty for a headless one."""

    meta: Meta
    cluster_ips: tuple[str, ...]
    ports: tuple[ServicePort, ...]
    selector: dict[str, str]
    external_name: str | None


@dataclass(frozen=True)
class EndpointPort:
    name: str
    port: int


@dataclass(frozen=True)
class EndpointAddress:
    ip: str
    ready: bool
    pod: str | None
    zone: str | None
    node: str | None


@dataclass(frozen=True)
class EndpointSubset:
    addresses: tuple[EndpointAddress, ...]
    ports: tuple[EndpointPort, ...]


@dataclass(frozen=True)
class KubernetesEndpoints:
    """`v1 Endpoints` and `discovery.k8s.io EndpointSlice` alike: endpoints of the service called `service`."""

    meta: Meta
    service: str
    subsets: tuple[EndpointSubset, ...]


@dataclass(frozen=True)
class Pod:
    """`v1 Pod`: only the address and the labels matter, which subsets and source matches select by."""

    meta: Meta
    ip: str
    service_account: str


def _service_port(value: Value) -> ServicePort:
    port = value.mapping()
    read = ServicePort(
        name=port.read("name", Value.string, ""),
        port=port.need("port").port(),
        protocol=port.read("protocol", lambda v: v.one_of(_PROTOCOLS), "TCP"),
        app_protocol=port.optional("appProtocol", Value.non_empty),
    )
    # The target port is a matter of the endpoints; the node port one of nodes.
    port.skip("targetPort", "nodePort")
    port.finish()
    return read


def read_service(document: Mapping) -> KubernetesService:
    meta = read_meta(document)
    spec = document.need("spec").mapping()
    kind = spec.read("type", lambda v: v.one_of(("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")), "ClusterIP")
    ips: tuple[str, ...] = ()
    first = spec.take("clusterIP")
    if first is not None and first.string() not in ("None", ""):
        ips = (first.address(),)
    every = spec.take("clusterIPs")
    if every is not None:
        ips = tuple(item.address() for item in every.items() if item.string() != "None") or ips
    external = spec.optional("externalName", lambda v: v.host(wildcard=False))
    if kind == "ExternalName" and external is None:
        spec.need("externalName")
    service = KubernetesService(
        meta=meta,
        cluster_ips=ips,
        ports=spec.sequence("ports", _service_port),
        selector=labels(spec, "selector"),
        external_name=external if kind == "ExternalName" else None,
    )
    # How packets reach a service from outside the mesh, and kube-proxy's own knobs: nothing for a sidecar.
    spec.skip(
        "sessionAffinity", "sessionAffinityConfig", "externalTrafficPolicy", "internalTrafficPolicy", "ipFamilies",
        "ipFamilyPolicy", "externalIPs", "loadBalancerIP", "loadBalancerClass", "loadBalancerSourceRanges",
        "allocateLoadBalancerNodePorts", "healthCheckNodePort", "publishNotReadyAddresses", "trafficDistribution",
    )  # fmt: skip
    spec.finish()
    document.skip("status")
    _unique_ports(service, spec)
    return service


def _unique_ports(service: KubernetesService, spec: Mapping) -> None:
    seen: set[str] = set()
    for port in service.ports:
        if port.name in seen:
            problem = f"port name {port.name!r} is used twice" if port.name else "several ports need names"
            spec.refuse(problem)
        seen.add(port.name)


def _endpoint_address(value: Value, *, ready: bool) -> EndpointAddress:
    address = value.mapping()
    ip = address.need("ip").address()
    target = address.take("targetRef")
    pod = None
    if target is not None:
        pod = _target_pod(target)
    node = address.optional("nodeName", Value.string)
    address.skip("hostname")
    address.finish()
    return EndpointAddress(ip=ip, ready=ready, pod=pod, zone=None, node=node)


def _target_pod(value: Value) -> str | None:
    target = value.mapping()
    kind = target.read("kind", Value.string, "Pod")
    name = target.optional("name", Value.string)
    target.skip("namespace", "uid", "resourceVersion", "apiVersion", "fieldPath")
    target.finish()
    return name if kind == "Pod" else None


def _endpoint_port(value: Value) -> EndpointPort | None:
    port = value.mapping()
    protocol = port.read("protocol", lambda v: v.one_of(_PROTOCOLS), "TCP")
    read = EndpointPort(name=port.read("name", Value.string, ""), port=port.need("port").port())
    port.skip("appProtocol")
    port.finish()
    return read if protocol == "TCP" else None


def read_endpoints(document: Mapping) -> KubernetesEndpoints:
    meta = read_meta(document)

    def subset(value: Value) -> EndpointSubset:
        fields = value.mapping()
        ready = fields.sequence("addresses", lambda v: _endpoint_address(v, ready=True))
        waiting = fields.sequence("notReadyAddresses", lambda v: _endpoint_address(v, ready=False))
        ports = tuple(port for port in fields.sequence("ports", _endpoint_port) if port is not None)
        fields.finish()
        return EndpointSubset(addresses=ready + waiting, ports=ports)

    return KubernetesEndpoints(meta=meta, service=meta.name, subsets=document.sequence("subsets", subset))


def _slice_addresses(value: Value) -> list[EndpointAddress]:
    endpoint = value.mapping()
    addresses = endpoint.sequence("addresses", Value.address)
    ready = True
    conditions = endpoint.take("conditions")
    if conditions is not None:
        fields = conditions.mapping()
        ready = fields.read("ready", Value.boolean, True)
        fields.skip("serving", "terminating")
        fields.finish()
    target = endpoint.take("targetRef")
    pod = None if target is None else _target_pod(target)
    zone = endpoint.optional("zone", Value.string)
    node = endpoint.optional("nodeName", Value.string)
    endpoint.skip("hostname", "hints", "deprecatedTopology")
    endpoint.finish()
    return [EndpointAddress(ip=ip, ready=ready, pod=pod, zone=zone, node=node) for ip in addresses]


def read_endpoint_slice(document: Mapping) -> KubernetesEndpoints:
    meta = read_meta(document)
    document.read("addressType", lambda v: v.one_of(("IPv4", "IPv6"), unsupported=("FQDN",)), "IPv4")
    service = meta.labels.get("kubernetes.io/service-name")
    if service is None:
        document.refuse("metadata.labels needs kubernetes.io/service-name, which says whose endpoints these are")
    addresses = tuple(item for found in document.sequence("endpoints", _slice_addresses) for item in found)
    ports = tuple(port for port in document.sequence("ports", _endpoint_port) if port is not None)
    return KubernetesEndpoints(meta=meta, service=service, subsets=(EndpointSubset(addresses, ports),))


def read_pod(document: Mapping) -> Pod:
    meta = read_meta(document)
    account = "default"
    spec = document.take("spec")
    if spec is not None and not spec.is_null():
        account = spec.mapping().read("serviceAccountName", Value.string, "default")
    status = document.need("status").mapping()
    return Pod(meta=meta, ip=status.need("podIP").address(), service_account=account)
