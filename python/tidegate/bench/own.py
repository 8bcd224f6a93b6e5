"""`tidegate bench --config`: somebody's own bootstrap, in tidegate and Envoy in turn.

Both are started on the configuration as it is, so they want the same ports: one at a time, and in the host's network,
where its upstreams are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.bench import peers
from tidegate.bench.processes import BenchError
from tidegate.bench.rig import Outcome, Rig
from tidegate.bench.scenarios import Case

_ANY = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}


@dataclass(frozen=True)
class Load:
    """`target` is HOST:PORT, or empty for the first static listener."""

    target: str
    path: str
    host: str
    connections: int


def measure(rig: Rig, config: Path, load: Load) -> Outcome:
    target = load.target or first_listener(config)
    arguments = ("http", "--connections", str(load.connections), "--path", load.path, "--host", load.host or target)
    case = Case("own", f"GET {load.path} at {target} through {config.name}", "http", "http", arguments)
    return rig.measure_own(case, lambda name: peers.own(name, config.resolve()), target)


def first_listener(config: Path) -> str:
    """HOST:PORT of the first static listener; the wildcard address is loopback."""
    # Not part of a plain `pip install tidegate`, and not needed with --target.
    import yaml

    try:
        document: Any = yaml.safe_load(config.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise BenchError(f"--config {config}: {error}") from None
    try:
        listener = (_get(document, "static_resources") or {})["listeners"][0]
        address = _get(listener["address"], "socket_address")
        host, port = address.get("address", ""), int(_get(address, "port_value"))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise BenchError(f"--config {config}: no static listener with an address; give --target HOST:PORT") from None
    host = _ANY.get(host, f"[{host}]" if ":" in host else host)
    return f"{host}:{port}"


def _get(mapping: Any, name: str) -> Any:
    """A field in either spelling of proto-JSON."""
    head, *rest = name.split("_")
    camel = head + "".join(word.title() for word in rest)
    return mapping[name] if name in mapping else mapping[camel]
