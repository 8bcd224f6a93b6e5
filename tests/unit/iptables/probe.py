"""Runs inside a network namespace: servers that tell how a redirected connection looks to them, and a client.

probe.py serve PORT...           each answer: "<own port> <original address> <original port> <peer address>"
probe.py connect UID IP PORT     prints the answer, or the error's name
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import sys

SO_ORIGINAL_DST = 80
IP_TRANSPARENT = 19


def original(connection: socket.socket) -> tuple[str, int]:
    six = connection.family == socket.AF_INET6 and not connection.getsockname()[0].startswith("::ffff:")
    try:
        raw = connection.getsockopt(socket.IPPROTO_IPV6 if six else socket.SOL_IP, SO_ORIGINAL_DST, 28)
    except OSError:  # no connection tracking entry: nothing was rewritten
        return connection.getsockname()[0].removeprefix("::ffff:"), connection.getsockname()[1]
    if six:
        return socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack("!H", raw[2:4])[0]
    return socket.inet_ntop(socket.AF_INET, raw[4:8]), struct.unpack("!H", raw[2:4])[0]


def serve(ports: list[int], transparent: bool) -> None:
    selector = selectors.DefaultSelector()
    for port in ports:
        listener = socket.socket(socket.AF_INET6)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if transparent and port != 9080:
            listener.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
        listener.bind(("::", port))
        listener.listen(16)
        selector.register(listener, selectors.EVENT_READ, port)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            connection, peer = key.fileobj.accept()  # type: ignore[union-attr]
            with connection:
                address, port = original(connection)
                connection.sendall(f"{key.data} {address} {port} {peer[0].removeprefix('::ffff:')}\n".encode())


def connect(uid: int, address: str, port: int) -> None:
    "a".encode("idna")  # imported now: the interpreter's library may not be readable to another user
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    try:
        with socket.create_connection((address, port), timeout=1) as connection:
            print(connection.recv(200).decode().strip())
    except OSError as error:
        print(type(error).__name__)


if __name__ == "__main__":
    if sys.argv[1] == "connect":
        connect(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    else:
        serve([int(port) for port in sys.argv[2:]], sys.argv[1] == "serve-transparent")
