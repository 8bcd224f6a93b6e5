"""Istio's own filters between two of our sidecars: what they tell each other, and the standard metrics of both.

Stock Envoy has none of these filters, so they are held against what Istio's proxy is documented (and written) to do.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from differential.backend import free_port
from differential.pki import Pki
from differential.proxies import Proxy, running

PEER_METADATA = "type.googleapis.com/io.istio.http.peer_metadata.Config"
MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


class Echo(BaseHTTPRequestHandler):
    """Tells what it was asked, and sends the peer's headers back as its own."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def backend() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


def typed_struct(url: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": url, "value": value}


def node(app: str) -> dict[str, Any]:
    return {
        "id": f"sidecar~127.0.0.1~{app}-v1-0.bookinfo~bookinfo.svc.cluster.local",
        "cluster": f"{app}.bookinfo",
        "metadata": {
            "NAME": f"{app}-v1-0",
            "NAMESPACE": "bookinfo",
            "OWNER": f"kubernetes://apis/apps/v1/namespaces/bookinfo/deployments/{app}-v1",
            "WORKLOAD_NAME": f"{app}-v1",
            "CLUSTER_ID": "Kubernetes",
            "ISTIO_VERSION": "1.31.0",
            "LABELS": {
                "app": app,
                "version": "v1",
                "service.istio.io/canonical-name": app,
                "service.istio.io/canonical-revision": "v1",
                "role": "test",
            },
        },
    }


def endpoint(port: int, **metadata: Any) -> dict[str, Any]:
    return {
        "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}},
        "metadata": {"filter_metadata": metadata},
    }


def cluster(name: str, port: int, metadata: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [endpoint(port, istio={"workload": "details-v2;far;details;v2;Other"})]}],
        },
        "metadata": {"filter_metadata": {"istio": metadata or {}}},
        **more,
    }


def bootstrap(app: str, listener: dict[str, Any], clusters: list[dict[str, Any]], admin: int) -> str:
    document = {
        "node": node(app),
        "stats_flush_interval": "0.1s",
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }
    return json.dumps(document)


