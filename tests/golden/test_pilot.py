"""Resources in, xDS out: each `pilot/NAME.yaml` must give exactly `pilot/NAME.json` for the node in its first line.

After a change that is meant, `UPDATE_GOLDEN=1 pytest tests/golden` writes the files anew; read the diff.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tidegate import xdsapi
from tidegate.pilot.crd.kinds import read_resources
from tidegate.pilot.crd.reader import documents
from tidegate.pilot.services.registry import build_snapshot
from tidegate.pilot.settings import read_mesh
from tidegate.pilot.translate.generate import generate
from tidegate.pilot.translate.proxy import read_node, view
from tidegate.pilot.translate.settings import MeshSettings

CASES = sorted((Path(__file__).parent / "pilot").glob("*.yaml"))


def translated(case: Path) -> dict[str, Any]:
    text = case.read_text()
    header, rest = text.split("\n", 1)
    first = json.loads(header.removeprefix("# "))
    resources, rejections = read_resources(rest, case.name)
    assert rejections == ()
    snapshot = build_snapshot(resources, "cluster.local")
    assert snapshot.conflicts == ()
    settings = MeshSettings()
    for document in documents(json.dumps(first.get("mesh", {})), "mesh"):
        settings = read_mesh(document.mapping(), settings)
    node = read_node(first["node"], "cluster", first.get("metadata", {}))
    found = generate(view(node, snapshot), snapshot, settings)
    return {
        xdsapi.type_name(kind): [xdsapi.to_dict(message) for message in messages.values()]
        for kind, messages in found.items()
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_translation(case: Path) -> None:
    golden = case.with_suffix(".json")
    got = translated(case)
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(json.dumps(got, indent=1, ensure_ascii=False) + "\n")
    assert got == json.loads(golden.read_text())


def test_every_golden_file_has_its_case() -> None:
    assert {path.stem for path in (Path(__file__).parent / "pilot").glob("*.json")} == {case.stem for case in CASES}
