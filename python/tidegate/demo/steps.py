"""The thirteen steps of a call from productpage to details, each with evidence taken from the running mesh.

One real request is sent; what it left behind is then looked up: iptables counters, the applications' and the proxies'
logs, statistics and configuration dumps of the live proxies, and discovery's debug pages.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from tidegate.demo import plan as plans
from tidegate.demo.host import network
from tidegate.demo.mesh import Mesh, MeshError

CALLER: Final = "productpage-v1"
CALLED: Final = "details-v1"
URL: Final = f"http://details:{plans.PORT}/details/0"
_CLUSTER: Final = f"outbound|{plans.PORT}||details.{plans.NAMESPACE}.svc.{plans.DOMAIN}"
_INBOUND: Final = f"inbound|{plans.PORT}||details.{plans.NAMESPACE}.svc.{plans.DOMAIN}"


@dataclass(frozen=True)
class Step:
    number: int
    title: str
    evidence: tuple[str, ...]
    ok: bool


@dataclass(frozen=True)
class Counters:
    """What counts up when a call passes: redirected connections, connections and requests per listener."""

    caller_redirected: int
    called_redirected: int
    caller_stats: Mapping[str, int]
    called_stats: Mapping[str, int]


def _find(program: str) -> str:
    """System programs are not always on an ordinary path."""
    return shutil.which(program, path=f"{os.defpath}:/usr/local/sbin:/usr/sbin:/sbin") or program


def _redirected(netns: str, chain: str) -> int:
    """Connections that iptables sent to the proxy from a chain (nat counts the first packet of each)."""
    if not netns:
        return 0
    path = network.namespace_path(netns)
    done = subprocess.run(
        ["nsenter", f"--net={path}", _find("iptables-save"), "-c", "-t", "nat"],
        capture_output=True, text=True, timeout=10, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise MeshError(f"iptables-save in {netns}: {done.stderr.strip()}")
    rule = re.compile(rf"\[(\d+):\d+\] -A {chain} .*-j (?:ISTIO_REDIRECT|ISTIO_IN_REDIRECT)$")
    lines = (rule.match(line) for line in done.stdout.splitlines() if "owner" not in line)
    return sum(int(found[1]) for found in lines if found)


def _stats(mesh: Mesh, name: str) -> dict[str, int]:
    found = {}
    for line in mesh.admin(name, "/stats").text.splitlines():
        key, _, value = line.rpartition(": ")
        if value.isdigit():
            found[key] = int(value)
    return found


def count(mesh: Mesh) -> Counters:
    caller, called = mesh.plan.workload(CALLER), mesh.plan.workload(CALLED)
    return Counters(
        _redirected(caller.netns, "ISTIO_OUTPUT"),
        _redirected(called.netns, "ISTIO_INBOUND"),
        _stats(mesh, CALLER),
        _stats(mesh, CALLED),
    )


class _Dump:
    """A proxy's /config_dump, by name."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._configs = document.get("configs", [])

    def _find(self, section: str, entries: str, inner: str, name: str) -> dict[str, Any]:
        for config in self._configs:
            if not config.get("@type", "").endswith(section):
                continue
            for entry in config.get(entries, []):
                found: dict[str, Any] = entry.get("active_state", entry).get(inner, {})
                if found.get("name") == name:
                    return found
        return {}

    def listener(self, name: str) -> dict[str, Any]:
        return self._find("ListenersConfigDump", "dynamic_listeners", "listener", name)

    def cluster(self, name: str) -> dict[str, Any]:
        return self._find("ClustersConfigDump", "dynamic_active_clusters", "cluster", name)

    def routes(self, name: str) -> dict[str, Any]:
        return self._find("RoutesConfigDump", "dynamic_route_configs", "route_config", name)


def _manager(listener: Mapping[str, Any]) -> dict[str, Any]:
    """The typed config of the last filter of a listener's first chain."""
    for chain in listener.get("filter_chains", []):
        for network_filter in chain.get("filters", []):
            config: dict[str, Any] = network_filter.get("typed_config", {})
            return config
    return {}


