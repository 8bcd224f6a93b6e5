"""Secrets by SDS: over ADS, by streams of their own, from files; waited for, rotated, refused, and shown.

The scenes are played to real Envoy and to us; what the servers hear, which certificate a client sees, what is counted
and what the admin pages show must be equal.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from differential.backend import Backend, free_port
from differential.proxies import Proxy, running
from integration.certificates import Authority, Certificate
from integration.management import Management
from integration.test_ads import bootstrap, cluster, endpoints, listener, routes
from tidegate import xdsapi

TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
ADS = {"ads": {}, "resource_api_version": "V3"}
OWN = {
    "api_config_source": {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
    },
    "resource_api_version": "V3",
}


def secret(name: str, certificate: Certificate) -> dict[str, Any]:
    return {
        "name": name,
        "tls_certificate": {
            "certificate_chain": {"inline_string": certificate.chain},
            "private_key": {"inline_string": certificate.key},
        },
    }


def trust(name: str, authority: Authority) -> dict[str, Any]:
    return {"name": name, "validation_context": {"trusted_ca": {"inline_string": authority.certificate}}}


def named(name: str, source: dict[str, Any], patience: str = "") -> dict[str, Any]:
    return {"name": name, "sds_config": source | ({"initial_fetch_timeout": patience} if patience else {})}


def socket_of(kind: str, common: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": f"{TLS}{kind}TlsContext", "common_tls_context": common, **more},
    }


def tls_listener(name: str, port: int, *certificates: dict[str, Any], trusted: dict[str, Any] | None = None) -> Any:
    common: dict[str, Any] = {"tls_certificate_sds_secret_configs": list(certificates)}
    if trusted:
        common["validation_context_sds_secret_config"] = trusted
    found = listener(name, port)
    found["filter_chains"][0]["transport_socket"] = socket_of("Downstream", common)
    return found


def served(port: int) -> str:
    """The common name that a client sees; "" when there is no handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=3) as plain,
            context.wrap_socket(plain, server_hostname="x") as tls,
        ):
            tls.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            answer = b""
            while data := tls.recv(65536):
                answer += data
            der = tls.getpeercert(binary_form=True)
    except OSError:
        return ""
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert der is not None
    return Certificate.name_in(der)


@dataclass
class World:
    """A proxy between a management server for ADS and one for secrets."""

    kind: str
    ads: Management
    sds: Management
    proxy: Proxy
    ports: dict[str, int]
    said: list[str] = field(default_factory=list)

    def listen(self, name: str) -> None:
        heard, quiet = -1, time.monotonic()
        while time.monotonic() - quiet < 0.5:
            time.sleep(0.02)
            if (now := len(self.ads.lines) + len(self.sds.lines)) != heard:
                heard, quiet = now, time.monotonic()
        # Streams of their own are separate conversations: in what order they are heard is chance.
        own = sorted(line for line in self.sds.lines if not line.endswith("[]"))
        self.said += [f"== {name}", *self.ads.lines, *own]
        self.ads.lines.clear()
        self.sds.lines.clear()

    def note(self, what: object) -> None:
        self.said.append(str(what))

    def stats(self, filter: str) -> list[str]:
        text = self.proxy.admin(f"/stats?filter={filter}")[1].decode()
        # Envoy's streams of their own have the numbers of a control plane each.
        left = re.compile(r"update_time|update_duration|control_plane|upstream_context_secrets_not_ready|\.version:")
        lines = [line for line in text.splitlines() if not left.search(line)]
        names = {str(port): name for name, port in self.ports.items()}
        return sorted(re.sub(r"127\.0\.0\.1_(\d+)", lambda found: names[found[1]], line) for line in lines)

    def page(self, path: str) -> Any:
        return json.loads(self.proxy.admin(path)[1])


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("ca")


