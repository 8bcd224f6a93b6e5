"""A little network of namespaces: one per workload, all plugged into a switch that has a namespace of its own.

The switch's namespace keeps the host's firewall (and Docker's) out of it; one more cable leads to the host.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tidegate.errors import TidegateError

_NETNS: Final = Path("/run/netns")


class NetworkError(TidegateError):
    """A namespace or a link could not be made."""


def _ip(*words: str, batch: Sequence[str] = ()) -> str:
    binary = shutil.which("ip", path=f"{os.defpath}:/usr/local/sbin:/usr/sbin:/sbin")
    if binary is None:
        raise NetworkError("ip (iproute2) is not installed")
    done = subprocess.run(
        [binary, *words], input="\n".join(batch), capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode != 0:
        raise NetworkError(f"ip {' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def namespace_path(name: str) -> str:
    return str(_NETNS / name)


def existing(prefix: str) -> list[str]:
    """The named namespaces that begin with `prefix`."""
    try:
        return sorted(name for name in os.listdir(_NETNS) if name.startswith(prefix))
    except OSError:
        return []


def free_subnet(candidates: Iterable[str]) -> ipaddress.IPv4Network:
    """The first of `candidates` that no route of this machine touches."""
    taken = []
    for route in json.loads(_ip("-j", "-4", "route", "show", "table", "all") or "[]"):
        if (destination := route.get("dst", "default")) != "default":
            try:
                taken.append(ipaddress.ip_network(destination, strict=False))
            except ValueError:
                continue
    for candidate in map(ipaddress.IPv4Network, candidates):
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise NetworkError("every address range the demo could use is taken")


def usable(prefix: str) -> bool:
    """Whether namespaces and links can be made here at all."""
    name = f"{prefix}probe"
    try:
        _ip("netns", "add", name)
    except (NetworkError, OSError):
        return False
    try:
        _ip("-n", name, "link", "add", "tgdprobe", "type", "bridge")
    except NetworkError:
        return False
    finally:
        remove([name])
    return True


def create(switch: str, host_link: str, gateway: str, prefix_length: int, workloads: Sequence[tuple[str, str]]) -> None:
    """The switch, its cable to the host (at `gateway`), and a namespace per (name, address)."""
    _ip("-batch", "-", batch=[f"netns add {name}" for name in (switch, *(name for name, _ in workloads))])
    lines = [
        f"-n {switch} link add sw type bridge",
        f"-n {switch} link set sw up",
        f"link add {host_link} type veth peer name host netns {switch}",
        f"-n {switch} link set host master sw up",
        f"addr add {gateway}/{prefix_length} dev {host_link}",
        f"link set {host_link} up",
    ]
    for index, (name, address) in enumerate(workloads):
        lines += [
            f"-n {switch} link add p{index} type veth peer name eth0 netns {name}",
            f"-n {switch} link set p{index} master sw up",
            f"-n {name} link set lo up",
            f"-n {name} addr add {address}/{prefix_length} dev eth0",
            f"-n {name} link set eth0 up",
            f"-n {name} route add default via {gateway}",
        ]
    for line in lines:
        _ip(*line.split())


def processes(name: str) -> list[int]:
    """Who lives in a namespace."""
    try:
        return [int(word) for word in _ip("netns", "pids", name).split()]
    except NetworkError:
        return []


def remove(names: Iterable[str]) -> None:
    """Delete namespaces; the links in them, and their other ends, go with them."""
    for name in names:
        if Path(namespace_path(name)).exists():
            _ip("netns", "del", name)
