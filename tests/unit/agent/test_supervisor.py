"""The supervisor with stand-in proxies, and the whole agent with the real Envoy. Each runs in a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from differential.backend import free_port
from tidegate.agent.supervise.command import Binary, command, find_binary
from tidegate.agent.supervise.supervisor import Retry
from tidegate.peer import envoy_binary
from tidegate.settings import AgentSettings, agent_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PYTHON = str(Path(__file__).parents[3] / "python")


def stand_in(directory: Path, body: str) -> str:
    """A shell script that plays the proxy; every start leaves a line with its pid and its arguments."""
    path = directory / "proxy"
    path.write_text(f'#!/bin/sh\necho "$$ $*" >> {directory}/starts\n{body}\n')
    path.chmod(0o755)
    return str(path)


class Agent:
    def __init__(self, directory: Path, binary: str, *more: str) -> None:
        self.directory = directory
        self.admin_port = free_port()
        self.log = directory / "agent.log"
        argv = [
            *("proxy", "sidecar", "--configPath", str(directory / "config"), "--binaryPath", binary),
            *("--proxyAdminPort", str(self.admin_port), "--discoveryAddress", f"127.0.0.1:{free_port()}"),
            *("--serviceCluster", "test", *more),
        ]
        pod = {"POD_NAME": "p", "POD_NAMESPACE": "n", "INSTANCE_IP": "127.0.0.1"}
        environ = {**os.environ, "PYTHONPATH": PYTHON, **pod}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tidegate", "agent", *argv], env=environ, stderr=log, stdout=log
            )

    def starts(self) -> list[list[str]]:
        path = self.directory / "starts"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def end(self, timeout: float = 10) -> int:
        return self.process.wait(timeout)


@contextlib.contextmanager
def agent(directory: Path, binary: str, *more: str) -> Iterator[Agent]:
    running = Agent(directory, binary, *more)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)
            running.process.send_signal(signal.SIGTERM)
            try:
                running.end()
            except subprocess.TimeoutExpired:
                running.process.kill()


def until(condition: Callable[[], object], timeout: float = 10) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout
        time.sleep(0.01)
    return time.monotonic() - began


def test_a_killed_proxy_is_back_within_two_seconds(tmp_path: Path) -> None:
    with agent(tmp_path, stand_in(tmp_path, 'case "$1" in --help) exit 0;; esac; exec sleep 60')) as running:
        until(lambda: len(running.starts()) == 2)  # the first start asks for --help
        os.kill(int(running.starts()[1][0]), signal.SIGKILL)
        assert until(lambda: len(running.starts()) == 3) < 2
        assert running.starts()[1][1:] == running.starts()[2][1:]
        running.process.send_signal(signal.SIGTERM)
        assert running.end() == 0


def test_the_status_thread_does_not_take_the_supervisor_s_signals(tmp_path: Path) -> None:
    binary = stand_in(tmp_path, 'case "$1" in --help) exit 0;; esac; exec sleep 60')
    with agent(tmp_path, binary, "--statusPort", str(free_port())) as running:
        for starts in (2, 3):
            until(lambda n=starts: len(running.starts()) == n)  # type: ignore[misc]
            os.kill(int(running.starts()[-1][0]), signal.SIGKILL)
        until(lambda: len(running.starts()) == 4)
        running.process.send_signal(signal.SIGTERM)
        assert running.end(timeout=3) == 0


def test_it_ends_when_the_proxy_ends(tmp_path: Path) -> None:
    with agent(tmp_path, stand_in(tmp_path, "exit 0")) as running:
        assert running.end() == 0
        assert len(running.starts()) == 2


def test_signals_are_passed_on(tmp_path: Path) -> None:
    body = 'case "$1" in --help) exit 0;; esac; trap "exit 0" USR1; while :; do sleep 0.05; done'
    with agent(tmp_path, stand_in(tmp_path, body)) as running:
        until(lambda: len(running.starts()) == 2)
        time.sleep(0.2)
        running.process.send_signal(signal.SIGUSR1)
        assert running.end() == 0


def test_a_proxy_that_will_not_end_is_killed(tmp_path: Path) -> None:
    body = 'case "$1" in --help) exit 0;; esac; trap "" TERM; while :; do sleep 0.05; done'
    with agent(tmp_path, stand_in(tmp_path, body)) as running:
        until(lambda: len(running.starts()) == 2)
        time.sleep(0.2)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert running.process.poll() is None
        running.process.send_signal(signal.SIGTERM)
        assert running.end() == 0
        assert not Path(f"/proc/{running.starts()[1][0]}").exists()


def test_a_binary_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    with agent(tmp_path, "/nonexistent/envoy") as running:
        assert running.end() == 1
        assert "--binaryPath" in running.log.read_text()


def test_back_off_is_pilot_agent_s() -> None:
    assert [Retry().delay(failures) for failures in range(1, 5)] == [0.2, 0.4, 0.8, 1.6]
    assert Retry().budget == 10


def settings(line: str) -> AgentSettings:
    found = agent_settings(line.split(), {"POD_NAME": "p", "POD_NAMESPACE": "n", "INSTANCE_IP": "10.0.0.1"})
    assert isinstance(found, AgentSettings)
    return found


def test_the_seed_s_command_line_for_ours_and_what_envoy_still_knows() -> None:
    seed = settings("sidecar --serviceCluster productpage --drainDuration 45s --parentShutdownDuration 1m0s")
    ours = command(
        seed, Binary(("tidegate-proxy",), find_binary("").flags, True), "/etc/istio/proxy/envoy-rev0.json", 0
    )
    node = "sidecar~10.0.0.1~p.n~n.svc.cluster.local"
    assert " ".join(ours) == (
        "tidegate-proxy -c /etc/istio/proxy/envoy-rev0.json --restart-epoch 0 --drain-time-s 45 "
        f"--parent-shutdown-time-s 60 --service-cluster productpage --service-node {node} --max-obj-name-len 189 "
        "-l warn --v2-config-only"
    )
    envoy = find_binary(envoy_binary())
    assert not envoy.drains_on_sigterm
    words = command(seed, envoy, "x.json", 0)
    assert "--max-obj-name-len" not in words
    assert "--v2-config-only" not in words
    assert "--disable-hot-restart" in words
    more = command(settings("sidecar --concurrency 2 --availabilityZone z --proxyLogLevel err"), envoy, "x.json", 0)
    assert " ".join(more).endswith("--concurrency 2 --service-zone z")
    assert more[more.index("-l") + 1] == "error"


def test_the_real_envoy_lives_and_dies_with_the_agent(tmp_path: Path) -> None:
    status_port = free_port()
    with agent(tmp_path, envoy_binary(), "--statusPort", str(status_port), "--drainDuration", "3s") as running:

        def admin(path: str) -> str:
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", running.admin_port, timeout=2)
                connection.request("GET", path)
                body = connection.getresponse().read().decode()
                connection.close()
                return body
            return ""

        until(lambda: admin("/server_info"))
        info = json.loads(admin("/server_info"))
        assert info["node"]["id"] == "sidecar~127.0.0.1~p.n~n.svc.cluster.local"
        pid = child_of(running.process.pid)

        # No control plane, so not ready; and the answer says why.
        connection = http.client.HTTPConnection("127.0.0.1", status_port, timeout=5)
        connection.request("GET", "/healthz/ready")
        answer = connection.getresponse()
        assert answer.status == 503
        assert b"config not received" in answer.read()
        connection.close()

        os.kill(pid, signal.SIGKILL)
        assert until(lambda: child_of(running.process.pid) not in (0, pid)) < 2
        until(lambda: admin("/server_info"))
        running.process.send_signal(signal.SIGTERM)
        assert running.end() == 0
        assert child_of(running.process.pid) == 0


def child_of(pid: int) -> int:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return int(children[0]) if children else 0