@pytest.fixture(scope="module")
def certificates(authority: Authority) -> dict[str, Certificate]:
    return {name: authority.issue(name) for name in ("one", "two", "three", "client")}


class _running:
    def __init__(
        self,
        kind: str,
        form: str,
        directory: Path,
        ads: Callable[[dict[str, int]], dict[str, Any]],
        sds: dict[str, Any],
    ) -> None:
        self.backends = {name: Backend(name).start() for name in ("a", "b")}
        self.ports = {name: free_port() for name in ("main", "tls", "wait", "forever", "admin")}
        address = directory / "sds.sock"
        self.servers = Management().start(), Management(address=f"unix:{address}").start()
        places = {name: endpoints(name, backend.port) for name, backend in self.backends.items()}
        self.servers[0].set_all(ads(self.ports) | {xdsapi.CLUSTER_LOAD_ASSIGNMENT: places})
        # So that what comes by a stream of its own is there before.
        self.servers[0].delays[xdsapi.SECRET] = 0.4
        self.servers[1].set_all(sds)
        document = json.loads(bootstrap(self.ports["admin"], self.servers[0].port))
        document["dynamic_resources"]["ads_config"] |= {"api_type": form, "set_node_on_first_message_only": True}
        clusters = document["static_resources"]["clusters"]
        endpoint = {"endpoint": {"address": {"pipe": {"path": str(address)}}}}
        place = {"cluster_name": "sds-grpc", "endpoints": [{"lb_endpoints": [endpoint]}]}
        clusters.append(clusters[0] | {"name": "sds-grpc", "load_assignment": place})
        self.kind = kind
        self.proxy = running(
            kind, json.dumps(document), admin_port=self.ports["admin"], port=self.ports["main"], directory=directory,
            log=directory / "log",
        )  # fmt: skip

    def __enter__(self) -> World:
        return World(self.kind, *self.servers, self.proxy.__enter__(), self.ports)

    def __exit__(self, *error: Any) -> None:
        self.proxy.__exit__(*error)
        for server in self.servers:
            server.stop()
        for backend in self.backends.values():
            backend.stop()


def _play(form: str, directory: Path, kind: str, ca: Authority, keys: dict[str, Certificate]) -> World:
    def secrets(default: Any) -> dict[str, Any]:
        return {xdsapi.SECRET: {"default": default, "client": secret("client", keys["client"])}}

    upstream = socket_of(
        "Upstream",
        {
            "tls_certificate_sds_secret_configs": [named("client", OWN, "0s")],
            "validation_context_sds_secret_config": named("trust", ADS),
        },
        sni="x",
    )

    def listeners_of(ports: dict[str, int]) -> dict[str, Any]:
        return {
            "main": listener("main", ports["main"]),
            "tls": tls_listener("tls", ports["tls"], named("default", OWN, "0s"), trusted=named("trust", ADS)),
        }

    def first(ports: dict[str, int]) -> dict[str, Any]:
        return {
            xdsapi.CLUSTER: {"a": cluster("a"), "b": cluster("b") | {"transport_socket": upstream}},
            xdsapi.ROUTE_CONFIGURATION: {"main": routes("a")},
            xdsapi.SECRET: {"trust": trust("trust", ca)},
            xdsapi.LISTENER: listeners_of(ports),
        }

    with _running(kind, form, directory, first, secrets(secret("default", keys["one"]))) as world:
        ports = world.ports
        listeners = listeners_of(ports)
        eventually(lambda: served(ports["tls"]) == "one")
        world.listen("start")
        world.sds.set_all(secrets(secret("default", keys["two"])))
        eventually(lambda: served(ports["tls"]) == "two")
        world.listen("rotated")
        world.sds.set_all(secrets(secret("default", Certificate(keys["three"].chain, keys["one"].key))))
        world.listen("a key of another certificate")
        world.note(served(ports["tls"]))
        world.sds.set_all(secrets(secret("default", Certificate("rubbish", keys["one"].key))))
        world.listen("no certificate")
        world.note(served(ports["tls"]))
        world.note([re.sub(r"^default: ", "", text) for text in world.sds.errors])
        world.sds.set_all(secrets(secret("default", keys["three"])))
        eventually(lambda: served(ports["tls"]) == "three")
        world.listen("good again")
        world.note(world.stats("^sds.default|^sds.trust"))
        world.note(world.stats("ssl_socket_factory"))
        world.note(_secrets(world))
        world.note(_certificates(world))
        waiting = {
            "wait": tls_listener("wait", ports["wait"], named("missing", ADS, "2s")),
            "forever": tls_listener("forever", ports["forever"], named("never", OWN, "0s")),
        }
        world.ads.set(xdsapi.LISTENER, listeners | waiting)
        world.listen("listeners that wait")
        world.note(_secrets(world))
        targets = world.page("/init_dump")["unready_targets_dumps"]
        world.note(sorted(re.sub(r" \d{6,}", " HASH", json.dumps(each)) for each in targets))
        world.note([served(ports[name]) for name in ("wait", "forever")])
        time.sleep(2)
        eventually(lambda: not json.dumps(world.page("/init_dump")).count("missing"))
        world.note(f"after the time: {served(ports['wait'])!r}")
        world.note(world.stats("^sds.missing|not_ready"))
        world.ads.set(xdsapi.SECRET, {"trust": trust("trust", ca), "missing": secret("missing", keys["one"])})
        eventually(lambda: served(ports["wait"]) == "one")
        world.listen("it comes")
        world.note(world.stats("ssl_context_update_by_sds"))
        world.ads.set(xdsapi.LISTENER, {"main": listeners["main"]})
        world.listen("no listener")
        world.ads.set(xdsapi.CLUSTER, {"a": cluster("a")})
        world.listen("no cluster")
        return world


