"""The HTTP side that all four applications share: a threaded server, calls to others, one log line per request."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

#: What a service must hand on so that tracing and user-based routing work across it.
PROPAGATED: Final = (
    "x-request-id", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags",
    "x-ot-span-context", "traceparent", "tracestate", "end-user", "user-agent", "cookie", "authorization",
)  # fmt: skip


@dataclass(frozen=True)
class Call:
    """A request to an application."""

    method: str
    path: str
    query: Mapping[str, str]
    form: Mapping[str, str]
    headers: Mapping[str, str]
    peer: str

    def propagated(self) -> dict[str, str]:
        return {name: self.headers[name] for name in PROPAGATED if name in self.headers}

    def cookie(self, name: str) -> str:
        for part in self.headers.get("cookie", "").split(";"):
            key, _, value = part.strip().partition("=")
            if key == name:
                return value
        return ""


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def reply_json(value: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode())


def log(line: str) -> None:
    """One line to the application's log, at once."""
    sys.stdout.write(f"[{time.strftime('%Y-%m-%dT%H:%M:%S')}] {line}\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Client:
    """Calls other services by URL; through an HTTP proxy where the workload was given one (`http_proxy`)."""

    proxy: str = ""
    timeout: float = 5.0

    def get(self, url: str, headers: Mapping[str, str]) -> tuple[int, Any]:
        """The status and the JSON body; status 0 when nobody answered."""
        parts = urlsplit(url)
        target, authority = (url, self.proxy) if self.proxy else (parts.path, parts.netloc)
        host, _, port = authority.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=self.timeout)
        try:
            connection.request("GET", target, headers={"Host": parts.netloc, **headers})
            peer = connection.sock.getpeername() if connection.sock else ("?", 0)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            log(f"call GET {url} -> {error}")
            return 0, None
        finally:
            connection.close()
        log(
            f"call GET {url} via {peer[0]}:{peer[1]} -> {response.status} request-id={headers.get('x-request-id', '-')}"
        )
        try:
            return response.status, json.loads(body)
        except ValueError:
            return response.status, None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def server_bind(self) -> None:
        # Not the base class's: it looks the host's name up, which a workload without DNS waits for.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


def serve(address: str, port: int, answer: Callable[[Call], Reply]) -> None:
    """Serve for ever; `/health` is answered here."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version, sys_version = "bookinfo", ""
        disable_nagle_algorithm = True

        def _handle(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length).decode(errors="replace") if length else ""
            call = Call(
                method=self.command,
                path=parts.path,
                query={name: values[0] for name, values in parse_qs(parts.query).items()},
                form={name: values[0] for name, values in parse_qs(body).items()},
                headers={name.lower(): value for name, value in self.headers.items()},
                peer=f"{self.client_address[0]}:{self.client_address[1]}",
            )
            reply = reply_json({"status": "healthy"}) if call.path == "/health" else answer(call)
            self.send_response(reply.status)
            self.send_header("content-type", reply.content_type)
            self.send_header("content-length", str(len(reply.body)))
            if "x-request-id" in call.headers:
                self.send_header("x-request-id", call.headers["x-request-id"])
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)
            request_id = call.headers.get("x-request-id", "-")
            log(f"served {call.method} {call.path} from {call.peer} -> {reply.status} request-id={request_id}")

        do_GET = do_HEAD = do_POST = _handle

        def log_message(self, format: str, *args: object) -> None:
            pass

    _Server((address, port), Handler).serve_forever()
