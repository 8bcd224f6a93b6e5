"""A raw HTTP/2 client that hides nothing: the frames of the case out, and everything that came back, by stream.

Of its own accord it sends the preface and SETTINGS (unless told not to), acknowledges SETTINGS and PING, and gives
back the windows it uses (unless told not to). Must not know the proxies.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import hpack

from differential import frames
from differential.client import Tls, receive
from differential.frames import ACK, END_STREAM, PADDED, PREFACE, TYPES, Frame, Pause, Raw, Shut, Step, Wait

_DATA, _HEADERS, _RST, _SETTINGS = TYPES["DATA"], TYPES["HEADERS"], TYPES["RST_STREAM"], TYPES["SETTINGS"]
_PING, _GOAWAY, _CONTINUATION = TYPES["PING"], TYPES["GOAWAY"], TYPES["CONTINUATION"]
_BARRIER = b"barrier!"
_WINDOW = 1 << 20


@dataclass
class Message:
    """What came on one stream."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    informational: list[tuple[int, list[tuple[str, str]]]] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[str, str]] | None = None
    #: the name of the code it was reset with
    reset: str | None = None
    ended: bool = False
    #: it ended with the head
    headers_only: bool = False

    def get(self, name: str) -> str | None:
        return next((v for n, v in self.headers if n == name), None)

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None


@dataclass
class Conversation:
    """All that one connection brought. `end`: open, eof or reset; `goaway`: (last stream, code) of each."""

    streams: dict[int, Message]
    end: str
    settings: dict[str, int]
    goaway: list[tuple[int, str]]
    #: bytes in place of HTTP/2
    leftover: bytes
    port: int


