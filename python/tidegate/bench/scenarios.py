"""The work put to every proxy, as data.

A case names a protocol, what the proxy routes by, the port of the backend and how the load generator drives it. Must
not know how a proxy is configured (`peers`) or measured (`rig`).
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Literal

Protocol = Literal["http", "tcp"]

#: How a case is run. `load`: bursts against proxies that stay up, in turns. `storm`: the same, each burst once in
#: peace and once under updates. `redirect`: through iptables, the proxies one at a time. `idle` and `startup`: a new
#: process for every figure.
Kind = Literal["load", "storm", "redirect", "idle", "startup"]

EVERYBODY = ("direct", "tidegate", "envoy", "haproxy", "nginx")
PROXIES = ("tidegate", "envoy", "haproxy", "nginx")
SIDECARS = ("direct", "tidegate", "envoy")

#: The server name in TLS handshakes.
TLS_NAME = "bench.example"

#: Where requests to a table go: `{n}` is the entry's number.
VHOST, WILDCARD = "svc-{n}.bench.example", "app.svc-{n}.bench.example"


@dataclass(frozen=True)
class Table:
    """What the proxy routes by: `size` entries, each of which a request can hit, all with the same upstream.

    `vhosts`: virtual hosts of one domain each (`svc-N.bench.example` or `*.svc-N.bench.example`). `routes`: routes of
    one virtual host, first match in order (path prefix `/svc-N/`, header `x-svc: vN`, path regex `/svc-N/[a-z0-9]+`).
    `clusters`: virtual hosts, each with a cluster of its own.
    """

    of: Literal["vhosts", "routes", "clusters"]
    size: int
    match: Literal["exact", "wildcard", "prefix", "header", "regex"]


#: The column headings of the table, per metric: name and unit. Of all but `rate` less is better.
METRICS = {
    "cpu_us": ("CPU", "us/op"),
    "rate": ("rate", "op/s"),
    "p50_us": ("p50", "us"),
    "p99_us": ("p99", "us"),
    "p999_us": ("p99.9", "us"),
    "added_p50_us": ("added p50", "us"),
    "added_p99_us": ("added p99", "us"),
    "added_p999_us": ("added p99.9", "us"),
    "quiet_p99_us": ("quiet p99", "us"),
    "quiet_cpu_us": ("quiet CPU", "us/op"),
    "updates": ("updates", ""),
    # How often the backend slept: whoever sends to it then pays for waking it (see bench/README.md).
    "backend_sleeps": ("backend sleeps", "per op"),
    "bytes_per_connection": ("memory", "B/connection"),
    "anon_bytes_per_connection": ("anonymous", "B/connection"),
    "bytes_per_stream": ("memory", "B/stream"),
    "anon_bytes_per_stream": ("anonymous", "B/stream"),
    "load_seconds": ("load time", "s"),
    "memory_mb": ("memory", "MB"),
    "anon_mb": ("anonymous", "MB"),
}


@dataclass(frozen=True)
class Case:
    """One kind of work. `load` are the load generator's arguments besides address, time and CPU."""

    name: str
    summary: str
    protocol: Protocol
    #: what the proxy forwards to: a port name of `tg-backend`
    backend: str
    load: tuple[str, ...]
    kind: Kind = "load"
    peers: tuple[str, ...] = EVERYBODY
    table: Table | None = None
    #: the filters, request ids and access log of an Istio sidecar
    istio: bool = False
    #: which sides speak HTTP/2: both (`h2-h2`), the client's (`h2-h1`), the upstream's (`h1-h2`)
    http2: Literal["", "h2-h2", "h2-h1", "h1-h2"] = ""
    #: the proxy ends TLS 1.3 (the load generator's `--tls`); its upstream is cleartext
    tls: bool = False
    #: what is shown, the headline first
    columns: tuple[str, ...] = ("cpu_us", "rate", "p50_us", "p99_us")
    #: what `--baseline` compares
    guards: tuple[str, ...] = ("cpu_us",)

    @property
    def headline(self) -> str:
        return self.columns[0]

    @property
    def http2_client(self) -> bool:
        return self.http2.startswith("h2")

    @property
    def http2_upstream(self) -> bool:
        return self.http2.endswith("h2")


