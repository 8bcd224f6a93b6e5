"""Extension configurations by ECDS: waited for, replaced while connections go on, refused, removed, and shown.

The scenes are played to real Envoy and to us; what the server hears, what clients get, what is counted and what the
admin pages show must be equal.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from differential.backend import Backend, free_port
from differential.proxies import Proxy, running
from integration.management import Management
from integration.test_ads import ROUTER, bootstrap, cluster, endpoints, listener, routes
from integration.test_http2 import HEADERS, End, get
from tidegate import xdsapi

ECDS = "envoy.config.core.v3.TypedExtensionConfig"
FILTERS = "type.googleapis.com/envoy.extensions.filters.http."
MUTATION = f"{FILTERS}header_mutation.v3.HeaderMutation"
RBAC = f"{FILTERS}rbac.v3.RBAC"
NAMES = ("main", "wait", "default", "last", "other")


def mutation(value: str) -> dict[str, Any]:
    header = {"append": {"header": {"key": "x-ecds", "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
    return {"@type": MUTATION, "mutations": {"response_mutations": [header]}}


def deny() -> dict[str, Any]:
    policy = {"permissions": [{"any": True}], "principals": [{"any": True}]}
    return {"@type": RBAC, "rules": {"action": "DENY", "policies": {"all": policy}}}


def extension(name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "typed_config": config}


def discovery(*types: str, patience: str = "", **more: Any) -> dict[str, Any]:
    source = {"ads": {}, "resource_api_version": "V3"} | ({"initial_fetch_timeout": patience} if patience else {})
    return {"config_source": source, "type_urls": list(types), **more}


def ecds_listener(
    path: Path, name: str, port: int, *filters: dict[str, Any], router: dict[str, Any] | None = None
) -> Any:
    found = listener(name, port)
    hcm = found["filter_chains"][0]["filters"][0]["typed_config"]
    hcm["http_filters"] = [*filters, router or hcm["http_filters"][0]]
    text = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n"
    log = {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": str(path),
        "log_format": {"text_format_source": {"inline_string": text}},
    }
    hcm["access_log"] = [{"name": "envoy.access_loggers.file", "typed_config": log}]
    return found


def dynamic(name: str, source: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "config_discovery": source}


class World:
    def __init__(self, server: Management, proxy: Proxy, ports: dict[str, int]) -> None:
        self.server, self.proxy, self.ports = server, proxy, ports
        self.said: list[str] = []
        self.kept: http.client.HTTPConnection | None = None

    def listen(self, name: str) -> None:
        heard, quiet = -1, time.monotonic()
        while time.monotonic() - quiet < 0.5:
            time.sleep(0.02)
            if (now := len(self.server.lines)) != heard:
                heard, quiet = now, time.monotonic()
        self.said += [f"== {name}", *self.server.lines]
        self.server.lines.clear()

    def note(self, what: object) -> None:
        self.said.append(str(what))

    def get(self, name: str) -> tuple[int, str | None, bytes] | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[name], timeout=3)
        try:
            return self._ask(connection)
        except OSError:
            return None
        finally:
            connection.close()

    @staticmethod
    def _ask(connection: http.client.HTTPConnection) -> tuple[int, str | None, bytes]:
        connection.request("GET", "/", headers={"host": "x"})
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, answer.getheader("x-ecds"), body if answer.status != 200 else b""

    def again(self) -> tuple[int, str | None, bytes]:
        """On a connection that is kept."""
        if self.kept is None:
            self.kept = http.client.HTTPConnection("127.0.0.1", self.ports["main"], timeout=3)
            self.kept.connect()
            self.socket: socket.socket = self.kept.sock
        found = self._ask(self.kept)
        assert self.kept.sock is self.socket, "the connection was closed"
        return found

    def stats(self, filter: str) -> list[str]:
        text = self.proxy.admin(f"/stats?filter={filter}")[1].decode()
        left = re.compile(r"update_time|update_duration|\.version:|worker_|_create_success")
        return sorted(line for line in text.splitlines() if not left.search(line))

    def dump(self) -> str:
        configs = json.loads(self.proxy.admin("/config_dump")[1])["configs"]
        found = [each for each in configs if each["@type"].endswith("EcdsConfigDump")]
        for each in found:
            each.get("ecds_filters", []).sort(key=lambda item: str(item.get("ecds_filter", {}).get("name")))
        return re.sub(r'("last_updated": ")[^"]+', r"\1NOW", json.dumps(found, sort_keys=True))

    def targets(self) -> list[str]:
        found = json.loads(self.proxy.admin("/init_dump")[1]).get("unready_targets_dumps", [])
        return sorted(re.sub(r" \d{6,}", " HASH", json.dumps(each, sort_keys=True)) for each in found)


def _value(end: End, stream: int) -> str | None:
    """What the filter has said in the answer of a stream."""
    while True:
        kind, _, found, payload = end.next()
        if kind == HEADERS:
            fields = end.decode(payload)
            if found == stream:
                return fields.get("x-ecds")


def eventually(what: Callable[[], bool], seconds: float = 8.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def _play(kind: str, form: str, directory: Path) -> list[str]:
    backend = Backend("a").start()
    ports = {name: free_port() for name in (*NAMES, "admin")}
    server, access = Management().start(), directory / "access"
    main = ecds_listener(access, "main", ports["main"], dynamic("one", discovery(MUTATION, RBAC)))
    listeners = {"main": main}
    configs = {"one": extension("one", mutation("first"))}
    server.set_all({
        xdsapi.CLUSTER: {"a": cluster("a")},
        xdsapi.CLUSTER_LOAD_ASSIGNMENT: {"a": endpoints("a", backend.port)},
        xdsapi.ROUTE_CONFIGURATION: {"main": routes("a")},
        xdsapi.LISTENER: listeners,
        ECDS: configs,
    })  # fmt: skip
    document = json.loads(bootstrap(ports["admin"], server.port))
    document["dynamic_resources"]["ads_config"] |= {"api_type": form, "set_node_on_first_message_only": True}
    log = directory / "log"
    try:
        with running(
            kind, json.dumps(document), admin_port=ports["admin"], port=ports["main"], directory=directory, log=log
        ) as proxy:
            world = World(server, proxy, ports)
            eventually(lambda: (world.get("main") or (0,))[0] == 200)
            world.listen("start")
            try:
                _scenes(world, form, server, access, listeners, configs)
            finally:
                if world.kept:
                    world.kept.close()
        # When clients hang up is chance.
        lines = {line for line in access.read_text().splitlines() if " DC " not in line}
        return [*world.said, *sorted(lines)]
    finally:
        server.stop()
        backend.stop()


def _scenes(
    world: World, form: str, server: Management, access: Path, listeners: dict[str, Any], configs: dict[str, Any]
) -> None:
    ports = world.ports
    world.note(world.again())
    world.note(world.dump())

    def put(**changed: dict[str, Any] | None) -> None:
        for name, config in changed.items():
            if config is None:
                del configs[name]
            else:
                configs[name] = extension(name, config)
        server.set(ECDS, dict(configs))

    with socket.create_connection(("127.0.0.1", ports["main"]), timeout=5) as sock:
        # A request that is under way ends as it began, and those after it on the same connection do not.
        busy = End(sock, client=True)
        busy.headers(1, [(":method", "POST"), *get("/")[1:]])
        busy.headers(3, get("/"), end=True)
        world.note(_value(busy, 3))
        put(one=mutation("second"))
        eventually(lambda: world.again()[1] == "second")
        busy.headers(5, get("/"), end=True)
        world.note(_value(busy, 5))
        busy.data(1, b"x", end=True)
        world.note(_value(busy, 1))
    world.listen("another version")
    put(one=deny())
    eventually(lambda: world.again()[0] == 403)
    world.listen("another type")
    world.note(world.again())
    world.note(world.stats("rbac.(allowed|denied)$"))
    put(one={"@type": f"{FILTERS}cors.v3.Cors"})
    world.listen("a type that is not wanted")
    # In no order of theirs.
    world.note([sorted(re.split("[ ,]+", re.sub(r"^one: |\.$", "", error))) for error in server.errors])
    world.note(world.again())
    put(one=mutation("third"))
    eventually(lambda: world.again()[1] == "third")
    world.listen("good again")
    world.note(
        world.stats("extension_config_discovery.*(config|update|init)_|total_listeners_draining|chains_draining")
    )
    world.note(world.stats("listener_manager.*(modified|in_place|added|removed)"))
    default = discovery(MUTATION, default_config=mutation("default"), apply_default_config_without_warming=True)
    listeners["default"] = ecds_listener(access, "default", ports["default"], dynamic("late", default))
    server.set(xdsapi.LISTENER, listeners)
    eventually(lambda: (world.get("default") or (0,))[0] == 200)
    world.listen("a listener that does not wait")
    world.note(world.get("default"))
    source = discovery(MUTATION, patience="3s")
    listeners["wait"] = ecds_listener(access, "wait", ports["wait"], dynamic("missing", source))
    server.set(xdsapi.LISTENER, listeners)
    world.listen("a listener that waits")
    world.note(world.get("wait"))
    world.note(world.targets())
    eventually(lambda: world.get("wait") is not None)
    world.note(world.get("wait"))
    world.note(world.stats("http_filter.missing.*(config|update|init)_"))
    put(late=mutation("late"), missing=mutation("there"))
    eventually(lambda: world.get("default") == (200, "late", b""))
    eventually(lambda: world.get("wait") == (200, "there", b""))
    world.listen("they come")
    world.note(world.dump())
    put(late=None)
    if form == "DELTA_GRPC":
        eventually(lambda: world.get("default") == (200, "default", b""))
    world.listen("one goes")
    world.note(world.get("default"))
    put(missing=None)
    world.listen("another goes")
    if form == "DELTA_GRPC":
        eventually(lambda: (world.get("wait") or (0,))[0] == 500)
    world.note(world.get("wait"))
    router = {"@type": ROUTER}
    listeners |= {
        "last": ecds_listener(access, "last", ports["last"], router=dynamic("router", discovery(ROUTER, MUTATION))),
        "other": ecds_listener(access, "other", ports["other"], dynamic("one", discovery(RBAC))),
    }
    put(router=router)
    server.set(xdsapi.LISTENER, listeners)
    eventually(lambda: (world.get("last") or (0,))[0] == 200)
    eventually(lambda: world.get("other") is not None)
    world.listen("the router itself; and a filter that wants another type")
    world.note(world.get("other"))
    world.note(world.stats("config_conflict"))
    server.errors.clear()
    put(router=mutation("no router"))
    world.listen("not a router")
    world.note([re.sub("^router: ", "", error) for error in server.errors])
    world.note(world.get("last"))
    world.note(world.again())
    del listeners["wait"], listeners["default"], listeners["last"], listeners["other"]
    put(router=router)
    world.listen("a router again")
    server.set(xdsapi.LISTENER, listeners)
    eventually(lambda: world.get("wait") is None)
    world.listen("fewer listeners")


@pytest.mark.parametrize("form", ["DELTA_GRPC", "GRPC"])
def test_a_life_of_extension_configurations_is_envoy_s(form: str, tmp_path: Path) -> None:
    played = {}
    for kind in ("envoy", "tidegate"):
        (tmp_path / kind).mkdir()
        played[kind] = _play(kind, form, tmp_path / kind)
    for ours, theirs in zip(played["tidegate"], played["envoy"], strict=False):
        assert ours == theirs
    assert played["tidegate"] == played["envoy"]
