"""How counters moved during a case: the names that moved, by how much. Knows no case."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from differential.proxies import Proxy


class Counts:
    """The counters of a proxy whose names match one of the expressions, as they were when this was made."""

    def __init__(self, proxy: Proxy, patterns: Sequence[str]) -> None:
        self.proxy, self.wanted = proxy, re.compile("|".join(patterns))
        self.before = self._read()

    def _read(self) -> dict[str, int]:
        text = self.proxy.admin("/stats?usedonly")[1].decode().replace(str(self.proxy.port), "<port>")
        pairs = (line.partition(": ") for line in text.splitlines())
        return {name: int(value) for name, _, value in pairs if value.isdigit() and self.wanted.search(name)}

    def moved(self) -> dict[str, int]:
        after = self._read()
        return {n: v - self.before.get(n, 0) for n, v in after.items() if v != self.before.get(n, 0)}

    def at_rest(self) -> dict[str, int]:
        """What moved, once nothing moves any more."""
        moved, since = self.moved(), time.monotonic()
        while time.monotonic() - since < 0.1:
            time.sleep(0.02)
            if (now := self.moved()) != moved:
                moved, since = now, time.monotonic()
        return moved

    def until(self, want: dict[str, int], seconds: float = 2.0) -> dict[str, int]:
        """What moved, as soon as it is what is wanted, or when it is too late for that."""
        deadline = time.monotonic() + seconds
        while (moved := self.moved()) != want and time.monotonic() < deadline:
            time.sleep(0.02)
        return moved
