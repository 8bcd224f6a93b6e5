"""What tests of tracing share: proxies that trace, requests worth tracing, an upstream that tells what it was told.

Must not know how spans are written.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from differential.client import Response, exchange
from differential.proxies import Proxy

TYPE = "type.googleapis.com/envoy"
TRACE = "0123456789abcdef0123456789abcdef"

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
        {"x-b3-traceid": TRACE, "x-b3-spanid": "1" * 16, "x-b3-parentspanid": "2" * 16, "x-b3-sampled": "1"},
    ),
    "b3 of 64 bits": ("GET /x", {"x-b3-traceid": TRACE[:16], "x-b3-spanid": "1" * 16}),
    "b3 not sampled": ("GET /x", {"x-b3-traceid": TRACE, "x-b3-spanid": "1" * 16, "x-b3-sampled": "0"}),
    "b3 debug": ("GET /x", {"x-b3-traceid": TRACE, "x-b3-spanid": "1" * 16, "x-b3-flags": "1"}),
    "b3 sampled only": ("GET /x", {"x-b3-sampled": "0"}),
    "b3 in one header": ("GET /x", {"b3": f"{TRACE}-{'1' * 16}-1-{'2' * 16}"}),
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
    "traceparent": ("GET /x", {"traceparent": f"00-{TRACE}-{'1' * 16}-01", "tracestate": "a=b"}),
    "body": ("POST /x", {"content-length": "5"}),
    "gRPC": ("GET /x", {"content-type": "application/grpc", "te": "trailers"}),
    "long path": ("GET /" + "a" * 400, {}),
    "never": ("GET /never", {}),
    "tried again": ("GET /again", {"x-status": "503"}),
}


@dataclass
class Upstream:
    """An upstream that answers with the headers it saw, and takes reports at the paths in `takes`."""

    takes: dict[str, Callable[[dict[str, str], bytes], tuple[int, bytes]]] = field(default_factory=dict)
    port: int = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[Upstream]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"upstream": self}))
        self.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """`x-status` is the answer's status; `x-answer-operation` names the operation."""

    protocol_version = "HTTP/1.1"
    upstream: Upstream

    def do_POST(self) -> None:
        if "chunked" in self.headers.get("transfer-encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if take := self.upstream.takes.get(self.path):
            status, answer = take({name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
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


def cluster(name: str, port: int, **more: Any) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": name, "type": "STATIC", "connect_timeout": "1s", "alt_stat_name": f"{name};",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints}, **more,
    }  # fmt: skip


TAGS = [
    {"tag": "literal", "literal": {"value": "v"}},
    {"tag": "user", "request_header": {"name": "x-user", "default_value": "anon"}},
    {"tag": "environment", "environment": {"name": "TIDEGATE_NO_SUCH", "default_value": "d"}},
    {"tag": "nothing", "request_header": {"name": "x-none"}},
]

_NEVER = {"random_sampling": {"numerator": 0}, "overall_sampling": {"numerator": 100}}

#: To the clusters `a` and `dead`.
ROUTES: list[dict[str, Any]] = [
    {"match": {"prefix": "/deco"}, "route": {"cluster": "a"}, "decorator": {"operation": "my-op"}},
    {
        "match": {"prefix": "/noprop"},
        "route": {"cluster": "a"},
        "decorator": {"operation": "op2", "propagate": False},
    },
    {"match": {"prefix": "/never"}, "route": {"cluster": "a"}, "tracing": _NEVER},
    {"match": {"prefix": "/direct"}, "direct_response": {"status": 418}},
    {"match": {"prefix": "/dead"}, "route": {"cluster": "dead"}},
    {
        "match": {"prefix": "/again"},
        "route": {
            "cluster": "a",
            "retry_policy": {
                "retry_on": "5xx",
                "num_retries": 2,
                "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"},
            },
        },
    },
    {"match": {"prefix": "/"}, "route": {"cluster": "a"}},
]

EVERYTHING = {
    "client_sampling": {"value": 100}, "random_sampling": {"value": 100}, "overall_sampling": {"value": 100},
}  # fmt: skip


def bootstrap(
    port: int,
    admin: int,
    direction: str,
    clusters: list[dict[str, Any]],
    tracing: dict[str, Any],
    *,
    routes: list[dict[str, Any]] = ROUTES,
    runtime: dict[str, Any] | None = None,
    name: str = "cluster-1",
    domain: str = "h",
) -> str:
    """One listener of that traffic direction, whose connection manager traces so."""
    hcm = {
        "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "t",
        "tracing": tracing,
        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": [domain], "routes": routes}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router"}}
        ],
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": hcm}]
    listener = {
        "name": "l", "traffic_direction": direction, "address": address, "filter_chains": [{"filters": filters}],
    }  # fmt: skip
    return json.dumps({
        "node": {"id": "node-1", "cluster": name, "locality": {"zone": "z1"}},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "layered_runtime": {"layers": [{"name": "s", "static_layer": runtime or {}}]},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    })  # fmt: skip


class Ids:
    """Words for ids: what was given stays; what was made up becomes its length and a number, the same id the same."""

    def __init__(self) -> None:
        self._words: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        if len(text) < 16 or text.startswith(TRACE[:16]) or text in ("1" * 16, "2" * 16):
            return text
        return self._words.setdefault(text, f"<{len(text)} digits, {len(self._words)}>")


def reason(text: str) -> str:
    """Of a made-up request id, the digit that says why it is traced."""
    return re.sub(r"^[0-9a-f]{8}-[0-9a-f]{4}-(.)[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$", r"<uuid \1>", text)


def ask(proxy: Proxy, line: str, headers: dict[str, str]) -> Response:
    """One request, as `REQUESTS` has them."""
    fields = "".join(f"{key}: {value}\r\n" for key, value in ({"host": "h"} | headers).items())
    body = b"hello" if line.startswith("POST") else b""
    request = f"{line} HTTP/1.1\r\n{fields}\r\n".encode() + body
    [answer] = exchange(proxy.port, [request], methods=[line.split()[0]]).responses
    return answer


def told(answer: Response) -> dict[str, Any]:
    """What the caller sees of it, and the headers that the upstream saw."""
    seen: dict[str, str] = json.loads(answer.body) if answer.body.startswith(b"{") else {}
    if "x-request-id" in seen:
        seen["x-request-id"] = reason(seen["x-request-id"])
    if "x-envoy-expected-rq-timeout-ms" in seen:
        # Of a later try, what is left.
        seen["x-envoy-expected-rq-timeout-ms"] = "<ms>"
    operations = [value for key, value in answer.headers if key == "x-envoy-decorator-operation"]
    return {"status": answer.status, "told": operations, "upstream saw": seen}


def all_reported(proxy: Proxy, tracer: str, received: Callable[[], int]) -> None:
    """Waits until no request is under way and every span that the proxy says it has sent has been received."""
    deadline = time.monotonic() + 20
    while True:
        text = proxy.admin(f"/stats?filter=^http.t.downstream_rq_active|^tracing.{tracer}.spans_sent")[1].decode()
        stats = {name: int(value) for name, _, value in (line.partition(": ") for line in text.splitlines())}
        if stats["http.t.downstream_rq_active"] == 0 and stats[f"tracing.{tracer}.spans_sent"] == received():
            return
        assert time.monotonic() < deadline, f"{stats}, received: {received()}"
        time.sleep(0.005)
