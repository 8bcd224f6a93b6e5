"""Spans for OpenTelemetry collectors beside the real Envoy's: the same requests, the same OTLP, W3C's headers."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service_grpc

from differential.backend import free_port
from differential.proxies import Proxy, running
from differential.tracing import (
    EVERYTHING,
    REQUESTS,
    TAGS,
    TRACE,
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

_TRACERS = f"{TYPE}.extensions.tracers.opentelemetry"
ATTRIBUTES = "env.key=env value,broken,a=b=c,service.version=1, spaced = yes ,empty="
_VERSION = re.compile(r"(?:dev|[0-9a-f]{40})/[\w./-]+")

#: What each kind of proxy has reported: its headers, its resource, its spans; and how many spans have been looked at.
REPORTS: dict[str, list[tuple[dict[str, str], Any, list[Any]]]] = {"envoy": [], "tidegate": []}
LOOKED_AT = {"envoy": 0, "tidegate": 0}

_RETRY = {"retry_on": "unavailable", "num_retries": 3, "retry_back_off": {"base_interval": "0.001s"}}


@dataclass(frozen=True)
class Way:
    """How a proxy traces."""

    direction: str = "OUTBOUND"
    http: bool = False
    upstream_spans: bool = False
    sampler: str = ""
    more: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = (self.direction, "HTTP" if self.http else "gRPC", "tries" * self.upstream_spans, self.sampler)
        return " ".join(part for part in (*parts, *self.more) if part)

    def provider(self, kind: str) -> dict[str, Any]:
        config: dict[str, Any] = {"@type": f"{TYPE}.config.trace.v3.OpenTelemetryConfig", "service_name": kind}
        if self.http:
            uri = {"uri": "http://collector.example:4318/v1/traces?a=b", "cluster": "http", "timeout": "5s"}
            added = [{"header": {"key": "X-Kind", "value": kind}}, {"header": {"key": "x-other", "value": "o"}}]
            config["http_service"] = {"http_uri": uri, "request_headers_to_add": added}
        else:
            config["grpc_service"] = {
                "envoy_grpc": {
                    "cluster_name": "grpc",
                    **({"authority": "auth"} if "authority" in self.more else {}),
                    **({"retry_policy": _RETRY} if "retry of envoy_grpc" in self.more else {}),
                },
                "timeout": "5s",
                **({"retry_policy": _RETRY} if "retry" in self.more else {}),
                "initial_metadata": [{"key": "x-kind", "value": kind}],
            }
        samplers: dict[str, dict[str, Any]] = {
            "always_on": {"@type": f"{_TRACERS}.samplers.v3.AlwaysOnSamplerConfig"},
            "half": {
                "@type": f"{_TRACERS}.samplers.v3.TraceIdRatioBasedSamplerConfig",
                "sampling_percentage": {"numerator": 50},
            },
            "none": {"@type": f"{_TRACERS}.samplers.v3.TraceIdRatioBasedSamplerConfig", "sampling_percentage": {}},
        }
        samplers["parent_based"] = {
            "@type": f"{_TRACERS}.samplers.v3.ParentBasedSamplerConfig",
            "wrapped_sampler": {"name": "w", "typed_config": samplers["none"]},
        }
        if self.sampler:
            config["sampler"] = {"name": "s", "typed_config": samplers[self.sampler]}
        if "detectors" in self.more:
            fixed = {"static.key": "static value", "service.version": "7"}
            detectors = [
                {"@type": f"{_TRACERS}.resource_detectors.v3.EnvironmentResourceDetectorConfig"},
                {"@type": f"{_TRACERS}.resource_detectors.v3.StaticConfigResourceDetectorConfig", "attributes": fixed},
            ]
            config["resource_detectors"] = [{"name": "d", "typed_config": each} for each in detectors]
        if "no name" in self.more:
            del config["service_name"]
        return {"name": "envoy.tracers.opentelemetry", "typed_config": config}


WAYS = [
    Way(),
    Way("INBOUND", http=True),
    Way(upstream_spans=True, more=("authority",)),
    Way("INBOUND", http=True, upstream_spans=True),
    Way(sampler="always_on", more=("detectors",)),
    Way(sampler="none", more=("no name",)),
    Way("INBOUND", sampler="parent_based"),
]

FORMS = {
    "malformed traceparent": "00-zz-11-01",
    "traceparent of zeros": f"00-{'0' * 32}-{'1' * 16}-01",
    "parent of zeros": f"00-{'1' * 32}-{'0' * 16}-01",
    "traceparent in capitals": f"00-0123456789ABCDEF0123456789ABCDEF-{'1' * 16}-01",
    "traceparent of another version": f"ff-0123456789abcdef0123456789abcdef-{'1' * 16}-ff",
    "traceparent, not sampled": f"00-0123456789abcdef0123456789abcdef-{'1' * 16}-00",
    "empty traceparent": "",
}
ALL = REQUESTS | {name: ("GET /x", {"traceparent": text, "tracestate": "a=b,c=d"}) for name, text in FORMS.items()}
ALL["never, with a caller's span"] = ("GET /never", {"traceparent": f"00-{TRACE}-{'1' * 16}-01"})
ALL["tracestate alone"] = ("GET /x", {"tracestate": "a=b"})


def _keep(headers: dict[str, str], request: Any) -> None:
    [resource_spans] = request.resource_spans
    [scope_spans] = resource_spans.scope_spans
    headers = {name: value for name, value in headers.items() if name not in ("content-length", "transfer-encoding")}
    kept = (headers, resource_spans, list(scope_spans.spans))
    REPORTS[headers["x-kind"]].append(kept)


#: How many reports of each kind are refused before one is taken; and how often one was tried.
REFUSED: dict[str, int] = {}
TRIES: dict[str, int] = {}


class _Collector(service_grpc.TraceServiceServicer):
    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        kind = str(dict(context.invocation_metadata())["x-kind"])
        TRIES[kind] = TRIES.get(kind, 0) + 1
        if REFUSED.get(kind, 0) >= TRIES[kind]:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        _keep({name: str(value) for name, value in context.invocation_metadata()}, request)
        return service.ExportTraceServiceResponse()


@contextmanager
def _collector() -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(4))
    service_grpc.add_TraceServiceServicer_to_server(_Collector(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None)


def _take(headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
    _keep(headers, service.ExportTraceServiceRequest.FromString(body))
    return 200, b""


def _spans(kind: str) -> list[Any]:
    return [span for _, _, spans in REPORTS[kind] for span in spans]


def _masked(text: str) -> str:
    return _VERSION.sub("<version>", text)


def _attributes(pairs: Any) -> dict[str, str]:
    found = {pair.key: pair.value.string_value for pair in pairs}
    assert len(found) == len(pairs)
    return found


def _span(span: Any, ids: Ids) -> dict[str, Any]:
    assert 0 <= span.end_time_unix_nano - span.start_time_unix_nano < 20e9
    assert abs(span.start_time_unix_nano / 1e9 - time.time()) < 600
    attributes = _attributes(span.attributes)
    if "guid:x-request-id" in attributes:
        attributes["guid:x-request-id"] = reason(attributes["guid:x-request-id"])
    if int(attributes.get("response_size", 0)) > 100:
        # The upstream's answer repeats ids and the address.
        attributes["response_size"] = "<n>"
    names = [field.name for field, _ in span.ListFields()]
    return {
        "fields": names, "name": span.name, "kind": span.kind, "state": span.trace_state, "flags": span.flags,
        "trace": ids(span.trace_id.hex()), "id": ids(span.span_id.hex()), "parent": ids(span.parent_span_id.hex()),
        "status": str(span.status), "attributes": attributes,
    }  # fmt: skip


def _ask(proxy: Proxy, name: str) -> dict[str, Any]:
    answer = told(ask(proxy, *ALL[name]))
    all_reported(proxy, "opentelemetry", lambda: len(_spans(proxy.kind)))
    spans = _spans(proxy.kind)[LOOKED_AT[proxy.kind] :]
    LOOKED_AT[proxy.kind] += len(spans)
    # Reports may overtake each other: the request's own span, then those of its tries.
    spans.sort(key=lambda span: (span.name.startswith("router "), _attributes(span.attributes).get("retry.count", "")))
    ids = Ids()
    answer["spans"] = [_span(span, ids) for span in spans]
    if parent := answer["upstream saw"].get("traceparent"):
        answer["upstream saw"]["traceparent"] = "-".join(ids(part) for part in parent.split("-"))
    return answer


@contextmanager
def _started(way: Way, directory: Path) -> Iterator[list[Proxy]]:
    """Envoy and tidegate, one collector."""
    for kind in REPORTS:
        REPORTS[kind].clear()
        LOOKED_AT[kind] = 0

    with (
        pytest.MonkeyPatch.context() as patch,
        Upstream({"/v1/traces?a=b": _take}).running() as upstream,
        _collector() as collector,
    ):
        patch.setenv(
            "OTEL_RESOURCE_ATTRIBUTES", "env.key=env value,broken,a=b=c,service.version=1, spaced = yes ,empty="
        )

        def start(kind: str) -> Any:
            port, admin = free_port(), free_port()
            http2 = {"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }}}  # fmt: skip
            text = bootstrap(
                port,
                admin,
                way.direction,
                [
                    cluster("a", upstream.port),
                    cluster("http", upstream.port),
                    cluster("grpc", collector, **http2),
                    cluster("dead", 1),
                ],
                {
                    **EVERYTHING,
                    "custom_tags": TAGS,
                    "provider": way.provider(kind),
                    "spawn_upstream_span": way.upstream_spans,
                },
                runtime={"tracing.opentelemetry.min_flush_spans": 1},
            )
            return running(kind, text, admin_port=admin, port=port, directory=directory, log=directory / "log")

        with start("envoy") as envoy, start("tidegate") as subject:
            yield [envoy, subject]


@pytest.fixture(scope="module", params=WAYS, ids=str)
def proxies(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Proxy]]:
    with _started(request.param, tmp_path_factory.mktemp("opentelemetry")) as started:
        yield started


@pytest.mark.parametrize("name", ALL)
def test_same_span(proxies: list[Proxy], name: str) -> None:
    envoy, subject = (_ask(proxy, name) for proxy in proxies)
    assert subject == envoy


def test_same_reports(proxies: list[Proxy]) -> None:
    """After all the requests before: who reports, with which headers; reasons and spans counted."""
    texts, seen = [], []
    for proxy in proxies:
        lines = proxy.admin("/stats?filter=^(http.t.)?tracing")[1].decode().splitlines()
        texts.append(sorted(line for line in lines if "timer_flushed" not in line))
        kinds = set()
        for headers, resource, _ in REPORTS[proxy.kind]:
            pairs = {**headers, "x-kind": "", "x-request-id": ""}
            attributes = _attributes(resource.resource.attributes)
            kind = attributes.pop("service.name", None)
            assert kind in (proxy.kind, "unknown_service:envoy")
            kinds.add(_masked(str((sorted(pairs.items()), sorted(attributes.items()), resource.schema_url))))
        seen.append(kinds)
    assert texts[1] == texts[0]
    assert "sent: 0" in str(texts[0]) or seen[0]
    assert seen[1] == seen[0]


def test_same_share(tmp_path: Path) -> None:
    """The same traces are sampled of those that callers began."""
    numbers = random.Random(7)
    traces = [f"{numbers.getrandbits(128):032x}" for _ in range(40)]
    sampled = []
    with _started(Way(sampler="half"), tmp_path) as proxies:
        for proxy in proxies:
            answers = [ask(proxy, "GET /x", {"traceparent": f"00-{trace}-{'1' * 16}-01"}) for trace in traces]
            sampled.append([told(answer)["upstream saw"]["traceparent"][-2:] for answer in answers])
    assert sampled[1] == sampled[0]
    assert set(sampled[0]) == {"00", "01"}


@pytest.mark.parametrize("more", [("retry",), ("retry of envoy_grpc",), ()], ids=str)
def test_same_retries(tmp_path: Path, more: tuple[str, ...]) -> None:
    """The collector refuses twice: with a policy one report comes again until it is taken, without the third is."""
    again = more == ("retry",)
    with _started(Way(more=more), tmp_path) as proxies:
        for proxy in proxies:
            TRIES[proxy.kind], REFUSED[proxy.kind] = 0, 2
            try:
                for number in range(1 if again else 3):
                    ask(proxy, "GET /x", {})
                    deadline = time.monotonic() + 20
                    taken = again or number == 2
                    while TRIES[proxy.kind] <= number or (taken and not _spans(proxy.kind)):
                        assert time.monotonic() < deadline, f"{proxy.kind}: {TRIES}"
                        time.sleep(0.01)
            finally:
                del REFUSED[proxy.kind]
            assert (proxy.kind, TRIES[proxy.kind], len(_spans(proxy.kind))) == (proxy.kind, 3, 1)
