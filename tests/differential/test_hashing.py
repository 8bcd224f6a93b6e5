"""Consistent hashing: for the same key the same host as the real Envoy, whatever the hosts, weights and health.

Nobody listens at the hosts (the log tells which one was asked), so there may be many of them.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from typing import Any

import pytest

from differential.pair import Pair
from differential.proxies import Proxy
from differential.scenario import Scenario

KEYS = [f"key-{n}" for n in range(200)] + ["", "a", "user@example.org", "x" * 300]

LB = "type.googleapis.com/envoy.extensions.load_balancing_policies"
POLICIES: dict[str, dict[str, Any]] = {
    "ring": {"lb_policy": "RING_HASH"},
    "ring-small": {
        "lb_policy": "RING_HASH",
        "ring_hash_lb_config": {"minimum_ring_size": 16, "maximum_ring_size": 64},
    },
    "ring-murmur": {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"hash_function": "MURMUR_HASH_2"}},
    "ring-typed": {
        "load_balancing_policy": {
            "policies": [
                {
                    "typed_extension_config": {
                        "name": "r",
                        "typed_config": {"@type": f"{LB}.ring_hash.v3.RingHash", "minimum_ring_size": 100},
                    }
                }
            ]
        }
    },
    "maglev": {"lb_policy": "MAGLEV"},
    "maglev-small": {"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 1009}},
    "maglev-typed": {
        "load_balancing_policy": {
            "policies": [
                {
                    "typed_extension_config": {
                        "name": "m",
                        "typed_config": {"@type": f"{LB}.maglev.v3.Maglev", "table_size": 251},
                    }
                }
            ]
        }
    },
    "ring-hostname": {
        "type": "STRICT_DNS",
        "lb_policy": "RING_HASH",
        "common_lb_config": {"consistent_hashing_lb_config": {"use_hostname_for_hashing": True}},
    },
    "maglev-hostname": {
        "type": "STRICT_DNS",
        "lb_policy": "MAGLEV",
        "common_lb_config": {"consistent_hashing_lb_config": {"use_hostname_for_hashing": True}},
    },
}


def host(number: int, weight: int = 1, health: str = "UNKNOWN") -> dict[str, Any]:
    address = {"socket_address": {"address": f"127.1.0.{number}", "port_value": 9}}
    return {
        "endpoint": {"address": address, "hostname": f"host-{number}.example"},
        "load_balancing_weight": weight,
        "health_status": health,
    }


def locality(zone: str, hosts: list[dict[str, Any]], weight: int = 0, priority: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = {"locality": {"region": "r", "zone": zone}, "lb_endpoints": hosts, "priority": priority}
    return found | ({"load_balancing_weight": weight} if weight else {})


HOSTS: dict[str, list[dict[str, Any]]] = {
    "1": [locality("a", [host(1)])],
    "2": [locality("a", [host(1), host(2)])],
    "7": [locality("a", [host(n) for n in range(1, 8)])],
    "40": [locality("a", [host(n) for n in range(1, 41)])],
    "weights": [locality("a", [host(n, 1 + n % 4) for n in range(1, 12)])],
    "uneven": [locality("a", [host(1, 100), host(2, 1), host(3, 7)])],
    "sick": [locality("a", [host(n, 1, "UNHEALTHY" if n in (2, 5) else "HEALTHY") for n in range(1, 11)])],
    "panic": [locality("a", [host(n, 1, "UNHEALTHY" if n > 2 else "HEALTHY") for n in range(1, 11)])],
    "degraded": [locality("a", [host(n, 1, "DEGRADED" if n > 7 else "HEALTHY") for n in range(1, 11)])],
    "priorities": [
        locality("a", [host(n, 1, "UNHEALTHY" if n < 4 else "HEALTHY") for n in range(1, 7)]),
        locality("a", [host(n) for n in range(11, 16)], priority=1),
    ],
    "localities": [
        locality("b", [host(n) for n in range(1, 6)], 3),
        locality("a", [host(n, 2) for n in range(6, 9)], 5),
        locality("c", [host(9)], 0),
    ],
}


def cluster(name: str, policy: dict[str, Any], endpoints: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        **policy,
        **more,
    }


def clusters() -> list[dict[str, Any]]:
    made = [cluster(f"{p}~{h}", POLICIES[p], HOSTS[h]) for p in POLICIES for h in HOSTS]
    weighted: dict[str, Any] = {"locality_weighted_lb_config": {}}
    return made + [
        cluster(f"{policy}~weighted", POLICIES[policy], HOSTS["localities"], common_lb_config=weighted)
        for policy in ("ring", "maglev")
    ]


DOCUMENT: dict[str, Any] = {
    "cases": [],
    "log_format": "%UPSTREAM_CLUSTER% %UPSTREAM_HOST%\n",
    "clusters": clusters(),
    "routes": [
        {
            "name": "all",
            "domains": ["*"],
            "routes": [
                {
                    "match": {"prefix": "/"},
                    "route": {
                        "cluster_header": "x-cluster",
                        "hash_policy": [{"header": {"header_name": "x-key"}}],
                    },
                }
            ],
        }
    ],
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(Scenario("hashing", DOCUMENT, ()), tmp_path_factory.mktemp("hashing"))
    try:
        yield pair
    finally:
        pair.stack.close()


def chosen(proxy: Proxy, name: str, keys: list[str]) -> list[str]:
    """The host that each key got."""
    proxy.log_lines()
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    for key in keys:
        connection.request("GET", "/", headers={"x-cluster": name, "x-key": key})
        connection.getresponse().read()
    connection.close()
    lines: list[str] = []
    deadline = time.monotonic() + 5
    while len(lines) < len(keys) and time.monotonic() < deadline:
        lines += proxy.log_lines()
        time.sleep(0.01)
    return lines


@pytest.mark.parametrize("name", [c["name"] for c in clusters()])
def test_a_key_finds_the_same_host(pair: Pair, name: str) -> None:
    envoy, subject = [chosen(proxy, name, KEYS) for proxy in pair.proxies]
    assert len(envoy) == len(KEYS)
    assert subject == envoy


def test_the_tables_are_told_of_in_the_same_words(pair: Pair) -> None:
    def gauges(proxy: Proxy) -> list[str]:
        text = proxy.admin("/stats?filter=ring_hash_lb|maglev_lb")[1].decode()
        return sorted(text.splitlines())

    envoy, subject = [gauges(proxy) for proxy in pair.proxies]
    assert len(envoy) > 100
    assert subject == envoy
