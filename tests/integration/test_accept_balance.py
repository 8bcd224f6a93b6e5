"""Which worker gets a connection, with two workers: `connection_balance_config` and what SO_REUSEPORT alone gives.

By Envoy's own figures, `listener.<address>.worker_<n>.downstream_cx_active`, of tidegate and of Envoy.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from differential.backend import free_port
from differential.proxies import Proxy, running
from integration.mesh import eventually

CONNECTIONS, WORKERS = 64, 2
HALVES = [CONNECTIONS // WORKERS] * WORKERS
EXACT: dict[str, Any] = {"connection_balance_config": {"exact_balance": {}}}
KINDS = pytest.mark.parametrize("kind", ["tidegate", "envoy"])


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(1024):
            self.request.sendall(data)


class _Server(socketserver.ThreadingTCPServer):
    request_queue_size = 256


@contextlib.contextmanager
def echo() -> Iterator[int]:
    """A server that sends back what it gets; its port."""
    with _Server(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def proxy(kind: str, directory: Path, **listener: Any) -> Iterator[Proxy]:
    port, admin_port = free_port(), free_port()
    proxying = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "t",
        "cluster": "c",
    }
    with echo() as upstream:
        bootstrap = {
            "admin": {"address": _address(admin_port)},
            "static_resources": {
                "listeners": [
                    {
                        "name": "l",
                        "address": _address(port),
                        "filter_chains": [
                            {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxying}]}
                        ],
                        **listener,
                    }
                ],
                "clusters": [
                    {
                        "name": "c",
                        "type": "STATIC",
                        "load_assignment": {
                            "cluster_name": "c",
                            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream)}}]}],
                        },
                    }
                ],
            },
        }
        with running(
            kind, json.dumps(bootstrap), admin_port=admin_port, port=port, directory=directory,
            log=directory / "log", concurrency=WORKERS,
        ) as started:  # fmt: skip
            yield started


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def opened(port: int) -> socket.socket:
    """A connection that a worker serves, for sure."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(b"x")
    assert connection.recv(1) == b"x"
    return connection


@contextlib.contextmanager
def clients(port: int, count: int, at_a_time: int = 1) -> Iterator[list[socket.socket]]:
    with ThreadPoolExecutor(at_a_time) as pool:
        connections = list(pool.map(opened, [port] * count))
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


def by_worker(proxy: Proxy) -> list[int]:
    text = proxy.admin("/stats?filter=worker_")[1].decode()
    figures = dict(line.split(": ") for line in text.splitlines())
    prefix = f"listener.127.0.0.1_{proxy.port}"
    return [int(figures[f"{prefix}.worker_{worker}.downstream_cx_active"]) for worker in range(WORKERS)]


def emptied(proxy: Proxy) -> None:
    eventually(lambda: by_worker(proxy) == [0] * WORKERS, 10, "the connections are gone")


@KINDS
def test_exact_balance_halves_long_lived_connections(kind: str, tmp_path: Path) -> None:
    with proxy(kind, tmp_path, **EXACT) as started:
        with clients(started.port, CONNECTIONS):
            assert by_worker(started) == HALVES
        emptied(started)


def test_exact_balance_stays_exact_when_both_workers_accept_at_the_same_time(tmp_path: Path) -> None:
    with proxy("tidegate", tmp_path, **EXACT) as started:
        for turn in range(10):
            with clients(started.port, CONNECTIONS, at_a_time=16):
                assert by_worker(started) == HALVES, turn
            emptied(started)


def test_exact_balance_fills_up_the_worker_that_lost_connections(tmp_path: Path) -> None:
    with proxy("tidegate", tmp_path, **EXACT) as started, clients(started.port, CONNECTIONS) as connections:
        # Opened one at a time they went to the workers in turn: every other one is the same worker's.
        for connection in connections[::2]:
            connection.close()
        eventually(lambda: sorted(by_worker(started)) == [0, CONNECTIONS // 2], 10, "one worker has none left")
        with clients(started.port, CONNECTIONS // 2):
            assert by_worker(started) == HALVES


def test_without_it_every_worker_gets_some_by_the_kernels_hash(tmp_path: Path) -> None:
    with proxy("tidegate", tmp_path) as started, clients(started.port, CONNECTIONS):
        counts = by_worker(started)
        assert sum(counts) == CONNECTIONS
        # Halves on average, with the spread of 64 tosses of a coin: fewer than 8 is one run in ten billion.
        assert min(counts) >= 8, counts
