"""Command lines: Envoy's, pilot-agent's, and the table machinery under both."""

from __future__ import annotations

import pytest

from tidegate.errors import UsageError
from tidegate.flags import format_seconds, parse_seconds
from tidegate.settings import AgentSettings, ProxySettings, agent_settings, iptables_help, proxy_help, proxy_settings

SEED_PROXY = (
    "-c /etc/istio/proxy/envoy-rev0.json --restart-epoch 0 --drain-time-s 45 --parent-shutdown-time-s 60 "
    "--service-cluster productpage --service-node sidecar~192.168.206.23~productpage.default~default.svc.cluster.local "
    "--max-obj-name-len 189 -l warn --v2-config-only"
)
TODAY_PROXY = (
    "-c etc/istio/proxy/envoy-rev.json --drain-time-s 45 --drain-strategy immediate --local-address-ip-version v4 "
    "--file-flush-interval-msec 1000 --disable-hot-restart --allow-unknown-static-fields -l warning "
    "--skip-deprecated-logs --concurrency 1"
)
SEED_AGENT = (
    "sidecar --configPath /etc/istio/proxy --binaryPath /usr/local/bin/envoy --serviceCluster productpage "
    "--drainDuration 45s --parentShutdownDuration 1m0s --discoveryAddress istio-pilot.istio-system:15007 "
    "--discoveryRefreshDelay 1s --zipkinAddress zipkin.istio-system:9411 --connectTimeout 10s "
    "--statsdUdpAddress istio-statsd-prom-bridge.istio-system:9125 --proxyAdminPort 15000 "
    "--controlPlaneAuthPolicy NONE"
)
POD = {"POD_NAME": "productpage-v1", "POD_NAMESPACE": "default", "INSTANCE_IP": "192.168.206.23"}


def proxy(line: str) -> ProxySettings:
    found = proxy_settings(line.split())
    assert isinstance(found, ProxySettings)
    return found


def agent(line: str, environ: dict[str, str] | None = None) -> AgentSettings:
    found = agent_settings(line.split(), POD if environ is None else environ)
    assert isinstance(found, AgentSettings)
    return found


def test_the_seed_s_envoy_command_line() -> None:
    found = proxy(SEED_PROXY)
    assert found.config_path == "/etc/istio/proxy/envoy-rev0.json"
    assert (found.drain_time_s, found.stop_drain_s, found.parent_shutdown_time_s) == (45, 45.0, 60)
    assert found.service_cluster == "productpage"
    assert found.log_level == "warning"


def test_today_s_envoy_command_line() -> None:
    found = proxy(TODAY_PROXY)
    assert (found.drain_strategy, found.concurrency, found.file_flush_interval_msec) == ("immediate", 1, 1000)
    assert found.allow_unknown_static_fields
    assert found.skip_deprecated_logs
    assert found.log_level == "warning"


def test_busy_polling_is_off_unless_asked_for() -> None:
    assert proxy("-c x").busy_poll_us == 0
    assert proxy("-c x --busy-poll-us 60").busy_poll_us == 60


def test_a_proxy_that_was_not_told_stops_within_seconds() -> None:
    assert proxy("-c x").stop_drain_s == 5.0
    assert proxy("-c x").drain_time_s == 600


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("--foo", "--foo"),
        ("-c", "-c"),
        ("-c x -c y", "-c"),
        ("-c x extra", "extra"),
        ("-c x --concurrency many", "--concurrency"),
        ("-c x --mode test", "--mode"),
        ("-c x -l loud", "-l"),
        ("-c x --drain-strategy slow", "--drain-strategy"),
        ("-c x --local-address-ip-version v5", "--local-address-ip-version"),
        ("-c x --restart-epoch 1", "--restart-epoch"),
        ("-c x --stats-tag a:b", "--stats-tag"),
        ("-c x --disable-extensions envoy.filters.http.router", "--disable-extensions"),
        ("", ""),
    ],
)
def test_what_the_proxy_refuses(line: str, where: str) -> None:
    with pytest.raises(UsageError) as caught:
        proxy_settings(line.split())
    assert caught.value.argument == where
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("line", ["--version", "--help", "-h", "--hot-restart-version"])
def test_questions_need_no_configuration(line: str) -> None:
    assert isinstance(proxy_settings([line]), str)


def test_help_tells_what_has_no_effect_and_why() -> None:
    text = proxy_help()
    assert "--max-obj-name-len" in text
    assert "--stats-tag" not in text
    assert all(len(line) <= 101 for line in text.splitlines() + iptables_help().splitlines())


def test_the_seed_s_agent_command_line() -> None:
    found = agent(SEED_AGENT)
    assert found.node_id == "sidecar~192.168.206.23~productpage-v1.default~default.svc.cluster.local"
    assert (found.drain_s, found.parent_shutdown_s, found.connect_timeout_s) == (45.0, 60.0, 10.0)
    # The seed's agent was given Pilot's HTTP port and wrote the gRPC one.
    assert (found.discovery_host, found.discovery_port) == ("istio-pilot.istio-system", 15010)
    assert found.zipkin == ("zipkin.istio-system", 9411)
    assert found.statsd == ("istio-statsd-prom-bridge.istio-system", 9125)
    assert ("POD_NAME", "productpage-v1") in found.metadata


def test_agent_defaults_and_environment() -> None:
    environ = {"ISTIO_META_A": "b", "ISTIO_METAJSON_L": '{"x": 1}', "POD_NAMESPACE": "prod", "POD_NAME": "p"}
    found = agent("router --discoveryAddress 127.0.0.1:17010 --bootstrapv2=false", environ)
    assert (found.role, found.discovery_port, found.ip) == ("router", 17010, "")
    assert found.with_ip("10.0.0.1").node_id == "router~10.0.0.1~p.prod~prod.svc.cluster.local"
    assert found.metadata == (("A", "b"), ("POD_NAME", "p"))
    assert found.metadata_json == (("L", '{"x": 1}'),)
    consul = agent("--serviceregistry Consul", {}).with_ip("10.0.0.2")
    assert consul.node_id == "sidecar~10.0.0.2~10.0.0.2.service.consul~service.consul"


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("ingress", "ingress"),
        ("sidecar router", "router"),
        ("sidecar --discoveryAddress pilot", "--discoveryAddress"),
        ("sidecar --discoveryAddress pilot:0", "--discoveryAddress"),
        ("sidecar --zipkinAddress ::1:9411", "--zipkinAddress"),
        ("sidecar --drainDuration 1500ms", "--drainDuration"),
        ("sidecar --drainDuration soon", "--drainDuration"),
        ("sidecar --controlPlaneAuthPolicy MUTUAL_TLS", "--controlPlaneAuthPolicy"),
        ("sidecar --templateFile x", "--templateFile"),
        ("sidecar --applicationPorts 80,x", "--applicationPorts"),
        ("sidecar --proxyadminport 1", "--proxyadminport"),
    ],
)
def test_what_the_agent_refuses(line: str, where: str) -> None:
    with pytest.raises(UsageError) as caught:
        agent_settings(line.split(), POD)
    assert caught.value.argument == where


def test_durations() -> None:
    assert [parse_seconds(text) for text in ("45s", "1m0s", "1h1m1s", "1.5s", "250ms", "7", "0")] == [
        *(45, 60, 3661, 1.5, 0.25, 7, 0)
    ]
    for text in ("", "s", "1x", "1s2", "-1s", "nan", "inf"):
        with pytest.raises(ValueError):
            parse_seconds(text)
    assert [format_seconds(seconds) for seconds in (45, 60, 0.25, 90.5)] == ["45s", "1m0s", "250ms", "1m30.5s"]
