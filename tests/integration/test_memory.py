"""The sidecar's memory, idle, under the same configuration: agent and proxy together.

Beside the real Envoy alone, and beside Envoy with what pilot-agent adds to it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from integration.mesh import Mesh, mesh
from tidegate.peer import envoy_binary

#: What pilot-agent holds beside Envoy, in kB: 9,424 to 9,780 in six runs by hand, rounded down. Its binary is in
#: no package that a test could install; ARCHITECTURE.md ("Memory of a sidecar") says how it was measured.
PILOT_AGENT_ANONYMOUS = 9_400
#: The proxy gives memory back a second after its first configuration.
SETTLED = 2.0


@dataclass(frozen=True)
class Memory:
    """In kB, as /proc/PID/smaps_rollup has it. Pages shared with another process of ours count in each `rss`."""

    rss: int
    anonymous: int
    pss: int

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.rss + other.rss, self.anonymous + other.anonymous, self.pss + other.pss)


def memory(pid: int) -> Memory:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    fields = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
    return Memory(fields["Rss"], fields["Anonymous"], fields["Pss"])


def sidecar(running: Mesh) -> tuple[Memory, Memory]:
    assert running.agent is not None
    return memory(running.agent.pid), memory(running.proxy_pid())


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Memory, Memory]:
    """Our agent and proxy together, and Envoy alone."""
    with mesh(tmp_path_factory.mktemp("ours")) as ours:
        time.sleep(SETTLED)
        agent, proxy = sidecar(ours)
    with mesh(tmp_path_factory.mktemp("theirs"), data_plane=envoy_binary()) as theirs:
        time.sleep(SETTLED)
        _, envoy = sidecar(theirs)
    print(f"agent {agent}\nproxy {proxy}\ntogether {agent + proxy}\nEnvoy alone {envoy}")
    return agent + proxy, envoy


def test_agent_and_proxy_are_smaller_than_envoy(idle: tuple[Memory, Memory]) -> None:
    ours, envoy = idle
    # Not of the proportional size: each further Envoy on the machine makes one Envoy's smaller.
    assert ours.rss < envoy.rss


def test_their_anonymous_memory_is_below_that_of_pilot_agent_and_envoy(idle: tuple[Memory, Memory]) -> None:
    ours, envoy = idle
    assert ours.anonymous < envoy.anonymous + PILOT_AGENT_ANONYMOUS
