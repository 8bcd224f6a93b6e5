"""Brings the rules into the kernel: asks iptables-save what is there, gives iptables-restore what shall be.

One transaction per table and family: at no moment is a pod half redirected. Decides nothing about rules (`rules` does)
and prints nothing.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tidegate.errors import RedirectionError
from tidegate.iptables import rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tidegate.iptables.rules import Family, Table

__all__ = ["Kernel"]

_PREFIX: Final = {4: "iptables", 6: "ip6tables"}
_TABLES: Final = ("nat", "mangle")
_TIMEOUT: Final = 30.0
# iptables waits this many seconds for whoever holds its lock (kube-proxy, a CNI plug-in).
_LOCK_WAIT: Final = "10"


@dataclass(frozen=True, slots=True)
class Kernel:
    """The netfilter of one network namespace; "" is our own."""

    network_namespace: str = ""

    def has_global_ipv6(self) -> bool:
        """Is there an address that IPv6 traffic of the pod could come from? Loopback and link-local are not."""
        try:
            table = self._run(["cat", "/proc/self/net/if_inet6"], "")
        except RedirectionError:
            return False
        return any(line.split()[3] == "00" for line in table.splitlines() if len(line.split()) >= 6)

    def missing(self, family: Family) -> str:
        """The first tool of the family that is not installed; "" when all are."""
        tools = (f"{_PREFIX[family]}-save", f"{_PREFIX[family]}-restore")
        return next((tool for tool in tools if shutil.which(tool) is None), "")

    def save(self, family: Family) -> str:
        """Our tables as iptables-save prints them."""
        texts = [self._run([f"{_PREFIX[family]}-save", "-t", table], "") for table in _TABLES]
        return "".join(texts)

    def apply(self, family: Family, wanted: Sequence[Table]) -> str:
        """Make `wanted` the state of our chains; returns the text that was applied."""
        return self._restore(family, wanted)

    def remove(self, family: Family) -> str:
        """Remove all of ours; returns the text that was applied, "" when there was nothing."""
        return self._restore(family, None)

    def _restore(self, family: Family, wanted: Sequence[Table] | None) -> str:
        # What was saved may be outdated when it is used (somebody else deleted a jump): look again, once.
        for attempt in (1, 2):
            current = rules.parse_save(self.save(family))
            text = rules.removal_text(current) if wanted is None else rules.restore_text(wanted, current)
            if not text:
                return ""
            try:
                self._run([f"{_PREFIX[family]}-restore", "--noflush", "--wait", _LOCK_WAIT], text)
            except RedirectionError:
                if attempt == 2:
                    raise
            else:
                return text
        raise AssertionError("unreachable")

    def route_marked(self, family: Family, mark: str, table: str) -> None:
        """TPROXY's other half: marked packets are delivered locally."""
        if not self._has_rule(family, mark, table):
            self._ip(family, "rule", "add", "fwmark", mark, "lookup", table)
        self._ip(family, "route", "replace", "local", "default", "dev", "lo", "table", table)

    def unroute_marked(self, family: Family, mark: str, table: str) -> None:
        """Undo `route_marked`; nothing happens when it was never done."""
        while self._has_rule(family, mark, table):
            self._ip(family, "rule", "del", "fwmark", mark, "lookup", table)
            if self._ip(family, "route", "show", "table", table, quiet=True).strip():
                self._ip(family, "route", "flush", "table", table)

    def _has_rule(self, family: Family, mark: str, table: str) -> bool:
        shown = self._ip(family, "rule", "show", "fwmark", mark, quiet=True)
        return any(line.split()[-2:] == ["lookup", table] for line in shown.splitlines())

    def _ip(self, family: Family, *words: str, quiet: bool = False) -> str:
        if shutil.which("ip") is None:
            if quiet:
                return ""
            raise RedirectionError("ip (iproute2) is not installed; TPROXY needs it")
        try:
            return self._run(["ip", f"-{family}", *words], "")
        except RedirectionError:
            if quiet:  # asking about a table that does not exist is an error to `ip`
                return ""
            raise

    def _run(self, command: Sequence[str], text: str) -> str:
        if self.network_namespace:
            command = ["nsenter", f"--net={self.network_namespace}", "--", *command]
        try:
            done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
        except FileNotFoundError:
            raise RedirectionError(f"{command[0]} is not installed") from None
        except subprocess.TimeoutExpired:
            raise RedirectionError(f"{' '.join(command)} did not finish in {_TIMEOUT:g} s") from None
        if done.returncode != 0:
            said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise RedirectionError(f"{' '.join(command)}: {said}")
        return done.stdout
