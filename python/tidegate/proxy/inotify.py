"""Renames into directories, by inotify: how a configuration file is replaced in one step.

The standard library has no inotify, so the calls go through ctypes; this module is imported only where a bootstrap asks
for files to be watched. Knows nothing of configuration.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

__all__ = ["Inotify"]

_IN_MOVED_TO: Final = 0x80
_IN_NONBLOCK: Final = os.O_NONBLOCK
_IN_CLOEXEC: Final = os.O_CLOEXEC
_HEADER: Final = struct.Struct("iIII")


class Inotify:
    """One inotify descriptor. `fileno` is readable when `read` would return something."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._call("inotify_init1", _IN_NONBLOCK | _IN_CLOEXEC)
        self._directories: dict[int, str] = {}

    def fileno(self) -> int:
        return self._fd

    def watch(self, directory: str) -> None:
        """Watch a directory; watching it twice is the same as once. Raises OSError."""
        found = self._call("inotify_add_watch", self._fd, os.fsencode(directory), _IN_MOVED_TO)
        self._directories[found] = directory

    def read(self) -> list[tuple[str, str]]:
        """(directory, name) of everything that was moved there since the last call."""
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return []
        found = []
        at = 0
        while at + _HEADER.size <= len(data):
            watch, _, _, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            name = data[at : at + length].rstrip(b"\0")
            at += length
            directory = self._directories.get(watch)
            if directory is not None:
                found.append((directory, os.fsdecode(name)))
        return found

    def close(self) -> None:
        os.close(self._fd)

    def _call(self, name: str, *args: int | bytes) -> int:
        result = int(getattr(self._libc, name)(*args))
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{name}: {os.strerror(code)}")
        return result