def http_listener(port: int, direction: str, filters: list[dict[str, Any]], to: str) -> dict[str, Any]:
    router = {
        "name": "router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }
    routes = {
        "name": "routes",
        "virtual_hosts": [
            {
                "name": "all",
                "domains": ["*"],
                "routes": [
                    {"match": {"path": "/direct"}, "direct_response": {"status": 418}},
                    {"match": {"prefix": "/"}, "route": {"cluster": to}},
                ],
            }
        ],
    }
    manager = {
        "@type": MANAGER,
        "stat_prefix": direction.lower(),
        "route_config": routes,
        "http_filters": [*filters, router],
    }
    return {
        "name": direction.lower(),
        "traffic_direction": direction,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
    }


def metadata_filter(direction: str, **more: Any) -> dict[str, Any]:
    headers: list[dict[str, Any]] = [{"istio_headers": {}}]
    methods = (
        {"downstream_discovery": headers, "downstream_propagation": headers}
        if direction == "INBOUND"
        else {"upstream_discovery": headers, "upstream_propagation": headers}
    )
    return {"name": "istio.metadata_exchange", "typed_config": typed_struct(PEER_METADATA, {**methods, **more})}


def stats_filter(**config: Any) -> dict[str, Any]:
    return {"name": "istio.stats", "typed_config": {"@type": "type.googleapis.com/stats.PluginConfig", **config}}


def get(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": "details:9080", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def metrics(proxy: Proxy, name: str, at_least: int = 0) -> list[tuple[dict[str, str], float]]:
    """The series of a metric in the Prometheus text. A request is counted when its answer has left: see `at_least`."""
    for _ in range(50):
        found = scrape(proxy, name)
        if sum(value for _, value in found) >= at_least:
            break
        time.sleep(0.02)
    return found


def scrape(proxy: Proxy, name: str) -> list[tuple[dict[str, str], float]]:
    _, text = proxy.admin("/stats/prometheus")
    found = []
    for line in text.decode().splitlines():
        family, brace, rest = line.partition("{")
        if family != name or not brace:
            continue
        labels, _, value = rest.rpartition("} ")
        parts = [part.partition("=") for part in labels.split('",')]
        found.append(({key: text.strip('"') for key, _, text in parts}, float(value)))
    return found


def merged(proxy: Proxy, name: str, at_least: int) -> list[float]:
    """The values of a series, once the flush has put together what the workers have of so many."""
    for _ in range(50):
        values = sorted(value for _, value in scrape(proxy, name))
        if sum(values) >= at_least:
            break
        time.sleep(0.05)
    return values


SERVICE = {"services": [{"host": "details.bookinfo.svc.cluster.local", "name": "details", "namespace": "bookinfo"}]}


@contextlib.contextmanager
def two_sidecars(
    directory: Path, client_stats: dict[str, Any], server_stats: dict[str, Any]
) -> Iterator[tuple[Proxy, Proxy]]:
    outbound, inbound, admin_a, admin_b = (free_port() for _ in range(4))
    with backend() as port, contextlib.ExitStack() as stack:
        server = bootstrap(
            "details",
            http_listener(
                inbound, "INBOUND", [metadata_filter("INBOUND"), stats_filter(**server_stats)], "inbound|9080||"
            ),
            [cluster("inbound|9080||", port, SERVICE)],
            admin_b,
        )
        client = bootstrap(
            "productpage",
            http_listener(
                outbound,
                "OUTBOUND",
                [metadata_filter("OUTBOUND"), stats_filter(**client_stats)],
                "outbound|9080||details",
            ),
            [cluster("outbound|9080||details", inbound, SERVICE)],
            admin_a,
        )
        (directory / "a").mkdir()
        (directory / "b").mkdir()
        log = directory / "log"
        b = stack.enter_context(
            running("tidegate", server, admin_port=admin_b, port=inbound, directory=directory / "b", log=log)
        )
        a = stack.enter_context(
            running("tidegate", client, admin_port=admin_a, port=outbound, directory=directory / "a", log=log)
        )
        yield a, b


CLIENT_LABELS = {
    "reporter": "source",
    "source_workload": "productpage-v1",
    "source_canonical_service": "productpage",
    "source_canonical_revision": "v1",
    "source_workload_namespace": "bookinfo",
    "source_principal": "unknown",
    "source_app": "productpage",
    "source_version": "v1",
    "source_cluster": "Kubernetes",
    "destination_workload": "details-v1",
    "destination_workload_namespace": "bookinfo",
    "destination_principal": "unknown",
    "destination_app": "details",
    "destination_version": "v1",
    "destination_service": "details.bookinfo.svc.cluster.local",
    "destination_canonical_service": "details",
    "destination_canonical_revision": "v1",
    "destination_service_name": "details",
    "destination_service_namespace": "bookinfo",
    "destination_cluster": "Kubernetes",
    "request_protocol": "http",
    "response_code": "200",
    "grpc_response_status": "",
    "response_flags": "-",
    "connection_security_policy": "unknown",
}


def test_both_sides_know_each_other(tmp_path: Path) -> None:
    with two_sidecars(tmp_path, {}, {}) as (client, server):
        for _ in range(3):
            status, headers, body = get(client.port, "/")
            assert status == 200
            # Nothing of it reaches the applications.
            assert not [name for name in headers if name.startswith("x-envoy-peer")]
            assert not [name for name in json.loads(body) if name.startswith("x-envoy-peer")]
        assert get(client.port, "/missing")[0] == 404
        totals = {
            labels["response_code"]: (labels, value) for labels, value in metrics(client, "istio_requests_total", 4)
        }
        assert totals["200"] == (CLIENT_LABELS, 3.0)
        assert list(totals["200"][0]) == list(CLIENT_LABELS)
        assert totals["404"][1] == 1.0
        of_server = {
            labels["response_code"]: (labels, value) for labels, value in metrics(server, "istio_requests_total", 4)
        }
        assert of_server["200"] == (
            {**CLIENT_LABELS, "reporter": "destination", "connection_security_policy": "none"},
            3.0,
        )
        for name in ("istio_request_bytes", "istio_response_bytes", "istio_request_duration_milliseconds"):
            assert merged(server, f"{name}_count", 4) == [1.0, 3.0], name
        assert metrics(client, "istio_build") == [({"component": "proxy", "tag": "1.31.0"}, 1.0)]
        # In the text form the labels are part of the name.
        _, text = client.admin("/stats?filter=istiocustom.istio_requests_total.*response_code.404")
        assert text.decode().startswith(
            "istiocustom.istio_requests_total.reporter.source.source_workload.productpage-v1."
        )


def test_a_stranger_is_told_nothing(tmp_path: Path) -> None:
    with two_sidecars(tmp_path, {}, {}) as (_, server):
        status, headers, _ = get(server.port, "/")
        assert status == 200
        assert not [name for name in headers if name.startswith("x-envoy-peer")]
        ((labels, _),) = metrics(server, "istio_requests_total", 1)
        assert (labels["source_workload"], labels["source_canonical_revision"]) == ("unknown", "latest")


def test_the_endpoint_stands_in_for_a_silent_server(tmp_path: Path) -> None:
    """Its metadata says who it is; the request's host is the service where the cluster tells none."""
    outbound, admin = free_port(), free_port()
    with backend() as port:
        document = bootstrap(
            "productpage",
            http_listener(outbound, "OUTBOUND", [metadata_filter("OUTBOUND"), stats_filter()], "c"),
            [cluster("c", port)],
            admin,
        )
        with running(
            "tidegate", document, admin_port=admin, port=outbound, directory=tmp_path, log=tmp_path / "log"
        ) as proxy:
            _, _, body = get(proxy.port, "/")
            sent = json.loads(body)
            assert sent["x-envoy-peer-metadata-id"] == node("productpage")["id"]
            assert sent["x-envoy-peer-metadata"].startswith("Ch")
            get(proxy.port, "/direct")
            by_code = {labels["response_code"]: labels for labels, _ in metrics(proxy, "istio_requests_total", 2)}
            assert by_code["200"]["destination_workload"] == "details-v2"
            assert by_code["200"]["destination_workload_namespace"] == "far"
            assert by_code["200"]["destination_service"] == "details:9080"
            assert by_code["418"]["destination_workload"] == "unknown"


@pytest.mark.parametrize("names", ["today", "1.0"])
def test_overrides(tmp_path: Path, names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "disable_host_header_fallback": True,
        "metrics": [
            {"name": "requests_total", "dimensions": {"user": "request.headers['x-user']", "source_app": "'fixed'"}},
            {"name": "request_bytes", "drop": True},
            {"tags_to_remove": ["response_flags"]},
        ],
        "definitions": [{"name": "sizes", "value": "response.size", "type": "HISTOGRAM"}],
    }
    if names == "1.0":
        described = node

        def old(app: str) -> dict[str, Any]:
            found = described(app)
            found["metadata"]["TIDEGATE_ISTIO_METRICS"] = "1.0"
            return found

        monkeypatch.setattr("istio.test_filters.node", old)
    with two_sidecars(tmp_path, config, {}) as (client, _):
        get(client.port, "/", {"x-user": "alice"})
        get(client.port, "/")
        totals = {labels["user"]: labels for labels, _ in metrics(client, "istio_requests_total", 2)}
        assert set(totals) == {"alice", "unknown"}
        assert totals["alice"]["source_app"] == "fixed"
        assert "response_flags" not in totals["alice"]
        assert metrics(client, "istio_request_bytes_count") == []
        assert merged(client, "istio_sizes_count", 2) == [2.0]
        seconds = metrics(client, "istio_request_duration_seconds_bucket")
        millis = metrics(client, "istio_request_duration_milliseconds_bucket")
        assert bool(seconds) == (names == "1.0")
        assert bool(millis) == (names == "today")
        if seconds:
            assert seconds[0][0]["le"] == "0.0005"


class TcpEcho(threading.Thread):
    """Echoes; with `first` it speaks before it is spoken to."""

    def __init__(self, first: bytes = b"") -> None:
        super().__init__(daemon=True)
        self.first = first
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.socket.getsockname()[1])

    def run(self) -> None:
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            with peer, contextlib.suppress(OSError):
                peer.sendall(self.first)
                while data := peer.recv(65536):
                    peer.sendall(data)


def read(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        data = connection.recv(65536)
        assert data, f"the end after {len(received)} of {count} bytes"
        received += data
    return received


def tcp_listener(port: int, direction: str, filters: list[dict[str, Any]], to: str) -> dict[str, Any]:
    proxy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": direction.lower(),
        "cluster": to,
    }
    return {
        "name": direction.lower(),
        "traffic_direction": direction,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [*filters, {"name": "tcp", "typed_config": proxy}]}],
    }


