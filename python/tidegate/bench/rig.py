"""Runs one case against every peer, interleaved, and measures what the proxy's process spent on it.

The proxy has CPU 0 to itself, the load generator and the backend share CPU 1. CPU time is that of all threads of the
proxy's process tree (schedstat, nanoseconds), taken just before and after the load. Everything is bounded in time
and ends with the run. Must not know how results are shown (`report.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.bench import peers
from tidegate.bench.scenarios import Case
from tidegate.errors import TidegateError
from tidegate.peer import PeerMissing

PROXY_CPU, LOAD_CPU = 0, 1


class BenchError(TidegateError):
    """A proxy did not come up or the load failed."""


@dataclass(frozen=True)
class Sample:
    """One measured burst of load. Times are microseconds; `cpu_us` is None for `direct`."""

    ops: int
    errors: int
    seconds: float
    cpu_us: float | None
    p50: float
    p99: float
    p999: float
    #: share of CPU 1 that load generator and backend used: near 1, they were the limit
    load_busy: float

    @property
    def rate(self) -> float:
        return self.ops / self.seconds if self.seconds else 0.0


@dataclass
class Outcome:
    case: Case
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _tree(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = entry.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def cpu_ns(pid: int) -> int:
    """CPU time of every thread of the process and its descendants."""
    total = 0
    for member in _tree(pid):
        for thread in Path(f"/proc/{member}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError, ValueError):
                total += int(thread.read_text().split()[0])
    return total


@contextlib.contextmanager
def _process(argv: tuple[str, ...], cpu: int, output: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with output.open("ab") as errors:
        process = subprocess.Popen(
            ["taskset", "-c", str(cpu), *argv],
            stderr=errors, stdin=options.pop("stdin", subprocess.DEVNULL),
            stdout=options.pop("stdout", errors), start_new_session=True, **options,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(3)


def _await_port(port: int, process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + 15
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"port {port}: nobody listens:\n{output.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)


class Rig:
    """The backend and, per case, one process of each peer."""

    def __init__(self, names: list[str], *, duration: float, repeats: int, progress: Callable[[str], None]) -> None:
        self.names, self.duration, self.repeats, self.progress = names, duration, repeats, progress
        self._stack = contextlib.ExitStack()
        self._directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-bench-")))
        self._load = peers.native_tool("tg-load")

    def __enter__(self) -> Rig:
        backend = self._stack.enter_context(
            _process(
                (peers.native_tool("tg-backend"), "--max-seconds", "3600"), LOAD_CPU, self._directory / "backend.err",
                stdout=subprocess.PIPE, stdin=subprocess.PIPE,
            )
        )  # fmt: skip
        assert backend.stdout is not None
        self.backend_pid = backend.pid
        self.ports: dict[str, int] = json.loads(backend.stdout.readline())
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def measure(self, case: Case) -> Outcome:
        """`repeats` bursts of `duration` seconds per peer, in turns."""
        outcome = Outcome(case)
        upstream = self.ports[case.backend]
        with contextlib.ExitStack() as stack:
            targets: dict[str, tuple[int, int | None]] = {}
            for name in self.names:
                if name == "direct":
                    targets[name] = (upstream, None)
                    continue
                try:
                    targets[name] = self._start(stack, name, case, upstream)
                except PeerMissing as error:
                    outcome.missing[name] = str(error)
            for name, (port, _) in targets.items():
                self.progress(f"{case.name}: warming {name}")
                self._burst(case, port, None, 0.3)
            for turn in range(self.repeats):
                for name, (port, pid) in targets.items():
                    self.progress(f"{case.name}: {turn + 1}/{self.repeats} {name}")
                    outcome.samples.setdefault(name, []).append(self._burst(case, port, pid, self.duration))
        return outcome

    def _start(self, stack: contextlib.ExitStack, name: str, case: Case, upstream: int) -> tuple[int, int]:
        directory = self._directory / case.name / name
        directory.mkdir(parents=True)
        listen = _free_port()
        launch = peers.launch(name, case, listen, upstream, _free_port(), directory)
        for path, text in launch.files.items():
            path.write_text(text)
        output = directory / "output"
        process = stack.enter_context(_process(launch.argv, PROXY_CPU, output))
        _await_port(listen, process, output)
        return listen, process.pid

    def _burst(self, case: Case, port: int, pid: int | None, duration: float) -> Sample:
        before, backend_before = (cpu_ns(pid) if pid else 0), cpu_ns(self.backend_pid)
        run = subprocess.run(
            ["taskset", "-c", str(LOAD_CPU), self._load, *case.load, "--address", f"127.0.0.1:{port}",
             "--duration", str(duration)],
            capture_output=True, timeout=duration + 30, check=False,
        )  # fmt: skip
        after, backend_after = (cpu_ns(pid) if pid else 0), cpu_ns(self.backend_pid)
        if run.returncode != 0:
            raise BenchError(f"load against port {port} failed: {run.stderr.decode(errors='replace')[-1000:]}")
        result = json.loads(run.stdout)
        ops = result["ops"] + result.get("warmup_ops", 0)
        busy = result["cpu_seconds"] + (backend_after - backend_before) / 1e9
        return Sample(
            ops=result["ops"],
            errors=result["errors"],
            seconds=result["seconds"],
            cpu_us=(after - before) / 1e3 / ops if pid and ops else None,
            p50=result["p50_us"],
            p99=result["p99_us"],
            p999=result["p999_us"],
            load_busy=busy / result["seconds"] if result["seconds"] else 0.0,
        )
