"""The calls of `reference` section C of a mesh under the real Istio, each as what can be compared between data planes.

A call gives a dictionary of what its caller and its application saw, with the values that differ from run to run taken
out. Must not know which data planes are in the pods.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from istio.world import Pod, World

__all__ = ["CALLS", "pods"]

Seen = dict[str, Any]
CALLS: dict[str, Callable[[World], Seen]] = {}

REVIEWS = "10.96.7.30:9080"
CLIENT = "productpage-v1"
_VARYING = {
    "x-request-id", "date", "x-envoy-upstream-service-time", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid",
    "x-b3-sampled", "x-envoy-peer-metadata", "x-envoy-peer-metadata-id", "user-agent",
}  # fmt: skip


def pods(client: str, server: str) -> list[Pod]:
    """productpage runs the first data plane (empty: ours), everything it calls the second."""
    return [
        Pod("productpage", "v1", 11, data_plane=client),
        Pod("details", "v1", 21, data_plane=server),
        Pod("reviews", "v1", 31, data_plane=server),
        Pod("reviews", "v2", 32, "r1/z2/s1", data_plane=server),
        Pod("reviews", "v3", 33, "r2/z1/s1", data_plane=server),
        Pod("ratings", "v1", 41, data_plane=server),
    ]


def _call(function: Callable[[World], Seen]) -> Callable[[World], Seen]:
    CALLS[function.__name__] = function
    return function


def _host(service: str, port: int = 9080) -> dict[str, str]:
    return {"host": f"{service}.bookinfo.svc.cluster.local:{port}"}


def _normal(answer: Seen) -> Seen:
    """Without what differs from run to run; a value that must be there is kept as its shape."""
    seen = answer["seen"]
    headers = {name: value for name, value in seen.get("headers", {}).items() if name not in _VARYING}
    shaped = sorted(name for name in seen.get("headers", {}) if name in _VARYING)
    if "x-forwarded-client-cert" in headers:
        headers["x-forwarded-client-cert"] = re.sub("Hash=[0-9a-f]{64}", "Hash=#", headers["x-forwarded-client-cert"])
    for name in ("x-jwt-payload", "authorization"):
        if name in headers:
            headers[name] = "#"
    body = "" if seen else answer["body"]
    given = {name: value for name, value in answer["headers"].items() if name not in _VARYING}
    if seen:
        # The answer tells what varies.
        given.pop("content-length", None)
    if "set-cookie" in given:
        given["set-cookie"] = re.sub("[0-9a-f]{16}", "#", given["set-cookie"])
    return {
        "status": answer["status"],
        "headers": given,
        "body": re.sub(r"\d+\.\d+\.\d+\.\d+:\d+", "ADDRESS", body),
        "app": seen.get("app", ""),
        "path": seen.get("path", ""),
        "peer": seen.get("peer", "").partition(":")[0],
        "request headers": headers,
        "also": shaped,
    }


def _logged(world: World, pod: str, text: str) -> Seen:
    """Whether a line with this comes into the pod's access log: it is written once a second."""
    deadline = time.monotonic() + 3
    while text not in world.log(pod) and time.monotonic() < deadline:
        time.sleep(0.05)
    return {text: text in world.log(pod)}


@_call
def weighted(world: World) -> Seen:
    """50/30/20 among three subsets, 400 calls."""
    url = f"http://{REVIEWS}/reviews/[1-400]"
    text = world.curl(CLIENT, "-H", "host: " + _host("reviews")["host"], url, timeout=60)
    counts = Counter(re.findall(r'"app": "(reviews-v\d)"', text))
    assert sum(counts.values()) == 400, text[:2000]
    # Five standard deviations around what was asked for.
    return {
        name: abs(counts[name] - share) <= 50
        for name, share in (("reviews-v1", 200), ("reviews-v2", 120), ("reviews-v3", 80))
    }


@_call
def matched_header(world: World) -> Seen:
    answers = [
        world.call(CLIENT, f"http://{REVIEWS}/reviews/0", headers=_host("reviews") | {"end-user": "jason"})
        for _ in range(5)
    ]
    assert {answer["seen"].get("app") for answer in answers} == {"reviews-v2"}
    return _normal(answers[0])


@_call
def what_the_application_sees(world: World) -> Seen:
    headers = _host("reviews") | {"end-user": "jason", "X-Mixed-Case": "Kept"}
    seen = _normal(world.call(CLIENT, f"http://{REVIEWS}/reviews/0?q=1", headers=headers))
    assert seen["peer"] == "127.0.0.6"
    assert seen["request headers"]["x-forwarded-client-cert"].startswith(
        "By=spiffe://cluster.local/ns/bookinfo/sa/bookinfo-reviews;Hash=#;"
    )
    assert seen["request headers"]["x-envoy-attempt-count"] == "1"
    return seen


@_call
def retried(world: World) -> Seen:
    """v2 answers 503: four attempts, all at the subset that the route chose, and the last answer is passed on."""
    for _ in range(60):
        answer = world.call(CLIENT, f"http://{REVIEWS}/reviews/0", headers=_host("reviews") | {"x-fail": "reviews-v2"})
        if answer["seen"].get("app") == "reviews-v2":
            break
    seen = _normal(answer)
    assert seen["request headers"]["x-envoy-attempt-count"] == "4"
    return seen | _logged(world, CLIENT, " 503 URX ")


@_call
def method_denied(world: World) -> Seen:
    return _normal(
        world.call(
            CLIENT, f"http://{REVIEWS}/reviews/0", method="POST", headers=_host("reviews") | {"end-user": "jason"}
        )
    )


