"""The proxy's Python side as a process, over a stand-in data plane that keeps a diary."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from unit.proxy.test_client import Server, read, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAKE = Path(__file__).with_name("fake_native.py")
PYTHON = str(Path(__file__).parents[3] / "python")
CDS = "type/Cluster"


class Running:
    def __init__(self, directory: Path, config: dict[str, Any], *argv: str) -> None:
        self.diary = directory / "diary"
        bootstrap = directory / "bootstrap.json"
        bootstrap.write_text(json.dumps({"diary": str(self.diary), **config}))
        self.process = subprocess.Popen(
            [sys.executable, str(FAKE), "-c", str(bootstrap), *argv],
            env={**os.environ, "PYTHONPATH": PYTHON},
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def lines(self) -> list[str]:
        return self.diary.read_text().splitlines() if self.diary.exists() else []

    def until(self, condition: Callable[[list[str]], object]) -> list[str]:
        for _ in range(1000):
            lines = self.lines()
            if condition(lines):
                return lines
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.01)
        raise AssertionError(self.lines())

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        _, err = self.process.communicate(timeout=10)
        assert err == ""
        return self.process.returncode


@contextlib.contextmanager
def proxy(directory: Path, config: dict[str, Any], *argv: str) -> Iterator[Running]:
    running = Running(directory, config, *argv)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.process.communicate()


def started(lines: list[str]) -> bool:
    return "start" in lines


def test_sigterm_drains_and_a_drained_proxy_ends(tmp_path: Path) -> None:
    with proxy(tmp_path, {"drains": True, "ready": True}, "--drain-time-s", "45") as running:
        running.until(lambda lines: any("starting workers" in line for line in lines))
        running.send(signal.SIGTERM)
        assert running.end() == 0
        lines = running.lines()
        assert lines.index("drain 45.0") < lines.index("shutdown")


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with proxy(tmp_path, {"ready": True}, "--drain-time-s", "45") as running:
        running.until(lambda lines: any("starting workers" in line for line in lines))
        running.send(signal.SIGTERM)
        running.until(lambda lines: "drain 45.0" in lines)
        time.sleep(0.2)
        assert running.process.poll() is None
        running.send(signal.SIGINT)
        assert running.end() == 0


def test_hangup_is_eaten_and_usr1_reopens_logs(tmp_path: Path) -> None:
    with proxy(tmp_path, {"drains": True, "ready": True}) as running:
        running.until(lambda lines: any("starting workers" in line for line in lines))
        running.send(signal.SIGHUP)
        running.send(signal.SIGUSR1)
        running.until(lambda lines: "reopen_logs" in lines and any("SIGHUP" in line for line in lines))
        running.send(signal.SIGTERM)
        assert running.end() == 0
        assert "drain 5.0" in running.lines()


def test_memory_is_given_back_once_the_first_configuration_has_settled(tmp_path: Path) -> None:
    with proxy(tmp_path, {"ready": True}) as running:
        lines = running.until(lambda lines: "release_unused" in lines)
        assert any("starting workers" in line for line in lines[: lines.index("release_unused")])


def test_a_failing_callback_is_logged_and_counted_and_the_process_goes_on(tmp_path: Path) -> None:
    with proxy(tmp_path, {"drains": True, "ready": True, "fail": {"reopen_logs": 2, "take_events": 1}}) as running:
        running.until(lambda lines: lines.count("count tidegate.callback_failures") == 1)
        for failures in (2, 3):
            running.send(signal.SIGUSR1)
            running.until(lambda lines, n=failures: lines.count("count tidegate.callback_failures") == n)  # type: ignore[misc]
        running.send(signal.SIGUSR1)
        running.until(lambda lines: "reopen_logs" in lines)
        running.send(signal.SIGTERM)
        assert running.end() == 0


def test_init_only_ends_when_initialised(tmp_path: Path) -> None:
    with proxy(tmp_path, {"ready": True}, "--mode", "init_only") as running:
        assert running.end() == 0
        assert running.lines()[-1] == "shutdown"


def test_configuration_comes_by_stream_and_a_bug_while_applying_does_not_end_it(tmp_path: Path) -> None:
    async def scene() -> None:
        server = Server()
        async with serving(server) as port:
            wanted = {"type_url": CDS, "source": "ads", "names": [], "initial_fetch_timeout": 0.0}
            config = {
                "drains": True,
                "targets": [f"ipv4:127.0.0.1:{port}"],
                "subscriptions": [wanted],
                "fail": {"apply": 1},
            }
            with proxy(tmp_path, config) as running:
                incoming, outgoing = await server.next()
                assert (await read(incoming))["node"] == "node"
                await outgoing.put([CDS, "1", "a", ["c"]])
                incoming, outgoing = await server.next()
                first = await read(incoming)
                assert (first["version"], first["nonce"], first["node"]) == ("", "", "node")
                await outgoing.put([CDS, "2", "b", ["c"]])
                assert (await read(incoming))["version"] == "2"
                running.send(signal.SIGTERM)
                assert await asyncio.to_thread(running.end) == 0
            lines = running.lines()
            assert f"apply {CDS} 2 c" in lines
            assert lines.count("count tidegate.callback_failures") == 1
            assert "log error ADS task: RuntimeError: a bug in apply" in lines

    asyncio.run(scene())


def test_configuration_comes_by_file(tmp_path: Path) -> None:
    path = tmp_path / "cds.json"
    path.write_text(json.dumps([CDS, "1", "", ["c"]]))
    script = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import fake_native as f\n"
        f"f.Engine.subscriptions = lambda self: [f.Bag(type_url={CDS!r}, source='path', path={str(path)!r},"
        " watched_directory='', origin='', grpc=None, names=[], initial_fetch_timeout=0.0)]\n"
        "f.install()\nfrom tidegate.cli import proxy_main\nsys.exit(proxy_main())"
    )
    bootstrap = tmp_path / "b.json"
    diary = tmp_path / "diary"
    bootstrap.write_text(json.dumps({"diary": str(diary), "drains": True}))
    command = [sys.executable, "-c", script, str(FAKE.parent), "-c", str(bootstrap)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": PYTHON}) as process:
        try:
            for version in ("1", "2"):
                deadline = time.monotonic() + 10
                while not (diary.exists() and f"apply {CDS} {version} c" in diary.read_text().splitlines()):
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                (tmp_path / "new").write_text(json.dumps([CDS, "2", "", ["c"]]))
                os.replace(tmp_path / "new", path)
            process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()


def run(*argv: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, str(FAKE), *argv],
        env={**os.environ, "PYTHONPATH": PYTHON},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_validate(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text("{}")
    bad.write_text("{")
    assert run("--mode", "validate", "-c", str(good)) == (0, f"configuration '{good}' OK\n", "")
    code, out, err = run("--mode", "validate", "-c", str(bad))
    assert (code, out) == (1, "")
    assert err.startswith(f"error initializing configuration '{bad}': admin.address: ")
    code, _, err = run("--mode", "validate", "-c", str(tmp_path / "none.yaml"))
    assert code == 1
    assert "Invalid path" in err


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--version"], "version: dev/0.1.0/Clean/DEBUG/tidegate"),
        (["--hot-restart-version"], "disabled"),
        (["--help"], "--config-path"),
    ],
)
def test_questions(argv: list[str], expected: str) -> None:
    code, out, err = run(*argv)
    assert (code, err) == (0, "")
    assert expected in out


def test_a_bad_flag_and_a_refused_socket_end_with_one(tmp_path: Path) -> None:
    code, out, err = run("--foo")
    assert (code, out) == (1, "")
    assert err.startswith("tidegate proxy: --foo: no such flag")
    path = tmp_path / "b.json"
    path.write_text(json.dumps({"bind": "refused", "diary": str(tmp_path / "diary")}))
    code, out, err = run("-c", str(path))
    assert (code, out) == (1, "")
    assert "cannot bind 127.0.0.1:80" in err
