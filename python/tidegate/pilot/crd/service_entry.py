"""`ServiceEntry` and `WorkloadEntry`: services that no platform registry knows."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.pilot.crd.meta import Meta, read_meta
from tidegate.pilot.crd.reader import Mapping, Value, labels

PROTOCOLS = ("HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "TCP", "TLS", "UDP")
RESOLUTIONS = ("NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN")


@dataclass(frozen=True)
class EntryPort:
    number: int
    name: str
    protocol: str
    target_port: int | None


@dataclass(frozen=True)
class Workload:
    """The body of a `WorkloadEntry`, also inline as an element of `ServiceEntry.endpoints`."""

    address: str
    ports: dict[str, int]
    labels: dict[str, str]
    locality: str
    weight: int
    service_account: str


@dataclass(frozen=True)
class WorkloadEntry:
    meta: Meta
    workload: Workload


@dataclass(frozen=True)
class ServiceEntry:
    meta: Meta
    hosts: tuple[str, ...]
    addresses: tuple[str, ...]
    ports: tuple[EntryPort, ...]
    external: bool
    resolution: str
    endpoints: tuple[Workload, ...]
    workload_selector: dict[str, str]


def _port(value: Value) -> EntryPort:
    port = value.mapping()
    read = EntryPort(
        number=port.need("number").port(),
        name=port.need("name").non_empty(),
        protocol=port.read("protocol", lambda v: _protocol(v), "TCP"),
        target_port=port.optional("targetPort", Value.port),
    )
    port.finish()
    return read


def _protocol(value: Value) -> str:
    text = value.string().upper()
    if text not in PROTOCOLS:
        value.refuse(f"{value.string()!r} is not one of {', '.join(PROTOCOLS)}")
    return text


def _workload(spec: Mapping) -> Workload:
    address = spec.need("address")
    read = Workload(
        address=address.host(wildcard=False),
        ports=spec.table("ports", Value.port),
        labels=labels(spec, "labels"),
        locality=spec.read("locality", Value.string, ""),
        weight=spec.read("weight", lambda v: v.integer(0, 2**32 - 1), 0) or 1,
        service_account=spec.read("serviceAccount", Value.string, "default"),
    )
    network = spec.take("network")
    if network is not None and network.string():
        network.refuse("multi-network meshes are not supported")
    spec.finish()
    return read


def read_workload_entry(document: Mapping) -> WorkloadEntry:
    meta = read_meta(document)
    workload = _workload(document.need("spec").mapping())
    document.skip("status")
    return WorkloadEntry(meta=meta, workload=workload)


def _network(value: Value) -> str:
    text = value.string()
    if "/" in text:
        value.refuse(f"an address range is not supported, only single addresses; is {text}")
    return value.address()


def read_service_entry(document: Mapping) -> ServiceEntry:
    meta = read_meta(document)
    spec = document.need("spec").mapping()
    hosts_field = spec.need("hosts")
    hosts = tuple(item.host() for item in hosts_field.items())
    if not hosts:
        hosts_field.refuse("needs at least one host")
    resolution_field = spec.take("resolution")
    resolution = (
        "NONE" if resolution_field is None else resolution_field.one_of(RESOLUTIONS, unsupported=("DYNAMIC_DNS",))
    )
    selector: dict[str, str] = {}
    selector_field = spec.take("workloadSelector")
    if selector_field is not None:
        fields = selector_field.mapping()
        selector = labels(fields, "labels")
        fields.finish()
        if not selector:
            selector_field.refuse("needs labels")
    endpoints = spec.sequence("endpoints", lambda v: _workload(v.mapping()))
    ports = spec.sequence("ports", _port)
    if not ports:
        spec.need("ports")
    entry = ServiceEntry(
        meta=meta,
        hosts=hosts,
        addresses=spec.sequence("addresses", _network),
        ports=ports,
        external=spec.read("location", lambda v: v.one_of(("MESH_EXTERNAL", "MESH_INTERNAL")), "MESH_EXTERNAL")
        == "MESH_EXTERNAL",
        resolution=resolution,
        endpoints=endpoints,
        workload_selector=selector,
    )
    _check(entry, spec, hosts_field)
    export = spec.take("exportTo")
    if export is not None and [item.string() for item in export.items()] != ["*"]:
        export.refuse('only exportTo: ["*"] is supported')
    spec.skip("subjectAltNames")
    spec.finish()
    document.skip("status")
    return entry


def _check(entry: ServiceEntry, spec: Mapping, hosts: Value) -> None:
    if entry.endpoints and entry.workload_selector:
        spec.refuse("endpoints and workloadSelector exclude each other")
    if entry.resolution == "NONE" and entry.endpoints:
        spec.refuse("resolution NONE takes no endpoints: traffic goes where the caller meant it to go")
    if entry.resolution == "STATIC":
        if not entry.endpoints and not entry.workload_selector:
            spec.refuse("resolution STATIC needs endpoints or a workloadSelector")
        for index, endpoint in enumerate(entry.endpoints):
            if not _is_address(endpoint.address):
                spec.refuse(f"resolution STATIC needs IP addresses, endpoints[{index}].address is {endpoint.address!r}")
    if entry.resolution.startswith("DNS") and not entry.endpoints and any(h.startswith("*") for h in entry.hosts):
        hosts.refuse("a wildcard host cannot be resolved: give endpoints, or resolution NONE")
    names = [port.name for port in entry.ports]
    numbers = [port.number for port in entry.ports]
    if len(set(names)) != len(names) or len(set(numbers)) != len(numbers):
        spec.refuse("port names and numbers must be unique")
    for endpoint in entry.endpoints:
        for name in endpoint.ports:
            if name not in names:
                spec.refuse(f"endpoint {endpoint.address} has a port {name!r} that ports does not name")


def _is_address(text: str) -> bool:
    return ":" in text or text.replace(".", "").isdigit()
