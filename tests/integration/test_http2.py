"""HTTP/2 through the proxy, where one connection carries many requests: none is lost, none keeps others waiting, and
what is not read is not piled up.

The other ends are written here frame by frame, so that they can do what no well-behaved library does.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hpack
import pytest

from differential import proxies

DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Headers = list[tuple[str, str]]


class End:
    """One end of an HTTP/2 connection. Windows are given back only if `reads`."""

    def __init__(self, sock: socket.socket, *, client: bool, window: int = 1 << 20, reads: bool = True) -> None:
        self.sock, self.reads = sock, reads
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.buffer = b""
        sock.settimeout(10)
        settings = struct.pack(">HI", 4, window)
        sock.sendall((PREFACE if client else b"") + frame(SETTINGS, 0, 0, settings))
        if not client:
            assert self._exactly(len(PREFACE)) == PREFACE

    def _exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            got = self.sock.recv(1 << 16)
            if not got:
                raise EOFError
            self.buffer += got
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def next(self) -> tuple[int, int, int, bytes]:
        """The next frame that means something: kind, flags, stream, payload."""
        while True:
            head = self._exactly(9)
            length, kind, flags, stream = int.from_bytes(head[:3]), head[3], head[4], int.from_bytes(head[5:])
            payload = self._exactly(length)
            if kind == SETTINGS:
                if not flags & ACK:
                    self.sock.sendall(frame(SETTINGS, ACK, 0, b""))
            elif kind == PING:
                if not flags & ACK:
                    self.sock.sendall(frame(PING, ACK, 0, payload))
            elif kind == DATA and self.reads and payload:
                more = struct.pack(">I", len(payload))
                self.sock.sendall(frame(WINDOW, 0, 0, more) + frame(WINDOW, 0, stream, more))
                return kind, flags, stream, payload
            elif kind != WINDOW:
                return kind, flags, stream, payload

    def headers(self, stream: int, fields: Headers, *, end: bool = False) -> None:
        block = self.encoder.encode(fields)
        self.sock.sendall(frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block))

    def data(self, stream: int, payload: bytes, *, end: bool = False) -> None:
        self.sock.sendall(frame(DATA, END_STREAM if end else 0, stream, payload))

    def decode(self, block: bytes) -> dict[str, str]:
        return {str(name): str(value) for name, value in self.decoder.decode(block)}


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def get(path: str) -> Headers:
    return [(":method", "GET"), (":scheme", "http"), (":authority", "a.example"), (":path", path)]


@contextlib.contextmanager
def backend(serve: Callable[[End, int], None]) -> Iterator[int]:
    """Calls `serve` with each connection and its number; the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            number = 0
            while True:
                try:
                    sock, _ = listening.accept()
                except OSError:
                    return
                number += 1
                threading.Thread(target=one, args=(sock, number), daemon=True).start()

        def one(sock: socket.socket, number: int) -> None:
            with sock, contextlib.suppress(OSError, EOFError):
                serve(End(sock, client=False), number)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@contextlib.contextmanager
def proxy(directory: Path, upstream: int, options: str = "") -> Iterator[proxies.Proxy]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        port, admin = one.getsockname()[1], two.getsockname()[1]
    api = "type.googleapis.com/envoy.extensions"
    bootstrap = f"""
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
static_resources:
  listeners:
  - name: in
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": {api}.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          {options}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: /}}, route: {{cluster: up, timeout: 0s}}}}]
          http_filters:
          - {{name: router, typed_config: {{"@type": {api}.filters.http.router.v3.Router}}}}
  clusters:
  - name: up
    load_assignment:
      cluster_name: up
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": {api}.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
"""  # fmt: skip
    log = directory / "access.log"
    with proxies.running("tidegate", bootstrap, admin_port=admin, port=port, directory=directory, log=log) as running:
        yield running


@contextlib.contextmanager
def connect(to: proxies.Proxy, *, window: int = 1 << 20, reads: bool = True) -> Iterator[End]:
    with socket.create_connection(("127.0.0.1", to.port)) as sock:
        yield End(sock, client=True, window=window, reads=reads)


