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

_RESTARTS: Final = 5


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

    def start(self) -> None:
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

    def restart(self) -> bool:
        """Start it again, as a node's kubelet would; `False` when that happened too often."""
        self.restarts += 1
        if self.restarts > _RESTARTS:
            return False
        self.start()
        return True

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


def descendants(pid: int) -> list[Identity]:
    """All children of a process and theirs, outermost first."""
    found: list[Identity] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                identity = identify(child)
                if identity is not None:
                    found += [identity, *descendants(child)]
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
