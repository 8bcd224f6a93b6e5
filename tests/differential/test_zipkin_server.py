"""A call through two proxies, at the real Zipkin server: one trace, whoever the proxies are."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from differential.backend import free_port
from differential.client import exchange
from differential.proxies import running
from differential.tracing import EVERYTHING, TRACE, TYPE, Upstream, bootstrap, cluster

JAR = "zipkin-server-3.5.1-exec.jar"
ROUTES = [{"match": {"prefix": "/"}, "route": {"cluster": "next"}}]


def _ask(port: int, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text.startswith((b"{", b"[")) else text
    finally:
        connection.close()


@pytest.fixture(scope="module")
def zipkin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Its port."""
    cache = Path(os.environ.get("TIDEGATE_CACHE") or Path.home() / ".cache" / "tidegate")
    jar = cache / "peers" / "java" / JAR
    if not jar.exists():
        raise FileNotFoundError("no Zipkin: run `make java-peers` (needs Java and Maven)")
    port, directory = free_port(), tmp_path_factory.mktemp("zipkin")
    said = directory / "said"
    with said.open("wb") as output:
        process = subprocess.Popen(
            ["java", "-Xmx192m", "-XX:+UseSerialGC", "-jar", str(jar), "--logging.level.root=WARN"],
            env={**os.environ, "QUERY_PORT": str(port)},
            cwd=directory, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, said.read_text()[-4000:]
            with contextlib.suppress(OSError, http.client.HTTPException):
                if _ask(port, "/health")[0] == 200:
                    break
            assert time.monotonic() < deadline, said.read_text()[-4000:]
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _proxy(kind: str, role: str, shared: bool, to: int, collector: int, directory: Path) -> Any:
    """The caller's sidecar or the called one's."""
    provider = {
        "@type": f"{TYPE}.config.trace.v3.ZipkinConfig", "collector_cluster": "zipkin",
        "collector_endpoint": "/api/v2/spans", "collector_endpoint_version": "HTTP_JSON",
        "shared_span_context": shared, "trace_id_128bit": True,
    }  # fmt: skip
    port, admin = free_port(), free_port()
    text = bootstrap(
        port,
        admin,
        "OUTBOUND" if role == "caller" else "INBOUND",
        [cluster("next", to), cluster("zipkin", collector)],
        {**EVERYTHING, "provider": {"name": "envoy.tracers.zipkin", "typed_config": provider}},
        routes=ROUTES,
        runtime={"tracing.zipkin.min_flush_spans": 1},
        name=role,
    )
    room = directory / role
    room.mkdir()
    return running(kind, text, admin_port=admin, port=port, directory=room, log=room / "log")


def _tree(spans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spans as what can be compared: ids become the words for who has them."""
    words = {TRACE: "given", "1" * 16: "client's", "2" * 16: "client's parent"}
    spans = sorted(spans, key=lambda span: (span["kind"], span["localEndpoint"]["serviceName"]))
    for span in spans:
        words.setdefault(span["traceId"], "trace")
        words.setdefault(span["id"], f"{span['kind']} of {span['localEndpoint']['serviceName']}")
    tree = []
    for span in spans:
        assert 0 < span["duration"] < 60_000_000
        tags = span["tags"]
        for varying in ("guid:x-request-id", "response_size", "node_id", "peer.address"):
            assert tags.pop(varying)
        tree.append({
            "trace": words[span["traceId"]], "id": words[span["id"]], "parent": words.get(span.get("parentId", "")),
            "kind": span["kind"], "service": span["localEndpoint"]["serviceName"], "name": span["name"],
            "shared": span.get("shared", False), "tags": tags,
        })  # fmt: skip
    return tree


def _trace(port: int, headers: dict[str, str], collector: int) -> list[dict[str, Any]]:
    """What Zipkin has of one call, once both proxies have reported."""
    fields = "".join(f"{key}: {value}\r\n" for key, value in ({"host": "h"} | headers).items())
    [answer] = exchange(port, [f"GET /a HTTP/1.1\r\n{fields}\r\n".encode()], methods=["GET"]).responses
    assert answer.status == 200
    trace = json.loads(answer.body)["x-b3-traceid"]
    deadline = time.monotonic() + 30
    while True:
        status, spans = _ask(collector, f"/api/v2/trace/{trace}")
        if status == 200 and len(spans) == 2:
            break
        assert time.monotonic() < deadline, f"{status} {spans}"
        time.sleep(0.05)
    _, traces = _ask(collector, "/api/v2/traces?serviceName=called&limit=100")
    assert trace in [spans[0]["traceId"] for spans in traces]
    return _tree(spans)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own spans"])
def test_one_trace(zipkin: int, tmp_path: Path, shared: bool) -> None:
    """The called side's span is the caller's, or its child; ours with ours, and with Envoy at either end."""
    calls = [
        {},
        {"x-b3-traceid": TRACE[:-1] + "1", "x-b3-spanid": "1" * 16, "x-b3-parentspanid": "2" * 16, "x-b3-sampled": "1"},
    ]
    seen: dict[tuple[str, str], list[list[dict[str, Any]]]] = {}
    for caller, called in [("envoy", "envoy"), ("tidegate", "tidegate"), ("envoy", "tidegate"), ("tidegate", "envoy")]:
        room = tmp_path / f"{caller} {called}"
        room.mkdir()
        with (
            Upstream().running() as application,
            _proxy(called, "called", shared, application.port, zipkin, room) as behind,
            _proxy(caller, "caller", shared, behind.port, zipkin, room) as before,
        ):
            trees = []
            for number, headers in enumerate(calls):
                if headers:
                    # Zipkin keeps traces: each call has its own.
                    headers = headers | {"x-b3-traceid": f"{len(seen):016x}{number + 2 * shared + 1:016x}"}
                trees.append(_trace(before.port, headers, zipkin))
        seen[caller, called] = trees
    first, *others = seen.values()
    for name, trees in seen.items():
        assert trees == first, name
    assert others
    client, server = first[0]
    assert (client["kind"], server["kind"]) == ("CLIENT", "SERVER")
    assert client["parent"] is None
    if shared:
        assert server["id"] == client["id"]
    else:
        assert server["parent"] == client["id"] != server["id"]
    assert first[1][0]["parent"] == "client's"
