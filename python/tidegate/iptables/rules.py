"""Which rules redirect a pod's traffic: settings in, tables out; and the text that iptables-restore takes.

Pure: runs nothing, reads no file, knows nothing of the machine. The chains carry Istio's names, and the built-in chains
get nothing but jumps into them. So what is ours can be told from its name alone: a second run finds and replaces it,
the cleanup removes exactly it, and everybody else's rules are never touched.

    PREROUTING -> ISTIO_INBOUND -> ISTIO_IN_REDIRECT (port -z)      traffic that comes in
    OUTPUT     -> ISTIO_OUTPUT  -> ISTIO_REDIRECT    (port -p)      what the application sends

In ISTIO_OUTPUT the proxy's own users return before anything is redirected: without that, its traffic would come back to
it for ever. The exception is its traffic to this pod's own address over lo (a call to the own service's VIP), which
goes on to the inbound side.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

from tidegate.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tidegate.settings import IptablesSettings

    Family = Literal[4, 6]

__all__ = ["OUR_CHAINS", "OUTBOUND_MARK", "Saved", "Table", "build", "parse_save", "removal_text", "restore_text"]

# Every chain that any version of these rules has made, jumped-to chains last: the order in which they can be deleted.
OUR_CHAINS: Final = (
    "ISTIO_INBOUND",
    "ISTIO_OUTPUT",
    "ISTIO_IN_REDIRECT",
    "ISTIO_REDIRECT",
    "ISTIO_TPROXY",
    "ISTIO_DIVERT",
    "ISTIO_DROP",
)
# With TPROXY: set on what the proxy sends to this pod's own address, so that it is told apart from the application's.
OUTBOUND_MARK: Final = "1338"

_LOOPBACK: Final[Mapping[int, str]] = {4: "127.0.0.1/32", 6: "::1/128"}
# The source address of the inbound side's passthrough connections to the application.
_PASSTHROUGH: Final[Mapping[int, str]] = {4: "127.0.0.6/32", 6: "::6/128"}


@dataclass(frozen=True, slots=True)
class Table:
    """What we want in one table: our chains with their rules, and the jumps into them."""

    name: str
    chains: tuple[tuple[str, tuple[str, ...]], ...]
    jumps: tuple[tuple[str, str], ...]  # (built-in chain, rule)


@dataclass(frozen=True, slots=True)
class Saved:
    """What iptables-save shows of one table, as far as it matters: chains, and rules without their `-A`."""

    chains: tuple[str, ...]
    rules: tuple[tuple[str, str], ...]  # (chain, rule)


# --- what we want ----------------------------------------------------------------------------------------------------


def build(settings: IptablesSettings, family: Family) -> tuple[Table, ...]:
    """The tables of one address family. Raises UsageError for a port or a range that is none."""
    tproxy = settings.mode == "TPROXY"
    outbound_port = _port("-p", settings.proxy_port)
    inbound_port = _port("-z", settings.inbound_port)
    inbound = _capture_interfaces(settings, family)
    if not tproxy:
        inbound += _inbound(settings, "ISTIO_IN_REDIRECT")
    nat_chains = [
        ("ISTIO_INBOUND", tuple(inbound)),
        ("ISTIO_OUTPUT", tuple(_output(settings, family))),
        ("ISTIO_IN_REDIRECT", (f"-p tcp -j REDIRECT --to-ports {inbound_port}",)),
        ("ISTIO_REDIRECT", (f"-p tcp -j REDIRECT --to-ports {outbound_port}",)),
    ]
    nat_jumps = [("OUTPUT", "-p tcp -j ISTIO_OUTPUT")]
    if (settings.inbound_ports and not tproxy) or settings.virtual_interfaces:
        nat_jumps.insert(0, ("PREROUTING", "-p tcp -j ISTIO_INBOUND"))
    tables = [Table("nat", tuple(nat_chains), tuple(nat_jumps))]

    mangle_chains: list[tuple[str, tuple[str, ...]]] = []
    mangle_jumps: list[tuple[str, str]] = []
    if settings.drop_invalid:
        mangle_chains.append(("ISTIO_DROP", ("-j DROP",)))
        mangle_jumps.append(("PREROUTING", "-m conntrack --ctstate INVALID -j ISTIO_DROP"))
    if tproxy and settings.inbound_ports:
        mangle_chains += _tproxy_chains(settings, family)
        mangle_jumps += [("PREROUTING", "-p tcp -j ISTIO_INBOUND"), ("OUTPUT", "-p tcp -j ISTIO_OUTPUT")]
    if mangle_chains:
        tables.append(Table("mangle", tuple(mangle_chains), tuple(mangle_jumps)))
    return tuple(tables)


def _capture_interfaces(settings: IptablesSettings, family: Family) -> list[str]:
    """Interfaces that are left alone, and those of virtual machines, whose incoming traffic is outbound to the pod."""
    rules = [f"-i {name} -j RETURN" for name in settings.interfaces_exclude]
    for name in settings.virtual_interfaces:
        if "*" in settings.outbound_ranges:
            rules.append(f"-i {name} -p tcp -j ISTIO_REDIRECT")
        else:
            ranges = _ranges("-i", settings.outbound_ranges, family)
            rules += [f"-d {network} -i {name} -p tcp -j ISTIO_REDIRECT" for network in ranges]
        rules.append(f"-i {name} -j RETURN")
    return rules


def _inbound(settings: IptablesSettings, target: str) -> list[str]:
    excluded = [f"-p tcp --dport {_port('-d', port)} -j RETURN" for port in settings.inbound_ports_exclude]
    rules = []
    if settings.tunnel_port:
        rules.append(f"-p tcp --dport {_port('-e', settings.tunnel_port)} -j RETURN")
    if "*" in settings.inbound_ports:
        if settings.leave_ssh:
            rules.append("-p tcp --dport 22 -j RETURN")
        return [*rules, *excluded, f"-p tcp -j {target}"]
    return rules + [f"-p tcp --dport {_port('-b', port)} -j {target}" for port in settings.inbound_ports]


def _output(settings: IptablesSettings, family: Family) -> list[str]:
    loopback = _LOOPBACK[family]
    rules = [f"-o {name} -j RETURN" for name in settings.interfaces_exclude]
    rules += [f"-p tcp --dport {_port('-o', port)} -j RETURN" for port in settings.outbound_ports_exclude]
    rules.append(f"-s {_PASSTHROUGH[family]} -o lo -j RETURN")

    # An application that asks for loopback ranges to be redirected must not be sent away before they are looked at.
    wants_loopback = any(
        network.network_address.is_loopback
        for each in (4, 6)
        for network in _ranges("-i", settings.outbound_ranges, 4 if each == 4 else 6)
    )
    tunnel = f" ! --dport {settings.tunnel_port}" if settings.tunnel_port else ""
    for kind, numbers, flag in (("uid", settings.uids, "-u"), ("gid", settings.gids, "-g")):
        for number in numbers:
            owner = f"-m owner --{kind}-owner {_number(flag, number)}"
            rules.append(f"! -d {loopback} -o lo -p tcp{tunnel} {owner} -j ISTIO_IN_REDIRECT")
            if not wants_loopback:
                rules.append(f"-o lo -m owner ! --{kind}-owner {number} -j RETURN")
            rules.append(f"{owner} -j RETURN")

    rules.append(f"-d {loopback} -j RETURN")
    excluded = _ranges("-x", settings.outbound_ranges_exclude, family)
    rules += [f"-d {network} -j RETURN" for network in excluded]
    rules += [f"-p tcp --dport {_port('-q', port)} -j ISTIO_REDIRECT" for port in settings.outbound_ports]
    if "*" in settings.outbound_ranges:
        rules.append("-j ISTIO_REDIRECT")
    else:
        included = _ranges("-i", settings.outbound_ranges, family)
        rules += [f"-d {network} -j ISTIO_REDIRECT" for network in included]
    return rules


def _tproxy_chains(settings: IptablesSettings, family: Family) -> list[tuple[str, tuple[str, ...]]]:
    """Inbound by TPROXY: nothing is rewritten, so the proxy and the application see the client's own address.

    Marked packets are routed to lo (`apply` makes the rule and the table), where the transparent socket picks them up.
    The mark travels by connection mark, so that answers to a connection that carries it find the proxy too.
    """
    mark = _number("-t", settings.tproxy_mark)
    loopback = _LOOPBACK[family]
    inbound = [
        *(f"-i {name} -j RETURN" for name in settings.interfaces_exclude),
        f"-p tcp -m mark --mark {mark} -j CONNMARK --save-mark",
        f"-p tcp -m mark --mark {mark} -j RETURN",
        f"-s {_PASSTHROUGH[family]} -i lo -p tcp -j RETURN",
        f"-i lo -p tcp -m mark ! --mark {OUTBOUND_MARK} -j RETURN",
    ]
    for rule in _inbound(settings, "ISTIO_TPROXY"):
        if rule.endswith("ISTIO_TPROXY"):
            known = rule.removesuffix("-j ISTIO_TPROXY")
            inbound.append(f"{known}-m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT")
        inbound.append(rule)
    own = [f"--uid-owner {_number('-u', uid)}" for uid in settings.uids]
    own += [f"--gid-owner {_number('-g', gid)}" for gid in settings.gids]
    output = [
        *(f"-o {name} -j RETURN" for name in settings.interfaces_exclude),
        f"-o lo -p tcp -m mark --mark {mark} -j RETURN",
        *(f"! -d {loopback} -o lo -p tcp -m owner {owner} -j MARK --set-mark {OUTBOUND_MARK}" for owner in own),
        f"-p tcp -m connmark --mark {mark} -j CONNMARK --restore-mark",
    ]
    to_proxy = f"--tproxy-mark {mark}/0xffffffff --on-port {_port('-z', settings.inbound_port)}"
    return [
        ("ISTIO_INBOUND", tuple(inbound)),
        ("ISTIO_OUTPUT", tuple(output)),
        ("ISTIO_TPROXY", (f"! -d {loopback} -p tcp -j TPROXY {to_proxy}",)),
        ("ISTIO_DIVERT", (f"-j MARK --set-mark {mark}", "-j ACCEPT")),
    ]


# --- what there is, and the text that gets from there to here --------------------------------------------------------


def parse_save(text: str) -> dict[str, Saved]:
    """The output of iptables-save, by table."""
    tables: dict[str, Saved] = {}
    name, chains, rules = "", list[str](), list[tuple[str, str]]()
    for line in text.splitlines():
        if line.startswith("*"):
            name, chains, rules = line[1:].strip(), [], []
        elif line.startswith(":"):
            chains.append(line[1:].split(" ", 1)[0])
        elif line.startswith("-A "):
            chain, _, rule = line[3:].partition(" ")
            rules.append((chain, rule))
        elif line.startswith("COMMIT"):
            tables[name] = Saved(tuple(chains), tuple(rules))
    return tables


def restore_text(wanted: Sequence[Table], current: Mapping[str, Saved]) -> str:
    """Input for `iptables-restore --noflush` that leaves exactly `wanted` of ours, whatever was there of ours before.

    A jump that is there once stays where it is, so a second run does not move us behind rules that others added since.
    """
    by_name = {table.name: table for table in wanted}
    names = dict.fromkeys([*by_name, *_tables_with_ours(current)])
    return "".join(
        _table_text(by_name.get(name, Table(name, (), ())), current.get(name, Saved((), ()))) for name in names
    )


def removal_text(current: Mapping[str, Saved]) -> str:
    """Input for `iptables-restore --noflush` that leaves nothing of ours; "" when there is nothing."""
    return restore_text((), {name: current[name] for name in _tables_with_ours(current)})


def _table_text(table: Table, saved: Saved) -> str:
    lines = [f"*{table.name}"]
    # Declaring a chain creates it, or empties it when it exists.
    lines += [f":{chain} - [0:0]" for chain, _ in table.chains]
    present = [(chain, rule) for chain, rule in saved.rules if chain not in OUR_CHAINS and _jumps_to_us(rule)]
    kept = {jump for jump in table.jumps if present.count(jump) == 1}
    lines += [f"-D {chain} {rule}" for chain, rule in present if (chain, rule) not in kept]
    named = {chain for chain, _ in table.chains}
    stale = [chain for chain in OUR_CHAINS if chain in saved.chains and chain not in named]
    lines += [f"-F {chain}" for chain in stale]
    lines += [f"-A {chain} {rule}" for chain, rules in table.chains for rule in rules]
    lines += [f"-A {chain} {rule}" for chain, rule in table.jumps if (chain, rule) not in kept]
    lines += [f"-X {chain}" for chain in stale]
    return "\n".join([*lines, "COMMIT", ""])


def _tables_with_ours(current: Mapping[str, Saved]) -> list[str]:
    return [name for name, saved in current.items() if any(chain in OUR_CHAINS for chain in saved.chains)]


def _jumps_to_us(rule: str) -> bool:
    words = rule.split()
    return any(word in ("-j", "-g") and target in OUR_CHAINS for word, target in pairwise(words))


# --- ports, numbers and ranges ---------------------------------------------------------------------------------------


def _port(flag: str, text: str) -> str:
    """A port, or a range of ports as iptables writes it (8000:8100)."""
    bounds = text.split(":")
    if len(bounds) <= 2 and all(bound.isascii() and bound.isdigit() and 0 < int(bound) < 65536 for bound in bounds):
        return text
    raise UsageError(flag, f"{text!r} is not a port")


def _number(flag: str, text: str) -> str:
    if text.isascii() and text.isdigit() and int(text) < 2**32:
        return text
    raise UsageError(flag, f"{text!r} is not a number")


def _ranges(flag: str, texts: Iterable[str], family: Family) -> list[IPv4Network | IPv6Network]:
    """Those of the ranges that belong to the family; `*` is the caller's to look for."""
    networks = []
    for text in texts:
        if text == "*":
            if flag == "-x":
                raise UsageError(flag, "'*' would exclude everything; leave -i empty instead")
            continue
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            raise UsageError(flag, f"{text!r} is not an address range (like 10.0.0.0/8)") from None
        if network.version == family:
            networks.append(network)
    return networks
