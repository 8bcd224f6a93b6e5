"""What is said on a discovery stream, message by message, by real Envoy and by us, in both forms of ADS.

One scene after the other against the same management server; the conversations must be equal, and so must the counts of
updates.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from differential.backend import Backend, free_port
from differential.client import exchange
from differential.proxies import Proxy, running
from integration.management import Management
from integration.test_ads import bootstrap, cluster, endpoints, listener, routes
from tidegate import xdsapi

FORMS = ("DELTA_GRPC", "GRPC")
_STATS = (
    "/stats?usedonly&filter=" + r"update_(attempt|success|rejected|empty|failure)|version_text|cluster_(added|removed)"
)


class Scene:
    def __init__(self, server: Management, proxy: Proxy, ports: dict[str, int]) -> None:
        self.server, self.proxy, self.ports = server, proxy, ports
        self.said: dict[str, list[str]] = {}

    def listen(self, name: str) -> None:
        """Until nothing has been said for a while; the rest belongs to this scene."""
        quiet = time.monotonic()
        heard = len(self.server.lines)
        while time.monotonic() - quiet < 0.5:
            time.sleep(0.02)
            if len(self.server.lines) != heard:
                heard, quiet = len(self.server.lines), time.monotonic()
        self.said[name] = list(self.server.lines)
        self.server.lines.clear()

    def stats(self) -> list[str]:
        status, text = self.proxy.admin(_STATS)
        assert status == 200
        kept = re.compile(r"^(cluster\.[abc]\.|cluster_manager\.|listener_manager\.|http\.)")
        # Envoy counts a refusal as two attempts in the incremental form, if it comes late enough in its reading.
        left = re.compile(r"duration|^http.*update_attempt")
        lines = text.decode().splitlines()
        return sorted(line for line in lines if kept.match(line) and not left.search(line))


def _play(scene: Scene, backends: dict[str, Backend]) -> None:
    server, ports = scene.server, scene.ports
    other = routes("a") | {"name": "other"}
    both = {"a": cluster("a"), "b": cluster("b")}
    listening = {"main": listener("main", ports["main"])}
    places = {name: endpoints(name, backend.port) for name, backend in backends.items()}
    scene.listen("start")
    server.set(xdsapi.ROUTE_CONFIGURATION, {"main": routes("b"), "other": other})
    scene.listen("a route changes")
    # Alone: of several resources in a refused response, Envoy takes those that it comes to before the bad one.
    server.set(xdsapi.ROUTE_CONFIGURATION, {"main": routes("b", {"safe_regex": {"regex": "("}}), "other": other})
    scene.listen("a bad route")
    server.set(xdsapi.ROUTE_CONFIGURATION, {"main": routes("a"), "other": other})
    scene.listen("and a good one")
    server.set(xdsapi.LISTENER, listening, again=True)
    scene.listen("the same listeners again")
    # Endpoints come last, so that who is first does not depend on the wire.
    server.hold(xdsapi.CLUSTER_LOAD_ASSIGNMENT)
    server.set_all({
        xdsapi.CLUSTER: both | {"c": cluster("c")},
        xdsapi.CLUSTER_LOAD_ASSIGNMENT: places | {"c": endpoints("c", backends["a"].port)},
        xdsapi.LISTENER: listening | {"two": listener("two", ports["two"], "other")},
    })  # fmt: skip
    scene.listen("a service comes")
    server.release(xdsapi.CLUSTER_LOAD_ASSIGNMENT)
    scene.listen("and its endpoints")
    server.set(xdsapi.LISTENER, listening)
    scene.listen("a listener goes")
    server.set(xdsapi.CLUSTER, both)
    scene.listen("a cluster goes")
    server.set(xdsapi.CLUSTER_LOAD_ASSIGNMENT, {})
    scene.listen("endpoints go")
    server.drop_streams()
    time.sleep(1.0)
    scene.listen("the stream ends")


@pytest.fixture(scope="module", params=FORMS)
def scenes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scene]:
    backends = {name: Backend(name).start() for name in ("a", "b")}
    found = {}
    try:
        for kind in ("envoy", "tidegate"):
            directory = tmp_path_factory.mktemp(kind)
            with _world(kind, request.param, directory, backends) as scene:
                _play(scene, backends)
                scene.proxy_stats = scene.stats()  # type: ignore[attr-defined]
                found[kind] = scene
    finally:
        for backend in backends.values():
            backend.stop()
    return found


class _world:
    """A proxy with a management server of its own."""

    def __init__(self, kind: str, form: str, directory: Path, backends: dict[str, Backend]) -> None:
        self.ports = {"main": free_port(), "two": free_port(), "admin": free_port()}
        self.server = Management().start()
        self.server.set_all({
            xdsapi.CLUSTER: {"a": cluster("a"), "b": cluster("b")},
            xdsapi.CLUSTER_LOAD_ASSIGNMENT: {name: endpoints(name, b.port) for name, b in backends.items()},
            xdsapi.LISTENER: {"main": listener("main", self.ports["main"])},
            xdsapi.ROUTE_CONFIGURATION: {"main": routes("a"), "other": routes("a") | {"name": "other"}},
        })  # fmt: skip
        document: dict[str, Any] = json.loads(bootstrap(self.ports["admin"], self.server.port))
        ads = document["dynamic_resources"]["ads_config"]
        ads |= {"api_type": form, "set_node_on_first_message_only": True}
        ads["grpc_services"][0]["envoy_grpc"]["retry_policy"] = {
            "retry_back_off": {"base_interval": "0.1s", "max_interval": "0.2s"}
        }
        self._running = running(
            kind, json.dumps(document), admin_port=self.ports["admin"], port=self.ports["main"], directory=directory,
            log=directory / "log",
        )  # fmt: skip

    def __enter__(self) -> Scene:
        return Scene(self.server, self._running.__enter__(), self.ports)

    def __exit__(self, *error: Any) -> None:
        self._running.__exit__(*error)
        self.server.stop()


def test_every_message_is_envoy_s(scenes: dict[str, Scene]) -> None:
    assert scenes["tidegate"].said == scenes["envoy"].said
    assert scenes["envoy"].said["start"][0].endswith("node")


def test_updates_are_counted_as_envoy_counts_them(scenes: dict[str, Scene]) -> None:
    ours = scenes["tidegate"].proxy_stats  # type: ignore[attr-defined]
    theirs = scenes["envoy"].proxy_stats  # type: ignore[attr-defined]
    assert ours == theirs


@pytest.fixture(params=FORMS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    backends = {name: Backend(name).start() for name in ("a", "b")}
    try:
        with _world("tidegate", request.param, tmp_path, backends) as scene:
            scene.backends = backends  # type: ignore[attr-defined]
            yield scene
    finally:
        for backend in backends.values():
            backend.stop()


def eventually(what: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def test_a_whole_type_again_touches_no_connection(world: Scene) -> None:
    """As istiod does on every edit of a rule: all listeners and clusters once more."""
    port = world.ports["main"]
    world.listen("start")
    for _ in range(5):
        world.server.set_all({
            xdsapi.CLUSTER: {"a": cluster("a"), "b": cluster("b")},
            xdsapi.LISTENER: {"main": listener("main", port)},
        }, again=True)  # fmt: skip
    request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    result = exchange(port, [request, 0.3, request], methods=["GET", "GET"])
    world.listen("again")
    assert [r.status for r in result.responses] == [200, 200]
    assert result.end == "open"
    stats = dict(line.split(": ", 1) for line in world.proxy.admin("/stats")[1].decode().splitlines() if ": " in line)
    assert stats["listener_manager.listener_modified"] == "0"
    assert stats["listener_manager.total_listeners_draining"] == "0"
    assert stats["cluster_manager.cluster_modified"] == "0"
    assert int(stats["listener_manager.lds.update_success"]) >= 2


def test_a_removed_listener_closes_and_the_rest_stays(world: Scene) -> None:
    main, two = world.ports["main"], world.ports["two"]
    other = routes("b") | {"name": "other"}
    world.server.set_all({
        xdsapi.ROUTE_CONFIGURATION: {"main": routes("a"), "other": other},
        xdsapi.LISTENER: {"main": listener("main", main), "two": listener("two", two, "other")},
    })  # fmt: skip
    eventually(lambda: _answer(two) == (200, "b"))
    world.server.set(xdsapi.LISTENER, {"main": listener("main", main)})
    eventually(lambda: _answer(two) is None)
    assert _answer(main) == (200, "a")


def _answer(port: int) -> tuple[int, str | None] | None:
    try:
        found = exchange(port, [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"], methods=["GET"]).responses[0]
    except (OSError, IndexError):
        return None
    return found.status, found.get("x-backend")
