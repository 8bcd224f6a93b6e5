"""A directory of YAML and JSON files as registry and rule store, watched for changes.

A file counts as a whole: when anything in it is refused, its last good version stays in force and the reasons are kept
for whoever asks. Watching is by polling `stat`, which works on every file system (inotify does not see the changes of
a network or overlay mount).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tidegate.pilot.crd.kinds import Resource, key_of, read_resources
from tidegate.pilot.crd.rejection import Rejection

_SUFFIXES = (".yaml", ".yml", ".json")

#: What tells one state of a file from another without reading it.
Signature: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True)
class FileSet:
    """What a directory holds: the resources in force, and why some files are not."""

    resources: tuple[Resource, ...]
    rejections: tuple[Rejection, ...]
    #: Every file with resources in force.
    files: tuple[str, ...]


@dataclass(frozen=True)
class _File:
    signature: Signature
    #: In force; of an earlier version of the file when `rejections` is not empty.
    resources: tuple[Resource, ...]
    rejections: tuple[Rejection, ...]


class FileSource:
    """Remembers the last good version of every file below `directory`.

    `scan` reads what changed since the scan before. A file still being written is left for the next scan: it is read
    once its size and time have stood still between two scans (the first scan takes everything).
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files: dict[str, _File] = {}
        self._seen: dict[str, Signature] = {}
        self._first = True

    def scan(self) -> bool:
        """Whether anything changed, for better or worse."""
        found = dict(self._signatures())
        changed = False
        for name in [name for name in self._files if name not in found]:
            del self._files[name]
            changed = True
        for name, signature in sorted(found.items()):
            known = self._files.get(name)
            settled = self._first or self._seen.get(name) == signature
            if settled and (known is None or known.signature != signature):
                changed |= self._read(name, signature, known)
        if changed:
            # What was refused for clashing with another file may be free of it now.
            for name in [name for name, file in self._files.items() if file.rejections and name in found]:
                self._read(name, found[name], self._files[name])
        self._seen = found
        self._first = False
        return changed

    def _signatures(self) -> Iterator[tuple[str, Signature]]:
        for directory, names, files in os.walk(self.directory):
            names[:] = sorted(name for name in names if not name.startswith("."))
            for file in files:
                # Hidden files are what editors and Kubernetes' atomic volume writer leave beside the real ones.
                if file.startswith(".") or not file.endswith(_SUFFIXES):
                    continue
                path = Path(directory, file)
                try:
                    stat = path.stat()
                except OSError:
                    continue
                yield str(path.relative_to(self.directory)), (stat.st_mtime_ns, stat.st_size, stat.st_ino)

    def _read(self, name: str, signature: Signature, known: _File | None) -> bool:
        resources: tuple[Resource, ...] = ()
        rejections: tuple[Rejection, ...] = ()
        try:
            text = Path(self.directory, name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return False
        except (OSError, UnicodeDecodeError) as error:
            rejections = (Rejection(name, 1, "", f"cannot be read: {error}"),)
        else:
            resources, rejections = read_resources(text, name)
            rejections = rejections or self._duplicates(name, resources)
        if rejections:
            resources = known.resources if known else ()
        self._files[name] = _File(signature, resources, rejections)
        return known is None or (resources, rejections) != (known.resources, known.rejections)

    def _duplicates(self, name: str, resources: tuple[Resource, ...]) -> tuple[Rejection, ...]:
        held = {
            key_of(resource): resource
            for other, file in self._files.items()
            if other != name
            for resource in file.resources
        }
        return tuple(
            Rejection(
                name,
                resource.meta.line,
                "metadata.name",
                f"{kind} {namespace}/{title} is already defined at {held[kind, namespace, title].meta.where}",
            )
            for resource in resources
            for kind, namespace, title in [key_of(resource)]
            if (kind, namespace, title) in held
        )

    def current(self) -> FileSet:
        """What is in force now."""
        files = sorted(self._files.items())
        return FileSet(
            resources=tuple(resource for _, file in files for resource in file.resources),
            rejections=tuple(rejection for _, file in files for rejection in file.rejections),
            files=tuple(name for name, file in files if file.resources),
        )
