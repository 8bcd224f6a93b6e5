"""Where a run takes place when it may not have a namespace of its own."""

from __future__ import annotations

import os

import pytest

from tidegate.bench import network
from tidegate.bench.rig import Rig
from tidegate.bench.scenarios import select


def test_who_is_not_root_stays_in_the_hosts_network_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    here = network.enter()
    assert not here.private
    assert here.note.startswith("not root, hence the host's network")


def test_redirection_needs_a_namespace_and_is_skipped_without() -> None:
    rig = Rig(["tidegate", "haproxy"], duration=1, repeats=1, progress=lambda _: None)
    outcome = rig.measure(select(["redirect"])[0])
    assert outcome.skipped
    assert list(outcome.missing) == ["tidegate"]
    assert not outcome.samples
