"""The document in pytest-benchmark's schema, for `pytest-benchmark compare` and the tools that read it.

A benchmark is a case with a peer, its time the headline in seconds: CPU time per operation, latency, or load time. The
memory of idle connections is no time and stays out. Latency percentiles and the rate are in `extra_info`.
"""

from __future__ import annotations

import math
import platform
import statistics
from datetime import UTC, datetime
from typing import Any

_PER_SECOND = {"us": 1e6, "s": 1.0}


def document(doc: dict[str, Any]) -> dict[str, Any]:
    when = datetime.fromtimestamp(doc["machine"].get("begun", 0), UTC).replace(tzinfo=None).isoformat()
    benchmarks = []
    for name, case in doc["cases"].items():
        unit = "us" if case["headline"].endswith("_us") else "s" if case["headline"].endswith("_seconds") else ""
        if not unit:
            continue
        for peer, row in case["peers"].items():
            values = [s["metrics"].get(case["headline"]) for s in row["samples"]]
            if seconds := [value / _PER_SECOND[unit] for value in values if value is not None]:
                benchmarks.append(_benchmark(name, peer, case, row, seconds))
    return {
        "machine_info": {
            "node": platform.node(),
            "processor": platform.processor(),
            "machine": platform.machine(),
            "python_implementation": platform.python_implementation(),
            "python_version": platform.python_version(),
            "system": platform.system(),
            "release": platform.release(),
            "cpu": {"count": doc["machine"]["cpus"]},
        },
        "commit_info": {"id": "unknown", "time": None, "author_time": None, "dirty": False, "project": "tidegate",
                        "branch": "unknown"},
        "benchmarks": benchmarks,
        "datetime": when,
        "version": "5.0.0",
    }  # fmt: skip


def _benchmark(name: str, peer: str, case: dict[str, Any], row: dict[str, Any], seconds: list[float]) -> dict[str, Any]:
    extra = {metric: value["median"] for metric, value in row.items() if isinstance(value, dict)}
    extra |= {f"p{percent:g}_us": micros for percent, micros in row.get("curve_us", [])}
    extra |= {"errors": row["errors"], "load_was_the_limit": row["load_was_the_limit"], "headline": case["headline"]}
    return {
        "group": name,
        "name": f"{name}[{peer}]",
        "fullname": f"tidegate bench::{name}[{peer}]",
        "params": {"peer": peer},
        "param": peer,
        "extra_info": extra,
        "options": {"disable_gc": False, "timer": "schedstat", "min_rounds": len(seconds), "max_time": 0,
                    "min_time": 0, "warmup": True},
        "stats": _stats(seconds),
    }  # fmt: skip


def _stats(values: list[float]) -> dict[str, Any]:
    ordered = sorted(values)
    q1, median, q3 = _quartiles(ordered)
    mean, deviation = statistics.fmean(ordered), statistics.stdev(ordered) if len(ordered) > 1 else 0.0
    iqr = q3 - q1
    low, high = q1 - 1.5 * iqr, q3 + 1.5 * iqr
    mild = sum(1 for v in ordered if abs(v - mean) > deviation)
    severe = sum(1 for v in ordered if v < low or v > high)
    return {
        "min": ordered[0], "max": ordered[-1], "mean": mean, "stddev": deviation, "rounds": len(ordered),
        "median": median, "iqr": iqr, "q1": q1, "q3": q3, "iqr_outliers": severe, "stddev_outliers": mild,
        "outliers": f"{mild};{severe}", "ld15iqr": ordered[0], "hd15iqr": ordered[-1],
        "ops": 1 / mean if mean and math.isfinite(mean) else 0.0, "total": sum(ordered), "iterations": 1,
    }  # fmt: skip


def _quartiles(ordered: list[float]) -> tuple[float, float, float]:
    if len(ordered) == 1:
        return ordered[0], ordered[0], ordered[0]
    q1, median, q3 = statistics.quantiles(ordered, n=4, method="inclusive")
    return q1, median, q3
