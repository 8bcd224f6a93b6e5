"""Child processes: started inside their walls, watched, restarted, and ended with all their descendants."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

#: Restarts in a row after which a child is given up, and how long it must live to start counting anew.
_RESTARTS: Final = 6
_HEALTHY_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Walls:
    """Where a child lives. `uid` 0 means: as whoever runs the demo."""

    netns: str = ""
    hosts: str = ""
    uid: int = 0
    expose: tuple[str, ...] = ()

    def around(self, command: Sequence[str], death_signal: int) -> list[str]:
        """The command line that becomes `command` inside."""
        words = [sys.executable, "-m", "tidegate.demo.host.sandbox", "--parent", str(os.getpid())]
        words += ["--deathSignal", str(death_signal), "--uid", str(self.uid)]
        if self.netns:
            words += ["--netns", self.netns]
        if self.hosts:
            words += ["--hosts", self.hosts]
        if self.expose:
            words += ["--expose", ",".join(self.expose)]
        return [*words, "--", *command]


@dataclass
class Child:
    """One program of the demo and the file its output goes to."""

    name: str
    command: Sequence[str]
    log: Path
    walls: Walls = field(default_factory=Walls)
    environment: Mapping[str, str] = field(default_factory=dict)
    death_signal: int = signal.SIGTERM
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    started: float = 0.0
    restart_at: float = 0.0

    def start(self) -> None:
        self.started = time.monotonic()
        with self._open_log() as output:
            self.process = subprocess.Popen(
                self.walls.around(self.command, self.death_signal),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=dict(self.environment),
            )  # fmt: skip

    def _open_log(self) -> IO[bytes]:
        output = self.log.open("ab")
        if self.walls.uid:
            # The data plane opens /dev/stdout by name, for which owning the descriptor is not enough.
            os.fchown(output.fileno(), self.walls.uid, self.walls.uid)
        return output

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None else 0

    def exit_code(self) -> int | None:
        """`None` while it runs."""
        return None if self.process is None else self.process.poll()

    def plan_restart(self) -> bool:
        """Have it started again soon, the later the oftener it died; `False` when that happened too often."""
        now = time.monotonic()
        self.restarts = 1 if now - self.started > _HEALTHY_SECONDS else self.restarts + 1
        self.restart_at = now + 0.1 * 2**self.restarts
        self.process = None
        return self.restarts <= _RESTARTS

    def tail(self, lines: int = 5) -> str:
        """The end of its output, for whoever has to find out why it died."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""


@dataclass(frozen=True)
class Identity:
    """A process for sure: ids are used again, start times (in clock ticks since boot) are not."""

    pid: int
    started: int


def identify(pid: int) -> Identity | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The second field is the name in parentheses, which may contain anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] != "Z":
            return Identity(pid, int(fields[19]))
    return None


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def descendants(pid: int) -> list[Identity]:
    """All children of a process and theirs, outermost first."""
    found: list[Identity] = []
    for child in _children(pid):
        identity = identify(child)
        if identity is not None:
            found += [identity, *descendants(child)]
    return found


def orphans(known: Iterable[int]) -> list[Identity]:
    """Children that we did not start ourselves: what a dead child of ours had started. Dead ones are buried here."""
    ours = set(known)
    found = []
    for child in _children(os.getpid()):
        if child in ours:
            continue
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, os.WNOHANG)
        identity = identify(child)
        if identity is not None:
            found.append(identity)
    return found


def _send(identities: Iterable[Identity], number: int) -> None:
    for identity in identities:
        if identify(identity.pid) == identity:
            with contextlib.suppress(ProcessLookupError):
                os.kill(identity.pid, number)


def end(roots: Iterable[Identity], patience: float = 4.0, *, also: Iterable[Identity] = ()) -> None:
    """End processes and everything below them: politely at first, then not."""
    roots = list(roots)
    everybody = [*roots, *also]
    for root in roots:
        everybody += descendants(root.pid)
    _send(roots, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and any(identify(identity.pid) == identity for identity in everybody):
        time.sleep(0.02)
    _send(everybody, signal.SIGKILL)
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline and any(identify(identity.pid) == identity for identity in everybody):
        time.sleep(0.02)
