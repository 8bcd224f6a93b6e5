"""Rule building and the text for iptables-restore, without a kernel."""

from __future__ import annotations

import pytest

from tidegate.errors import UsageError
from tidegate.iptables import rules
from tidegate.settings import IptablesSettings, iptables_settings

SEED = ["-p", "15001", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "9080,", "-d"]


def settings(argv: list[str], environ: dict[str, str] | None = None) -> IptablesSettings:
    found = iptables_settings(argv, environ or {})
    assert isinstance(found, IptablesSettings)
    return found


def chain(tables: tuple[rules.Table, ...], table: str, name: str) -> tuple[str, ...]:
    return dict(next(each for each in tables if each.name == table).chains)[name]


def test_the_seed_s_line_sends_both_directions_to_one_port() -> None:
    tables = rules.build(settings(SEED), 4)
    assert chain(tables, "nat", "ISTIO_INBOUND") == ("-p tcp --dport 9080 -j ISTIO_IN_REDIRECT",)
    assert chain(tables, "nat", "ISTIO_REDIRECT") == ("-p tcp -j REDIRECT --to-ports 15001",)
    assert chain(tables, "nat", "ISTIO_IN_REDIRECT") == ("-p tcp -j REDIRECT --to-ports 15001",)
    assert tables[0].jumps == (("PREROUTING", "-p tcp -j ISTIO_INBOUND"), ("OUTPUT", "-p tcp -j ISTIO_OUTPUT"))
    assert [table.name for table in tables] == ["nat"]


def test_a_flag_without_its_value_does_not_swallow_the_next_flag() -> None:
    found = settings(["-i", "*", "-d", "--dry-run"])
    assert found.dry_run
    assert found.inbound_ports_exclude == ()


def test_the_proxy_s_users_return_before_anything_is_redirected() -> None:
    output = chain(rules.build(settings([*SEED, "-g", "1338"]), 4), "nat", "ISTIO_OUTPUT")
    assert output.index("-m owner --uid-owner 1337 -j RETURN") < output.index("-j ISTIO_REDIRECT")
    assert output.index("-m owner --gid-owner 1338 -j RETURN") < output.index("-j ISTIO_REDIRECT")
    assert output[-1] == "-j ISTIO_REDIRECT"


def test_ranges_go_to_their_own_family() -> None:
    wanted = settings(["-i", "10.0.0.0/8,fd00::/8", "-x", "10.1.0.0/16,fd01::/16"])
    four = chain(rules.build(wanted, 4), "nat", "ISTIO_OUTPUT")
    six = chain(rules.build(wanted, 6), "nat", "ISTIO_OUTPUT")
    assert four[-2:] == ("-d 10.1.0.0/16 -j RETURN", "-d 10.0.0.0/8 -j ISTIO_REDIRECT")
    assert six[-2:] == ("-d fd01::/16 -j RETURN", "-d fd00::/8 -j ISTIO_REDIRECT")
    assert not any("::" in rule for rule in four)


def test_loopback_ranges_can_be_asked_for() -> None:
    output = chain(rules.build(settings(["-i", "127.1.2.3/32"]), 4), "nat", "ISTIO_OUTPUT")
    assert not any(rule.startswith("-o lo -m owner !") for rule in output)


def test_ssh_is_left_alone_as_istio_1_0_did_and_the_tunnel_as_today() -> None:
    old = chain(rules.build(settings(["-b", "*", "-d", "15020"]), 4), "nat", "ISTIO_INBOUND")
    assert old == ("-p tcp --dport 22 -j RETURN", "-p tcp --dport 15020 -j RETURN", "-p tcp -j ISTIO_IN_REDIRECT")
    new = chain(rules.build(settings(["-b", "*", "-z", "15006"]), 4), "nat", "ISTIO_INBOUND")
    assert new == ("-p tcp --dport 15008 -j RETURN", "-p tcp -j ISTIO_IN_REDIRECT")


