"""Becomes another program inside a workload's walls: `python -m tidegate.demo.host.sandbox FLAGS -- COMMAND`.

In this order: the network namespace, a mount namespace with the workload's own /etc/hosts, an unprivileged user, a
signal should the demo die, then `exec`. What a container runtime does for a pod. Runs as root only where it must.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tidegate.demo.host import syscalls
from tidegate.errors import UsageError
from tidegate.flags import Flag, parse

_FLAGS = (
    Flag("--parent", "process id of the demo", 0, "uint"),
    Flag("--netns", "path of the network namespace to enter"),
    Flag("--hosts", "file to show as /etc/hosts"),
    Flag("--expose", "paths that the user must be able to reach", (), "list"),
    Flag("--uid", "user and group to become; 0 = stay", 0, "uint"),
    Flag("--deathSignal", "signal to get when the demo ends", int(signal.SIGTERM), "uint"),
)


def blocked_ancestor(path: Path) -> Path | None:
    """The outermost directory above `path` that other users may not pass through."""
    for directory in reversed(path.parents):
        if not directory.stat().st_mode & 0o001:
            return directory
    return None


def expose(paths: Sequence[Path]) -> None:
    """Make `paths` reachable although a directory above them is closed (a home of mode 700, usually).

    In our own mount namespace the closed directory is covered by an open, empty one, in which only `paths` appear.
    """
    wanted: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(path.resolve() for path in paths):
        blocked = blocked_ancestor(path)
        if blocked is not None:
            wanted.setdefault(blocked, []).append(path)
    for blocked, below in wanted.items():
        held = [(os.open(path, os.O_PATH | os.O_CLOEXEC), path) for path in below]
        syscalls.mount_tmpfs(blocked)
        for descriptor, path in held:
            source = Path(f"/proc/self/fd/{descriptor}")
            if source.is_dir():
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            syscalls.bind_mount(source, path)
            os.close(descriptor)


def main(argv: Sequence[str]) -> None:
    separator = list(argv).index("--")
    parsed, command = parse(_FLAGS, argv[:separator]), list(argv[separator + 1 :])
    if parsed.text("netns"):
        syscalls.enter_network_namespace(parsed.text("netns"))
    paths = [Path(item) for item in parsed.items("expose")]
    if parsed.text("hosts") or (parsed.number("uid") and any(blocked_ancestor(p.resolve()) for p in paths)):
        syscalls.own_mounts()
        if parsed.number("uid"):
            expose(paths)
        if parsed.text("hosts"):
            syscalls.bind_mount(Path(parsed.text("hosts")), Path("/etc/hosts"))
    if parsed.number("uid"):
        os.setgroups([])
        os.setresgid(*[parsed.number("uid")] * 3)
        os.setresuid(*[parsed.number("uid")] * 3)
    syscalls.die_with_parent(parsed.number("deathSignal"))
    if os.getppid() != parsed.number("parent"):
        # The demo died before it could tell us so by signal.
        sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, UsageError) as error:
        sys.exit(f"sandbox: {error}")
