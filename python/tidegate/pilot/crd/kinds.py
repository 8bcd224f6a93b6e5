"""From the text of a file to validated resources: `apiVersion` and `kind` choose the reader."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tidegate.pilot.crd.destination_rule import DestinationRule, read_destination_rule
from tidegate.pilot.crd.gateway import Gateway, read_gateway
from tidegate.pilot.crd.kubernetes import (
    KubernetesEndpoints,
    KubernetesService,
    Pod,
    read_endpoint_slice,
    read_endpoints,
    read_pod,
    read_service,
)
from tidegate.pilot.crd.reader import Mapping, Value, documents
from tidegate.pilot.crd.rejection import Rejection, ResourceRejectedError
from tidegate.pilot.crd.service_entry import ServiceEntry, WorkloadEntry, read_service_entry, read_workload_entry
from tidegate.pilot.crd.sidecar import Sidecar, read_sidecar
from tidegate.pilot.crd.virtual_service import VirtualService, read_virtual_service

Resource: TypeAlias = (
    KubernetesService
    | KubernetesEndpoints
    | Pod
    | ServiceEntry
    | WorkloadEntry
    | VirtualService
    | DestinationRule
    | Sidecar
    | Gateway
)

_NETWORKING = ("networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3")
_READERS: dict[str, tuple[tuple[str, ...], Callable[[Mapping], Resource]]] = {
    "Service": (("v1",), read_service),
    "Endpoints": (("v1",), read_endpoints),
    "EndpointSlice": (("discovery.k8s.io/v1", "discovery.k8s.io/v1beta1"), read_endpoint_slice),
    "Pod": (("v1",), read_pod),
    "ServiceEntry": (_NETWORKING, read_service_entry),
    "WorkloadEntry": (_NETWORKING, read_workload_entry),
    "VirtualService": (_NETWORKING, read_virtual_service),
    "DestinationRule": (_NETWORKING, read_destination_rule),
    "Sidecar": (_NETWORKING, read_sidecar),
    "Gateway": (_NETWORKING, read_gateway),
}
#: What a file of Kubernetes manifests usually holds besides; of no concern to traffic management.
_IGNORED = {"Deployment", "ServiceAccount", "Namespace", "ConfigMap", "Secret"}


def key_of(resource: Resource) -> tuple[str, str, str]:
    """Kind, namespace and name: what makes a resource unique in a mesh."""
    kind = type(resource).__name__.removeprefix("Kubernetes")
    return kind, resource.meta.namespace, resource.meta.name


def _read(document: Value) -> list[Resource]:
    fields = document.mapping()
    version_field, kind_field = fields.need("apiVersion"), fields.need("kind")
    version, kind = version_field.non_empty(), kind_field.non_empty()
    if kind == "List" and version == "v1":
        items = fields.need("items").items()
        return [resource for item in items for resource in _read(item)]
    if kind in _IGNORED:
        return []
    if kind not in _READERS:
        kind_field.refuse(f"{kind} is not a kind that this discovery reads")
    versions, reader = _READERS[kind]
    if version not in versions:
        version_field.refuse(f"{version} is not one of {', '.join(versions)} for {kind}")
    resource = reader(fields)
    if kind == "Pod":
        fields.skip("spec", "status")
    fields.finish()
    return [resource]


def read_resources(text: str, file: str) -> tuple[tuple[Resource, ...], tuple[Rejection, ...]]:
    """All resources of one file, or every reason why it is refused: a file is taken as a whole."""
    resources: list[Resource] = []
    rejections: list[Rejection] = []
    seen: dict[tuple[str, str, str], int] = {}
    try:
        for document in documents(text, file):
            try:
                found = _read(document)
            except ResourceRejectedError as error:
                rejections.append(error.rejection)
                continue
            for resource in found:
                key = key_of(resource)
                if key in seen:
                    reason = f"{key[0]} {key[1]}/{key[2]} is already defined at line {seen[key]}"
                    rejections.append(Rejection(file, resource.meta.line, "metadata.name", reason))
                seen[key] = resource.meta.line
                resources.append(resource)
    except ResourceRejectedError as error:
        rejections.append(error.rejection)
    return ((), tuple(rejections)) if rejections else (tuple(resources), ())
