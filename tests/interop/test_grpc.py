"""Every case of gRPC's interop suite passes through the proxy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from differential.counts import Counts
from differential.proxies import Proxy
from interop import grpc

PROXIES = ("envoy", "tidegate")


@pytest.fixture(scope="module")
def upstream() -> Iterator[int]:
    with grpc.server() as port:
        yield port


@pytest.fixture(scope="module", params=PROXIES)
def proxy(request: pytest.FixtureRequest, upstream: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with grpc.between(request.param, upstream, tmp_path_factory.mktemp(request.param)) as proxy:
        yield proxy


@pytest.mark.parametrize("case", grpc.CASES)
def test_interop(case: str, proxy: Proxy) -> None:
    counts = Counts(proxy, [r"^http\.ingress\.downstream_rq_http2_total$", r"^cluster\.a\.upstream_rq_total$"])
    done = grpc.run(case, proxy.port)
    assert done.returncode == 0, done.stderr[-2000:]
    if case in ("timeout_on_sleeping_server", "cancel_after_begin"):
        return  # the client may have thought better of it before anything reached the upstream
    # It went through the proxy, in HTTP/2.
    moved = counts.at_rest()
    assert moved.get("http.ingress.downstream_rq_http2_total", 0) >= 1
    assert moved.get("cluster.a.upstream_rq_total", 0) >= 1
