"""What a request through two sidecars costs under the real Istio: `python -m istio.chain` in `tests`.

Two meshes side by side, each with istiod's own configuration: ours with what a Helm install sends (the istio.* filters
are on), Envoy's with what stock Envoy can take. A client in one pod calls a backend in another, over mTLS; the two
sidecars share CPU 0, load and backend CPU 1. Bursts alternate. CPU time is that of both proxies' processes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from istio.world import Pod, World
from tidegate.bench.processes import LOAD_CPU, PROXY_CPU, cpu_ns, tree
from tidegate.peer import envoy_binary

TOOLS = Path(__file__).parents[2] / "python" / "tidegate" / "bench" / "bin"
HOST = "reviews.bookinfo.svc.cluster.local:9080"
#: An AuthorizationPolicy for GETs under /reviews is in force.
LOADS = {
    "cpu": ("--connections", "64", "--path", "/reviews/100"),
    "fixed": ("--connections", "16", "--rate", "1000", "--path", "/reviews/100"),
}
_ROUTE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: bookinfo}
spec:
  hosts: [reviews.bookinfo.svc.cluster.local]
  http: [{name: all, route: [{destination: {host: reviews.bookinfo.svc.cluster.local}}]}]
---
"""


def proxy(world: World, pod: str) -> int:
    """The process id of the data plane that pilot-agent started."""
    found = [pid for pid in tree(world.children[pod].pid) if "envoy-rev.json" in _command(pid)]
    assert found, world.log(pod)
    return found[-1]


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def plain_route(world: World) -> None:
    """Every endpoint of reviews, by one route."""
    parts = world.render("routes").split("---\n")
    world.apply("routes", _ROUTE + "---\n".join(part for part in parts if "{name: reviews," not in part))


def client_and_server(data_plane: str) -> list[Pod]:
    backend = ("taskset", "-c", str(LOAD_CPU), str(TOOLS / "tg-backend"), "--http", "0.0.0.0:9080")
    return [
        Pod("productpage", "v1", 11, data_plane=data_plane),
        Pod("reviews", "v1", 31, data_plane=data_plane, app_command=backend),
    ]


class Mesh:
    """A mesh that load can be sent through."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.proxies = [proxy(world, name) for name in ("productpage-v1", "reviews-v1")]
        for pid in self.proxies:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {PROXY_CPU})

    def burst(self, load: str, seconds: float) -> dict[str, Any]:
        command = [
            "ip", "netns", "exec", self.world.netns("productpage-v1"), "taskset", "-c", str(LOAD_CPU),
            str(TOOLS / "tg-load"), "http", "--address", "10.96.7.30:9080", "--host", HOST, "--duration", str(seconds),
            *LOADS[load],
        ]  # fmt: skip
        before = sum(map(cpu_ns, self.proxies))
        done = subprocess.run(command, capture_output=True, check=False, timeout=seconds + 60)
        spent = sum(map(cpu_ns, self.proxies)) - before
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        assert result["errors"] == 0, result
        return result | {"cpu_us": spent / 1e3 / (result["ops"] + result["warmup_ops"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ours", default="helm", help="the configuration of our mesh: helm or stock")
    chosen = parser.parse_args()
    samples: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        meshes: dict[str, Mesh] = {}
        for name, variant, data_plane in (("tidegate", chosen.ours, ""), ("envoy", "stock", envoy_binary())):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            world = stack.enter_context(World(directory, variant, client_and_server(data_plane)))
            plain_route(world)
            world.await_all()
            meshes[name] = Mesh(world)
            with contextlib.suppress(AssertionError):
                # Endpoints may still be on their way.
                meshes[name].burst("cpu", 1)
            meshes[name].burst("cpu", 1)
        for turn in range(chosen.repeats):
            for name in list(meshes)[:: 1 if turn % 2 else -1]:
                for load in LOADS:
                    samples[load, name].append(meshes[name].burst(load, chosen.seconds))
    print(f"{'':10} {'':8} {'CPU us/op':>10} {'op/s':>10} {'p50 us':>8} {'p99 us':>8}")
    for (load, name), found in sorted(samples.items()):
        middle = {key: statistics.median(each[key] for each in found) for key in ("cpu_us", "p50_us", "p99_us", "ops")}
        rate = middle["ops"] / chosen.seconds
        print(
            f"{load:10} {name:8} {middle['cpu_us']:10.1f} {rate:10.0f} {middle['p50_us']:8.0f} {middle['p99_us']:8.0f}"
        )
    for load in LOADS:
        for key in ("cpu_us", "p50_us", "p99_us"):
            theirs, ours = (
                statistics.median(each[key] for each in samples[load, name]) for name in ("envoy", "tidegate")
            )
            print(f"{load} {key}: Envoy / tidegate = {theirs / ours:.2f}")


if __name__ == "__main__":
    main()
