"""The xDS client against a management server: ACK, NACK with the field's path, the last good version serves on."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from differential.backend import Backend, free_port
from differential.client import exchange
from differential.proxies import Proxy, running
from tidegate import xdsapi
from tidegate.bench.ads_server import AdsServer, Seen

HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


def _socket(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def bootstrap(admin: int, ads: int) -> str:
    h2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    endpoint = {"lb_endpoints": [{"endpoint": {"address": _socket(ads)}}]}
    return json.dumps(
        {
            "node": {"id": "sidecar~127.0.0.1~test.default~default.svc.cluster.local", "cluster": "test"},
            "admin": {"address": _socket(admin)},
            "dynamic_resources": {
                "lds_config": {"ads": {}, "resource_api_version": "V3"},
                "cds_config": {"ads": {}, "resource_api_version": "V3"},
                "ads_config": {
                    "api_type": "GRPC",
                    "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
                },
            },
            "static_resources": {
                "clusters": [
                    {
                        "name": "xds-grpc",
                        "type": "STATIC",
                        "connect_timeout": "1s",
                        "typed_extension_protocol_options": h2,
                        "load_assignment": {"cluster_name": "xds-grpc", "endpoints": [endpoint]},
                    }
                ]
            },
        }
    )


def cluster(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "EDS",
        "connect_timeout": "1s",
        "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}, "service_name": name},
    }


def endpoints(name: str, port: int) -> dict[str, Any]:
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket(port)}}]}]}


def listener(name: str, port: int, route: str = "main") -> dict[str, Any]:
    hcm = {
        "@type": HCM,
        "stat_prefix": name,
        "rds": {"route_config_name": route, "config_source": {"ads": {}, "resource_api_version": "V3"}},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": hcm}]
    return {"name": name, "address": _socket(port), "filter_chains": [{"filters": filters}]}


def routes(cluster_name: str, match: dict[str, Any] | None = None) -> dict[str, Any]:
    route = {"match": match or {"prefix": "/"}, "route": {"cluster": cluster_name}}
    return {
        "name": "main",
        "validate_clusters": False,
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
    }


class World:
    def __init__(self, server: AdsServer, proxy: Proxy, port: int, backends: dict[str, Backend]) -> None:
        self.server, self.proxy, self.port, self.backends = server, proxy, port, backends

    def get(self) -> tuple[int, str | None]:
        answer = exchange(self.port, [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"], methods=["GET"]).responses[0]
        return answer.status, answer.get("x-backend")

    def eventually(self, what: Callable[[], bool], seconds: float = 5.0) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, f"not within {seconds} s: {self.server.seen[-6:]}"
            time.sleep(0.02)

    def last(self, full_name: str, wanted: Callable[[Seen], bool]) -> Seen:
        url = xdsapi.type_url(full_name)

        def find() -> Seen | None:
            return next((s for s in reversed(self.server.seen) if s.type_url == url and wanted(s)), None)

        self.eventually(lambda: find() is not None)
        found = find()
        assert found is not None
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    backends = {name: Backend(name).start() for name in ("a", "b")}
    server = AdsServer().start()
    port, admin = free_port(), free_port()
    server.set(xdsapi.CLUSTER, {"a": cluster("a"), "b": cluster("b")})
    server.set(
        xdsapi.CLUSTER_LOAD_ASSIGNMENT, {name: endpoints(name, backend.port) for name, backend in backends.items()}
    )
    server.set(xdsapi.LISTENER, {"main": listener("main", port)})
    server.set(xdsapi.ROUTE_CONFIGURATION, {"main": routes("a")})
    try:
        with running(
            "tidegate", bootstrap(admin, server.port), admin_port=admin, port=port, directory=tmp_path,
            log=tmp_path / "log",
        ) as proxy:  # fmt: skip
            world = World(server, proxy, port, backends)
            world.eventually(lambda: _serves(world, "a"))
            yield world
    finally:
        server.stop()
        for backend in backends.values():
            backend.stop()


def _serves(world: World, name: str) -> bool:
    try:
        return world.get() == (200, name)
    except (OSError, IndexError):
        return False


def test_the_order_of_subscriptions_and_the_node(world: World) -> None:
    first = []
    for seen in world.server.seen:
        short = seen.type_url.rsplit(".", 1)[-1]
        if short not in first:
            first.append(short)
    assert first == ["Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration"]
    assert world.server.seen[0].node_id.startswith("sidecar~127.0.0.1~test.default")
    assert all(not s.node_id for s in world.server.seen[1:]), "the node goes in the first request only"
    eds = next(s for s in world.server.seen if s.type_url.endswith("ClusterLoadAssignment"))
    assert eds.names == ["a", "b"]


def test_a_route_change_is_acked_and_takes_effect(world: World) -> None:
    version = world.server.set(xdsapi.ROUTE_CONFIGURATION, {"main": routes("b")})
    ack = world.last(xdsapi.ROUTE_CONFIGURATION, lambda s: s.version == version)
    assert not ack.error
    assert world.get() == (200, "b")


def test_what_is_passed_over_is_told_once(world: World) -> None:
    assert world.proxy.kind == "tidegate"
    for name in ("b", "a", "b"):
        changed = routes(name)
        changed["virtual_hosts"][0]["routes"][0]["stat_prefix"] = "counted"
        world.server.set(xdsapi.ROUTE_CONFIGURATION, {"main": changed})
        world.eventually(functools.partial(_serves, world, name))
    told = "main: virtual_hosts[0].routes[0].stat_prefix: ignored"
    assert world.proxy.stderr().count(told) == 1


@pytest.mark.parametrize(
    ("full_name", "resources", "path"),
    [
        (
            xdsapi.ROUTE_CONFIGURATION,
            {"main": routes("b", {"safe_regex": {"regex": "("}})},
            "virtual_hosts[0].routes[0].match.safe_regex",
        ),
        (xdsapi.ROUTE_CONFIGURATION, {"main": b"\x0a\x04main\xff\xff\xff"}, "name"),
        (xdsapi.CLUSTER, {"a": cluster("a") | {"connect_timeout": "-1s"}, "b": cluster("b")}, "connect_timeout"),
        (
            xdsapi.CLUSTER_LOAD_ASSIGNMENT,
            {"a": {"cluster_name": "a", "endpoints": [{"lb_endpoints": [{"endpoint": {}}]}]}},
            "endpoints[0].lb_endpoints[0].endpoint",
        ),
        (
            xdsapi.LISTENER,
            {"main": {"name": "main", "address": _socket(1), "filter_chains": [{"filters": [{"name": "x"}]}]}},
            "filter_chains[0].filters[0]",
        ),
        (xdsapi.CLUSTER, {"a": b"\xff\xff\xff\xff"}, ""),
    ],
    ids=["bad regex", "bad route bytes", "bad timeout", "endpoint without address", "unknown filter", "bad bytes"],
)
def test_a_corrupt_resource_is_nacked_and_the_old_one_serves(
    world: World, full_name: str, resources: dict[str, Any], path: str
) -> None:
    before = world.last(full_name, lambda s: bool(s.version) and not s.error).version
    world.server.set(full_name, resources)
    nack = world.last(full_name, lambda s: bool(s.error))
    assert path in nack.error
    assert nack.version == before, "a NACK carries the last good version"
    assert world.get() == (200, "a")
    status, stats = world.proxy.admin("/stats?filter=update_rejected")
    assert status == 200
    assert any(line.endswith(": 1") for line in stats.decode().splitlines())

    good = {
        xdsapi.ROUTE_CONFIGURATION: {"main": routes("b")},
        xdsapi.CLUSTER: {"a": cluster("a"), "b": cluster("b")},
        xdsapi.CLUSTER_LOAD_ASSIGNMENT: {n: endpoints(n, b.port) for n, b in world.backends.items()},
        xdsapi.LISTENER: {"main": listener("main", world.port)},
    }[full_name]
    version = world.server.set(full_name, good)
    ack = world.last(full_name, lambda s: s.version == version)
    assert not ack.error


def test_unchanged_resources_are_not_touched(world: World) -> None:
    request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    version = world.server.set(xdsapi.LISTENER, {"main": listener("main", world.port)})
    result = exchange(world.port, [request, 0.3, request], methods=["GET", "GET"])
    world.last(xdsapi.LISTENER, lambda s: s.version == version)
    assert [r.status for r in result.responses] == [200, 200]
    assert result.end == "open"
    assert b"listener_manager.listener_modified: 0" in world.proxy.admin("/stats?filter=listener_modified")[1]


def test_the_server_goes_and_comes_back(world: World, tmp_path: Path) -> None:
    port = world.server.port
    world.server.stop()
    assert world.get() == (200, "a")
    again = AdsServer(port=port).start()
    try:
        for full_name, resources in (
            (xdsapi.CLUSTER, {"a": cluster("a"), "b": cluster("b")}),
            (xdsapi.CLUSTER_LOAD_ASSIGNMENT, {n: endpoints(n, b.port) for n, b in world.backends.items()}),
            (xdsapi.LISTENER, {"main": listener("main", world.port)}),
            (xdsapi.ROUTE_CONFIGURATION, {"main": routes("b")}),
        ):
            again.set(full_name, resources)
        world.eventually(lambda: _serves(world, "b"))
    finally:
        again.stop()


def test_a_removed_listener_stops_and_a_removed_cluster_is_gone(world: World) -> None:
    world.server.set(xdsapi.LISTENER, {})
    world.eventually(lambda: not _serves(world, "a"))
    world.server.set(xdsapi.CLUSTER, {"b": cluster("b")})
    world.eventually(lambda: b"a::" not in world.proxy.admin("/clusters")[1])
