"""Documents, tables, pages and comparisons of made-up measurements."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tidegate.bench import baseline, own
from tidegate.bench.processes import BenchError
from tidegate.bench.report import html, pytest_benchmark
from tidegate.bench.report.document import document
from tidegate.bench.report.table import table
from tidegate.bench.rig import Outcome, Sample
from tidegate.bench.scenarios import select

MACHINE = {"cpus": 2, "kernel": "6", "python": "3", "network": "a namespace", "begun": 1.8e9, "repeats": 3}


def sample(cpu: float | None, p50: float = 100.0) -> Sample:
    metrics = {"rate": 1e5, "p50_us": p50, "p99_us": 2 * p50, "p999_us": 3 * p50}
    if cpu is not None:
        metrics["cpu_us"] = cpu
    return Sample(metrics, load_busy=0.5, curve=((50.0, p50), (99.0, 2 * p50), (99.9, 3 * p50)))


@pytest.fixture
def doc() -> dict[str, Any]:
    outcomes = []
    for case in select(["h1-get100", "vhosts-1-exact", "vhosts-1000-exact", "latency"]):
        outcome = Outcome(case, missing={"nginx": "nginx is not installed"})
        outcome.samples["direct"] = [sample(None, 30) for _ in range(3)]
        outcome.samples["tidegate"] = [sample(cpu) for cpu in (9.0, 10.0, 11.0)]
        outcome.samples["envoy"] = [sample(cpu, 200) for cpu in (30.0, 31.0, 35.0)]
        outcomes.append(outcome)
    idle = Outcome(select(["idle-connections-tcp"])[0])
    idle.samples["tidegate"] = [
        Sample({"bytes_per_connection": 500.0, "anon_bytes_per_connection": 400.0}, 2, "closed")
    ]
    return document([*outcomes, idle], MACHINE)


def test_the_document_has_spread_ratio_and_latency_over_direct(doc: dict[str, Any]) -> None:
    case = doc["cases"]["h1-get100"]
    assert case["peers"]["tidegate"]["cpu_us"] == {"min": 9.0, "median": 10.0, "max": 11.0}
    assert case["times_better_than"] == {"envoy": 3.1}
    latency = doc["cases"]["latency"]
    assert latency["peers"]["tidegate"]["added_p50_us"]["median"] == 70.0
    assert latency["times_better_than"]["envoy"] == pytest.approx(170 / 70)
    json.dumps(doc, allow_nan=False)


def test_the_table_tells_errors_and_who_is_missing(doc: dict[str, Any]) -> None:
    text = table(doc)
    assert "9.00/10.0/11.0" in text
    assert "3.10 x" in text
    assert "nginx is not installed" in text
    assert "2 FAILED (closed)" in text


def test_the_page_is_complete_in_itself(doc: dict[str, Any]) -> None:
    page = html.page(doc)
    assert not re.search(r"<script|<link|src=|href=|url\(|@import", page)
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(plots) >= 5
    for plot in plots:
        ElementTree.fromstring(plot)
    assert "virtual hosts by exact" in page
    # One case more or less, or nothing at all, makes a page too.
    assert "<main>" in html.page({"machine": MACHINE, "cases": {}})


def test_pytest_benchmark_reads_its_schema(doc: dict[str, Any], tmp_path: Path) -> None:
    ours = pytest_benchmark.document(doc)
    names = {benchmark["name"] for benchmark in ours["benchmarks"]}
    assert "h1-get100[envoy]" in names
    assert "idle-connections-tcp[tidegate]" not in names
    first = next(b for b in ours["benchmarks"] if b["name"] == "h1-get100[tidegate]")
    assert first["stats"]["median"] == pytest.approx(10e-6)
    assert first["extra_info"]["p99.9_us"] == 300.0
    path = tmp_path / "0001_bench.json"
    path.write_text(json.dumps(ours))
    command = [str(Path(sys.executable).with_name("pytest-benchmark")), "compare", str(path), "--group-by=group"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "h1-get100[tidegate]" in done.stdout


def test_a_baseline_is_compared_by_the_ratio_to_a_peer(doc: dict[str, Any]) -> None:
    now = copy.deepcopy(doc)
    # A machine half as fast is no regression; twice our cost over Envoy's is.
    for row in now["cases"]["h1-get100"]["peers"].values():
        if "cpu_us" in row:
            row["cpu_us"]["median"] *= 2
    now["cases"]["latency"]["peers"]["tidegate"]["cpu_us"]["median"] *= 2
    verdicts = {verdict.case: verdict for verdict in baseline.compare(doc, now, 0.1)}
    assert not verdicts["h1-get100"].regressed
    assert verdicts["h1-get100"].peer == "envoy"
    assert verdicts["latency"].regressed
    assert verdicts["latency"].change == pytest.approx(1.0)
    text = baseline.table(list(verdicts.values()), 0.1)
    assert "WORSE" in text
    assert "1 of 5 worse" in text


def test_without_a_common_peer_the_figure_itself_counts(doc: dict[str, Any]) -> None:
    now = copy.deepcopy(doc)
    now["cases"]["idle-connections-tcp"]["peers"]["tidegate"]["bytes_per_connection"]["median"] = 600.0
    verdict = next(v for v in baseline.compare(doc, now, 0.1) if v.case == "idle-connections-tcp")
    assert (verdict.peer, verdict.regressed) == ("", True)
    assert not next(v for v in baseline.compare(doc, now, 0.25) if v.case == "idle-connections-tcp").regressed


def test_what_is_no_percentage_or_baseline_is_refused(tmp_path: Path) -> None:
    assert (baseline.percent("10%"), baseline.percent("7.5")) == (0.1, 0.075)
    for bad in ("ten", "-1%", "nan%"):
        with pytest.raises(baseline.BaselineError):
            baseline.percent(bad)
    path = tmp_path / "old.json"
    for text in ("nonsense", "[]", "{}", '{"version": 1}'):
        path.write_text(text)
        with pytest.raises(baseline.BaselineError):
            baseline.read(path)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("static_resources: {listeners: [{address: {socket_address: {address: 0.0.0.0, port_value: 80}}}]}",
         "127.0.0.1:80"),
        ('{"staticResources": {"listeners": [{"address": {"socketAddress": {"address": "::1", "portValue": 81}}}]}}',
         "[::1]:81"),
    ],
)  # fmt: skip
def test_the_first_listener_of_a_bootstrap(text: str, target: str, tmp_path: Path) -> None:
    path = tmp_path / "bootstrap.yaml"
    path.write_text(text)
    assert own.first_listener(path) == target


@pytest.mark.parametrize("text", ["", "a: [", "static_resources: {}", "static_resources: {listeners: []}", "[1]"])
def test_a_bootstrap_without_a_listener_says_so(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bootstrap.yaml"
    path.write_text(text)
    with pytest.raises(BenchError, match="bootstrap"):
        own.first_listener(path)
