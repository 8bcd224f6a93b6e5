"""What `tidegate bench` says of itself, and what is written of it, can be asked for."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tidegate.bench import peers
from tidegate.bench.app import _parser, main
from tidegate.bench.scenarios import ALIASES, CASES, DEFAULT, select

ROOT = Path(__file__).parents[3]
WRITTEN = [
    (document, line)
    for document in ("README.md", "bench/README.md")
    for line in re.findall(r"^\$ tidegate bench *(.*)$", (ROOT / document).read_text(), re.MULTILINE)
]


def test_the_list_has_every_case_and_alias_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    cases, aliases = capsys.readouterr().out.strip().split("\n\n")
    assert [line.split()[0] for line in cases.splitlines()] == [case.name for case in CASES]
    listed = {line.split()[0]: tuple(line.split()[1:]) for line in aliases.splitlines()}
    assert listed == ALIASES
    for patterns in listed.values():
        assert select(list(patterns))


def test_the_help_names_the_defaults_that_a_run_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    said = " ".join(_parser().format_help().split())
    options = _parser().parse_args([])
    assert f"(default: {' '.join(DEFAULT)})" in said
    assert f"(default: {','.join(peers.NAMES)})" in said
    assert f"seconds per burst (default: {options.duration})" in said
    assert f"alternates (default: {options.repeats})" in said


@pytest.mark.parametrize(("document", "line"), WRITTEN)
def test_commands_in_the_documents_are_understood(document: str, line: str) -> None:
    options = _parser().parse_args(shlex.split(line, comments=True))
    if options.cases:
        assert select(options.cases), document
    assert all(peers.known(name) for name in options.peers.split(","))


def test_the_action_measures_cases_that_exist() -> None:
    action = yaml.safe_load((ROOT / ".github/actions/bench/action.yml").read_text())
    assert select(action["inputs"]["cases"]["default"].split())
