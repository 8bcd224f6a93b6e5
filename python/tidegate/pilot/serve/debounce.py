"""Many changes in a row become one: wait for quiet, but not for ever."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Debounce:
    """Istio's rule: act `after` seconds of quiet, at the latest `at_most` seconds after the first change."""

    after: float = 0.1
    at_most: float = 10.0
    _first: float | None = None
    _last: float = 0.0

    def changed(self, now: float) -> None:
        """Something changed."""
        if self._first is None:
            self._first = now
        self._last = now

    def due(self) -> float | None:
        """When to act; `None` while there is nothing to do."""
        if self._first is None:
            return None
        return min(self._last + self.after, self._first + self.at_most)

    def take(self, now: float) -> bool:
        """Whether to act now; if so, all changes so far are dealt with."""
        due = self.due()
        if due is None or now < due:
            return False
        self._first = None
        return True