@_call
def other_identity_denied(world: World) -> Seen:
    """details may not call reviews."""
    return _normal(
        world.call("details-v1", f"http://{REVIEWS}/reviews/0", headers=_host("reviews") | {"end-user": "jason"})
    )


@_call
def plaintext_to_strict(world: World) -> Seen:
    """From outside the mesh (the switch's namespace) straight to the pod."""
    answer = world.outside(f"http://{world.net}.31:9080/reviews/0", _host("reviews"))
    return {"status": answer["status"], "reset": "reset" in answer["error"]} | _logged(
        world, "reviews-v1", "filter_chain_not_found"
    )


@_call
def plaintext_to_permissive(world: World) -> Seen:
    return _normal(world.outside(f"http://{world.net}.11:9080/productpage", {"host": f"{world.net}.11:9080"}))


@_call
def unknown_host(world: World) -> Seen:
    """Passed through to where the client dialled."""
    return _normal(
        world.call(CLIENT, f"http://{world.net}.1:15014/version", headers={"host": "nobody.knows:15014"})
    ) | {"body": ""}


@_call
def unknown_port(world: World) -> Seen:
    return {"status": world.call(CLIENT, f"http://{world.net}.1:8080/debug/syncz")["status"]}


@_call
def own_virtual_address(world: World) -> Seen:
    return _normal(world.call(CLIENT, "http://10.96.7.10:9080/productpage", headers=_host("productpage")))


@_call
def dead_endpoint(world: World) -> Seen:
    return _normal(world.call(CLIENT, "http://10.96.7.60:9080/", headers=_host("dead")))


@_call
def unserved_inbound_port(world: World) -> Seen:
    return _normal(world.outside(f"http://{world.net}.11:9999/", {"host": "x"}))


@_call
def bad_token(world: World) -> Seen:
    headers = {"host": "p:9080", "authorization": "Bearer no.real.token"}
    return _normal(world.outside(f"http://{world.net}.11:9080/productpage", headers))


@_call
def good_token(world: World) -> Seen:
    token = world.pki.token(iss="enduser@tests", sub="alice")
    seen = _normal(
        world.outside(f"http://{world.net}.11:9080/productpage", {"host": "p:9080", "authorization": f"Bearer {token}"})
    )
    assert seen["request headers"]["x-jwt-sub"] == "alice"
    return seen


@_call
def token_in_query(world: World) -> Seen:
    token = world.pki.token(iss="enduser@tests", sub="alice")
    answer = world.outside(f"http://{world.net}.11:9080/productpage?access_token={token}", {"host": "p:9080"})
    return _normal(answer) | {"path": answer["seen"].get("path", "").partition("=")[0]}


@_call
def denied_by_policy(world: World) -> Seen:
    headers = {"host": "p:9080", "x-token": "bad-one"}
    return _normal(world.outside(f"http://{world.net}.11:9080/admin/x", headers, method="POST"))


@_call
def not_denied_by_policy(world: World) -> Seen:
    return _normal(
        world.outside(f"http://{world.net}.11:9080/admin/x", {"host": "p:9080", "x-token": "good"}, method="POST")
    )


@_call
def http2_between_sidecars(world: World) -> Seen:
    seen = _normal(world.call(CLIENT, "http://10.96.7.20:9080/details/http2", headers=_host("details")))
    return seen | _logged(world, "details-v1", '"GET /details/http2 HTTP/2"')


@_call
def rewritten(world: World) -> Seen:
    return _normal(world.call(CLIENT, "http://10.96.7.20:9080/details/7?v=1", headers=_host("details")))


@_call
def redirected(world: World) -> Seen:
    return _normal(world.call(CLIENT, "http://10.96.7.20:9080/old/x", headers=_host("details")))


@_call
def direct_response(world: World) -> Seen:
    return _normal(world.call(CLIENT, "http://10.96.7.20:9080/teapot", headers=_host("details")))


@_call
def fault(world: World) -> Seen:
    return _normal(
        world.call(CLIENT, "http://10.96.7.40:9080/ratings/0", headers=_host("ratings") | {"end-user": "jason"})
    )


@_call
def cors(world: World) -> Seen:
    headers = _host("ratings") | {"origin": "https://bookinfo.test", "access-control-request-method": "GET"}
    return _normal(world.call(CLIENT, "http://10.96.7.40:9080/ratings/0", method="OPTIONS", headers=headers))


@_call
def changed_headers(world: World) -> Seen:
    return _normal(world.call(CLIENT, "http://10.96.7.40:9080/ratings/0", headers=_host("ratings") | {"x-drop": "me"}))


@_call
def sniffed_http(world: World) -> Seen:
    return _normal(world.call(CLIENT, "http://10.96.7.40:9100/x", headers=_host("ratings", 9100)))


@_call
def sniffed_tcp(world: World) -> Seen:
    return {"echo": world.echo(CLIENT, "10.96.7.40", 9100, b"\x00\x01hello, not HTTP")}


@_call
def tcp(world: World) -> Seen:
    return {"echo": world.echo(CLIENT, "10.96.7.50", 27017, b"\x00\x01hello mongo")}


@_call
def tcp_denied(world: World) -> Seen:
    return {"echo": world.echo("details-v1", "10.96.7.50", 27017, b"\x00\x01hello mongo")}


@_call
def nobody_outside_the_registry(world: World) -> Seen:
    """ratings is REGISTRY_ONLY and has not been told of reviews."""
    return _normal(world.call("ratings-v1", f"http://{REVIEWS}/reviews/0", headers=_host("reviews")))
