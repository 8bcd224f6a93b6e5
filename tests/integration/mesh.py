"""A small mesh on loopback: real discovery, real agent, real proxy, two upstreams behind one service.

No redirection: the sidecar is an HTTP proxy on a port of its own (`Sidecar`, captureMode NONE). Must not know what is
tested on it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from differential.backend import Backend, free_port
from differential.client import exchange

HOST = "reviews.default.svc.cluster.local"


def tidegate() -> str:
    return str(Path(sys.executable).with_name("tidegate"))


def eventually(what: Callable[[], bool], seconds: float, why: str) -> float:
    """Waits until `what` holds and returns how long it took."""
    begin = time.monotonic()
    while not what():
        assert time.monotonic() < begin + seconds, f"not within {seconds} s: {why}"
        time.sleep(0.02)
    return time.monotonic() - begin


def services(ports: dict[str, int], proxy_port: int) -> str:
    endpoints = "".join(
        f"    - {{address: 127.0.0.1, ports: {{http: {port}}}, labels: {{version: {version}}}}}\n"
        for version, port in ports.items()
    )
    return f"""\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: reviews, namespace: default}}
spec:
  hosts: [{HOST}]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 9080, name: http, protocol: HTTP}}]
  endpoints:
{endpoints}---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: reviews, namespace: default}}
spec:
  host: {HOST}
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: client, namespace: default}}
spec:
  workloadSelector: {{labels: {{app: client}}}}
  egress:
    - port: {{number: {proxy_port}, protocol: HTTP_PROXY, name: proxy}}
      bind: 127.0.0.1
      captureMode: NONE
      hosts: ["*/*"]
"""


def rule(subset: str, extra: str = "") -> str:
    return f"""\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews, namespace: default}}
spec:
  hosts: [{HOST}]
  http: [{{route: [{{destination: {{host: {HOST}, subset: {subset}}}}}]{extra}}}]
"""


@dataclass
class Mesh:
    directory: Path
    data_plane: str = ""
    backends: dict[str, Backend] = field(default_factory=dict)
    discovery: subprocess.Popen[bytes] | None = None
    agent: subprocess.Popen[bytes] | None = None
    grpc_port: int = field(default_factory=free_port)
    debug_port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)
    port: int = field(default_factory=free_port)

    @property
    def rules(self) -> Path:
        return self.directory / "config" / "rules.yaml"

    def apply(self, text: str) -> None:
        """Replaces the rule file at once, as `kubectl apply` would."""
        fresh = self.rules.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.rules)

    def start_discovery(self) -> None:
        with (self.directory / "discovery.log").open("ab") as log:
            self.discovery = subprocess.Popen(
                [tidegate(), "discovery", "--configDir", str(self.rules.parent), "--httpAddr", "",
                 "--grpcAddr", f"127.0.0.1:{self.grpc_port}", "--monitoringAddr", f"127.0.0.1:{self.debug_port}"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        eventually(lambda: self.debug("/ready")[0] == 200, 15, "discovery ready")

    def start_agent(self) -> None:
        argv = [tidegate(), "agent", "proxy", "sidecar", "--configPath", str(self.directory / "proxy"),
                "--serviceCluster", "client", "--ip", "127.0.0.9", "--id", "client.default",
                "--domain", "default.svc.cluster.local", "--discoveryAddress", f"127.0.0.1:{self.grpc_port}",
                "--proxyAdminPort", str(self.admin_port), "--concurrency", "1"]  # fmt: skip
        if self.data_plane:
            argv += ["--binaryPath", self.data_plane]
        environment = {
            **os.environ, "ISTIO_META_INTERCEPTION_MODE": "NONE", "ISTIO_METAJSON_POD": '{"LABELS": {"app": "client"}}',
        }  # fmt: skip
        with (self.directory / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)

    def debug(self, path: str) -> tuple[int, bytes]:
        return _http(self.debug_port, path)

    def admin(self, path: str) -> tuple[int, bytes]:
        return _http(self.admin_port, path)

    def get(self) -> tuple[int, str | None]:
        """A call to the service through the sidecar; (0, None) when the sidecar does not answer."""
        try:
            request = f"GET http://{HOST}:9080/ HTTP/1.1\r\nhost: {HOST}:9080\r\n\r\n".encode()
            answer = exchange(self.port, [request], methods=["GET"], timeout=3).responses[0]
        except (OSError, IndexError):
            return 0, None
        return answer.status, answer.get("x-backend")

    def proxy_pid(self) -> int:
        """The data plane: the agent's only child."""
        assert self.agent is not None
        children = Path(f"/proc/{self.agent.pid}/task/{self.agent.pid}/children").read_text().split()
        assert len(children) == 1, children
        return int(children[0])

    def logs(self) -> str:
        return "".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in self.directory.glob("*.log")
        )


def _http(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


@contextlib.contextmanager
def mesh(directory: Path, data_plane: str = "") -> Iterator[Mesh]:
    """The mesh, serving subset v1; `data_plane`: another binary than ours."""
    world = Mesh(directory, data_plane)
    (directory / "config").mkdir()
    try:
        for version in ("v1", "v2"):
            world.backends[version] = Backend(version).start()
        ports = {version: backend.port for version, backend in world.backends.items()}
        (directory / "config" / "services.yaml").write_text(services(ports, world.port))
        world.apply(rule("v1"))
        world.start_discovery()
        world.start_agent()
        try:
            eventually(lambda: world.get() == (200, "v1"), 20, "the sidecar serves")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{world.logs()}") from None
        yield world
    finally:
        _end(world.agent)
        _end(world.discovery)
        for backend in world.backends.values():
            backend.stop()