class Client:
    def __init__(
        self,
        port: int,
        *,
        timeout: float = 8.0,
        settings: dict[str, int] | None = None,
        give_back: bool = True,
        preface: bool = True,
        tls: Tls | None = None,
    ) -> None:
        self.sock: Any = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.deadline = time.monotonic() + timeout
        self.port: int = self.sock.getsockname()[1]
        if tls is not None:
            self.sock = tls.context.wrap_socket(self.sock, server_hostname=tls.server_name)
        self.give_back = give_back
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.decoder.max_allowed_table_size = 65536
        self.decoder.max_header_list_size = 1 << 20
        self.streams: dict[int, Message] = {}
        self.opened: set[int] = set()
        self.settings: dict[str, int] = {}
        self.goaway: list[tuple[int, str]] = []
        self.end = "open"
        self.buffer = b""
        self.leftover = b""
        self.settings_seen = False
        self.pings: list[bytes] = []
        #: what is owed to the other side waits for the preface
        self.mute = not preface
        self.owed = b""
        self._block: tuple[int, int, bytes] | None = None
        if preface:
            first = {"INITIAL_WINDOW_SIZE": _WINDOW, "ENABLE_PUSH": 0} if settings is None else settings
            payload = b"".join(frames.SETTINGS[n].to_bytes(2, "big") + v.to_bytes(4, "big") for n, v in first.items())
            self.send(PREFACE + frames.encode(Frame(_SETTINGS, payload=payload)))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    # === what goes out ===

    def send(self, data: bytes) -> None:
        """Sends all of it, reading meanwhile: the other side may wait for us to."""
        self.sock.settimeout(0.2)
        rest = memoryview(data)
        while rest and self.end == "open" and time.monotonic() < self.deadline:
            try:
                rest = rest[self.sock.send(rest) :]
            except TimeoutError:
                self.read(time.monotonic() + 0.01)
            except ConnectionError:
                # What came before says why; reading it finds the end.
                while self.read(time.monotonic() + 1):
                    pass
                return

    def encode(self, frame: Frame) -> bytes:
        if frame.kind == _HEADERS:
            self.opened.add(frame.stream)
        if frame.fields is None:
            return frames.encode(frame)
        return frames.encode(frame, self.encoder.encode(list(frame.fields)))

    # === what comes in ===

    def read(self, deadline: float | None = None) -> bool:
        """Takes what there is, waiting for something; false if nothing came, or nothing more will."""
        left = (deadline or self.deadline) - time.monotonic()
        if self.end != "open" or left <= 0:
            return False
        data = receive(self.sock, left)
        if isinstance(data, str):
            self.end = data
            return False
        if data:
            self.buffer += data
            self._frames()
        return bool(data)

    def _frames(self) -> None:
        if self.leftover or (not self.settings_seen and not self._is_http2()):
            self.leftover, self.buffer = self.leftover + self.buffer, b""
            return
        answer = b""
        while len(self.buffer) >= 9:
            length = int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < 9 + length:
                break
            kind, flags = self.buffer[3], self.buffer[4]
            stream = int.from_bytes(self.buffer[5:9], "big") & 0x7FFFFFFF
            payload, self.buffer = self.buffer[9 : 9 + length], self.buffer[9 + length :]
            answer += self._frame(kind, flags, stream, payload)
        if self.mute:
            self.owed += answer
        elif answer:
            with contextlib.suppress(OSError):
                self.sock.sendall(answer)

    def _is_http2(self) -> bool:
        """A server's first frame is SETTINGS; anything else is another protocol."""
        return len(self.buffer) < 4 or self.buffer[3] in (_SETTINGS, _GOAWAY)

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        """Takes a frame in; the answer that is owed at once."""
        message = self.streams.setdefault(stream, Message()) if stream else Message()
        if kind == _SETTINGS and not flags & ACK:
            self._take_settings(payload)
            return frames.encode(Frame(_SETTINGS, ACK))
        if kind == _PING:
            if not flags & ACK:
                return frames.encode(Frame(_PING, ACK, payload=payload))
            self.pings.append(payload)
        elif kind == _GOAWAY:
            last, code = int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")
            self.goaway.append((last, frames.code_name(code)))
        elif kind == _RST:
            message.reset = frames.code_name(int.from_bytes(payload, "big"))
        elif kind == _DATA:
            if flags & PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            message.body += payload
            message.ended |= bool(flags & END_STREAM)
            if payload and self.give_back:
                size = len(payload).to_bytes(4, "big")
                updates = frames.encode(Frame(TYPES["WINDOW_UPDATE"], payload=size))
                if not message.ended:
                    updates += frames.encode(Frame(TYPES["WINDOW_UPDATE"], stream=stream, payload=size))
                return updates
        elif kind in (_HEADERS, _CONTINUATION):
            self._headers(kind, flags, stream, payload, message)
        return b""

    def _take_settings(self, payload: bytes) -> None:
        names = {v: k for k, v in frames.SETTINGS.items()}
        for at in range(0, len(payload), 6):
            key, value = int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big")
            self.settings[names.get(key, hex(key))] = value
        self.settings_seen = True
        if (table := self.settings.get("HEADER_TABLE_SIZE", 4096)) < self.encoder.header_table_size:
            self.encoder.header_table_size = table

    def _headers(self, kind: int, flags: int, stream: int, payload: bytes, message: Message) -> None:
        if kind == _HEADERS:
            if flags & PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            if flags & frames.PRIORITY:
                payload = payload[5:]
            self._block = (stream, flags & END_STREAM, payload)
        elif self._block:
            self._block = (stream, self._block[1], self._block[2] + payload)
        if not flags & frames.END_HEADERS or self._block is None:
            return
        _, end, block = self._block
        pairs = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in self.decoder.decode(block, raw=True)]
        status = next((int(v) for n, v in pairs if n == ":status"), 0)
        if message.status:
            message.trailers = pairs
        elif 100 <= status < 200:
            message.informational.append((status, pairs))
        else:
            message.status, message.headers = status, pairs
            message.headers_only = bool(end)
        message.ended |= bool(end)

    # === what is waited for ===

    def until(self, done: Callable[[], bool], seconds: float | None = None) -> bool:
        deadline = self.deadline if seconds is None else min(self.deadline, time.monotonic() + seconds)
        while not done():
            if not self.read(deadline):
                return done()
        return True

    def stream(self, number: int) -> Message:
        return self.streams.setdefault(number, Message())

    def barrier(self, seconds: float | None = None) -> bool:
        """Waits until the other side has answered all that it answers at once: a PING there and back."""
        before = len(self.pings)
        self.send(frames.encode(Frame(_PING, payload=_BARRIER)))
        return self.until(lambda: len(self.pings) > before, seconds)

    def wait(self, wait: Wait) -> None:
        if isinstance(wait.what, int):
            message = self.stream(wait.what)
            if wait.part == "headers":
                self.until(lambda: message.over or message.status != 0)
            elif wait.part == "data":
                self.until(lambda: message.over or len(message.body) >= wait.count)
            elif wait.part == "informational":
                self.until(lambda: message.over or bool(message.informational))
            else:
                self.until(lambda: message.over)
        elif wait.what == "ping":
            self.barrier()
        elif wait.what == "goaway":
            self.until(lambda: bool(self.goaway))
        elif wait.what == "settings":
            self.until(lambda: self.settings_seen)
        elif wait.what == "end":
            while self.read():
                pass
        else:
            raise ValueError(f"WAIT {wait.what}")

    def take(self, steps: tuple[Step, ...]) -> None:
        """Takes the steps; frames between two waits leave in one write."""
        out = b""
        for step in steps:
            if isinstance(step, Frame):
                out += self.encode(step)
                if self.mute:
                    self.mute, out = False, out + self.owed
                continue
            if isinstance(step, Raw):
                out += step.data
                continue
            self.send(out)
            out = b""
            if isinstance(step, Wait):
                self.wait(step)
            elif isinstance(step, Pause):
                self.until(lambda: False, step.seconds)
            elif isinstance(step, Shut):
                with contextlib.suppress(OSError):
                    self.sock.shutdown(socket.SHUT_WR)
        self.send(out)

    def outcome(self) -> Conversation:
        answered = {n for n, m in self.streams.items() if m.status or m.reset}
        return Conversation(
            {n: self.stream(n) for n in sorted(self.opened | answered)},
            self.end, self.settings, self.goaway, self.leftover or self.buffer, self.port,
        )  # fmt: skip


