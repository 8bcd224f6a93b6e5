"""The proxy's command line: the one that Istio 1.0's agent used, less what the binary no longer knows.

Envoy dropped `--max-obj-name-len` and `--v2-config-only` long ago and refuses a line that has them. So a binary that is
not ours is asked once for its `--help`; that takes Envoy some 40 ms.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from tidegate.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from tidegate.settings import AgentSettings

__all__ = ["Binary", "command", "find_binary"]

_MAX_OBJ_NAME_LEN: Final = "189"
_HELP_TIMEOUT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Binary:
    """A proxy program and what it understands."""

    words: tuple[str, ...]  # how it is started: usually one path
    flags: frozenset[str]
    drains_on_sigterm: bool  # ours does; Envoy has to be told through its admin interface


def find_binary(path: str) -> Binary:
    """Look at the program at `path`; "" is the `tidegate-proxy` that was installed with this agent."""
    if not path:
        beside = os.path.join(os.path.dirname(sys.executable), "tidegate-proxy")
        words = (beside,) if os.access(beside, os.X_OK) else (sys.executable, "-m", "tidegate", "proxy")
        return Binary(words, frozenset({"--max-obj-name-len", "--v2-config-only"}), drains_on_sigterm=True)
    if not (os.path.isfile(path) and os.access(path, os.X_OK)):
        raise UsageError("--binaryPath", f"{path} is not an executable file")
    help_text = _help(path)
    return Binary(
        (path,),
        frozenset(word.strip("[],=") for word in help_text.split() if word.startswith(("--", "[--"))),
        drains_on_sigterm="tidegate proxy" in help_text,
    )


def command(settings: AgentSettings, binary: Binary, config_file: str, epoch: int) -> list[str]:
    """The words to execute, in the seed's order."""
    words = [
        *binary.words,
        *("-c", config_file),
        *("--restart-epoch", str(epoch)),
        *("--drain-time-s", str(int(settings.drain_s))),
        *("--parent-shutdown-time-s", str(int(settings.parent_shutdown_s))),
        *("--service-cluster", settings.service_cluster),
        *("--service-node", settings.node_id),
    ]
    words += _if_known(binary, "--max-obj-name-len", _MAX_OBJ_NAME_LEN)
    words += ["-l", settings.proxy_log_level]
    words += _if_known(binary, "--v2-config-only")
    # No epoch but 0 is ever started, so there is nothing to share memory with; several Envoys on one machine would
    # even meet in the same segment.
    words += _if_known(binary, "--disable-hot-restart")
    if settings.concurrency:
        words += ["--concurrency", str(settings.concurrency)]
    if settings.availability_zone:
        words += ["--service-zone", settings.availability_zone]
    if settings.proxy_component_log_level:
        words += ["--component-log-level", settings.proxy_component_log_level]
    return words


def _if_known(binary: Binary, flag: str, *value: str) -> Sequence[str]:
    return (flag, *value) if flag in binary.flags else ()


def _help(path: str) -> str:
    """Imported late: `subprocess` stays in memory only where a foreign binary is used."""
    import subprocess

    try:
        done = subprocess.run(
            [path, "--help"], capture_output=True, text=True, errors="replace", timeout=_HELP_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError("--binaryPath", f"{path} --help: {error}") from error
    return done.stdout + done.stderr
