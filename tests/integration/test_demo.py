"""The demo as its users run it: every data plane and isolation, and nothing left behind however it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from integration.mesh import eventually
from tidegate.demo.host import dial, network
from tidegate.demo.host.leftovers import sweep
from tidegate.peer import envoy_binary

ROOT = os.geteuid() == 0
ISOLATIONS = [
    pytest.param("namespaces", marks=[pytest.mark.root, pytest.mark.skipif(not ROOT, reason="needs root")]),
    "loopback",
]


def demo(*flags: str) -> list[str]:
    return [sys.executable, "-m", "tidegate", "demo", "bookinfo", *flags]


@pytest.fixture
def place() -> Iterator[dict[str, str]]:
    """An environment whose temporary directory is ours, so that leftovers are ours too."""
    # Not `tmp_path`: proxies run as another user, and pytest's directories are closed to others.
    directory = Path(f"/tmp/tgd-test-{os.getpid():x}")
    directory.mkdir(mode=0o755, exist_ok=True)
    yield {**os.environ, "TMPDIR": str(directory), "ENVOY_BINARY": envoy_binary()}
    shutil.rmtree(directory)


def left_behind(place: dict[str, str], pid: int) -> list[str]:
    """Directories, namespaces and processes of a demo that is over."""
    directories = [str(path) for path in Path(place["TMPDIR"]).glob("tgd-*")]
    namespaces = network.existing(f"tgd-{pid:x}-")
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if place["TMPDIR"].encode() in command:
            commands.append(command.replace(b"\0", b" ").decode())
    return directories + namespaces + commands


@pytest.mark.timeout(180)
@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("data_plane", ["tidegate", "envoy"])
def test_check(data_plane: str, isolation: str, place: dict[str, str]) -> None:
    argv = demo("--check", "--data-plane", data_plane, "--isolation", isolation)
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=place)
    out, err = process.communicate(timeout=150)
    report: dict[str, Any] = json.loads(out)
    assert process.returncode == 0, (report, err.decode())
    assert report["ok"] is True
    assert (report["data_plane"], report["isolation"]) == (data_plane, isolation)
    assert list(report["checks"]) == ["call", "page", "split", "header_match", "rule_change_under_load"]
    assert [step["ok"] for step in report["checks"]["call"]["steps"]] == [True] * 13
    assert left_behind(place, process.pid) == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize("data_plane", ["tidegate", "envoy"])
def test_check_with_http2_between_the_sidecars(data_plane: str, place: dict[str, str]) -> None:
    argv = demo("--check", "--http2", "--data-plane", data_plane)
    done = subprocess.run(argv, capture_output=True, env=place, timeout=150, check=False)
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0, (report, done.stderr.decode())
    assert report["checks"]["http2"]["ok"] is True
    assert report["between_sidecars"] == "HTTP/2"


@contextmanager
def serving(place: dict[str, str], *flags: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A demo that is up, with the file it writes to."""
    output = Path(place["TMPDIR"]) / "out.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(demo("--for", "90s", *flags), stdout=file, stderr=file, env=place)
    try:

        def up() -> bool:
            assert process.poll() is None, output.read_text()
            return "Serving" in output.read_text()

        eventually(up, 60, "the demo is up")
        yield process, output
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(20)
        output.unlink()


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_everything(number: signal.Signals, isolation: str, place: dict[str, str]) -> None:
    with serving(place, "--isolation", isolation) as (process, output):
        process.send_signal(number)
        assert process.wait(20) == 128 + number
        output.rename(f"{place['TMPDIR']}.txt")
        assert left_behind(place, process.pid) == []
        Path(f"{place['TMPDIR']}.txt").rename(output)


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_the_next_run_tidies_up_after_a_killed_one(
    isolation: str, place: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(place, "--isolation", isolation) as (process, _):
        process.kill()
        process.wait(10)
        # The parts get a signal when their parent dies; the files and namespaces are for the next run.
        eventually(lambda: not any(" " in line for line in left_behind(place, process.pid)), 15, "no process is left")
        monkeypatch.setattr("tempfile.tempdir", place["TMPDIR"])
        assert sweep() == 1
        assert left_behind(place, process.pid) == []


RULE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: %s}}]}]}
"""


def test_rules_apply_when_they_are_saved(place: dict[str, str]) -> None:
    rules = Path(place["TMPDIR"]) / "rules.yaml"
    rules.write_text(RULE % "v2")

    def answered_by() -> str:
        answer = dial.get("127.0.0.1", 18080, "/api/v1/products/0/reviews")
        return str(json.loads(answer.body or b"{}").get("podname"))

    with serving(place, "--isolation", "loopback", "--ingress-port", "18080", "--rules", str(rules)):
        eventually(lambda: [answered_by() for _ in range(6)] == ["reviews-v2"] * 6, 10, "v2 by rule")
        rules.write_text(RULE % "v3")
        eventually(lambda: [answered_by() for _ in range(6)] == ["reviews-v3"] * 6, 10, "v3 by rule")
    rules.unlink()


def children(pid: int) -> dict[str, int]:
    """The demo's own children by what they run."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            words = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue  # it has just died
        for kind in ("agent", "discovery", "tidegate.demo.bookinfo"):
            if kind in words:
                name = words[words.index("--serviceCluster") + 1] if kind == "agent" else words[words.index(kind) + 1]
                found[f"{kind} {name}"] = int(child)
    return found


def is_back(pid: int, part: str, before: int) -> bool:
    return children(pid).get(part, 0) not in (0, before)


def test_a_part_that_dies_is_started_again(place: dict[str, str]) -> None:
    def status() -> int:
        return dial.get("127.0.0.1", 18080, "/productpage").status

    with serving(place, "--isolation", "loopback", "--ingress-port", "18080") as (process, output):
        parts = children(process.pid)
        for part in ("agent details", "tidegate.demo.bookinfo details", "discovery --configDir"):
            os.kill(parts[part], signal.SIGKILL)
            eventually(partial(is_back, process.pid, part, parts[part]), 10, f"{part} is back")
        assert output.read_text().count("starting it again") == 3
        eventually(lambda: status() == 200, 10, "the page is served")
        time.sleep(0.5)
        assert status() == 200
