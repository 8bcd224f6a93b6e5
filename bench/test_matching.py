"""Micro-benchmarks of the data path's own matching, through the native module, over 1, 1,000 and 10,000 entries.

Run with `make bench-micro`. Each round matches REPEAT times natively with the GIL released; the figure to read is
`extra_info["ns_per_match"]`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tidegate._native import Matcher

REPEAT = 10_000
SIZES = (1, 1_000, 10_000)


def _socket(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}


def _tcp(name: str) -> dict[str, Any]:
    return {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": name,
            "cluster": "c",
        },
    }


def _http(virtual_hosts: list[dict[str, Any]]) -> dict[str, Any]:
    kind = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": kind,
            "stat_prefix": "h",
            "route_config": {"name": "routes", "virtual_hosts": virtual_hosts},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": router}}],
        },
    }


def _matcher(listeners: list[dict[str, Any]]) -> Matcher:
    cluster = {"name": "c", "type": "STATIC", "connect_timeout": "1s"}
    document = {"static_resources": {"listeners": listeners, "clusters": [cluster]}}
    return Matcher(json.dumps(document).encode(), "json")


def _address(index: int) -> str:
    return f"10.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}"


@cache
def listeners(size: int) -> Matcher:
    virtual = {
        "name": "virtual", "address": _socket("0.0.0.0", 15001), "use_original_dst": True,
        "filter_chains": [{"filters": [_tcp("virtual")]}],
    }  # fmt: skip
    others = [
        {
            "name": f"l{i}", "address": _socket(_address(i), 9080), "bind_to_port": False,
            "filter_chains": [{"filters": [_tcp(f"l{i}")]}],
        }
        for i in range(size)
    ]  # fmt: skip
    return _matcher([virtual, *others])


@cache
def chains(size: int) -> Matcher:
    listener = {
        "name": "main", "address": _socket("0.0.0.0", 9080),
        "filter_chains": [
            {"name": f"f{i}", "filters": [_tcp("f")],
             "filter_chain_match": {"prefix_ranges": [{"address_prefix": _address(i), "prefix_len": 32}]}}
            for i in range(size)
        ],
    }  # fmt: skip
    return _matcher([listener])


@cache
def hosts(size: int) -> Matcher:
    virtual_hosts = [
        {"name": f"v{i}", "domains": [f"host-{i}.example", f"*.wild-{i}.example"],
         "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "c"}}]}
        for i in range(size)
    ]  # fmt: skip
    return _matcher(
        [{"name": "m", "address": _socket("0.0.0.0", 80), "filter_chains": [{"filters": [_http(virtual_hosts)]}]}]
    )


MATCHES: dict[str, Callable[[int], dict[str, Any]]] = {
    "prefix": lambda i: {"prefix": f"/p{i}/"},
    "header": lambda i: {"prefix": "/", "headers": [{"name": "x-key", "string_match": {"exact": f"k{i}"}}]},
    "regex": lambda i: {"safe_regex": {"regex": f"/r{i}/[a-z]+"}},
}


@cache
def routes(size: int, kind: str) -> Matcher:
    entries = [{"name": f"r{i}", "match": MATCHES[kind](i), "route": {"cluster": "c"}} for i in range(size)]
    virtual_hosts = [{"name": "v", "domains": ["*"], "routes": entries}]
    return _matcher(
        [{"name": "m", "address": _socket("0.0.0.0", 80), "filter_chains": [{"filters": [_http(virtual_hosts)]}]}]
    )


def _measure(benchmark: BenchmarkFixture, match: Callable[[], object]) -> None:
    assert match() is not None
    benchmark(match)
    assert benchmark.stats is not None
    benchmark.extra_info["ns_per_match"] = round(benchmark.stats.stats.median * 1e9 / REPEAT, 1)


@pytest.mark.parametrize("size", SIZES)
def test_original_dst(benchmark: BenchmarkFixture, size: int) -> None:
    matcher, address = listeners(size), _address(size // 2)
    _measure(benchmark, lambda: matcher.original_dst("virtual", address, 9080, REPEAT))


@pytest.mark.parametrize("size", SIZES)
def test_filter_chain(benchmark: BenchmarkFixture, size: int) -> None:
    matcher, address = chains(size), _address(size // 2)
    _measure(benchmark, lambda: matcher.filter_chain("main", address, 9080, repeat=REPEAT))


@pytest.mark.parametrize("form", ["host-{}.example", "a.wild-{}.example"], ids=["exact", "wildcard"])
@pytest.mark.parametrize("size", SIZES)
def test_virtual_host(benchmark: BenchmarkFixture, size: int, form: str) -> None:
    matcher, authority = hosts(size), form.format(size // 2)
    _measure(benchmark, lambda: matcher.route("routes", authority, "/", repeat=REPEAT))


@pytest.mark.parametrize("kind", MATCHES)
@pytest.mark.parametrize("size", SIZES)
def test_route(benchmark: BenchmarkFixture, size: int, kind: str) -> None:
    matcher, middle = routes(size, kind), size // 2
    path = {"prefix": f"/p{middle}/x", "header": "/", "regex": f"/r{middle}/abc"}[kind]
    headers = [("x-key", f"k{middle}")] if kind == "header" else []
    _measure(benchmark, lambda: matcher.route("routes", "any", path, "GET", headers, REPEAT))