def resident_kib(of: proxies.Proxy) -> int:
    status = Path(f"/proc/{of.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def settled_kib(of: proxies.Proxy) -> int:
    """The resident memory at rest: it serves before it has imported everything, and gives back a second later."""
    time.sleep(1.5)
    before, now = -1, resident_kib(of)
    while now != before:
        time.sleep(0.5)
        before, now = now, resident_kib(of)
    return now


def test_goaway_loses_no_request(tmp_path: Path) -> None:
    """The first three upstream connections answer five requests each and leave the others out: another answers them."""
    served: list[int] = []

    def serve(end: End, number: int) -> None:
        streams: list[int] = []
        while True:
            kind, _, stream, _ = end.next()
            if kind != HEADERS:
                continue
            streams.append(stream)
            if len(streams) == 8 and number <= 3:
                last = streams[4]
                end.sock.sendall(frame(GOAWAY, 0, 0, struct.pack(">II", last, 0)))
            if len(streams) <= 5 or number > 3:
                served.append(number)
                end.headers(stream, [(":status", "200")], end=True)

    with backend(serve) as port, proxy(tmp_path, port) as subject, connect(subject) as client:
        ids = range(1, 2 * 40, 2)
        for stream in ids:
            client.headers(stream, get(f"/{stream}"), end=True)
        statuses: dict[int, str] = {}
        while len(statuses) < len(ids):
            kind, _, stream, payload = client.next()
            if kind == HEADERS:
                statuses[stream] = client.decode(payload)[":status"]
            assert kind != RST
        assert set(statuses.values()) == {"200"}
        assert len(set(served)) > 1


@pytest.mark.parametrize("streams", [1, 20])
def test_what_is_not_read_is_not_piled_up(tmp_path: Path, streams: int) -> None:
    """A client that does not read stops its own streams, and neither the upstream's other streams nor the memory."""

    def serve(end: End, number: int) -> None:
        while True:
            kind, _, stream, payload = end.next()
            if kind != HEADERS:
                continue
            path = end.decode(payload)[":path"]
            end.headers(stream, [(":status", "200")], end=path != "/big")
            if path == "/big":
                end.data(stream, b"x" * 16_000)
                threading.Thread(target=pour, args=(end, stream), daemon=True).start()

    def pour(end: End, stream: int) -> None:
        # As much as the proxy's window lets by, and no more is sent by anybody.
        with contextlib.suppress(OSError):
            for _ in range(60):
                end.data(stream, b"x" * 16_000)

    with backend(serve) as port, proxy(tmp_path, port) as subject:
        before = settled_kib(subject)
        with connect(subject, window=1000, reads=False) as deaf, connect(subject) as other:
            for stream in range(1, 2 * streams, 2):
                deaf.headers(stream, get("/big"), end=True)
            time.sleep(0.5)
            for stream in range(1, 41, 2):
                other.headers(stream, get("/small"), end=True)
                kind, _, of, payload = other.next()
                assert (kind, of, other.decode(payload)[":status"]) == (HEADERS, stream, "200")
            assert resident_kib(subject) - before < streams * 1200 + 4096


def test_messages_go_both_ways_while_the_request_is_open(tmp_path: Path) -> None:
    def serve(end: End, number: int) -> None:
        while True:
            kind, flags, stream, payload = end.next()
            if kind == HEADERS:
                assert end.decode(payload)["te"] == "trailers"
                end.headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
            elif kind == DATA and payload:
                end.data(stream, payload[::-1])
            if kind == DATA and flags & END_STREAM:
                end.headers(stream, [("grpc-status", "0"), ("x-last", "yes")], end=True)

    with backend(serve) as port, proxy(tmp_path, port) as subject, connect(subject) as client:
        call = [*get("/s.S/M"), ("content-type", "application/grpc"), ("te", "trailers")]
        call[0] = (":method", "POST")
        client.headers(1, call)
        kind, flags, _, payload = client.next()
        assert (kind, flags & END_STREAM, client.decode(payload)[":status"]) == (HEADERS, 0, "200")
        for number in range(200):
            message = b"%08d" % number
            client.data(1, message)
            kind, _, _, payload = client.next()
            assert (kind, payload) == (DATA, message[::-1])
        client.data(1, b"", end=True)
        kind, flags, _, payload = client.next()
        assert (kind, flags & END_STREAM) == (HEADERS, END_STREAM)
        assert client.decode(payload) == {"grpc-status": "0", "x-last": "yes"}


def test_the_last_request_ends_the_connection(tmp_path: Path) -> None:
    def serve(end: End, number: int) -> None:
        while True:
            kind, _, stream, _ = end.next()
            if kind == HEADERS:
                end.headers(stream, [(":status", "204")], end=True)

    options = "common_http_protocol_options: {max_requests_per_connection: 3}\n          drain_timeout: 0.2s"
    with backend(serve) as port, proxy(tmp_path, port, options) as subject, connect(subject) as client:
        for stream in (1, 3, 5):
            client.headers(stream, get("/"), end=True)
        seen: list[object] = []
        with contextlib.suppress(EOFError):
            while True:
                kind, _, stream, payload = client.next()
                seen.append(struct.unpack(">II", payload[:8]) if kind == GOAWAY else stream)
        assert seen.count((2**31 - 1, 0)) == 1
        assert (5, 0) in seen
        assert [one for one in seen if isinstance(one, int)] == [1, 3, 5]
