"""A raw HTTP/1.1 client that hides nothing: exact bytes out, every answer and the way the connection ended in.

Standard library only; must not know the proxies.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import Any, cast


@dataclass
class Response:
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    trailers: list[tuple[str, str]] = field(default_factory=list)
    complete: bool = True

    def get(self, name: str) -> str | None:
        return next((v for n, v in self.headers if n == name), None)


@dataclass
class Exchange:
    responses: list[Response]
    #: open, eof or reset
    end: str
    leftover: bytes = b""
    #: the client's own port: what tells this exchange's log lines from an earlier one's that come late
    port: int = 0
    #: of a TLS connection: version, cipher, protocol, whether it was resumed, the server's certificate
    tls: dict[str, object] | None = None


def receive(sock: socket.socket, seconds: float) -> bytes | str:
    """What comes within so many seconds: bytes, none if nothing comes, or how the connection ended."""
    sock.settimeout(seconds)
    try:
        return sock.recv(1 << 18) or "eof"
    except TimeoutError:
        return b""
    except ssl.SSLEOFError:
        return "eof"
    except ssl.SSLError as error:
        return f"alert {(error.reason or '').lower()}"
    except ConnectionError:
        return "reset"


class _Stream:
    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.sock, self.deadline, self.buffer, self.end = sock, deadline, b"", "open"

    def more(self, deadline: float | None = None) -> bool:
        if self.end != "open":
            return False
        left = (deadline or self.deadline) - time.monotonic()
        if left <= 0:
            return False
        data = receive(self.sock, left)
        if isinstance(data, str):
            self.end = data
            return False
        self.buffer += data
        return bool(data)

    def until(self, mark: bytes) -> bytes | None:
        while mark not in self.buffer:
            if not self.more():
                return None
        head, _, self.buffer = self.buffer.partition(mark)
        return head

    def exactly(self, count: int) -> tuple[bytes, bool]:
        while len(self.buffer) < count:
            if not self.more():
                data, self.buffer = self.buffer, b""
                return data, False
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data, True


def _fields(lines: list[bytes]) -> list[tuple[str, str]]:
    pairs = (line.decode("latin-1").partition(":") for line in lines if line)
    return [(n.lower(), v.strip()) for n, _, v in pairs]


def _read_one(stream: _Stream, method: str) -> Response | None:
    head = stream.until(b"\r\n\r\n")
    if head is None:
        return None
    first, *lines = head.split(b"\r\n")
    _, code, *rest = first.decode("latin-1").split(" ", 2)
    response = Response(int(code), rest[0] if rest else "", _fields(lines), b"")
    if response.status < 200 or response.status in (204, 304) or method == "HEAD":
        return response
    if "chunked" in (response.get("transfer-encoding") or ""):
        while True:
            line = stream.until(b"\r\n")
            if line is None:
                response.complete = False
                return response
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            data, whole = stream.exactly(size + 2)
            response.body += data[:-2] if whole else data
            if not whole:
                response.complete = False
                return response
        trailers = []
        while line := stream.until(b"\r\n"):
            trailers.append(line)
        response.trailers = _fields(trailers)
    elif (length := response.get("content-length")) is not None:
        response.body, response.complete = stream.exactly(int(length))
    elif response.status != 101:
        while stream.more():
            pass
        response.body, stream.buffer = stream.buffer, b""
        response.complete = stream.end == "eof"
    return response


@dataclass
class Tls:
    """A TLS client: its context, the server name it sends, and how large the pieces are that its bytes leave in."""

    context: ssl.SSLContext
    server_name: str | None = None
    piece: int = 0
    #: the session of the last connection, to be resumed; `resume` asks for that
    resume: bool = False
    session: ssl.SSLSession | None = None


def _failure(error: Exception) -> str:
    if isinstance(error, ssl.SSLEOFError):
        return "eof in handshake"
    if isinstance(error, ssl.SSLError):
        return f"handshake: {(error.reason or '').lower()}"
    return "reset in handshake"


class _Pieces:
    """A TLS connection over a socket that is written to in small pieces."""

    def __init__(self, sock: socket.socket, tls: Tls) -> None:
        self.sock, self.piece = sock, tls.piece
        self.received, self.sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = tls.context.wrap_bio(self.received, self.sent, server_hostname=tls.server_name)
        self._run(self.object.do_handshake)

    def _flush(self) -> None:
        data = self.sent.read()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), self.piece):
            self.sock.sendall(data[at : at + self.piece])

    def _run(self, call: Any, *args: Any) -> Any:
        while True:
            try:
                result = call(*args)
                self._flush()
                return result
            except ssl.SSLWantReadError:
                self._flush()
                data = self.sock.recv(1 << 16)
                if data:
                    self.received.write(data)
                else:
                    self.received.write_eof()

    def sendall(self, data: bytes) -> None:
        self._run(self.object.write, data)

    def recv(self, count: int) -> bytes:
        with contextlib.suppress(ssl.SSLZeroReturnError):
            return cast("bytes", self._run(self.object.read, count))
        return b""

    def settimeout(self, seconds: float) -> None:
        self.sock.settimeout(seconds)

    def shutdown(self, how: int) -> None:
        self.sock.shutdown(how)

    def close(self) -> None:
        self.sock.close()


def _shake_hands(sock: socket.socket, tls: Tls) -> tuple[Any, dict[str, object]]:
    if tls.piece:
        pieces = _Pieces(sock, tls)
        return pieces, _agreed(pieces.object)
    session = tls.session if tls.resume else None
    secure = tls.context.wrap_socket(sock, server_hostname=tls.server_name, session=session)
    return secure, _agreed(secure)


def _agreed(connection: ssl.SSLSocket | ssl.SSLObject) -> dict[str, object]:
    cipher = connection.cipher()
    certificate = connection.getpeercert(binary_form=True) or b""
    return {
        "version": connection.version(),
        "cipher": cipher[0] if cipher else None,
        "alpn": connection.selected_alpn_protocol(),
        "resumed": connection.session_reused,
        "certificate": hashlib.sha256(certificate).hexdigest()[:12],
    }


def exchange(
    port: int,
    parts: list[bytes | float],
    *,
    methods: list[str],
    timeout: float = 8.0,
    linger: float = 0.0,
    shut: bool = False,
    abort_after: float | None = None,
    tls: Tls | None = None,
) -> Exchange:
    """Sends `parts` (a float is a pause in seconds), reads one final response per entry of `methods`.

    `linger`: seconds to wait for the end of the connection afterwards; `shut`: half-close after sending;
    `abort_after`: close after that many seconds without reading on.
    """
    with contextlib.ExitStack() as stack:
        sock: Any = stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=5)))
        own = sock.getsockname()[1]
        agreed = None
        if tls is not None:
            try:
                sock, agreed = _shake_hands(sock, tls)
            except (OSError, ssl.SSLError) as error:
                return Exchange([], _failure(error), port=own)
            stack.callback(sock.close)
        stream = _Stream(sock, time.monotonic() + timeout)
        for part in parts:
            if isinstance(part, float):
                stream.more(time.monotonic() + part)
            else:
                try:
                    sock.sendall(part)
                except (ConnectionError, ssl.SSLError):
                    break
        if shut:
            with contextlib.suppress(OSError):
                sock.unwrap() if isinstance(sock, ssl.SSLSocket) else sock.shutdown(socket.SHUT_WR)
        if abort_after is not None:
            time.sleep(abort_after)
            return Exchange([], "aborted", port=own, tls=agreed)
        responses: list[Response] = []
        for method in methods:
            response = _read_one(stream, method)
            while response is not None and 100 <= response.status < 200 and response.status != 101:
                responses.append(response)
                response = _read_one(stream, method)
            if response is None:
                break
            responses.append(response)
        if linger:
            while stream.more(time.monotonic() + linger):
                pass
        elif stream.end == "open" and not stream.buffer:
            # Notice an end that is already on its way without waiting for one that is not.
            stream.more(time.monotonic() + 0.02)
        if tls is not None and not tls.piece:
            tls.session = sock.session
        return Exchange(responses, stream.end, stream.buffer, own, agreed)
