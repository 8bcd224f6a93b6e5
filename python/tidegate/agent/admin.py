"""One request to the proxy's admin interface, over a plain socket.

`http.client` would cost the agent two megabytes for the same ten lines of protocol. Speaks HTTP/1.1 with
`connection: close`, understands content-length and chunked bodies, and nothing more: it talks to one well-known server.
"""

from __future__ import annotations

import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["AdminError", "request"]

_LIMIT: Final = 8 * 1024 * 1024


class AdminError(Exception):
    """No answer, or not one of HTTP."""


def request(port: int, path: str, method: str = "GET", timeout: float = 1.0) -> tuple[int, str]:
    """(status, body) of one request to 127.0.0.1. Raises AdminError."""
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    data = bytearray()
    try:
        # Not `create_connection`: it loads the tables of internationalised domain names to look 127.0.0.1 up.
        with socket.socket() as connection:
            connection.settimeout(timeout)
            connection.connect(("127.0.0.1", port))
            connection.sendall(head.encode())
            while len(data) < _LIMIT:
                piece = connection.recv(65536)
                if not piece:
                    break
                data += piece
    except OSError as error:
        raise AdminError(f"{method} {path}: {error}") from error
    headers, blank, body = bytes(data).partition(b"\r\n\r\n")
    lines = headers.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if not blank or len(words) < 2 or not words[1].isdigit():
        raise AdminError(f"{method} {path}: not an HTTP answer")
    if any(line.lower().replace(" ", "") == "transfer-encoding:chunked" for line in lines[1:]):
        body = _dechunk(body)
    return int(words[1]), body.decode("utf-8", "replace")


def _dechunk(body: bytes) -> bytes:
    whole = bytearray()
    while body:
        size, _, body = body.partition(b"\r\n")
        try:
            length = int(size.split(b";")[0], 16)
        except ValueError:
            raise AdminError("a broken chunk") from None
        whole += body[:length]
        if length == 0:
            break
        body = body[length + 2 :]
    return bytes(whole)
