"""What can go wrong, as one tree. Everything tidegate raises on purpose is a `TidegateError`.

    TidegateError
      UsageError          the command line: exit code 1, one sentence on stderr
      ConfigError         a configuration that cannot be honoured; knows resource, field path and reason
      EngineError         the data plane could not do what it was asked: bind, open, start
      DecodeError         bytes from a control plane that are not the message they should be
      ProxyFailedError    the agent gave up restarting the proxy; knows the exit code
      RedirectionError    iptables refused, or is not there
      PeerMissing         a program to compare with is not installed (`tidegate.peer`)

An error is raised where it is found and shown once, by the command that was run (`tidegate.cli`). Native errors become
these in `tidegate.proxy.engine` and nowhere else. This module imports nothing.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DecodeError",
    "EngineError",
    "ProxyFailedError",
    "RedirectionError",
    "TidegateError",
    "UsageError",
]


class TidegateError(Exception):
    """The root; never raised itself."""

    exit_code: int = 1


class UsageError(TidegateError):
    """A command line that cannot be obeyed."""

    def __init__(self, argument: str, reason: str) -> None:
        super().__init__(argument, reason)
        self.argument = argument
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.argument}: {self.reason}" if self.argument else self.reason


class ConfigError(TidegateError):
    """A configuration that cannot be honoured, with the place where it says so."""

    def __init__(self, name: str, path: str, reason: str) -> None:
        super().__init__(name, path, reason)
        self.name = name
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return ": ".join(part for part in (self.name, self.path, self.reason) if part)


class EngineError(TidegateError):
    """The data plane could not do what it was asked."""


class DecodeError(TidegateError):
    """Bytes that are not the message they should be."""


class ProxyFailedError(TidegateError):
    """The proxy kept dying and the restart budget is spent."""

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


class RedirectionError(TidegateError):
    """iptables refused a rule, or cannot be run."""