def exchange(protocol: str) -> dict[str, Any]:
    url = "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange"
    value = {"protocol": protocol, "enable_discovery": True}
    return {"name": "istio.metadata_exchange", "typed_config": typed_struct(url, value)}


@contextlib.contextmanager
def two_tcp_sidecars(directory: Path, protocol: str, first: bytes = b"") -> Iterator[tuple[Proxy, Proxy]]:
    outbound, inbound, admin_a, admin_b = (free_port() for _ in range(4))
    application = TcpEcho(first)
    application.start()
    stats = stats_filter(tcp_reporting_duration="0.1s")
    server = bootstrap(
        "details",
        tcp_listener(inbound, "INBOUND", [exchange(protocol), stats], "inbound|9080||"),
        [cluster("inbound|9080||", application.port, SERVICE)],
        admin_b,
    )
    client = bootstrap(
        "productpage",
        tcp_listener(outbound, "OUTBOUND", [stats], "outbound|9080||details"),
        [cluster("outbound|9080||details", inbound, SERVICE, filters=[exchange(protocol)])],
        admin_a,
    )
    (directory / "a").mkdir()
    (directory / "b").mkdir()
    log = directory / "log"
    with (
        running("tidegate", server, admin_port=admin_b, port=inbound, directory=directory / "b", log=log) as b,
        running("tidegate", client, admin_port=admin_a, port=outbound, directory=directory / "a", log=log) as a,
    ):
        yield a, b
    application.socket.close()


