"""`tidegate demo bookinfo`: flags, the choice of walls, and the life of one run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from tidegate.demo import dataplane
from tidegate.demo.checks import Check, check_page, run_checks
from tidegate.demo.host import network
from tidegate.demo.host.leftovers import PREFIX, Run, sweep
from tidegate.demo.mesh import Mesh
from tidegate.demo.plan import Plan, make_plan
from tidegate.demo.screen import Screen
from tidegate.demo.steps import walk
from tidegate.errors import TidegateError, UsageError
from tidegate.flags import Flag, help_text, parse

DEMO_FLAGS: Final = (
    Flag("--check", "try everything out, print one JSON object and exit with 0 or 1", False, "switch"),
    Flag("--data-plane", "tidegate, envoy, or the path of a program with Envoy's command line", "tidegate"),
    Flag("--http2", "HTTP/2 between the sidecars (h2UpgradePolicy: UPGRADE for the mesh)", False, "switch"),
    Flag("--rules", "files with VirtualServices and DestinationRules; saving one applies it at once", (), "list"),
    Flag("--isolation", "namespaces (needs root), loopback, or whichever of them works", "auto",
         choices=("auto", "namespaces", "loopback")),
    Flag("--ingress-address", "address of the ingress", "127.0.0.1"),
    Flag("--ingress-port", "port of the ingress; the next free one if it is taken", 8080, "port"),
    Flag("--for", "end after so long; else at once, or on a terminal with Ctrl-C", -1.0, "seconds"),
    Flag("--help", "this page", False, "switch", short="-h"),
)  # fmt: skip

#: The seed's own range first; then others, should that be in use here.
_SUBNETS: Final = ("192.168.206.0/24", "10.206.206.0/24", "172.30.206.0/24", "198.18.206.0/24")


class _Stop(BaseException):
    """A signal asked the demo to end. Not an `Exception`, so that nothing on the way takes it for a failure."""

    def __init__(self, number: int) -> None:
        self.number = number


@dataclass(frozen=True)
class _Settings:
    check: bool
    data_plane: str
    binary: str
    http2: bool
    rules: tuple[Path, ...]
    isolation: str
    ingress_address: str
    ingress_port: int
    seconds: float | None


def _settings(argv: Sequence[str]) -> _Settings | str:
    parsed = parse(DEMO_FLAGS, argv)
    if parsed.switch("help") or not argv:
        about = "Istio's Bookinfo on this machine: control plane, agents, redirection and data plane, no Kubernetes."
        return help_text("tidegate demo bookinfo [flags]", about, DEMO_FLAGS)
    if parsed.positional[:1] != ("bookinfo",):
        raise UsageError(parsed.positional[0] if parsed.positional else "", "the demo is called bookinfo")
    # `--rules a.yaml b.yaml`, as a shell expands `--rules rules/*.yaml`.
    rules = tuple(Path(item) for item in (*parsed.items("rules"), *parsed.positional[1:]))
    for file in rules:
        if not file.is_file():
            raise UsageError("--rules", f"{file} is not a file")
    seconds = parsed.seconds("for")
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    return _Settings(
        check=parsed.switch("check"),
        data_plane=parsed.text("data-plane"),
        binary=dataplane.find(parsed.text("data-plane")),
        http2=parsed.switch("http2"),
        rules=rules,
        isolation=parsed.text("isolation"),
        ingress_address=parsed.text("ingress-address"),
        ingress_port=parsed.number("ingress-port"),
        seconds=seconds if seconds >= 0 else None if interactive else 0.0,
    )


def _isolated(wanted: str) -> bool:
    if wanted == "loopback":
        return False
    able = os.geteuid() == 0 and network.usable(f"{PREFIX}{os.getpid():x}-")
    if wanted == "namespaces" and not able:
        raise UsageError("--isolation", "network namespaces need root with NET_ADMIN and SYS_ADMIN")
    return able


def _free_ports(count: int) -> list[int]:
    """Ports nobody has right now; all held at once, so that they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _loopback_network() -> str:
    """A corner of 127/8 without another demo in it."""
    for octet in range(206, 256):
        if _is_free(f"127.{octet}.0.1", 15010) and _is_free(f"127.{octet}.0.1", 9093):
            return f"127.{octet}.0"
    raise UsageError("", "no free loopback addresses")


