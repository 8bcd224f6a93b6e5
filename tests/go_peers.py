"""The Go programs that tests run: h2spec and gRPC's interop client and server, built by `make go-peers`."""

from __future__ import annotations

import os
from pathlib import Path


def go_peer(name: str) -> str:
    """Where it is; fails with what to do if it is not built."""
    cache = Path(os.environ.get("TIDEGATE_CACHE") or Path.home() / ".cache" / "tidegate")
    found = cache / "peers" / "bin" / name
    if not found.exists():
        raise FileNotFoundError(f"no {name}: run `make go-peers` (needs Go)")
    return str(found)
