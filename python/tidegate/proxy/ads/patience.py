"""`initial_fetch_timeout`: how long each wanted name is waited for. No clock of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["EVERYTHING", "Overdue", "Patience"]

# The wildcard subscription itself, where a name is kept.
EVERYTHING: Final = ""


class Overdue(NamedTuple):
    """Names whose `initial_fetch_timeout` went by; none = the wildcard subscription itself."""

    type_url: str
    names: tuple[str, ...]


class Patience:
    """The moments at which waiting ends, per type and name (or `EVERYTHING`)."""

    def __init__(self) -> None:
        self._ends: dict[str, dict[str, float]] = {}

    def wait(self, type_url: str, seconds: Mapping[str, float], now: float) -> None:
        """For those not waited for yet; 0 seconds = for ever."""
        ends = self._ends.setdefault(type_url, {})
        for name, patience in seconds.items():
            if patience > 0:
                ends.setdefault(name, now + patience)

    def stop(self, type_url: str, names: Iterable[str]) -> None:
        """Answered, or not wanted any more."""
        ends = self._ends.get(type_url, {})
        for name in names:
            ends.pop(name, None)

    def next(self) -> float | None:
        return min((moment for ends in self._ends.values() for moment in ends.values()), default=None)

    def overdue(self, now: float) -> list[Overdue]:
        """Whose time is over; each is reported once."""
        found = []
        for type_url, ends in self._ends.items():
            late = sorted(name for name, moment in ends.items() if moment <= now)
            self.stop(type_url, late)
            if late:
                found.append(Overdue(type_url, () if EVERYTHING in late else tuple(late)))
        return found
