"""`tidegate iptables`: reads the flags, decides about IPv6, prints what was done."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tidegate.errors import RedirectionError
from tidegate.iptables import rules
from tidegate.iptables.apply import Kernel
from tidegate.settings import iptables_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tidegate.iptables.rules import Family
    from tidegate.settings import IptablesSettings

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    settings = iptables_settings(argv)
    if isinstance(settings, str):
        sys.stdout.write(settings)
        return 0
    kernel = Kernel(settings.network_namespace)
    # Everything is built before anything is applied: a bad port leaves the pod as it was.
    wanted = {family: rules.build(settings, family) for family in _both()}
    if settings.dry_run:
        for family in _both():
            if family == 6 and not (settings.cleanup_only or _wants_ipv6(settings, kernel)):
                continue
            _print_dry_run(settings, family, wanted[family])
        return 0
    for family in _both():
        missing = kernel.missing(family)
        if missing:
            if family == 4 or (not settings.cleanup_only and _wants_ipv6(settings, kernel)):
                raise RedirectionError(f"{missing} is not installed")
            continue
        if settings.cleanup_only or (family == 6 and not _wants_ipv6(settings, kernel)):
            _remove(settings, kernel, family)
        else:
            text = kernel.apply(family, wanted[family])
            if settings.mode == "TPROXY" and settings.inbound_ports:
                kernel.route_marked(family, settings.tproxy_mark, settings.tproxy_route_table)
            sys.stdout.write(f"# applied, IPv{family}\n{text}")
    return 0


def _remove(settings: IptablesSettings, kernel: Kernel, family: Family) -> None:
    try:
        text = kernel.remove(family)
    except RedirectionError:
        # A kernel without IPv6 netfilter has nothing of ours either.
        if family == 6:
            return
        raise
    kernel.unroute_marked(family, settings.tproxy_mark, settings.tproxy_route_table)
    if text:
        sys.stdout.write(f"# removed, IPv{family}\n{text}")


def _wants_ipv6(settings: IptablesSettings, kernel: Kernel) -> bool:
    """Redirecting IPv6 where nothing has an IPv6 address would only break what binds to ::1 or link-local."""
    return settings.dual_stack or kernel.has_global_ipv6()


def _print_dry_run(settings: IptablesSettings, family: Family, tables: Sequence[rules.Table]) -> None:
    tool = "iptables" if family == 4 else "ip6tables"
    sys.stdout.write(f"# {tool}-restore --noflush\n")
    if settings.cleanup_only:
        chains = ", ".join(rules.OUR_CHAINS)
        sys.stdout.write(f"# removes, where they exist, with every jump into them: {chains}\n")
        return
    sys.stdout.write(rules.restore_text(tables, {}))
    if settings.mode == "TPROXY" and settings.inbound_ports:
        mark, table = settings.tproxy_mark, settings.tproxy_route_table
        sys.stdout.write(f"# ip -{family} rule add fwmark {mark} lookup {table}\n")
        sys.stdout.write(f"# ip -{family} route replace local default dev lo table {table}\n")


def _both() -> tuple[Family, Family]:
    return (4, 6)
