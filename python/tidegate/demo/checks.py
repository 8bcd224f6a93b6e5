"""`--check`: what a mesh must do, tried on the running one, with numbers."""

from __future__ import annotations

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tidegate.demo import plan as plans
from tidegate.demo.mesh import Mesh
from tidegate.demo.steps import Step, walk

_REVIEWS: Final = "/api/v1/products/0/reviews"
_SPLIT: Final = {"v1": 50, "v2": 30, "v3": 20}
_SPLIT_CALLS: Final = 400
#: A right mesh fails the split one time in a million.
_SPLIT_ALPHA: Final = 1e-6
_USER: Final = "jason"
_MATCH_CALLS: Final = 30
_LOAD_SECONDS: Final = 6.0
_LOAD_RATE: Final = 100
_LOAD_WORKERS: Final = 4


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    summary: str
    figures: dict[str, Any] = field(default_factory=dict)


def _version(mesh: Mesh, **headers: str) -> str:
    """Which version of reviews answered; `error NNN` when none did."""
    answer = mesh.page(_REVIEWS, **headers)
    if answer.status != 200:
        return f"error {answer.status}"
    return str(json.loads(answer.body)["podname"]).removeprefix("reviews-")


def check_page(mesh: Mesh) -> Check:
    """The page through the ingress, whole."""
    begin = time.monotonic()
    answer = mesh.page()
    milliseconds = (time.monotonic() - begin) * 1000
    wanted = ("The Comedy of Errors", "1234567890", "An extremely entertaining play")
    ok = answer.status == 200 and all(text in answer.text for text in wanted)
    summary = f"GET /productpage: {answer.status}, {len(answer.body)} bytes, {milliseconds:.0f} ms"
    figures = {"status": answer.status, "bytes": len(answer.body), "milliseconds": round(milliseconds, 1)}
    return Check("page", ok, summary, figures)


def check_steps(steps: list[Step]) -> Check:
    done = sum(step.ok for step in steps)
    figures = {"steps": [{"step": s.number, "title": s.title, "ok": s.ok, "evidence": list(s.evidence)} for s in steps]}
    return Check("call", done == len(steps) == 13, f"{done} of 13 steps shown", figures)


def check_split(mesh: Mesh) -> Check:
    """reviews 50/30/20: a chi-squared test of what came back."""
    took = mesh.apply([plans.virtual_service("reviews", plans.split("reviews", _SPLIT))])
    counts = Counter(_version(mesh) for _ in range(_SPLIT_CALLS))
    expected = {version: _SPLIT_CALLS * weight / 100 for version, weight in _SPLIT.items()}
    chi_squared = sum((counts[version] - n) ** 2 / n for version, n in expected.items())
    # With two degrees of freedom the tail of the distribution is exp(-x/2).
    bound = -2 * math.log(_SPLIT_ALPHA)
    ok = set(counts) <= set(_SPLIT) and chi_squared < bound
    got = " / ".join(str(counts[version]) for version in _SPLIT)
    return Check(
        "split", ok, f"reviews 50/30/20 of {_SPLIT_CALLS} calls: {got} (chi² {chi_squared:.1f} < {bound:.1f})",
        {"counts": dict(sorted(counts.items())), "chi_squared": round(chi_squared, 2), "bound": round(bound, 2),
         "rule_took_seconds": round(took, 3)},
    )  # fmt: skip


def check_header_match(mesh: Mesh) -> Check:
    """Whoever is signed in as jason sees v2, everybody else v1."""
    match = {
        "match": [{"headers": {"end-user": {"exact": _USER}}}],
        "route": [{"destination": {"host": "reviews", "subset": "v2"}}],
    }
    others = {"route": [{"destination": {"host": "reviews", "subset": "v1"}}]}
    mesh.apply([plans.virtual_service("reviews", [match, others])])
    jason = Counter(_version(mesh, end_user=_USER) for _ in range(_MATCH_CALLS))
    rest = Counter(_version(mesh) for _ in range(_MATCH_CALLS))
    ok = jason == Counter({"v2": _MATCH_CALLS}) and rest == Counter({"v1": _MATCH_CALLS})
    summary = f"end-user: {_USER} -> {', '.join(jason)} ({_MATCH_CALLS} calls), others -> {', '.join(rest)}"
    return Check("header_match", ok, summary, {"jason": dict(jason), "others": dict(rest)})


