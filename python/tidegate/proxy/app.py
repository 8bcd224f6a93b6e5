"""`tidegate proxy`: reads the bootstrap, makes the data plane and starts it, then hands over to the process's loop.

The loop is imported only then: asyncio takes longer to load than a small configuration does, and the data plane serves
meanwhile.
"""

from __future__ import annotations

import resource
import signal
import sys
from typing import TYPE_CHECKING

from tidegate.errors import ConfigError, EngineError, TidegateError
from tidegate.proxy.engine import DataPlane, version
from tidegate.settings import proxy_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    settings = proxy_settings(argv)
    if settings == "version":
        sys.stdout.write(f"\n{sys.argv[0]}  version: {version()}\n\n")
        return 0
    if isinstance(settings, str):
        sys.stdout.write(settings)
        return 0
    try:
        plane = DataPlane(settings, _read_bootstrap(settings.config_path))
    except TidegateError as error:
        sys.stderr.write(f"error initializing configuration '{settings.config_path}': {error}\n")
        return error.exit_code
    if settings.mode == "validate":
        sys.stdout.write(f"configuration '{settings.config_path}' OK\n")
        return 0
    if settings.enable_core_dump:
        _, most = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (most, most))
    if settings.base_id_path:
        _write(settings.base_id_path, f"{settings.base_id}\n")
    # Signals wait from here on until the loop handles them.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        plane.start()
    except EngineError as error:
        sys.stderr.write(f"error initializing configuration '{settings.config_path}': {error}\n")
        plane.shutdown()
        return error.exit_code
    from tidegate.proxy.process import run

    return run(settings, plane)


def _read_bootstrap(path: str) -> bytes:
    if not path:
        return b""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError("", "", f"Invalid path: {path} ({error.strerror})") from error


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise EngineError(f"cannot write {path}: {error.strerror}") from error
