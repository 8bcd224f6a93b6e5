"""A network namespace for the run: the host's congestion control (BBR paces loopback) and rules stay outside.

Must be entered by the main thread before anything is started. Knows no case.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tidegate.bench.peers.site import CAPTURE_PORT, REDIRECT_ADDRESS
from tidegate.bench.processes import BenchError
from tidegate.demo.host import syscalls

# All of them are a namespace's own: the host's stay as they are.
_SETTINGS = {
    "tcp_congestion_control": "reno",
    "ip_local_port_range": "4096 65000",
    "tcp_tw_reuse": "1",
    # Every closed connection would stay a minute in TIME_WAIT, and every new one search among them, those that the peer
    # before has left included.
    "tcp_max_tw_buckets": "0",
}
_NET = f"{REDIRECT_ADDRESS.rpartition('.')[0]}"


@dataclass(frozen=True)
class Network:
    """Where the run takes place; `note` is for the reader of the results."""

    private: bool
    note: str


def host() -> Network:
    with contextlib.suppress(OSError):
        control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
        hint = ": it paces loopback and distorts bulk transfers" if control == "bbr" else ""
        return Network(False, f"the host's network, congestion control {control}{hint}")
    return Network(False, "the host's network")


def enter() -> Network:
    """Moves this process into a namespace of its own, if it may; says what came of it."""
    if os.geteuid() != 0:
        return Network(False, f"not root, hence {host().note}")
    try:
        syscalls.own_network()
        syscalls.interface_up("lo")
    except OSError as error:
        return Network(False, f"no network namespace ({error}), hence {host().note}")
    missed = []
    for name, value in _SETTINGS.items():
        try:
            Path("/proc/sys/net/ipv4", name).write_text(value)
        except OSError:
            missed.append(name)
    note = "a network namespace of its own, congestion control reno"
    return Network(True, note if not missed else f"a network namespace of its own, without {', '.join(missed)}")


@contextlib.contextmanager
def redirection(proxy_user: int) -> Iterator[None]:
    """Connections to `REDIRECT_ADDRESS` go to `CAPTURE_PORT`, but for those of the proxy, by `tidegate iptables`."""
    ip = shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if ip is None:
        raise BenchError("ip is not installed (Debian: apt-get install iproute2)")
    # The rules leave loopback alone, as a pod's do: the address is reached over a link, or would be.
    _run(ip, "link", "add", "bench0", "type", "veth", "peer", "name", "bench1")
    try:
        _run(ip, "address", "add", f"{_NET}.1/24", "dev", "bench0")
        for name in ("bench0", "bench1"):
            _run(ip, "link", "set", name, "up")
        rules = (sys.executable, "-m", "tidegate", "iptables", "-p", str(CAPTURE_PORT), "-u", str(proxy_user))
        _run(*rules, "-i", f"{_NET}.0/24", "-b", "")
        try:
            yield
        finally:
            _run(*rules, "--cleanup-only")
    finally:
        _run(ip, "link", "del", "bench0")


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(argv)}: {done.stderr.strip()}")