def converse(
    port: int,
    steps: tuple[Step, ...],
    *,
    timeout: float = 8.0,
    settings: dict[str, int] | None = None,
    give_back: bool = True,
    preface: bool = True,
    eager: bool = False,
    leave: bool = False,
    linger: float = 3.0,
    tls: Tls | None = None,
) -> Conversation:
    """Takes the steps, waits until every stream that was opened is over, then for what comes with it.

    `eager`: begins before the other side's SETTINGS came. `leave`: closes after the last step, whatever is under way.
    `linger`: how long to wait for the end of the connection after GOAWAY with an error, or bytes that are no HTTP/2.
    """
    with Client(port, timeout=timeout, settings=settings, give_back=give_back, preface=preface, tls=tls) as client:
        if preface and not eager:
            client.until(lambda: client.settings_seen or bool(client.leftover))
        client.take(steps)
        if leave:
            return client.outcome()
        client.until(
            lambda: all(client.stream(s).over for s in client.opened) or bool(client.leftover) or _broken(client)
        )
        if _broken(client) or client.leftover:
            client.until(lambda: False, linger)
        elif client.end == "open" and client.settings_seen:
            client.barrier(linger)
            if _broken(client) or (client.goaway and all(m.over for m in client.streams.values())):
                client.until(lambda: False, linger)
        return client.outcome()


def _broken(client: Client) -> bool:
    return any(code != "NO_ERROR" for _, code in client.goaway)
