"""The work put to every proxy, as data.

A case names a protocol, the path or mode of the backend and how the load generator drives it. Must not know how a
proxy is configured (`peers.py`) or measured (`rig.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Protocol = Literal["http", "tcp"]


@dataclass(frozen=True)
class Case:
    """One kind of work. `load` are the load generator's arguments besides address, time and CPU."""

    name: str
    summary: str
    protocol: Protocol
    #: what the proxy forwards to: a port name of `tg-backend`
    backend: str
    load: tuple[str, ...]


def _http(name: str, summary: str, *load: str) -> Case:
    return Case(name, summary, "http", "http", ("http", *load))


CASES: tuple[Case, ...] = (
    _http("h1-get100", "GET 100 B, 64 keep-alive connections", "--connections", "64", "--path", "/100"),
    _http("h1-get64k", "GET 64 KiB, 64 keep-alive connections", "--connections", "64", "--path", "/64k"),
    _http("h1-post16k", "POST 16 KiB, 64 keep-alive connections", "--connections", "64", "--path", "/post",
          "--method", "POST", "--body", "16384"),
    _http("h1-chunked", "GET 63 kB chunked, 64 keep-alive connections", "--connections", "64", "--path", "/chunked"),
    _http("h1-single", "GET 100 B, one connection", "--connections", "1", "--path", "/100"),
    Case("tcp-pingpong64", "TCP ping-pong of 64 B, 64 connections", "tcp", "echo",
         ("tcp-pingpong", "--connections", "64", "--size", "64")),
    Case("tcp-connect", "TCP connect, one byte each way, close", "tcp", "echo", ("tcp-connect", "--connections", "16")),
)  # fmt: skip

#: What a run measures when nothing is named.
DEFAULT = ("h1-get100", "tcp-pingpong64")


def by_name(names: list[str]) -> list[Case]:
    """The cases of these names, in the order of the table; `KeyError` names the first unknown one."""
    known = {case.name: case for case in CASES}
    for name in names:
        if name not in known:
            raise KeyError(name)
    return [case for case in CASES if case.name in names]
