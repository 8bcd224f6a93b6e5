"""No client costs the proxy more than it costs the client: every abuse is ended, or harmless; others notice nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.h2abuses import ABUSES, Abuse, attempt, victim

#: Bytes of memory that an abuse may take. Envoy takes more (32 MiB for the slow reader): it has no limit here.
GROWTH = {"tidegate": 4 << 20}
KINDS = ("envoy", "tidegate")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("abuse", ABUSES, ids=lambda a: a.name)
def test_an_abuse(kind: str, abuse: Abuse, tmp_path: Path) -> None:
    with victim(kind, tmp_path) as proxy:
        outcome = attempt(proxy, abuse)
        assert proxy.process.poll() is None
    assert outcome.ended or abuse.harmless, outcome
    assert outcome.honest >= 2
    assert not outcome.harmed
    assert outcome.growth <= GROWTH.get(kind, 1 << 40), outcome
    if abuse.counter:
        assert outcome.counted.get(abuse.counter), outcome.counted
