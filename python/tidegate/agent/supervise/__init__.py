"""Keeps the proxy running: `command` says what to start, `supervisor` starts it, waits, and starts it again."""

from tidegate.agent.supervise.command import Binary, command, find_binary
from tidegate.agent.supervise.supervisor import Supervisor

__all__ = ["Binary", "Supervisor", "command", "find_binary"]
