"""The cases as data, and the configurations made of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tidegate.bench import scenarios
from tidegate.bench.peers import envoy, haproxy, nginx
from tidegate.bench.peers.site import Site
from tidegate.bench.scenarios import CASES, METRICS, Case


def case(name: str) -> Case:
    return scenarios.select([name])[0]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(listen=1001, upstream=1002, admin=1003, directory=tmp_path)


def test_names_are_unique_and_metrics_known() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    for one in CASES:
        assert set(one.columns) | set(one.guards) <= set(METRICS), one.name
        assert "tidegate" in one.peers


def test_globs_aliases_and_order() -> None:
    assert [c.name for c in scenarios.select(["tcp-connect", "h1-get100"])] == ["h1-get100", "tcp-connect"]
    assert len(scenarios.select(["vhosts-*"])) == 6
    assert len(scenarios.select(["routes"])) == 12
    assert scenarios.select(["all"]) == list(CASES)
    with pytest.raises(KeyError, match="nonsense"):
        scenarios.select(["h1-*", "nonsense"])


def test_a_table_has_as_many_entries_as_its_name_says(site: Site) -> None:
    document = envoy.static_bootstrap(case("vhosts-1000-wildcard"), site, Path("/log"))
    hosts = envoy.routes(case("vhosts-1000-wildcard").table)["virtual_hosts"]
    assert len(hosts) == 1000
    assert hosts[-1]["domains"] == ["*.svc-999.bench.example"]
    assert len(document["static_resources"]["clusters"]) == 1
    assert len(envoy.routes(case("routes-1000-regex-last").table)["virtual_hosts"][0]["routes"]) == 1000
    big = envoy.static_bootstrap(case("config-10000"), site, Path("/log"))
    assert len(big["static_resources"]["clusters"]) == 10_001


def test_peers_route_by_the_same_table(site: Site) -> None:
    wildcard, regex = case("vhosts-1000-wildcard"), case("routes-1000-regex-average")
    table = haproxy.launch("haproxy", wildcard, site).files[site.directory / "table.map"]
    assert table.splitlines()[7] == "svc-7.bench.example up"
    assert len(table.splitlines()) == 1000
    text = nginx.launch("nginx", wildcard, site).files[site.directory / "nginx.conf"]
    assert text.count("server_name *.svc-") == 1000
    assert nginx.launch("nginx", regex, site).files[site.directory / "nginx.conf"].count("location ~ ^/svc-") == 1000
    assert "map_reg" in haproxy.launch("haproxy", regex, site).files[site.directory / "haproxy.cfg"]


@pytest.mark.parametrize(("name", "client", "upstream"), [("h2-get", 1, 1), ("h2-h1", 1, 0), ("h1-h2", 0, 1)])
def test_the_sides_that_speak_http2(site: Site, name: str, client: int, upstream: int) -> None:
    text = haproxy.launch("haproxy", case(name), site).files[site.directory / "haproxy.cfg"]
    assert text.count("bind 127.0.0.1:1001 proto h2\n") == client
    assert text.count("server s 127.0.0.1:1002 proto h2\n") == upstream
    text = nginx.launch("nginx", case(name), site).files[site.directory / "nginx.conf"]
    assert text.count("listen 127.0.0.1:1001 http2;") == client
    assert text.count("grpc_pass grpc://up;") == upstream
    clusters = envoy.static_bootstrap(case(name), site, Path("/log"))["static_resources"]["clusters"]
    assert ("typed_extension_protocol_options" in clusters[0]) == bool(upstream)


@pytest.mark.parametrize(("name", "tls"), [("tls-handshake", True), ("tls-get64k", True), ("h1-get100", False)])
def test_every_proxy_ends_tls_with_the_same_certificate(site: Site, name: str, tls: bool) -> None:
    site = dataclasses.replace(site, certificate=Path("/c"))
    text = haproxy.launch("haproxy", case(name), site).files[site.directory / "haproxy.cfg"]
    assert (" ssl crt /c/both.pem ssl-min-ver TLSv1.3 ssl-max-ver TLSv1.3 alpn http/1.1\n" in text) == tls
    text = nginx.launch("nginx", case(name), site).files[site.directory / "nginx.conf"]
    assert ("listen 127.0.0.1:1001 ssl;" in text) == tls
    assert ("ssl_certificate /c/cert.pem;\n  ssl_certificate_key /c/key.pem;\n  ssl_protocols TLSv1.3;" in text) == tls
    static = envoy.static_bootstrap(case(name), site, Path("/log"))["static_resources"]
    chain = static["listeners"][0]["filter_chains"][0]
    assert ("transport_socket" in chain) == tls
    assert "transport_socket" not in static["clusters"][0]
    if tls:
        context = chain["transport_socket"]["typed_config"]["common_tls_context"]
        assert context["tls_certificates"] == [
            {"certificate_chain": {"filename": "/c/cert.pem"}, "private_key": {"filename": "/c/key.pem"}}
        ]
        assert set(context["tls_params"].values()) == {"TLSv1_3"}


def test_tls_cases_have_proxies_only_and_ask_for_tls() -> None:
    cases = scenarios.select(["tls"])
    assert [c.name for c in cases] == ["tls-handshake", "tls-get100", "tls-get64k"]
    assert all(c.tls and "direct" not in c.peers and "--tls" in c.load for c in cases)
    assert [c for c in CASES if c.tls != ("--tls" in c.load)] == []


def test_bulk_is_spliced_by_haproxy(site: Site) -> None:
    assert (
        "splice-request" in haproxy.launch("haproxy", case("tcp-bulk-up"), site).files[site.directory / "haproxy.cfg"]
    )
    plain = haproxy.launch("haproxy", case("tcp-pingpong64"), site).files[site.directory / "haproxy.cfg"]
    assert "splice" not in plain
