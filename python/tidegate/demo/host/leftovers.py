"""The demo's own directory on disk, with the record by which a later run can tidy up after a killed one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tidegate.demo.host import network
from tidegate.demo.host.children import Identity, end, identify

PREFIX: Final = "tgd-"
_RECORD: Final = "record.json"


def _base() -> Path:
    return Path(tempfile.gettempdir())


class Run:
    """One run of the demo: an id, a directory, and a record of whatever must be undone."""

    def __init__(self) -> None:
        self.id = f"{os.getpid():x}"
        self.directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.geteuid()}-", dir=_base()))
        # Proxies run as another user and must be able to pass.
        self.directory.chmod(0o755)
        self._namespaces: list[str] = []
        self._children: list[Identity] = []
        self._write()

    def _write(self) -> None:
        owner = identify(os.getpid())
        record = {
            "owner": [owner.pid, owner.started] if owner else [0, 0],
            "namespaces": self._namespaces,
            "children": [[child.pid, child.started] for child in self._children],
        }
        fresh = self.directory / f"{_RECORD}.new"
        fresh.write_text(json.dumps(record))
        fresh.replace(self.directory / _RECORD)

    def note_namespaces(self, names: Iterable[str]) -> None:
        """Before they are made, so that none is ever made unrecorded."""
        self._namespaces += names
        self._write()

    def note_child(self, pid: int) -> None:
        identity = identify(pid)
        if identity is not None:
            self._children.append(identity)
            self._write()

    def remove(self) -> None:
        _undo(self._children, self._namespaces, self.directory)


def _undo(children: Iterable[Identity], namespaces: Iterable[str], directory: Path) -> None:
    names = list(namespaces)
    inside = [identity for name in names for pid in network.processes(name) if (identity := identify(pid))]
    end([child for child in children if identify(child.pid) == child], also=inside)
    stragglers = [identity for name in names for pid in network.processes(name) if (identity := identify(pid))]
    end(stragglers, patience=0.0)
    network.remove(names)
    shutil.rmtree(directory, ignore_errors=True)


def sweep() -> int:
    """Undo what killed runs of this user left behind; how many there were. Running demos are left alone."""
    swept = 0
    for directory in _base().glob(f"{PREFIX}{os.geteuid()}-*"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if directory.is_symlink() or directory.stat().st_uid != os.geteuid():
                continue
            record = json.loads((directory / _RECORD).read_text())
            owner = Identity(*record["owner"])
            if identify(owner.pid) == owner:
                continue
            children = [Identity(*child) for child in record["children"]]
            names = [name for name in record["namespaces"] if str(name).startswith(PREFIX)]
            _undo(children, names, directory)
            swept += 1
    return swept
