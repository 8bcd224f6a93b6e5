"""Host names in rules: short names, and which of several wildcards is the most specific."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def resolve(host: str, namespace: str, domain: str) -> str:
    """The full name: one without a dot is a Kubernetes service in the rule's own namespace."""
    if "." in host or ":" in host or host.startswith("*"):
        return host
    return f"{host}.{namespace}.svc.{domain}"


def covers(pattern: str, host: str) -> bool:
    """Whether `pattern` (exact, `*.suffix` or `*`) includes every name that `host` stands for."""
    if pattern in ("*", host):
        return True
    return pattern.startswith("*.") and host.endswith(pattern[1:])


def most_specific(table: Mapping[str, T], host: str) -> T | None:
    """The entry for `host`: exact, then the longest wildcard that covers it."""
    if host in table:
        return table[host]
    rest = host[2:] if host.startswith("*.") else host
    while "." in rest:
        rest = rest.partition(".")[2]
        if (found := table.get(f"*.{rest}")) is not None:
            return found
    return table.get("*")
