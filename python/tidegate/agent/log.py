"""The agent's own log: one line per event of the proxy's life, on stderr, in Istio's shape."""

from __future__ import annotations

import sys
import time

__all__ = ["error", "info", "warning"]


def info(message: str) -> None:
    _write("info", message)


def warning(message: str) -> None:
    _write("warn", message)


def error(message: str) -> None:
    _write("error", message)


def _write(level: str, message: str) -> None:
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    sys.stderr.write(f"{stamp}.{int(now % 1 * 1e6):06d}Z\t{level}\t{message}\n")
    sys.stderr.flush()