def _http(name: str, summary: str, *load: str) -> Case:
    return Case(name, summary, "http", "http", ("http", *load))


def _tcp(name: str, summary: str, backend: str, *load: str) -> Case:
    return Case(name, summary, "tcp", backend, load)


_SIXTY_FOUR = ("--connections", "64")

_PLAIN = (
    _http("h1-get100", "GET 100 B, 64 keep-alive connections", *_SIXTY_FOUR, "--path", "/100"),
    _http("h1-get64k", "GET 64 KiB, 64 keep-alive connections", *_SIXTY_FOUR, "--path", "/64k"),
    _http("h1-post16k", "POST 16 KiB, 64 keep-alive connections", *_SIXTY_FOUR, "--path", "/post",
          "--method", "POST", "--body", "16384"),
    _http("h1-chunked", "GET 63 kB chunked, 64 keep-alive connections", *_SIXTY_FOUR, "--path", "/chunked"),
    _http("h1-single", "GET 100 B, one connection", "--connections", "1", "--path", "/100"),
    Case("h1-istio", "GET 100 B through a sidecar's filters, request ids, access log to a file", "http", "http",
         ("http", *_SIXTY_FOUR, "--path", "/100"), peers=SIDECARS, istio=True),
)  # fmt: skip

_TCP = (
    _tcp("tcp-pingpong64", "TCP ping-pong of 64 B, 64 connections", "echo",
         "tcp-pingpong", *_SIXTY_FOUR, "--size", "64"),
    _tcp("tcp-pingpong16k", "TCP ping-pong of 16 KiB, 64 connections", "echo",
         "tcp-pingpong", *_SIXTY_FOUR, "--size", "16384"),
    Case("tcp-bulk-up", "TCP towards the backend without end, 4 connections; an operation is a MiB", "tcp", "sink",
         ("tcp-bulk-up", "--connections", "4"), columns=("cpu_us", "rate")),
    Case("tcp-bulk-down", "TCP from the backend without end, 4 connections; an operation is a MiB", "tcp", "source",
         ("tcp-bulk-down", "--connections", "4"), columns=("cpu_us", "rate")),
    _tcp("tcp-connect", "TCP connect, one byte each way, close", "echo", "tcp-connect", "--connections", "16"),
)  # fmt: skip


def _tls(name: str, summary: str, mode: str, connections: int, path: str) -> Case:
    # `direct` has no TLS.
    load = (mode, "--tls", TLS_NAME, "--connections", str(connections), "--path", path)
    return Case(name, summary, "http", "http", load, peers=PROXIES, tls=True)


_TLS = (
    _tls("tls-handshake", "connect, full TLS 1.3 handshake (P-256 certificate), GET 100 B, close",
         "http-connect", 16, "/100"),
    _tls("tls-get100", "GET 100 B over TLS 1.3, 64 keep-alive connections", "http", 64, "/100"),
    _tls("tls-get64k", "GET 64 KiB over TLS 1.3, 64 keep-alive connections", "http", 64, "/64k"),
)  # fmt: skip


def _over(size: int, what: str) -> str:
    return f"one {what}" if size == 1 else f"walking over {size:,} {what}s"


def _vhosts() -> tuple[Case, ...]:
    cases = []
    for size in (1, 1000, 10_000):
        for match, host in (("exact", VHOST), ("wildcard", WILDCARD)):
            cases.append(
                Case(f"vhosts-{size}-{match}", f"GET 100 B, {_over(size, 'virtual host')} ({match})",
                     "http", "http", ("http", *_SIXTY_FOUR, "--path", "/100", "--host", host, "--range", f"0..{size}"),
                     table=Table("vhosts", size, "exact" if match == "exact" else "wildcard"))
            )  # fmt: skip
    return tuple(cases)


