"""Tags, buckets, matchers and sinks of the bootstrap: the same names, labels and datagrams from Envoy and tidegate."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from differential.pki import pki
from differential.proxies import Proxy, running

TYPE = "type.googleapis.com/envoy"
TLS = f"{TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext"

#: As pilot-agent writes them.
PILOT_TAGS: list[dict[str, Any]] = [
    {"tag_name": "cluster_name", "regex": r"^cluster(\.(.+);)"},
    {
        "tag_name": "http_conn_manager_prefix",
        "regex": r"^http\.(((?:[_.[:digit:]\w]*|[_\[\]aAbBcCdDeEfF[:digit:]\w\:]*));\.)",
    },
    {"tag_name": "tcp_prefix", "regex": r"^tcp\.((.*?)\.)\w+?$"},
    {"tag_name": "response_code", "regex": r"_rq(_(\d{3}))$"},
    {"tag_name": "response_code_class", "regex": r"_rq(_(\dxx))$"},
    {"tag_name": "listener_address", "regex": r"^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"},
    {"tag_name": "mesh", "fixed_value": "here"},
]

STATS_CONFIGS: dict[str, dict[str, Any]] = {
    "envoy's tags": {},
    "pilot's tags": {"use_all_default_tags": False, "stats_tags": PILOT_TAGS},
    "both": {"stats_tags": PILOT_TAGS},
    "buckets": {
        "histogram_bucket_settings": [
            {"match": {"suffix": "upstream_rq_time"}, "buckets": [1, 2.5, 50, 1000]},
            {"match": {"prefix": "cluster."}, "buckets": [10, 20]},
        ]
    },
    "inclusion": {"stats_matcher": {"inclusion_list": {"patterns": [{"prefix": "cluster.out"}, {"suffix": "_2xx"}]}}},
    "exclusion": {
        "stats_matcher": {
            "exclusion_list": {"patterns": [{"safe_regex": {"regex": ".*_rq_[0-9]xx"}}, {"contains": "membership"}]}
        }
    },
}

CLUSTER = "outbound|9080||details.default.svc.cluster.local"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def address(port: int, **more: str) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port, **more}}


def cluster(name: str, port: int, **more: Any) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": address(port)}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
    return {"name": name, "type": "STATIC", "load_assignment": assignment, **more}


def bootstrap(
    port: int,
    admin: int,
    upstream: int,
    stats: dict[str, Any],
    sinks: list[dict[str, Any]],
    clusters: list[dict[str, Any]],
) -> str:
    manager = {
        "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "outbound_0.0.0.0_9080;",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"path": "/direct"}, "direct_response": {"status": 404}},
                        {"match": {"prefix": "/"}, "route": {"cluster": CLUSTER}},
                    ],
                }
            ]
        },
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router"}}
        ],
    }
    return json.dumps(
        {
            "node": {"id": "sidecar", "cluster": "details"},
            "admin": {"address": address(admin)},
            "stats_config": stats,
            "stats_sinks": sinks,
            "stats_flush_interval": "0.2s",
            "static_resources": {
                "listeners": [
                    {
                        "name": "all",
                        "address": address(port),
                        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
                    }
                ],
                "clusters": [cluster(CLUSTER, upstream, alt_stat_name=f"{CLUSTER};"), *clusters],
            },
        }
    )


class Backend(threading.Thread):
    """Answers each connection's requests with 200."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.socket.getsockname()[1])

    def run(self) -> None:
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    @staticmethod
    def serve(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            received = b""
            while data := peer.recv(65536):
                received += data
                while b"\r\n\r\n" in received:
                    received = received.split(b"\r\n\r\n", 1)[1]
                    peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


@contextlib.contextmanager
def served(
    kind: str,
    directory: Path,
    stats: dict[str, Any],
    sinks: list[dict[str, Any]],
    clusters: list[dict[str, Any]] | None = None,
) -> Iterator[Proxy]:
    backend = Backend()
    backend.start()
    port, admin = free_port(), free_port()
    directory.mkdir()
    document = bootstrap(port, admin, backend.port, stats, sinks, clusters or [])
    with running(kind, document, admin_port=admin, port=port, directory=directory, log=directory / "log") as proxy:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        for path in ("/", "/", "/direct"):
            connection.request("GET", path)
            connection.getresponse().read()
        connection.close()
        time.sleep(0.6)
        yield proxy
    backend.socket.close()


#: What both have, whatever else they count.
COMPARED = re.compile(
    r"^(envoy_)?(cluster_.*(upstream_rq_(total|completed|time|[2-5]xx|200)|upstream_rq$|upstream_rq_xx|membership_total)"
    r"|http_.*downstream_rq_(total|completed|xx|[2-5]xx|time))"
)


def prometheus(proxy: Proxy) -> list[str]:
    """The series, with the values of those that do not depend on time."""
    _, text = proxy.admin("/stats/prometheus?usedonly")
    found = []
    for line in text.decode().splitlines():
        if line.startswith("#") or not COMPARED.match(line.split("{")[0]):
            continue
        # The admin pages of the two ask each other different things.
        if "admin" in line:
            continue
        timed = "_time_bucket" in line or "_time_sum" in line
        found.append(line.rpartition(" ")[0] if timed else line)
    return found


@pytest.mark.parametrize("name", STATS_CONFIGS)
def test_prometheus(tmp_path: Path, name: str) -> None:
    texts = {}
    for kind in ("envoy", "tidegate"):
        with served(kind, tmp_path / kind, STATS_CONFIGS[name], []) as proxy:
            texts[kind] = prometheus(proxy)
            _, summary = proxy.admin("/stats?filter=upstream_rq_time&histogram_buckets=cumulative")
            texts[f"{kind} buckets"] = re.sub(r"\(\d+,\d+\)", "", summary.decode()).splitlines()
    assert texts["envoy"], "nothing was compared"
    assert texts["tidegate"] == texts["envoy"]
    assert texts["tidegate buckets"] == texts["envoy buckets"]


SENT = re.compile(r"upstream_rq_(total|completed|time|2)|downstream_rq_(total|4)")


class Receiver(threading.Thread):
    """A statsd server: keeps the datagrams."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = int(self.socket.getsockname()[1])
        self.datagrams: list[str] = []

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.datagrams.append(self.socket.recv(65536).decode())

    def metrics(self) -> dict[str, float]:
        return metrics("\n".join(self.datagrams))


class TcpReceiver(threading.Thread):
    """A statsd server over TCP: keeps what each connection brings; ends it after so many bytes; 0: it reads none."""

    def __init__(self, most: float = math.inf, tls: bool = False) -> None:
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.tls = pki().server({}) if tls else None
        self.port = int(self.socket.getsockname()[1])
        self.most = most
        self.connections: list[bytearray] = []
        self.idle: list[socket.socket] = []
        self.threads: list[threading.Thread] = []

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self.socket.accept()
                received = bytearray()
                self.connections.append(received)
                if not self.most:
                    self.idle.append(peer)
                    continue
                self.threads.append(threading.Thread(target=self.take, args=(peer, received), daemon=True))
                self.threads[-1].start()

    def stop(self) -> None:
        """After the proxy has gone: nothing is under way any more."""
        self.socket.close()
        for thread in self.threads:
            thread.join(20)

    def take(self, peer: socket.socket, received: bytearray) -> None:
        with contextlib.suppress(OSError), self.tls.wrap_socket(peer, server_side=True) if self.tls else peer as stream:
            while len(received) < self.most and (data := stream.recv(65536)):
                received += data

    def lines(self) -> str:
        """Those that are whole."""
        return "".join(each[: each.rfind(b"\n") + 1].decode() for each in self.connections)

    def has_all(self) -> bool:
        """It has been told of all that `served` asks for."""
        text = self.lines()
        timings = [value for name, value in metrics(text).items() if name.endswith("upstream_rq_time|ms")]
        told = "downstream_rq_4xx" in text and ".cluster.statsd.upstream_cx_tx_bytes_total" in text
        return told and bool(timings) and min(timings) >= 2


def metrics(text: str) -> dict[str, float]:
    """Counters added up and gauges, by everything but the value: `name|type|#tags`."""
    totals: dict[str, float] = {}
    for line in text.splitlines():
        matched = re.fullmatch(r"(.+?):([-\d.e+]+)\|(c|g|ms)(?:\|@([\d.e-]+))?(\|#.*)?", line)
        assert matched, f"not a line of statsd: {line}"
        name, value, kind, rate, tags = matched.groups()
        key = f"{name}|{kind}{tags or ''}"
        # Listeners are named by their ports.
        if "admin" in key or ".listener." in key or not SENT.search(key):
            continue
        if kind == "ms":
            # So often was something recorded.
            totals[key] = totals.get(key, 0) + round(1 / float(rate or 1))
        else:
            totals[key] = totals.get(key, 0) * (kind == "c") + float(value)
    return totals


@pytest.mark.parametrize(
    "sink",
    [
        {"@type": f"{TYPE}.config.metrics.v3.StatsdSink", "prefix": "mesh"},
        {"@type": f"{TYPE}.config.metrics.v3.StatsdSink"},
        {"@type": f"{TYPE}.config.metrics.v3.DogStatsdSink", "prefix": "dog"},
        {"@type": f"{TYPE}.config.metrics.v3.DogStatsdSink", "max_bytes_per_datagram": 512},
    ],
    ids=["prefix", "plain", "dog", "dog together"],
)
def test_sinks(tmp_path: Path, sink: dict[str, Any]) -> None:
    received = {}
    for kind in ("envoy", "tidegate"):
        receiver = Receiver()
        receiver.start()
        config = {**sink, "address": address(receiver.port, protocol="UDP")}
        sinks = [{"name": "envoy.stat_sinks.statsd", "typed_config": config}]
        with served(kind, tmp_path / kind, {"stats_tags": PILOT_TAGS}, sinks):
            pass
        receiver.socket.close()
        received[kind] = receiver.metrics()
        if "max_bytes_per_datagram" in sink:
            lines = [datagram for datagram in receiver.datagrams if "\n" in datagram]
            assert lines
            assert max(len(datagram) for datagram in lines) <= 512
    assert received["envoy"], "nothing was compared"
    assert received["tidegate"] == received["envoy"]


def tcp_sink(**more: str) -> list[dict[str, Any]]:
    config = {"@type": f"{TYPE}.config.metrics.v3.StatsdSink", "tcp_cluster_name": "statsd", **more}
    return [{"name": "envoy.stat_sinks.statsd", "typed_config": config}]


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline, "it has not come"
        time.sleep(0.02)


@pytest.mark.parametrize("tls", [False, True], ids=["", "TLS"])
@pytest.mark.parametrize("more", [{}, {"prefix": "mesh"}], ids=["plain", "prefix"])
def test_tcp_sink(tmp_path: Path, more: dict[str, str], tls: bool) -> None:
    received, of_sink = {}, {}
    for kind in ("envoy", "tidegate"):
        receiver = TcpReceiver(tls=tls)
        receiver.start()
        over = {"transport_socket": {"name": "tls", "typed_config": {"@type": TLS}}} if tls else {}
        with served(kind, tmp_path / kind, {}, tcp_sink(**more), [cluster("statsd", receiver.port, **over)]):
            wait_until(receiver.has_all)
        receiver.stop()
        text = receiver.lines()
        received[kind] = metrics(text)
        names = {line.split(":")[0] for line in text.splitlines() if ".cluster.statsd.upstream_" in line}
        # Whether something waits for the socket when the statistics are told is a matter of time.
        of_sink[kind] = {name for name in names if not name.endswith("_buffered")}
    assert received["envoy"], "nothing was compared"
    assert received["tidegate"] == received["envoy"]
    assert of_sink["tidegate"] == of_sink["envoy"]


@pytest.mark.parametrize("kind", ["envoy", "tidegate"])
def test_tcp_sink_again(tmp_path: Path, kind: str) -> None:
    """A server that ends connections gets another one."""
    receiver = TcpReceiver(most=1)
    receiver.start()
    with served(kind, tmp_path / kind, {}, tcp_sink(), [cluster("statsd", receiver.port)]) as proxy:
        wait_until(lambda: sum(map(bool, receiver.connections)) > 3)
        assert b"statsd.cx_overflow: 0" in proxy.admin("/stats?filter=statsd.cx_overflow")[1]
    receiver.socket.close()
    assert all(not each or each.startswith(b"envoy.") for each in receiver.connections)


@pytest.mark.parametrize("kind", ["envoy", "tidegate"])
def test_tcp_sink_overflow(tmp_path: Path, kind: str) -> None:
    """A server that takes nothing costs 16 MiB at most."""
    receiver = TcpReceiver(most=0)
    long = tcp_sink(prefix="x" * 8000)
    with served(kind, tmp_path / kind, {}, long, [cluster("statsd", receiver.port)]) as proxy:
        wait_until(lambda: b"overflow: 0" not in proxy.admin("/stats?filter=statsd.cx_overflow")[1])
        lines = dict(line.split(": ") for line in proxy.admin("/stats?filter=statsd")[1].decode().splitlines())
        assert int(lines["cluster.statsd.upstream_cx_tx_bytes_buffered"]) < 40 << 20
    receiver.socket.close()


@pytest.mark.parametrize("kind", ["envoy", "tidegate"])
def test_tcp_sink_of_no_cluster(tmp_path: Path, kind: str) -> None:
    told = pytest.raises(RuntimeError, match="tcp statsd: unknown cluster 'statsd'")
    with told, served(kind, tmp_path / kind, {}, tcp_sink()):
        pass
