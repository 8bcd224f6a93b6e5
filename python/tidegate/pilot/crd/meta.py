"""What every resource has: kind, namespace, name, labels and where it was read."""

from __future__ import annotations

from dataclasses import dataclass, field

from tidegate.pilot.crd.reader import Mapping, Value, labels


@dataclass(frozen=True)
class Meta:
    """`metadata`, with the place of the document."""

    name: str
    namespace: str
    file: str
    line: int
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


def read_meta(document: Mapping) -> Meta:
    """`metadata`; the namespace defaults to `default`, as it does for kubectl."""
    metadata = document.need("metadata").mapping()
    meta = Meta(
        name=metadata.need("name").non_empty(),
        namespace=metadata.read("namespace", Value.non_empty, "default"),
        file=document.file,
        line=document.line,
        labels=labels(metadata, "labels"),
        annotations=labels(metadata, "annotations"),
    )
    # Server-side bookkeeping, present in everything that `kubectl get -o yaml` prints.
    metadata.skip(
        "creationTimestamp", "generation", "resourceVersion", "uid", "selfLink", "managedFields", "generateName"
    )
    metadata.skip("ownerReferences", "finalizers", "deletionGracePeriodSeconds", "deletionTimestamp")
    metadata.finish()
    return meta
