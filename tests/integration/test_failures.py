"""What happens when a part dies: traffic goes on, and the part is back in time."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.mesh import HOST, Mesh, eventually, mesh, rule


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Mesh]:
    with mesh(tmp_path) as running:
        yield running


class Callers(threading.Thread):
    """Calls the service at a steady rate over one keep-alive connection per caller and counts what went wrong."""

    def __init__(self, world: Mesh, rate: float, seconds: float) -> None:
        super().__init__(daemon=True)
        self.world, self.pause, self.seconds = world, 1 / rate, seconds
        self.calls, self.failures = 0, [""][:0]

    def run(self) -> None:
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self.world.port, timeout=5)
        end = time.monotonic() + self.seconds
        due = time.monotonic()
        while time.monotonic() < end:
            due += self.pause
            try:
                connection.request("GET", f"http://{HOST}:9080/", headers={"host": f"{HOST}:9080"})
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    self.failures.append(f"{answer.status}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            self.calls += 1
            time.sleep(max(0.0, due - time.monotonic()))
        connection.close()


def test_discovery_dies_and_returns(world: Mesh) -> None:
    callers = Callers(world, rate=100, seconds=6)
    callers.start()
    time.sleep(0.5)
    assert world.discovery is not None
    world.discovery.kill()
    world.discovery.wait(5)
    time.sleep(2)
    assert world.get() == (200, "v1")
    world.apply(rule("v2"))
    world.start_discovery()
    took = eventually(lambda: world.get() == (200, "v2"), 5, "new configuration after the return of discovery")
    callers.join()
    assert callers.failures == []
    assert callers.calls > 400
    print(f"new configuration {took:.2f} s after discovery was ready again; {callers.calls} calls, none failed")


def test_the_proxy_dies_and_the_agent_has_it_back(world: Mesh) -> None:
    before = world.proxy_pid()
    os.kill(before, signal.SIGKILL)
    took = eventually(lambda: world.get() == (200, "v1"), 2, "the proxy serves again")
    assert world.proxy_pid() != before
    print(f"serving again {took:.2f} s after kill -9")


def test_a_bad_rule_is_refused_and_the_last_good_one_stays(world: Mesh) -> None:
    world.apply(rule("v2").replace("route:", "rout:"))
    log = world.directory / "discovery.log"
    eventually(lambda: "rules.yaml" in log.read_text(), 5, "the refusal names the file")
    assert "rout" in log.read_text()
    assert world.get() == (200, "v1")
    world.apply(rule("v2"))
    eventually(lambda: world.get() == (200, "v2"), 5, "the mended rule")


def test_the_agent_ends_with_its_proxy_and_leaves_nothing(world: Mesh) -> None:
    assert world.agent is not None
    proxy = world.proxy_pid()
    world.agent.send_signal(signal.SIGTERM)
    assert world.agent.wait(15) == 0
    assert not Path(f"/proc/{proxy}").exists()
