"""Envoy's jittered exponential back-off: a random time below a bound that doubles from `base` to `maximum`."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JitteredBackOff"]


class JitteredBackOff:
    """`next()` is how long to wait this time; `reset()` after success."""

    def __init__(self, base: float, maximum: float, uniform: Callable[[], float] = random.random) -> None:
        self._base = base
        self._maximum = max(base, maximum)
        self._uniform = uniform
        self._bound = base

    def next(self) -> float:
        wait = self._bound * self._uniform()
        self._bound = min(self._bound * 2, self._maximum)
        return wait

    def reset(self) -> None:
        self._bound = self._base
