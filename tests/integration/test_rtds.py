"""Runtime layers by RTDS, beside real Envoy: asked for before anything else, taken, refused, taken away."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from differential.backend import free_port
from differential.client import exchange
from differential.proxies import running
from integration.management import Management
from integration.test_ads import bootstrap, listener
from tidegate import xdsapi

RUNTIME = "envoy.service.runtime.v3.Runtime"


def layer(share: int, **more: Any) -> dict[str, Any]:
    return {"name": "shares", "layer": {"answer": {"share": share}} | more}


def routes() -> dict[str, Any]:
    """To 201 for the share of requests that the runtime says, else to 202."""
    fraction = {"default_value": {"numerator": 0, "denominator": "HUNDRED"}, "runtime_key": "answer.share"}
    rules = [
        {"match": {"prefix": "/", "runtime_fraction": fraction}, "direct_response": {"status": 201}},
        {"match": {"prefix": "/"}, "direct_response": {"status": 202}},
    ]
    return {"name": "main", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": rules}]}


def play(kind: str, form: str, directory: Path) -> list[object]:
    port, admin = free_port(), free_port()
    server = Management().start()
    server.set_all({
        RUNTIME: {"shares": layer(100)},
        xdsapi.CLUSTER: {},
        xdsapi.LISTENER: {"main": listener("main", port)},
        xdsapi.ROUTE_CONFIGURATION: {"main": routes()},
    })  # fmt: skip
    document = json.loads(bootstrap(admin, server.port))
    document["dynamic_resources"]["ads_config"] |= {"api_type": form, "set_node_on_first_message_only": True}
    source = {"ads": {}, "resource_api_version": "V3"}
    document["layered_runtime"] = {
        "layers": [
            {"name": "static", "static_layer": {"answer": {"share": 0}, "other": 1}},
            {"name": "delivered", "rtds_layer": {"name": "shares", "rtds_config": source}},
            {"name": "admin", "admin_layer": {}},
        ]
    }
    said: list[object] = []

    def status() -> int:
        return exchange(port, [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"], methods=["GET"]).responses[0].status

    def until(wanted: int) -> None:
        deadline = time.monotonic() + 5
        while status() != wanted:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    try:
        with running(
            kind, json.dumps(document), admin_port=admin, port=port, directory=directory, log=directory / "log"
        ) as proxy:
            until(201)
            time.sleep(0.3)
            said += server.lines
            server.lines.clear()
            server.set(RUNTIME, {"shares": layer(0, more="x")})
            until(202)
            said.append(json.loads(proxy.admin("/runtime")[1]))
            server.set(RUNTIME, {"shares": b"\xff\xff"})
            time.sleep(0.5)
            server.set(RUNTIME, {"shares": layer(100)})
            until(201)
            time.sleep(0.3)
            said += server.lines
            stats = proxy.admin("/stats?filter=^runtime\\.(update_(attempt|success|rejected)|num_|version_text)")[1]
            said += [line for line in stats.decode().splitlines() if form == "GRPC" or "attempt" not in line]
    finally:
        server.stop()
    return said


@pytest.mark.parametrize("form", ["DELTA_GRPC", "GRPC"])
def test_a_layer_from_the_management_server(form: str, tmp_path: Path) -> None:
    found = {}
    for kind in ("envoy", "tidegate"):
        (tmp_path / kind).mkdir()
        found[kind] = play(kind, form, tmp_path / kind)
    assert found["tidegate"] == found["envoy"]
