"""Every call of a mesh under the real Istio gives with tidegate what it gives with Envoy, alone and mixed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import pytest

from istio.calls import CALLS, pods
from istio.world import World
from tidegate.peer import envoy_binary

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root"), pytest.mark.timeout(300)]
Outcomes = Mapping[str, Any]
# Who calls, who is called.
_MESHES = {"tidegate": ("", ""), "tidegate to envoy": ("", "envoy"), "envoy to tidegate": ("envoy", "")}


def _observe(factory: pytest.TempPathFactory, client: str, server: str) -> Outcomes:
    planes = [envoy_binary() if plane == "envoy" else "" for plane in (client, server)]
    outcomes: dict[str, Any] = {}
    with World(factory.mktemp("mesh"), "stock", pods(*planes)) as world:
        world.await_all()
        for name, call in CALLS.items():
            try:
                outcomes[name] = json.loads(json.dumps(call(world)).replace(world.net + ".", "NET."))
            except AssertionError as error:
                outcomes[name] = f"failed: {error}"
    return outcomes


@pytest.fixture(scope="module")
def with_envoy(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return _observe(tmp_path_factory, "envoy", "envoy")


@pytest.fixture(scope="module", params=_MESHES)
def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return _observe(tmp_path_factory, *_MESHES[request.param])


@pytest.mark.parametrize("name", CALLS)
def test_as_with_envoy(with_envoy: Outcomes, mesh: Outcomes, name: str) -> None:
    assert not str(with_envoy[name]).startswith("failed"), with_envoy[name]
    assert mesh[name] == with_envoy[name]
