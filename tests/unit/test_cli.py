"""The command line's outermost layer."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate import __version__, errors
from tidegate.cli import main

PACKAGE = Path(__file__).parents[2] / "python" / "tidegate"


def test_without_a_command_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in ("proxy", "agent", "iptables", "discovery", "demo", "bench"):
        assert f"\n  {command} " in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tidegate {__version__}\n"


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sail"]) == 1
    assert "no command 'sail'" in capsys.readouterr().err


def test_a_usage_error_is_one_sentence_and_where_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["iptables", "-p", "none", "--dry-run"]) == 1
    assert capsys.readouterr().err == ("tidegate iptables: -p: 'none' is not a port\nSee tidegate iptables --help.\n")


def test_every_error_is_in_the_docstring_s_tree() -> None:
    assert errors.__doc__ is not None
    for name in errors.__all__:
        assert f" {name}" in errors.__doc__


PLAIN = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("aiohttp", "msgspec", "google", "yaml"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from tidegate.cli import main
sys.exit(main(sys.argv[1:]))
"""


def plain(*argv: str) -> subprocess.CompletedProcess[str]:
    """As after `pip install tidegate` without the extra `mesh`."""
    return subprocess.run(
        [sys.executable, "-c", PLAIN, *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=PACKAGE.parent,
    )


def test_without_the_extra_the_bench_is_there_and_the_control_plane_says_what_it_needs() -> None:
    listed = plain("bench", "--list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "h1-get100" in listed.stdout
    refused = plain("discovery", "--configDir", "/nonexistent")
    assert refused.returncode == 1
    assert refused.stderr.startswith("tidegate discovery: no module ")
    assert refused.stderr.endswith(": pip install 'tidegate[mesh]'\n")
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("tidegate.cli", {"dataclasses", "json", "socket", "asyncio", "click"}),
        ("tidegate.agent.app", {"dataclasses", "json", "socket", "asyncio", "subprocess", "typing", "threading"}),
        ("tidegate.agent.plan", {"asyncio", "subprocess", "grpc", "http", "click"}),
        ("tidegate.proxy.ads.protocol", {"asyncio", "grpc"}),
    ],
)
def test_what_a_module_must_not_load(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(' '.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True, cwd=PACKAGE.parent
    ).stdout.split()
    assert absent.isdisjoint(loaded)


def test_every_module_says_what_it_is_for() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path
