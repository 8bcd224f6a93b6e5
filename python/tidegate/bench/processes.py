"""Processes of a run: started on a CPU, ended for sure, and what the kernel says they used. Knows no proxy."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.errors import TidegateError

PROXY_CPU, LOAD_CPU = 0, 1


class BenchError(TidegateError):
    """A proxy did not come up or the load failed."""


def tree(pid: int) -> list[int]:
    """The process and its descendants."""
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
    for member in tree(pid):
        for thread in Path(f"/proc/{member}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError, ValueError):
                total += int(thread.read_text().split()[0])
    return total


def sleeps(pid: int) -> int:
    """How often the process and its descendants (main threads) went to sleep: somebody had to wake them each time."""
    total = 0
    for member in tree(pid):
        with contextlib.suppress(OSError, ValueError, IndexError):
            text = Path(f"/proc/{member}/status").read_text()
            total += int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return total


@dataclass(frozen=True)
class Memory:
    """Bytes resident: of files (program text, mostly), and the rest."""

    anonymous: int
    total: int


def memory(pid: int) -> Memory:
    """Resident memory of a process tree; pages that its processes share by fork are counted once."""
    anonymous, files = 0, 0
    for member in tree(pid):
        with contextlib.suppress(OSError, ValueError):
            fields = {}
            for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()[1:]:
                name, _, value = line.partition(":")
                fields[name] = int(value.split()[0]) * 1024
            ours = fields["Pss_Anon"] + fields["Pss_Shmem"]
            anonymous += ours
            # The text of a forked process is that of its parent: the largest stands for all.
            status = Path(f"/proc/{member}/status").read_text().partition("RssFile:")[2]
            files = max(files, int(status.split()[0]) * 1024)
    return Memory(anonymous, anonymous + files)


@contextlib.contextmanager
def process(argv: tuple[str, ...], cpu: int, output: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command on one CPU; its output goes to a file. Ends it, and its session, at the end."""
    with output.open("ab") as errors:
        started = subprocess.Popen(
            # Should this process be killed, nothing of it is left behind.
            ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(cpu), *argv],
            stderr=errors, stdin=options.pop("stdin", subprocess.DEVNULL),
            stdout=options.pop("stdout", errors), start_new_session=True, **options,
        )  # fmt: skip
    try:
        yield started
    finally:
        if started.poll() is None:
            started.send_signal(signal.SIGTERM)
            try:
                started.wait(3)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                started.wait(3)
        for pipe in (started.stdin, started.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def said(output: Path) -> str:
    """The end of what a process wrote."""
    return output.read_text(errors="replace")[-2000:] if output.exists() else ""


def await_port(port: int, started: subprocess.Popen[bytes], output: Path, host: str = "127.0.0.1") -> None:
    """Until somebody listens; `BenchError` with the process's own words when it ends before, or takes too long."""
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
        if started.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"port {port}: nobody listens:\n{said(output)}")
        time.sleep(0.02)


def await_answer(port: int, host: str, started: subprocess.Popen[bytes], output: Path, patience: float) -> None:
    """Until a GET with this Host is answered 200, looked at every millisecond."""
    request = f"GET /100 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    deadline = time.monotonic() + patience
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(request)
            if connection.recv(64).startswith(b"HTTP/1.1 200"):
                return
        if started.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"port {port}: no answer:\n{said(output)}")
        time.sleep(0.001)