def _plan(settings: _Settings, run: Run) -> Plan:
    isolated = _isolated(settings.isolation)
    subnet = str(network.free_subnet(_SUBNETS).network_address) if isolated else ""
    candidates = range(settings.ingress_port, min(settings.ingress_port + 200, 65536))
    port = next((port for port in candidates if _is_free(settings.ingress_address, port)), 0)
    if not port:
        raise UsageError("--ingress-port", f"{settings.ingress_port} and the 200 ports after it are taken")
    return make_plan(
        isolated=isolated,
        run_id=run.id,
        prefix=PREFIX,
        network=subnet.rpartition(".")[0] if isolated else _loopback_network(),
        ports=_free_ports(16),
        ingress_bind=settings.ingress_address,
        ingress_port=port,
        http2=settings.http2,
    )


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP end the demo in order; while it tidies up, further ones are ignored."""

    def stop(number: int, _: FrameType | None) -> None:
        for other in _ENDING:
            signal.signal(other, signal.SIG_IGN)
        raise _Stop(number)

    before = {number: signal.signal(number, stop) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _show(mesh: Mesh, screen: Screen) -> bool:
    """The page and the thirteen steps."""
    screen.title("productpage -> details, step by step")
    screen.note("one call is made; proxies write their access logs out every 10 s")
    steps = walk(mesh)
    screen.steps(steps)
    page = check_page(mesh)
    screen.title("The page")
    screen.check(page)
    screen.note(f"http://{mesh.plan.ingress_bind}:{mesh.plan.ingress_port}/productpage")
    return page.ok and all(step.ok for step in steps)


def _report(settings: _Settings, plan: Plan, checks: Sequence[Check], error: str, seconds: float) -> dict[str, object]:
    return {
        "ok": not error and len(checks) == 5 + plan.http2 and all(check.ok for check in checks),
        "data_plane": settings.data_plane,
        "isolation": "namespaces" if plan.isolated else "loopback",
        "between_sidecars": "HTTP/2" if plan.http2 else "HTTP/1.1",
        "seconds": round(seconds, 1),
        **({"error": error} if error else {}),
        "checks": {check.name: {"ok": check.ok, "summary": check.summary, **check.figures} for check in checks},
    }


def _serve(mesh: Mesh, settings: _Settings, screen: Screen) -> None:
    """Keep the mesh up as long as it is wanted."""
    screen.title("Serving" if settings.seconds is None else f"Serving for {settings.seconds:g} s")
    screen.note(f"rules: {mesh.config} (files written there apply at once)")
    screen.note(f"logs:  {mesh.logs}")
    screen.note(f"debug: http://{mesh.plan.discovery_ip}:{mesh.plan.discovery_web_port}/debug")
    if settings.seconds is None:
        screen.note("Ctrl-C ends it")
    deadline = None if settings.seconds is None else time.monotonic() + settings.seconds
    while deadline is None or time.monotonic() < deadline:
        mesh.tend()
        time.sleep(0.2)


def _live(mesh: Mesh, settings: _Settings, screen: Screen) -> bool:
    """From nothing to the end of the run; whether all that was shown was right."""
    where = "network namespaces" if mesh.plan.isolated else "loopback"
    version = " · HTTP/2 between the sidecars" if settings.http2 else ""
    screen.title(f"tidegate demo bookinfo · data plane {settings.data_plane} · {where}{version}")
    mesh.up(screen.ready)
    good = _show(mesh, screen)
    if settings.rules:
        mesh.use_rule_files(settings.rules)
        screen.title("Rules")
        screen.note(f"in force, and again whenever they are saved: {', '.join(map(str, settings.rules))}")
    if settings.seconds != 0:
        _serve(mesh, settings, screen)
    return good


def _check(mesh: Mesh, settings: _Settings, screen: Screen) -> bool:
    """`--check`: the same mesh, its trial and one JSON object."""
    begin, checks, error = time.monotonic(), list[Check](), ""

    def done(check: Check) -> None:
        checks.append(check)
        screen.check(check)

    try:
        mesh.up(screen.ready)
        run_checks(mesh, done)
    except Exception as problem:
        # Whatever it was, whoever reads the JSON is to find it there.
        error = str(problem) if isinstance(problem, TidegateError) else repr(problem)
        screen.warn(error)
    report = _report(settings, mesh.plan, checks, error, time.monotonic() - begin)
    sys.stdout.write(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return bool(report["ok"])


def main(argv: Sequence[str]) -> int:
    """The entry point of `tidegate demo`."""
    settings = _settings(argv)
    if isinstance(settings, str):
        sys.stdout.write(settings)
        return 0
    screen = Screen(sys.stderr if settings.check else sys.stdout)
    try:
        with _signals():
            swept = sweep()
            if swept:
                screen.note(f"tidied up after {swept} demo(s) that were killed")
            run = Run()
            mesh: Mesh | None = None
            try:
                mesh = Mesh(_plan(settings, run), run, settings.binary, screen.warn)
                good = (_check if settings.check else _live)(mesh, settings, screen)
            finally:
                for number in _ENDING:
                    signal.signal(number, signal.SIG_IGN)
                if mesh is not None:
                    mesh.down()
                else:
                    run.remove()
    except _Stop as stop:
        # On a terminal Ctrl-C is how the demo is meant to end.
        return 0 if stop.number == signal.SIGINT and settings.seconds is None else 128 + stop.number
    return 0 if good else 1