class _Load:
    """Calls at a steady rate from several threads until told to stop."""

    def __init__(self, call: Callable[[], str]) -> None:
        self._call = call
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.results: Counter[str] = Counter()
        self.slowest = 0.0
        self._threads = [threading.Thread(target=self._run) for _ in range(_LOAD_WORKERS)]

    def __enter__(self) -> _Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        period = _LOAD_WORKERS / _LOAD_RATE
        due = time.monotonic()
        while not self._stop.is_set():
            begin = time.monotonic()
            result = self._call()
            with self._lock:
                self.results[result] += 1
                self.slowest = max(self.slowest, time.monotonic() - begin)
            due = max(due + period, time.monotonic() - period)
            self._stop.wait(max(0.0, due - time.monotonic()))


def check_rule_change(mesh: Mesh) -> Check:
    """A rule change every second while calls go on: none may fail, and both versions must have had their turn."""
    changes = 0
    with _Load(lambda: _version(mesh)) as load:
        deadline = time.monotonic() + _LOAD_SECONDS
        while time.monotonic() < deadline:
            turn = {"v3": 100} if changes % 2 == 0 else {"v1": 50, "v2": 50}
            mesh.apply([plans.virtual_service("reviews", plans.split("reviews", turn))])
            changes += 1
            time.sleep(0.7)
    failed = sum(count for result, count in load.results.items() if result not in _SPLIT)
    total = sum(load.results.values())
    ok = failed == 0 and set(_SPLIT) <= set(load.results) and changes >= 3
    summary = f"{changes} rule changes under {total} calls: {failed} failed, slowest {load.slowest * 1000:.0f} ms"
    return Check(
        "rule_change_under_load", ok, summary,
        {"changes": changes, "calls": total, "failed": failed, "results": dict(sorted(load.results.items())),
         "slowest_milliseconds": round(load.slowest * 1000, 1)},
    )  # fmt: skip


def check_http2(mesh: Mesh) -> Check:
    """What the sidecars counted: connections between them are HTTP/2, those to the applications HTTP/1.1."""
    totals: Counter[str] = Counter()
    for workload in mesh.plan.workloads:
        text = mesh.admin(workload.name, "/stats?filter=upstream_cx_http").text
        for line in text.splitlines():
            name, _, value = line.partition(": ")
            if name.startswith(("cluster.outbound", "cluster.inbound")):
                totals[f"{name.split('|')[0].removeprefix('cluster.')} {name.rpartition('.')[2]}"] += int(value)
    out2, out1 = totals["outbound upstream_cx_http2_total"], totals["outbound upstream_cx_http1_total"]
    in2, in1 = totals["inbound upstream_cx_http2_total"], totals["inbound upstream_cx_http1_total"]
    summary = f"connections to other sidecars: {out2} HTTP/2, {out1} HTTP/1.1; to the applications: {in2}, {in1}"
    return Check("http2", out2 > 0 and out1 == 0 and in2 == 0 and in1 > 0, summary, {"connections": dict(totals)})


def run_checks(mesh: Mesh, done: Callable[[Check], None]) -> list[Check]:
    """All of them, in an order in which none disturbs the next."""
    found = []
    checks: list[Callable[[], Check]] = [
        lambda: check_steps(walk(mesh)),
        lambda: check_page(mesh),
        lambda: check_split(mesh),
        lambda: check_header_match(mesh),
        lambda: check_rule_change(mesh),
    ]
    if mesh.plan.http2:
        checks.append(lambda: check_http2(mesh))
    for check in checks:
        found.append(check())
        done(found[-1])
    return found
