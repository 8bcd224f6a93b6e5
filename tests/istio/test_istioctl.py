"""istioctl prints for our configuration dump what it prints for Envoy's, of the same pod under the same istiod."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from go_peers import go_peer
from istio.world import Pod, World
from tidegate.peer import envoy_binary

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root"), pytest.mark.timeout(240)]
_PAGES = ["all", "listeners", "routes", "clusters", "endpoints", "secret", "bootstrap"]


def _istioctl(page: str, dump: Path) -> str:
    command = [go_peer("istioctl"), "proxy-config", page, "-f", str(dump)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"HOME": str(dump.parent)})
    assert done.returncode == 0, done.stderr
    return done.stdout


def _normal(page: str, text: str) -> object:
    """A secret has its serial number and hours from when it was issued; versions differ, and which binary runs."""
    if page == "bootstrap":
        document = json.loads(text)
        document.pop("lastUpdated")
        node = document["bootstrap"]["node"]
        for name in ("userAgentName", "userAgentBuildVersion", "extensions"):
            node.pop(name, None)
        node["metadata"].get("PROXY_CONFIG", {}).pop("binaryPath", None)
        return document
    lines = []
    for line in text.splitlines():
        if line.startswith("Envoy Version:"):
            continue
        words = line.split()
        if words[:1] and words[0].removeprefix("secret/") in ("default", "ROOTCA"):
            # Name, type, status and whether it is valid; then serial number and times.
            line = " ".join(words[:5])
        lines.append(" ".join(line.split()))
    # In a dump of Envoy's, resources come in the order of a hash.
    return sorted(lines)


@pytest.fixture(scope="module", params=["sidecar", "router"])
def dumps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    directory = tmp_path_factory.mktemp("dumps")
    pod = (
        Pod("productpage", "v1", 11)
        if request.param == "sidecar"
        else Pod("istio-ingressgateway", "latest", 2, kind="router")
    )
    found = {}
    with World(directory, "stock", [pod]) as world:
        world.await_ready(pod.name)
        for name, data_plane in (("tidegate", ""), ("envoy", envoy_binary())):
            world.stop(pod.name)
            world.start_agent(Pod(pod.app, pod.version, pod.number, data_plane=data_plane, kind=pod.kind))
            world.await_ready(pod.name)
            found[name] = directory / f"{name}.json"
            found[name].write_text(world.admin(pod.name, "/config_dump?include_eds"))
    return found


@pytest.mark.parametrize("page", _PAGES)
def test_prints_the_same(dumps: Mapping[str, Path], page: str) -> None:
    ours, theirs = (_normal(page, _istioctl(page, dumps[name])) for name in ("tidegate", "envoy"))
    assert ours == theirs