def _cluster_for(routes: Mapping[str, Any], host: str) -> tuple[str, str]:
    """The virtual host and the cluster that a request for `host` to / ends at."""
    for virtual_host in routes.get("virtual_hosts", []):
        if host in virtual_host.get("domains", []) or virtual_host.get("domains") == ["*"]:
            for route in virtual_host.get("routes", []):
                if route.get("match", {}).get("prefix") == "/":
                    return virtual_host["name"], route.get("route", {}).get("cluster", "")
    return "", ""


class Walk:
    """One call and everything that is known about it."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._caller, self._called = mesh.plan.workload(CALLER), mesh.plan.workload(CALLED)
        self._before = count(mesh)
        answer = mesh.page("/api/v1/products/0")
        self.request_id = answer.headers.get("x-request-id", "")
        if answer.status != 200 or not self.request_id:
            raise MeshError(f"GET /api/v1/products/0 through the ingress answered {answer.status or answer.error}")
        self._entries = self._wait_for_logs()
        self._after = count(mesh)

    def _wait_for_logs(self) -> dict[str, str]:
        """The access-log lines of the call by proxy; they are flushed a moment after the answer."""
        deadline = time.monotonic() + 12
        while True:
            found = {
                name: line
                for name in (CALLER, CALLED)
                for line in self._mesh.access_log(name)
                if self.request_id in line and "/details/0" in line
            }
            if len(found) == 2 or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    def _app_line(self, name: str, words: str) -> str:
        lines = (line for line in self._mesh.app_log(name) if self.request_id in line and words in line)
        return next(lines, "")

    def _delta(self, name: str, stat: str) -> int:
        before, after = self._before, self._after
        old, new = (
            (before.caller_stats, after.caller_stats) if name == CALLER else (before.called_stats, after.called_stats)
        )
        return new.get(stat, 0) - old.get(stat, 0)

    @cached_property
    def _caller_dump(self) -> _Dump:
        return _Dump(json.loads(self._mesh.admin(CALLER, "/config_dump").body or b"{}"))

    @cached_property
    def _called_dump(self) -> _Dump:
        return _Dump(json.loads(self._mesh.admin(CALLED, "/config_dump").body or b"{}"))

    def _endpoint(self) -> str:
        """The endpoint of details by discovery's own account."""
        for assignment in json.loads(self._mesh.discovery("/debug/edsz").body or b"[]"):
            if assignment.get("clusterName") == _CLUSTER:
                address = assignment["endpoints"][0]["lbEndpoints"][0]["endpoint"]["address"]["socketAddress"]
                return f"{address['address']}:{address['portValue']}"
        return ""

    def _way_to_proxy(self, name: str, redirected: int) -> Iterator[tuple[str, list[str], bool]]:
        """Redirection and the virtual listener, or what stands in for them on loopback."""
        inbound = name == CALLED
        workload = self._called if inbound else self._caller
        dump = self._called_dump if inbound else self._caller_dump
        wanted = workload.ip if inbound else "0.0.0.0"
        listener_name = f"{wanted}_{plans.PORT}"
        requests = self._delta(name, f"http.{listener_name}.downstream_rq_total")
        if not self._mesh.plan.isolated:
            port = plans.PORT if inbound else plans.PROXY_PORT
            listener_name = f"{workload.ip}_{port}"
            requests = self._delta(name, f"http.{listener_name}.downstream_rq_total")
            listener = dump.listener(listener_name)
            bound = bool(listener) and listener.get("bind_to_port", True) is True
            how = "dials the address itself" if inbound else f"has {workload.ip}:{port} as its HTTP proxy"
            yield "No redirection on loopback: explicit listeners", [f"the caller {how}"], True
            yield f"The proxy has bound {workload.ip}:{port} itself", [f"config_dump: {listener_name} is bound"], bound
            yield (
                f"The request comes in through {listener_name}",
                [f"stats: http.{listener_name}.downstream_rq_total +{requests}"],
                requests >= 1,
            )
            return
        chain = "PREROUTING, ISTIO_INBOUND" if inbound else "OUTPUT, ISTIO_OUTPUT"
        yield (
            f"iptables in {workload.name} redirects the connection to 15001",
            [f"{workload.netns}: nat {chain} -> REDIRECT --to-ports 15001: +{redirected} connection(s)"],
            redirected >= 1,
        )
        virtual = dump.listener("virtual")
        handed = self._delta(name, f"listener.{listener_name}.downstream_cx_total")
        yield (
            "The virtual listener on 15001 takes it",
            [
                "config_dump: listener virtual, 0.0.0.0:15001, use_original_dst "
                + str(virtual.get("use_original_dst")).lower()
            ],
            virtual.get("use_original_dst") is True,
        )
        listener = dump.listener(listener_name)
        why = "exact address" if inbound else f"any address, port {plans.PORT}"
        yield (
            f"... and hands it to {listener_name} by its original destination ({why})",
            [
                f"config_dump: {listener_name}, bind_to_port {str(listener.get('bind_to_port')).lower()}",
                f"stats: listener.{listener_name}.downstream_cx_total +{handed}, "
                f"http.{listener_name}.downstream_rq_total +{requests}",
            ],
            listener.get("bind_to_port") is False and handed >= 1 and requests >= 1,
        )

    def steps(self) -> list[Step]:
        """All thirteen, in order."""
        found = list(enumerate(self._all(), start=1))
        return [Step(number, title, tuple(line for line in lines if line), ok) for number, (title, lines, ok) in found]

    def _all(self) -> Iterator[tuple[str, list[str], bool]]:
        isolated = self._mesh.plan.isolated
        called = self._app_line(CALLER, f"call GET {URL}")
        yield f"productpage calls details: {URL}", [f"productpage: {called}"], "-> 200" in called

        yield from self._way_to_proxy(CALLER, self._after.caller_redirected - self._before.caller_redirected)

        outbound = f"0.0.0.0_{plans.PORT}" if isolated else f"{self._caller.ip}_{plans.PROXY_PORT}"
        route_name = str(plans.PORT) if isolated else "http_proxy"
        rds = _manager(self._caller_dump.listener(outbound)).get("rds", {}).get("route_config_name", "")
        yield (
            f"{outbound} routes by the route configuration {route_name!r} (RDS)",
            [f"config_dump: {outbound}: http_connection_manager, rds.route_config_name {rds!r}"],
            rds == route_name,
        )
        host, cluster = _cluster_for(self._caller_dump.routes(route_name), f"details:{plans.PORT}")
        yield (
            f"Host details:{plans.PORT} leads to the cluster {_CLUSTER}",
            [f"config_dump: route {route_name!r}, virtual host {host}: / -> {cluster}"],
            cluster == _CLUSTER,
        )
        endpoint, line = self._endpoint(), self._entries.get(CALLER, "")
        yield (
            f"EDS has the cluster's endpoint: {endpoint}",
            [f"discovery /debug/edsz: {endpoint}", f"productpage's access log: {line}"],
            endpoint == f"{self._called.ip}:{plans.PORT}" and f'"{endpoint}"' in line,
        )

        yield from self._way_to_proxy(CALLED, self._after.called_redirected - self._before.called_redirected)

        inbound = f"{self._called.ip}_{plans.PORT}"
        routes = _manager(self._called_dump.listener(inbound)).get("route_config", {})
        host, cluster = _cluster_for(routes, "")
        yield (
            f"{inbound} routes everything to {_INBOUND}",
            [f"config_dump: route {routes.get('name')}, virtual host {host}: / -> {cluster}"],
            cluster == _INBOUND,
        )
        loopback = f"127.0.0.1:{self._called.app_port}"
        assignment = self._called_dump.cluster(_INBOUND).get("load_assignment", {})
        addresses = [
            f"{socket['address']}:{socket['port_value']}"
            for group in assignment.get("endpoints", [])
            for member in group.get("lb_endpoints", [])
            for socket in [member["endpoint"]["address"]["socket_address"]]
        ]
        line = self._entries.get(CALLED, "")
        yield (
            f"The cluster's host is {loopback}" + (", which redirection leaves alone" if isolated else ""),
            [f"config_dump: {_INBOUND}: {', '.join(addresses)}", f"details' access log: {line}"],
            addresses == [loopback] and f'"{loopback}"' in line,
        )
        served = self._app_line(CALLED, "served GET /details/0")
        yield "details answers", [f"details: {served}"], "from 127.0.0.1:" in served and "-> 200" in served


def walk(mesh: Mesh) -> list[Step]:
    """Make the call and return its thirteen steps."""
    return Walk(mesh).steps()
