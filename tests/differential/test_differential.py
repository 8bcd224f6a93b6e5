"""The same configuration, the same bytes: tidegate and the real Envoy give the same answers and the same log lines.

Each scenario starts both proxies once, in front of the same upstreams, and puts every case to both (`pair`).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from differential.pair import SUBJECT, Pair, statuses
from differential.scenario import Case, FrameCase, load

SCENARIOS = {s.name: s for s in load()}


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
def test_same_as_envoy(
    case: Case | FrameCase, pairs: dict[str, Pair], tmp_path_factory: pytest.TempPathFactory
) -> None:
    envoy, subject = _pair(pairs, case.scenario, tmp_path_factory).ask(case)
    if case.intended and SUBJECT != "envoy":
        status = statuses(subject)
        assert status == case.intended["tidegate"], case.intended["why"]
        assert envoy != subject, "no longer a difference: drop `intended`"
        return
    assert subject == envoy


def test_the_suite_is_as_large_as_promised() -> None:
    cases = [case for scenario in SCENARIOS.values() for case in scenario.cases]
    assert len(SCENARIOS) >= 60
    assert len(cases) >= 900
    assert sum(isinstance(case, FrameCase) for case in cases) >= 450
