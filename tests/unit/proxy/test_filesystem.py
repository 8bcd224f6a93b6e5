"""File subscriptions, with the real inotify."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

from tidegate.errors import ConfigError
from tidegate.proxy.ads.protocol import Outcome, Response, Update
from tidegate.proxy.filesystem import FileSubscription, Filesystem
from tidegate.proxy.inotify import Inotify

if TYPE_CHECKING:
    from pathlib import Path

CDS = "type/Cluster"


class Plane:
    def __init__(self) -> None:
        self.versions: list[str] = []
        self.rejected: list[str] = []
        self.directories: list[str] = []

    def decode_file(self, data: bytes, path: str, type_url: str) -> Response:
        if not data:
            raise ConfigError("", "", "empty")
        return Response(type_url, data.decode(), "", [])

    def apply(self, update: Update, origin: str = "") -> Outcome:
        self.versions.append(update.version)
        return Outcome((), (), "no good" if update.version == "bad" else "")

    def directory_changed(self, directory: str) -> None:
        self.directories.append(directory)

    def update_rejected(self, type_url: str, reason: str, origin: str = "") -> None:
        self.rejected.append(reason)

    def log(self, level: str, component: str, message: str) -> None:
        pass


def moved_in(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    os.replace(new, path)


def settle(files: Filesystem) -> None:
    assert files.watcher is not None
    while select.select([files.watcher], [], [], 0.05)[0]:
        files.changed()


def test_read_at_once_and_again_when_moved_into_place(tmp_path: Path) -> None:
    path = tmp_path / "cds.yaml"
    path.write_text("1")
    plane = Plane()
    files = Filesystem(plane, Inotify)
    files.subscribe([FileSubscription(CDS, str(path), "")])
    assert plane.versions == ["1"]
    moved_in(path, "2")
    moved_in(tmp_path / "other.yaml", "x")
    path.write_text("written in place")
    settle(files)
    # The rename made it look, and what it found was by then written over: one look for three events.
    assert plane.versions == ["1", "written in place"]
    files.subscribe([FileSubscription(CDS, str(path), "")])  # the same again is not read again
    assert len(plane.versions) == 2


def test_a_watched_directory_counts_every_rename(tmp_path: Path) -> None:
    (tmp_path / "..2026_1").mkdir()
    (tmp_path / "..2026_1" / "lds.yaml").write_text("1")
    (tmp_path / "..data").symlink_to("..2026_1")
    (tmp_path / "lds.yaml").symlink_to("..data/lds.yaml")
    plane = Plane()
    files = Filesystem(plane, Inotify)
    files.subscribe([FileSubscription(CDS, str(tmp_path / "lds.yaml"), str(tmp_path))])
    (tmp_path / "..2026_2").mkdir()
    (tmp_path / "..2026_2" / "lds.yaml").write_text("2")
    (tmp_path / "..data_tmp").symlink_to("..2026_2")
    os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
    settle(files)
    assert plane.versions == ["1", "2"]


def test_what_cannot_be_read_is_counted_and_the_next_good_one_taken(tmp_path: Path) -> None:
    path = tmp_path / "rds.yaml"
    plane = Plane()
    files = Filesystem(plane, Inotify)
    files.subscribe([FileSubscription(CDS, str(path), "")])
    assert plane.rejected == [f"{path}: No such file or directory"]
    moved_in(path, "")
    settle(files)
    assert plane.rejected[1:] == [f"{path}: empty"]
    moved_in(path, "3")
    settle(files)
    assert plane.versions == ["3"]


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    plane = Plane()
    Filesystem(plane, Inotify).subscribe([FileSubscription(CDS, str(tmp_path / "no" / "x.yaml"), "")])
    assert len(plane.rejected) == 2


def test_a_directory_of_files_that_others_refer_to(tmp_path: Path) -> None:
    plane = Plane()
    files = Filesystem(plane, Inotify)
    files.subscribe([], [str(tmp_path)])
    moved_in(tmp_path / "key.pem", "new")
    files.changed()
    assert plane.directories == [str(tmp_path)]
    files.subscribe([], [])
    moved_in(tmp_path / "key.pem", "newer")
    files.changed()
    assert plane.directories == [str(tmp_path)]
