"""`/healthz/ready` on the status port: is the proxy ready for traffic? Asked by the kubelet.

Ready means what it means to pilot-agent, read from the proxy's admin interface: clusters and listeners have been
received, the proxy is live, and (with `--applicationPorts`) at least one of the application's ports has an inbound
listener. `judge` is pure; the server is one thread that answers one probe after the other, each within a second or two.
"""

from __future__ import annotations

import socket
import threading

from tidegate.agent import log
from tidegate.agent.admin import AdminError, request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

__all__ = ["StatusServer", "check", "judge"]

_STATS: Final = (
    "/stats?usedonly&filter="
    "^(cluster_manager.cds|listener_manager.lds).(update_success|update_rejected)$|^server.state$"
)
_REQUEST_LIMIT: Final = 8192
_LIVE: Final = 0


def judge(stats: str, listeners: str, application_ports: Sequence[int]) -> str:
    """Why the proxy is not ready; "" when it is. Takes the bodies of /stats and /listeners."""
    values = {}
    for line in stats.splitlines():
        name, _, value = line.partition(":")
        if value.strip().isdigit():
            values[name.strip()] = int(value)
    parts = {"cds": "cluster_manager.cds.", "lds": "listener_manager.lds."}
    counts = {
        short: (values.get(prefix + "update_success", 0), values.get(prefix + "update_rejected", 0))
        for short, prefix in parts.items()
    }
    if not all(success > 0 for success, _ in counts.values()):
        said = "; ".join(f"{short} updates: {ok} successful, {bad} rejected" for short, (ok, bad) in counts.items())
        return f"config not received from the discovery service: {said}"
    if values.get("server.state", _LIVE) != _LIVE:
        return f"server is not live, state {values['server.state']}"
    if application_ports:
        inbound = _inbound_ports(listeners)
        if not inbound.intersection(application_ports):
            wanted = ", ".join(map(str, application_ports))
            return f"no listener for any of the inbound application ports {wanted}"
    return ""


def check(admin_port: int, application_ports: Sequence[int]) -> str:
    """Ask the proxy and judge."""
    try:
        status, stats = request(admin_port, _STATS)
        if status != 200:
            return f"/stats answers {status}"
        listeners = request(admin_port, "/listeners")[1] if application_ports else ""
    except AdminError as error:
        return str(error)
    return judge(stats, listeners, application_ports)


def _inbound_ports(listeners: str) -> set[int]:
    """Ports of listeners on an address of the pod; the wildcard is the outbound side's. Lines: `name::address:port`."""
    ports = set()
    for line in listeners.splitlines():
        address, _, port = line.rpartition("::")[2].rpartition(":")
        if port.isdigit() and address not in ("", "0.0.0.0", "[", "[::]"):
            ports.add(int(port))
    return ports


class StatusServer(threading.Thread):
    """Serves the status port until the process ends."""

    def __init__(self, port: int, admin_port: int, application_ports: Sequence[int], host: str = "") -> None:
        super().__init__(name="status", daemon=True)
        self._admin_port = admin_port
        self._application_ports = tuple(application_ports)
        self._was_ready = False
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() and not host else socket.AF_INET
        self._listener = socket.create_server(
            (host, port), family=family, dualstack_ipv6=family == socket.AF_INET6, backlog=16
        )
        self.port: int = self._listener.getsockname()[1]

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                log.warning(f"status port: {error}")
                return
            with connection:
                self._serve(connection)

    def close(self) -> None:
        """Stop accepting; the thread ends with it."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(2.0)
        try:
            connection.sendall(self._answer(connection))
        except OSError as error:
            log.info(f"status port: {error}")

    def _answer(self, connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data and len(data) < _REQUEST_LIMIT:
            piece = connection.recv(_REQUEST_LIMIT)
            if not piece:
                break
            data += piece
        words = data.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response("400 Bad Request", "")
        if words[1].split(b"?")[0] != b"/healthz/ready":
            return _response("404 Not Found", "")
        if words[0] not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", "")
        reason = check(self._admin_port, self._application_ports)
        if reason:
            log.info(f"Envoy proxy is NOT ready: {reason}")
        elif not self._was_ready:
            log.info("Envoy proxy is ready")
        self._was_ready = not reason
        return _response("503 Service Unavailable" if reason else "200 OK", reason if words[0] == b"GET" else "")


def _response(status: str, body: str) -> bytes:
    text = body.encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n"
    return head.encode() + text
