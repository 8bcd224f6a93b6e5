"""Which data plane the sidecars run: ours, the real Envoy, or any program with Envoy's command line."""

from __future__ import annotations

import os
from pathlib import Path

from tidegate.errors import UsageError
from tidegate.peer import envoy_binary


def find(choice: str) -> str:
    """The binary for `--data-plane`; empty for ours, which the agent finds by itself."""
    if choice == "tidegate":
        return ""
    if choice == "envoy":
        # Resolved: a workload may be shown the program, but not the links that lead to it.
        return str(Path(envoy_binary()).resolve())
    path = Path(choice).resolve()
    if not path.is_file() or not os.access(path, os.X_OK):
        raise UsageError("--data-plane", f"{choice} is neither tidegate, nor envoy, nor a program")
    return str(path)
