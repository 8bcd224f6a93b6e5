"""The rules in a real kernel: a pod with an address of its own and a neighbour, each in a network namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PROBE = str(Path(__file__).with_name("probe.py"))
PYTHON_PATH = str(Path(__file__).parents[3] / "python")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("iptables-restore") is None, reason="needs iptables"),
]

NOT_REDIRECTED = ("TimeoutError", "ConnectionRefusedError", "OSError")
POD4, PEER4 = "10.81.1.2", "10.81.1.1"
POD6, PEER6 = "fd81::2", "fd81::1"


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout


class Pod:
    def __init__(self, name: str) -> None:
        self.name = name
        self.pod, self.peer = f"tgipt{name}", f"tgipp{name}"

    def iptables(self, *argv: str, check: bool = True) -> str:
        command = ["env", f"PYTHONPATH={PYTHON_PATH}", sys.executable, "-m", "tidegate", "iptables", *argv]
        return run("ip", "netns", "exec", self.pod, *command, check=check)

    def connect(self, uid: int, address: str, port: int, namespace: str = "") -> str:
        where = namespace or self.pod
        return run("ip", "netns", "exec", where, sys.executable, PROBE, "connect", str(uid), address, str(port)).strip()

    def saved(self, tool: str = "iptables-save") -> str:
        lines = run("ip", "netns", "exec", self.pod, tool).splitlines()
        # Packet counters and dates differ from one look to the next.
        return "\n".join(line.split(" [")[0] for line in lines if not line.startswith("#"))


@contextmanager
def serving(pod: Pod, *ports: int, transparent: bool = False) -> Iterator[None]:
    how = "serve-transparent" if transparent else "serve"
    command = ["ip", "netns", "exec", pod.pod, sys.executable, PROBE, how, *map(str, ports)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            yield
        finally:
            server.kill()


@pytest.fixture
def pod() -> Iterator[Pod]:
    pod = Pod(str(os.getpid() % 100000))
    try:
        for namespace in (pod.pod, pod.peer):
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        run("ip", "-n", pod.pod, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", pod.peer)
        for namespace, four, six, gate4, gate6 in (
            (pod.pod, POD4, POD6, PEER4, PEER6),
            (pod.peer, PEER4, PEER6, POD4, POD6),
        ):
            run("ip", "-n", namespace, "address", "add", f"{four}/24", "dev", "eth0")
            run("ip", "-n", namespace, "address", "add", f"{six}/64", "dev", "eth0", "nodad")
            run("ip", "-n", namespace, "link", "set", "eth0", "up")
            run("ip", "-n", namespace, "route", "add", "default", "via", gate4)
            run("ip", "-n", namespace, "-6", "route", "add", "default", "via", gate6)
        yield pod
    finally:
        for namespace in (pod.pod, pod.peer):
            run("ip", "netns", "del", namespace, check=False)


def test_the_seed_s_command_line(pod: Pod) -> None:
    empty = pod.saved(), pod.saved("ip6tables-save")
    pod.iptables("-p", "15001", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "9080,", "-d")
    with serving(pod, 15001, 9080, 8080):
        # What the application sends goes to the proxy, which learns where it was meant for.
        assert pod.connect(0, "10.96.0.10", 9080) == f"15001 10.96.0.10 9080 {POD4}"
        assert pod.connect(1000, "fd96::10", 80) == f"15001 fd96::10 80 {POD6}"
        # What the proxy sends does not come back to it.
        assert pod.connect(1337, "10.96.0.10", 9080) in NOT_REDIRECTED
        # Loopback is left alone, and so is the application's traffic to its own address.
        assert pod.connect(0, "127.0.0.1", 9080).startswith("9080 127.0.0.1")
        assert pod.connect(0, POD4, 9080).startswith("9080 ")
        assert pod.connect(0, "::1", 9080).startswith("9080 ::1")
        # The proxy's own traffic to this pod (a call to the own service's VIP) goes on to the inbound side.
        assert pod.connect(1337, POD4, 9080) == f"15001 {POD4} 9080 {POD4}"
        # From outside: the named port is captured, others are not.
        assert pod.connect(0, POD4, 9080, pod.peer) == f"15001 {POD4} 9080 {PEER4}"
        assert pod.connect(0, POD6, 9080, pod.peer) == f"15001 {POD6} 9080 {PEER6}"
        assert pod.connect(0, POD4, 8080, pod.peer).startswith("8080 ")
    pod.iptables("--cleanup-only")
    with serving(pod, 15001, 9080):
        assert pod.connect(0, POD4, 9080, pod.peer).startswith("9080 ")
    assert [without_empty_tables(text) for text in (pod.saved(), pod.saved("ip6tables-save"))] == [
        without_empty_tables(text) for text in empty
    ]


def without_empty_tables(saved: str) -> str:
    """Asking for a table creates it; one that holds nothing but its built-in chains says nothing."""
    return "\n".join(line for line in saved.splitlines() if line.startswith("-A") or "ISTIO" in line)


def test_today_s_command_line(pod: Pod) -> None:
    pod.iptables(
        *("-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "10.99.0.0/16"),
        *("-b", "*", "-d", "15090,15021,15020", "-o", "3306", "-q", "27017"),
    )
    with serving(pod, 15001, 15006, 15020, 9080):
        assert pod.connect(0, "10.96.0.10", 9080).startswith("15001 10.96.0.10 9080")
        assert pod.connect(0, "10.96.0.10", 3306) in NOT_REDIRECTED
        assert pod.connect(0, "10.99.0.10", 9080) in NOT_REDIRECTED
        assert pod.connect(0, "10.99.0.10", 27017) in NOT_REDIRECTED  # -x goes before -q
        assert pod.connect(0, POD4, 9080, pod.peer) == f"15006 {POD4} 9080 {PEER4}"
        assert pod.connect(0, POD4, 15020, pod.peer).startswith("15020 ")
        assert pod.connect(1337, POD4, 9080) == f"15006 {POD4} 9080 {POD4}"


def test_running_again_changes_nothing_and_foreign_rules_stay(pod: Pod) -> None:
    line = ("-p", "15001", "-z", "15006", "-u", "1337", "-i", "*", "-b", "*", "--drop-invalid")
    run("ip", "netns", "exec", pod.pod, "iptables", "-t", "nat", "-A", "OUTPUT", "-d", "192.0.2.1/32", "-j", "ACCEPT")
    pod.iptables(*line)
    run("ip", "netns", "exec", pod.pod, "iptables", "-t", "nat", "-A", "OUTPUT", "-d", "192.0.2.2/32", "-j", "ACCEPT")
    first = pod.saved(), pod.saved("ip6tables-save")
    pod.iptables(*line)
    assert (pod.saved(), pod.saved("ip6tables-save")) == first
    # Other flags replace the whole, the order among other people's rules included.
    pod.iptables("-p", "16001", "-u", "1337", "-i", "10.0.0.0/8", "-b", "")
    changed = pod.saved()
    assert "--to-ports 16001" in changed
    assert "15006" not in changed
    assert "ISTIO_DROP" not in changed
    assert changed.index("192.0.2.1") < changed.index("-A OUTPUT -p tcp -j ISTIO_OUTPUT") < changed.index("192.0.2.2")
    pod.iptables("--cleanup-only")
    left = pod.saved()
    assert "ISTIO" not in left
    assert left.count("192.0.2.") == 2


def test_a_refused_rule_leaves_what_was_there(pod: Pod) -> None:
    pod.iptables("-p", "15001", "-u", "1337", "-i", "*", "-b", "*")
    before = pod.saved()
    # An interface name with a slash is something only iptables itself objects to.
    pod.iptables("-p", "15001", "-u", "1337", "-i", "*", "-b", "*", "-c", "a/b c", check=False)
    assert pod.saved() == before


def test_tproxy_keeps_the_client_s_address(pod: Pod) -> None:
    line = ("-p", "15001", "-z", "15006", "-u", "1337", "-m", "TPROXY", "-i", "*", "-b", "9080")
    pod.iptables(*line)
    pod.iptables(*line)
    with serving(pod, 15001, 15006, 9080, transparent=True):
        assert pod.connect(0, POD4, 9080, pod.peer) == f"15006 {POD4} 9080 {PEER4}"
        assert pod.connect(0, POD6, 9080, pod.peer) == f"15006 {POD6} 9080 {PEER6}"
        assert pod.connect(0, "10.96.0.10", 9080) == f"15001 10.96.0.10 9080 {POD4}"
    assert run("ip", "-n", pod.pod, "rule", "show", "fwmark", "1337").count("lookup 133") == 1
    pod.iptables("--cleanup-only")
    assert "ISTIO" not in pod.saved() + pod.saved("ip6tables-save")
    assert "133" not in run("ip", "-n", pod.pod, "rule", "show")
    assert run("ip", "-n", pod.pod, "route", "show", "table", "all").count("table 133") == 0
