"""Which data plane the sidecars run: ours, the real Envoy, or any program with Envoy's command line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tidegate.errors import UsageError
from tidegate.settings import environment


def find(choice: str) -> str:
    """The binary for `--data-plane`; empty for ours, which the agent finds by itself."""
    if choice == "tidegate":
        return ""
    if choice == "envoy":
        # Resolved: a workload may be shown the program, but not the links that lead to it.
        return str(Path(_envoy()).resolve())
    path = Path(choice).resolve()
    if not path.is_file() or not os.access(path, os.X_OK):
        raise UsageError("--data-plane", f"{choice} is neither tidegate, nor envoy, nor a program")
    return str(path)


def _envoy() -> str:
    """`ENVOY_BINARY`, else the one of `make peers`, else the one on the path."""
    environ = environment()
    if configured := environ.get("ENVOY_BINARY"):
        return configured
    cache = Path(environ.get("TIDEGATE_CACHE") or Path.home() / ".cache" / "tidegate")
    for found in sorted(cache.glob("envoy/lib/python3*/site-packages/envoy/**/envoy")):
        if found.is_file() and os.access(found, os.X_OK):
            return str(found)
    if on_path := shutil.which("envoy"):
        return on_path
    raise UsageError("--data-plane", "no Envoy: run `make peers`, or set ENVOY_BINARY")
