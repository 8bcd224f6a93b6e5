"""How the suite is shared out over processes: `make test-python` runs most of it in several, the rest by itself.

A file's tests stay in one process, for their fixtures; so do the cases of one scenario, for its proxies. Must not know
what is tested.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

HERE = Path(__file__).parent
#: What measures memory or time, wants the machine's processors for itself, or builds whole networks.
ALONE = [
    HERE / "conformance" / "test_h2_defences.py",
    HERE / "istio",
    *(
        HERE / "integration" / f"test_{name}.py"
        for name in ("accept_balance", "bench", "demo", "failures", "http2", "memory", "updates_under_load")
    ),
]
SCENARIO = re.compile(r".*/test_differential\.py::test_same_as_envoy\[[^/]+")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.path.is_relative_to(path) for path in ALONE):
            item.add_marker(pytest.mark.alone)


class ByScenario(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """xdist's own `loadgroup` has no effect under pytest 9.2, and says nothing: it renames tests, which have no name
    to set any more. This one looks at the names alone."""

    def _split_scope(self, nodeid: str) -> str:
        scenario = SCENARIO.match(nodeid)
        return scenario[0] if scenario else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByScenario:
    return ByScenario(config, log)
