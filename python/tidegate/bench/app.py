"""`tidegate bench`: the command line of the side-by-side measurements."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tidegate.bench import baseline, network, own, peers, scenarios
from tidegate.bench.report import html, pytest_benchmark
from tidegate.bench.report.document import document
from tidegate.bench.report.table import table
from tidegate.bench.rig import Outcome, Rig
from tidegate.errors import TidegateError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tidegate bench",
        description="Side-by-side CPU per operation, throughput, latency and memory of tidegate, Envoy, HAProxy and "
        "nginx on one machine. What counts is the ratio to a peer within one run. As root the run takes place in a "
        "network namespace of its own; not so with --config.",
        epilog="bench/README.md in tidegate's sources says how to measure, how to read the figures and how to use them "
        "in CI.",
    )
    parser.add_argument(
        "cases", nargs="*", metavar="CASE",
        help=f"names, globs ('vhosts-*') or aliases (default: {' '.join(scenarios.DEFAULT)}); --list shows them",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list cases and aliases and exit")
    parser.add_argument("--all", action="store_true", help="every case")
    parser.add_argument(
        "--peers", default=",".join(peers.NAMES),
        help="comma separated; those that a case is not meant for or that are not installed are left out "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--duration", type=float, default=3.0, help="seconds per burst (default: %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=5,
        help="figures per peer, taken in turns whose order alternates (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--host-network", action="store_true",
        help="stay in the host's network namespace: TIME_WAIT and its congestion control distort, and redirect* are "
        "skipped",
    )  # fmt: skip
    output = parser.add_argument_group("output (a file, or '-' for standard output instead of the table)")
    output.add_argument("--json", type=Path, metavar="FILE", help="everything measured; --baseline reads it")
    output.add_argument("--pytest-benchmark", type=Path, metavar="FILE", help="for `pytest-benchmark compare`")
    output.add_argument("--html", type=Path, metavar="FILE", help="one page with plots, complete in itself")
    compare = parser.add_argument_group("comparison")
    compare.add_argument("--baseline", type=Path, metavar="FILE", help="an earlier --json; exit code 1 if we got worse")
    compare.add_argument("--max-regression", default="10%", metavar="PERCENT", help="(default: %(default)s)")
    mine = parser.add_argument_group("your own configuration, in tidegate and Envoy in turn")
    mine.add_argument("--config", type=Path, metavar="BOOTSTRAP", help="Envoy bootstrap (YAML or JSON)")
    mine.add_argument("--target", metavar="HOST:PORT", help="where to send load (default: the first static listener)")
    mine.add_argument("--path", default="/", help="(default: %(default)s)")
    mine.add_argument("--host", default="", help="Host header (default: the target)")
    mine.add_argument("--connections", type=int, default=64, help="(default: %(default)s)")
    return parser


def main(argv: Sequence[str]) -> int:
    parser = _parser()
    options = parser.parse_args(list(argv))
    if options.list:
        print(_listing())
        return 0
    names = [n for n in options.peers.split(",") if n]
    if unknown := [name for name in names if not peers.known(name)]:
        parser.error(f"no such peer: {', '.join(unknown)}")
    if not 0.1 <= options.duration <= 60 or not 1 <= options.repeats <= 100:
        parser.error("--duration is 0.1 to 60 seconds, --repeats 1 to 100")
    try:
        cases = scenarios.select(["all"] if options.all else options.cases or list(scenarios.DEFAULT))
    except KeyError as error:
        parser.error(f"no such case: {error.args[0]} (--list shows them)")
    if (os.cpu_count() or 1) < 2:
        print("tidegate bench needs two CPUs: one for the proxy, one for the load", file=sys.stderr)
        return 1
    try:
        limit = baseline.percent(options.max_regression)
        earlier = baseline.read(options.baseline) if options.baseline else None
        doc = _measure(options, cases, names)
    except TidegateError as error:
        _progress("")
        print(f"tidegate bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        _progress("")
        return 130
    _progress("")
    _write(options, doc)
    failed = any(row["errors"] for case in doc["cases"].values() for row in case["peers"].values())
    worse = False
    if earlier is not None:
        verdicts = baseline.compare(earlier, doc, limit)
        print(baseline.table(verdicts, limit), file=sys.stderr if _to_stdout(options) else sys.stdout)
        worse = any(verdict.regressed for verdict in verdicts) or not verdicts
    ours_missing = any("tidegate" in case["missing"] and not case["skipped"] for case in doc["cases"].values())
    return 1 if failed or worse or ours_missing else 0


def _measure(options: argparse.Namespace, cases: list[scenarios.Case], names: list[str]) -> dict[str, Any]:
    # Before anything is started, and by the main thread: a namespace is the thread's.
    here = network.host() if options.host_network or options.config else network.enter()
    _progress(f"in {here.note}")
    begin = time.time()
    if options.config:
        names = [name for name in names if name in ("tidegate", "envoy")]
    with Rig(
        names, duration=options.duration, repeats=options.repeats, progress=_progress, private_network=here.private
    ) as rig:
        if options.config:
            load = own.Load(options.target or "", options.path, options.host, options.connections)
            outcomes: list[Outcome] = [own.measure(rig, options.config, load)]
        else:
            outcomes = [rig.measure(case) for case in cases]
    machine = {
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "network": here.note,
        "duration": options.duration,
        "repeats": options.repeats,
        "begun": begin,
    }
    return document(outcomes, machine)


def _write(options: argparse.Namespace, doc: dict[str, Any]) -> None:
    texts: list[tuple[Path | None, Callable[[], str]]] = [
        (options.json, lambda: json.dumps(doc, indent=1) + "\n"),
        (options.pytest_benchmark, lambda: json.dumps(pytest_benchmark.document(doc), indent=1) + "\n"),
        (options.html, lambda: html.page(doc)),
    ]
    shown = False
    for path, text in texts:
        if path is not None and str(path) == "-":
            print(text(), end="")
            shown = True
        elif path is not None:
            path.write_text(text())
    if not shown:
        print(table(doc))


def _to_stdout(options: argparse.Namespace) -> bool:
    return "-" in map(str, (options.json, options.pytest_benchmark, options.html))


def _listing() -> str:
    lines = [f"{case.name:<30}{case.summary}" for case in scenarios.CASES]
    lines += ["", *(f"{alias:<30}{' '.join(patterns)}" for alias, patterns in scenarios.ALIASES.items())]
    return "\n".join(lines)


def _progress(text: str) -> None:
    """One live line on a terminal, nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
