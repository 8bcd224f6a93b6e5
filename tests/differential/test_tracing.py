"""Spans and trace headers beside the real Envoy's: the same requests, the same JSON at the collector."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from differential.backend import free_port
from differential.client import exchange
from differential.proxies import Proxy, running

_TYPE = "type.googleapis.com/envoy"
_TRACE = "0123456789abcdef0123456789abcdef"

#: Name -> target, then headers.
REQUESTS: dict[str, tuple[str, dict[str, str]]] = {
    "plain": ("GET /plain?q=1", {"user-agent": "ua"}),
    "decorated": ("GET /deco", {"x-user": "me", "x-envoy-downstream-service-cluster": "dsc"}),
    "decorated, not told": ("GET /noprop", {}),
    "direct response": ("GET /direct", {}),
    "connection refused": ("GET /dead", {}),
    "server error": ("GET /x", {"x-status": "500"}),
    "client error": ("GET /x", {"x-status": "404"}),
    "no route": ("GET /x", {"host": "elsewhere"}),
    "b3": (
        "GET /x",
        {"x-b3-traceid": _TRACE, "x-b3-spanid": "1" * 16, "x-b3-parentspanid": "2" * 16, "x-b3-sampled": "1"},
    ),
    "b3 of 64 bits": ("GET /x", {"x-b3-traceid": _TRACE[:16], "x-b3-spanid": "1" * 16}),
    "b3 not sampled": ("GET /x", {"x-b3-traceid": _TRACE, "x-b3-spanid": "1" * 16, "x-b3-sampled": "0"}),
    "b3 debug": ("GET /x", {"x-b3-traceid": _TRACE, "x-b3-spanid": "1" * 16, "x-b3-flags": "1"}),
    "b3 sampled only": ("GET /x", {"x-b3-sampled": "0"}),
    "b3 in one header": ("GET /x", {"b3": f"{_TRACE}-{'1' * 16}-1-{'2' * 16}"}),
    "b3 in one header, denied": ("GET /x", {"b3": "0"}),
    "an id": ("GET /x", {"x-request-id": "12345678-1234-4234-8234-123456789012"}),
    "an id that is traced": ("GET /x", {"x-request-id": "12345678-1234-9234-8234-123456789012"}),
    "an id that is no UUID": ("GET /x", {"x-request-id": "notauuid"}),
    "client trace id": ("GET /x", {"x-client-trace-id": "abc"}),
    "forced": ("GET /x", {"x-envoy-force-trace": "1"}),
    "forced from inside": ("GET /x", {"x-envoy-force-trace": "1", "x-forwarded-for": "10.0.0.1"}),
    "operation of the other side": ("GET /x", {"x-envoy-decorator-operation": "other-op"}),
    "operation of both sides": ("GET /deco", {"x-envoy-decorator-operation": "other-op"}),
    "operation in the answer": ("GET /x", {"x-answer-operation": "theirs"}),
    "traceparent": ("GET /x", {"traceparent": f"00-{_TRACE}-{'1' * 16}-01", "tracestate": "a=b"}),
    "body": ("POST /x", {"content-length": "5"}),
    "gRPC": ("GET /x", {"content-type": "application/grpc", "te": "trailers"}),
    "long path": ("GET /" + "a" * 400, {}),
    "never": ("GET /never", {}),
}


class _Handler(BaseHTTPRequestHandler):
    """Collector and upstream in one."""

    protocol_version = "HTTP/1.1"
    spans: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        if "chunked" in self.headers.get("transfer-encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path == "/api/v2/spans":
            assert self.headers["content-type"] == "application/json"
            self.spans.extend(json.loads(body) if body else [])
            self.send_response(202)
            self.send_header("content-length", "0")
            self.end_headers()
        else:
            self.do_GET()

    def do_GET(self) -> None:
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(int(self.headers.get("x-status", "200")))
        if operation := self.headers.get("x-answer-operation"):
            self.send_header("x-envoy-decorator-operation", operation)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _bootstrap(port: int, admin: int, collector: int, direction: str) -> dict[str, Any]:
    def cluster(name: str, at: int) -> dict[str, Any]:
        address = {"socket_address": {"address": "127.0.0.1", "port_value": at}}
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
        return {
            "name": name, "type": "STATIC", "connect_timeout": "1s", "alt_stat_name": f"{name};",
            "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        }  # fmt: skip

    zipkin = {
        "@type": f"{_TYPE}.config.trace.v3.ZipkinConfig", "collector_cluster": "collector",
        "collector_endpoint": "/api/v2/spans", "collector_endpoint_version": "HTTP_JSON",
        "shared_span_context": False, "trace_id_128bit": True,
    }  # fmt: skip
    tags = [
        {"tag": "literal", "literal": {"value": "v"}},
        {"tag": "user", "request_header": {"name": "x-user", "default_value": "anon"}},
        {"tag": "environment", "environment": {"name": "TIDEGATE_NO_SUCH", "default_value": "d"}},
        {"tag": "nothing", "request_header": {"name": "x-none"}},
    ]
    never = {"random_sampling": {"numerator": 0}, "overall_sampling": {"numerator": 100}}
    routes = [
        {"match": {"prefix": "/deco"}, "route": {"cluster": "a"}, "decorator": {"operation": "my-op"}},
        {
            "match": {"prefix": "/noprop"},
            "route": {"cluster": "a"},
            "decorator": {"operation": "op2", "propagate": False},
        },
        {"match": {"prefix": "/never"}, "route": {"cluster": "a"}, "tracing": never},
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 418}},
        {"match": {"prefix": "/dead"}, "route": {"cluster": "dead"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "a"}},
    ]
    hcm = {
        "@type": f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "t",
        "tracing": {
            "client_sampling": {"value": 100}, "random_sampling": {"value": 100}, "overall_sampling": {"value": 100},
            "custom_tags": tags, "provider": {"name": "envoy.tracers.zipkin", "typed_config": zipkin},
        },
        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["h"], "routes": routes}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{_TYPE}.extensions.filters.http.router.v3.Router"}}
        ],
    }  # fmt: skip
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": hcm}]
    return {
        "node": {"id": "node-1", "cluster": "cluster-1", "locality": {"zone": "z1"}},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "layered_runtime": {"layers": [{"name": "s", "static_layer": {"tracing.zipkin.min_flush_spans": 1}}]},
        "static_resources": {
            "listeners": [{
                "name": "l", "traffic_direction": direction, "address": address,
                "filter_chains": [{"filters": filters}],
            }],
            "clusters": [cluster("a", collector), cluster("collector", collector), cluster("dead", 1)],
        },
    }  # fmt: skip


def _id(text: str) -> str:
    """What was given stays; what was made up becomes its length."""
    given = text.startswith(_TRACE[:16]) or text in ("1" * 16, "2" * 16)
    return text if given else f"<{len(text)} digits>"


def _reason(text: str) -> str:
    """Of a made-up request id, the digit that says why it is traced."""
    return re.sub(r"^[0-9a-f]{8}-[0-9a-f]{4}-(.)[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$", r"<uuid \1>", text)


def _span(span: dict[str, Any]) -> dict[str, Any]:
    for name in ("traceId", "id", "parentId"):
        if name in span:
            span[name] = _id(span[name])
    assert 0 <= span["duration"] < 5_000_000
    assert abs(span["timestamp"] / 1e6 - time.time()) < 60
    for annotation in span["annotations"]:
        late = annotation.pop("timestamp") - span["timestamp"]
        assert 0 <= late < 5_000_000
    span["duration"], span["timestamp"] = "<us>", "<us>"
    tags = span["tags"]
    tags["guid:x-request-id"] = _reason(tags["guid:x-request-id"])
    if int(tags["response_size"]) > 100:
        # The upstream's answer repeats ids and the address.
        tags["response_size"] = "<n>"
    return span


def _ask(proxy: Proxy, name: str) -> dict[str, Any]:
    line, headers = REQUESTS[name]
    fields = "".join(f"{key}: {value}\r\n" for key, value in ({"host": "h"} | headers).items())
    body = b"hello" if line.startswith("POST") else b""
    _Handler.spans.clear()
    [answer] = exchange(
        proxy.port, [f"{line} HTTP/1.1\r\n{fields}\r\n".encode() + body], methods=[line.split()[0]]
    ).responses
    deadline = time.monotonic() + 0.25
    while not _Handler.spans and time.monotonic() < deadline:
        time.sleep(0.005)
    seen: dict[str, str] = json.loads(answer.body) if answer.body.startswith(b"{") else {}
    for key in ("x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid"):
        if key in seen:
            seen[key] = _id(seen[key])
    if "x-request-id" in seen:
        seen["x-request-id"] = _reason(seen["x-request-id"])
    if "b3" in seen:
        seen["b3"] = "-".join(_id(part) for part in seen["b3"].split("-"))
    told = [value for key, value in answer.headers if key == "x-envoy-decorator-operation"]
    return {"status": answer.status, "told": told, "upstream saw": seen, "spans": [_span(s) for s in _Handler.spans]}


@pytest.fixture(scope="module", params=["OUTBOUND", "INBOUND"])
def proxies(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Proxy]]:
    """Envoy and tidegate, one collector."""
    directory: Path = tmp_path_factory.mktemp("tracing")
    collector = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    ports = [free_port() for _ in range(4)]

    def start(kind: str, port: int, admin: int) -> Any:
        text = json.dumps(_bootstrap(port, admin, collector.server_port, request.param))
        return running(kind, text, admin_port=admin, port=port, directory=directory, log=directory / "log")

    try:
        with start("envoy", ports[0], ports[1]) as envoy, start("tidegate", ports[2], ports[3]) as subject:
            yield [envoy, subject]
    finally:
        collector.shutdown()
        collector.server_close()


@pytest.mark.parametrize("name", REQUESTS)
def test_same_span(proxies: list[Proxy], name: str) -> None:
    envoy, subject = (_ask(proxy, name) for proxy in proxies)
    assert subject == envoy


def test_same_counts(proxies: list[Proxy]) -> None:
    """After all the requests before: reasons, spans, reports."""
    texts = []
    for proxy in proxies:
        lines = proxy.admin("/stats?filter=^(http.t.)?tracing")[1].decode().splitlines()
        texts.append(sorted(lines))
    assert texts[1] == texts[0]
    assert any(re.fullmatch(r"tracing\.zipkin\.spans_sent: [1-9]\d*", line) for line in texts[0])
