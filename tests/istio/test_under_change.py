"""mTLS between two pods under load while rules, endpoints and certificates change each second: nothing is lost.

30 s in CI; `TIDEGATE_SOAK_SECONDS=60` for as long as the figures in the README.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from istio.chain import proxy
from istio.world import Pod, World
from tidegate.bench.processes import memory
from tidegate.peer import envoy_binary

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root"), pytest.mark.timeout(400)]
SECONDS = float(os.environ.get("TIDEGATE_SOAK_SECONDS", "30"))
RATE = 2000
MIB = 1 << 20
TOOLS = Path(__file__).parents[2] / "python" / "tidegate" / "bench" / "bin"
HOST = "reviews.bookinfo.svc.cluster.local:9080"
# A certificate for ten seconds, renewed a second after it was issued.
_SHORT = {"SECRET_TTL": "10s", "SECRET_GRACE_PERIOD_RATIO": "0.9", "SECRET_GRACE_PERIOD_RATIO_JITTER": "0"}
_ISTIOD = {"DEFAULT_WORKLOAD_CERT_TTL": "10s", "MAX_WORKLOAD_CERT_TTL": "24h"}
_ROUTE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews, namespace: bookinfo}}
spec:
  hosts: [reviews.bookinfo.svc.cluster.local]
  http: [{{name: turn-{turn}, route: [{{destination: {{host: reviews.bookinfo.svc.cluster.local}}}}]}}]
---
"""


def _pods(data_plane: str) -> list[Pod]:
    backend = (str(TOOLS / "tg-backend"), "--http", "0.0.0.0:9080")
    server = Pod("reviews", "v1", 31, data_plane=data_plane, agent=_SHORT, app_command=backend)
    client = Pod("productpage", "v1", 11, data_plane=data_plane, agent=_SHORT)
    return [client, server, replace(server, version="v2", number=32)]


def _load(world: World, seconds: float, connections: int = 16) -> subprocess.Popen[bytes]:
    inside = ["ip", "netns", "exec", world.netns("productpage-v1")]
    load = [
        str(TOOLS / "tg-load"), "http", "--address", "10.96.7.30:9080", "--connections", str(connections),
        "--rate", str(RATE), "--duration", str(seconds), "--path", "/reviews/100", "--host", HOST,
    ]  # fmt: skip
    return subprocess.Popen(inside + load, stdout=subprocess.PIPE)


def _issued(world: World) -> int:
    return world.log("productpage-v1").count("generated new workload certificate")


def _changes(world: World, config: dict[str, str]) -> Iterator[None]:
    """A change at each step, of routes and of endpoints in turn; certificates change by themselves."""
    turn = 0
    while True:
        turn += 1
        if turn % 2:
            world.apply("routes", _ROUTE.format(turn=turn) + config["routes"])
        else:
            world.apply("workloads", world.workloads({"reviews-v2": 1 + turn % 5}))
        yield


def _observe(tmp_path: Path, data_plane: str) -> dict[str, Any]:
    pods = _pods(data_plane)
    with World(tmp_path, "stock", pods, istiod=_ISTIOD) as world:
        text = world.render("routes").split("---\n")
        config = {"routes": "---\n".join(part for part in text if "name: reviews," not in part)}
        world.apply("routes", _ROUTE.format(turn=0) + config["routes"])
        world.await_all()
        proxies = {pod.name: proxy(world, pod.name) for pod in pods[:2]}
        # What the first connections and updates allocate for good is not growth.
        changes = _changes(world, config)
        warm = _load(world, 6)
        while warm.poll() is None:
            next(changes)
            time.sleep(1)
        warm.communicate()
        rotations, certificates = _issued(world), world.admin("productpage-v1", "/certs")
        drained = world.stat("productpage-v1", "listener_manager.total_listeners_draining")
        before = {name: memory(pid).anonymous for name, pid in proxies.items()}
        load = _load(world, SECONDS)
        steps = 0
        while load.poll() is None:
            next(changes)
            steps += 1
            time.sleep(1)
        result: dict[str, Any] = json.loads(load.communicate()[0])
        return result | {
            "changes": steps,
            "rotations": _issued(world) - rotations,
            "in use": world.admin("productpage-v1", "/certs") != certificates,
            "modified": world.stat("productpage-v1", "listener_manager.listener_modified"),
            "draining": drained + world.stat("productpage-v1", "listener_manager.total_listeners_draining"),
            "growth": {name: memory(pid).anonymous - before[name] for name, pid in proxies.items()},
        }


def test_no_request_fails_while_everything_changes(tmp_path: Path) -> None:
    seen = _observe(tmp_path, "")
    growth = {name: round(value / MIB, 2) for name, value in seen["growth"].items()}
    print(
        f"{seen['ops']} requests in {SECONDS:.0f} s, {seen['errors']} failed, {seen['changes']} changes of rules and "
        f"endpoints, {seen['rotations']} certificates, memory {growth} MiB"
    )
    assert seen["errors"] == 0, seen
    assert seen["ops"] >= RATE * SECONDS * 0.95
    assert seen["changes"] >= SECONDS * 0.8
    assert seen["rotations"] >= SECONDS / 3
    assert seen["in use"]
    assert seen["draining"] == 0
    assert all(value <= 2 * MIB for value in seen["growth"].values()), growth


if __name__ == "__main__":
    # The same with Envoy, to compare by hand: `python -m istio.test_under_change` in `tests`.
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        print(_observe(Path(directory), envoy_binary()))
