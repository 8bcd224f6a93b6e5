"""gRPC's own interop client and server with a proxy between them, HTTP/2 on both sides."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from differential.backend import free_port
from differential.proxies import Proxy, running
from differential.scenario import Scenario
from go_peers import go_peer

#: Those of the client that need neither credentials, nor several servers, nor a balancer of their own.
CASES = (
    "empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
    "timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message",
    "special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service", "rpc_soak",
    "channel_soak",
)  # fmt: skip


@contextlib.contextmanager
def server() -> Iterator[int]:
    """The interop server's port."""
    port = free_port()
    process = subprocess.Popen(
        [go_peer("grpc-interop-server"), "--port", str(port)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the interop server does not listen ({process.poll()})")
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(5)


@contextlib.contextmanager
def between(kind: str, upstream: int, directory: Path) -> Iterator[Proxy]:
    """The proxy in front of that port; streams may take their time."""
    document = {
        "cases": [],
        "upstream": "h2",
        "routes": [
            {
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/", "grpc": {}}, "route": {"cluster": "a", "timeout": "0s"}}],
            }
        ],
    }
    admin, port, log = free_port(), free_port(), directory / "access.log"
    ports = {"a": upstream, "b": upstream, "dead": free_port()}
    text = Scenario("interop", document, ()).bootstrap(ports, str(log), admin, port)
    with running(kind, text, admin_port=admin, port=port, directory=directory, log=log) as proxy:
        yield proxy


def run(case: str, port: int) -> subprocess.CompletedProcess[str]:
    """One case of the client against that port."""
    return subprocess.run(
        [go_peer("grpc-interop-client"), "--server_host", "127.0.0.1", "--server_port", str(port), "--test_case", case],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
