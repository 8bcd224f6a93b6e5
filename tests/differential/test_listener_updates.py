"""Listener updates beside the real Envoy's: which connections leave when a listener changes, and what is counted."""

from __future__ import annotations

import contextlib
import copy
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from differential.backend import free_port
from differential.pair import SUBJECT
from differential.proxies import Proxy, running

STATS = (
    "listener_manager.listener_added",
    "listener_manager.listener_modified",
    "listener_manager.listener_in_place_updated",
    "listener_manager.listener_removed",
    "listener_manager.total_filter_chains_draining",
    "listener_manager.total_listeners_draining",
    "listener_manager.total_listeners_active",
)
DRAIN_SECONDS = 1


def _chain(name: str, source: int | None, idle: str = "3600s") -> dict[str, Any]:
    match = {"source_ports": [source]} if source else {}
    tcp = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": name,
        "cluster": "echo",
        "idle_timeout": idle,
    }
    filters = [{"name": "envoy.filters.network.tcp_proxy", "typed_config": tcp}]
    return {"name": name, "filter_chain_match": match, "filters": filters}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


class Rig:
    """A proxy whose one listener comes from a file, and a client to it on two ports of its own."""

    def __init__(self, proxy: Proxy, file: Path, listener: dict[str, Any], ports: list[int]) -> None:
        self.proxy, self.file, self.listener, self.ports = proxy, file, listener, ports
        self.clients: list[socket.socket] = []

    def publish(self, listeners: list[dict[str, Any]], version: str) -> None:
        kind = "type.googleapis.com/envoy.config.listener.v3.Listener"
        document = {"version_info": version, "resources": [{"@type": kind} | one for one in listeners]}
        fresh = self.file.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(document))
        fresh.rename(self.file)

    def connect(self) -> None:
        for port in self.ports:
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind(("127.0.0.1", port))
            client.settimeout(3)
            client.connect(("127.0.0.1", self.proxy.port))
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            self.clients.append(client)

    def alive(self) -> list[bool]:
        """Which of the two connections still echo."""
        alive = []
        for client in self.clients:
            try:
                client.sendall(b"y")
                alive.append(client.recv(1) == b"y")
            except OSError:
                alive.append(False)
        return alive

    def counts(self) -> dict[str, int]:
        text = self.proxy.admin("/stats")[1].decode()
        pairs = (line.partition(": ") for line in text.splitlines())
        return {name: int(value) for name, _, value in pairs if name in STATS}

    def update(self, listeners: list[dict[str, Any]], version: str) -> dict[str, Any]:
        """What an update came to: soon after it, and when the drain time is over."""
        before = self.counts()
        self.publish(listeners, version)
        deadline = time.monotonic() + 5
        while self.counts() == before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        soon = {"alive": self.alive(), "counts": self.counts()}
        time.sleep(DRAIN_SECONDS + 0.5)
        return {"soon": soon, "later": {"alive": self.alive(), "counts": self.counts()}}


@contextlib.contextmanager
def _rig(kind: str, directory: Path) -> Iterator[Rig]:
    directory.mkdir()
    admin, port, echo = free_port(), free_port(), free_port()
    ports = [free_port(), free_port()]
    listener = {
        "name": "main",
        "address": _address(port),
        "filter_chains": [_chain("one", ports[0]), _chain("two", ports[1])],
    }
    file = directory / "lds.yaml"
    cluster = {
        "name": "echo",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "echo",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(echo)}}]}],
        },
    }
    bootstrap = {
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": _address(admin)},
        "dynamic_resources": {"lds_config": {"path_config_source": {"path": str(file)}}},
        "static_resources": {"clusters": [cluster]},
    }
    server = socket.create_server(("127.0.0.1", echo))
    with contextlib.closing(server), _echoing(server):
        made = Rig(None, file, listener, ports)  # type: ignore[arg-type]
        made.publish([listener], "1")
        arguments = ("--drain-time-s", str(DRAIN_SECONDS), "--drain-strategy", "immediate")
        with running(
            kind, yaml.safe_dump(bootstrap), admin_port=admin, port=port, directory=directory,
            log=directory / "log", args=arguments,
        ) as proxy:  # fmt: skip
            made.proxy = proxy
            made.connect()
            yield made
            for client in made.clients:
                client.close()


@contextlib.contextmanager
def _echoing(server: socket.socket) -> Iterator[None]:
    def echo(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := connection.recv(100):
                connection.sendall(data)
        connection.close()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield


def _changed(listener: dict[str, Any], what: str) -> list[dict[str, Any]]:
    new = copy.deepcopy(listener)
    first, second = new["filter_chains"]
    ports = [chain["filter_chain_match"]["source_ports"][0] for chain in (first, second)]
    if what == "a chain changes":
        new["filter_chains"][1] = _chain("two", ports[1], "1800s")
    elif what == "a chain goes":
        new["filter_chains"].pop()
    elif what == "a chain comes":
        new["filter_chains"].insert(0, _chain("three", 1))
    elif what == "the order changes":
        new["filter_chains"].reverse()
    elif what == "a default chain comes":
        new["default_filter_chain"] = _chain("rest", None)
    elif what == "a name changes":
        new["filter_chains"][0]["name"] = "uno"
    elif what == "the buffer limit changes":
        new["per_connection_buffer_limit_bytes"] = 12345
    elif what == "listener and chain change":
        new["filter_chains"][1] = _chain("two", ports[1], "1800s")
        new["listener_filters_timeout"] = "3s"
    elif what == "nothing changes":
        pass
    elif what == "the listener goes":
        return []
    return [new]


@pytest.mark.parametrize(
    "what",
    [
        "a chain changes",
        "a chain goes",
        "a chain comes",
        "the order changes",
        "a default chain comes",
        "a name changes",
        "the buffer limit changes",
        "listener and chain change",
        "the listener goes",
    ],
)
def test_an_update_drains_what_envoy_drains(what: str, tmp_path: Path) -> None:
    with _rig("envoy", tmp_path / "envoy") as envoy, _rig(SUBJECT, tmp_path / "subject") as subject:
        want = envoy.update(_changed(envoy.listener, what), "2")
        have = subject.update(_changed(subject.listener, what), "2")
    assert have == want
