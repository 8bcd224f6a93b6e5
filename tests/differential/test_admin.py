"""The admin pages beside the real Envoy's: same texts, same documents, same statistic names and counts."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from differential.client import exchange
from differential.pair import Pair
from differential.proxies import Proxy
from differential.scenario import Scenario

DOCUMENT: dict[str, Any] = {
    "cases": [],
    "routes": [
        {
            "name": "all",
            "domains": ["*"],
            "routes": [
                {"match": {"prefix": "/dead"}, "route": {"cluster": "dead"}},
                {"match": {"prefix": "/direct"}, "direct_response": {"status": 204}},
                {"match": {"prefix": "/"}, "route": {"cluster": "a"}},
            ],
        }
    ],
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both proxies after the same ten requests."""
    pair = Pair(Scenario("admin", DOCUMENT, ()), tmp_path_factory.mktemp("admin"))
    try:
        for proxy in pair.proxies:
            for line in ["GET /", "GET /x", "POST /", "GET /dead", "GET /direct", "HEAD /"]:
                request = f"{line} HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n".encode()
                exchange(proxy.port, [request], methods=[line.split()[0]])
            broken = b"BAD\r\n\r\n"
            exchange(proxy.port, [broken], methods=["GET"], linger=0.3)
        time.sleep(0.3)
        yield pair
    finally:
        pair.stack.close()


def both(pair: Pair, path: str, method: str = "GET") -> tuple[tuple[int, str], tuple[int, str]]:
    answers = [proxy.admin(path, method) for proxy in pair.proxies]
    (envoy, subject) = [(status, body.decode()) for status, body in answers]
    return envoy, subject


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/ready", "GET"),
        ("/nothing", "GET"),
        ("/healthcheck/fail", "GET"),
        ("/quitquitquit", "GET"),
        ("/reset_counters", "GET"),
        ("/drain_listeners", "GET"),
        ("/runtime_modify", "GET"),
        ("/runtime_modify", "POST"),
        ("/runtime_modify?a=b&c=d", "POST"),
        ("/runtime?format=json", "GET"),
        ("/runtime", "GET"),
        ("/logging", "POST"),
        ("/logging?level=nonsense", "POST"),
        ("/logging?nonsense=info", "POST"),
        ("/stats?filter=(", "GET"),
        ("/stats?format=nonsense", "GET"),
        ("/config_dump?resource=nonsense", "GET"),
        ("/config_dump?name_regex=(", "GET"),
        ("/certs", "GET"),
        ("/healthcheck/fail", "POST"),
        ("/healthcheck/ok", "POST"),
        ("/reopen_logs", "POST"),
        ("/init_dump", "GET"),
    ],
)
def test_same_text(pair: Pair, path: str, method: str) -> None:
    envoy, subject = both(pair, path, method)
    if path.startswith("/logging"):  # the loggers differ, their page does not
        envoy, subject = ((s, re.sub(r"(?m)^  \S+: \w+\n", "", t)) for s, t in (envoy, subject))
    if path == "/nothing":  # followed by the pages that there are, which test_help_names_what_is_there compares
        envoy, subject = ((s, t.partition("\n")[0]) for s, t in (envoy, subject))
    if path.partition("?")[0] == "/runtime" and method == "GET":  # the order of the keys is anybody's
        assert json.loads(subject[1]) == json.loads(envoy[1])
        return
    assert subject == envoy


def test_help_names_what_is_there(pair: Pair) -> None:
    envoy, subject = both(pair, "/help")
    pages = {line.split(":")[0].split()[0] for line in subject[1].splitlines() if line.startswith("  /")}
    theirs = {line.split(":")[0].split()[0] for line in envoy[1].splitlines() if line.startswith("  /")}
    without = {
        "/cpuprofiler",
        "/heapprofiler",
        "/heap_dump",
        "/peak_heap_dump",
        "/memory/tcmalloc",
        "/stats/recentlookups",
    }
    assert theirs - pages <= without | {f"/stats/recentlookups/{x}" for x in ("clear", "disable", "enable")} | {
        "/allocprofiler"
    }
    for page in pages - {"/quitquitquit", "/drain_listeners", "/"}:
        assert pair.proxies[1].admin(page)[0] in (200, 405), page


def test_home_page(pair: Pair) -> None:
    _, (status, text) = both(pair, "/")
    assert status == 200
    assert "<html" in text
    assert "config_dump" in text
    assert re.search(r"method=.post", text)


def test_listeners(pair: Pair) -> None:
    for path in ("/listeners", "/listeners?format=json"):
        texts = [p.admin(path)[1].decode().replace(str(p.port), "<port>") for p in pair.proxies]
        assert re.sub(r"\s", "", texts[1]) == re.sub(r"\s", "", texts[0])


def _clusters(proxy: Proxy) -> list[str]:
    return sorted(proxy.admin("/clusters")[1].decode().splitlines())


def test_clusters_text(pair: Pair) -> None:
    envoy, subject = (_clusters(p) for p in pair.proxies)
    assert subject == envoy


