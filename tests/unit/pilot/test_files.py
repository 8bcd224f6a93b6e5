"""The directory of files: changes, half-written files, last good versions, duplicates."""

from __future__ import annotations

from pathlib import Path

from tidegate.pilot.sources.files import FileSource

SERVICE = "{apiVersion: v1, kind: Service, metadata: {name: %s}, spec: {ports: [{port: %s}]}}\n"


def names(source: FileSource) -> list[str]:
    return [resource.meta.name for resource in source.current().resources]


def settled(source: FileSource) -> bool:
    """Two looks: a file must have stood still between them to be read."""
    first = source.scan()
    return source.scan() or first


def test_files_come_change_and_go(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SERVICE % ("a", 1))
    source = FileSource(tmp_path)
    assert source.scan()
    assert names(source) == ["a"]
    assert not settled(source)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.yml").write_text(SERVICE % ("b", 1))
    (tmp_path / ".hidden.yaml").write_text("nonsense: [")
    (tmp_path / "notes.txt").write_text("nonsense: [")
    assert settled(source)
    assert names(source) == ["a", "b"]
    (tmp_path / "a.yaml").unlink()
    assert settled(source)
    assert names(source) == ["b"]


def test_a_bad_file_keeps_its_last_good_version(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(SERVICE % ("a", 1))
    source = FileSource(tmp_path)
    source.scan()
    file.write_text("---\n" + SERVICE % ("a", "none"))
    assert settled(source)
    current = source.current()
    assert names(source) == ["a"]
    assert [str(rejection) for rejection in current.rejections] == [
        "a.yaml:2: spec.ports[0].port: must be an integer, is a string"
    ]
    file.write_text(SERVICE % ("a2", 1))
    assert settled(source)
    assert names(source) == ["a2"]
    assert source.current().rejections == ()


def test_a_file_that_still_grows_is_left_for_later(tmp_path: Path) -> None:
    source = FileSource(tmp_path)
    source.scan()
    file = tmp_path / "a.yaml"
    file.write_text(SERVICE % ("a", 1))
    assert not source.scan()
    file.write_text(SERVICE % ("a", 1) + "---\n" + SERVICE % ("b", 1))
    assert not source.scan()
    assert source.scan()
    assert names(source) == ["a", "b"]


def test_a_resource_in_two_files_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SERVICE % ("same", 1))
    (tmp_path / "b.yaml").write_text(SERVICE % ("same", 2))
    source = FileSource(tmp_path)
    source.scan()
    (rejection,) = source.current().rejections
    assert str(rejection) == "b.yaml:1: metadata.name: Service default/same is already defined at a.yaml:1"
    (tmp_path / "a.yaml").unlink()
    assert settled(source)
    assert source.current().rejections == ()
    assert source.current().files == ("b.yaml",)


def test_what_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe")
    source = FileSource(tmp_path)
    assert source.scan()
    assert "cannot be read" in str(source.current().rejections[0])