def _secrets(world: World) -> Any:
    dump = next(each for each in world.page("/config_dump")["configs"] if each["@type"].endswith("SecretsConfigDump"))
    text = json.dumps({
        key: sorted(value, key=lambda item: str(item["name"])) for key, value in dump.items() if key != "@type"
    })  # fmt: skip
    assert "PRIVATE KEY" not in json.dumps(world.page("/config_dump"))
    return re.sub(r'("last_(updated|update_attempt)": ")[^"]+', r"\1NOW", text)


def _certificates(world: World) -> list[str]:
    return sorted(json.dumps(each, sort_keys=True) for each in world.page("/certs")["certificates"])


def eventually(what: Callable[[], bool], seconds: float = 8.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


@pytest.mark.parametrize("form", ["DELTA_GRPC", "GRPC"])
def test_a_life_of_secrets_is_envoy_s(
    form: str, tmp_path: Path, authority: Authority, certificates: dict[str, Certificate]
) -> None:
    played = {}
    for kind in ("envoy", "tidegate"):
        (tmp_path / kind).mkdir()
        played[kind] = _play(form, tmp_path / kind, kind, authority, certificates)
    for ours, theirs in zip(played["tidegate"].said, played["envoy"].said, strict=False):
        assert ours == theirs
    assert played["tidegate"].said == played["envoy"].said


@pytest.fixture
def world(tmp_path: Path, authority: Authority, certificates: dict[str, Certificate]) -> Iterator[World]:
    def first(ports: dict[str, int]) -> dict[str, Any]:
        return {
            xdsapi.CLUSTER: {"a": cluster("a")},
            xdsapi.ROUTE_CONFIGURATION: {"main": routes("a")},
            xdsapi.LISTENER: {
                "main": listener("main", ports["main"]),
                "tls": tls_listener("tls", ports["tls"], named("default", OWN, "0s")),
            },
        }

    sds = {xdsapi.SECRET: {"default": secret("default", certificates["one"])}}
    with _running("tidegate", "DELTA_GRPC", tmp_path, first, sds) as found:
        eventually(lambda: served(found.ports["tls"]) == "one")
        yield found


def test_keys_rotate_under_load(world: World, certificates: dict[str, Certificate]) -> None:
    """No request fails, a connection that is open goes on, new ones see the new key, and no listener is touched."""
    port, failed, seen, done = world.ports["tls"], [], set(), threading.Event()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"

    def ask() -> None:
        while not done.is_set():
            try:
                seen.add(served(port))
            except (OSError, AssertionError) as error:
                failed.append(error)

    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="x") as kept,
    ):
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for turn in range(10):
            name = ("two", "three")[turn % 2]
            world.sds.set(xdsapi.SECRET, {"default": secret("default", certificates[name])})
            kept.sendall(request)
            answer = http.client.HTTPResponse(kept)
            answer.begin()
            assert answer.status == 200
            answer.read()
            time.sleep(0.2)
        done.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert "" not in seen
    assert {"two", "three"} <= seen
    stats = dict(line.split(": ") for line in world.stats("listener_manager|sds.default"))
    assert stats["listener_manager.listener_modified"] == "0"
    assert stats["sds.default.update_rejected"] == "0"
    assert int(stats["sds.default.update_success"]) >= 11


