"""The few Linux calls that Python 3.11 has no function for, through libc."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWNET: Final = 0x40000000
_MS_BIND: Final = 4096
_MS_REC: Final = 16384
_MS_PRIVATE: Final = 1 << 18
_MS_NOSUID_NODEV: Final = 2 | 4
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def enter_network_namespace(path: str) -> None:
    """Move the calling thread, and it alone, into a network namespace."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc().setns(descriptor, CLONE_NEWNET), f"setns {path}")
    finally:
        os.close(descriptor)


def own_network() -> None:
    """Move the calling thread, and what it starts from now on, into a new network namespace: nothing in it is up."""
    _check(_libc().unshare(CLONE_NEWNET), "unshare")


def interface_up(name: str) -> None:
    """Bring a link up, as `ip link set NAME up` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        asked = fcntl.ioctl(sock, _SIOCGIFFLAGS, struct.pack("16sh22x", name.encode(), 0))
        flags = struct.unpack_from("h", asked, 16)[0] | _IFF_UP
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh22x", name.encode(), flags))


def own_mounts() -> None:
    """A mount namespace of our own; what is mounted from now on nobody else sees."""
    _check(_libc().unshare(CLONE_NEWNS), "unshare")
    _check(_libc().mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "mount --make-rprivate /")


def bind_mount(source: Path, target: Path) -> None:
    _check(
        _libc().mount(str(source).encode(), str(target).encode(), None, _MS_BIND | _MS_REC, None),
        f"mount --bind {source} {target}",
    )


def mount_tmpfs(target: Path) -> None:
    """An empty directory that everybody may pass through, over `target`."""
    _check(
        _libc().mount(b"tmpfs", str(target).encode(), b"tmpfs", _MS_NOSUID_NODEV, b"mode=755,size=1m"),
        f"mount tmpfs on {target}",
    )


def die_with_parent(signal: int) -> None:
    """Have `signal` sent to this process when its parent's thread ends. Forgotten when credentials change."""
    _check(_libc().prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl")


def adopt_orphans() -> None:
    """Become the parent of whatever our descendants leave behind when they die, so that it can be ended."""
    _check(_libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")
