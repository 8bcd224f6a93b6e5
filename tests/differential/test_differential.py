"""The same configuration, the same bytes: tidegate and the real Envoy give the same answers and the same log lines.

Each scenario starts both proxies once, in front of the same upstreams, and puts every case to both. What is made up
per request (dates, generated ids, durations, ephemeral ports) is replaced by its name before the comparison.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from differential.backend import Backend, free_port
from differential.client import Exchange, Response, exchange
from differential.proxies import Proxy, running
from differential.scenario import Case, Scenario, load

SCENARIOS = {s.name: s for s in load()}
#: Set to `envoy` to try the suite against itself.
SUBJECT = os.environ.get("TIDEGATE_SUBJECT", "tidegate")

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
DATE = re.compile(r"^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$")
REMOTE = re.compile(r"127\.0\.0\.1:(\d+) ")
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")


def _value(name: str, value: str) -> str:
    if name == "date" and DATE.match(value) and "2024" not in value:
        return "<date>"
    if name == "x-envoy-upstream-service-time":
        return "<ms>"
    return UUID.sub("<uuid>", STAMP.sub("<time>", value))


def _headers(pairs: list[tuple[str, str]], port: int) -> list[tuple[str, str]]:
    return sorted((n, _value(n, v).replace(str(port), "<port>")) for n, v in pairs)


def _body(response: Response, port: int) -> Any:
    """The upstream's echo as a document, anything else as text."""
    text = response.body.decode("latin-1")
    if response.get("x-backend") and text.startswith("{") and response.complete:
        echo = json.loads(text)
        echo["headers"] = _headers([(n, v) for n, v in echo["headers"]], port)
        return echo
    return text.replace(str(port), "<port>")


def comparable(result: Exchange, port: int) -> dict[str, Any]:
    """What must be equal, in a form that prints well."""

    def one(r: Response) -> dict[str, Any]:
        body = _body(r, port)
        pairs = r.headers
        if isinstance(body, dict):  # its length depends on the ids within
            pairs = [(n, v if n != "content-length" else "<n>") for n, v in r.headers]
        return {
            "status": r.status,
            "headers": _headers(pairs, port),
            "body": body,
            "trailers": r.trailers,
            "complete": r.complete,
        }

    return {
        "responses": [one(r) for r in result.responses],
        "end": result.end,
        "leftover": result.leftover.decode("latin-1"),
    }


class Pair:
    """Both proxies of one scenario, started once, and what each answered."""

    def __init__(self, scenario: Scenario, directory: Path) -> None:
        self.stack = ExitStack()
        self.scenario = scenario
        self.results: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        backends = [Backend(name).start() for name in ("a", "b")]
        for backend in backends:
            self.stack.callback(backend.stop)
        ports = {b.name: b.port for b in backends} | {"dead": free_port(), "free1": free_port(), "free2": free_port()}
        self.proxies: list[Proxy] = []
        for index, kind in enumerate((("envoy", SUBJECT)) if SUBJECT != "envoy" else ("envoy", "envoy")):
            own = directory / f"{index}"
            own.mkdir()
            log = own / "access.log"
            admin, port = free_port(), free_port()
            text = scenario.bootstrap(ports, str(log), admin, port)
            self.proxies.append(
                self.stack.enter_context(
                    running(kind, text, admin_port=admin, port=port, directory=own, log=log,
                            args=tuple(scenario.document.get("args", ())))
                )
            )  # fmt: skip

    def ask(self, case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
        for proxy in self.proxies:
            proxy.log_lines()
        with ThreadPoolExecutor(2) as pool:
            (envoy, ports), (subject, others) = pool.map(lambda p: self._put(p, case), self.proxies)
        if case.compare_log:
            envoy["log"], subject["log"] = self._logs(case, ports, others)
        return envoy, subject

    @staticmethod
    def _put(proxy: Proxy, case: Case) -> tuple[dict[str, Any], set[int]]:
        outcomes: dict[str, Any] = {}
        ports: set[int] = set()
        for turn in range(case.repeat):
            result = exchange(
                proxy.port, list(case.parts), methods=list(case.methods), timeout=case.timeout,
                linger=case.linger, shut=case.shut, abort_after=case.abort_after,
            )  # fmt: skip
            outcomes[str(turn)] = comparable(result, proxy.port)
            ports.add(result.port)
        return outcomes, ports

    def _logs(self, case: Case, ports: set[int], others: set[int]) -> tuple[list[str], list[str]]:
        """Waits for Envoy's lines to come to rest, then for as many of the other's."""
        reference, subject = self.proxies
        want: list[str] = []
        quiet = time.monotonic() + (1.5 if case.abort_after is not None else 0.5)
        while time.monotonic() < quiet:
            if fresh := _own(reference.log_lines(), ports):
                want += fresh
                quiet = time.monotonic() + 0.04
            time.sleep(0.01)
        have: list[str] = []
        deadline = time.monotonic() + 2
        while len(have) < len(want) and time.monotonic() < deadline:
            have += _own(subject.log_lines(), others)
            time.sleep(0.01)
        have += _own(subject.log_lines(), others)
        return [_log(line, reference.port) for line in want], [_log(line, subject.port) for line in have]


def _own(lines: list[str], ports: set[int]) -> list[str]:
    """Without their first word, the lines of connections from `ports`; a line of another format is kept whole.

    A connection that its client closed is logged whenever the proxy comes to it: perhaps in the next case.
    """
    own = []
    for line in lines:
        if not (match := REMOTE.match(line)):
            own.append(line)
        elif int(match[1]) in ports:
            own.append(line[match.end() :])
    return own


def _log(line: str, port: int) -> str:
    return UUID.sub("<uuid>", STAMP.sub("<time>", line)).replace(str(port), "<port>")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Pair]]:
    """The pair of the scenario at hand; the one before it is ended when the next begins."""
    alive: dict[str, Pair] = {}
    try:
        yield alive
    finally:
        for pair in alive.values():
            pair.stack.close()


def _pair(alive: dict[str, Pair], name: str, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    if name not in alive:
        for other in list(alive):
            alive.pop(other).stack.close()
        alive[name] = Pair(SCENARIOS[name], tmp_path_factory.mktemp(name))
    return alive[name]


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=f"{c.scenario}/{c.name}") for s in SCENARIOS.values() for c in s.cases]
)
def test_same_as_envoy(case: Case, pairs: dict[str, Pair], tmp_path_factory: pytest.TempPathFactory) -> None:
    envoy, subject = _pair(pairs, case.scenario, tmp_path_factory).ask(case)
    if case.intended:
        status = [r["status"] for r in subject["0"]["responses"]]
        assert status == case.intended["tidegate"], case.intended["why"]
        assert envoy != subject, "no longer a difference: drop `intended`"
        return
    assert subject == envoy


def test_the_suite_is_as_large_as_promised() -> None:
    assert len(SCENARIOS) >= 25
    assert sum(len(s.cases) for s in SCENARIOS.values()) >= 200
