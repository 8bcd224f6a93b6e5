"""Outlier detection over time, beside the real Envoy: rates, the way back, and what `/clusters` tells."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from differential.pair import Pair
from differential.proxies import Proxy
from differential.scenario import Scenario


def cluster(name: str, **outlier: Any) -> dict[str, Any]:
    hosts = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": f"@{n}@"}}}} for n in "ab"
    ]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "outlier_detection": {"interval": "0.4s", "max_ejection_percent": 50, **outlier},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]},
    }


RATE = {"success_rate_minimum_hosts": 2, "success_rate_request_volume": 4, "success_rate_stdev_factor": 500}
PERCENTAGE = {
    "failure_percentage_minimum_hosts": 2,
    "failure_percentage_request_volume": 4,
    "failure_percentage_threshold": 50,
    "enforcing_failure_percentage": 100,
    "enforcing_success_rate": 0,
}
OFF = {"consecutive_5xx": 1000, "consecutive_gateway_failure": 1000, "base_ejection_time": "100s"}
DOCUMENT: dict[str, Any] = {
    "cases": [],
    "clusters": [
        cluster("back", consecutive_5xx=1, base_ejection_time="0.3s"),
        cluster("rate", **RATE, **OFF),
        cluster("percentage", **PERCENTAGE, **OFF),
    ],
    "routes": [
        {
            "name": "all",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster_header": "x-cluster"}}],
        }
    ],
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(Scenario("outliers", DOCUMENT, ()), tmp_path_factory.mktemp("outliers"))
    try:
        yield pair
    finally:
        pair.stack.close()


def ask(proxy: Proxy, name: str, do: str, times: int = 1) -> list[str]:
    """The backends that answered."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    answered = []
    for _ in range(times):
        connection.request("GET", "/", headers={"x-cluster": name, "x-do": do})
        answer = connection.getresponse()
        answer.read()
        answered.append(answer.getheader("x-backend") or "-")
    connection.close()
    return answered


def flags(proxy: Proxy, name: str) -> list[str]:
    """Health flags of the hosts, in their order."""
    text = proxy.admin(f"/clusters?filter=^{name}$")[1].decode()
    return [line.rpartition("::")[2] for line in text.splitlines() if "health_flags" in line]


def until(check: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.02)
    return False


def stat(proxy: Proxy, name: str) -> int:
    text = proxy.admin(f"/stats?filter=^cluster.{name}$")[1].decode()
    return int(text.rpartition(": ")[2])


@pytest.mark.parametrize("which", [0, 1])
def test_a_host_comes_back(pair: Pair, which: int) -> None:
    proxy = pair.proxies[which]
    ask(proxy, "back", "status=500,at=a", 2)
    assert until(lambda: flags(proxy, "back") == ["/failed_outlier_check", "healthy"])
    assert stat(proxy, "back.membership_healthy") == 1
    assert stat(proxy, "back.outlier_detection.ejections_active") == 1
    document = json.loads(proxy.admin("/clusters?format=json&filter=^back$")[1])
    hosts = document["cluster_statuses"][0]["host_statuses"]
    assert hosts[0]["health_status"] == {"eds_health_status": "HEALTHY", "failed_outlier_check": True}
    assert set(ask(proxy, "back", "", 4)) == {"b"}
    assert until(lambda: flags(proxy, "back") == ["healthy", "healthy"])
    assert stat(proxy, "back.membership_healthy") == 2
    assert stat(proxy, "back.outlier_detection.ejections_active") == 0
    assert until(lambda: set(ask(proxy, "back", "", 4)) == {"a", "b"})


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(("name", "why"), [("rate", "success_rate"), ("percentage", "failure_percentage")])
def test_a_host_that_fails_more_than_others_is_ejected(pair: Pair, which: int, name: str, why: str) -> None:
    proxy = pair.proxies[which]

    def fails() -> bool:
        ask(proxy, name, "status=500,at=a", 20)
        return flags(proxy, name) == ["/failed_outlier_check", "healthy"]

    assert until(fails)
    assert stat(proxy, f"{name}.outlier_detection.ejections_enforced_{why}") == 1
    assert stat(proxy, f"{name}.outlier_detection.ejections_enforced_total") == 1
    assert set(ask(proxy, name, "", 4)) == {"b"}


def test_clusters_tell_the_same_of_outliers(pair: Pair) -> None:
    def lines(proxy: Proxy) -> list[str]:
        text = proxy.admin("/clusters?filter=^(rate|percentage|back)$")[1].decode()
        kept = [line for line in text.splitlines() if "::outlier" in line or "health_flags" in line]
        return kept + [line.partition("::")[0] for line in text.splitlines() if "success_rate" in line]

    # Without traffic there are no rates, once an interval without any is over.
    assert until(lambda: lines(pair.proxies[0]) == lines(pair.proxies[1]))
    assert len(lines(pair.proxies[0])) > 12
