"""Who is measured after whom."""

from __future__ import annotations

from itertools import combinations

import pytest

from tidegate.bench.peers import Launch
from tidegate.bench.rig import Rig, Sample, order
from tidegate.bench.scenarios import select

PEERS = ["direct", "tidegate", "envoy", "haproxy", "nginx"]


@pytest.mark.parametrize("count", range(1, len(PEERS) + 1))
def test_everybody_has_one_place_in_a_turn_and_is_as_often_first_and_last_as_the_others(count: int) -> None:
    names = PEERS[:count]
    turns = [order(names, turn) for turn in range(2 * count)]
    assert turns[0] == names
    assert all(sorted(turn) == sorted(names) for turn in turns)
    for place in (0, -1):
        assert all([turn[place] for turn in turns].count(name) == 2 for name in names)


def test_two_turns_have_every_pair_in_both_orders() -> None:
    for pair in range(10):
        one, other = order(PEERS, 2 * pair), order(PEERS, 2 * pair + 1)
        for a, b in combinations(PEERS, 2):
            assert (one.index(a) < one.index(b)) != (other.index(a) < other.index(b))


def test_with_the_usual_five_repeats_nobody_is_first_more_than_twice() -> None:
    first = [order(PEERS, turn)[0] for turn in range(5)]
    assert max(map(first.count, PEERS)) == 2


def test_nobody_to_measure() -> None:
    assert order([], 3) == []


def test_the_rig_follows_it_whether_proxies_stay_up_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Fake(Rig):
        def _started(self, _stack: object, _case: object, name: str) -> str:  # type: ignore[override]
            return name

        def _burst(self, _case: object, target: str, duration: float) -> Sample:  # type: ignore[override]
            if duration == self.duration:
                seen.append(target)
            return Sample({"cpu_us": 1.0})

        def _startup(self, _case: object, name: str) -> Sample:
            seen.append(name)
            return Sample({"load_seconds": 1.0})

    monkeypatch.setattr("tidegate.bench.peers.launch", lambda *_: Launch((), {}))
    names = ["tidegate", "envoy", "haproxy"]
    expected = [name for turn in range(4) for name in order(names, turn)]
    rig = Fake(names, duration=9, repeats=4, progress=lambda _: None)
    for case in select(["tcp-connect", "config-10000"]):
        seen.clear()
        outcome = rig.measure(case)
        assert seen == expected
        assert {name: len(samples) for name, samples in outcome.samples.items()} == dict.fromkeys(names, 4)
