"""The real istiod and pilot-agents on this machine, without Kubernetes: a namespace per pod, real redirection rules.

    with World(directory, "stock", [Pod("productpage", "v1", 11), ...]) as world:
        world.get("productpage-v1", "http://10.96.7.30:9080/reviews/0")

istiod lives in the switch's namespace at $NET.1 with everything it serves to pods; a pod is an application on 9080, the
init container's iptables rules, and pilot-agent as uid 1337, which starts the data plane that is being tried: ours, or
the real Envoy. `stock` is what stock Envoy can take, `helm` what a Helm install sends (the istio.* filters are on).

Must not know what is asserted.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import string
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from go_peers import go_peer
from integration.mesh import eventually
from istio.pki import Pki
from tidegate.demo.host import dial, network
from tidegate.demo.host.children import Child, Walls, end, identify

__all__ = ["Pod", "World", "tidegate_proxy"]

_RESOURCES = Path(__file__).with_name("resources")
_PROXY_UID = 1337
_DOMAIN = "cluster.local"
_WORLDS = itertools.count()
_PREFIX = "tgi-"
# What the application listens on: HTTP, HTTP without its name, and anything.
_PORTS = ("9080", "9100", "27017")
_MESH = """\
trustDomain: cluster.local
rootNamespace: istio-system
outboundTrafficPolicy: {{mode: ALLOW_ANY}}
{metrics}defaultConfig: {{discoveryAddress: "{istiod}"}}
extensionProviders:
  - {{name: prometheus, prometheus: {{}}}}
  - {{name: zipkin, zipkin: {{service: istio-system/zipkin.istio-system.svc.cluster.local, port: 9411}}}}