def test_clusters_json(pair: Pair) -> None:
    def read(proxy: Proxy) -> dict[str, Any]:
        document = json.loads(proxy.admin("/clusters?format=json")[1])
        return {c["name"]: c for c in document["cluster_statuses"]}

    envoy, subject = (read(p) for p in pair.proxies)
    assert subject == envoy


def test_server_info(pair: Pair) -> None:
    envoy, subject = (json.loads(p.admin("/server_info")[1]) for p in pair.proxies)
    assert subject.keys() == envoy.keys()
    assert subject["state"] == envoy["state"] == "LIVE"
    assert subject["node"] == {**envoy["node"], **{k: subject["node"][k] for k in NODE_OWN if k in subject["node"]}}
    options = subject["command_line_options"]
    same = ("base_id", "concurrency", "log_level", "mode", "drain_time", "restart_epoch", "disable_hot_restart")
    assert {k: options.get(k) for k in same} == {k: envoy["command_line_options"].get(k) for k in same}


NODE_OWN = ("user_agent_name", "user_agent_build_version", "extensions", "user_agent_version")


def _dump(proxy: Proxy) -> dict[str, Any]:
    text = proxy.admin("/config_dump")[1].decode()
    text = text.replace(str(proxy.directory), "<dir>").replace(f": {proxy.port}", ": <p>").replace(": <p>", ": 1")
    document = json.loads(text.replace(f": {proxy.admin_port}", ": 2"))
    return {c["@type"].rsplit(".", 1)[-1]: c for c in document["configs"]}


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in ("last_updated", *NODE_OWN)}
    if isinstance(value, list):
        return [_without_times(v) for v in value]
    return value


@pytest.mark.parametrize(
    "section", ["BootstrapConfigDump", "ClustersConfigDump", "ListenersConfigDump", "RoutesConfigDump"]
)
def test_config_dump(pair: Pair, section: str) -> None:
    envoy, subject = (_without_times(_dump(p)[section]) for p in pair.proxies)
    if section == "ClustersConfigDump":
        for dump in (envoy, subject):
            dump["static_clusters"].sort(key=lambda c: c["cluster"]["name"])
    assert subject == envoy


def _stats(proxy: Proxy, query: str) -> dict[str, str]:
    text = proxy.admin(f"/stats?{query}")[1].decode().replace(str(proxy.port), "<port>")
    pairs = (line.partition(": ") for line in text.splitlines())
    return {name: value for name, _, value in pairs if not value.startswith(("P0", "No recorded"))}


TRAFFIC = r"filter=^(cluster\.(a|dead)|http\.ingress|listener\.127)"
#: Counted by Envoy per thread or per connection pool, or moving while we look.
LEFT_OUT = re.compile(
    r"assignment|external\.|internal\.|lb_subsets|circuit_breakers|default\.total_match|_bytes|worker_|client_ssl|"
    r"rq_time|cx_length|tracing|http1\.|http2\.|http3\.|passthrough|overload"
)


def test_counts_after_the_same_traffic(pair: Pair) -> None:
    envoy, subject = (_stats(p, TRAFFIC + "&usedonly") for p in pair.proxies)
    keep = {k: v for k, v in envoy.items() if not LEFT_OUT.search(k)}
    assert {k: subject.get(k) for k in keep} == keep


def test_names_of_the_server(pair: Pair) -> None:
    """What pilot-agent's readiness and dashboards read."""
    _, subject = (_stats(p, "") for p in pair.proxies)
    for name in (
        "cluster_manager.cds.update_success", "listener_manager.lds.update_success", "server.state",
        "listener_manager.workers_started", "server.live", "server.uptime", "cluster_manager.active_clusters",
        "listener_manager.total_listeners_active", "server.memory_allocated", "server.concurrency",
    ):  # fmt: skip
        if "cds" not in name and "lds" not in name:  # those are there once there is a subscription
            assert name in subject, name


def test_prometheus_names_and_labels(pair: Pair) -> None:
    def read(proxy: Proxy) -> set[str]:
        text = proxy.admin("/stats/prometheus?usedonly")[1].decode().replace(str(proxy.port), "<port>")
        lines = (line.rpartition(" ")[0] for line in text.splitlines() if line and not line.startswith("#"))
        return {line for line in lines if not LEFT_OUT.search(line) and "_bucket" not in line}

    envoy, subject = (read(p) for p in pair.proxies)
    wanted = {line for line in envoy if re.match(r"envoy_(cluster_upstream|http_downstream|listener_downstream)", line)}
    assert wanted - subject == set()


def test_json_stats(pair: Pair) -> None:
    for proxy in pair.proxies:
        document = json.loads(proxy.admin("/stats?format=json&filter=cluster.a.upstream_rq_total")[1])
        assert {"name": "cluster.a.upstream_rq_total", "value": 4} in document["stats"]


def test_reset_counters(pair: Pair) -> None:
    for proxy in pair.proxies:
        assert proxy.admin("/reset_counters", "POST") == (200, b"OK\n")
        assert b"cluster.a.upstream_rq_total: 0" in proxy.admin("/stats?filter=cluster.a.upstream_rq_total")[1]
