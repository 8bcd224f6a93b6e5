"""The bench itself: it tells what a proxy really spends, runs every kind of case, and notices a regression.

Bursts are short, and only CPU times and exit codes are looked at: a busy machine changes nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate.bench.peers import envoy
from tidegate.bench.peers.site import Site
from tidegate.bench.processes import free_port
from tidegate.bench.report.document import document
from tidegate.bench.rig import Outcome, Rig
from tidegate.bench.scenarios import Case, select

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two CPUs")
ROOT = os.geteuid() == 0


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tidegate", "bench", *words, "--duration", "0.3", "--repeats", "1"],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip


def _cpu(outcome: Outcome, peer: str) -> float:
    assert not outcome.missing, outcome.missing
    return statistics.median(sample.metrics["cpu_us"] for sample in outcome.samples[peer])


def _slowed(case: Case) -> float:
    """CPU per operation of `forward-80` over `forward-0`: 80 us more per message, and an operation is two messages."""
    with Rig(["forward-0", "forward-80"], duration=0.4, repeats=3, progress=lambda _: None) as rig:
        outcome = rig.measure(case)
    return _cpu(outcome, "forward-80") - _cpu(outcome, "forward-0")


@pytest.mark.parametrize("mode", [("tcp-pingpong", "--size", "64"), ("http", "--path", "/100")])
def test_a_proxy_slowed_by_a_known_amount_shows_that_amount(mode: tuple[str, ...]) -> None:
    """At a fixed rate, where all else is equal: the backend sleeps between messages in both runs, and is woken.

    What waking costs drifts by some 10 us with the machine's mood; the known amount is large beside that.
    """
    case = select(["tcp-pingpong64" if mode[0] == "tcp-pingpong" else "h1-get100"])[0]
    paced = dataclasses.replace(case, load=(*mode, "--connections", "16", "--rate", "1000"))
    assert _slowed(paced) == pytest.approx(2 * 80, rel=0.2)


def test_under_full_load_it_shows_no_less_and_says_who_pays_for_waking() -> None:
    """As fast as it goes, the slower one shows more than what it was slowed by: it lets the backend fall asleep."""
    with Rig(["forward-0", "forward-20"], duration=0.4, repeats=3, progress=lambda _: None) as rig:
        outcome = rig.measure(select(["tcp-pingpong64"])[0])
    assert _cpu(outcome, "forward-20") - _cpu(outcome, "forward-0") > 2 * 20 * 0.75
    peers = document([outcome], {})["cases"]["tcp-pingpong64"]["peers"]
    assert peers["forward-20"]["backend_sleeps"]["median"] > peers["forward-0"]["backend_sleeps"]["median"]


def test_every_format_and_the_baseline(tmp_path: Path) -> None:
    json_path, html_path, schema = (tmp_path / name for name in ("out.json", "out.html", "pytest.json"))
    done = bench("h1-get100", "--peers", "direct,tidegate", "--json", str(json_path), "--html", str(html_path),
                 "--pytest-benchmark", str(schema))  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "h1-get100" in done.stdout
    assert "<svg" in html_path.read_text()
    assert json.loads(schema.read_text())["benchmarks"]
    result = json.loads(json_path.read_text())
    row = result["cases"]["h1-get100"]["peers"]["tidegate"]
    assert row["errors"] == 0
    if not ROOT:
        assert "not root" in result["machine"]["network"]

    def against(factor: float) -> subprocess.CompletedProcess[str]:
        changed = json.loads(json_path.read_text())
        changed["cases"]["h1-get100"]["peers"]["tidegate"]["cpu_us"]["median"] *= factor
        old = tmp_path / "old.json"
        old.write_text(json.dumps(changed))
        return bench("h1-get100", "--peers", "tidegate", "--baseline", str(old), "--max-regression", "100%")

    better, worse = against(3), against(0.1)
    assert (better.returncode, worse.returncode) == (0, 1), better.stdout + worse.stdout
    assert "WORSE" in worse.stdout


@pytest.mark.parametrize(
    "cases",
    [
        ("h1-istio", "h1-chunked", "h1-post16k", "tcp-bulk-up", "tcp-bulk-down", "tcp-connect", "latency"),
        ("h2-get", "h2-single", "h2-mixed", "h2-download", "h2-h1", "h1-h2", "grpc-*"),
        ("h2-idle*",),
        ("tls",),
        ("vhosts-1000-*", "routes-1000-*"),
        ("idle-connections-*", "config-10000"),
        ("update-storm",),
        pytest.param(("redirect*",), marks=[pytest.mark.root, pytest.mark.skipif(not ROOT, reason="needs root")]),
    ],
)  # fmt: skip
def test_every_kind_of_case_runs(cases: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    done = bench(*cases, "--peers", "direct,tidegate", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    for name, case in json.loads(path.read_text())["cases"].items():
        assert not case["missing"], (name, case["missing"])
        row = case["peers"]["tidegate"]
        assert row["errors"] == 0, (name, row["first_error"])
        assert row[case["guards"][0]]["median"] > 0, name


def test_somebodys_own_bootstrap(tmp_path: Path) -> None:
    port = free_port()
    site = Site(port, 1, free_port(), tmp_path)
    bootstrap = envoy.static_bootstrap(select(["h1-get100"])[0], site, tmp_path / "log")
    routes = bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    routes["route_config"]["virtual_hosts"][0]["routes"] = [
        {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "mine"}}}
    ]
    config = tmp_path / "mine.json"
    config.write_text(json.dumps(bootstrap))
    done = bench("--config", str(config), "--peers", "tidegate", "--connections", "4", "--json", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    case = json.loads((tmp_path / "out").read_text())["cases"]["own"]
    assert not case["missing"], case["missing"]
    assert case["peers"]["tidegate"]["cpu_us"]["median"] > 0


def test_a_proxy_that_does_not_come_up_is_told_and_fails_the_run(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(
        "static_resources: {listeners: [{address: {socket_address: {address: 127.0.0.1, port_value: x}}}]}"
    )
    done = bench("--config", str(config), "--peers", "tidegate", "--target", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "nobody listens" in done.stdout