def _routes() -> tuple[Case, ...]:
    cases = []
    requests: tuple[tuple[Literal["prefix", "header", "regex"], tuple[str, ...]], ...] = (
        ("prefix", ("--path", "/svc-{n}/100")),
        ("header", ("--path", "/100", "--header", "x-svc: v{n}")),
        ("regex", ("--path", "/svc-{n}/100")),
    )
    for size in (1, 1000):
        for match, request in requests:
            for which, span in (("average", f"0..{size}"), ("last", f"{size - 1}..{size}")):
                where = (
                    _over(size, "route") if which == "average" or size == 1 else f"always the last of {size:,} routes"
                )
                cases.append(
                    Case(f"routes-{size}-{match}-{which}", f"GET 100 B, {where} by {match}",
                         "http", "http", ("http", *_SIXTY_FOUR, *request, "--range", span),
                         table=Table("routes", size, match))
                )  # fmt: skip
    return tuple(cases)


_MEMORY = ("bytes_per_connection", "anon_bytes_per_connection")

_STREAM_MEMORY = ("bytes_per_stream", "anon_bytes_per_stream")


def _http2(name: str, summary: str, backend: str, *load: str) -> Case:
    return Case(name, summary, "http", backend, load, http2="h2-h2")


_HTTP2 = (
    _http2("h2-get", "GET 100 B over HTTP/2 on both sides, 8 connections of 32 streams", "h2_100",
           "h2", "--connections", "8", "--streams", "32", "--path", "/100"),
    _http2("h2-single", "GET 100 B over HTTP/2 on both sides, 64 connections of one stream", "h2_100",
           "h2", *_SIXTY_FOUR, "--streams", "1", "--path", "/100"),
    _http2("h2-mixed", "as h2-get, with another path and trace id in each request", "h2_100",
           "h2", "--connections", "8", "--streams", "32", "--path", "/items/{n}/detail?page={n}",
           "--header", "traceparent: 00-{h}-00f067aa0ba902b7-01", "--range", "0..5000"),
    _http2("h2-download", "GET 64 KiB over HTTP/2 on both sides, 8 connections of 8 streams", "h2_64k",
           "h2", "--connections", "8", "--streams", "8", "--path", "/64k"),
    _http2("grpc-unary", "gRPC calls of 69 B each way, 8 connections of 32 streams", "h2_unary",
           "grpc", "--connections", "8", "--streams", "32", "--path", "/bench.Echo/Unary", "--body", "64"),
    _http2("grpc-stream", "gRPC messages of 69 B there and back on streams that stay, 8 connections of 32 streams",
           "h2_echo",
           "grpc-stream", "--connections", "8", "--streams", "32", "--path", "/bench.Echo/Stream", "--body", "64"),
    Case("h2-h1", "GET 100 B, HTTP/2 in and HTTP/1 out, 8 connections of 32 streams", "http", "http",
         ("h2", "--connections", "8", "--streams", "32", "--path", "/100"),
         peers=PROXIES, http2="h2-h1"),
    Case("h1-h2", "GET 100 B, HTTP/1 in and HTTP/2 out, 64 keep-alive connections", "http", "h2_100",
         ("http", *_SIXTY_FOUR, "--path", "/100"), peers=PROXIES, http2="h1-h2"),
    Case("h2-idle", "bytes per idle connection: 4,000 HTTP/2 connections after a request each", "http", "h2_100",
         ("idle-h2", "--connections", "4000", "--path", "/100"),
         kind="idle", peers=PROXIES, columns=_MEMORY, guards=_MEMORY[:1], http2="h2-h2"),
    Case("h2-idle-streams", "bytes per open stream: 100 HTTP/2 connections of 50 streams whose heads went both ways",
         "http", "h2_echo", ("idle-h2", "--connections", "100", "--streams", "50", "--path", "/bench.Echo/Stream"),
         kind="idle", peers=PROXIES, columns=_STREAM_MEMORY, guards=_STREAM_MEMORY[:1], http2="h2-h2"),
)  # fmt: skip

