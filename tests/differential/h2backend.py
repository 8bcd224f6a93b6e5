"""The HTTP/2 upstream (prior knowledge) of the differential suite: answers with what it received, as JSON.

A request header `x-do` steers it (comma separated): `status=503`, `len=N` (N bytes instead of the echo),
`delay=SECONDS`, `length` (with a content-length), `trailers`, `header=NAME:VALUE`, `head-only` (END_STREAM on the
head), `big-head=N`, `many-heads=N`, `100`, `103`, `date`, `server=NAME`, `pad=N`, `early` (answers without reading
the body, then RST NO_ERROR), `reset=CODE` (before any answer), `cut=CODE` (head and half the body, then RST),
`refuse` (RST REFUSED_STREAM), `refuse-first` (only the first request with the same `x-key`), `goaway` (answers, then
GOAWAY NO_ERROR), `away`, `away-first` (GOAWAY that leaves this stream out), `fin` / `tcp-reset` (of the connection,
before any answer), `stall` (gives back no window), `grpc=STATUS` (a gRPC answer with its status in trailers),
`grpc-only=STATUS` (in trailers alone), `message=TEXT` (grpc-message), `bad=KIND` (see `_BAD`), `fate` (answers with
what became of the request with the same `x-key`), `first=N` and
`at=NAME` (see `backend`). CONNECT is answered 200 and the bytes echoed.

Raw frames, so that it can answer what no library would. Must not know the proxies.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import struct
from dataclasses import dataclass, field
from typing import ClassVar

import hpack

from differential import frames
from differential.backend import Backend
from differential.frames import ACK, END_HEADERS, END_STREAM, PADDED, PREFACE, TYPES, Frame

_MAX_FRAME = 16384
Pairs = list[tuple[str, str]]

#: Answers that no server may give: fields of the head, as they are.
_BAD: dict[str, list[tuple[bytes, bytes]]] = {
    "no-status": [(b"x-a", b"b")],
    "two-statuses": [(b":status", b"200"), (b":status", b"404")],
    "status-word": [(b":status", b"ok")],
    "status-long": [(b":status", b"2000")],
    "upper-case": [(b":status", b"200"), (b"X-Upper", b"b")],
    "connection": [(b":status", b"200"), (b"connection", b"close")],
    "transfer-encoding": [(b":status", b"200"), (b"transfer-encoding", b"chunked")],
    "pseudo": [(b":status", b"200"), (b":path", b"/")],
    "late-status": [(b"x-a", b"b"), (b":status", b"200")],
    "nul": [(b":status", b"200"), (b"x-a", b"a\0b")],
    "length-more": [(b":status", b"200"), (b"content-length", b"100000")],
    "length-less": [(b":status", b"200"), (b"content-length", b"1")],
    "length-word": [(b":status", b"200"), (b"content-length", b"ten")],
    "101": [(b":status", b"101")],
}


@dataclass
class _Request:
    pairs: Pairs
    body: bytearray = field(default_factory=bytearray)
    trailers: Pairs = field(default_factory=list)
    #: it ended with its head
    headers_only: bool = False
    window: int = 65535
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    reset: str | None = None
    task: asyncio.Task[None] | None = None

    def get(self, name: str) -> str:
        return next((v for n, v in self.pairs if n == name), "")

    @property
    def do(self) -> dict[str, str]:
        return dict(item.partition("=")[::2] for item in self.get("x-do").split(",") if item)


class H2Backend(Backend):
    """An HTTP/2 echo server on 127.0.0.1, in a thread of its own; `settings` are those it announces."""

    settings: ClassVar[dict[str, int]] = {"INITIAL_WINDOW_SIZE": 65535, "ENABLE_CONNECT_PROTOCOL": 1}

    def __init__(self, name: str, settings: dict[str, int] | None = None) -> None:
        super().__init__(name)
        self.announced = self.settings | (settings or {})
        self.refused: set[tuple[str, str]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, reader, writer)
        try:
            await connection.run()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            connection.ended()
            writer.close()


class _Connection:
    def __init__(self, backend: H2Backend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.backend, self.reader, self.writer = backend, reader, writer
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.decoder.max_header_list_size = 1 << 20
        self.requests: dict[int, _Request] = {}
        self.window, self.initial_window, self.last = 65535, 65535, 0
        self.moved = asyncio.Event()
        self.block: tuple[int, int, bytes] = (0, 0, b"")
        self.out = b""

    # === reading ===

    async def run(self) -> None:
        if await self.reader.readexactly(len(PREFACE)) != PREFACE:
            return
        payload = b"".join(
            frames.SETTINGS[n].to_bytes(2, "big") + v.to_bytes(4, "big") for n, v in self.backend.announced.items()
        )
        self.send(Frame(TYPES["SETTINGS"], payload=payload))
        while True:
            head = await self.reader.readexactly(9)
            payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
            self.frame(head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, payload)

    def frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        request = self.requests.get(stream)
        if kind in (TYPES["HEADERS"], TYPES["CONTINUATION"]):
            self.header_block(kind, flags, stream, payload)
        elif kind == TYPES["DATA"]:
            self.data(flags, stream, payload, request)
        elif kind == TYPES["RST_STREAM"] and request:
            request.reset = frames.code_name(int.from_bytes(payload, "big"))
            self.backend.note(request.get("x-key"), f"reset {request.reset}")
            if request.task:
                request.task.cancel()
            request.over.set()
        elif kind == TYPES["WINDOW_UPDATE"]:
            if not stream:
                self.window += int.from_bytes(payload, "big")
            elif request:
                request.window += int.from_bytes(payload, "big")
            self.moved.set()
        elif kind == TYPES["SETTINGS"] and not flags & ACK:
            for at in range(0, len(payload), 6):
                if int.from_bytes(payload[at : at + 2], "big") == frames.SETTINGS["INITIAL_WINDOW_SIZE"]:
                    new = int.from_bytes(payload[at + 2 : at + 6], "big")
                    for other in self.requests.values():
                        other.window += new - self.initial_window
                    self.initial_window = new
            self.send(Frame(TYPES["SETTINGS"], ACK))
            self.moved.set()
        elif kind == TYPES["PING"] and not flags & ACK:
            self.send(Frame(TYPES["PING"], ACK, payload=payload))

    def data(self, flags: int, stream: int, payload: bytes, request: _Request | None) -> None:
        if payload:
            self.send(Frame(TYPES["WINDOW_UPDATE"], payload=len(payload).to_bytes(4, "big")))
        if request is None:
            return
        if payload and "stall" not in request.do and not flags & END_STREAM:
            self.send(Frame(TYPES["WINDOW_UPDATE"], stream=stream, payload=len(payload).to_bytes(4, "big")))
        if flags & PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        request.body += payload
        if flags & END_STREAM:
            request.over.set()
        request.arrived.set()

    def header_block(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == TYPES["HEADERS"]:
            if flags & PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            if flags & frames.PRIORITY:
                payload = payload[5:]
            self.block = (stream, flags & END_STREAM, payload)
        else:
            self.block = (stream, self.block[1], self.block[2] + payload)
        if not flags & END_HEADERS:
            return
        _, end, block = self.block
        pairs = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in self.decoder.decode(block, raw=True)]
        if known := self.requests.get(stream):
            known.trailers = pairs
            known.over.set()
            return
        request = _Request(pairs, headers_only=bool(end), window=self.initial_window)
        self.requests[stream], self.last = request, max(self.last, stream)
        self.backend.seen += 1
        if end:
            request.over.set()
        request.task = asyncio.get_running_loop().create_task(self.answer(stream, request))

    def ended(self) -> None:
        for request in self.requests.values():
            if request.task and not request.task.done():
                self.backend.note(request.get("x-key"), "connection ended")
                request.task.cancel()

    # === answering ===

    def send(self, frame: Frame, fields: Pairs | list[tuple[bytes, bytes]] | None = None) -> None:
        if not self.out:
            asyncio.get_running_loop().call_soon(self.flush)
        if fields is None:
            self.out += frames.encode(frame)
            return
        block = self.encoder.encode(fields)
        kind, flags = frame.kind, frame.flags & ~END_HEADERS
        while len(block) > _MAX_FRAME:
            self.out += frames.encode(Frame(kind, flags, frame.stream, block[:_MAX_FRAME]))
            kind, flags, block = TYPES["CONTINUATION"], 0, block[_MAX_FRAME:]
        self.out += frames.encode(Frame(kind, flags | END_HEADERS, frame.stream, block))

    def flush(self) -> None:
        """What was sent in one go leaves in one write: nobody gets half of it."""
        out, self.out = self.out, b""
        if out and not self.writer.is_closing():
            self.writer.write(out)

    def head(self, stream: int, pairs: Pairs | list[tuple[bytes, bytes]], *, end: bool = False) -> None:
        self.send(Frame(TYPES["HEADERS"], END_STREAM if end else 0, stream), pairs)

    def rst(self, stream: int, code: str) -> None:
        self.send(Frame(TYPES["RST_STREAM"], stream=stream, payload=frames.code(code).to_bytes(4, "big")))

    async def body(self, stream: int, request: _Request, data: bytes, *, end: bool, pad: int = 0) -> None:
        """Sends a body as far and as fast as the windows allow."""
        if end and not data:
            self.send(Frame(TYPES["DATA"], END_STREAM, stream))
        while data:
            room = min(self.window, request.window, _MAX_FRAME) - (pad + 1 if pad else 0)
            if room <= 0:
                self.moved.clear()
                await self.moved.wait()
                continue
            part, data = data[:room], data[room:]
            payload = bytes([pad]) + part + bytes(pad) if pad else part
            self.window -= len(payload)
            request.window -= len(payload)
            flags = (END_STREAM if end and not data else 0) | (PADDED if pad else 0)
            self.send(Frame(TYPES["DATA"], flags, stream, payload))
            if len(self.out) > _MAX_FRAME:
                self.flush()
                await self.writer.drain()

    async def answer(self, stream: int, request: _Request) -> None:
        do = self.backend.steered(request.do, request.get("x-key"))
        if await self.refused(stream, request, do):
            return
        if "100" in do:
            self.head(stream, [(":status", "100")])
        if "103" in do:
            self.head(stream, [(":status", "103"), ("link", "</x>; rel=preload")])
        if request.get(":method") == "CONNECT":
            await self.tunnel(stream, request, do)
            return
        if "early" not in do and "stall" not in do:
            await request.over.wait()
        elif "stall" in do:
            await asyncio.sleep(60)
        if "delay" in do:
            await asyncio.sleep(float(do["delay"]))
        if "bad" in do:
            self.head(stream, _BAD[do["bad"]])
            await self.body(stream, request, b"x" * 10, end=True)
        elif "grpc" in do or "grpc-only" in do:
            await self.grpc(stream, request, do)
        else:
            await self.plain(stream, request, do)
        if "goaway" in do:
            self.send(Frame(TYPES["GOAWAY"], payload=struct.pack(">II", self.last, 0)))
        self.backend.note(request.get("x-key"), "answered")

    def steered_away(self, do: dict[str, str], key: str, what: str) -> bool:
        """Whether it is to fail so: always, or the first time."""
        first = f"{what}-first" in do and (what, key) not in self.backend.refused
        self.backend.refused.add((what, key))
        return what in do or first

    async def refused(self, stream: int, request: _Request, do: dict[str, str]) -> bool:
        """The ends that come before any answer."""
        key = request.get("x-key")
        if self.steered_away(do, key, "refuse"):
            self.rst(stream, "REFUSED_STREAM")
        elif "reset" in do:
            self.rst(stream, do["reset"] or "CANCEL")
        elif self.steered_away(do, key, "away"):
            self.send(Frame(TYPES["GOAWAY"], payload=struct.pack(">II", max(0, stream - 2), 0)))
        elif "fin" in do:
            self.flush()
            self.writer.close()
        elif "tcp-reset" in do:
            sock: socket.socket = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        else:
            return False
        return True

    async def tunnel(self, stream: int, request: _Request, do: dict[str, str]) -> None:
        """Answers CONNECT: by a status, or by what it is sent."""
        if "status" in do:
            self.head(stream, [(":status", do["status"]), ("x-backend", self.backend.name)], end=True)
            return
        self.head(stream, [(":status", "200"), ("x-backend", self.backend.name), *self.named(do)])
        sent, end = 0, False
        while not end:
            await request.arrived.wait()
            request.arrived.clear()
            end = request.over.is_set()
            part, sent = bytes(request.body[sent:]), len(request.body)
            if part or end:
                self.send(Frame(TYPES["DATA"], END_STREAM if end else 0, stream, part))
        self.backend.note(request.get("x-key"), "tunnel ended")

    def named(self, do: dict[str, str]) -> Pairs:
        if "header" not in do:
            return []
        name, _, value = do["header"].partition(":")
        return [(name, value)]

    async def grpc(self, stream: int, request: _Request, do: dict[str, str]) -> None:
        status = [("grpc-status", do.get("grpc") or do["grpc-only"])]
        if "message" in do:
            status.append(("grpc-message", do["message"]))
        head = [(":status", "200"), ("content-type", "application/grpc"), ("x-backend", self.backend.name)]
        if "grpc-only" in do:
            self.head(stream, [*head, *status], end=True)
            return
        self.head(stream, [*head, *self.named(do)])
        await self.body(stream, request, b"\0\0\0\0\3abc", end=False)
        self.head(stream, status, end=True)

    async def plain(self, stream: int, request: _Request, do: dict[str, str]) -> None:
        status = int(do.get("status", "200"))
        payload = b"x" * int(do["len"]) if "len" in do else json.dumps(await self.echo(request, do)).encode()
        head = [(":status", str(status)), ("content-type", "application/json"), ("x-backend", self.backend.name)]
        head += self.named(do)
        if "big-head" in do:
            head.append(("x-big", "b" * int(do["big-head"])))
        head += [(f"x-{n}", "v") for n in range(int(do.get("many-heads", "0")))]
        if "date" in do:
            head.append(("date", "Mon, 01 Jan 2024 00:00:00 GMT"))
        if "server" in do:
            head.append(("server", do["server"]))
        if "length" in do:
            head.append(("content-length", str(len(payload))))
        if request.get(":method") == "HEAD" or status in (204, 304) or "head-only" in do:
            self.head(stream, head, end=True)
            return
        self.head(stream, head)
        if "cut" in do:
            await self.body(stream, request, payload[: len(payload) // 2], end=False)
            self.rst(stream, do["cut"] or "CANCEL")
            return
        await self.body(stream, request, payload, end="trailers" not in do, pad=int(do.get("pad", "0")))
        if "trailers" in do:
            self.head(stream, [("x-trailer", "yes"), ("x-trailer", "twice")], end=True)
        if "early" in do and not request.over.is_set():
            self.rst(stream, "NO_ERROR")

    async def echo(self, request: _Request, do: dict[str, str]) -> dict[str, object]:
        if "fate" in do:
            return {"backend": self.backend.name, "headers": [], "fate": await self.backend.fate(request.get("x-key"))}
        return {
            "backend": self.backend.name,
            "headers": sorted(request.pairs, key=lambda p: p[0]),
            "pseudo_first": [n[:1] == ":" for n, _ in request.pairs]
            == sorted([n[:1] == ":" for n, _ in request.pairs], reverse=True),
            "body": [len(request.body), hashlib.sha256(request.body).hexdigest()[:12]],
            "trailers": request.trailers,
            "headers_only": request.headers_only,
        }