TCP_LABELS = {
    name: value
    for name, value in {**CLIENT_LABELS, "request_protocol": "tcp"}.items()
    if name not in ("response_code", "grpc_response_status")
}


# Without TLS no protocol is agreed on, which is what the empty name stands for.
@pytest.mark.parametrize("first", [b"", b"welcome\n"], ids=["client first", "server first"])
def test_tcp_metadata_exchange(tmp_path: Path, first: bytes) -> None:
    with two_tcp_sidecars(tmp_path, "", first) as (client, server):
        payload = b"x" * 300_000
        with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
            received = read(connection, len(first))
            assert received == first
            threading.Thread(target=connection.sendall, args=(payload,), daemon=True).start()
            assert read(connection, len(payload)) == payload
            # Reported while it goes on.
            assert merged(client, "istio_tcp_sent_bytes_total", len(payload) + len(first)) == [
                float(len(payload) + len(first))
            ]
            assert metrics(client, "istio_tcp_connections_closed_total") in ([], [(TCP_LABELS, 0.0)])
        for proxy, labels in (
            (client, TCP_LABELS),
            (server, {**TCP_LABELS, "reporter": "destination", "connection_security_policy": "none"}),
        ):
            assert merged(proxy, "istio_tcp_connections_closed_total", 1) == [1.0]
            assert metrics(proxy, "istio_tcp_connections_opened_total") == [(labels, 1.0)]
        _, text = server.admin("/stats?filter=metadata_exchange")
        assert "metadata_exchange.alpn_protocol_found: 1" in text.decode()
        assert "metadata_exchange.metadata_added: 1" in text.decode()


def test_tcp_without_the_protocol(tmp_path: Path) -> None:
    with two_tcp_sidecars(tmp_path, "istio-peer-exchange") as (client, server):
        with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
            connection.sendall(b"hello")
            assert connection.recv(10) == b"hello"
        # What the endpoint's metadata says stands in.
        assert merged(client, "istio_tcp_connections_closed_total", 1) == [1.0]
        ((labels, _),) = metrics(client, "istio_tcp_connections_opened_total")
        assert labels["destination_workload"] == "details-v2"
        assert merged(server, "istio_tcp_connections_closed_total", 1) == [1.0]
        ((labels, _),) = metrics(server, "istio_tcp_connections_opened_total")
        assert labels["source_workload"] == "unknown"
        _, text = server.admin("/stats?filter=metadata_exchange")
        assert "metadata_exchange.alpn_protocol_not_found: 1" in text.decode()


