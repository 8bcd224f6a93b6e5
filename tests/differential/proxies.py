"""Starts a data plane with Envoy's command line, waits until it serves, reads its log, ends it.

Must not know what is asked of it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tidegate.peer import envoy_binary


def tidegate_binary() -> str:
    beside = Path(sys.executable).with_name("tidegate-proxy")
    found = str(beside) if beside.exists() else shutil.which("tidegate-proxy")
    if not found:
        raise FileNotFoundError("no tidegate-proxy; run `make build`")
    return os.environ.get("TIDEGATE_BINARY", found)


@dataclass
class Proxy:
    kind: str
    process: subprocess.Popen[bytes]
    admin_port: int
    port: int
    log: Path
    directory: Path
    _read: int = 0

    def admin(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=5)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def log_lines(self) -> list[str]:
        """The access-log lines that came since the last call."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        whole = text.rfind("\n") + 1
        fresh, self._read = text[self._read : whole], whole
        return fresh.splitlines()

    def stderr(self) -> str:
        return (self.directory / f"{self.kind}.stderr").read_text(errors="replace")


@contextlib.contextmanager
def running(
    kind: str,
    bootstrap: str,
    *,
    admin_port: int,
    port: int,
    directory: Path,
    log: Path,
    concurrency: int = 1,
    args: tuple[str, ...] = (),
) -> Iterator[Proxy]:
    """`kind`: envoy or tidegate. Fails with the process's own words if it does not get ready in 20 s."""
    binary = envoy_binary() if kind == "envoy" else tidegate_binary()
    config = directory / f"{kind}.yaml"
    config.write_text(bootstrap)
    with (directory / f"{kind}.stderr").open("wb") as errors:
        process = subprocess.Popen(
            [binary, "-c", str(config), "--concurrency", str(concurrency), "--disable-hot-restart", "-l", "warning",
             "--file-flush-interval-msec", "10", *args],
            stdout=errors, stderr=errors, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    proxy = Proxy(kind, process, admin_port, port, log, directory)
    try:
        deadline = time.monotonic() + 20
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"{kind} exited with {process.returncode}:\n{proxy.stderr()[-4000:]}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if proxy.admin("/ready")[0] == 200:
                    break
            if time.monotonic() > deadline:
                raise RuntimeError(f"{kind} is not ready:\n{proxy.stderr()[-4000:]}")
            time.sleep(0.02)
        yield proxy
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