"""
# Switches off what stock Envoy does not have.
_STOCK = {
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    "PILOT_ENABLE_ALPN_FILTER": "false",
    "PILOT_DISABLE_MX_ALPN": "true",
    "PILOT_ENABLE_TELEMETRY_LABEL": "true",
}


def tidegate_proxy() -> str:
    return str(Path(sys.executable).with_name("tidegate-proxy"))


@dataclass(frozen=True)
class Pod:
    """A workload; the gateway is one with kind `router`."""

    app: str
    version: str
    number: int  # the last byte of its address
    locality: str = "r1/z1/s1"
    data_plane: str = ""  # empty: ours
    kind: str = "sidecar"
    agent: Mapping[str, str] = field(default_factory=dict)  # environment of pilot-agent
    app_command: tuple[str, ...] = ()  # empty: app.py

    @property
    def name(self) -> str:
        return f"{self.app}-{self.version}"

    @property
    def namespace(self) -> str:
        return "istio-system" if self.kind == "router" else "bookinfo"

    @property
    def account(self) -> str:
        return self.app if self.kind == "router" else f"bookinfo-{self.app}"

    @property
    def labels(self) -> dict[str, str]:
        labels = {
            "app": self.app,
            "version": self.version,
            "service.istio.io/canonical-name": self.app,
            "service.istio.io/canonical-revision": self.version,
            "security.istio.io/tlsMode": "istio",
        }
        return labels | ({"istio": "ingressgateway"} if self.kind == "router" else {})


class World:
    """A mesh for the time of a `with` block."""

    def __init__(self, directory: Path, variant: str, pods: Sequence[Pod], *, istiod: Mapping[str, str] = {}) -> None:
        self.directory = directory
        self.variant = variant
        self.pods = {pod.name: pod for pod in pods}
        self._istiod = dict(istiod)
        self._subnet = network.free_subnet(f"10.77.{number}.0/24" for number in range(32))
        self.net = str(self._subnet.network_address).removesuffix(".0")
        self._tag = f"{_PREFIX}{os.getpid() % 10_000}-{next(_WORLDS)}-"
        self._host_link = self._tag.replace("-", "")
        self.children: dict[str, Child] = {}
        self.pki = Pki(directory / "pki")

    # --- life --------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            workloads = [(self.netns(pod.name), self.address(pod)) for pod in self.pods.values()]
            network.create(self._tag + "hub", self._host_link, f"{self.net}.254", 24, workloads)
            for words in (["addr", "add", f"{self.net}.1/24", "dev", "sw"], ["link", "set", "lo", "up"]):
                subprocess.run(["ip", "-n", self._tag + "hub", *words], check=True)
            self.directory.chmod(0o755)
            self.start_istiod()
            for pod in self.pods.values():
                self.start_pod(pod)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        roots = [identity for child in self.children.values() if (identity := identify(child.pid))]
        end(roots, patience=1.0)
        for child in self.children.values():
            if child.process is not None:
                child.process.wait(5)
        # Namespaces go in the background, and their links with them; this one is taken now, for the next world.
        subprocess.run(["ip", "link", "del", self._host_link], capture_output=True, check=False)
        network.remove([*map(self.netns, self.pods), self._tag + "hub"])

    def netns(self, pod: str) -> str:
        return f"{self._tag}{pod}"

    def address(self, pod: Pod) -> str:
        return f"{self.net}.{pod.number}"

    def _run(
        self, name: str, netns: str, command: Sequence[str], environment: Mapping[str, str], uid: int = 0
    ) -> Child:
        prefixes = {sys.prefix, sys.base_prefix, str(Path(go_peer("pilot-agent")).parents[1]), str(self.directory)}
        prefixes.add(str(Path(__file__).parents[2] / "python"))
        walls = Walls(network.namespace_path(netns), "", uid, tuple(sorted(prefixes)))
        base = {"PATH": os.defpath + ":/usr/sbin:/sbin", "HOME": str(self.directory / name)}
        (self.directory / name).mkdir(exist_ok=True)
        if uid:
            os.chown(self.directory / name, uid, uid)
        child = Child(name, command, self.directory / f"{name}.log", walls, base | dict(environment))
        child.start()
        self.children[name] = child
        return child

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def stop(self, name: str, *, number: int = signal.SIGTERM) -> None:
        child = self.children.pop(name)
        if child.process is not None:
            child.process.send_signal(number)
            child.process.wait(20)

    # --- istiod ------------------------------------------------------------------------------------------------------

    @property
    def config(self) -> Path:
        return self.directory / "config"

    def render(self, name: str) -> str:
        values = {"NET": self.net, "PKI": str(self.pki.directory), "JWKS": self.pki.jwks}
        return string.Template((_RESOURCES / f"{name}.yaml").read_text()).substitute(values)

    def apply(self, name: str, text: str) -> None:
        """Replaces one file of resources at once; istiod sees it by itself."""
        fresh = self.config / f".{name}.new"
        fresh.write_text(text)
        fresh.replace(self.config / f"{name}.yaml")

    def workloads(self, weights: Mapping[str, int] = {}) -> str:
        """A WorkloadEntry for each pod. A weight changes endpoints and nothing else; a pod whose entry goes gets a new
        inbound listener, too."""
        entries = []
        for pod in self.pods.values():
            if pod.kind == "router":
                continue
            spec = {
                "address": self.address(pod), "labels": pod.labels, "serviceAccount": pod.account,
                "locality": pod.locality, "weight": weights.get(pod.name, 1),
            }  # fmt: skip
            metadata = {"name": pod.name, "namespace": "bookinfo", "labels": pod.labels}
            entry = {
                "apiVersion": "networking.istio.io/v1",
                "kind": "WorkloadEntry",
                "metadata": metadata,
                "spec": spec,
            }
            entries.append(json.dumps(entry))
        return "\n---\n".join(entries) + "\n"

    def start_istiod(self) -> None:
        self.config.mkdir(exist_ok=True)
        for name in ("services", "routes", "gateway", "policy", "telemetry"):
            self.apply(name, self.render(name))
        self.apply("workloads", self.workloads())
        metrics = "defaultProviders: {metrics: [prometheus]}\n" if self.variant == "helm" else ""
        mesh = self.directory / "mesh.yaml"
        mesh.write_text(_MESH.format(istiod=f"{self.net}.1:15012", metrics=metrics))
        hub = self._tag + "hub"
        keys = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(self.pki.directory)]
        self._run("keys", hub, [*keys, "15099"], {})
        rule = {"issuer": "tests", "jwks_uri": "http://127.0.0.1:15099/jwks.json", "audiences": ["istio-ca"]}
        environment = {
            "POD_NAME": "istiod", "POD_NAMESPACE": "istio-system", "CLOUD_PLATFORM": "none",
            "ROOT_CA_DIR": str(self.pki.cacerts), "JWT_RULE": json.dumps(rule), "ENABLE_DEBUG_ENDPOINT_AUTH": "false",
            "ISTIOD_CUSTOM_HOST": "istiod.tests",
        }  # fmt: skip
        if self.variant == "stock":
            environment |= _STOCK
        self._wait(lambda: self._listens(hub, "127.0.0.1", 15099), 10, "the key server")
        command = [
            go_peer("pilot-discovery"), "discovery", "--registries", "", "--clusterID", "Kubernetes",
            "--meshConfig", str(mesh), "--networksConfig", "/nonexistent", "--configDir", str(self.config),
            "--grpcAddr", f"{self.net}.1:15010", "--secureGRPCAddr", f"{self.net}.1:15012",
            "--httpAddr", f"{self.net}.1:8080", "--httpsAddr", "", "--monitoringAddr", f"{self.net}.1:15014",
            "--ctrlz_port", "0",
        ]  # fmt: skip
        self._run("istiod", hub, command, environment | self._istiod)
        # Its /ready needs Kubernetes; the gRPC port opens when everything is read.
        self._wait(lambda: self._listens(hub, f"{self.net}.1", 15010), 30, "istiod")

    # --- pods --------------------------------------------------------------------------------------------------------

    def start_pod(self, pod: Pod) -> None:
        netns = self.netns(pod.name)
        if pod.kind == "sidecar":
            standard = (sys.executable, str(Path(__file__).with_name("app.py")), pod.name, *_PORTS)
            self._run(f"{pod.name}-app", netns, pod.app_command or standard, {})
            # The init container's command line, from the injection template.
            rules = ["istio-iptables", "-p", "15001", "-z", "15006", "-u", str(_PROXY_UID), "-m", "REDIRECT", "-i", "*",
                     "-x", "", "-b", "*", "-d", "15090,15021,15020"]  # fmt: skip
            done = subprocess.run(
                ["ip", "netns", "exec", netns, go_peer("pilot-agent"), *rules],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
        self.start_agent(pod)

    def start_agent(self, pod: Pod) -> None:
        """pilot-agent as the pod's entry point would run it; not waited for."""
        home = self.directory / pod.name
        for part in ("var/run/secrets/tokens", "var/run/secrets/istio", "var/run/secrets/workload-spiffe-uds",
                     "etc/istio/proxy", "var/lib/istio/data"):  # fmt: skip
            (home / part).mkdir(parents=True, exist_ok=True)
        (home / "var/run/secrets/tokens/istio-token").write_text(self.pki.pod_token(pod.namespace, pod.account))
        shutil.copy(self.pki.root, home / "var/run/secrets/istio/root-cert.pem")
        for path in [home, *home.rglob("*")]:
            os.chown(path, _PROXY_UID, _PROXY_UID)
        proxy_config = {
            "discoveryAddress": f"{self.net}.1:15012", "binaryPath": pod.data_plane or tidegate_proxy(),
            "concurrency": 1, "configPath": "./etc/istio/proxy",
        }  # fmt: skip
        owner = f"kubernetes://apis/apps/v1/namespaces/{pod.namespace}/deployments/{pod.name}"
        environment = {
            "CLOUD_PLATFORM": "none", "POD_NAME": f"{pod.name}-0", "POD_NAMESPACE": pod.namespace,
            "INSTANCE_IP": self.address(pod), "SERVICE_ACCOUNT": pod.account, "HOST_IP": "127.0.0.1",
            "ISTIOD_SAN": "istiod.tests", "ISTIO_META_CLUSTER_ID": "Kubernetes", "ISTIO_META_ISTIO_VERSION": "1.31.0",
            "ISTIO_META_MESH_ID": _DOMAIN, "ISTIO_META_INTERCEPTION_MODE": "REDIRECT",
            "ISTIO_META_WORKLOAD_NAME": pod.name, "ISTIO_META_OWNER": owner, "ISTIO_META_NODE_NAME": "tests",
            "ISTIO_METAJSON_LABELS": json.dumps(pod.labels), "TRUST_DOMAIN": _DOMAIN,
            "PROXY_CONFIG": json.dumps(proxy_config),
        }  # fmt: skip
        template = Path(go_peer("pilot-agent")).parents[1] / "istio/tools/packaging/common/envoy_bootstrap.json"
        agent = [
            go_peer("pilot-agent"), "proxy", pod.kind, "--domain", f"{pod.namespace}.svc.{_DOMAIN}",
            "--templateFile", str(template), "--proxyLogLevel=warning",
        ]  # fmt: skip
        # Its paths are relative to the working directory.
        command = ["/bin/sh", "-c", 'cd "$HOME" && exec "$@"', "sh", *agent]
        self._run(pod.name, self.netns(pod.name), command, environment | dict(pod.agent), _PROXY_UID)

    def ready(self, pod: str) -> bool:
        """What a kubelet would ask."""
        return dial.get("127.0.0.1", 15021, "/healthz/ready", netns=self.netns(pod), timeout=2).status == 200

    def await_ready(self, pod: str, seconds: float = 20) -> float:
        """Seconds until it was ready."""
        return self._wait(lambda: self.ready(pod), seconds, f"{pod} is ready", pod)

    def await_all(self, seconds: float = 30) -> None:
        for pod in self.pods:
            self.await_ready(pod, seconds)

    def admin(self, pod: str, path: str, timeout: float = 10) -> str:
        answer = dial.get("127.0.0.1", 15000, path, netns=self.netns(pod), timeout=timeout)
        assert answer.status == 200, f"{path}: {answer.status} {answer.error} {answer.text}"
        return answer.text

    def stat(self, pod: str, name: str) -> int:
        """One counter or gauge; 0 when it is not there."""
        for line in self.admin(pod, "/stats").splitlines():
            if line.startswith(name + ": "):
                return int(line.rpartition(" ")[2])
        return 0

    # --- calls -------------------------------------------------------------------------------------------------------

    def curl(self, pod: str, *words: str, timeout: float = 30) -> str:
        """What curl prints when it runs in the pod as its application would."""
        command = ["ip", "netns", "exec", self.netns(pod), "curl", "-sS", "-m", "10", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False).stdout

    def call(
        self, pod: str, url: str, *words: str, method: str = "GET", headers: Mapping[str, str] = {}
    ) -> dict[str, Any]:
        """One call: `status` (0: none, with curl's `error`), `headers`, `body`, and what the application `seen`."""
        return self._call(self.netns(pod), url, *words, method=method, headers=headers)

    def outside(self, url: str, headers: Mapping[str, str] = {}, *words: str, method: str = "GET") -> dict[str, Any]:
        """The same from where no sidecar is: the switch."""
        return self._call(self._tag + "hub", url, *words, method=method, headers=headers)

    def echo(self, pod: str, host: str, port: int, data: bytes) -> str:
        """What came back over a TCP connection on which `data` was sent and, once its echo was read, an end.

        `error: ...` when it failed. (Envoy resets a client whose end comes while it still sniffs the protocol.)
        """
        try:
            with contextlib.closing(dial.connect_inside(self.netns(pod), host, port, 5.0)) as connection:
                connection.sendall(data)
                answer = b""
                while received := connection.recv(65536):
                    answer += received
                    if len(answer) >= len(data):
                        connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            return f"error: {type(error).__name__}"
        return answer.decode("latin-1")

    def _call(self, netns: str, url: str, *words: str, method: str, headers: Mapping[str, str]) -> dict[str, Any]:
        arguments = ["-i", "-X", method, *words]
        for name, value in headers.items():
            arguments += ["-H", f"{name}: {value}"]
        command = ["ip", "netns", "exec", netns, "curl", "-sS", "-m", "10", *arguments, url]
        done = subprocess.run(command, capture_output=True, timeout=30, check=False)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/"):
            return {"status": 0, "error": done.stderr.decode().strip(), "headers": {}, "body": "", "seen": {}}
        line, *lines = head.decode("latin-1").split("\r\n")
        answer: dict[str, Any] = {"status": int(line.split()[1]), "body": body.decode(), "error": "", "seen": {}}
        answer["headers"] = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        with contextlib.suppress(ValueError):
            answer["seen"] = json.loads(body)
        return answer

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _listens(self, netns: str, host: str, port: int) -> bool:
        return dial.accepts(host, port, netns=netns)

    def _wait(self, what: Callable[[], bool], seconds: float, why: str, log: str = "") -> float:
        try:
            return eventually(what, seconds, why)
        except AssertionError as error:
            tail = "\n".join(self.log(log).splitlines()[-15:]) if log else ""
            raise AssertionError(f"{error}\n{tail}") from None
