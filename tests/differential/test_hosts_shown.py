"""What the admin pages make of clusters' hosts, beside the real Envoy's: names resolved, localities in order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from differential.pair import Pair
from differential.proxies import Proxy
from differential.scenario import Scenario

CLUSTERS = """\
- name: strict
  type: STRICT_DNS
  dns_lookup_family: V4_ONLY
  load_assignment:
    cluster_name: of-another-name
    policy: {overprovisioning_factor: 150}
    endpoints:
    - priority: 1
      proximity: 5
      lb_endpoints:
      - {endpoint: {address: {socket_address: {address: 127.0.0.9, port_value: 1237}}}, health_status: DRAINING}
    - locality: {region: r1, zone: z1}
      load_balancing_weight: 3
      lb_endpoints:
      - endpoint: {address: {socket_address: {address: localhost, port_value: 1234}}}
        load_balancing_weight: 7
        metadata: {filter_metadata: {envoy.lb: {a: b}}}
      - endpoint:
          hostname: named.test
          health_check_config: {port_value: 77}
          address: {socket_address: {address: localhost, port_value: 1235}}
        health_status: DEGRADED
- name: logical
  type: LOGICAL_DNS
  dns_lookup_family: V4_ONLY
  load_assignment:
    cluster_name: of-another-name
    endpoints:
    - locality: {region: r1, zone: z1}
      load_balancing_weight: 3
      lb_endpoints:
      - endpoint: {address: {socket_address: {address: localhost, port_value: 1234}}}
        load_balancing_weight: 7
        metadata: {filter_metadata: {envoy.lb: {a: b}}}
- name: logical-named
  type: LOGICAL_DNS
  dns_lookup_family: V4_ONLY
  load_assignment:
    cluster_name: logical-named
    endpoints:
    - lb_endpoints:
      - endpoint: {hostname: named.test, address: {socket_address: {address: localhost, port_value: 1234}}}
        health_status: DEGRADED
- name: fixed
  type: STATIC
  load_assignment:
    cluster_name: of-another-name
    endpoints:
    - locality: {region: r1, zone: z1}
      priority: 1
      lb_endpoints:
      - {endpoint: {hostname: h, address: {socket_address: {address: 127.0.0.1, port_value: 1234}}}}
    - locality: {region: r1, zone: z2}
      lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.2, port_value: 1234}}}}]
    - locality: {region: r1, zone: z1}
      lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.3, port_value: 1234}}}}]
    - {locality: {region: r1, zone: z0}, lb_endpoints: []}
"""
_ROUTE = {"match": {"prefix": "/"}, "route": {"cluster": "a"}}
NAMES = ["strict", "logical", "logical-named", "fixed"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    clusters = [{"connect_timeout": "1s", **cluster} for cluster in yaml.safe_load(CLUSTERS)]
    document: dict[str, Any] = {
        "cases": [],
        "clusters": clusters,
        "routes": [
            {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]}
        ],
    }
    pair = Pair(Scenario("hosts-shown", document, ()), tmp_path_factory.mktemp("hosts"))
    try:
        yield pair
    finally:
        pair.stack.close()


def _assignment(proxy: Proxy, name: str) -> Any:
    document = json.loads(proxy.admin("/config_dump?include_eds&resource=static_endpoint_configs")[1])
    found = [entry["endpoint_config"] for entry in document["configs"]]
    (one,) = [config for config in found if config["cluster_name"] == name]
    return one


@pytest.mark.parametrize("name", NAMES)
def test_endpoint_configs(pair: Pair, name: str) -> None:
    envoy, subject = (_assignment(proxy, name) for proxy in pair.proxies)
    assert subject == envoy


@pytest.mark.parametrize("name", NAMES)
def test_clusters(pair: Pair, name: str) -> None:
    """The order of the hosts is not Envoy's."""
    texts = [proxy.admin("/clusters")[1].decode() for proxy in pair.proxies]
    envoy, subject = (sorted(line for line in text.splitlines() if line.startswith(f"{name}::")) for text in texts)
    assert subject == envoy
