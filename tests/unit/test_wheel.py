"""`make wheel` does not let a wheel pass that lacks a bench tool."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ["tg-load", "tg-backend", "tg-forward"]
PARTS = ["tidegate/_native.abi3.so", "tidegate/data/xds.binpb", "tidegate/py.typed"]


def checked(path: Path, files: dict[str, int]) -> tuple[int, str]:
    with zipfile.ZipFile(path, "w") as wheel:
        for name, mode in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o100000 | mode) << 16
            wheel.writestr(entry, b"x")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "check_wheel.py"), str(path)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def whole() -> dict[str, int]:
    return {**dict.fromkeys(PARTS, 0o644), **{f"tidegate/bench/bin/{name}": 0o755 for name in TOOLS}}


def test_a_whole_wheel_passes(tmp_path: Path) -> None:
    assert checked(tmp_path / "w.whl", whole()) == (0, "")


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_that_is_missing_or_cannot_be_executed_is_named(name: str, tmp_path: Path) -> None:
    path = f"tidegate/bench/bin/{name}"
    files = whole()
    del files[path]
    code, said = checked(tmp_path / "missing.whl", files)
    assert (code, f"{path} is missing" in said) == (1, True)
    code, said = checked(tmp_path / "mode.whl", {**whole(), path: 0o644})
    assert (code, f"{path} is not executable" in said) == (1, True)


def test_the_build_is_told_to_take_them_and_the_makefile_puts_them_there() -> None:
    (include,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["maturin"]["include"]
    assert include == {"path": "python/tidegate/bench/bin/tg-*", "format": "wheel"}
    for recipe in ("Makefile", "Dockerfile"):
        (line,) = [line for line in (ROOT / recipe).read_text().splitlines() if "python/tidegate/bench/bin" in line]
        assert all(name in line for name in TOOLS), recipe
