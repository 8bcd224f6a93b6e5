"""HTTP GETs to addresses of this machine, also inside a network namespace."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.demo.host import network, syscalls


@dataclass(frozen=True)
class Answer:
    """Status 0: nobody answered, and `error` says why."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


def connect_inside(netns: str, host: str, port: int, timeout: float) -> socket.socket:
    """A socket belongs to the namespace it was made in, and only the thread that makes it has to go there."""
    made: list[socket.socket | OSError] = []

    def dial() -> None:
        try:
            syscalls.enter_network_namespace(network.namespace_path(netns))
            made.append(socket.create_connection((host, port), timeout))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=dial)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


def get(
    host: str, port: int, path: str, *, netns: str = "", headers: Mapping[str, str] | None = None, timeout: float = 5.0
) -> Answer:
    """One GET on a connection of its own."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        if netns:
            connection.sock = connect_inside(netns, host, port, timeout)
        connection.request("GET", path, headers={"Connection": "close", **(headers or {})})
        response = connection.getresponse()
        body = response.read()
        return Answer(response.status, body, {name.lower(): value for name, value in response.getheaders()})
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, error=str(error) or type(error).__name__)
    finally:
        connection.close()


def accepts(host: str, port: int, *, netns: str = "") -> bool:
    """Whether somebody listens there."""
    try:
        if netns:
            connect_inside(netns, host, port, 1.0).close()
        else:
            socket.create_connection((host, port), 1.0).close()
    except OSError:
        return False
    return True
