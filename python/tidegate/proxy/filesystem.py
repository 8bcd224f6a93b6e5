"""Configuration from files (`path_config_source`): read when asked for, and again when a file is moved into place.

As Envoy has it: only a rename counts, a file that is written in place is not looked at; with a `watched_directory`, any
rename in that directory does (Kubernetes swaps a symbolic link). A file that cannot be read or parsed is counted as
rejected, and what it said before serves on.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tidegate.errors import ConfigError
from tidegate.proxy.ads.protocol import Update

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tidegate.proxy.ads.protocol import Outcome, Response

__all__ = ["FileSink", "FileSubscription", "Filesystem", "Watcher"]


class FileSubscription(NamedTuple):
    """Something the engine wants from a file."""

    type_url: str
    path: str
    watched_directory: str  # "" = the file's own, and only the file's own name
    origin: str = ""  # what the data plane calls it


class FileSink(Protocol):
    """What files need of the data plane."""

    def decode_file(self, data: bytes, path: str, type_url: str) -> Response: ...
    def apply(self, update: Update, origin: str = "") -> Outcome: ...
    def update_rejected(self, type_url: str, reason: str, origin: str = "") -> None: ...
    def directory_changed(self, directory: str) -> None: ...
    def log(self, level: str, component: str, message: str) -> None: ...


class Watcher(Protocol):
    """`tidegate.proxy.inotify.Inotify`, or a stand-in."""

    def fileno(self) -> int: ...
    def watch(self, directory: str) -> None: ...
    def read(self) -> list[tuple[str, str]]: ...


class Filesystem:
    """All file subscriptions of a process."""

    def __init__(self, sink: FileSink, watcher: Callable[[], Watcher]) -> None:
        self._sink = sink
        self._make_watcher = watcher
        self.watcher: Watcher | None = None
        self._subscriptions: dict[FileSubscription, None] = {}
        self._directories: set[str] = set()

    def subscribe(self, wanted: Iterable[FileSubscription], directories: Iterable[str] = ()) -> None:
        """The engine's present subscriptions, all of them; new ones are read now.

        `directories`: where files are replaced that resources from elsewhere refer to; the engine reads those.
        """
        wanted_directories = set(directories)
        for directory in wanted_directories - self._directories:
            try:
                self._watch(directory)
            except OSError as error:
                self._sink.log("warning", "config", f"cannot watch {directory}: {error.strerror}")
        self._directories = wanted_directories
        present = dict.fromkeys(wanted)
        new = [each for each in present if each not in self._subscriptions]
        self._subscriptions = present
        for each in new:
            directory = each.watched_directory or os.path.dirname(os.path.abspath(each.path))
            try:
                self._watch(directory)
            except OSError as error:
                self._rejected(each, f"cannot watch {directory}: {error.strerror}")
            self._load(each)

    def changed(self) -> None:
        """The watcher has something to say: load what it concerns, each subscription once."""
        if self.watcher is None:
            return
        moved = self.watcher.read()
        for directory in {where for where, _ in moved} & self._directories:
            self._sink.directory_changed(directory)
        for each in list(self._subscriptions):
            directory, name = os.path.split(os.path.abspath(each.path))
            if each.watched_directory:
                concerned = any(where == each.watched_directory for where, _ in moved)
            else:
                concerned = (directory, name) in moved
            if concerned:
                self._load(each)

    def _watch(self, directory: str) -> None:
        if self.watcher is None:
            self.watcher = self._make_watcher()
        self.watcher.watch(directory)

    def _load(self, subscription: FileSubscription) -> None:
        try:
            with open(subscription.path, "rb") as file:
                data = file.read()
            response = self._sink.decode_file(data, subscription.path, subscription.type_url)
        except OSError as error:
            self._rejected(subscription, f"{subscription.path}: {error.strerror}")
            return
        except ConfigError as error:
            self._rejected(subscription, f"{subscription.path}: {error}")
            return
        update = Update(subscription.type_url, response.version, response.resources)
        outcome = self._sink.apply(update, subscription.origin)
        if outcome.detail:
            self._warn(subscription, outcome.detail)

    def _rejected(self, subscription: FileSubscription, reason: str) -> None:
        self._sink.update_rejected(subscription.type_url, reason, subscription.origin)
        self._warn(subscription, reason)

    def _warn(self, subscription: FileSubscription, reason: str) -> None:
        self._sink.log("warning", "config", f"Filesystem config update rejected ({subscription.type_url}): {reason}")
