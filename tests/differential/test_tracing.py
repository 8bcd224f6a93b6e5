"""Spans and trace headers beside the real Envoy's: the same requests, the same JSON at the collector."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from differential.backend import free_port
from differential.proxies import Proxy, running
from differential.tracing import (
    EVERYTHING,
    REQUESTS,
    TAGS,
    TYPE,
    Ids,
    Upstream,
    all_reported,
    ask,
    bootstrap,
    cluster,
    reason,
    told,
)

#: What the proxy at hand has reported, by its node's cluster, and of it what has not been looked at.
SPANS: dict[str, list[dict[str, Any]]] = {"envoy": [], "tidegate": []}
LOOKED_AT = {"envoy": 0, "tidegate": 0}


def _take(headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
    assert headers["content-type"] == "application/json"
    for span in json.loads(body) if body else []:
        SPANS[span["localEndpoint"].pop("serviceName")].append(span)
    return 202, b""


def _bootstrap(kind: str, port: int, admin: int, collector: int, how: tuple[str, bool, bool]) -> str:
    direction, shared, tries = how
    zipkin = {
        "@type": f"{TYPE}.config.trace.v3.ZipkinConfig", "collector_cluster": "collector",
        "collector_endpoint": "/api/v2/spans", "collector_endpoint_version": "HTTP_JSON",
        "shared_span_context": shared, "trace_id_128bit": True,
    }  # fmt: skip
    provider = {"name": "envoy.tracers.zipkin", "typed_config": zipkin}
    return bootstrap(
        port,
        admin,
        direction,
        [cluster("a", collector), cluster("collector", collector), cluster("dead", 1)],
        {**EVERYTHING, "custom_tags": TAGS, "provider": provider, "spawn_upstream_span": tries},
        runtime={"tracing.zipkin.min_flush_spans": 1},
        name=kind,
    )


def _span(span: dict[str, Any], ids: Ids) -> dict[str, Any]:
    for name in ("traceId", "id", "parentId"):
        if name in span:
            span[name] = ids(span[name])
    assert 0 <= span["duration"] < 20_000_000
    assert abs(span["timestamp"] / 1e6 - time.time()) < 600
    for annotation in span["annotations"]:
        late = annotation.pop("timestamp") - span["timestamp"]
        assert 0 <= late < 20_000_000
    span["duration"], span["timestamp"] = "<us>", "<us>"
    tags = span["tags"]
    if "guid:x-request-id" in tags:
        tags["guid:x-request-id"] = reason(tags["guid:x-request-id"])
    if int(tags.get("response_size", 0)) > 100:
        # The upstream's answer repeats ids and the address.
        tags["response_size"] = "<n>"
    return span


def _ask(proxy: Proxy, name: str) -> dict[str, Any]:
    answer = told(ask(proxy, *REQUESTS[name]))
    all_reported(proxy, "zipkin", lambda: len(SPANS[proxy.kind]))
    spans = SPANS[proxy.kind][LOOKED_AT[proxy.kind] :]
    LOOKED_AT[proxy.kind] += len(spans)
    # Reports may overtake each other: the request's own span, then those of its tries.
    spans.sort(key=lambda span: (span["name"].startswith("router "), span["tags"].get("retry.count", "")))
    ids = Ids()
    answer["spans"] = [_span(span, ids) for span in spans]
    seen = answer["upstream saw"]
    for key in ("x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid"):
        if key in seen:
            seen[key] = ids(seen[key])
    if "b3" in seen:
        seen["b3"] = "-".join(ids(part) for part in seen["b3"].split("-"))
    return answer


#: The traffic's direction, whether both sides of a call share a span, whether tries have spans.
WAYS = [
    ("OUTBOUND", False, False),
    ("INBOUND", False, False),
    ("INBOUND", True, False),
    ("OUTBOUND", True, False),
    ("OUTBOUND", False, True),
    ("INBOUND", True, True),
    ("OUTBOUND", True, True),
]


@pytest.fixture(scope="module", params=WAYS, ids=str)
def proxies(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Proxy]]:
    """Envoy and tidegate, one collector."""
    directory: Path = tmp_path_factory.mktemp("tracing")
    ports = [free_port() for _ in range(4)]
    for kind in SPANS:
        SPANS[kind].clear()
        LOOKED_AT[kind] = 0

    def start(kind: str, port: int, admin: int, collector: int) -> Any:
        text = _bootstrap(kind, port, admin, collector, request.param)
        return running(kind, text, admin_port=admin, port=port, directory=directory, log=directory / "log")

    with (
        Upstream({"/api/v2/spans": _take}).running() as collector,
        start("envoy", ports[0], ports[1], collector.port) as envoy,
        start("tidegate", ports[2], ports[3], collector.port) as subject,
    ):
        yield [envoy, subject]


@pytest.mark.parametrize("name", REQUESTS)
def test_same_span(proxies: list[Proxy], name: str) -> None:
    envoy, subject = (_ask(proxy, name) for proxy in proxies)
    assert subject == envoy


def test_same_counts(proxies: list[Proxy]) -> None:
    """After all the requests before: reasons, spans, reports."""
    texts = []
    for proxy in proxies:
        lines = proxy.admin("/stats?filter=^(http.t.)?tracing")[1].decode().splitlines()
        # How often the time for a report was over depends on how long the tests took.
        texts.append(sorted(line for line in lines if "timer_flushed" not in line))
    assert texts[1] == texts[0]
    assert any(re.fullmatch(r"tracing\.zipkin\.spans_sent: [1-9]\d*", line) for line in texts[0])
