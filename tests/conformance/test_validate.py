"""`tidegate-proxy --mode validate`: what is bad is refused with the path of the field, what is good is served."""

from __future__ import annotations

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from differential.backend import Backend, free_port
from differential.client import exchange
from differential.proxies import running, tidegate_binary

DATA = yaml.safe_load(Path(__file__).with_name("broken.yaml").read_text())
SHORT = {
    "L": "static_resources.listeners[0]",
    "H": "static_resources.listeners[0].filter_chains[0].filters[0].typed_config",
    "V": "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0]",
    "R": "static_resources.listeners[0].filter_chains[0].filters[0].typed_config"
    ".route_config.virtual_hosts[0].routes[0]",
    "C": "static_resources.clusters[0]",
}


def full(path: str) -> str:
    head, dot, rest = path.partition(".")
    return SHORT.get(head, head) + dot + rest


def steps(path: str) -> list[str | int]:
    return [int(s) if s.isdigit() else s for s in re.split(r"\.|\[|\]\.?", full(path)) if s]


def put(document: Any, path: str, value: Any) -> None:
    *way, last = steps(path)
    for step in way:
        document = document[step]
    if isinstance(last, int) and last == len(document):
        document.append(value)
    else:
        document[last] = value


def get(document: Any, path: str) -> Any:
    for step in steps(path):
        document = document[step]
    return document


def broken(change: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = copy.deepcopy(DATA["base"])
    for path, source in change.get("copy", {}).items():
        put(document, path, copy.deepcopy(get(document, source)))
    for path, value in change.get("set", {}).items():
        put(document, path, value)
    for path in change.get("drop", []):
        *way, last = steps(path)
        parent = document
        for step in way:
            parent = parent[step]  # type: ignore[index]
        del parent[last]  # type: ignore[arg-type]
    return document


def validate(tmp_path: Path, document: Any) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "bootstrap.yaml"
    config.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return subprocess.run(
        [tidegate_binary(), "--mode", "validate", "-c", str(config)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_the_base_is_good(tmp_path: Path) -> None:
    run = validate(tmp_path, DATA["base"])
    assert (run.returncode, run.stdout.strip()) == (0, f"configuration '{tmp_path}/bootstrap.yaml' OK"), run.stderr


@pytest.mark.parametrize("change", [pytest.param(c, id=c["name"]) for c in DATA["broken"]])
def test_refused_with_its_path(change: dict[str, Any], tmp_path: Path) -> None:
    run = validate(tmp_path, broken(change))
    assert run.returncode == 1
    assert full(change["path"]) in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("static_resources: [", "line"),
        ("a: 1\na: 2\n", "a"),
        ("just text", "bootstrap"),
        ("\tstatic_resources: {}", "line"),
    ],
    ids=["unfinished yaml", "duplicate key", "not a mapping", "tab"],
)
def test_text_that_is_no_document(text: str, words: str, tmp_path: Path) -> None:
    run = validate(tmp_path, text)
    assert run.returncode == 1
    assert words in run.stderr
    assert "Traceback" not in run.stderr


def test_at_least_thirty_kinds() -> None:
    assert len(DATA["broken"]) >= 30


SEED = Path(__file__).with_name("seed_v2.json")


def seed(backend: int, virtual: int, admin: int) -> str:
    text = SEED.read_text()
    for name, port in (("@BACKEND@", backend), ("@VIRTUAL@", virtual), ("@ADMIN@", admin)):
        text = text.replace(f'"{name}"', str(port))
    return text


def test_the_v2_snippets_validate(tmp_path: Path) -> None:
    config = tmp_path / "envoy-rev0.json"
    config.write_text(seed(9, 15001, 15000))
    run = subprocess.run(
        [tidegate_binary(), "--mode", "validate", "-c", str(config)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr


def test_the_v2_snippets_are_served(tmp_path: Path) -> None:
    backend = Backend("details").start()
    admin, virtual = free_port(), free_port()
    try:
        with running(
            "tidegate", seed(backend.port, virtual, admin), admin_port=admin, port=virtual, directory=tmp_path,
            log=tmp_path / "log",
        ) as proxy:  # fmt: skip
            request = b"GET /details/0 HTTP/1.1\r\nhost: details:9080\r\n\r\n"
            answer = exchange(proxy.port, [request], methods=["GET"]).responses[0]
            assert (answer.status, answer.get("x-backend"), answer.get("server")) == (200, "details", "envoy")
            missing = exchange(proxy.port, [request.replace(b"details:9080", b"nobody")], methods=["GET"]).responses[0]
            assert (missing.status, missing.body) == (404, b"")
    finally:
        backend.stop()
