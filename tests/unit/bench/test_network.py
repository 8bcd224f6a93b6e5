"""Where a run takes place when it may not have a namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate.bench import network
from tidegate.bench.rig import Rig
from tidegate.bench.scenarios import select


def test_who_is_not_root_stays_in_the_hosts_network_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    here = network.enter()
    assert not here.private
    assert here.note.startswith("not root, hence the host's network")


def test_redirection_needs_a_namespace_and_is_skipped_without() -> None:
    rig = Rig(["tidegate", "haproxy"], duration=1, repeats=1, progress=lambda _: None)
    outcome = rig.measure(select(["redirect"])[0])
    assert outcome.skipped
    assert list(outcome.missing) == ["tidegate"]
    assert not outcome.samples


INSIDE = """
import socket, sys
from pathlib import Path
from tidegate.bench import network
print(network.enter())
print(Path("/proc/sys/net/ipv4/tcp_max_tw_buckets").read_text())
with socket.create_server(("127.0.0.1", 0)) as server:
    for _ in range(50):
        with socket.create_connection(server.getsockname()), server.accept()[0] as accepted:
            accepted.shutdown(socket.SHUT_RDWR)
waiting = [line for line in Path("/proc/net/tcp").read_text().splitlines() if line.split()[3] == "06"]
print(len(waiting))
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_its_own_namespace_keeps_no_time_wait_and_the_hosts_limit_stays() -> None:
    limit = Path("/proc/sys/net/ipv4/tcp_max_tw_buckets")
    before = limit.read_text()
    said = subprocess.run([sys.executable, "-c", INSIDE], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "private=True" in said
    assert "without" not in said
    assert said.split()[-2:] == ["0", "0"]
    assert limit.read_text() == before
