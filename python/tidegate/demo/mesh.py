"""Brings the mesh up, watches over it, and takes it down again."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import tidegate
from tidegate.demo import plan as plans
from tidegate.demo.host import dial, network, syscalls
from tidegate.demo.host.children import Child, Identity, Walls, end, identify, orphans
from tidegate.demo.host.leftovers import Run
from tidegate.demo.plan import Plan, Workload
from tidegate.errors import TidegateError
from tidegate.settings import environment

PROXY_UID: Final = 1337
_APP_UID: Final = 65534
_START_TIMEOUT: Final = 60.0


class MeshError(TidegateError):
    """A part of the mesh did not come up, or could not be kept up."""


class Mesh:
    """The running demo. `binary` is the data plane, empty for ours."""

    def __init__(self, plan: Plan, run: Run, binary: str, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.run = run
        self.binary = binary
        self.config = run.directory / "config"
        self.logs = run.directory / "logs"
        self._say = say
        self._children: list[Child] = []
        syscalls.adopt_orphans()
        prefixes = {sys.prefix, sys.base_prefix, str(Path(tidegate.__file__).parents[1]), sys.executable}
        if binary:
            prefixes.add(binary)
        self._expose = tuple(sorted(prefixes)) if plan.isolated else ()
        for directory in (self.config, self.logs, run.directory / "proxy"):
            directory.mkdir()

    # Up

    def up(self, ready: Callable[[str, str], None]) -> None:
        """Everything, in the order of dependence; `ready` hears of each part that works."""
        resources = [
            *plans.registry(self.plan),
            *plans.sidecars(self.plan),
            *plans.gateway(self.plan),
            *plans.destination_rules(),
        ]
        for resource in resources:
            (self.config / plans.file_name(resource)).write_text(plans.text(resource))
        if self.plan.isolated:
            self._build_network()
            ready("network", f"{len(self.plan.workloads)} namespaces, redirection in each")
        self._start_discovery()
        ready("discovery", f"{self.plan.discovery_ip}:{self.plan.discovery_port}")
        for workload in self.plan.workloads:
            self._start(self._app(workload))
        for workload in self.plan.workloads:
            self._start(self._agent(workload))
        self._start(self._gateway())
        self._wait_for_proxies(ready)

    def _build_network(self) -> None:
        plan = self.plan
        self.run.note_namespaces(plan.namespaces)
        pods = [(workload.netns, workload.ip) for workload in plan.workloads]
        network.create(plan.switch, plan.host_link, plan.ingress_ip, 24, pods)
        (self.run.directory / "hosts").write_text(plans.hosts_file(plan))
        for workload in plan.workloads:
            path = network.namespace_path(workload.netns)
            # The seed's arguments of istio-init.
            words = [
                "-p",
                "15001",
                "-u",
                str(PROXY_UID),
                "-m",
                "REDIRECT",
                "-i",
                "*",
                "-x",
                "",
                "-b",
                "9080,",
                "-d",
                "",
            ]
            done = subprocess.run(
                [*_tidegate("iptables"), "--network-namespace", path, *words],
                capture_output=True, text=True, timeout=30, check=False, env=dict(environment()),
            )  # fmt: skip
            if done.returncode != 0:
                raise MeshError(f"tidegate iptables in {workload.netns}: {done.stderr.strip()}")

    def _start_discovery(self) -> None:
        plan = self.plan
        web = f"{plan.discovery_ip}:{plan.discovery_web_port}"
        words = ["--configDir", str(self.config), "--grpcAddr", f"{plan.discovery_ip}:{plan.discovery_port}"]
        words += ["--httpAddr", "", "--monitoringAddr", web, "--domain", plans.DOMAIN]
        if plan.http2:
            mesh = self.run.directory / "mesh.yaml"
            mesh.write_text("h2UpgradePolicy: UPGRADE\n")
            words += ["--meshConfig", str(mesh)]
        child = Child("discovery", [*_tidegate("discovery"), *words], self.logs / "discovery.log")
        self._start(child)
        self._until(lambda: self.discovery("/ready").status == 200, child, "discovery is not ready")

    def _walls(self, workload: Workload, uid: int) -> Walls:
        if not self.plan.isolated:
            return Walls()
        return Walls(network.namespace_path(workload.netns), str(self.run.directory / "hosts"), uid, self._expose)

    def _app(self, workload: Workload) -> Child:
        words = [sys.executable, "-m", "tidegate.demo.bookinfo", workload.service, "--version", workload.version]
        words += ["--address", workload.app_address, "--port", str(workload.app_port)]
        if not self.plan.isolated:
            words += ["--httpProxy", f"{workload.ip}:{plans.PROXY_PORT}"]
        log = self.logs / f"{workload.name}.app.log"
        return Child(f"{workload.name} app", words, log, self._walls(workload, _APP_UID), death_signal=signal.SIGKILL)

    def _agent(self, workload: Workload) -> Child:
        mode = {} if self.plan.isolated else {"ISTIO_META_INTERCEPTION_MODE": "NONE"}
        return self._proxy(
            "sidecar", workload.name, workload.service, workload.ip, workload.admin_port,
            self._walls(workload, PROXY_UID), mode,
        )  # fmt: skip

    def _gateway(self) -> Child:
        walls = Walls(uid=PROXY_UID, expose=self._expose) if self.plan.isolated else Walls()
        port = self.plan.ingress_admin_port
        return self._proxy("router", "ingressgateway", "istio-ingressgateway", self.plan.ingress_ip, port, walls, {})

    def _proxy(
        self, role: str, name: str, cluster: str, ip: str, admin_port: int, walls: Walls, mode: dict[str, str]
    ) -> Child:
        plan = self.plan
        directory = self.run.directory / "proxy" / name
        directory.mkdir()
        if walls.uid:
            shutil.chown(directory, walls.uid, walls.uid)
        words = [*_tidegate("agent"), "proxy", role, "--configPath", str(directory), "--serviceCluster", cluster]
        words += ["--ip", ip, "--id", f"{name}.{plans.NAMESPACE}", "--proxyAdminPort", str(admin_port)]
        words += ["--domain", f"{plans.NAMESPACE}.svc.{plans.DOMAIN}", "--concurrency", "1"]
        words += ["--discoveryAddress", f"{plan.discovery_ip}:{plan.discovery_port}", "--connectTimeout", "1s"]
        words += ["--drainDuration", "1s", "--parentShutdownDuration", "2s"]
        if self.binary:
            words += ["--binaryPath", self.binary]
        return Child(name, words, self.logs / f"{name}.proxy.log", walls, mode)

    def _start(self, child: Child) -> None:
        child.environment = {**environment(), **child.environment}
        child.start()
        self.run.note_child(child.pid)
        self._children.append(child)

    def _wait_for_proxies(self, ready: Callable[[str, str], None]) -> None:
        waiting = {child.name: child for child in self._children if "agent" in child.command}
        begin = time.monotonic()
        while waiting:
            taken_up = {row["proxy"] for row in self.sync_state() if row.get("version")}
            for name, child in list(waiting.items()):
                if f"{name}.{plans.NAMESPACE}" in taken_up and self._serves(name):
                    del waiting[name]
                    ready(name, self.address_of(name))
                elif child.exit_code() is not None:
                    raise MeshError(f"{name} ended with code {child.exit_code()}:\n{child.tail()}")
            if time.monotonic() - begin > _START_TIMEOUT:
                names = ", ".join(waiting)
                first = next(iter(waiting.values()))
                raise MeshError(f"not ready within {_START_TIMEOUT:g} s: {names}\n{first.tail()}")
            time.sleep(0.05)

    def _serves(self, name: str) -> bool:
        """Whether a proxy that has its configuration has also opened its ports."""
        if self.admin(name, "/ready").status != 200:
            return False
        if name == "ingressgateway":
            return dial.accepts(self.ingress_address, self.plan.ingress_port)
        workload = self.plan.workload(name)
        if self.plan.isolated:
            return dial.accepts("127.0.0.1", 15001, netns=workload.netns)
        return dial.accepts(workload.ip, plans.PORT) and dial.accepts(workload.ip, plans.PROXY_PORT)

    def _until(self, done: Callable[[], bool], child: Child, what: str) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while not done():
            if child.exit_code() is not None or time.monotonic() > deadline:
                raise MeshError(f"{what}:\n{child.tail()}")
            time.sleep(0.05)

    def address_of(self, name: str) -> str:
        if name == "ingressgateway":
            return f"{self.plan.ingress_bind}:{self.plan.ingress_port}"
        return f"{self.plan.workload(name).ip}:{plans.PORT}"

    # Looking at it

    def discovery(self, path: str) -> dial.Answer:
        return dial.get(self.plan.discovery_ip, self.plan.discovery_web_port, path)

    def admin(self, name: str, path: str) -> dial.Answer:
        """The admin interface of a proxy, which listens on its own loopback address only."""
        if name == "ingressgateway":
            return dial.get("127.0.0.1", self.plan.ingress_admin_port, path)
        workload = self.plan.workload(name)
        return dial.get("127.0.0.1", workload.admin_port, path, netns=workload.netns)

    def sync_state(self) -> list[dict[str, Any]]:
        answer = self.discovery("/debug/syncz")
        rows: list[dict[str, Any]] = json.loads(answer.body) if answer.status == 200 else []
        return rows

    def access_log(self, name: str) -> list[str]:
        return (self.logs / f"{name}.proxy.log").read_text(errors="replace").splitlines()

    def app_log(self, name: str) -> list[str]:
        return (self.logs / f"{name}.app.log").read_text(errors="replace").splitlines()

    @property
    def ingress_address(self) -> str:
        """Where a client on this machine reaches the ingress."""
        return "127.0.0.1" if self.plan.ingress_bind == "0.0.0.0" else self.plan.ingress_bind

    def page(self, path: str = "/productpage", **headers: str) -> dial.Answer:
        """A request from outside, through the ingress."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return dial.get(self.ingress_address, self.plan.ingress_port, path, headers=sent, timeout=10)

    # Rules

    def _version(self) -> str:
        answer = self.discovery("/debug/push_status")
        return str(json.loads(answer.body)["version"]) if answer.status == 200 else ""

    def apply(self, resources: Iterable[plans.Resource], remove: Iterable[str] = ()) -> float:
        """Write rules and wait until every proxy has taken them up; how long that took."""
        before, begin = self._version(), time.monotonic()
        for resource in resources:
            path = self.config / plans.file_name(resource)
            fresh = path.with_suffix(".new")
            fresh.write_text(plans.text(resource))
            fresh.replace(path)
        for name in remove:
            (self.config / name).unlink(missing_ok=True)
        self.wait_for_version(other_than=before)
        return time.monotonic() - begin

    def wait_for_version(self, other_than: str, timeout: float = 15.0) -> None:
        """Until discovery serves another version and every connected proxy has settled on it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            version = self._version()
            if version not in ("", other_than) and all(row.get("version") == version for row in self.sync_state()):
                return
            time.sleep(0.05)
        raise MeshError(f"the rules were not taken up within {timeout:g} s")

    def use_rule_files(self, files: Sequence[Path]) -> None:
        """Put the user's files in force, in place of what the demo brought along for the same resources.

        They are linked, not copied: whatever is saved to them from now on applies at once.
        """
        from tidegate.pilot.crd.kinds import key_of, read_resources

        for index, file in enumerate(files):
            resources, rejections = read_resources(file.read_text(), str(file))
            if rejections:
                raise MeshError("\n".join(map(str, rejections)))
            for resource in resources:
                kind, _, name = key_of(resource)
                (self.config / f"{kind.lower()}-{name}.json").unlink(missing_ok=True)
            (self.config / f"rules-{index}-{file.stem}.yaml").symlink_to(file.resolve())

    # Watching over it

    def tend(self) -> None:
        """Start again what died, as a kubelet would; give up on what keeps dying."""
        for child in self._children:
            if child.process is None and time.monotonic() >= child.restart_at:
                child.start()
                self.run.note_child(child.pid)
            code = child.exit_code()
            if code is None:
                continue
            self._say(f"{child.name} ended with code {code}; starting it again")
            if not child.plan_restart():
                raise MeshError(f"{child.name} keeps dying:\n{child.tail()}")
            # A proxy outlives an agent that was killed, and would stand in the way of the next one.
            end(orphans(child.pid for child in self._children))

    def down(self) -> None:
        """Everything, however far it came."""
        roots: list[Identity] = []
        for child in self._children:
            identity = identify(child.pid)
            if identity is not None:
                roots.append(identity)
        end([*roots, *orphans(child.pid for child in self._children)])
        for child in self._children:
            child.exit_code()
        self.run.remove()


def _tidegate(command: str) -> list[str]:
    return [sys.executable, "-m", "tidegate", command]
