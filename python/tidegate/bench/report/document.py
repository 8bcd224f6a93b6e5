"""The document that everything else is made from: per case and peer the samples, min/median/max, and the ratios."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from tidegate.bench.rig import Outcome, Sample

#: The format of the document, for whoever compares an old one.
VERSION = 2
_LIMIT = 0.95
_SLEEPY = 0.25


def document(outcomes: Sequence[Outcome], machine: dict[str, Any]) -> dict[str, Any]:
    return {"version": VERSION, "machine": machine, "cases": {o.case.name: _case(o) for o in outcomes}}


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def _case(outcome: Outcome) -> dict[str, Any]:
    case = outcome.case
    samples = {name: list(rows) for name, rows in outcome.samples.items() if rows}
    if "direct" in samples:
        _add_latency_over_direct(samples)
    rows = {name: _row(of) for name, of in samples.items()}
    headline = case.headline
    ours = rows.get("tidegate", {}).get(headline, {}).get("median")
    ratios = {
        name: row[headline]["median"] / ours
        for name, row in rows.items()
        if ours and ours > 0 and name != "tidegate" and headline in row
    }
    return {
        "summary": case.summary,
        "headline": headline,
        "columns": list(case.columns),
        "guards": list(case.guards),
        "table": vars(case.table) if case.table else None,
        "peers": rows,
        "missing": outcome.missing,
        "skipped": outcome.skipped,
        "times_better_than": ratios,
    }


def _add_latency_over_direct(samples: dict[str, list[Sample]]) -> None:
    """Each burst against the direct one of its own turn."""
    for name, rows in samples.items():
        if name == "direct":
            continue
        for sample, direct in zip(rows, samples["direct"], strict=False):
            for quantile in ("p50", "p99", "p999"):
                key = f"{quantile}_us"
                if key in sample.metrics and key in direct.metrics:
                    sample.metrics[f"added_{key}"] = sample.metrics[key] - direct.metrics[key]


def _row(samples: list[Sample]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for metric in samples[0].metrics:
        row[metric] = spread([s.metrics[metric] for s in samples if metric in s.metrics])
    row["errors"] = sum(s.errors for s in samples)
    row["first_error"] = next((s.first_error for s in samples if s.first_error), "")
    row["load_was_the_limit"] = statistics.median(s.load_busy for s in samples) > _LIMIT
    # A proxy that the backend waits for wakes it again and again, and that is CPU time of the proxy's.
    row["pays_for_waking"] = row.get("backend_sleeps", {}).get("median", 0) > _SLEEPY and "cpu_us" in row
    row["load_busy"] = statistics.median(s.load_busy for s in samples)
    if samples[0].curve:
        percents = [percent for percent, _ in samples[0].curve]
        row["curve_us"] = [[p, statistics.median(s.curve[i][1] for s in samples)] for i, p in enumerate(percents)]
    row["samples"] = [vars(s) for s in samples]
    return row
