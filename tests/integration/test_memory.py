"""The sidecar's memory: agent and proxy together, idle, against the real Envoy alone under the same configuration."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from integration.mesh import mesh
from tidegate.peer import envoy_binary


def resident(pid: int) -> int:
    """Resident memory in kB; pages shared with another process of ours count in each."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB", text, re.MULTILINE)
    assert found
    return int(found[1])


def test_agent_and_proxy_are_smaller_than_envoy(tmp_path: Path) -> None:
    for name in ("tidegate", "envoy"):
        (tmp_path / name).mkdir()
    with mesh(tmp_path / "tidegate") as ours, mesh(tmp_path / "envoy", data_plane=envoy_binary()) as theirs:
        time.sleep(1.0)
        assert ours.agent is not None
        agent, proxy = resident(ours.agent.pid), resident(ours.proxy_pid())
        envoy = resident(theirs.proxy_pid())
    print(f"agent {agent} kB + proxy {proxy} kB = {agent + proxy} kB; Envoy alone {envoy} kB", os.linesep)
    assert agent + proxy < envoy