def test_a_stranger_on_tcp(tmp_path: Path) -> None:
    """No magic number: it is traffic."""
    with two_tcp_sidecars(tmp_path, "") as (_, server):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(b"hello, world")
            received = b""
            while not received.endswith(b"hello, world"):
                received += connection.recv(65536)
            assert received.startswith(b"\x3d\x23\x04\x67")
        _, text = server.admin("/stats?filter=metadata_exchange")
        assert "metadata_exchange.initial_header_not_found: 1" in text.decode()


def spiffe(account: str) -> str:
    return f"spiffe://cluster.local/ns/default/sa/{account}"


def tls(pki: Pki, account: str, *, server: bool, protocols: list[str]) -> dict[str, Any]:
    """A transport socket as istiod configures it, with files in place of SDS."""
    side = "Downstream" if server else "Upstream"
    context: dict[str, Any] = {
        "@type": f"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{side}TlsContext",
        "common_tls_context": {
            "alpn_protocols": protocols,
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": pki.path(f"{account}.pem")},
                    "private_key": {"filename": pki.path(f"{account}.key")},
                }
            ],
            "validation_context": {"trusted_ca": {"filename": pki.path("ca.pem")}},
        },
    }
    if server:
        context["require_client_certificate"] = True
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


@pytest.mark.parametrize("first", [b"", b"welcome\n"], ids=["client first", "server first"])
def test_over_mutual_tls(tmp_path: Path, first: bytes) -> None:
    """ALPN agrees on the exchange, and certificates say who is who."""
    outbound, inbound, admin_a, admin_b = (free_port() for _ in range(4))
    application = TcpEcho(first)
    application.start()
    pki = Pki(tmp_path)
    protocols = ["istio-peer-exchange", "istio"]
    stats = stats_filter(tcp_reporting_duration="0.1s")
    listener = tcp_listener(inbound, "INBOUND", [exchange("istio-peer-exchange"), stats], "inbound|9080||")
    chain = listener["filter_chains"][0]
    chain["transport_socket"] = tls(pki, "server", server=True, protocols=protocols)
    server = bootstrap("details", listener, [cluster("inbound|9080||", application.port, SERVICE)], admin_b)
    upstream = cluster(
        "outbound|9080||details",
        inbound,
        SERVICE,
        filters=[exchange("istio-peer-exchange")],
        transport_socket=tls(pki, "client", server=False, protocols=protocols),
    )
    client = bootstrap(
        "productpage", tcp_listener(outbound, "OUTBOUND", [stats], "outbound|9080||details"), [upstream], admin_a
    )
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    log = tmp_path / "log"
    with (
        running("tidegate", server, admin_port=admin_b, port=inbound, directory=tmp_path / "b", log=log) as b,
        running("tidegate", client, admin_port=admin_a, port=outbound, directory=tmp_path / "a", log=log) as a,
    ):
        with socket.create_connection(("127.0.0.1", a.port), timeout=10) as connection:
            received = read(connection, len(first))
            payload = b"y" * 100_000
            threading.Thread(target=connection.sendall, args=(payload,), daemon=True).start()
            assert received[len(first) :] + read(connection, len(payload)) == payload
        labels = {
            **TCP_LABELS,
            "source_principal": spiffe("client"),
            "destination_principal": spiffe("server"),
        }
        assert merged(a, "istio_tcp_connections_closed_total", 1) == [1.0]
        # The namespace in the certificate counts.
        of_client = {**labels, "destination_workload_namespace": "default"}
        assert metrics(a, "istio_tcp_connections_opened_total") == [(of_client, 1.0)]
        assert merged(b, "istio_tcp_connections_closed_total", 1) == [1.0]
        of_server = {
            **labels,
            "reporter": "destination",
            "source_workload_namespace": "default",
            "connection_security_policy": "mutual_tls",
        }
        assert metrics(b, "istio_tcp_connections_opened_total") == [(of_server, 1.0)]
        for proxy in (a, b):
            _, text = proxy.admin("/stats?filter=metadata_exchange")
            assert "metadata_exchange.alpn_protocol_found: 1" in text.decode()
    application.socket.close()
