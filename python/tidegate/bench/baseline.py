"""Whether a run is worse than an earlier one: `--baseline FILE --max-regression 10%`.

Machines differ and drift, so what is compared is the ratio to a peer that both runs measured (Envoy, else HAProxy,
else nginx); only without any is it the figure itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.bench.report.document import VERSION
from tidegate.bench.report.table import number
from tidegate.bench.scenarios import METRICS
from tidegate.errors import TidegateError

_PEERS = ("envoy", "haproxy", "nginx")


class BaselineError(TidegateError):
    """The baseline cannot be used."""


@dataclass(frozen=True)
class Verdict:
    """`change` is 0.1 when we cost a tenth more than before; `peer` is empty for absolute figures."""

    case: str
    metric: str
    peer: str
    before: float
    now: float
    change: float
    regressed: bool


def percent(text: str) -> float:
    """`10%` or `10` as 0.1."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        raise BaselineError(f"--max-regression {text}: not a percentage") from None
    if not 0 <= value <= 1000:
        raise BaselineError(f"--max-regression {text}: 0 to 1000 percent")
    return value / 100


def read(path: Path) -> dict[str, Any]:
    try:
        doc: dict[str, Any] = json.loads(path.read_text())
        version = doc["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BaselineError(f"--baseline {path}: not a file of --json: {error}") from None
    if version != VERSION:
        raise BaselineError(f"--baseline {path}: version {version} instead of {VERSION}; measure it anew")
    return doc


def compare(before: dict[str, Any], now: dict[str, Any], limit: float) -> list[Verdict]:
    """A verdict per guarded metric of every case that both runs have."""
    verdicts = []
    for name, case in now["cases"].items():
        old = before["cases"].get(name)
        for metric in case["guards"] if old else ():
            pair = _figures(old, case, metric)
            if pair is None:
                continue
            peer, was, is_now = pair
            change = is_now / was - 1 if was > 0 else 0.0
            verdicts.append(Verdict(name, metric, peer, was, is_now, change, change > limit))
    return verdicts


def _figures(before: dict[str, Any], now: dict[str, Any], metric: str) -> tuple[str, float, float] | None:
    """Ours over a peer's, then and now; or ours alone."""
    ours = _median(before, "tidegate", metric), _median(now, "tidegate", metric)
    if ours[0] is None or ours[1] is None:
        return None
    for peer in _PEERS:
        theirs = _median(before, peer, metric), _median(now, peer, metric)
        if theirs[0] and theirs[1] and theirs[0] > 0 and theirs[1] > 0:
            return peer, ours[0] / theirs[0], ours[1] / theirs[1]
    return "", ours[0], ours[1]


def _median(case: dict[str, Any], peer: str, metric: str) -> float | None:
    value: float | None = case["peers"].get(peer, {}).get(metric, {}).get("median")
    return value


def table(verdicts: list[Verdict], limit: float) -> str:
    if not verdicts:
        return "\nbaseline: no case of this run is in it"
    lines = [f"\nagainst the baseline ({limit:.0%} allowed; ours over the peer's where one is named):"]
    lines.append(f"  {'case':<30}{'metric':<26}{'relative to':<14}{'before':>10}{'now':>10}{'change':>9}")
    for v in verdicts:
        # A ratio needs more digits than a figure.
        cells = [f"{value:.3f}" if v.peer else number(value) for value in (v.before, v.now)]
        mark = "  WORSE" if v.regressed else ""
        label = " ".join(METRICS[v.metric])
        lines.append(f"  {v.case:<30}{label:<26}{v.peer or '-':<14}{cells[0]:>10}{cells[1]:>10}{v.change:>+9.1%}{mark}")
    worse = sum(v.regressed for v in verdicts)
    lines.append(f"  {worse} of {len(verdicts)} worse" if worse else "  none worse")
    return "\n".join(lines)
