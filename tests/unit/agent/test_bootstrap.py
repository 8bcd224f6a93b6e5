"""The bootstrap document: what the seed shows is in it, and the real Envoy takes it."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tidegate.agent.bootstrap import bootstrap, node_metadata
from tidegate.errors import UsageError
from tidegate.peer import envoy_binary
from tidegate.settings import AgentSettings, agent_settings

if TYPE_CHECKING:
    from pathlib import Path

SEED = (
    "sidecar --serviceCluster productpage --drainDuration 45s --parentShutdownDuration 1m0s "
    "--discoveryAddress istio-pilot.istio-system:15007 --discoveryRefreshDelay 1s "
    "--zipkinAddress zipkin.istio-system:9411 --connectTimeout 10s --statsdUdpAddress 10.254.238.237:9125"
)
POD = {
    "POD_NAME": "productpage-v1-54b8b9f55-bx2dq",
    "POD_NAMESPACE": "default",
    "INSTANCE_IP": "192.168.206.23",
    "ISTIO_META_INTERCEPTION_MODE": "REDIRECT",
}


def settings(line: str = SEED, environ: dict[str, str] | None = None) -> AgentSettings:
    found = agent_settings(line.split(), POD if environ is None else environ)
    assert isinstance(found, AgentSettings)
    return found


def test_the_seed_s_sections() -> None:
    document = bootstrap(settings(), node_metadata(settings(), {}))
    assert document["node"]["id"] == (
        "sidecar~192.168.206.23~productpage-v1-54b8b9f55-bx2dq.default~default.svc.cluster.local"
    )
    assert document["node"]["cluster"] == "productpage"
    assert document["node"]["metadata"] == {
        "INTERCEPTION_MODE": "REDIRECT",
        "ISTIO_PROXY_SHA": "tidegate:0.1.0",
        "ISTIO_PROXY_VERSION": "0.1.0",
        "ISTIO_VERSION": "1.0.0",
        "POD_NAME": "productpage-v1-54b8b9f55-bx2dq",
        "istio": "sidecar",
    }
    assert document["admin"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 15000}
    assert document["admin"]["access_log"][0]["typed_config"]["path"] == "/dev/stdout"
    ads = document["dynamic_resources"]["ads_config"]
    assert (ads["api_type"], ads["refresh_delay"]) == ("GRPC", "1s")
    assert ads["grpc_services"][0]["envoy_grpc"]["cluster_name"] == "xds-grpc"

    xds, zipkin = document["static_resources"]["clusters"]
    assert (xds["name"], xds["type"], xds["connect_timeout"]) == ("xds-grpc", "STRICT_DNS", "10s")
    assert address(xds) == {"address": "istio-pilot.istio-system", "port_value": 15010}
    assert [each["priority"] for each in xds["circuit_breakers"]["thresholds"]] == ["DEFAULT", "HIGH"]
    assert {each["max_requests"] for each in xds["circuit_breakers"]["thresholds"]} == {100000}
    assert xds["upstream_connection_options"] == {"tcp_keepalive": {"keepalive_time": 300}}
    assert (zipkin["name"], zipkin["connect_timeout"]) == ("zipkin", "1s")
    assert address(zipkin) == {"address": "zipkin.istio-system", "port_value": 9411}
    assert document["tracing"]["http"]["typed_config"]["collector_cluster"] == "zipkin"
    sink = document["stats_sinks"][0]["typed_config"]["address"]["socket_address"]
    assert sink == {"address": "10.254.238.237", "port_value": 9125}


def address(cluster: dict[str, object]) -> object:
    assignment = json.loads(json.dumps(cluster["load_assignment"]))
    return assignment["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]


def test_sections_nobody_asked_for_are_absent() -> None:
    document = bootstrap(settings("sidecar"), {})
    assert "tracing" not in document
    assert "stats_sinks" not in document
    assert [cluster["name"] for cluster in document["static_resources"]["clusters"]] == ["xds-grpc"]


def test_metadata_from_the_environment_wins_but_for_the_role() -> None:
    environ = {**POD, "ISTIO_META_ISTIO_VERSION": "1.31.0", "ISTIO_META_istio": "x"}
    found = node_metadata(settings("router --availabilityZone z", environ), {"LABELS": {"app": "a", "n": 1}})
    assert found["ISTIO_VERSION"] == "1.31.0"
    assert (found["app"], found["n"], found["istio"]) == ("a", 1, "router")
    with pytest.raises(UsageError):
        node_metadata(settings(), {"LABELS": ["not", "an", "object"]})


def test_the_zone_is_in_the_node() -> None:
    assert bootstrap(settings("sidecar --availabilityZone z1"), {})["node"]["locality"] == {"zone": "z1"}


@pytest.mark.parametrize("line", [SEED, "router --availabilityZone z --discoveryAddress [::1]:15010"])
def test_the_real_envoy_takes_it(line: str, tmp_path: Path) -> None:
    found = settings(line)
    path = tmp_path / "envoy-rev0.json"
    path.write_text(json.dumps(bootstrap(found, node_metadata(found, {}))))
    done = subprocess.run(
        [envoy_binary(), "--mode", "validate", "-c", str(path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stdout