def test_virtual_machines_interfaces_count_as_outbound() -> None:
    every = chain(rules.build(settings(["-i", "*", "-k", "net0"]), 4), "nat", "ISTIO_INBOUND")
    assert every == ("-i net0 -p tcp -j ISTIO_REDIRECT", "-i net0 -j RETURN")
    some = rules.build(settings(["-i", "10.0.0.0/8", "-k", "net0"]), 4)
    assert chain(some, "nat", "ISTIO_INBOUND")[0] == "-d 10.0.0.0/8 -i net0 -p tcp -j ISTIO_REDIRECT"
    assert some[0].jumps[0][0] == "PREROUTING"


def test_no_inbound_ports_no_jump_from_prerouting() -> None:
    assert rules.build(settings(["-i", "*"]), 4)[0].jumps == (("OUTPUT", "-p tcp -j ISTIO_OUTPUT"),)


def test_variables_are_the_defaults_of_flags() -> None:
    found = settings(
        ["-p", "16001"], {"ENVOY_PORT": "17001", "ISTIO_SERVICE_CIDR": "*", "PROXY_UID": "7,8", "DRY_RUN": ""}
    )
    assert (found.proxy_port, found.outbound_ranges, found.uids) == ("16001", ("*",), ("7", "8"))
    assert not found.dry_run


@pytest.mark.parametrize(
    ("argv", "where"),
    [
        (["-p", "0"], "-p"),
        (["-p", "99999"], "-p"),
        (["-z", "x"], "-z"),
        (["-b", "http"], "-b"),
        (["-b", "80", "-d", "x"], "-d"),
        (["-o", "1:2:3"], "-o"),
        (["-q", "-1"], "-q"),
        (["-u", "istio-proxy"], "-u"),
        (["-i", "10.0.0.0/33"], "-i"),
        (["-x", "*"], "-x"),
        (["-m", "REDIRECTED"], "-m"),
        (["--redirect-dns"], "--redirect-dns"),
        (["--native-nftables"], "--native-nftables"),
        (["-Z"], "-Z"),
        (["stray"], "stray"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_name(argv: list[str], where: str) -> None:
    with pytest.raises(UsageError) as caught:
        rules.build(settings(argv), 4)
    assert caught.value.argument == where


SAVED = """
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:ISTIO_OUTPUT - [0:0]
:ISTIO_REDIRECT - [0:0]
:KUBE-SERVICES - [0:0]
-A OUTPUT -j KUBE-SERVICES
-A OUTPUT -p tcp -j ISTIO_OUTPUT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
COMMIT
*mangle
:ISTIO_DIVERT - [0:0]
COMMIT
"""


def test_restore_replaces_ours_and_touches_nothing_else() -> None:
    text = rules.restore_text(rules.build(settings(["-i", "*"]), 4), rules.parse_save(SAVED))
    lines = text.splitlines()
    assert "-D OUTPUT -j ISTIO_OUTPUT" in lines  # an older version's jump
    assert "-D OUTPUT -p tcp -j ISTIO_OUTPUT" not in lines  # ours, where it is
    assert "-A OUTPUT -p tcp -j ISTIO_OUTPUT" not in lines
    assert "KUBE" not in text
    assert lines[lines.index("*mangle") :] == ["*mangle", "-F ISTIO_DIVERT", "-X ISTIO_DIVERT", "COMMIT"]


def test_removal_takes_jumps_before_chains() -> None:
    lines = rules.removal_text(rules.parse_save(SAVED)).splitlines()
    assert lines == [
        "*nat",
        "-D OUTPUT -p tcp -j ISTIO_OUTPUT",
        "-D OUTPUT -j ISTIO_OUTPUT",
        "-F ISTIO_OUTPUT",
        "-F ISTIO_REDIRECT",
        "-X ISTIO_OUTPUT",
        "-X ISTIO_REDIRECT",
        "COMMIT",
        "*mangle",
        "-F ISTIO_DIVERT",
        "-X ISTIO_DIVERT",
        "COMMIT",
    ]
    assert rules.removal_text(rules.parse_save("*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n")) == ""
