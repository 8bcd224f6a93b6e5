"""`tidegate bench`: the command line of the side-by-side measurements."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from tidegate.bench import peers, report, scenarios
from tidegate.bench.rig import Rig
from tidegate.errors import TidegateError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tidegate bench",
        description="Side-by-side CPU per operation, throughput and latency of tidegate, Envoy, HAProxy and nginx.",
    )
    names = ", ".join(case.name for case in scenarios.CASES)
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help=f"of: {names} (default: {' '.join(scenarios.DEFAULT)})"
    )
    parser.add_argument("--all", action="store_true", help="every case")
    parser.add_argument("--peers", default=",".join(peers.NAMES), help="comma separated (default: %(default)s)")
    parser.add_argument("--duration", type=float, default=3.0, help="seconds per burst (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="bursts per peer, in turns (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured ('-': standard output)")
    return parser


def main(argv: Sequence[str]) -> int:
    parser = _parser()
    options = parser.parse_args(list(argv))
    names = [n for n in options.peers.split(",") if n]
    if unknown := sorted(set(names) - set(peers.NAMES)):
        parser.error(f"no such peer: {', '.join(unknown)}")
    if not 0.1 <= options.duration <= 60 or not 1 <= options.repeats <= 100:
        parser.error("--duration is 0.1 to 60 seconds, --repeats 1 to 100")
    try:
        cases = list(scenarios.CASES) if options.all else scenarios.by_name(options.cases or list(scenarios.DEFAULT))
    except KeyError as error:
        parser.error(f"no such case: {error.args[0]}")
    if (os.cpu_count() or 1) < 2:
        print("tidegate bench needs two CPUs: one for the proxy, one for the load", file=sys.stderr)
        return 1
    try:
        with Rig(names, duration=options.duration, repeats=options.repeats, progress=_progress) as rig:
            outcomes = [rig.measure(case) for case in cases]
    except TidegateError as error:
        _progress("")
        print(f"tidegate bench: {error}", file=sys.stderr)
        return 1
    _progress("")
    machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    doc = report.document(outcomes, machine)
    if options.json and str(options.json) == "-":
        print(json.dumps(doc, indent=1))
        return 0
    if options.json:
        options.json.write_text(json.dumps(doc, indent=1))
    print(report.table(doc))
    return 0


def _progress(text: str) -> None:
    """One live line on a terminal, nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
