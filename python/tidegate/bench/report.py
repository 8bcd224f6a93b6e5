"""Results as a table and as JSON. Must not know how they were measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from tidegate.bench.rig import Outcome, Sample


def _spread(samples: list[Sample], pick: Callable[[Sample], float]) -> tuple[float, float, float]:
    values = [pick(s) for s in samples]
    return min(values), statistics.median(values), max(values)


def _cpu(sample: Sample) -> float:
    return sample.cpu_us or 0.0


def document(outcomes: list[Outcome], machine: dict[str, Any]) -> dict[str, Any]:
    """Everything measured: per case and peer the samples, min/median/max and the ratio to tidegate."""
    cases = {}
    for outcome in outcomes:
        rows = {}
        for name, samples in outcome.samples.items():
            row: dict[str, Any] = {"samples": [vars(s) | {"rate": s.rate} for s in samples]}
            pick: dict[str, Callable[[Sample], float]] = {
                "rate": lambda s: s.rate, "p50_us": lambda s: s.p50, "p99_us": lambda s: s.p99,
            }  # fmt: skip
            if samples[0].cpu_us is not None:
                pick["cpu_us"] = _cpu
            for key, get in pick.items():
                row[key] = dict(zip(("min", "median", "max"), _spread(samples, get), strict=True))
            row["errors"] = sum(s.errors for s in samples)
            row["load_was_the_limit"] = statistics.median(s.load_busy for s in samples) > 0.95
            rows[name] = row
        ours = rows.get("tidegate")
        ratios = {
            name: row["cpu_us"]["median"] / ours["cpu_us"]["median"]
            for name, row in rows.items()
            if ours and name != "tidegate" and "cpu_us" in row
        }
        cases[outcome.case.name] = {
            "summary": outcome.case.summary, "peers": rows, "missing": outcome.missing,
            "cpu_times_better_than": ratios,
        }  # fmt: skip
    return {"machine": machine, "cases": cases}


def table(doc: dict[str, Any]) -> str:
    """CPU per operation first: that of all threads of the proxy, in microseconds, min/median/max."""
    lines = []
    for name, case in doc["cases"].items():
        lines.append(f"\n{name}: {case['summary']}")
        lines.append(
            f"  {'peer':<10}{'CPU us/op (min/median/max)':>30}{'k ops/s':>10}{'p50 us':>9}{'p99 us':>9}  peer/tidegate"
        )
        for peer, row in case["peers"].items():
            cpu = "/".join(f"{row['cpu_us'][k]:.2f}" for k in ("min", "median", "max")) if "cpu_us" in row else "-"
            ratio = case["cpu_times_better_than"].get(peer)
            marks = (" *" if row["load_was_the_limit"] else "") + (f"  {row['errors']} ERRORS" if row["errors"] else "")
            lines.append(
                f"  {peer:<10}{cpu:>30}{row['rate']['median'] / 1e3:>10.1f}{row['p50_us']['median']:>9.0f}"
                f"{row['p99_us']['median']:>9.0f}{f'{ratio:>12.2f} x' if ratio else '':<16}{marks}"
            )
        lines += [f"  {peer:<10}{why}" for peer, why in case["missing"].items()]
    lines.append(
        "\n* the load generator and the backend were the limit: the rate is a lower bound, CPU per operation holds"
    )
    return "\n".join(lines)
