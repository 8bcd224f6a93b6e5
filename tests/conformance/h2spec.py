"""h2spec against a listener: how many of its cases pass, and which do not.

`python -m conformance.h2spec tidegate envoy` (in `tests`, or `make h2spec`) prints the figures side by side.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

from differential.backend import Backend, free_port
from differential.proxies import running
from differential.scenario import Scenario
from go_peers import go_peer

#: How many there are.
ALL = 146


@dataclass
class Figure:
    passed: int = 0
    skipped: list[str] = field(default_factory=list)
    #: section, what was sent: what came instead
    failed: list[str] = field(default_factory=list)


def measure(kind: str, directory: Path, codec_type: str = "AUTO") -> Figure:
    """The figure of `tidegate` or `envoy`, with nothing else configured, in front of an HTTP/1 upstream."""
    backend = Backend("a").start()
    admin, port, report = free_port(), free_port(), directory / "h2spec.xml"
    ports = {"a": backend.port, "b": backend.port, "dead": free_port()}
    log = directory / "access.log"
    text = Scenario("h2spec", {"cases": [], "hcm": {"codec_type": codec_type}}, ()).bootstrap(
        ports, str(log), admin, port
    )
    try:
        with running(kind, text, admin_port=admin, port=port, directory=directory, log=log):
            subprocess.run(
                [go_peer("h2spec"), "--host", "127.0.0.1", "--port", str(port), "--strict", "--timeout", "4",
                 "--junit-report", str(report)],
                capture_output=True, timeout=600, check=False,
            )  # fmt: skip
    finally:
        backend.stop()
    return read(report.read_text(errors="replace"))


def read(report: str) -> Figure:
    """A report in JUnit's form."""
    figure = Figure()
    # Frames are printed with the bytes that they hold.
    clean = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "?", report)
    for suite in ElementTree.fromstring(clean).iter("testsuite"):
        for case in suite.iter("testcase"):
            # h2spec writes the section as the package and the sentence as the class name.
            name = f"{case.get('package')}: {case.get('classname')}"
            if case.find("skipped") is not None:
                figure.skipped.append(name)
            elif (failure := case.find("failure")) is None:
                failure = case.find("error")
                if failure is None:
                    figure.passed += 1
            if failure is not None:
                figure.failed.append(f"{name}: {' '.join((failure.text or '').split())}")
    return figure


def main(kinds: list[str]) -> None:
    for kind in kinds:
        for codec_type in ("AUTO", "HTTP2"):
            with tempfile.TemporaryDirectory() as directory:
                figure = measure(kind, Path(directory), codec_type)
            print(f"{kind}, codec_type {codec_type}: {figure.passed} of {ALL} passed")
            for line in figure.failed + [f"{name}: skipped" for name in figure.skipped]:
                print(f"  {line}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["tidegate"])
