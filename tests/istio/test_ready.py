"""Under the real istiod and the real pilot-agent, tidegate gets ready where Envoy does, and where it does not."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from istio.world import Pod, World
from tidegate.peer import envoy_binary

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root"), pytest.mark.timeout(240)]
_MODES: Mapping[str, Mapping[str, str]] = {"delta": {}, "sotw": {"ISTIO_DELTA_XDS": "false"}}
_KINDS = {"sidecar": ("productpage", "v1", 11), "router": ("istio-ingressgateway", "latest", 2)}


def _pod(kind: str, mode: str, data_plane: str = "") -> Pod:
    app, version, number = _KINDS[kind]
    return Pod(app, version, number, data_plane=data_plane, kind=kind, agent=_MODES[mode])


def _start(world: World, pod: Pod, mode: str, data_plane: str) -> float:
    """Seconds from the start of pilot-agent to the first positive readiness."""
    again = Pod(pod.app, pod.version, pod.number, data_plane=data_plane, kind=pod.kind, agent=_MODES[mode])
    begin = time.monotonic()
    world.start_agent(again)
    world.await_ready(pod.name)
    return time.monotonic() - begin


def _rejections(world: World, pod: str) -> dict[str, int]:
    text = world.admin(pod, "/stats?filter=update_rejected|update_failure|init_fetch_timeout")
    counts = dict(line.split(": ") for line in text.splitlines())
    return {name: int(value) for name, value in counts.items() if "rejected" in name and value != "0"}


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("mode", _MODES)
def test_ready_within_twice_envoys_time(tmp_path: Path, kind: str, mode: str) -> None:
    pod = _pod(kind, mode)
    times: dict[str, list[float]] = {"envoy": [], "tidegate": []}
    with World(tmp_path, "stock", [pod]) as world:
        world.await_ready(pod.name)
        assert _rejections(world, pod.name) == {}
        for _ in range(3):
            for name, data_plane in (("envoy", envoy_binary()), ("tidegate", "")):
                world.stop(pod.name)
                times[name].append(_start(world, pod, mode, data_plane))
        assert _rejections(world, pod.name) == {}
    print(kind, mode, {name: [round(each, 2) for each in taken] for name, taken in times.items()})
    assert sorted(times["tidegate"])[1] <= 2 * sorted(times["envoy"])[1]


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("mode", _MODES)
def test_ready_with_what_a_helm_install_sends(tmp_path: Path, kind: str, mode: str) -> None:
    pod = _pod(kind, mode)
    with World(tmp_path, "helm", [pod]) as world:
        world.await_ready(pod.name)
        assert _rejections(world, pod.name) == {}
        if mode == "delta":
            # The proof that this is what stock Envoy cannot take.
            world.stop(pod.name)
            world.start_agent(_pod(kind, mode, envoy_binary()))
            time.sleep(6)
            assert not world.ready(pod.name)
