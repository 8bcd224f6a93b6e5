"""A rule change each second under load: no request fails. For 15 s in CI; `TIDEGATE_SOAK_SECONDS=60` for longer."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from integration.mesh import HOST, eventually, mesh, rule

SECONDS = float(os.environ.get("TIDEGATE_SOAK_SECONDS", "15"))
RATE = 1000
TOOL = Path(__file__).parents[2] / "python" / "tidegate" / "bench" / "bin" / "tg-load"


def test_no_request_fails_while_rules_change(tmp_path: Path) -> None:
    with mesh(tmp_path) as world:
        load = subprocess.Popen(
            [str(TOOL), "http", "--address", f"127.0.0.1:{world.port}", "--connections", "16", "--rate", str(RATE),
             "--duration", str(SECONDS), "--path", f"http://{HOST}:9080/", "--host", f"{HOST}:9080"],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        changes = 0
        while load.poll() is None:
            changes += 1
            wanted = ("v2", "v1")[changes % 2]
            world.apply(rule(wanted))
            eventually(lambda wanted=wanted: world.get()[1] == wanted, 5, f"{wanted} takes effect")  # type: ignore[misc]
            time.sleep(0.8)
        result = json.loads(load.communicate()[0])
    print(f"{result['ops']} requests in {SECONDS:.0f} s, {changes} rule changes, {result['errors']} failed")
    assert result["errors"] == 0
    assert result["ops"] >= RATE * SECONDS * 0.95
    assert changes >= SECONDS / 2
