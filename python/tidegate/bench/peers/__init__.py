"""The proxies under test: how each is found, configured for one case with one worker, and started.

Must not know how they are measured.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from tidegate.bench.peers import envoy, haproxy, nginx
from tidegate.bench.peers.site import Launch, Site
from tidegate.bench.scenarios import EVERYBODY, Case
from tidegate.peer import PeerMissing, envoy_binary

__all__ = ["NAMES", "Launch", "Site", "can", "known", "launch", "native_tool", "own"]

NAMES = EVERYBODY

#: Not shown to anybody: `tg-forward`, burning so many microseconds per message, to test what the rig says.
_FORWARD = re.compile(r"forward-(\d+)")


def known(name: str) -> bool:
    return name in NAMES or _FORWARD.fullmatch(name) is not None


def can(name: str, case: Case) -> bool:
    """Whether the case is meant for this peer."""
    return name in case.peers or (_FORWARD.fullmatch(name) is not None and case.kind == "load" and not case.table)


def launch(name: str, case: Case, site: Site) -> Launch:
    """How to start peer `name` for `case`; `PeerMissing` if it is not installed."""
    if name == "tidegate":
        return envoy.launch(_tidegate(), case, site)
    if name == "envoy":
        return envoy.launch(envoy_binary(), case, site)
    if name == "haproxy":
        return haproxy.launch(_which("haproxy"), case, site)
    if name == "nginx":
        return nginx.launch(_which("nginx"), case, site)
    if forward := _FORWARD.fullmatch(name):
        addresses = ("--listen", f"127.0.0.1:{site.listen}", "--upstream", f"127.0.0.1:{site.upstream}")
        return Launch((native_tool("tg-forward"), *addresses, "--spin-us", forward[1]), {})
    raise KeyError(name)


def own(name: str, bootstrap: Path) -> Launch:
    """How to start tidegate or Envoy with somebody's own bootstrap, with one worker."""
    return envoy.start(_tidegate() if name == "tidegate" else envoy_binary(), bootstrap)


def _which(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if not found:
        raise PeerMissing(f"{name} is not installed (Debian: apt-get install {name})")
    return found


def _tidegate() -> str:
    beside = Path(sys.executable).with_name("tidegate-proxy")
    return str(beside) if beside.exists() else _which("tidegate-proxy")


def native_tool(name: str) -> str:
    """`tg-load`, `tg-backend` or `tg-forward`, built with the workspace and installed beside this package."""
    found = Path(__file__).parent.parent / "bin" / name
    if not found.exists():
        raise PeerMissing(f"{name} is not here: `make build` in a checkout, `make wheel` for a wheel that has it")
    return str(found)
