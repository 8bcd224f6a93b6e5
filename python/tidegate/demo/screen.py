"""What the demo writes. Colours on a terminal only; progress to stderr when the result on stdout is JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TextIO

from tidegate.demo.checks import Check
from tidegate.demo.steps import Step


class Screen:
    """A place to write to, and the time since the start."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._begin = time.monotonic()
        self._colours = out.isatty()

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours else text

    def _mark(self, ok: bool) -> str:
        return self._paint("32", "✓") if ok else self._paint("31", "✗")

    def line(self, text: str = "") -> None:
        self._out.write(text + "\n")
        self._out.flush()

    def title(self, text: str) -> None:
        self.line()
        self.line(self._paint("1", text))

    def note(self, text: str) -> None:
        self.line(f"  {self._paint('2', text)}")

    def warn(self, text: str) -> None:
        self.line(f"  {self._paint('33', '!')} {text}")

    def ready(self, name: str, where: str) -> None:
        """One more part of the mesh works."""
        elapsed = self._paint("2", f"{time.monotonic() - self._begin:5.1f} s")
        self.line(f"  {self._mark(True)} {name:<16} {where:<40} {elapsed}")

    def steps(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self.line(f"{step.number:>4} {self._mark(step.ok)} {step.title}")
            for evidence in step.evidence:
                self.line(f"         {self._paint('2', evidence)}")

    def check(self, check: Check) -> None:
        self.line(f"  {self._mark(check.ok)} {check.name.replace('_', ' '):<24} {check.summary}")
