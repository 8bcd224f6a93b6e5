"""The upstream of the differential suite: answers every request with what it received, as JSON.

A request header `x-do` steers it (comma separated): `status=503`, `len=N` (N bytes instead of the echo), `chunked`,
`trailers`, `delay=SECONDS`, `close` (connection: close), `until-close` (no length), `reset` (RST before any answer),
`fin` (close before any answer), `cut` (half the announced body, then close), `header=NAME:VALUE`, `early` (answers
before reading the body), `100` (an interim 100), `103`, `nodate`, `garbage`, `big-head=N`, `hang` (no answer; waits
for the end of the connection), `fate` (answers with what became of the request with the same `x-key`), `first=N` (all
this for the first N requests with the same `x-key` only; later ones are answered plainly), `at=NAME` (at the backend of
that name only), `grpc-status=N` (in the head), `type=CONTENT-TYPE`, `recall` (answers with what the request with the
same `x-key` before it was: what a mirror got; waits for one). An `upgrade: websocket` is accepted and the bytes echoed.

Standard library only; must not know the proxies.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Backend:
    """An HTTP/1.1 echo server on 127.0.0.1, in a thread of its own."""

    name: str
    port: int = 0
    seen: int = 0
    #: what became of the requests that have an `x-key`
    fates: dict[str, list[str]] = field(default_factory=dict)
    #: what the requests that have an `x-key` were
    echoes: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: how many requests of an `x-key` with `first` there were
    tries: dict[str, int] = field(default_factory=dict)
    #: speaks TLS; the echo has what was agreed on
    tls: ssl.SSLContext | None = None
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _ready: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> Backend:
        self._thread = threading.Thread(target=self._run, name=f"backend-{self.name}", daemon=True)
        self._thread.start()
        self._ready.wait(5)
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread:
            self._thread.join(5)
        self._loop.close()

    @staticmethod
    def agreed(writer: asyncio.StreamWriter) -> dict[str, Any] | None:
        """What this connection's handshake came to: version, protocol, server name, the client's name."""
        connection = writer.get_extra_info("ssl_object")
        if connection is None:
            return None
        certificate = connection.getpeercert() or {}
        return {
            "version": connection.version(),
            "alpn": connection.selected_alpn_protocol(),
            "sni": getattr(connection, "asked_for", None),
            "peer": [value for names in certificate.get("subject", ()) for _, value in names],
        }

    def note(self, key: str, what: str) -> None:
        if key:
            self.fates.setdefault(key, []).append(what)

    def steered(self, do: dict[str, str], key: str) -> dict[str, str]:
        """What is left of the steering: nothing for another backend, and after the first so many requests."""
        if do.get("at", self.name) != self.name:
            return {}
        if "first" in do:
            self.tries[key] = self.tries.get(key, 0) + 1
            if self.tries[key] > int(do["first"]):
                return {}
        return do

    async def fate(self, key: str) -> list[str]:
        """What became of the request of this key; waits for something to become of it."""
        for _ in range(400):
            if key in self.fates:
                break
            await asyncio.sleep(0.01)
        return self.fates.get(key, [])

    async def recall(self, key: str) -> dict[str, Any]:
        """The request of this key that came before; waits a second for it."""
        for _ in range(100):
            if key in self.echoes:
                return self.echoes[key]
            await asyncio.sleep(0.01)
        return {"backend": self.name, "headers": [], "recall": None}

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        if self.tls:
            self.tls.sni_callback = lambda connection, name, _: setattr(connection, "asked_for", name)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024, ssl=self.tls)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass
        except ValueError:  # no HTTP/1
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return False
        self.seen += 1
        request_line, *lines = head[:-4].split("\r\n")
        method, path, _ = request_line.split(" ", 2)
        headers = [(n.lower(), v.strip()) for n, _, v in (line.partition(":") for line in lines)]
        get = dict(headers).get
        do = dict(item.partition("=")[::2] for item in get("x-do", "").split(",") if item)
        do = self.steered(do, get("x-key", ""))

        if "reset" in do:
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        if "fin" in do:
            return False
        if "hang" in do:
            with contextlib.suppress(ConnectionError):
                while await reader.read(65536):
                    pass
            self.note(get("x-key", ""), "connection ended")
            return False
        if "delay" in do:
            await asyncio.sleep(float(do["delay"]))
        if "garbage" in do:
            writer.write(b"garbage\r\n\r\n")
            await writer.drain()
            return False
        if get("upgrade", "").lower() == "websocket" and "refuse" not in do:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n")
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            return False
        if "100" in do:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "103" in do:
            writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n")

        trailers: list[str] = []
        body = b"" if "early" in do else await self._body(reader, get, trailers)
        echo: dict[str, Any] = {
            "backend": self.name,
            "method": method,
            "path": path,
            "headers": sorted(headers),
            "body": [len(body), hashlib.sha256(body).hexdigest()[:12]],
        }
        if trailers:
            echo["trailers"] = trailers
        key = get("x-key", "")
        if "recall" in do:
            echo = await self.recall(key)
        elif key:
            self.echoes[key] = echo
        if "fate" in do:
            echo = {"backend": self.name, "headers": [], "fate": await self.fate(get("x-key", ""))}
        return await self._answer(writer, do, method, echo)

    @staticmethod
    async def _body(reader: asyncio.StreamReader, get, trailers: list[str]) -> bytes:  # type: ignore[no-untyped-def]
        if "chunked" in get("transfer-encoding", "").lower():
            body = b""
            while size := int((await reader.readuntil(b"\n")).split(b";")[0], 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
            while line := (await reader.readline()).strip():
                trailers.append(line.decode("latin-1"))
            return body
        return await reader.readexactly(int(get("content-length", "0")))

    async def _answer(
        self, writer: asyncio.StreamWriter, do: dict[str, str], method: str, echo: dict[str, Any]
    ) -> bool:
        status = int(do.get("status", "200"))
        if agreed := self.agreed(writer):
            echo["tls"] = agreed
        payload = b"x" * int(do["len"]) if "len" in do else json.dumps(echo).encode()
        if status in (204, 304):
            payload = b""
        out = [
            f"HTTP/1.1 {status} {do.get('reason', 'Because')}",
            "content-type: " + do.get("type", "application/json"),
            "x-backend: " + self.name,
        ]
        if "header" in do:
            name, _, value = do["header"].partition(":")
            out.append(f"{name}: {value}")
        if "grpc-status" in do:
            out.append("grpc-status: " + do["grpc-status"])
        if "big-head" in do:
            out.append("x-big: " + "b" * int(do["big-head"]))
        if "date" in do:
            out.append("date: Mon, 01 Jan 2024 00:00:00 GMT")
        if "server" in do:
            out.append("server: " + do["server"])
        close = "close" in do or "until-close" in do
        if close:
            out.append("connection: close")
        if "chunked" in do or "trailers" in do:
            out.append("transfer-encoding: chunked")
        elif "until-close" not in do and status not in (204,):
            out.append(f"content-length: {len(payload)}")
        writer.write(("\r\n".join(out) + "\r\n\r\n").encode("latin-1"))
        if method == "HEAD":
            payload = b""
        elif "chunked" in do or "trailers" in do:
            half = len(payload) // 2
            for part in (payload[:half], payload[half:]):
                if part:
                    writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            writer.write(b"0\r\n" + (b"x-trailer: yes\r\n" if "trailers" in do else b"") + b"\r\n")
        elif "cut" in do:
            writer.write(payload[: len(payload) // 2])
            await writer.drain()
            return False
        else:
            writer.write(payload)
        await writer.drain()
        return not close


#: Below what Linux gives out by itself (32768 and up), so that nobody is given a port between its choice and its use.
_PORTS = range(20_000, 32_000)
_BLOCK = 100
_claims: list[socket.socket] = []
_mine: Iterator[int] = iter(())


def _claimed() -> Iterator[int]:
    """A hundred ports no other process of the tests gets while this one lives: a name in the kernel says whose.

    Which hundred is a matter of chance: two runs on one machine seldom try for the same.
    """
    starts = list(_PORTS[::_BLOCK])
    for start in random.sample(starts, len(starts)):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0tidegate-tests-ports-{start}")
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return iter(range(start + 1, start + _BLOCK))  # no round numbers: a port is told from a length
    raise RuntimeError("no free ports are left for the tests")


def free_port() -> int:
    """A port of this process's own that nothing listens on; not given out twice."""
    global _mine
    while True:
        for port in _mine:
            with socket.socket() as sock, contextlib.suppress(OSError):
                sock.bind(("127.0.0.1", port))
                return port
        _mine = _claimed()