def test_a_secret_s_files_are_read_again(world: World, tmp_path: Path, certificates: dict[str, Certificate]) -> None:
    """As pilot-agent's `file-cert:` secrets and Kubernetes' mounted ones: what is renamed into the directory counts."""
    files = tmp_path / "keys"
    files.mkdir()

    def put(certificate: Certificate) -> None:
        for name, text in (("cert.pem", certificate.chain), ("key.pem", certificate.key)):
            (files / f"{name}.new").write_text(text)
        # The key first: between the two renames they do not fit, and the former pair serves.
        for name in ("key.pem", "cert.pem"):
            (files / f"{name}.new").rename(files / name)

    put(certificates["one"])
    by_file = {
        "name": "file-cert",
        "tls_certificate": {
            "certificate_chain": {"filename": str(files / "cert.pem")},
            "private_key": {"filename": str(files / "key.pem")},
        },
    }
    world.sds.set(xdsapi.SECRET, {"default": secret("default", certificates["one"]), "file-cert": by_file})
    port = world.ports["wait"]
    world.ads.set(xdsapi.LISTENER, {
        "main": listener("main", world.ports["main"]),
        "tls": tls_listener("tls", world.ports["tls"], named("default", OWN, "0s")),
        "wait": tls_listener("wait", port, named("file-cert", OWN)),
    })  # fmt: skip
    eventually(lambda: served(port) == "one")
    put(certificates["two"])
    eventually(lambda: served(port) == "two")
    (files / "rubbish").write_text("rubbish")
    (files / "rubbish").rename(files / "cert.pem")
    eventually(lambda: "sds.file-cert.key_rotation_failed: 0" not in world.stats("key_rotation_failed"))
    assert served(port) == "two"


def test_a_secret_without_a_source_is_the_bootstrap_s(tmp_path: Path, certificates: dict[str, Certificate]) -> None:
    admin, port = free_port(), free_port()
    document = {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": {
            "secrets": [secret("own", certificates["one"])],
            "listeners": [tls_listener("tls", port, {"name": "own"})],
        },
    }
    filters = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]  # type: ignore[index]
    del filters["rds"]
    filters["route_config"] = {
        "virtual_hosts": [
            {"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]}
        ]
    }
    for kind in ("envoy", "tidegate"):
        with running(
            kind, json.dumps(document), admin_port=admin, port=port, directory=tmp_path, log=tmp_path / "log"
        ) as proxy:
            assert served(port) == "one"
            dump = proxy.admin("/config_dump?mask=static_secrets")[1].decode()
            assert '"own"' in dump
            assert "[redacted]" in dump
            assert "PRIVATE" not in dump
