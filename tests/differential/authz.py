"""The authorization service of the differential suite, by HTTP (`http_port`) and by gRPC (`grpc_port`).

It tells what it was asked in the header `x-seen`, as JSON. By HTTP it answers as the request header `x-authz` says
(comma separated): `status=N`, `delay=SECONDS`, `body=TEXT`, `header=NAME:VALUE|…`, `reset`, `hang`; by gRPC as
`x-authz` says too (`delay=`, `abort=CODE`) and with the `CheckResponse` that `x-check` gives as JSON; `x-seen` is
added to its OK response. Paths that begin with `/jwks` are key sets.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from google.protobuf import json_format

from differential import jwt
from tidegate import xdsapi

CHECK_REQUEST = "envoy.service.auth.v3.CheckRequest"
CHECK_RESPONSE = "envoy.service.auth.v3.CheckResponse"


def steering(text: str) -> dict[str, str]:
    """`a=1,b` as a mapping."""
    parts = (item.partition("=") for item in text.split(",") if item)
    return {name.strip(): value for name, _, value in parts}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self) -> None:
        if self.path.startswith("/jwks"):
            self.keys()
            return
        do = steering(self.headers.get("x-authz", ""))
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length) if length else b""
        seen = {
            "method": self.command,
            "path": self.path,
            "headers": sorted((n.lower(), v) for n, v in self.headers.items()),
            "body": body.decode("latin-1"),
        }
        if "delay" in do:
            time.sleep(float(do["delay"]))
        if "reset" in do:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        if "hang" in do:
            time.sleep(3)
            self.close_connection = True
            return
        payload = do.get("body", "").encode()
        self.send_response_only(int(do.get("status", "200")))
        self.send_header("content-length", str(len(payload)))
        self.send_header("x-seen", json.dumps(seen))
        for item in do.get("header", "").split("|"):
            if item:
                name, _, value = item.partition(":")
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)

    def keys(self) -> None:
        """A key set, or what is none."""
        time.sleep(0.5 if "slow" in self.path else 0)
        payload = b"{}" if "bad" in self.path else jwt.jwks().encode()
        self.send_response_only(503 if "down" in self.path else 200)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Whoever asked is gone."""


class Authz:
    """Both services, in threads of their own."""

    def __init__(self) -> None:
        self.http = _Server(("127.0.0.1", 0), _Handler)
        self.http_port: int = self.http.server_address[1]
        self.grpc = grpc.server(ThreadPoolExecutor(16))
        method = grpc.unary_unary_rpc_method_handler(self.check)
        handler = grpc.method_handlers_generic_handler("envoy.service.auth.v3.Authorization", {"Check": method})
        self.grpc.add_generic_rpc_handlers((handler,))
        self.grpc_port: int = self.grpc.add_insecure_port("127.0.0.1:0")

    def start(self) -> Authz:
        for name in (CHECK_REQUEST, CHECK_RESPONSE):  # takes its time
            xdsapi.message(name)
        threading.Thread(target=self.http.serve_forever, name="authz", daemon=True).start()
        self.grpc.start()
        return self

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.grpc.stop(None)

    def check(self, encoded: bytes, context: grpc.ServicerContext) -> bytes:
        request = xdsapi.message(CHECK_REQUEST).FromString(encoded)
        headers = dict(request.attributes.request.http.headers)
        for header in request.attributes.request.http.header_map.headers:
            headers[header.key] = header.raw_value.decode()
        do = steering(headers.get("x-authz", ""))
        if "delay" in do:
            time.sleep(float(do["delay"]))
        if "abort" in do:
            context.abort(next(c for c in grpc.StatusCode if c.value[0] == int(do["abort"])), "as asked")
        response = xdsapi.message(CHECK_RESPONSE)()
        json_format.Parse(headers.get("x-check", "{}"), response)
        if response.status.code == 0:
            seen = json_format.MessageToDict(request)["attributes"]
            del seen["request"]["time"]
            seen["request"]["http"].pop("id")
            seen["source"]["address"]["socketAddress"].pop("portValue")
            seen["metadata"] = sorted((k, v) for k, v in context.invocation_metadata() if k != "user-agent")
            option = response.ok_response.headers.add()
            option.header.key = "x-seen"
            option.header.value = json.dumps(seen, sort_keys=True)
            option.append_action = 2
        return bytes(response.SerializeToString())