_OTHER = (
    Case("idle-connections-http", "bytes per idle connection: 4,000 keep-alive HTTP connections after a request each",
         "http", "http", ("idle-http", "--connections", "4000", "--path", "/100"),
         kind="idle", peers=PROXIES, columns=_MEMORY, guards=_MEMORY[:1]),
    Case("idle-connections-tcp", "bytes per idle connection: 4,000 TCP connections after a byte each way",
         "tcp", "echo", ("idle-tcp", "--connections", "4000"),
         kind="idle", peers=PROXIES, columns=_MEMORY, guards=_MEMORY[:1]),
    Case("config-10000", "10,000 clusters of one endpoint and 10,000 virtual hosts: exec to first answer; memory",
         "http", "http", (), kind="startup", peers=PROXIES, table=Table("clusters", 10_000, "exact"),
         columns=("load_seconds", "memory_mb", "anon_mb"), guards=("load_seconds", "memory_mb")),
    Case("redirect", "GET 100 B, 64 keep-alive connections, through iptables and the original destination",
         "http", "http", ("http", *_SIXTY_FOUR, "--path", "/100"), kind="redirect", peers=SIDECARS),
    Case("redirect-connect", "TCP connect, a byte each way, close, through iptables and the original destination",
         "tcp", "echo", ("tcp-connect", "--connections", "16"), kind="redirect", peers=SIDECARS),
    Case("latency", "GET 100 B at a fixed 2,000 a second on 16 connections: latency added over direct",
         "http", "http", ("http", "--connections", "16", "--rate", "2000", "--path", "/100"),
         columns=("added_p50_us", "added_p99_us", "added_p999_us", "p50_us", "p99_us", "p999_us", "cpu_us")),
    Case("update-storm", "2,000 GETs a second under 10 EDS, 2 RDS and 1 LDS updates a second over ADS",
         "http", "http", ("http", "--connections", "16", "--rate", "2000", "--path", "/100"),
         kind="storm", peers=("tidegate", "envoy"),
         columns=("cpu_us", "quiet_cpu_us", "p50_us", "p99_us", "quiet_p99_us", "updates")),
)  # fmt: skip

CASES: tuple[Case, ...] = (*_PLAIN, *_HTTP2, *_TLS, *_TCP, *_vhosts(), *_routes(), *_OTHER)

#: What a run measures when nothing is named.
DEFAULT = ("h1-get100", "tcp-pingpong64")

#: Short names for several cases.
ALIASES = {
    "all": ("*",),
    "http": ("h1-*", "h2-*", "grpc-*"),
    "http1": ("h1-get*", "h1-post*", "h1-chunked", "h1-single", "h1-istio"),
    "http2": ("h2-*", "grpc-*", "h1-h2"),
    "tls": ("tls-*",),
    "tcp": ("tcp-*",),
    "vhosts": ("vhosts-*",),
    "routes": ("routes-*",),
    "tables": ("vhosts-*", "routes-*"),
    "memory": ("idle-connections-*", "h2-idle*", "config-10000"),
    "idle-connections": ("idle-connections-*",),
    # Both protocols, a table, a connection and the memory: a few minutes, for a check of every change.
    "ci": ("h1-get100", "h1-get64k", "h1-istio", "tcp-pingpong64", "tcp-connect", "vhosts-1000-exact",
           "routes-1000-prefix-average", "idle-connections-http"),
}  # fmt: skip


def select(words: list[str]) -> list[Case]:
    """The cases of these names, aliases and globs, in the order of the table; `KeyError` names a word without any."""
    chosen: set[str] = set()
    for word in words:
        patterns = ALIASES.get(word, (word,))
        found = {case.name for case in CASES for pattern in patterns if fnmatch.fnmatchcase(case.name, pattern)}
        if not found:
            raise KeyError(word)
        chosen |= found
    return [case for case in CASES if case.name in chosen]
